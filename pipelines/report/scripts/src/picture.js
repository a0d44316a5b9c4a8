// A chart as a file: an SVG that brings its colours and fonts along, since the page's style stays behind.
const PAINTED = ["fill", "fill-opacity", "stroke", "stroke-opacity", "stroke-width", "opacity", "color"];
const WRITTEN = ["font-family", "font-size", "font-weight", "text-anchor"];

/** The text of an SVG file that looks as `svg` does on the page, without its tip. @param {SVGSVGElement} svg */
export function standalone(svg) {
  const copy = /** @type {SVGSVGElement} */ (svg.cloneNode(true));
  const copies = [copy, ...copy.querySelectorAll("*")];
  [svg, ...svg.querySelectorAll("*")].forEach((element, index) => {
    const [looks, kept] = [getComputedStyle(element), /** @type {SVGElement} */ (copies[index]).style];
    for (const name of [...PAINTED, ...WRITTEN]) kept?.setProperty(name, looks.getPropertyValue(name));
  });
  for (const part of copy.querySelectorAll(".tip, style")) part.remove();
  copy.style.setProperty("background", getComputedStyle(svg).getPropertyValue("--card"));
  for (const name of ["role", "tabindex", "aria-roledescription"]) copy.removeAttribute(name);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return `${new XMLSerializer().serializeToString(copy)}\n`;
}
