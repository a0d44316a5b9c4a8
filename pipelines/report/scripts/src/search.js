// What mattered in a search, and a slice through its points for every parameter.
import * as Plot from "@observablehq/plot";
import * as d3 from "d3";
import { logAxis, short, tick, upward } from "./axes.js";
import { rowOf } from "./board.js";
import { chart, highest, scatter } from "./chart.js";
import { data, make, named, plural, safeAddress } from "./elements.js";

/** @import {Parameter, Search, SearchPoint, StudyPart} from "./data.js" */

const ENOUGH_FOR_SLICES = 5;
/** @type {Record<string, string>} */
const OBJECTIVE_WORDS = {
  brierlm: "BrierLM",
  validation_loss: "held-out loss",
  inference_flops_per_token: "inference FLOPs per token",
  training_flops: "training FLOPs",
};
/** @type {Record<string, string>} */
const SAMPLER_WORDS = { grid: "Every point of a grid", tpe: "Points proposed by TPE from those before" };

/** Its name where there are several. @param {StudyPart} study */
export const studyTitle = (study) =>
  data.studies.length > 1 &&
  make("h3", {}, named(study.name), make("span", { class: "quiet" }, ` ${study.identity.slice(0, 8)}`));

export const searchParts = () =>
  data.studies.flatMap((study) => (study.search && study.search.points.length > 1 ? partsOf(study, study.search) : []));

/** @param {StudyPart} study @param {Search} search */
function partsOf(study, search) {
  const done = search.points.filter((point) => point.state === "complete" && point.value !== null);
  const objective = OBJECTIVE_WORDS[search.objective] ?? search.objective;
  const varied = search.parameters.filter(
    ({ name }) => new Set(done.map((point) => String(point.at[name]))).size > 1 && done.length >= ENOUGH_FOR_SLICES,
  );
  const slices = varied.map((parameter) =>
    make("div", { class: "card" }, slice(study, search, parameter, done, objective)),
  );
  return [
    studyTitle(study),
    make(
      "p",
      {},
      `${SAMPLER_WORDS[search.sampler] ?? "Points drawn at random"}; ${plural(search.points.length, "trial")}, ${done.length} finished. Objective: ${objective}, ${search.direction === "maximize" ? "higher" : "lower"} is better.`,
    ),
    search.why ? make("p", { class: "notice" }, search.why) : make("div", { class: "card" }, importanceChart(search)),
    slices.length > 0 && make("div", { class: `grid two${slices.length === 1 ? " one" : ""}` }, ...slices),
  ];
}

/** @param {Search} search */
function importanceChart(search) {
  const bars = Object.entries(search.importance).map(([name, value]) => ({
    name: search.parameters.find((parameter) => parameter.name === name)?.label ?? name,
    value,
    text: `${Math.round(100 * value)} %`,
  }));
  const height = 44 + 34 * bars.length;
  return chart({
    title: "Importance",
    note: "share of what the parameters explain (PED-ANOVA, by Optuna)",
    height,
    describe: `Importance by parameter: ${bars.map((bar) => `${bar.name} ${bar.text}`).join(", ")}.`,
    draw: (width) => ({
      options: {
        width,
        height,
        marginLeft: Math.min(190, width * 0.4, 24 + 7.5 * highest(bars.map((bar) => bar.name.length))),
        marginTop: 4,
        marginBottom: 30,
        x: {
          domain: [0, 1.12 * Math.max(0.05, ...bars.map((bar) => bar.value))],
          label: null,
          tickFormat: (value) => `${Math.round(100 * value)} %`,
          ticks: Math.max(3, Math.floor(width / 110)),
        },
        y: { domain: bars.map((bar) => bar.name), label: null, tickSize: 0, padding: 0.35 },
        marks: [
          Plot.barX(bars, { x: "value", y: "name", fill: "var(--accent)", rx: 3 }),
          Plot.text(bars, { x: "value", y: "name", text: "text", textAnchor: "start", dx: 6, fill: "currentColor" }),
        ],
      },
      grid: "x",
      points: [],
    }),
    rows: () => [["Parameter", "Importance"], bars.map((bar) => [bar.name, bar.text])],
  });
}

/** @param {StudyPart} study @param {Search} search @param {Parameter} parameter @param {SearchPoint[]} done
 * @param {string} objective */
function slice(study, search, { name, label, log, numeric }, done, objective) {
  const chosen = done.filter((point) => (point.at[name] ?? null) !== null);
  const chosenBy = (/** @type {SearchPoint} */ point) => String(point.at[name]);
  const levels = [...new Set(chosen.map(chosenBy))];
  const points = chosen.map((point) => {
    const found = rowOf(study, point.trial);
    return {
      x: numeric ? Number(point.at[name]) : levels.indexOf(chosenBy(point)),
      y: point.value ?? Number.NaN,
      name: point.label,
      family: found?.row.family ?? "",
      url: safeAddress(found?.member.url),
      lines: [
        [objective, point.text],
        [label, chosenBy(point)],
        ["Trial", String(point.trial)],
      ],
    };
  });
  const xs = points.map((point) => point.x);
  const isFlops = search.objective.includes("flops");
  const isLog = numeric && (log || (Math.min(...xs) > 0 && Math.max(...xs) / Math.min(...xs) >= 20));
  return chart({
    title: label,
    note: label === name ? undefined : name,
    height: 260,
    describe: `${objective} by ${name}, ${plural(points.length, "trial")}.`,
    draw: (width) => ({
      options: {
        width,
        height: 260,
        marginLeft: isFlops ? 62 : 50,
        x: numeric
          ? {
              ...(isLog
                ? logAxis(xs, width, 0.05, 0.05)
                : { nice: true, inset: 12, ticks: Math.max(3, Math.floor(width / 100)) }),
              label: null,
              tickFormat: tick,
            }
          : {
              domain: [-0.5, levels.length - 0.5],
              ticks: d3.range(levels.length),
              tickFormat: (index) => short(levels[index] ?? "", Math.floor(width / levels.length / 7)),
              label: null,
            },
        y: { ...upward(objective, 5), tickFormat: isFlops ? tick : undefined, nice: true },
        marks: scatter(points, { r: 5 }),
      },
      grid: numeric ? undefined : "y",
      points,
    }),
    rows: () => [["Trial", label, objective], chosen.map((point) => [point.label, chosenBy(point), point.text])],
  });
}
