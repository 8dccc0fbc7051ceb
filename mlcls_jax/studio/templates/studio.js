"use strict";
const $ = (id) => document.getElementById(id);
const MAX_CHOSEN = 500, KEPT_ROWS = 4000, KEPT_UNDO = 500;
const MAX_BYTES = 20 * 2 ** 20;  // of a picture
const VALUES = ["name", "words", "list", "label", "value", "model", "low", "high", "fault", "below", "sort"];
const FLAGS = ["disagree", "differ", "changed", "queued", "twins", "falling"];
const DIGITS = "1234567890";
const WORDS = { 1: "present", 0: "absent", "-1": "not sure" };

let state = null;              // what the server tells of data set, model and jobs
let found = new Int32Array();  // rows that pass the filters, in order
let at = 0;                    // position in `found` of the current image
let anchor = 0;                // where a choice of several began
let near = {};                 // what images are sorted by: {similar: row} or {picture: its name}
let page = 0;                  // tens of labels before those that have the numbers
let revision = 0;
let looked = null;             // label whose evidence is drawn
let zoom = 1;
const chosen = new Set();      // rows
const rows = new Map();        // row → what the grid shows of it
const cells = new Map();       // position → element

// A window keeps its name and what it may undo when it is loaded again.
const own = JSON.parse(sessionStorage.getItem("studio") ?? "null")
  ?? { window: Array.from(crypto.getRandomValues(new Uint8Array(8)), (n) => n.toString(16)).join(""),
    undo: [], redo: [] };
const keep = () => sessionStorage.setItem("studio", JSON.stringify(own));

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").className = isError ? "error" : "";
}

async function ask(path, body) {
  const options = body === undefined ? {}
    : body instanceof Blob
      ? { method: "POST", body, headers: { "Content-Type": "application/octet-stream" } }
      : { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}
const json = async (path, body) => (await ask(path, body)).json();

function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;  // never HTML: names may be anything
  return element;
}

// ---- what is shown ----

function query() {
  const asked = new URLSearchParams();
  for (const name of VALUES) if ($(name).value !== "") asked.set(name, $(name).value);
  for (const name of FLAGS) if ($(name).checked) asked.set(name, "1");
  for (const [name, value] of Object.entries(near)) asked.set(name, value);
  return asked;
}

function restore() {
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const name of VALUES) if (asked.has(name)) $(name).value = asked.get(name);
  for (const name of FLAGS) $(name).checked = asked.get(name) === "1";
  near = Object.fromEntries([...asked].filter(([name]) => ["similar", "picture"].includes(name)));
  if (!location.hash && state.queue) { $("queued").checked = true; $("sort").value = "queue"; }
}

let asking = 0;
async function search() {
  const mine = ++asking, asked = query();
  history.replaceState(null, "", `#${asked}`);
  $("unlike").hidden = !("similar" in near || "picture" in near || asked.has("words"));
  if (asked.has("below") || asked.get("sort") === "size") await begin("sizes");
  try {
    const answer = await ask(`find?${asked}`);
    const buffer = await answer.arrayBuffer();
    if (mine !== asking) return;
    found = new Int32Array(buffer);
  } catch (error) {
    if (mine === asking) say(error.message, true);
    return;
  }
  chosen.clear();
  at = anchor = 0;
  $("scroll").scrollTop = 0;
  layout();
  go(0);
  count();
}

function count() {
  const all = state.images.toLocaleString("en");
  $("count").textContent = found.length === state.images ? `${all} images`
    : `${found.length.toLocaleString("en")} of ${all} images`;
  $("empty").hidden = found.length > 0;
  $("write").disabled = !state.changed;
  $("write").textContent = state.changed ? `Write lists (${state.changed} images)` : "Write lists";
  $("undo").disabled = !own.undo.length;
  $("redo").disabled = !own.redo.length;
}

function like(what) {
  near = what;
  $("words").value = "";
  return search();
}
const unlike = () => like({});

// Sort by likeness to a picture from elsewhere.
async function look(file) {
  if (!file) return;
  try {
    if (file.size > MAX_BYTES) throw new Error(`more than ${MAX_BYTES / 2 ** 20} MB`);
    say(`Looking at ${file.name} …`);
    const { picture } = await json("picture", file);
    await like({ picture });
    say(`The images most like ${file.name} come first.`);
  } catch (error) { say(`${file.name}: ${error.message}`, true); }
}

