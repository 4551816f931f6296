"use strict";
const parts = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const KINDS = { all: "all", right: "right", wrong: "wrong", unsure: "unsure",
  disagreeing: "good settings disagree", leaked: "also in training",
  alike: "looks like one in training", suspected: "label looks wrong" };
const PAGE = 60;

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "polyline", "path", "text", "title"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// The headings of every table sort it.
function value(row, column) {
  const cell = row.cells[column];
  const text = (cell?.querySelector("[aria-label]")?.getAttribute("aria-label")
    ?? cell?.textContent ?? "").trim();
  const number = parseFloat(text.replace("−", "-").replace(/^[+<] ?/, ""));
  return [text, number];
}

function sort(table, heading) {
  const column = heading.cellIndex, body = table.tBodies[0];
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...body.rows].map((row) => [...value(row, column), row]);
  const full = rows.filter(([text]) => text !== "" && text !== "–");
  const numbers = full.every(([, number]) => !Number.isNaN(number));
  full.sort(([a, m], [b, n]) => (down ? -1 : 1) * (numbers ? m - n : a.localeCompare(b)));
  const empty = rows.filter(([text]) => text === "" || text === "–");
  body.append(...[...full, ...empty].map(([, , row]) => row));
}

for (const table of document.querySelectorAll("table")) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = make("button", {}, ...heading.childNodes);
    button.addEventListener("click", () => sort(table, heading));
    if (button.textContent.trim()) heading.append(button);
  }
}

// Settings. Picking one marks its learning curve.
const rows = [...byId("all").tBodies[0].rows];

byId("dataset").addEventListener("change", (event) => {
  const wanted = event.target.value;
  for (const row of rows) row.hidden = wanted !== "" && row.dataset.dataset !== wanted;
  for (const panel of byId("panels").children) {
    panel.hidden = wanted !== "" && panel.dataset.dataset !== wanted;
  }
});

function pick(row) {
  const again = row.classList.contains("picked");
  for (const other of document.querySelectorAll(".picked")) other.classList.remove("picked");
  const { dataset, line } = row.dataset;
  for (const curve of document.querySelectorAll("#panels polyline")) {
    const same = curve.dataset.dataset === dataset;
    const picked = !again && same && curve.dataset.line === line;
    curve.classList.toggle("picked", picked);
    curve.classList.toggle("dim", !again && same && !picked);
  }
  row.classList.toggle("picked", !again);
  byId("chosen").textContent = again ? "" : `Picked: ${row.cells[1].textContent}, `
    + `${row.cells[2].textContent}, on ${dataset}.`;
}

for (const row of rows) row.addEventListener("click", () => pick(row));

// Learning curves. Coordinates are those of the viewBox.
function panel({ dataset, lines }) {
  const [left, top, right, bottom] = [40, 8, 390, 200];
  const all = lines.flatMap(({ accuracies }) => accuracies);
  const always = lines[0].choice.share;
  const least = Math.floor(10 * Math.min(...all, always)) / 10;
  const epochs = lines[0].accuracies.length;
  const x = (epoch) => left + (right - left) * (epochs > 1 ? epoch / (epochs - 1) : 0.5);
  const y = (accuracy) => bottom - (bottom - top) * (accuracy - least) / (1 - least || 1);
  const svg = make("svg", { viewBox: "0 0 400 222", role: "img",
    "aria-label": `Learning curves of ${dataset}` });
  for (let tick = Math.round(10 * least); tick <= 10; tick++) {
    svg.append(make("path", { d: `M${left} ${y(tick / 10)}H${right}` }));
    svg.append(make("text", { x: 0, y: y(tick / 10) + 4 }, `${10 * tick} %`));
  }
  for (const epoch of new Set([0, epochs - 1])) {
    const anchor = epoch ? "end" : "start";
    svg.append(make("text", { x: x(epoch), y: 216, "text-anchor": anchor }, `epoch ${epoch + 1}`));
  }
  svg.append(make("path", { class: "always", d: `M${left} ${y(always)}H${right}` }));
  for (let i = lines.length - 1; i >= 0; i--) {  // the recommended on top
    const { accuracies, choice: { init } } = lines[i];
    const points = accuracies.map((accuracy, epoch) => `${x(epoch)},${y(accuracy)}`).join(" ");
    const last = accuracies[epochs - 1].toFixed(3);
    const row = rows.find((other) => other.dataset.dataset === dataset && Number(other.dataset.line) === i);
    svg.append(make("polyline", { points, class: `${init}${i ? "" : " first"}`,
      "data-dataset": dataset, "data-line": i },
      make("title", {}, `${row.cells[1].textContent}, ${init}: ${last} after the last epoch`)));
  }
  return make("figure", { "data-dataset": dataset }, make("figcaption", {}, dataset), svg);
}

