// Axes: their marks, and the frame that all charts share.
import * as d3 from "d3";

/** @import {Column} from "./data.js" */

const RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/** A mark of an axis, 2·10¹³ and plain where it is short. @param {number} value */
export function tick(value) {
  const [mantissa, digits] = value.toExponential(2).split("e");
  const exponent = Number(digits);
  if (Math.abs(exponent) < 4) return value.toLocaleString("en");
  const raised = `${exponent < 0 ? "⁻" : ""}${String(Math.abs(exponent)).replace(/\d/g, (digit) => RAISED[Number(digit)])}`;
  return Number(mantissa) === 1 ? `10${raised}` : `${Number(mantissa)}·10${raised}`;
}

const si = d3.format("~s");
/** @type {Partial<Record<Column["form"], (value: number) => string>>} */
const FORMS = {
  flops: tick,
  count: si,
  whole: si,
  share: (value) => `${d3.format(".2~f")(100 * value)} %`,
  duration: (seconds) => `${d3.format(",.3~r")(seconds / 60)} min`,
};

/** @param {Column} column */
export const tickOf = (column) => FORMS[column.form];

/** @param {Column} column */
export const axisName = (column) =>
  column.unit && column.unit !== "task" ? `${column.title} (${column.unit})` : column.title;

/** Marks of a logarithmic axis: round numbers, as many as have room, also where the axis is shorter than a decade.
 * @param {number} low @param {number} high @param {number} room */
export function logTicks(low, high, room) {
  const decades = d3.range(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)) + 1);
  const sets = [
    [1, 1.2, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9],
    [1, 1.5, 2, 3, 4, 5, 7],
    [1, 2, 5],
    [1, 3],
    [1],
  ].map((steps) =>
    decades
      .flatMap((decade) => steps.map((step) => step * 10 ** decade))
      .filter((value) => value >= low && value <= high),
  );
  const fitting = sets.find((ticks) => ticks.length <= room);
  return fitting ?? sets[4].filter((_, index, all) => index % Math.ceil(all.length / room) === 0);
}

/** @param {number[]} values @param {number} room in pixels @param {number} before margin, as a share of the span
 * @param {number} behind */
export function logAxis(values, room, before = 0.1, behind = 0.16) {
  const low = d3.min(values) ?? 1;
  const high = d3.max(values) ?? 1;
  const span = Math.max(high / low, 4);
  const domain = [low / span ** before, high * span ** behind];
  return { type: /** @type {const} */ ("log"), domain, ticks: logTicks(domain[0], domain[1], Math.max(3, room / 90)) };
}

/** Label of a horizontal axis, and as many marks as have room. @param {string} label @param {number} width
 * @param {number} each */
export const across = (label, width, each = 80) => ({
  label,
  labelAnchor: /** @type {const} */ ("center"),
  labelArrow: /** @type {const} */ ("none"),
  ticks: Math.max(3, Math.floor(width / each)),
});

/** Label of a vertical axis. @param {string | null} label */
export const upward = (label, ticks = 6) => ({ label, labelArrow: /** @type {const} */ ("none"), ticks });

/** A text cut to so many letters. @param {string} text @param {number} room */
export const short = (text, room) => (text.length > room ? `${text.slice(0, Math.max(1, room - 1))}…` : text);
