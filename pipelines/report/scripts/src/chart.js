// What all charts share: a frame with controls, legend and a table of the same data, and points that can be reached by
// pointer, finger and keys.
import * as Plot from "@observablehq/plot";
import * as d3 from "d3";
import { byId, make, present, save, table } from "./elements.js";
import { look } from "./looks.js";
import { standalone } from "./picture.js";

/**
 * @typedef {object} Point a mark that says more when it is reached
 * @property {number | string} x in the scale's units, as `y`
 * @property {number | string} y
 * @property {string} name
 * @property {string} [family]
 * @property {string[][]} lines of its tip, a name and a value each; the same names in all points of a chart
 * @property {string | null} [url] of the run
 * @property {string} [row] of the leaderboard
 * @property {[number, number]} [xSpan] ends of its error bar
 * @property {[number, number]} [ySpan]
 * @property {boolean} [faint]
 * @property {number} [line] the path it belongs to
 *
 * @typedef {object} Drawing
 * @property {Plot.PlotOptions} options
 * @property {Point[]} points
 * @property {"x" | "y"} [grid] the only direction of grid lines
 *
 * @typedef {object} Chart
 * @property {string} [title]
 * @property {string} [note]
 * @property {string | (() => string)} describe what is said instead of shown
 * @property {(Node | null | false)[]} [controls]
 * @property {Node | null} [legend]
 * @property {number} [height]
 * @property {number} [radius] how near a pointer has to come to a point
 * @property {(width: number) => Drawing | null} draw null where there is nothing to draw
 * @property {() => [string[], (string | Node)[][]]} [rows] the same data as a table: head and rows
 */

/** @type {Map<Element, (force?: boolean) => void>} */
const drawers = new Map();

/** Charts draw themselves when they come into view, and anew when their width changes.
 * @param {Chart} chart */
export function chart({ title, note, describe, controls = [], legend, height = 380, radius = 44, draw, rows }) {
  const area = make("div", { class: "plot", style: { "min-height": `${height}px` } });
  const keep = () => {
    const svg = /** @type {SVGSVGElement | null} */ (area.querySelector("svg"));
    const name = (title ?? "chart").replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
    if (svg) save(`${name.toLowerCase()}.svg`, standalone(svg), "image/svg+xml");
  };
  const box = make(
    "figure",
    { class: "chart" },
    title && make("figcaption", {}, make("strong", {}, title), note && make("span", {}, note)),
    controls.length > 0 && make("div", { class: "controls" }, ...controls),
    legend,
    area,
    make(
      "button",
      { type: "button", class: "button small save", "aria-label": `Save as SVG: ${title ?? "chart"}`, onclick: keep },
      "Save as SVG",
    ),
  );
  if (rows) {
    const details = make("details", { class: "data" }, make("summary", {}, "The data as a table"));
    details.addEventListener("toggle", () => {
      details.querySelector(".scroll")?.remove();
      if (details.open) details.append(table(...rows(), { caption: `${title ?? "Chart"}: data` }));
    });
    box.append(details);
  }
  let width = 0;
  drawers.set(box, (force = true) => {
    const now = Math.floor(area.clientWidth);
    if (!now || (!force && now === width)) return;
    width = now;
    area.style.removeProperty("min-height");
    const made = draw(width);
    area.replaceChildren(
      made
        ? plot(made, radius, typeof describe === "string" ? describe : describe())
        : make("p", { class: "empty" }, "Nothing to draw with this choice."),
    );
  });
  sight.observe(box);
  return box;
}

/** Draw a chart anew. @param {Element | null} box */
export const refresh = (box) => box && drawers.get(box)?.();

/** Forget charts that are no longer on the page. */
export function sweep() {
  for (const box of drawers.keys()) if (!box.isConnected) drawers.delete(box);
}

/** @param {Drawing} drawing @param {number} radius @param {string} words */
function plot({ options, points, grid }, radius, words) {
  const lines = { stroke: "var(--line)", strokeOpacity: 1 };
  const narrow = (options.width ?? 0) < 520;
  const svg = /** @type {SVGSVGElement & Plot.Plot} */ (
    Plot.plot({
      marginLeft: 46,
      marginRight: narrow ? 12 : 18,
      marginTop: 26,
      marginBottom: 42,
      style: { fontFamily: "inherit", fontSize: "12px", background: "none", overflow: "visible" },
      color: { type: "identity" },
      symbol: { type: "identity" },
      ...options,
      marks: [
        // The grid stands where the axes have their marks.
        grid !== "y" ? Plot.gridX({ ...lines, ticks: options.x?.ticks }) : null,
        grid !== "x" ? Plot.gridY({ ...lines, ticks: options.y?.ticks }) : null,
        ...(options.marks ?? []),
        ...(points.length ? tips(points, radius) : []),
      ],
    })
  );
  svg.setAttribute("role", "group");
  svg.setAttribute("aria-roledescription", "chart");
  svg.setAttribute("aria-label", points.length ? `${words} Arrow keys go from point to point.` : words);
  if (points.length) interact(svg, points);
  return svg;
}

/** Error bars and marks of points. @param {Point[]} points */
export function scatter(points, { r = 6, thin = false, ring = true } = {}) {
  const bar = {
    stroke: colour,
    strokeWidth: thin ? 0.7 : 1.5,
    strokeOpacity: (/** @type {Point} */ point) => (point.faint ? 0.12 : thin ? 0.4 : 0.85),
  };
  const [tall, wide] = [points.filter((point) => point.ySpan), points.filter((point) => point.xSpan)];
  return [
    tall.length ? Plot.ruleX(tall, { x: "x", y1: (p) => p.ySpan[0], y2: (p) => p.ySpan[1], ...bar }) : null,
    wide.length ? Plot.ruleY(wide, { y: "y", x1: (p) => p.xSpan[0], x2: (p) => p.xSpan[1], ...bar }) : null,
    Plot.dot(points, {
      x: "x",
      y: "y",
      r,
      symbol: (point) => look(point.family).symbol,
      fill: colour,
      fillOpacity: (point) => (point.faint ? 0.15 : 1),
      stroke: ring ? "var(--card)" : "none",
      strokeWidth: thin ? 0.6 : 1.2,
    }),
  ];
}

