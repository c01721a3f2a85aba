"use strict";
// Draws the figures of a page, and makes its buttons and tables work.
const main = document.querySelector("main");
const state = document.getElementById("state");
const phone = matchMedia("(pointer: coarse)").matches;
const config = {responsive: true, displaylogo: false, displayModeBar: phone ? false : "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toImage"]};
let content = {figures: [], columns: {}};
let view = "0";
let together = false; // while figures follow another one

async function unpacked(id) {
  const letters = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(letters, letter => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

const figureOf = place => content.figures[place.dataset.figure];
const visible = () => [...main.querySelectorAll(".figure")].filter(place => place.offsetParent);

// Arrays that several traces share are sent once, and named.
function full(trace) {
  const entries = Object.entries(trace).map(([name, value]) => [name,
    ["x", "y", "text", "customdata"].includes(name) && typeof value === "string"
      ? content.columns[value] : value]);
  return Object.fromEntries(entries);
}

function draw() {
  for (const place of visible()) {
    if (place.dataset.drawn) {
      Plotly.Plots.resize(place);
      continue;
    }
    const figure = figureOf(place);
    const layout = structuredClone(figure.layout);
    layout.uirevision = "kept"; // what a reader zoomed stays when a page is renewed
    layout.dragmode = phone ? false : "zoom"; // a finger on a figure scrolls the page
    if (matchMedia("(max-width: 600px)").matches && layout.xaxis.nticks === undefined) layout.xaxis.nticks = 5;
    Plotly.react(place, figure.traces.map(full), layout, config);
    place.dataset.drawn = "yes";
    if (place.dataset.heard) continue;
    place.dataset.heard = "yes";
    place.on("plotly_relayout", change => moved(place, change));
    if (figure.fits) fit(place);
  }
}

// Another range of time was chosen: the other figures show it too. Where a reader looks at single rows,
// means over many rows have nothing to show, and stay.
function moved(place, change) {
  if (together || !Object.keys(change).some(key => key.startsWith("xaxis"))) return;
  if (figureOf(place).fits) return fit(place);
  const range = change["xaxis.autorange"] ? null : place.layout.xaxis.range;
  const others = visible().filter(other => figureOf(other).follows && other !== place);
  together = true;
  Promise.all(others.map(other => Plotly.relayout(other,
    range ? {"xaxis.range": [...range]} : {"xaxis.autorange": true})))
    .then(() => Promise.all(others.filter(other => figureOf(other).fits).map(fit)))
    .finally(() => { together = false; });
}

const numberOf = (place, end) => place._fullLayout.xaxis.r2c(end);

// The heights follow from what is seen: wild intervals of the first rows must not flatten the rest.
function fit(place) {
  const [first, last] = place.layout.xaxis.range.map(end => numberOf(place, end));
  let low = Infinity, high = -Infinity;
  for (const trace of place.data.filter(trace => trace.meta)) {
    for (let i = 0; i < trace.x.length; i++) {
      if (trace.x[i] < first || trace.x[i] > last || trace.y[i] === null) continue;
      low = Math.min(low, trace.y[i]);
      high = Math.max(high, trace.y[i]);
    }
  }
  if (low > high) return;
  const margin = 0.25 * (high - low) || 0.01 * Math.abs(high) || 1;
  return Plotly.relayout(place, {"yaxis.range": [low - margin, high + margin]});
}

function firstFitting() {
  return visible().find(place => figureOf(place).fits);
}

function step(place, direction) {
  const [first, last] = place.layout.xaxis.range.map(end => numberOf(place, end));
  const move = 0.8 * direction * (last - first);
  Plotly.relayout(place, {"xaxis.range": [first + move, last + move]});
}

function sort(heading) {
  const table = heading.closest("table");
  const column = [...heading.parentNode.children].indexOf(heading);
  const rising = heading.getAttribute("aria-sort") === "descending";
  const order = row => {
    const cell = row.children[column];
    return cell.dataset.order === undefined ? cell.textContent : Number(cell.dataset.order);
  };
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [one, other] = [order(a), order(b)];
    const less = typeof one === "number" ? one - other : one.localeCompare(other);
    return rising ? less : -less;
  });
  table.tBodies[0].append(...rows);
  for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
}

function open(row) {
  const place = firstFitting(), middle = Number(row.dataset.place);
  if (!place) return;
  const [first, last] = place.layout.xaxis.range.map(end => numberOf(place, end));
  const [least, most] = [...place.closest("section").querySelectorAll("[data-from]")].map(button =>
    Number(button.dataset.to) - Number(button.dataset.from)).sort((a, b) => a - b);
  const width = Math.min(last - first, least || most || last - first);
  Plotly.relayout(place, {"xaxis.range": [middle - width / 2, middle + width / 2]});
  place.closest("section").scrollIntoView({behavior: "smooth"});
}

function choose(name) {
  view = name;
  for (const other of main.querySelectorAll("nav [data-view]"))
    other.setAttribute("aria-selected", other.dataset.view === view);
  for (const face of main.querySelectorAll("div[data-view]")) face.hidden = face.dataset.view !== view;
  draw();
}

main.addEventListener("click", event => {
  const button = event.target.closest("button"), row = event.target.closest("tr[data-place]");
  if (row && !button) open(row);
  if (!button) return;
  if (button.dataset.view) choose(button.dataset.view);
  const place = button.closest("section")?.querySelector(".figure");
  if (button.dataset.from)
    Plotly.relayout(place, {"xaxis.range": [Number(button.dataset.from), Number(button.dataset.to)]});
  if (button.dataset.step) step(place, Number(button.dataset.step));
  if (button.closest("th")) sort(button.closest("th"));
});
main.addEventListener("keydown", event => {
  if (event.key === "Enter" && event.target.matches("tr[data-place]")) open(event.target);
});

// New text, and the figures that were there go on in it with what a reader zoomed.
function renew(news) {
  const drawn = main.querySelectorAll(".figure");
  content = news.figures;
  main.innerHTML = news.body;
  for (const place of main.querySelectorAll(".figure")) {
    const old = drawn[place.dataset.figure];
    if (!old?.dataset.drawn) continue;
    old.dataset.drawn = "";
    place.replaceWith(old);
  }
  choose(main.querySelector(`div[data-view="${view}"]`) ? view : "0");
}

async function watch() {
  let seen = "";
  for (;;) {
    try {
      const answer = await fetch(`content?seen=${seen}`);
      if (answer.status === 200) {
        const news = await answer.json();
        if (seen) renew(news);
        seen = news.version;
      }
      state.textContent = "Watching: this page renews itself.";
    } catch {
      state.textContent = "foretrace watch has ended; this is what it saw last.";
    }
    await new Promise(done => setTimeout(done, 2000));
  }
}

async function start() {
  if (typeof DecompressionStream === "undefined") {
    state.textContent = "The figures need a browser of 2023 or later.";
    return;
  }
  const script = document.createElement("script");
  script.textContent = await unpacked("library");
  document.head.append(script);
  content = JSON.parse(await unpacked("figures"));
  draw();
  document.body.dataset.ready = "yes";
  if (document.body.dataset.watched !== undefined) watch();
}
start();
