// What all charts share: a frame with controls, legend and a table of the same data; hovering, touching and keys.
const SYMBOLS = ["square", "triangle", "diamond", "circle", "wye", "star", "cross"];
const SYMBOL_SHAPES = {
  square: d3.symbolSquare,
  triangle: d3.symbolTriangle,
  diamond: d3.symbolDiamond,
  circle: d3.symbolCircle,
  wye: d3.symbolWye,
  star: d3.symbolStar,
  cross: d3.symbolCross,
};
function lookOf(family) {
  return { colour: `var(--family-${family.colour})`, symbol: SYMBOLS[family.marker] };
}
const looks = new Map(data.families.map((family) => [family.name, lookOf(family)]));
// An autoencoder looks like its K where colours say K, and is grey where they say the head.
const sizes = new Map(data.families.map((family) => [family.name.split(" ")[0], lookOf(family)]));
if (new Set(data.families.map((family) => family.name.split(" ")[0]).filter((name) => name !== "token")).size > 1)
  for (const [name, found] of sizes) if (!looks.has(name)) looks.set(name, found);
looks.set("autoencoder", { colour: "var(--soft)", symbol: "circle" });
const look = (family) => looks.get(family) ?? { colour: "var(--family-6)", symbol: "cross" };
const HIT = 44;
const charts = new Set();

function swatch(family) {
  const { colour, symbol } = look(family);
  return drawn(
    "svg",
    { viewBox: "-8 -8 16 16", class: "swatch", "aria-hidden": "true" },
    drawn("path", { d: d3.symbol(SYMBOL_SHAPES[symbol], 90)(), fill: colour }),
  );
}

function legendOf(families, more = []) {
  if (!families.length) return null;
  return make(
    "ul",
    { class: "legend", "aria-label": "Legend" },
    ...families.map((family) => make("li", {}, swatch(family), named(family))),
    ...more.map(([mark, text]) => make("li", {}, make("span", { class: `mark ${mark}`, "aria-hidden": "true" }), text)),
  );
}

// Marks of a logarithmic axis: round numbers, as many as have room, also where the axis is shorter than a decade.
function logTicks(low, high, room) {
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
  return (
    sets.find((ticks) => ticks.length <= room) ??
    sets[4].filter((_, index, all) => index % Math.ceil(all.length / room) === 0)
  );
}

function logAxis(values, { width, left = 0.1, right = 0.16 }) {
  const [low, high] = d3.extent(values);
  const span = Math.max(high / low, 4);
  const domain = [low / span ** left, high * span ** right];
  return { type: "log", domain, ticks: logTicks(...domain, Math.max(3, width / 90)) };
}

function frame(width, height, more = {}) {
  const narrow = width < 520;
  return {
    width,
    height,
    marginLeft: 46,
    marginRight: narrow ? 12 : 18,
    marginTop: 26,
    marginBottom: 42,
    style: { fontFamily: "inherit", fontSize: "12px", background: "none", overflow: "visible" },
    color: { type: "identity" },
    symbol: { type: "identity" },
    ...more,
  };
}

const grids = ({ x = {}, y = {} } = {}) => [
  Plot.gridX({ stroke: "var(--line)", strokeOpacity: 1, ticks: x.ticks }),
  Plot.gridY({ stroke: "var(--line)", strokeOpacity: 1, ticks: y.ticks }),
];

/* A chart draws itself when it comes into view, and anew when its width changes.
 *   draw(width) -> {options, points, after}; points: {x, y, title, family, lines, row, url}, in the scales' units
 *   rows() -> {head, rows}: the same data as a table
 */