byId("panels").append(...parts.map(panel));

// Test images.
let shown = [], gallery = null, limit = PAGE;

const wrong = (image, i) => image.predicted.length > 0 && image.predicted[i] !== image.label;
const answer = (image, i) => image.predicted.length
  ? `${wrong(image, i) ? "✗" : "✓"} ${gallery.classes[image.predicted[i]]} ${image.confidence[i]} %`
  : "used for training with this seed";

function options(select, named) {
  const before = select.value;
  select.replaceChildren(...named.map(([value, words]) => make("option", { value }, words)));
  if (named.some(([value]) => value === before)) select.value = before;
}

function choose() {
  ({ gallery } = parts.find(({ dataset }) => dataset === byId("whose").value));
  const count = (kind) => gallery.images.filter(({ kinds }) => kind === "all" || kinds.includes(kind)).length;
  options(byId("kind"), Object.entries(KINDS).filter(([kind]) => kind === "all" || count(kind))
    .map(([kind, words]) => [kind, `${words} (${count(kind)})`]));
  options(byId("class"), [["", "all"], ...gallery.classes.map((name, i) => [String(i), name])]);
  filter();
}

function filter() {
  const kind = byId("kind").value, label = byId("class").value;
  shown = gallery.images.filter((image) => (kind === "all" || image.kinds.includes(kind))
    && (label === "" || image.label === Number(label)));
  limit = PAGE;
  show();
}

function picture({ thumbnail, name }) {
  const element = make("img", { src: thumbnail, alt: name });
  element.addEventListener("load", () => element.classList.toggle("small", element.naturalWidth < 64));
  return element;
}

function show() {
  const { left, confidence_threshold: threshold } = gallery;
  const unsure = threshold === null ? " There are too few validation images to call any answer unsure."
    : ` Unsure: confidence below ${(100 * threshold).toFixed(0)} %, above which 2 % of answers on validation images are wrong.`;
  byId("count").textContent = `${shown.length} images.`
    + (left ? ` ${left} more test images do not fit in this page.` : "") + unsure;
  byId("images").replaceChildren(...shown.slice(0, limit).map((image, i) => {
    const button = make("button", {}, picture(image), make("span", {}, image.name),
      make("span", wrong(image, 0) ? { class: "no" } : {}, answer(image, 0)),
      make("span", {}, image.note));
    button.addEventListener("click", () => open(i));
    return button;
  }));
  byId("more").hidden = shown.length <= limit;
}

function open(i) {
  const image = shown[i], dialog = byId("dialog");
  dialog.dataset.place = i;
  const lines = image.predicted.map((_, s) => make("tr", {}, make("td", {}, gallery.settings[s]),
    make("td", wrong(image, s) ? { class: "no" } : {}, answer(image, s))));
  const close = make("button", {}, "Close");
  close.addEventListener("click", () => dialog.close());
  dialog.replaceChildren(close, picture(image), make("p", {}, make("b", {}, image.name),
    image.note ? `: ${image.note}` : ""), make("div", { class: "scroll" }, make("table", {}, ...lines)));
  if (!dialog.open) dialog.showModal();
}

byId("dialog").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const next = Number(byId("dialog").dataset.place) + step;
  if (step && next >= 0 && next < shown.length) open(next);
});

function follow() {  // links such as #gallery/DATASET/KIND
  const [section, dataset, kind] = decodeURIComponent(location.hash.slice(1)).split("/");
  if (section !== "gallery" || !kind) return;
  byId("whose").value = dataset;
  choose();
  byId("kind").value = kind;
  if (!byId("kind").value) byId("kind").value = "all";
  filter();
  byId("gallery").scrollIntoView();
}

byId("whose").addEventListener("change", choose);
byId("kind").addEventListener("change", filter);
byId("class").addEventListener("change", filter);
byId("more").addEventListener("click", () => { limit += PAGE; show(); });
window.addEventListener("hashchange", follow);
choose();
follow();