// ---- the grid: only what is in sight is there ----

let columns = 1, width = 1, height = 1;
function layout() {
  const room = $("scroll").clientWidth;
  columns = Math.max(2, Math.floor(room / 170));
  width = room / columns;
  height = Math.round(width * 0.75) + 64;
  $("sheet").style.height = `${Math.ceil(found.length / columns) * height}px`;
  for (const cell of cells.values()) cell.remove();
  cells.clear();
  draw();
}

function draw() {
  const box = $("scroll"), top = Math.floor(box.scrollTop / height);
  const first = Math.max(0, (top - 1) * columns);
  const last = Math.min(found.length, (top + Math.ceil(box.clientHeight / height) + 2) * columns);
  for (const [i, cell] of cells) if (i < first || i >= last) { cell.remove(); cells.delete(i); }
  for (let i = first; i < last; i++) if (!cells.has(i)) place(i);
  clearTimeout(draw.later);
  draw.later = setTimeout(fill, 60);  // not what is only scrolled past
}

function place(i) {
  const cell = make("div", "cell"), inside = make("div");
  cell.id = `cell-${i}`;
  cell.setAttribute("role", "option");
  cell.setAttribute("aria-posinset", i + 1);
  cell.setAttribute("aria-setsize", found.length);
  Object.assign(cell.style, { left: `${(i % columns) * width}px`,
    top: `${Math.floor(i / columns) * height}px`, width: `${width}px`, height: `${height}px` });
  inside.append(make("div", "shot"), make("div", "chips"));
  cell.append(inside);
  cell.addEventListener("click", (event) => pick(i, event));
  cell.addEventListener("dblclick", () => { go(i); open(); });
  cells.set(i, cell);
  mark(i);
  // In their order: what reads the page aloud goes by it.
  const after = [...$("sheet").children].find((other) => Number(other.id.slice(5)) > i);
  $("sheet").insertBefore(cell, after ?? null);
}

async function fill() {
  const wanted = [...cells.keys()].map((i) => found[i]);
  await know(wanted.filter((row) => !rows.has(row)));
  for (const [i, cell] of cells) {
    const shot = cell.querySelector(".shot");
    if (!shot.firstChild) {
      const image = make("img");
      image.alt = "";
      image.addEventListener("error", () => shot.replaceChildren("cannot be read"));
      image.src = `thumbnail/${found[i]}`;
      shot.append(image);
    }
    mark(i);
  }
}

async function know(wanted) {
  if (!wanted.length) return;
  if (rows.size > KEPT_ROWS) rows.clear();
  for (let start = 0; start < wanted.length; start += 200)
    for (const told of await json(`rows?rows=${wanted.slice(start, start + 200).join(",")}`))
      rows.set(told.row, told);
}

const names = (labels) => labels.map((k) => state.labels[k]);

const model = () => Number($("model").value);  // whose scores count
const limitOf = (m, k) => state.models[m].thresholds[k];  // null: the model does not know the label

// Labels that the model contradicts.
function differing(told) {
  const m = model(), said = new Set(told.said[m]), is = new Set(told.present);
  if (!told.said[m]) return [];
  return [...new Set([...is, ...said])].filter((k) =>
    !told.unsure.includes(k) && is.has(k) !== said.has(k) && limitOf(m, k) !== null);
}

// Labels that one model reports, and another does not.
function parted(told) {
  const asked = told.said.flatMap((said, m) => (said ? [m] : []));
  return [...new Set(told.said.flatMap((said) => said ?? []))].filter((k) =>
    asked.some((m) => limitOf(m, k) !== null && !told.said[m].includes(k)));
}

function mark(i) {
  const cell = cells.get(i);
  if (!cell) return;
  const told = rows.get(found[i]);
  cell.classList.toggle("at", i === at);
  cell.setAttribute("aria-selected", chosen.has(found[i]));
  if (!told) return;
  const differs = differing(told), parts = parted(told);
  cell.querySelector(".chips").replaceChildren(...chips(told));
  cell.title = told.name;
  const lines = [told.name, `labels: ${names(told.present).join(", ") || "none"}`];
  if (told.unsure.length) lines.push(`not sure: ${names(told.unsure).join(", ")}`);
  if (differs.length) lines.push(`the model differs: ${names(differs).join(", ")}`);
  if (parts.length) lines.push(`the models differ: ${names(parts).join(", ")}`);
  cell.setAttribute("aria-label", lines.join("; "));
}

