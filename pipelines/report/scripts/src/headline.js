// The headline: what the board's families need for the same score, and the figures below it.
import * as d3 from "d3";
import { column, countOf, familiesOf, page } from "./board.js";
import { commandLine, data, make, named, plural, table } from "./elements.js";
import { swatch } from "./looks.js";

/** @import {Headline} from "./data.js" */

export function headlineParts() {
  const { headline } = page.board;
  const [first, ...others] = headline.sentences ?? [];
  const told = new Set(headline.claim?.sentences);
  const untold = others.filter((text) => !told.has(text));
  return [
    first && make("p", { class: `headline${first.length > 170 ? " long" : ""}` }, named(first)),
    headline.table && answers(headline, headline.table),
    untold.length > 0 &&
      make(
        "details",
        { class: "words-of-it" },
        make("summary", {}, "All of it in words"),
        make("ul", {}, ...untold.map((text) => make("li", {}, named(text)))),
      ),
    headline.claim?.sentences.length && claim(headline.claim),
    headline.command &&
      make(
        "div",
        {},
        make("p", { class: "quiet before-command" }, "What is still open can be answered by"),
        commandLine(headline.command),
      ),
    headline.method &&
      make(
        "details",
        { class: "method" },
        make("summary", {}, "How the intervals were made"),
        make("p", {}, named(headline.method)),
      ),
  ].map((part) => part || null);
}

/** @param {NonNullable<Headline["claim"]>} claim */
const claim = (claim) =>
  make(
    "div",
    { class: "claim" },
    make("p", { class: "eyebrow" }, "The paper's claim"),
    make(
      "p",
      { class: "verdicts" },
      ...[`training: ${claim.training}`, `inference: ${claim.inference}`].map((text) =>
        make("span", { class: `verdict ${text.split(" ")[1]}` }, text),
      ),
    ),
    ...claim.sentences.map((text) => make("p", {}, named(text))),
  );

/** @param {Headline} headline @param {NonNullable<Headline["table"]>} answered */
function answers(headline, { reference, rows }) {
  const looks = new Map((headline.families ?? []).map((family) => [family.name, family.look]));
  return make(
    "div",
    { class: "answers" },
    make(
      "p",
      { class: "answers-title" },
      "FLOPs for the same score, as a multiple of those of ",
      named(reference === "token" ? "the token model" : reference),
    ),
    table(
      ["Family", "At BrierLM", "Training", "with autoencoder", "Inference", "Score at equal training"],
      rows.map(({ family, cells }) => [
        make("span", { class: "with-swatch" }, swatch(looks.get(family) ?? family), named(family)),
        ...cells.map(([text, interval]) =>
          text.endsWith("×")
            ? make("span", {}, make("strong", {}, text), interval && make("small", {}, interval))
            : text,
        ),
      ]),
      { caption: "FLOPs for the same score" },
    ),
  );
}

export function tiles() {
  const { rows } = page.board;
  const [top] = rows;
  const tied = rows.filter((row) => row.rank === 1).length;
  const trainings = plural(
    d3.sum(rows, (row) => row.members.length || 1),
    "training",
  );
  return [
    [
      "Best BrierLM",
      top.texts[column("brierlm").key],
      tied > 1 ? `${top.label}; ${tied} rows share rank 1` : top.label,
    ],
    ["Compared", countOf(rows), `${trainings}, ${plural(familiesOf(rows).length, "family", "families")}`],
    ["Training", data.training_flops, "FLOPs, autoencoders included"],
    ["Work", data.wall_time, "summed over all stages"],
  ].map(([name, value, note]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, named(value)), make("dd", { class: "note" }, named(note))),
  );
}
