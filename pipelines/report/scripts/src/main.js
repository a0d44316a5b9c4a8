// From data to page.
import { autoencoderParts } from "./autoencoders.js";
import { page } from "./board.js";
import { drawAll, sweep } from "./chart.js";
import { computeChart } from "./compute.js";
import { byId, data, link, make, named, plural, present, safeAddress } from "./elements.js";
import { headlineParts, tiles } from "./headline.js";
import { keptCharts } from "./kept.js";
import { sampleParts } from "./samples.js";
import { chunksChart, componentCharts } from "./scores.js";
import { searchParts } from "./search.js";
import { configurationParts, endedParts, protocolParts, reproduceParts } from "./studies.js";
import { leaderboardTable, printable, showRow } from "./table.js";
import { startTheme } from "./theme.js";
import { termCharts, trainingCharts } from "./training.js";

/** @typedef {() => import("./elements.js").Child[]} Parts */

/** Sections of the board that is shown, and where in them they stand. @type {[string, string, Parts][]} */
const OF_BOARD = [
  ["leaderboard", "leaderboard-table", leaderboardTable],
  ["compute", "compute-chart", () => [computeChart()]],
  ["chunks", "chunks-chart", () => [chunksChart()]],
  ["components", "components-charts", componentCharts],
  ["training", "training-charts", trainingCharts],
  ["terms", "terms-charts", termCharts],
  ["kept", "kept-charts", keptCharts],
  ["autoencoders", "autoencoders-body", autoencoderParts],
  ["search", "search-body", searchParts],
  ["samples", "samples-body", sampleParts],
];
/** @type {[string, string, Parts][]} */
const OF_STUDIES = [
  ["ended", "ended-body", endedParts],
  ["protocol-words", "protocol-body", protocolParts],
  ["reproduce", "reproduce-body", reproduceParts],
  ["configuration", "configuration-body", configurationParts],
];

/** A section without parts is hidden. @param {[string, string, Parts]} section */
function fillSection([id, host, parts]) {
  const found = present(parts());
  byId(id).hidden = found.length === 0;
  byId(host).replaceChildren(...found);
}

function drawStudies() {
  const several = data.studies.length > 1;
  const distinct = (/** @type {(string | null)[]} */ values) => [...new Set(values.filter(Boolean))];
  const finished = data.studies
    .map((study) => study.finished ?? "")
    .sort()
    .pop();
  const described = distinct(data.studies.map((study) => study.description))
    .slice(0, 3)
    .join(" ");
  byId("title").replaceChildren(named(data.title));
  byId("eyebrow").replaceChildren(
    "Compute against quality",
    ...[...distinct(data.studies.map((study) => study.budget)), finished && `finished ${finished} UTC`].flatMap(
      (text) => (text ? [" · ", make("span", { class: "unbroken" }, text)] : []),
    ),
  );
  byId("description").replaceChildren(named(described));
  byId("description").hidden = !described;
  const pages = data.studies.filter((study) => safeAddress(study.url)).slice(0, 6);
  byId("study-links").replaceChildren(
    ...pages.map((study) =>
      link(study.url, several ? `${study.name} ${study.identity.slice(0, 8)} in MLflow` : "The study in MLflow"),
    ),
  );
  byId("study-links").hidden = !pages.length;
  OF_STUDIES.forEach(fillSection);
}

function drawBoard() {
  byId("headline-body").replaceChildren(...present(headlineParts()));
  byId("tiles").replaceChildren(...tiles());
  byId("leaderboard-caption").replaceChildren(named(page.board.caption));
  OF_BOARD.forEach(fillSection);
  sweep();
  contents();
}

function drawNoBoard() {
  const text =
    "No trial of this study has been scored yet, so there is no leaderboard. What is known of its trials stands below.";
  byId("headline-body").replaceChildren(make("p", { class: "notice" }, text));
  for (const [id] of OF_BOARD) byId(id).hidden = true;
  byId("protocol-words").hidden = true;
  contents();
}

/** Not by the address alone: inside the frame of another page, such as MLflow's, it may lead elsewhere.
 * @param {MouseEvent} event @param {Element} section */
function goTo(event, section) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const heading = /** @type {HTMLElement | null} */ (section.querySelector("h1, h2"));
  heading?.setAttribute("tabindex", "-1");
  heading?.focus({ preventScroll: true });
  section.scrollIntoView();
}

/** @type {IntersectionObserver | undefined} */
let watch;

/** The list of sections, which marks the first that is in view. */
function contents() {
  const sections = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("main section:not([hidden])")]);
  const links = sections.map((section) =>
    make(
      "a",
      { href: `#${section.id}`, onclick: (/** @type {MouseEvent} */ event) => goTo(event, section) },
      section.dataset.title,
    ),
  );
  byId("contents").replaceChildren(...links.map((each) => make("li", {}, each)));
  const seen = new Set();
  watch?.disconnect();
  watch = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) seen[isIntersecting ? "add" : "delete"](target);
      const first = sections.findIndex((section) => seen.has(section));
      links.forEach((each, index) => {
        each.toggleAttribute("aria-current", index === first);
      });
    },
    { rootMargin: "-64px 0px -55% 0px" },
  );
  for (const section of sections) watch.observe(section);
}

function offerProtocols() {
  const choice = /** @type {HTMLSelectElement} */ (byId("protocol"));
  choice.append(
    ...data.boards.map(({ rows, title }, index) =>
      make("option", { value: index }, `${plural(rows.length, "row")}: ${title}`),
    ),
  );
  choice.addEventListener("change", () => {
    page.board = data.boards[Number(choice.value)];
    drawBoard();
  });
  byId("protocol-choice").hidden = false;
}

startTheme();
if (data.boards.length > 1) offerProtocols();
drawStudies();
if (page.board) drawBoard();
else drawNoBoard();
// A chart asks for the row of one of its points.
byId("content").addEventListener("row", (event) => showRow(/** @type {CustomEvent<string>} */ (event).detail));
byId("made-by").textContent = data.made_by;
addEventListener("beforeprint", () => {
  printable();
  drawAll();
});
requestAnimationFrame(() =>
  requestAnimationFrame(() => {
    document.documentElement.dataset.ready = String(Math.round(performance.now()));
  }),
);