// The labels of an image, first those of which a model says otherwise; or only those that it has.
function chips(told, { own = false } = {}) {
  const fits = (k) => !own || valueOf(told, k) !== 0;
  const differs = differing(told).filter(fits), parts = parted(told).filter((k) => fits(k) && !differs.includes(k));
  const chip = (k, name, text, title) => {
    const made = make("bdi", `chip ${name}`, text.replace("_", () => state.labels[k]));
    made.title = `${state.labels[k]}: ${title}`;
    return made;
  };
  const isIn = (k) => told.present.includes(k);
  return [
    ...differs.map((k) => (isIn(k) ? chip(k, "differs", "_ −", "present, but the model says no")
      : chip(k, "differs", "_ +", "absent, but the model says yes"))),
    ...parts.map((k) => chip(k, isIn(k) ? "parted" : "parted absent", "_ ≠",
      `${WORDS[valueOf(told, k)]}; one model says yes, another no`)),
    ...told.present.filter((k) => !differs.includes(k) && !parts.includes(k)).map((k) => chip(k, "", "_", "present")),
    ...told.unsure.filter((k) => !parts.includes(k)).map((k) => chip(k, "unsure", "_?", "not sure"))];
}

// ---- going about ----

function go(i, { extend = false } = {}) {
  if (!found.length) { side(); return; }
  const before = at;
  at = Math.max(0, Math.min(found.length - 1, i));
  if (extend) {
    chosen.clear();
    const [low, high] = [Math.min(anchor, at), Math.max(anchor, at)];
    for (let k = low; k <= high && chosen.size < MAX_CHOSEN; k++) chosen.add(found[k]);
    for (const k of cells.keys()) mark(k);
  } else anchor = at;
  const box = $("scroll"), top = Math.floor(at / columns) * height;
  if (top < box.scrollTop) box.scrollTop = top;
  if (top + height > box.scrollTop + box.clientHeight) box.scrollTop = top + height - box.clientHeight;
  draw();
  mark(before);
  mark(at);
  $("sheet").setAttribute("aria-activedescendant", `cell-${at}`);
  looked = null;
  if (!$("viewer").hidden) show();
  side();
}

function pick(i, event) {
  if (event.shiftKey) go(i, { extend: true });
  else {
    if (event.ctrlKey || event.metaKey) choose(found[i]);
    else { chosen.clear(); for (const k of cells.keys()) mark(k); }
    go(i);
  }
  $("sheet").focus({ preventScroll: true });
}

function choose(row) {
  if (!chosen.delete(row) && chosen.size < MAX_CHOSEN) chosen.add(row);
}

function open() {
  if (!found.length) return;
  document.body.classList.add("viewing");
  $("viewer").hidden = false;
  $("scroll").hidden = true;
  show();
  side();
  $("frame").focus();
}

function close() {
  document.body.classList.remove("viewing");
  $("viewer").hidden = true;
  $("scroll").hidden = false;
  looked = null;
  layout();
  go(at);
  $("sheet").focus({ preventScroll: true });
}

function show() {
  const row = found[at], told = rows.get(row);
  zoom = 1;
  scale(1);
  $("picture").alt = told ? told.name : "";
  $("picture").src = looked === null ? `image/${row}` : `evidence/${row}/${looked}?model=${model()}`;
  if (looked !== null) say(`Asking ${state.models[model()].name} where it looks for ${state.labels[looked]} …`);
}

// What the picture of where a model looked has become, which takes a while the first time.
function shown(event) {
  if (looked === null) return;
  const isThere = event.type === "load", name = state.labels[looked];
  say(isThere ? `Red: where ${state.models[model()].name} looked for ${name}.`
    : `It cannot be told where ${name} is.`, !isThere);
}

function scale(factor) {
  zoom = Math.max(1, Math.min(16, zoom * factor));
  const size = zoom > 1 ? `${100 * zoom}%` : "";
  Object.assign($("picture").style, { width: size, height: size });
}

// ---- labels, scores and facts of the current image ----