function chart({ title, note, describe, controls = [], legend = null, height = 380, draw, rows, radius = HIT }) {
  const heading = title
    ? make("figcaption", {}, make("strong", {}, title), note ? make("span", {}, note) : null)
    : null;
  const area = make("div", { class: "plot" });
  area.style.setProperty("min-height", `${height}px`);
  const box = make(
    "figure",
    { class: "chart" },
    heading,
    controls.length ? make("div", { class: "controls" }, ...controls) : null,
    legend,
    area,
  );
  if (rows) {
    const details = make("details", { class: "data" }, make("summary", {}, "The data as a table"));
    details.addEventListener("toggle", () => {
      details.querySelector(".scroll")?.remove();
      if (!details.open) return;
      const found = rows();
      details.append(table(found.head, found.rows, { caption: `${title ?? "Chart"}: data` }));
    });
    box.append(details);
  }
  let width = 0;
  const self = {
    box,
    refresh(force = true) {
      const now = Math.floor(area.clientWidth);
      if (!now || (!force && now === width)) return;
      width = now;
      const made = draw(width);
      area.style.removeProperty("min-height");
      if (!made) return area.replaceChildren(make("p", { class: "empty" }, "Nothing to draw with this choice."));
      // The grid stands where the axes have their marks.
      const svg = Plot.plot({
        ...made.options,
        marks: [
          ...grids(made.options).filter((_, index) => (made.grid ?? "xy").includes("xy"[index])),
          ...made.options.marks,
        ],
      });
      svg.setAttribute("role", "group");
      svg.setAttribute("aria-roledescription", "chart");
      svg.setAttribute(
        "aria-label",
        `${typeof describe === "function" ? describe() : (describe ?? title)} ${made.points.length ? "Arrow keys go from point to point." : ""}`,
      );
      area.replaceChildren(svg);
      made.after?.(svg);
      if (made.points.length) follow(svg, made.points, radius);
    },
  };
  box.chart = self;
  charts.add(self);
  sight.observe(box);
  return box;
}

const widths = new ResizeObserver((entries) => {
  for (const entry of entries) requestAnimationFrame(() => entry.target.chart?.refresh(false));
});
const sight = new IntersectionObserver(
  (entries) => {
    for (const entry of entries)
      if (entry.isIntersecting) {
        sight.unobserve(entry.target);
        entry.target.chart.refresh();
        widths.observe(entry.target);
      }
  },
  { rootMargin: "500px" },
);
addEventListener("beforeprint", () => showAll());
addEventListener("beforeprint", () =>
  document.querySelectorAll(".words-of-it, .method").forEach((each) => (each.open = true)),
);
addEventListener("beforeprint", () => charts.forEach((each) => each.box.isConnected && each.refresh(false)));

const open = (point) => {
  const address = safeAddress(point.url);
  if (address) window.open(address, "_blank", "noopener,noreferrer");
  else if (point.row) showRow(point.row);
};

function follow(svg, points, radius) {
  const [x, y] = [svg.scale("x"), svg.scale("y")];
  const placed = points
    .map((point) => ({ point, px: x.apply(point.x), py: y.apply(point.y) }))
    .filter(({ px, py }) => Number.isFinite(px) && Number.isFinite(py));
  const walk = [...placed].sort((a, b) => a.px - b.px || a.py - b.py);
  const ring = drawn("circle", { r: 10, class: "ring" });
  const anchor = drawn("a", { class: "ring-link", tabindex: "-1", target: "_blank", rel: "noopener noreferrer" }, ring);
  anchor.style.setProperty("display", "none");
  svg.append(anchor);
  let active = null;
  let fresh = false;
  function show(place) {
    fresh = place !== active;
    active = place;
    if (!place) {
      anchor.style.setProperty("display", "none");
      svg.dispatchEvent(new CustomEvent("leave"));
      return hideTip();
    }
    ring.setAttribute("cx", place.px);
    ring.setAttribute("cy", place.py);
    const address = safeAddress(place.point.url);
    if (address) anchor.setAttribute("href", address);
    else anchor.removeAttribute("href");
    anchor.style.removeProperty("display");
    const frame = svg.getBoundingClientRect();
    const scale = frame.width / Number(svg.getAttribute("width"));
    followed = { svg, show: () => active && show(active) };
    showTip(place.point, frame.left + place.px * scale, frame.top + place.py * scale);
    if (fresh) svg.dispatchEvent(new CustomEvent("reach", { detail: place.point }));
  }
  function nearest(event) {
    const frame = svg.getBoundingClientRect();
    const scale = Number(svg.getAttribute("width")) / frame.width;
    const [mx, my] = [(event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale];
    let best = null;
    let least = radius * radius;
    for (const place of placed) {
      const distance = (place.px - mx) ** 2 + (place.py - my) ** 2;
      if (distance < least) [best, least] = [place, distance];
    }
    return best;
  }
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("pointermove", (event) => event.pointerType !== "touch" && show(nearest(event)));
  svg.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && show(null));
  svg.addEventListener("pointerdown", (event) => event.pointerType === "touch" && show(nearest(event)));
  svg.addEventListener("click", (event) => {
    const onLink = event.target.closest?.("a[href]");
    // A finger first reads what it has touched; its second touch opens it.
    if (event.pointerType === "touch" && fresh) return event.preventDefault();
    if (active && !onLink) open(active.point);
  });
  // The link inside may take the focus when it is pressed.
  svg.addEventListener("focusout", (event) => svg.contains(event.relatedTarget) || show(null));
  svg.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (event.key in steps) {
      const from = walk.indexOf(active);
      show(
        walk[
          from < 0
            ? steps[event.key] > 0
              ? 0
              : walk.length - 1
            : (from + steps[event.key] + walk.length) % walk.length
        ],
      );
    } else if (event.key === "Home") show(walk[0]);
    else if (event.key === "End") show(walk[walk.length - 1]);
    else if (event.key === "Enter" && active) open(active.point);
    else if (event.key === "Escape") show(null);
    else return;
    event.preventDefault();
  });
}

