// The leaderboard: sorted by any column, filtered by words, columns to choose.
import { countOf, number, page, span, urlOf } from "./board.js";
import { refresh } from "./chart.js";
import { byId, check, link, make, named, present, save } from "./elements.js";
import { look, swatch } from "./looks.js";

/**
 * @import {Board, Column, Row} from "./data.js"
 * @typedef {{sort: string, down: boolean, words: string, hidden: Set<string>, limit: number}} State
 * @typedef {Pick<Column, "key" | "title" | "better"> & {unit: string, form: Column["form"]}} Head
 */

const AT_ONCE = 100;
/** @type {Head[]} */
const FIRST = [
  { key: "rank", title: "#", unit: "", better: "low", form: "whole" },
  { key: "label", title: "Model", unit: "", better: null, form: "text" },
];
/** What the reader has chosen for each board. @type {Map<Board, State>} */
const states = new Map();
/** Show every row, whatever the filter says. */
let showAll = () => {};

/** All rows, for paper. */
export const printable = () => showAll();

export function leaderboardTable() {
  const { board } = page;
  const state = states.get(board) ?? {
    sort: "rank",
    down: false,
    words: "",
    hidden: new Set(board.columns.filter((each) => !each.shown).map((each) => each.key)),
    limit: AT_ONCE,
  };
  states.set(board, state);
  const best = Math.max(1e-9, ...board.rows.map((row) => span(row, scoreColumn(board))[1]));
  const visible = () => board.columns.filter((each) => !state.hidden.has(each.key));
  const order = new Map(board.rows.map((row, index) => [row, index]));
  const words = new Map(board.rows.map((row) => [row, wordsOf(row)]));
  /** @type {Map<Row, HTMLElement>} */
  const lines = new Map();
  const lineOf = (/** @type {Row} */ row) => {
    const line = lines.get(row) ?? make("tr", { "data-key": row.key }, ...cells(row, visible(), best));
    lines.set(row, line);
    return line;
  };
  const count = make("span", { class: "count", role: "status", "aria-live": "polite" });
  const body = make("tbody");
  const head = make("tr");
  const more = make("button", { type: "button", class: "button", onclick: () => showAll() });
  showAll = () => {
    state.limit = Infinity;
    fill();
  };

  function heads() {
    head.replaceChildren(
      ...[...FIRST, ...visible()].map((each, index) => {
        const sorted = state.sort === each.key;
        const unit = each.unit && each.unit !== "task" && make("small", {}, each.unit);
        return make(
          "th",
          {
            scope: "col",
            class: `${each.form === "text" ? "" : "number"} ${index < 2 ? `fixed fixed-${index}` : ""}`,
            "aria-sort": sorted ? (state.down ? "descending" : "ascending") : "none",
          },
          make(
            "button",
            { type: "button", class: "sort", "data-key": each.key, onclick: () => sortBy(each) },
            make("span", {}, named(each.title), unit),
            make("span", { class: "arrow", "aria-hidden": "true" }, sorted ? (state.down ? "↓" : "↑") : ""),
          ),
        );
      }),
    );
  }
  /** @param {Head} each */
  function sortBy(each) {
    if (state.sort === each.key) state.down = !state.down;
    else [state.sort, state.down] = [each.key, each.better === "high"];
    heads();
    fill();
    /** @type {HTMLElement | null} */ (head.querySelector(`button[data-key="${CSS.escape(each.key)}"]`))?.focus();
  }
  /** @param {Row} row */
  const sortedBy = (row) =>
    (state.sort === "rank" ? row.rank : state.sort === "label" ? row.label : row.values[state.sort]) ?? "";
  /** @param {Row} a @param {Row} b */
  function compare(a, b) {
    const [p, q] = [sortedBy(a), sortedBy(b)];
    // What is missing is neither small nor large: always below.
    const missing = Number(p === "") - Number(q === "");
    const difference =
      typeof p === "number" && typeof q === "number"
        ? p - q
        : String(p).localeCompare(String(q), "en", { numeric: true });
    return missing || (state.down ? -difference : difference) || (order.get(a) ?? 0) - (order.get(b) ?? 0);
  }
  function fill() {
    const asked = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    page.matching = (row) => asked.every((word) => words.get(row)?.includes(word));
    const rows = board.rows.filter(page.matching).sort(compare);
    body.replaceChildren(...rows.slice(0, state.limit).map(lineOf));
    more.hidden = rows.length <= state.limit;
    more.textContent = `Show all ${rows.length} rows`;
    if (!rows.length)
      body.append(
        make("tr", {}, make("td", { colspan: visible().length + 2, class: "empty" }, "No row has these words.")),
      );
    count.textContent = `${rows.length === board.rows.length ? "" : `${rows.length} of `}${countOf(board.rows)}`;
  }
  let waiting = 0;
  const filter = make("input", {
    type: "search",
    id: "filter",
    placeholder: "e.g. K=4 energy",
    "aria-label": "Filter the rows by words",
    autocomplete: "off",
    spellcheck: "false",
    value: state.words,
    oninput: () => {
      state.words = filter.value;
      fill();
      clearTimeout(waiting);
      waiting = window.setTimeout(() => refresh(document.querySelector("#compute-chart .chart")), 120);
    },
  });
  const boxes = board.columns.map((each) =>
    check(each.title, !state.hidden.has(each.key), (on) => {
      state.hidden[on ? "delete" : "add"](each.key);
      lines.clear();
      heads();
      fill();
    }),
  );
  heads();
  fill();
  return [
    make(
      "div",
      { class: "controls" },
      make("label", { class: "field grow" }, make("span", {}, "Filter"), filter),
      count,
      menu("Columns", boxes),
      make(
        "button",
        { type: "button", class: "button", onclick: () => save("leaderboard.csv", csv(board), "text/csv") },
        "Save as CSV",
      ),
    ),
    make(
      "div",
      { class: "scroll board-scroll", role: "region", tabindex: 0, "aria-label": "Leaderboard" },
      make(
        "table",
        { class: "board", id: "board" },
        make("caption", { class: "unseen" }, "Leaderboard; the buttons in its head sort it."),
        make("thead", {}, head),
        body,
      ),
    ),
    make("p", { class: "more" }, more),
  ];
}