let items = [];  // an element for every label
function list() {
  items = state.labels.map((name, k) => {
    const item = make("li"), line = make("div", "label"), set = make("button", "set");
    set.type = "button";
    set.append(make("kbd"), make("span", "mark"), make("bdi", "", name));
    set.addEventListener("click", (event) => toggle(k, event.shiftKey));
    line.append(set, make("span", "score"));
    item.append(line);
    return item;
  });
  $("labels").replaceChildren(...items);
  number();
}

function numbered() {
  return items.flatMap((item, k) => (item.hidden ? [] : [k])).slice(10 * page, 10 * page + 10);
}

function number() {
  const wanted = $("wanted").value.toLowerCase();
  items.forEach((item, k) => {
    item.hidden = !state.labels[k].toLowerCase().includes(wanted);
    item.querySelector("kbd").textContent = "";
  });
  numbered().forEach((k, i) => { items[k].querySelector("kbd").textContent = DIGITS[i]; });
}

const affected = () => (chosen.size && $("viewer").hidden ? [...chosen] : found.length ? [found[at]] : []);
const valueOf = (told, k) => (told.present.includes(k) ? 1 : told.unsure.includes(k) ? -1 : 0);

let details = null;  // of the current image
async function side() {
  const row = found[at];
  $("chosen").textContent = chosen.size && $("viewer").hidden
    ? `${chosen.size} images are chosen: keys change all of them` : "";
  if (row === undefined) { $("current").textContent = "No image"; $("said").replaceChildren(); return; }
  try {
    const told = await json(`row/${row}`);
    if (found[at] !== row) return;
    details = told;
    rows.set(row, { ...rows.get(row), ...told });
  } catch (error) { say(error.message, true); return; }
  $("current").textContent = details.name;
  $("said").replaceChildren(...chips(details, { own: true }));
  items.forEach((item, k) => mend(item, k));
  $("facts").replaceChildren(...facts());
}

function mend(item, k) {
  const value = valueOf(details, k), set = item.querySelector(".set");
  set.setAttribute("aria-pressed", value === 1 ? "true" : value < 0 ? "mixed" : "false");
  item.querySelector(".mark").textContent = value === 1 ? "✓" : value < 0 ? "?" : "";
  item.classList.toggle("differs", differing(details).includes(k));  // by numbers not rounded
  item.classList.toggle("parted", parted(details).includes(k));
  for (const old of item.querySelectorAll(".bar, .where")) old.remove();
  const texts = [];
  for (const [m, scores] of details.scores.entries()) {
    const score = scores[k], limit = limitOf(m, k);
    texts.push(score === null || limit === null ? "–" : score.toFixed(2));
    if (texts[m] === "–") continue;
    const bar = make("div", m === model() ? "bar" : "bar other"), full = make("i"), line = make("b");
    bar.setAttribute("aria-hidden", "true");
    bar.title = `${state.models[m].name}: reported above ${limit.toFixed(3)}`;
    full.style.width = `${100 * score}%`;
    line.style.left = `${100 * limit}%`;
    bar.append(full, line);
    item.append(bar);
  }
  item.querySelector(".score").textContent = texts.some((text) => text !== "–") ? texts.join(" · ") : "";
  if ($("viewer").hidden || !state.models[model()]?.explains || limitOf(model(), k) === null) return;
  const where = make("button", "where", "Where?");
  where.type = "button";
  where.setAttribute("aria-label", `Where is ${state.labels[k]}?`);
  where.setAttribute("aria-pressed", looked === k);
  where.addEventListener("click", () => { looked = looked === k ? null : k; show(); side(); });
  item.querySelector(".label").append(where);
}

function facts() {
  const lines = [make("p", "", `In ${details.list}${details.size[0] ? `, ${details.size.join(" × ")} pixels` : ""}`)];
  const section = (title, texts) => {
    if (!texts.length) return;
    const box = make("ul");
    box.append(...texts.map((text) => make("li", "", text)));
    lines.push(make("b", "", title), box);
  };
  section("Why it is in the queue", details.queue.map((line) =>
    Object.entries(line).filter(([, value]) => value).map(([name, value]) => `${name}: ${value}`).join(", ")));
  section("Faults", details.faults);
  section("History", details.history.toReversed().map((change) =>
    `${new Date(change.time).toLocaleString()}: ${change.label} ${WORDS[change.old]} → ${WORDS[change.new]}`));
  return lines;
}

