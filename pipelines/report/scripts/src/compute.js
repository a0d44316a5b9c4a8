// Score against compute: any column against any other, with the front and the fitted laws.
import * as Plot from "@observablehq/plot";
import * as d3 from "d3";
import { across, axisName, logAxis, short, tickOf, upward } from "./axes.js";
import { countOf, familiesOf, number, page, rowPoint, span } from "./board.js";
import { chart, highest, refresh, scatter } from "./chart.js";
import { check, make, present, select } from "./elements.js";
import { legendOf, look } from "./looks.js";

/** @import {Column, LawFamily, Price, Row} from "./data.js" */

const LABELLED = 14;
const MANY = 60;

/** Rows that no other beats: nobody is at least as good for at most the price and better in one of the two. Where a
 * column has no better end it is no price, and there is no front.
 * @param {Row[]} rows @param {Column} x @param {Column} y */
function frontOf(rows, x, y) {
  if (!x.better || !y.better || x.key === y.key) return [];
  /** @param {Row} row @param {Column} column */
  const cost = (row, column) => (column.better === "low" ? 1 : -1) * number(row, column.key);
  const points = rows.map((row) => ({ row, a: cost(row, x), b: cost(row, y) }));
  return points
    .filter((p) => !points.some((q) => q.a <= p.a && q.b <= p.b && (q.a < p.a || q.b < p.b)))
    .map((point) => point.row)
    .sort((a, b) => number(a, x.key) - number(b, x.key) || number(a, y.key) - number(b, y.key));
}

/** The fitted laws of the headline, where the axes are those they were fitted on.
 * @param {string} x @param {string} y */
function lawsOf(x, y) {
  const price = /** @type {Price} */ (x);
  const found = (page.board.headline.families ?? []).flatMap((family) =>
    y === "brierlm" && family.curve?.[price]?.length ? [{ family, curve: family.curve }] : [],
  );
  return {
    marks: found.flatMap(({ family, curve }) => {
      const colour = look(family.look).colour;
      const points = curve[price]
        .map((cost, i) => ({
          x: cost,
          y: curve.score[i],
          low: Math.max(0, curve.low[i]),
          high: Math.min(100, curve.high[i]),
        }))
        .sort((a, b) => a.x - b.x);
      const snapshots = family.points.filter((point) => !point.is_finished && point.is_used);
      return [
        Plot.areaY(points, { x: "x", y1: "low", y2: "high", fill: colour, fillOpacity: 0.13, clip: true }),
        Plot.line(points, { x: "x", y: "y", stroke: colour, strokeWidth: 1.6, clip: true }),
        snapshots.length
          ? Plot.dot(snapshots, {
              x: (point) => priceOf(point, price),
              y: "score",
              r: 2.2,
              fill: colour,
              fillOpacity: 0.55,
              clip: true,
            })
          : null,
      ];
    }),
    ends: found.flatMap(({ curve }) => present(d3.extent(curve[price]))),
    heights: found.flatMap(({ curve }) => curve.high.map((value) => Math.min(100, value))),
  };
}

/** @param {LawFamily["points"][number]} point @param {Price} price */
const priceOf = (point, price) =>
  price === "total_training_flops" ? point.training_flops + point.autoencoder_training_flops : point[price];

/** Leaves out labels under which another point would lie. @type {Plot.RenderFunction} */
const uncovered = (index, scales, values, dimensions, context, next) => {
  const { x = [], y = [], text = [] } = values;
  /** @param {number} i @param {number} j */
  const covers = (i, j) => x[j] >= x[i] && x[j] - x[i] < 7 * String(text[i]).length + 18 && Math.abs(y[j] - y[i]) < 13;
  const free = [...index].filter((i) => ![...index].some((j) => j !== i && covers(i, j)));
  return next?.(free, scales, values, dimensions, context) ?? null;
};

