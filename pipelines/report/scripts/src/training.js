// Curves of trainings.
import * as Plot from "@observablehq/plot";
import * as d3 from "d3";
import { across, logTicks, tick, upward } from "./axes.js";
import { familiesOf, page, urlOf } from "./board.js";
import { chart } from "./chart.js";
import { check, data, make, plural, present, select } from "./elements.js";
import { legendOf, look } from "./looks.js";

/**
 * @import {Row, TrainingCurves} from "./data.js"
 * @typedef {{label: string, row: Row, url: string | null, curves: TrainingCurves}} Run
 * @typedef {{run: Run, split?: string, dash?: string, points: {x: number, y: number}[]}} Line
 * @typedef {"train" | "validation"} Split
 */

/** @type {Record<string, string>} */
const TERM_WORDS = {
  collapsed: "Collapsed share of dimensions",
  unconditional: "Loss without the context",
  denoising: "Denoising error",
  grad_norm: "Gradient norm",
  kl: "KL to the prior, nats a chunk",
};
/** @param {string} term */
const termName = (term) => TERM_WORDS[term] ?? term[0].toUpperCase() + term.slice(1).replaceAll("_", " ");
const SPLIT_WORDS = { train: "in training", validation: "held out" };
const MANY = 40;

const MODELS = "language_model";

/** One line per training of a kind behind the board's rows, best rows first.
 * @param {string} kind
 * @returns {Run[]} */
function trainings(kind) {
  const found = new Map(data.curves.filter((curves) => curves.kind === kind).map((curves) => [curves.model, curves]));
  return page.board.rows.flatMap((row) =>
    row.members.flatMap((member) => {
      const curves = found.get(member.trained[kind]);
      found.delete(member.trained[kind]);
      const label = row.members.length > 1 ? `${row.label}, seed ${member.seed}` : row.label;
      return curves ? [{ row, label: curves.label || label, url: urlOf({ ...row, members: [member] }), curves }] : [];
    }),
  );
}

/** @param {{title: string, note: string, lines: Line[], height?: number, log?: boolean, yName: string,
 *   more?: string[][]}} options `more`: of the legend */
function lineChart({ title, note, lines, height = 300, log = false, yName, more }) {
  const xName = "training FLOPs";
  const shown = lines.filter((line) => line.points.length);
  if (!shown.length) return null;
  const many = shown.length > MANY;
  const ys = d3.sort(shown.flatMap((line) => line.points.map((point) => point.y)));
  // The first steps would press all that follows flat.
  const settled = d3.sort(
    shown.flatMap((line) => line.points.slice(Math.floor(line.points.length * 0.08)).map((point) => point.y)),
  );
  const low = ys[0];
  const most = d3.quantileSorted(settled, 0.995) ?? low;
  const high = most + 0.08 * (most - low || Math.abs(low) || 1);
  const logged = log && low > 0;
  const margin = 0.03 * (high - low);
  const last = d3.max(shown, (line) => d3.max(line.points, (point) => point.x)) ?? 1;
  // Tens of thousands on a large page: made when the chart comes into view.
  const pointsOf = () =>
    shown.flatMap(({ run, split, points }, line) =>
      points
        .filter((point) => logged || point.y <= high)
        .map((point) => ({
          ...point,
          line,
          name: run.label,
          family: run.row.family,
          url: run.url,
          row: run.row.key,
          lines: [[yName, String(point.y)], [xName, tick(point.x)], ...(split ? [["Split", split]] : [])],
        })),
    );
  const made = chart({
    title,
    note,
    legend: legendOf(familiesOf(shown.map((line) => line.run.row)), more),
    height,
    radius: 30,
    describe: `${title}: ${plural(shown.length, "line")} over ${xName}.`,
    draw: (width) => ({
      options: {
        width,
        height,
        marginLeft: 52,
        x: { ...across(xName, width, 120), domain: [0, last], tickFormat: tick },
        y: {
          ...upward(yName, 5),
          ...(logged
            ? { type: "log", domain: d3.extent(ys), ticks: logTicks(low, ys[ys.length - 1], 6) }
            : { domain: [low - margin, high] }),
          tickFormat: tick,
        },
        marks: shown.map(({ run, dash, points }) =>
          Plot.line(points, {
            x: "x",
            y: "y",
            stroke: look(run.row.family).colour,
            strokeWidth: many ? 0.8 : 1.7,
            strokeOpacity: many ? 0.45 : 0.95,
            strokeDasharray: dash,
            strokeLinejoin: "round",
            clip: true,
          }),
        ),
      },
      points: pointsOf(),
    }),
    rows: () => [
      ["Run", "First", "Lowest", "Last", "Points"],
      shown.map(({ run, split, points }) => [
        split ? `${run.label}, ${split}` : run.label,
        String(points[0].y),
        String(d3.min(points, (point) => point.y)),
        String(points[points.length - 1].y),
        String(points.length),
      ]),
    ],
  });
  // The line that is reached stands out.
  made.addEventListener("input", ({ target }) => {
    const reached = /** @type {SVGSVGElement & Plot.Plot} */ (target).value;
    made.querySelectorAll("g[aria-label=line] path").forEach((path, index) => {
      path.classList.toggle("faded", Boolean(reached) && index !== reached.line);
    });
  });
  return make("div", { class: "card" }, made);
}

