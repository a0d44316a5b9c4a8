// The board that is shown, and what all parts of the page ask of its rows.
import { data, plural, safeAddress } from "./elements.js";

/** @import {Column, Row, StudyPart} from "./data.js" */

/** What the reader has chosen: the board, and which rows the words in the filter leave. */
export const page = { board: data.boards[0], matching: /** @type {(row: Row) => boolean} */ (() => true) };

/** NaN where the row has no number there. @param {Row} row @param {string | null} key */
export const number = (row, key) => Number(row.values[key ?? ""] ?? Number.NaN);

/** @param {string} key of a column that every board has */
export const column = (key) => /** @type {Column} */ (page.board.columns.find((each) => each.key === key));

/** A value less and more its error. @param {Row} row @param {Column} column @returns {[number, number]} */
export function span(row, column) {
  const [value, error] = [number(row, column.key), number(row, column.error) || 0];
  return [value - error, value + error];
}

/** @param {Row[]} rows */
export const familiesOf = (rows) =>
  data.families.map((family) => family.name).filter((name) => rows.some((row) => row.family === name));

/** @param {Row} row */
export const urlOf = (row) => safeAddress(row.members.find((member) => member.url)?.url);

export const isOneStudy = new Set(data.studies.map((study) => study.name)).size < 2;

/** What the tip of a row's point says. @param {Row} row @param {Column[]} columns */
export const rowPoint = (row, columns) => ({
  name: row.label,
  family: row.family,
  row: row.key,
  url: urlOf(row),
  lines: [
    ["Rank", String(row.rank)],
    ...columns.map((column) => [column.title, row.texts[column.key]]),
    ...(isOneStudy ? [] : [["Study", row.study]]),
    ["Seeds", String(row.values.seeds)],
  ],
});

/** The row of a study's trial. @param {StudyPart} study @param {number} trial */
export function rowOf(study, trial) {
  for (const row of page.board.rows)
    for (const member of row.members)
      if (data.studies[member.study] === study && member.trial === trial) return { row, member };
  return null;
}

/** @param {Row[]} rows */
export const countOf = (rows) => plural(rows.length, "row");
