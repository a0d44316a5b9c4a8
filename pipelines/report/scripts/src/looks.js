// What families look like: a colour and a symbol each, the same on the whole page.
import * as d3 from "d3";
import { data, drawn, make, named, present } from "./elements.js";

/** @typedef {{colour: string, symbol: keyof typeof SHAPES}} Look */

const SHAPES = {
  square: d3.symbolSquare,
  triangle: d3.symbolTriangle,
  diamond: d3.symbolDiamond,
  circle: d3.symbolCircle,
  wye: d3.symbolWye,
  star: d3.symbolStar,
  cross: d3.symbolCross,
};
const SYMBOLS = /** @type {(keyof typeof SHAPES)[]} */ (Object.keys(SHAPES));

/** @type {Map<string, Look>} */
const looks = new Map();
for (const { name, colour, marker } of data.families)
  looks.set(name, { colour: `var(--family-${colour})`, symbol: SYMBOLS[marker] });
// An autoencoder looks like its K where colours say K, and is grey where they say the head.
const sizes = d3.group(
  data.families.filter(({ name }) => name !== "token"),
  ({ name }) => name.split(" ")[0],
);
if (sizes.size > 1) for (const [size, [first]] of sizes) looks.set(size, look(first.name));
looks.set("autoencoder", { colour: "var(--soft)", symbol: "circle" });

/** @param {string | undefined} family @returns {Look} */
export function look(family) {
  return looks.get(family ?? "") ?? { colour: "var(--family-6)", symbol: "cross" };
}

/** @param {number} chunkSize of an autoencoder */
export const sizeLook = (chunkSize) => (looks.has(`K=${chunkSize}`) ? `K=${chunkSize}` : "autoencoder");

/** @param {string} family */
export function swatch(family) {
  const { colour, symbol } = look(family);
  return drawn(
    "svg",
    { viewBox: "-8 -8 16 16", class: "swatch", "aria-hidden": "true" },
    drawn("path", { d: d3.symbol(SHAPES[symbol], 90)(), fill: colour }),
  );
}

/** @param {string[]} families @param {string[][]} more marks by class, and what they mean */
export const legendOf = (families, more = []) =>
  make(
    "ul",
    { class: "legend", "aria-label": "Legend" },
    ...families.map((family) => make("li", {}, swatch(family), named(family))),
    ...present(more).map(([mark, text]) =>
      make("li", {}, make("span", { class: `mark ${mark}`, "aria-hidden": "true" }), text),
    ),
  );