export function computeChart() {
  const { board } = page;
  const columns = board.columns.filter(({ axis, key }) => axis && board.rows.some((row) => number(row, key) >= 0));
  const find = (/** @type {string} */ key) => columns.find((each) => each.key === key) ?? columns[0];
  const state = { x: find("total_training_flops").key, y: "brierlm", log: true, laws: true };
  const axes = () => ({ x: find(state.x), y: find(state.y) });
  function usable() {
    const { x, y } = axes();
    const isLog = x.log && state.log;
    return board.rows.filter(
      (row) => number(row, x.key) > (isLog ? 0 : -Infinity) && !Number.isNaN(number(row, y.key)),
    );
  }
  const options = columns.map((each) => [each.key, each.title]);
  const quick = [
    ["total_training_flops", "Training"],
    ["inference_flops_per_token", "Inference"],
  ].filter(([key]) => columns.some((each) => each.key === key));
  const tabs = quick.map(([key, text]) =>
    make("button", { type: "button", class: "tab", onclick: () => choose({ x: key, y: "brierlm" }) }, text),
  );
  const choices = {
    x: select("Across", options, state.x, (x) => choose({ x })),
    y: select("Up", options, state.y, (y) => choose({ y })),
  };
  const hasLaws = (board.headline.families ?? []).some((family) => family.curve);
  /** @param {Partial<typeof state>} change */
  function choose(change) {
    Object.assign(state, change);
    for (const key of /** @type {const} */ (["x", "y"])) {
      const field = choices[key].querySelector("select");
      if (field) field.value = state[key];
    }
    quick.forEach(([key], index) => {
      tabs[index].setAttribute("aria-pressed", String(state.x === key && state.y === "brierlm"));
    });
    refresh(made);
  }
  const made = chart({
    describe: () => `${axes().y.title} against ${axes().x.title}, ${countOf(usable())}.`,
    controls: [
      make("div", { class: "tabs", role: "group", "aria-label": "Compute" }, ...tabs),
      choices.x,
      choices.y,
      check("Logarithmic", state.log, (log) => choose({ log })),
      hasLaws && check("Fitted laws", state.laws, (laws) => choose({ laws })),
    ],
    legend: legendOf(familiesOf(board.rows), [
      ["dashed", "Pareto front"],
      ...(hasLaws ? [["band", "fitted law, 95 %"]] : []),
    ]),
    height: 440,
    draw(width) {
      const { x, y } = axes();
      const rows = usable();
      if (!rows.length) return null;
      const height = width < 520 ? 360 : 440;
      const laws = state.laws ? lawsOf(x.key, y.key) : { marks: [], ends: [], heights: [] };
      const [xs, ys] = [rows.map((row) => number(row, x.key)), rows.map((row) => number(row, y.key))];
      const isLog = x.log && state.log;
      const yIsLog = y.log && state.log && Math.min(...ys) > 0;
      const top = highest([...rows.map((row) => span(row, y)[1]), ...laws.heights]);
      const low = Math.min(-0.04 * top, ...rows.map((row) => span(row, y)[0]));
      const points = rows.map((row, index) => ({
        ...rowPoint(row, [y, x]),
        x: xs[index],
        y: ys[index],
        xSpan: x.error && !x.log ? span(row, x) : undefined,
        ySpan: y.error && number(row, y.error) >= 0 ? span(row, y) : undefined,
        faint: !page.matching(row),
      }));
      // With its autoencoder a model is dearer than alone.
      const priced =
        x.key === "total_training_flops" && rows.length <= MANY
          ? rows.filter((row) => number(row, "autoencoder_training_flops") > 0)
          : [];
      const front = frontOf(rows, x, y);
      const at = {
        x: (/** @type {Row} */ row) => number(row, x.key),
        y: (/** @type {Row} */ row) => number(row, y.key),
      };
      return {
        options: {
          width,
          height,
          x: {
            ...across(axisName(x), width),
            ...(isLog
              ? logAxis([...xs, ...laws.ends, ...priced.map((row) => number(row, "training_flops"))], width)
              : { nice: true, inset: 16, ticks: undefined }),
            tickFormat: tickOf(x),
          },
          y: {
            ...upward(axisName(y)),
            ...(yIsLog ? logAxis(ys, height) : { domain: [low, 1.1 * top] }),
            tickFormat: tickOf(y),
          },
          marks: [
            ...laws.marks,
            Plot.line(front, { ...at, stroke: "var(--soft)", strokeDasharray: "4 4", strokeWidth: 1.3 }),
            Plot.ruleY(priced, {
              y: at.y,
              x1: (row) => number(row, "training_flops"),
              x2: at.x,
              stroke: (row) => look(row.family).colour,
              strokeOpacity: (row) => (page.matching(row) ? 0.35 : 0.06),
              strokeWidth: 1.2,
            }),
            ...scatter(points, { r: rows.length > MANY ? 4 : 6, thin: rows.length > MANY }),
            rows.length <= (width < 520 ? LABELLED / 2 : LABELLED)
              ? Plot.text(rows, {
                  ...at,
                  text: (row) => short(row.label, 26),
                  className: "point-label",
                  textAnchor: "start",
                  dx: 11,
                  render: uncovered,
                })
              : null,
          ],
        },
        points,
      };
    },
    rows() {
      const { x, y } = axes();
      const front = new Set(frontOf(usable(), x, y));
      return [
        ["Row", x.title, y.title, "On the front"],
        usable().map((row) => [row.label, row.texts[x.key], row.texts[y.key], front.has(row) ? "yes" : ""]),
      ];
    },
  });
  made.append(
    make(
      "p",
      { class: "caption" },
      `Training FLOPs are those of the language model and its autoencoder; ${board.rows.length <= MANY ? "the thin line to the left of a mark begins at the language model's own. " : ""}The front does not consider errors: two rows on it may differ by less than theirs.`,
    ),
  );
  choose({});
  return made;
}