// ---- mending: one change after the other, each confirmed by the server ----

let chain = Promise.resolve();
function inTurn(work) {
  chain = chain.then(work).catch((error) => say(`Not changed: ${error.message}`, true));
  return chain;
}

function toggle(k, unsure = false) {
  const wanted = affected();
  return inTurn(async () => {
    await know(wanted.filter((row) => !rows.has(row)));
    const on = unsure ? -1 : 1;
    const values = wanted.map((row) => [row, valueOf(rows.get(row), k)]);
    const value = values.every(([, old]) => old === on) ? 0 : on;
    const batch = values.filter(([, old]) => old !== value).map(([row, old]) => [row, k, old, value]);
    await mendAll(batch, WORDS[value]);
  });
}

// What nobody has looked at is absent; or present, where a label that is a kind of it is.
function settle() {
  const wanted = affected(), above = (k) => state.parents[k] ?? -1;
  return inTurn(async () => {
    await know(wanted.filter((row) => !rows.has(row)));
    await mendAll(wanted.flatMap((row) => {
      const { present, unsure } = rows.get(row), implied = new Set();
      for (let k of present) while ((k = above(k)) >= 0) implied.add(k);
      return unsure.map((k) => [row, k, -1, implied.has(k) ? 1 : 0]);
    }), "absent", false);
  });
}

async function mendAll(batch, word, follows = true) {
  const [done, implied] = await send(batch, follows);
  if (!done.length) return;
  own.undo = [...own.undo, [...done, ...implied]].slice(-KEPT_UNDO);
  own.redo = [];
  keep();
  const also = new Map();  // what followed → cells
  for (const cell of implied) {
    const text = `${state.labels[cell[1]]} ${WORDS[cell[3]]}`;
    also.set(text, [...(also.get(text) ?? []), cell]);
  }
  const texts = [...also].map(([text, { length }]) => (done.length > 1 ? `${text} (${length})` : text));
  say(`${told(done)}: ${word}.${texts.length ? ` With it, by the groups of labels: ${texts.join(", ")}.` : ""}`);
  count();
}

function told(batch) {
  const labels = [...new Set(batch.map(([, k]) => k))], images = new Set(batch.map(([row]) => row)).size;
  const named = labels.length === 1 ? state.labels[labels[0]] : `${labels.length} labels`;
  return `${named}, ${images === 1 ? "1 image" : `${images} images`}`;
}

// The part of a batch that was accepted, another window may have been faster; and what followed.
async function send(batch, follows = false) {
  if (!batch.length) return [[], []];
  const { conflicts, implied } = await json("change", { window: own.window, cells: batch, follows });
  const lost = new Set(conflicts.map(([row, k]) => `${row} ${k}`));
  const done = batch.filter(([row, k]) => !lost.has(`${row} ${k}`));
  for (const [row, k, value] of conflicts) put(row, k, value);
  for (const [row, k, , value] of [...done, ...implied]) put(row, k, value);
  await poll();
  side();
  if (lost.size) say(`Another window has changed ${lost.size} of these meanwhile; look again.`, true);
  return [done, implied];
}

function put(row, k, value) {
  const known = rows.get(row);
  if (!known) return;
  const without = (labels) => labels.filter((other) => other !== k);
  known.present = without(known.present);
  known.unsure = without(known.unsure);
  if (value === 1) known.present = [...known.present, k].sort((a, b) => a - b);
  if (value < 0) known.unsure = [...known.unsure, k].sort((a, b) => a - b);
  for (const i of cells.keys()) if (found[i] === row) mark(i);
}

const turned = (batch) => batch.map(([row, k, before, after]) => [row, k, after, before]).reverse();

function back(from, to, word) {
  return inTurn(async () => {
    const batch = own[from].at(-1);
    if (!batch) return;
    const [done] = await send(turned(batch));
    own[from].pop();
    if (done.length) own[to].push(done);
    keep();
    if (done.length === batch.length) say(`${word}: ${told(batch)}.`);
    count();
  });
}

async function poll() {
  const news = await json(`changes?since=${revision}`);
  revision = news.revision;
  state.changed = news.changed;
  for (const [row, k, value] of news.cells) put(row, k, value);
  if (news.cells.some(([row]) => row === found[at])) side();
  count();
}

