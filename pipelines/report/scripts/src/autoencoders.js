// What autoencoders keep, and what they bear.
import * as Plot from "@observablehq/plot";
import * as d3 from "d3";
import { across, upward } from "./axes.js";
import { page } from "./board.js";
import { chart, highest, scatter } from "./chart.js";
import { data, make, named, plural, table } from "./elements.js";
import { legendOf, look, sizeLook, swatch } from "./looks.js";

/** @import {Autoencoder} from "./data.js" */

const MOST_DRAWN = 40;

export function autoencoderParts() {
  const used = new Set(page.board.rows.flatMap((row) => row.members.map((member) => member.trained.autoencoder)));
  const all = data.autoencoders.filter((each) => used.has(each.model));
  if (!all.length) return [];
  const overview = table(
    ["Autoencoder", "Tokens kept", "Collapsed dimensions", "From a draw", "Posterior's std", "Parameters"],
    all.map((each) => [
      make("span", { class: "with-swatch" }, swatch(sizeLook(each.chunk_size)), named(each.label)),
      ...each.cells,
    ]),
    { caption: "Autoencoders" },
  );
  const probed = all.filter((each) => each.kl.length).slice(0, MOST_DRAWN);
  if (!probed.length) return [overview];
  const charts = [
    keptShare(probed, "noise", "Noise on the latent", "standard deviation of the noise", "disturbed"),
    keptShare(probed, "bits", "Coarser latents", "bits a dimension", "rounded in every dimension"),
    klChart(probed),
  ];
  return [
    overview,
    make("div", { class: "grid two" }, ...charts.map((each) => make("div", { class: "card" }, each))),
    make(
      "p",
      { class: "caption" },
      "A collapsed dimension carries nothing: its KL to the prior is below 0.01 nats. Noise is added to the posterior's mean; bits: each dimension of the mean is rounded to one of 2ᵇ equal cells. Bars are one standard error over chunks.",
    ),
  ];
}

/** @param {Autoencoder[]} all */
const legend = (all) => legendOf([...new Set(all.map((each) => sizeLook(each.chunk_size)))]);

/** @param {Autoencoder[]} all @param {"noise" | "bits"} probe @param {string} title @param {string} xName
 * @param {string} how */
function keptShare(all, probe, title, xName, how) {
  const points = all.flatMap((each) =>
    each[probe].map(({ x, y, se, text }) => ({
      x,
      y,
      ySpan: /** @type {[number, number]} */ ([y - se, y + se]),
      name: each.label,
      family: sizeLook(each.chunk_size),
      lines: [
        ["Tokens kept", text],
        [xName, String(x)],
      ],
    })),
  );
  return chart({
    title,
    note: `tokens kept when the latent is ${how}`,
    height: 290,
    describe: `${title}: tokens kept over ${xName}, ${plural(all.length, "autoencoder")}.`,
    legend: legend(all),
    draw: (width) => ({
      options: {
        width,
        height: 290,
        marginLeft: 52,
        x: across(xName, width),
        y: {
          ...upward("tokens kept", 5),
          tickFormat: (value) => `${Math.round(100 * value)} %`,
          domain: [Math.min(0.9, d3.min(points, (point) => point.y) ?? 0) - 0.02, 1.005],
        },
        marks: [
          ...all.map((each) =>
            Plot.line(each[probe], {
              x: "x",
              y: "y",
              stroke: look(sizeLook(each.chunk_size)).colour,
              strokeWidth: 1.6,
            }),
          ),
          ...scatter(points, { r: 4 }),
        ],
      },
      points,
    }),
    rows: () => [
      ["Autoencoder", xName, "Tokens kept"],
      points.map((point) => [point.name, String(point.x), point.lines[0][1]]),
    ],
  });
}

/** @param {Autoencoder[]} all */
function klChart(all) {
  const points = all.flatMap((each) =>
    each.kl.map((y, index) => ({
      x: index + 1,
      y,
      name: each.label,
      family: sizeLook(each.chunk_size),
      lines: [
        ["KL", `${each.kl_texts[index]} nats`],
        ["Rank", String(index + 1)],
      ],
    })),
  );
  return chart({
    title: "What each dimension carries",
    note: "KL to the prior, largest first",
    height: 290,
    describe: `KL of every latent dimension, ${plural(all.length, "autoencoder")}.`,
    legend: legend(all),
    draw: (width) => ({
      options: {
        width,
        height: 290,
        x: across("dimension, by rank", width),
        y: { ...upward("nats", 5), domain: [0, 1.08 * highest(points.map((point) => point.y))] },
        marks: [
          Plot.line(points, {
            x: "x",
            y: "y",
            z: "name",
            curve: "step",
            stroke: (point) => look(point.family).colour,
            strokeWidth: 1.6,
          }),
          Plot.ruleY([0.01], { stroke: "var(--soft)", strokeDasharray: "3 3" }),
        ],
      },
      points,
    }),
    rows: () => [
      ["Autoencoder", "Smallest", "Median", "Largest"],
      all.map(({ label, kl_texts }) => [
        label,
        kl_texts[kl_texts.length - 1],
        kl_texts[Math.floor(kl_texts.length / 2)],
        kl_texts[0],
      ]),
    ],
  });
}
