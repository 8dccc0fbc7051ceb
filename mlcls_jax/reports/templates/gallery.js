const $ = id => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const PAGE = 60, SHOWN = 8, WORDS = ["", "missed", "wrong", "right", "reported"];
const COLOURS = ["", "warning", "error", "passed", "note"];
const rows = data.rows.map(([name, width, height, more, told], at) =>
  ({name, width, height, more, told, at}));
let found = [], first = 0;

const above = ([k, score]) => score - (data.limits ? data.limits[k] : 0);
const gap = one => one[2] === 2 ? above(one) : one[2] === 1 ? -above(one) : -Math.abs(above(one));
const most = (told, of) => told.length ? Math.max(...told.map(of)) : -Infinity;
const collator = new Intl.Collator(undefined, {numeric: true});
const byName = (a, b) => collator.compare(a.row.name, b.row.name);

function find() {
  const [label, kind, order] = ["label", "kind", "order"].map(id => $(id).value);
  const typed = $("name").value.toLowerCase(), of = order.endsWith("gap") ? gap : one => one[1];
  const is = ([k, , state]) => (label === "" || k === Number(label)) && (!kind || kind.includes(state));
  found = [];
  for (const row of rows) {
    const told = row.told.filter(is);
    if ((told.length || !(label + kind)) && row.name.toLowerCase().includes(typed))
      found.push({row, told: [...told, ...row.told.filter(one => !is(one))], key: most(told, of)});
  }
  const sign = order.startsWith("-") ? 1 : -1;
  found.sort(order === "name" ? byName : (a, b) => a.key === b.key ? 0 : sign * (a.key - b.key));
  first = 0;
  show();
}

function element(tag, text, named) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (named) made.className = named;
  return made;
}

function picture({width, height, at}) {
  const frame = element("div", width ? "" : "cannot be read", "frame");
  if (width) {
    const image = element("img", ""), cell = at % data.sheet, across = Math.sqrt(data.sheet);
    image.alt = ""; // the text below says it all
    image.style.cssText = `width:${width}px;height:${height}px;object-position:`
      + `${-(cell % across) * data.side}px ${-Math.floor(cell / across) * data.side}px`;
    image.src = `${Math.floor(at / data.sheet)}.jpg`;
    frame.append(image);
  }
  return frame;
}

function card({row, told}) {
  const item = document.createElement("li"), text = document.createElement("p");
  for (const [k, score, state] of told.slice(0, SHOWN))
    text.append(element("b", WORDS[state], COLOURS[state]), " ",
      element("bdi", data.labels[k]), ` ${score.toFixed(2)}`, document.createElement("br"));
  const more = row.more + Math.max(0, told.length - SHOWN);
  if (more) text.append(`and ${more} more labels`, document.createElement("br"));
  if (!row.told.length) text.append("no label, and none reported", document.createElement("br"));
  text.append(element("bdi", row.name, "faint"));
  item.append(picture(row), text);
  return item;
}

function show() {
  const last = Math.min(first + PAGE, found.length);
  $("images").replaceChildren(...found.slice(first, last).map(card));
  $("status").textContent = found.length
    ? `${first + 1} to ${last} of ${found.length} images` : "There is no such image.";
  $("before").disabled = !first;
  $("after").disabled = last >= found.length;
}

function turn(by) {
  const next = first + by * PAGE;
  if (next < 0 || next >= found.length) return;
  first = next;
  show();
  scrollTo(0, 0);
}

for (const id of ["label", "kind", "order", "name"]) $(id).addEventListener("input", find);
$("before").addEventListener("click", () => turn(-1));
$("after").addEventListener("click", () => turn(1));
document.querySelector("form").addEventListener("submit", event => event.preventDefault());
addEventListener("keydown", event => {
  const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  const isTyped = event.target.closest("input, select") || event.altKey || event.ctrlKey || event.metaKey;
  if (by && !isTyped) turn(by);
});
find();