function showTip(point, left, top) {
  const tip = byId("tip");
  const hint = safeAddress(point.url)
    ? "Click or Enter: the run in MLflow"
    : point.row
      ? "Click or Enter: the row"
      : "";
  tip.replaceChildren(
    make("p", { class: "tip-title" }, point.family ? swatch(point.family) : null, named(point.title)),
    make(
      "dl",
      {},
      ...point.lines.flatMap(([name, value]) => [make("dt", {}, named(name)), make("dd", {}, named(value))]),
    ),
    hint ? make("p", { class: "tip-hint" }, hint) : null,
  );
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const room = document.documentElement.clientWidth;
  const x = left + 18 + width > room - 8 ? Math.max(8, left - width - 18) : left + 18;
  const y = Math.min(Math.max(8, top - height / 2), innerHeight - height - 8);
  // On a phone there is no room at either side: above or below the finger then.
  const covers = x < left && x + width > left - 10;
  tip.style.setProperty("left", `${Math.max(8, Math.min(x, room - width - 8))}px`);
  tip.style.setProperty("top", `${covers ? (top > height + 40 ? top - height - 22 : top + 26) : y}px`);
}

function hideTip() {
  byId("tip").hidden = true;
}
// What keys have reached stays with its point when the page moves under it.
let followed = null;
addEventListener("scroll", () => (followed && document.activeElement === followed.svg ? followed.show() : hideTip()), {
  passive: true,
});

// Labels beside points, where they cover neither a point nor each other; those without a place stay out.
function label(svg, points) {
  const [x, y] = [svg.scale("x"), svg.scale("y")];
  const width = Number(svg.getAttribute("width"));
  const placed = points.map((point) => ({ point, px: x.apply(point.x), py: y.apply(point.y) }));
  const taken = placed.map(({ px, py }) => [px - 7, py - 7, px + 7, py + 7]);
  const meets = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
  for (const { point, px, py } of placed) {
    const name = point.title.length > 26 ? `${point.title.slice(0, 25)}…` : point.title;
    const text = drawn("text", { class: "point-label" });
    text.textContent = name;
    svg.append(text);
    const length = text.getComputedTextLength() || name.length * 7;
    const places = [
      [11, 4, "start"],
      [-11, 4, "end"],
      [8, -9, "start"],
      [8, 18, "start"],
      [-8, -9, "end"],
      [-8, 18, "end"],
    ];
    const box = ([dx, dy, anchor]) => {
      const left = px + dx - (anchor === "end" ? length : 0);
      return [left, py + dy - 11, left + length, py + dy + 3];
    };
    const found = places.find((place) => {
      const own = box(place);
      return own[0] > 46 && own[2] < width - 2 && !taken.some((other) => meets(own, other));
    });
    if (!found) {
      text.remove();
      continue;
    }
    taken.push(box(found));
    text.setAttribute("x", px + found[0]);
    text.setAttribute("y", py + found[1]);
    text.setAttribute("text-anchor", found[2]);
  }
}
