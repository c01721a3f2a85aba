"use strict";
// Draws the figures of a page, makes its buttons and tables work, and renews it where a server watches a run.
const main = document.querySelector("main");
const state = document.getElementById("state");
const hasFingers = matchMedia("(pointer: coarse)").matches;
const isNarrow = matchMedia("(max-width: 600px)").matches;
const config = {
  responsive: true,
  displaylogo: false,
  displayModeBar: hasFingers ? false : "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toImage"],
  // Nothing leaves the page: plotly.js would offer to upload a chart.
  showSendToCloud: false,
  plotlyServerURL: "",
};
let content = {figures: [], columns: {}};
let view = "0";
let opened = null; // the row of a table whose series is shown
let isFollowing = false; // while figures are moved because another one was

const all = (selector, within = main) => [...within.querySelectorAll(selector)];
const figureOf = place => content.figures[place.dataset.figure];
const visible = () => all(".figure").filter(place => place.offsetParent);
const rangeOf = place => place.layout.xaxis.range.map(end => place._fullLayout.xaxis.r2c(end));
const rangeButtons = place => all("[data-from]", place.closest("section"));
const rangeBehind = button => [Number(button.dataset.from), Number(button.dataset.to)];
const setRange = (place, range) => Plotly.relayout(place, {"xaxis.range": [...range]});

// Figures; of an axis, plotly.js tells what a date is in numbers only by its full layout.

function draw() {
  for (const place of visible()) {
    if (place.dataset.drawn) {
      Plotly.Plots.resize(place);
      continue;
    }
    const figure = figureOf(place), layout = structuredClone(figure.layout);
    layout.dragmode = hasFingers ? false : "zoom"; // a finger on a figure scrolls the page
    if (isNarrow) layout.xaxis.nticks = 5;
    const pressed = rangeButtons(place).find(button => button.textContent === place.pressed);
    const range = pressed ? rangeBehind(pressed) : place.chosen;
    if (range) layout.xaxis.range = [...range];
    Plotly.react(place, figure.traces.map(trace => complete(trace, figure)), layout, config);
    place.dataset.drawn = "yes";
    if (!place.dataset.listens) place.on("plotly_relayout", change => moved(place, change));
    place.dataset.listens = "yes";
    if (figure.fits) fit(place);
  }
}

// Arrays that several traces share are sent once, and named; a star in a name stands for the opened row.
function complete(trace, figure) {
  const named = ["x", "y"].filter(axis => typeof trace[axis] === "string");
  const column = name => content.columns[name.replace("*", opened?.key ?? figure.opened)];
  return {...trace, ...Object.fromEntries(named.map(axis => [axis, column(trace[axis])]))};
}

// Another range was chosen: the other figures show it too. Where a reader looks at single rows, means over
// many rows have nothing to show, and stay.
function moved(place, change) {
  if (isFollowing || !Object.keys(change).some(key => key.startsWith("xaxis"))) return;
  const range = rangeOf(place), same = other => other.every((end, i) => end === range[i]);
  const pressed = rangeButtons(place).find(button => same(rangeBehind(button)));
  place.pressed = pressed?.textContent;
  place.chosen = change["xaxis.autorange"] ? null : place.layout.xaxis.range;
  if (figureOf(place).fits) return fit(place);
  const followers = visible().filter(other => figureOf(other).follows && other !== place);
  isFollowing = true;
  Promise.all(followers.map(other =>
    place.chosen ? setRange(other, place.chosen) : Plotly.relayout(other, {"xaxis.autorange": true})))
    .then(() => Promise.all(followers.filter(other => figureOf(other).fits).map(fit)))
    .finally(() => { isFollowing = false; });
}

// The heights follow from what is seen: wild intervals of the first rows must not flatten the rest.
function fit(place) {
  const [first, last] = rangeOf(place);
  let low = Infinity, high = -Infinity;
  for (const {x, y} of place.data.filter(trace => trace.meta === "seen")) {
    for (let i = 0; i < x.length; i++) {
      if (x[i] < first || x[i] > last || y[i] === null) continue;
      low = Math.min(low, y[i]);
      high = Math.max(high, y[i]);
    }
  }
  if (low > high) return;
  const margin = 0.25 * (high - low) || 0.01 * Math.abs(high) || 1;
  return Plotly.relayout(place, {"yaxis.range": [low - margin, high + margin]});
}