/** @param {Board} board */
const scoreColumn = (board) => /** @type {Column} */ (board.columns.find((each) => each.key === "brierlm"));

/** What the filter looks through. @param {Row} row */
const wordsOf = (row) =>
  [row.label, row.study, row.family, row.head, ...row.members.map((member) => `seed=${member.seed}`)]
    .join(" ")
    .toLowerCase();

/** Boxes that unfold, and fold at Escape and at a press elsewhere. @param {string} title @param {Node[]} boxes */
function menu(title, boxes) {
  const summary = make("summary", { class: "button" }, title);
  const list = make("div", { class: "menu-list", role: "group", "aria-label": title }, ...boxes);
  const details = make("details", { class: "menu" }, summary, list);
  details.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    details.open = false;
    summary.focus();
  });
  document.addEventListener("click", ({ target }) => {
    if (!details.contains(/** @type {Node} */ (target))) details.open = false;
  });
  return details;
}

/** @param {Row} row @param {Column[]} columns @param {number} best end of the bars of scores */
function cells(row, columns, best) {
  const url = row.members.length === 1 ? urlOf(row) : null;
  const seeds = row.members.map((member) => link(member.url, `seed ${member.seed}`));
  return [
    make("td", { class: "number fixed fixed-0" }, String(row.rank)),
    make(
      "th",
      { scope: "row", class: "fixed fixed-1" },
      make(
        "span",
        { class: "model" },
        swatch(row.family),
        make("span", { class: "name", title: row.label }, link(url, row.label, { title: "The run in MLflow" })),
      ),
      seeds.length > 1 && make("span", { class: "seeds" }, ...seeds),
      row.violations.length > 0 && make("span", { class: "broken" }, `breaks ${row.violations.join(", ")}`),
    ),
    ...columns.map((each) => {
      const text = row.texts[each.key];
      if (each.key === "brierlm")
        return make(
          "td",
          { class: "number score" },
          scoreBar(row, each, best),
          make("span", { class: "figure" }, text),
        );
      const front = row.fronts.includes(each.key);
      return make(
        "td",
        { class: `${each.form === "text" ? "" : "number"}${front ? " front" : ""}` },
        front && star(),
        each.form === "text" ? named(text) : text,
      );
    }),
  ];
}

const star = () =>
  make(
    "span",
    {
      class: "star",
      title: "On the Pareto front: no row scores as high for less",
      role: "img",
      "aria-label": "on the Pareto front",
    },
    "★",
  );

/** @param {Row} row @param {Column} column @param {number} best */
function scoreBar(row, column, best) {
  const [left, middle, right] = [span(row, column)[0], number(row, column.key), span(row, column)[1]].map((value) =>
    Math.max(0, Math.min(100, (100 * value) / best)),
  );
  const background = look(row.family).colour;
  return make(
    "span",
    { class: "strip", "aria-hidden": "true" },
    make("span", { class: "whisker", style: { left: `${left}%`, width: `${right - left}%`, background } }),
    make("span", { class: "middle", style: { left: `${middle}%`, background } }),
  );
}

/** Scroll to a row, past a filter that hides it. @param {string} key */
export function showRow(key) {
  const find = () => document.querySelector(`tr[data-key="${CSS.escape(key)}"]`);
  if (!find()) {
    const filter = /** @type {HTMLInputElement} */ (byId("filter"));
    filter.value = "";
    filter.dispatchEvent(new Event("input"));
    showAll();
  }
  const line = find();
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  line?.scrollIntoView({ block: "center", behavior: still ? "auto" : "smooth" });
  line?.classList.remove("found");
  requestAnimationFrame(() => line?.classList.add("found"));
}

/** @param {Board} board */
function csv({ columns, rows }) {
  const keys = columns.flatMap((each) => present([each.key, each.error]));
  const lines = rows.map((row) => [row.rank, row.label, ...keys.map((key) => row.values[key])]);
  return [["rank", "model", ...keys], ...lines].map((line) => `${line.map(quoted).join(",")}\n`).join("");
}

/** @param {string | number | null | undefined} value */
function quoted(value) {
  const text = String(value ?? "");
  // A spreadsheet would run a cell that begins like a formula.
  const safe = /^[=+@\t\r-]/.test(text) && typeof value !== "number" ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