async function write() {
  await inTurn(async () => {
    const { backups } = await json("write", { window: own.window });
    const listed = Object.entries(backups).map(([name, backup]) => `${name} (before: ${backup})`);
    say(listed.length ? `Written: ${listed.join(", ")}.` : "The lists had these labels already.");
    await poll();
  });
}

// ---- jobs ----

async function begin(name) {
  if (state.jobs[name].state === "done" && name !== "check") return;
  state.jobs[name] = await json("job", { name });
  tell();
}

function tell() {
  const jobs = Object.values(state.jobs);
  const lines = jobs.filter((job) => job.state === "running").map((job) =>
    `${job.title} …${job.total ? ` ${job.done.toLocaleString("en")} of ${job.total.toLocaleString("en")}` : ""}`);
  const failed = jobs.filter((job) => job.state === "failed").map((job) => `${job.title}: ${job.error}`);
  $("job").textContent = [...failed, ...lines].join("  ");
  $("job").hidden = !lines.length && !failed.length;
}

async function refresh() {
  const before = state;
  state = await json("state");
  tell();
  for (const name of Object.keys(state.jobs)) {
    const ended = before?.jobs[name].state === "running" && state.jobs[name].state === "done";
    if (ended) {
      rows.clear();
      say(`${state.jobs[name].title}: done.`);
      if (name === "sizes" || !$("unlike").hidden) search(); else { fill(); side(); }
    }
  }
  document.body.classList.toggle("without-model", !state.models.length);
  document.body.classList.toggle("without-models", state.models.length < 2);
  document.body.classList.toggle("without-words", !("words" in state.jobs));
  document.body.classList.toggle("without-pictures", !state.models.length && !("words" in state.jobs));
  document.body.classList.toggle("without-queue", !state.queue);
  const fault = $("fault"), value = fault.value;
  fault.replaceChildren(...[...fault.options].slice(0, 2),
    ...state.faults.map(([name, title, n]) => choice(name, `${title} (${n})`)));
  fault.value = value;
}

function choice(value, text) {
  const made = make("option", "", text);
  made.value = value;
  return made;
}

async function watch() {
  try {
    if (!document.hidden) {
      await refresh();
      await inTurn(poll);
    }
    if ($("status").textContent.startsWith("The studio does not answer")) say("");
  } catch { say("The studio does not answer: is it still running? Nothing that was confirmed is lost.", true); }
  setTimeout(watch, 2000);
}

// ---- keys ----

const MOVES = { ArrowLeft: () => at - 1, ArrowRight: () => at + 1,
  ArrowUp: () => at - step(), ArrowDown: () => at + step(),
  PageUp: () => at - 4 * step(), PageDown: () => at + 4 * step(),
  Home: () => 0, End: () => found.length - 1 };
const step = () => ($("viewer").hidden ? columns : 1);

addEventListener("keydown", (event) => {
  if ($("keys").open) return;
  const isTyping = event.target.matches("input:not([type=checkbox]), select, textarea");
  if (isTyping) {
    if (event.key === "Escape") $("sheet").focus();
    if (event.key === "Enter" && event.target === $("wanted") && numbered().length) {
      toggle(numbered()[0]);
      event.preventDefault();
    }
    return;
  }
  if (event.altKey) return;
  if (press(event)) event.preventDefault();
});

function press(event) {
  const { key, shiftKey, code } = event, isControl = event.ctrlKey || event.metaKey;
  const digit = code.startsWith("Digit") || code.startsWith("Numpad") ? DIGITS.indexOf(code.at(-1)) : -1;
  if (isControl) {
    if (key === "a" && $("viewer").hidden) { anchor = 0; const here = at; go(Math.min(found.length, MAX_CHOSEN) - 1, { extend: true }); at = here; side(); return true; }
    if (key.toLowerCase() === "z") { undo(shiftKey); return true; }
    if (key.toLowerCase() === "y") { undo(true); return true; }
    return false;
  }
  if (digit >= 0) {
    const k = numbered()[digit];
    if (k !== undefined) toggle(k, shiftKey);
    return true;
  }
  if (key in MOVES && !event.target.matches("summary")) {
    go(MOVES[key](), { extend: shiftKey && $("viewer").hidden });
    return true;
  }
  const isOnButton = event.target.matches("button, summary, input");
  if (key === " " && !isOnButton) { if (found.length) { choose(found[at]); mark(at); side(); } return true; }
  if (key === "Enter" && !isOnButton) { if ($("viewer").hidden) open(); return true; }
  const act = { z: () => undo(false), Z: () => undo(true), "?": () => $("keys").showModal(),
    "/": () => $("name").focus(), w: () => $("words").focus(), l: () => $("wanted").focus(), "+": () => scale(1.5),
    "-": () => scale(1 / 1.5), "[": () => turn(-1), "]": () => turn(1), x: settle, Escape: leave }[key];
  act?.();
  return Boolean(act);
}