/** @param {Point} point */
const colour = (point) => (point.family ? look(point.family).colour : "var(--accent)");

/** @param {Point} point */
const hintOf = (point) =>
  point.url ? "Click or Enter: the run in MLflow" : point.row ? "Click or Enter: the row" : null;

/** The tip of the point that is reached, and a ring around it that is a link to its run.
 * @param {Point[]} points @param {number} maxRadius */
function tips(points, maxRadius) {
  const at = { x: "x", y: "y", maxRadius };
  const lines = points[0].lines.map(([label], index) => [
    `line ${index}`,
    { label, value: (/** @type {Point} */ point) => point.lines[index][1] },
  ]);
  return [
    Plot.dot(
      points,
      Plot.pointer({ ...at, r: 10, href: "url", target: "_blank", fill: "transparent", className: "ring" }),
    ),
    Plot.tip(
      points,
      Plot.pointer({
        ...at,
        className: "tip",
        fill: "var(--card)",
        stroke: "var(--edge)",
        fontSize: 12.5,
        lineHeight: 1.4,
        textPadding: 10,
        lineWidth: 22,
        pathFilter: "drop-shadow(0 4px 10px rgb(0 0 0 / 20%))",
        channels: {
          name: { label: "", scale: "color", value: colour },
          ...Object.fromEntries(lines),
          hint: { label: "", value: hintOf },
        },
        format: {
          name: (/** @type {string} */ _, /** @type {number} */ index) => points[index].name,
          x: false,
          y: false,
          href: false,
        },
      }),
    ),
  ];
}

/** Keys go where a pointer would; a press opens what is shown.
 * @param {SVGSVGElement & Plot.Plot} svg @param {Point[]} points */
function interact(svg, points) {
  const places = points
    .map((point) => ({ point, px: svg.scale("x")?.apply(point.x), py: svg.scale("y")?.apply(point.y) }))
    .sort((a, b) => a.px - b.px || a.py - b.py);
  const leave = () => svg.dispatchEvent(new PointerEvent("pointerleave", { pointerType: "mouse" }));
  // Of points that coincide one is shown: the walk goes on from where it was, not from that one.
  let walked = { index: -1, value: /** @type {unknown} */ (undefined) };
  /** @param {number} step */
  function reach(step) {
    const index = (step + places.length) % places.length;
    const { px, py } = places[index];
    const { x, y } = new DOMPoint(px, py).matrixTransform(svg.getScreenCTM() ?? undefined);
    svg.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y, pointerType: "mouse" }));
    walked = { index, value: svg.value };
  }
  /** @type {Point | null} */
  let touched = null;
  const open = () => {
    if (svg.value?.url) window.open(svg.value.url, "_blank", "noopener,noreferrer");
    else if (svg.value?.row) svg.dispatchEvent(new CustomEvent("row", { bubbles: true, detail: svg.value.row }));
  };
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("input", () => {
    const { name, lines } = svg.value ?? { lines: [] };
    byId("tip").textContent = present([name, ...lines.map((/** @type {string[]} */ line) => line.join(" "))]).join(
      ", ",
    );
  });
  // Plot would keep the tip of a point that was pressed, until the next press.
  svg.addEventListener("pointerdown", (event) => event.stopImmediatePropagation(), true);
  svg.addEventListener("click", (event) => {
    // A finger first reads what it has touched; its second touch opens it.
    const isFirst = event instanceof PointerEvent && event.pointerType === "touch" && touched !== svg.value;
    touched = svg.value;
    if (isFirst) event.preventDefault();
    else if (!(event.target instanceof Element && event.target.closest("a"))) open();
  });
  // The link inside takes the focus when it is pressed.
  svg.addEventListener(
    "focusout",
    (event) => svg.contains(/** @type {Node | null} */ (event.relatedTarget)) || leave(),
  );
  svg.addEventListener("keydown", (event) => {
    const here = walked.value === svg.value ? walked.index : places.findIndex((place) => place.point === svg.value);
    if (event.key === "ArrowRight" || event.key === "ArrowDown") reach(here + 1);
    else if (event.key === "ArrowLeft" || event.key === "ArrowUp") reach(here < 0 ? -1 : here - 1);
    else if (event.key === "Home") reach(0);
    else if (event.key === "End") reach(-1);
    else if (event.key === "Enter") open();
    else if (event.key === "Escape") leave();
    else return;
    event.preventDefault();
  });
}

const widths = new ResizeObserver((entries) => {
  for (const { target } of entries) requestAnimationFrame(() => drawers.get(target)?.(false));
});
const sight = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries)
      if (isIntersecting) {
        sight.unobserve(target);
        drawers.get(target)?.();
        widths.observe(target);
      }
  },
  { rootMargin: "500px" },
);

/** Everything drawn and unfolded, for paper. */
export function drawAll() {
  for (const box of drawers.keys()) drawers.get(box)?.(false);
  for (const each of document.querySelectorAll(".words-of-it, .method")) each.setAttribute("open", "");
}

/** The highest (or lowest) of some values, 1 where there is none. @param {number[]} values */
export const highest = (values) => d3.max(values) || 1;
