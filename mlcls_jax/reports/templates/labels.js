const table = document.querySelector("#classes"), heads = [...table.tHead.rows[0].cells];
const rows = [...table.tBodies[0].rows], NAME = 1;
const text = (row, i) => row.cells[i].textContent;
const number = (row, i) => Number(text(row, i).replaceAll(",", ""));
const compare = (a, b) => isNaN(a) || isNaN(b) ? 0 : a - b;
heads.forEach((head, i) => head.firstElementChild.addEventListener("click", () => {
  const before = head.getAttribute("aria-sort");
  const rising = before ? before === "descending" : i <= NAME;
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const key = row => i === NAME ? text(row, i) : number(row, i);
  const keys = new Map(rows.map(row => [row, key(row)]));
  rows.sort((a, b) => i === NAME
    ? (rising ? 1 : -1) * keys.get(a).localeCompare(keys.get(b))
    : isNaN(keys.get(a)) - isNaN(keys.get(b))
      || (rising ? 1 : -1) * compare(keys.get(a), keys.get(b)));
  table.tBodies[0].append(...rows);
}));
document.querySelector("#filter").addEventListener("input", event => {
  const typed = event.target.value.toLowerCase();
  for (const row of rows) row.hidden = !text(row, NAME).toLowerCase().includes(typed);
});