/** @param {Run[]} runs @param {Split} split @param {string} term @param {Partial<Line>} more @returns {Line[]} */
const linesOf = (runs, split, term, more = {}) =>
  runs.map((run) => {
    const { flops, terms } = run.curves[split];
    const points = (terms[term] ?? []).flatMap((y, index) => (y === null ? [] : [{ x: flops[index], y }]));
    return { run, split: SPLIT_WORDS[split], points, ...more };
  });

export function trainingCharts() {
  const kinds = data.trainings.filter(([kind]) => trainings(kind).length);
  if (!kinds.length) return [];
  const host = make("div", { class: "grid two" });
  const bar = make("div", { class: "controls" });
  const note = make("p", { class: "caption" });
  const state = { kind: kinds[0][0], split: /** @type {Split} */ ("train"), term: "loss", log: false };
  function fill() {
    const all = trainings(state.kind);
    const terms = new Set(all.flatMap((run) => Object.keys(run.curves[state.split].terms)));
    if (!terms.has(state.term)) state.term = "loss";
    const stage = select("Stage", kinds, state.kind, (value) => {
      state.kind = value;
      fill();
    });
    bar.replaceChildren(
      ...(kinds.length > 1 ? [stage] : []),
      select(
        "Split",
        [
          ["train", "Training"],
          ["validation", "Held out"],
        ],
        state.split,
        (value) => {
          state.split = /** @type {Split} */ (value);
          fill();
        },
      ),
      select(
        "Term",
        [...terms].map((term) => [term, termName(term)]),
        state.term,
        (value) => {
          state.term = value;
          fill();
        },
      ),
      check("Logarithmic", state.log, (value) => {
        state.log = value;
        fill();
      }),
    );
    // What a loss is depends on the kind of model and head: a panel for each.
    const isComparable = ["grad_norm", "tokens_per_second"].includes(state.term);
    const heading = kinds.find(([kind]) => kind === state.kind)?.[1] ?? state.kind;
    const groups = d3.group(all, ({ row }) => {
      if (state.kind !== MODELS) return heading.toLowerCase();
      return isComparable ? "all models" : row.head ? `${row.head} head` : "token model";
    });
    const cards = present(
      [...groups].map(([name, own]) =>
        lineChart({
          title: `${termName(state.term)}, ${name}`,
          note: SPLIT_WORDS[state.split],
          lines: linesOf(own, state.split, state.term),
          yName: termName(state.term),
          log: state.log,
        }),
      ),
    );
    host.replaceChildren(...cards);
    host.classList.toggle("one", cards.length === 1);
    const most = d3.max(all, (run) => run.curves.train.flops.length) ?? 0;
    const logged = d3.max(all, (run) => run.curves.num_logged) ?? 0;
    note.textContent = `Thinned to at most ${most} of ${logged.toLocaleString("en")} logged points a run, so that a spike is kept.`;
    note.hidden = logged <= most;
  }
  fill();
  return [bar, host, note];
}

export function termCharts() {
  const all = trainings(MODELS).filter(({ curves }) => curves.train.terms.fidelity && curves.train.terms.diversity);
  if (!all.length) return [];
  const fidelity = linesOf(all, "train", "fidelity", { split: "fidelity" });
  const diversity = linesOf(all, "train", "diversity", { split: "diversity", dash: "5 3" });
  const shares = diversity.map(({ run, points }, index) => ({
    run,
    points: points.flatMap(({ x, y }, place) => {
      const other = fidelity[index].points[place]?.y;
      return other ? [{ x, y: Number((y / other).toPrecision(4)) }] : [];
    }),
  }));
  const both = lineChart({
    title: "Fidelity and diversity",
    note: "in training; diversity dashed",
    lines: [...fidelity, ...diversity],
    yName: "Distance between latents",
    height: 320,
    more: [
      ["solid", "fidelity"],
      ["dashed", "diversity"],
    ],
  });
  const share = lineChart({
    title: "Diversity as a share of fidelity",
    note: "1 would be draws as far from each other as from the data",
    lines: shares,
    yName: "Diversity / fidelity",
    height: 320,
  });
  return [make("div", { class: "grid two" }, both, share)];
}