function step(place, {move, widen}) {
  const [first, last] = rangeOf(place), width = last - first;
  const middle = (first + last) / 2 + move * width;
  setRange(place, [middle - widen * width / 2, middle + widen * width / 2]);
}

// Tables

function sort(heading, rises) {
  const table = heading.closest("table"), column = heading.cellIndex;
  const keyOf = row => row.cells[column].dataset.order ?? row.cells[column].textContent;
  const compare = (one, other) => Number(one) - Number(other) || String(one).localeCompare(other);
  const rows = [...table.tBodies[0].rows].sort((a, b) => (rises ? 1 : -1) * compare(keyOf(a), keyOf(b)));
  table.tBodies[0].append(...rows);
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", rises ? "ascending" : "descending");
}

// The place of a row in the figure of single rows, not wider than its narrowest button.
function reveal(row) {
  const place = visible().find(other => figureOf(other).fits);
  if (!place) return;
  const middle = Number(row.dataset.place), [first, last] = rangeOf(place);
  const widths = rangeButtons(place).map(rangeBehind).map(([from, to]) => to - from);
  const half = Math.min(last - first, ...widths) / 2;
  setRange(place, [middle - half, middle + half]);
  place.closest("section").scrollIntoView({behavior: "smooth"});
}

// The series of a row, in the figure that shows one of them.
function open(key, name, scrolls) {
  const place = all(".figure").find(other => figureOf(other).opened);
  if (!place) return;
  opened = {key, name};
  const section = place.closest("section");
  section.querySelector("h2").textContent = name;
  place.chosen = null;
  place.dataset.drawn = "";
  draw();
  if (scrolls) section.scrollIntoView({behavior: "smooth"});
}

function act(row) {
  if (row.dataset.opens) open(row.dataset.opens, row.cells[0].textContent, true);
  else reveal(row);
}

// The page

function choose(name) {
  view = name;
  for (const button of all("nav [data-view]")) button.setAttribute("aria-selected", button.dataset.view === view);
  for (const face of all("div[data-view]")) face.hidden = face.dataset.view !== view;
  draw();
}

main.addEventListener("click", event => {
  const button = event.target.closest("button"), row = event.target.closest("tr[tabindex]");
  if (!button) return row && act(row);
  const place = button.closest("section")?.querySelector(".figure"), heading = button.closest("th");
  if (button.dataset.view) choose(button.dataset.view);
  if (button.dataset.from) setRange(place, rangeBehind(button));
  if (button.dataset.move) step(place, button.dataset);
  if (heading) sort(heading, heading.getAttribute("aria-sort") === "descending");
});
main.addEventListener("keydown", event => {
  if (event.key === "Enter" && event.target.matches("tr[tabindex]")) act(event.target);
});

// New text and numbers; what a reader zoomed and sorted stays.
function renew(news) {
  const figures = all(".figure"), sorted = all("table").map(table => table.querySelector("[aria-sort]"));
  content = news.figures;
  main.innerHTML = news.body;
  for (const place of all(".figure")) {
    const old = figures[place.dataset.figure];
    if (!old?.dataset.drawn) continue;
    old.dataset.drawn = "";
    place.replaceWith(old);
  }
  all("table").forEach((table, i) => {
    const heading = sorted[i] && table.tHead.rows[0].cells[sorted[i].cellIndex];
    if (heading) sort(heading, sorted[i].getAttribute("aria-sort") === "ascending");
  });
  if (opened) open(opened.key, opened.name, false);
  choose(all("div[data-view]").some(face => face.dataset.view === view) ? view : "0");
}

async function watch() {
  for (let seen = ""; ;) {
    try {
      const answer = await fetch(`content?seen=${seen}`);
      if (answer.status === 200) {
        const news = await answer.json();
        if (seen) renew(news);
        seen = news.version;
      }
      state.textContent = "This page renews itself while the run goes on.";
    } catch {
      state.textContent = "foretrace watch has ended; this is the last that it said.";
    }
    await new Promise(done => setTimeout(done, 2000));
  }
}

async function unpacked(id) {
  const letters = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(letters, letter => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
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
