// The models kept along trainings: score against compute, and against cross-entropy.
import * as Plot from "@observablehq/plot";
import * as d3 from "d3";
import { across, tick, upward } from "./axes.js";
import { page } from "./board.js";
import { chart, highest, scatter } from "./chart.js";
import { data, make } from "./elements.js";
import { legendOf, look } from "./looks.js";

/** @import {CheckpointCurve} from "./data.js" */

/** @param {CheckpointCurve} kept @param {"training_flops" | "cross_entropy"} x */
const pointsOf = (kept, x) =>
  kept.points.map((point, index) => ({
    name: kept.label,
    family: kept.family,
    x: point[x],
    y: point.brierlm,
    ySpan: ends(point.brierlm, point.brierlm_se),
    xSpan: x === "cross_entropy" ? ends(point.cross_entropy, point.cross_entropy_se) : undefined,
    lines: [
      ["BrierLM", kept.texts[index].brierlm],
      ["Cross-entropy", kept.texts[index].cross_entropy],
      ["Training FLOPs", kept.texts[index].training_flops],
    ],
  }));

/** @param {number} value @param {number} error @returns {[number, number]} */
const ends = (value, error) => [value - error, value + error];

export function keptCharts() {
  const all = data.kept.filter((each) => each.protocol_hash === page.board.protocol_hash && each.points.length);
  if (!all.length) return [];
  return [
    keptChart(all, "training_flops", "Score along training", "training FLOPs of the language model"),
    keptChart(
      all,
      "cross_entropy",
      "Score against cross-entropy",
      "cross-entropy, nats per token (of chunk models an upper bound)",
    ),
  ];
}

/** @param {CheckpointCurve[]} all @param {"training_flops" | "cross_entropy"} x @param {string} title @param {string} label */
function keptChart(all, x, title, label) {
  const points = all.flatMap((each) => pointsOf(each, x));
  const top = highest(points.map((point) => point.ySpan[1]));
  const made = chart({
    title,
    height: 340,
    describe: `${title}: ${all.map((each) => `${each.label}, ${each.points.length} models`).join("; ")}.`,
    legend: legendOf([...new Set(all.map((each) => each.family))]),
    draw: (width) => ({
      options: {
        width,
        height: 340,
        x: {
          ...across(label, width, 110),
          tickFormat: x === "training_flops" ? tick : undefined,
          reverse: x === "cross_entropy",
          zero: x === "training_flops",
          nice: true,
        },
        y: {
          ...upward("BrierLM"),
          domain: [Math.min(-0.04 * top, d3.min(points, (point) => point.ySpan[0]) ?? 0), 1.08 * top],
        },
        marks: [
          ...all.map((each) =>
            Plot.line(each.points, {
              x,
              y: "brierlm",
              stroke: look(each.family).colour,
              strokeWidth: 1.2,
              strokeOpacity: 0.7,
            }),
          ),
          ...scatter(points, { r: 4.5 }),
        ],
      },
      points,
    }),
    rows: () => [
      ["Run", "Training FLOPs", "BrierLM", "Cross-entropy"],
      all.flatMap((each) =>
        each.texts.map((text) => [each.label, text.training_flops, text.brierlm, text.cross_entropy]),
      ),
    ],
  });
  return make("div", { class: "card" }, made);
}