const undo = (again) => (again ? back("redo", "undo", "Done again") : back("undo", "redo", "Undone"));

function turn(by) {
  const shown = items.filter((item) => !item.hidden).length;
  page = Math.max(0, Math.min(Math.ceil(shown / 10) - 1, page + by));
  number();
  items[numbered()[0]]?.scrollIntoView({ block: "nearest" });
}

function leave() {
  if (!$("viewer").hidden) { close(); return; }
  chosen.clear();
  for (const i of cells.keys()) mark(i);
  side();
}

// ---- start ----

async function start() {
  state = await json("state");
  document.title = `${state.name} – studio`;
  $("title").textContent = state.name;
  revision = state.revision;
  for (const [name, n] of Object.entries(state.lists)) $("list").append(choice(name, `${name} (${n.toLocaleString("en")})`));
  state.labels.forEach((name, k) => $("label").append(choice(k, name)));
  state.models.forEach(({ name }, m) => $("model").append(choice(m || "", name)));
  $("models").textContent = `Scores: ${state.models.map(({ name }) => name).join(" · ")}`;
  list();
  restore();
  await refresh();
  await search();
  if (state.left_out.length) say(`Lines that are left out, see mlcls check: ${state.left_out.join("; ")}`, true);
  $("sheet").focus({ preventScroll: true });
  setTimeout(watch, 500);
}

let typing = null;
$("filters").addEventListener("input", (event) => {
  if (event.target === $("file") || (event.target === $("words") && event.target.value)) return;
  if (event.target === $("label")) {  // a label alone would filter nothing
    const label = $("label").value, had = new URLSearchParams(location.hash.slice(1)).has("label");
    if (had !== (label !== "")) $("value").value = label && ($("value").value || "1");
  }
  clearTimeout(typing);
  typing = setTimeout(search, event.target.type === "search" || event.target.type === "number" ? 200 : 0);
});
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("clear").addEventListener("click", () => {
  for (const name of VALUES) $(name).value = name === "sort" ? "list" : "";
  for (const name of FLAGS) $(name).checked = false;
  unlike();
});
$("words").addEventListener("change", () => { near = {}; search(); });
$("check").addEventListener("click", () => begin("check"));
$("unlike").addEventListener("click", unlike);
$("similar").addEventListener("click", () => { const row = found[at]; close(); like({ similar: row }); });
$("pick").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => { look($("file").files[0]); $("file").value = ""; });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => { event.preventDefault(); look(event.dataTransfer.files[0]); });
$("undo").addEventListener("click", () => undo(false));
$("redo").addEventListener("click", () => undo(true));
$("write").addEventListener("click", write);
$("help").addEventListener("click", () => $("keys").showModal());
$("keys-close").addEventListener("click", () => $("keys").close());
$("close").addEventListener("click", close);
$("before").addEventListener("click", () => go(at - 1));
$("after").addEventListener("click", () => go(at + 1));
$("larger").addEventListener("click", () => scale(1.5));
$("smaller").addEventListener("click", () => scale(1 / 1.5));
for (const kind of ["load", "error"]) $("picture").addEventListener(kind, shown);
$("frame").addEventListener("dblclick", () => scale(zoom > 1 ? 1 / zoom : 3));
$("wanted").addEventListener("input", () => { page = 0; number(); });
$("scroll").addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
new ResizeObserver(() => { if (state && !$("scroll").hidden) layout(); }).observe($("scroll"));
start().catch((error) => say(`The studio does not answer: ${error.message}`, true));
