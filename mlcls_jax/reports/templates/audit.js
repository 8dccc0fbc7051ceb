{% include "labels.js" %}
const boxes = [...document.querySelectorAll("input[data-image]")];
const ticked = () => boxes.filter(box => box.checked);
const cell = value => /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
const NAMES = ["image", "label", "given", "suggested", "confidence", "reason"];
const count = () => document.querySelector("#number").textContent = ticked().length;
boxes.forEach(box => box.addEventListener("change", count));
count(); // browsers keep ticks over a reload
document.querySelector("#save").addEventListener("click", () => {
  const rows = ticked().map(box => [...NAMES.map(name => cell(box.dataset[name])), "1"]);
  const text = [[...NAMES, "confirmed"], ...rows].map(row => row.join(",")).join("\n") + "\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
  link.download = "confirmed.csv";
  link.click();
});
