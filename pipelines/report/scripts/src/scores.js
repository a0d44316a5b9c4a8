// Score against K, and the four components.
import * as Plot from "@observablehq/plot";
import * as d3 from "d3";
import { axisName, short, upward } from "./axes.js";
import { column, countOf, familiesOf, number, page, rowPoint, span } from "./board.js";
import { chart, highest, scatter } from "./chart.js";
import { make } from "./elements.js";
import { legendOf, look } from "./looks.js";

/** @import {Row} from "./data.js" */

const MOST_LISTED = 24;
const CROWDED = 30;

const OTHER = "other";
const MOST_LEVELS = 3;

/** A model of others may have no K, and has a place of its own then. @param {Row} row */
function placeOf(row) {
  if (row.family === "token") return "token";
  return row.values.chunk_size == null ? OTHER : `K=${number(row, "chunk_size")}`;
}

/** Where that place stands. @param {Row} row */
function orderOf(row) {
  if (row.family === "token") return 0;
  return row.values.chunk_size == null ? Number.POSITIVE_INFINITY : number(row, "chunk_size");
}

export function chunksChart() {
  const { rows } = page.board;
  const y = column("brierlm");
  const groups = d3.group(d3.sort(rows, orderOf), placeOf);
  const domain = [...groups.keys()];
  if (domain.filter((place) => place !== OTHER).length < 2) return null;
  // Level lines, for the eye to compare with each K.
  const levels = (groups.get(OTHER) ?? []).slice(0, MOST_LEVELS);
  const crowded = highest([...groups.values()].map((group) => group.length));
  const spread = crowded > 1 ? Math.min(0.72, 0.12 * crowded) : 0;
  /** @type {Map<Row, number>} */
  const places = new Map();
  // Rows of one K stand beside each other, so that their bars do not cover each other; many are strewn, so that their
  // order does not look like a slope, and the golden ratio spreads them evenly.
  for (const [index, group] of [...groups.values()].entries())
    group.forEach((row, own) => {
      const beside =
        group.length === 1 ? 0 : group.length > CROWDED ? ((own * 0.618034) % 1) - 0.5 : own / (group.length - 1) - 0.5;
      places.set(row, index + spread * beside);
    });
  // The best row comes first on a board.
  const best = [...groups.values()].flatMap((group) => [
    ...d3
      .rollup(
        group.filter((row) => row.head),
        ([first]) => first,
        (row) => row.head,
      )
      .values(),
  ]);
  const points = rows.map((row) => ({
    ...rowPoint(row, [y, column("chunk_size")]),
    x: places.get(row) ?? 0,
    y: number(row, y.key),
    ySpan: span(row, y),
  }));
  const thin = crowded > CROWDED;
  const top = highest(rows.map((row) => span(row, y)[1]));
  return chart({
    describe: `BrierLM against K, ${countOf(rows)}: ${[...groups].map(([name, [first]]) => `${name} at best ${first.texts.brierlm}`).join(", ")}.`,
    legend: legendOf(familiesOf(rows)),
    height: 320,
    draw: (width) => ({
      options: {
        width,
        height: 320,
        x: {
          domain: [-0.5, domain.length - 0.5],
          ticks: d3.range(domain.length),
          tickFormat: (index) => domain[index] ?? "",
          label: null,
        },
        y: { ...upward(axisName(y)), domain: [-0.04 * top, 1.1 * top] },
        marks: [
          Plot.ruleY(levels, {
            y: (row) => number(row, y.key),
            stroke: look(OTHER).colour,
            strokeOpacity: 0.5,
            strokeDasharray: "4 4",
          }),
          Plot.line(best, {
            x: (row) => places.get(row),
            y: (row) => number(row, y.key),
            z: "head",
            stroke: "var(--soft)",
            strokeOpacity: 0.6,
            strokeWidth: 1.2,
          }),
          ...scatter(points, { r: thin ? 3 : 6, thin, ring: !thin }),
        ],
      },
      grid: "y",
      points,
    }),
    rows: () => [["Row", "K", "BrierLM"], rows.map((row) => [row.label, placeOf(row), row.texts[y.key]])],
  });
}

export function componentCharts() {
  const all = page.board.rows;
  const isFew = all.length <= MOST_LISTED;
  const bestOfFamilies = familiesOf(all).map((family) => all.findIndex((row) => row.family === family));
  const rows = isFew ? all : d3.sort(bestOfFamilies.slice(0, MOST_LISTED)).map((index) => all[index]);
  const height = 46 + 24 * rows.length;
  return [1, 2, 3, 4].map((n) => {
    const x = column(`brier_${n}`);
    const points = rows.map((row, index) => ({
      ...rowPoint(row, [x, column("brierlm")]),
      x: number(row, x.key),
      y: String(index),
      xSpan: span(row, x),
    }));
    const made = chart({
      title: x.title,
      note: isFew ? undefined : "the best row of each family",
      describe: `${x.title} of ${countOf(rows)}, with one standard error.`,
      height,
      radius: 20,
      draw(width) {
        const left = Math.min(150, width * 0.36, 18 + 7.2 * highest(rows.map((row) => row.label.length)));
        return {
          options: {
            width,
            height,
            marginLeft: left,
            marginTop: 6,
            marginBottom: 30,
            x: {
              domain: [Math.min(0, ...points.map((p) => p.xSpan[0])), 1.04 * highest(points.map((p) => p.xSpan[1]))],
              label: null,
              ticks: Math.max(3, Math.floor(width / 80)),
            },
            y: {
              domain: points.map((point) => point.y),
              type: "point",
              padding: 0.5,
              label: null,
              tickSize: 0,
              tickFormat: (index) => short(rows[Number(index)].label, Math.floor(left / 7)),
            },
            marks: [Plot.ruleX([0], { stroke: "var(--soft)", strokeOpacity: 0.5 }), ...scatter(points, { r: 5.5 })],
          },
          grid: "x",
          points,
        };
      },
      rows: () => [["Row", x.title], all.map((row) => [row.label, row.texts[x.key]])],
    });
    return make("div", { class: "card" }, made);
  });
}
