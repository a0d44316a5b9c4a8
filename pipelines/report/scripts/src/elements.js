// Elements are made by name and text is set as text: nothing on this page is ever parsed as markup.

/** @typedef {Node | string | null | undefined | false} Child */

/** @type {import("./data.js").Report} */
export const data = JSON.parse(document.getElementById("data")?.textContent ?? "");

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} name
 * @param {Record<string, unknown>} properties attributes; `on...` is a listener, `style` an object
 * @param {Child[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(key.slice(2), /** @type {EventListener} */ (value));
    else if (key === "style") for (const [name, what] of Object.entries(value)) element.style.setProperty(name, what);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...present(children));
  return element;
}

/**
 * @template T
 * @param {(T | null | undefined | false)[]} all
 */
export const present = (all) =>
  /** @type {T[]} */ (all.filter((each) => each !== null && each !== undefined && each !== false));

/**
 * @param {string} name
 * @param {Record<string, unknown>} properties
 * @param {Node[]} children
 */
export function drawn(name, properties = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(properties)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}

/** @param {string} id of an element that the page has */
export const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** Names of runs may be of any script: isolated, so that they cannot turn what stands around them.
 * @param {string} text */
export const named = (text) => make("bdi", {}, text);

/** @param {number} count @param {string} one @param {string} many */
export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/**
 * @param {string[]} head
 * @param {(string | Node)[][]} rows
 * @param {{caption: string, numeric?: boolean}} options `numeric`: whether all columns but the first are numbers
 */
export function table(head, rows, { caption, numeric = true }) {
  const kind = numeric ? "number" : "";
  return make(
    "div",
    { class: "scroll", role: "region", tabindex: 0, "aria-label": caption },
    make(
      "table",
      { class: "plain" },
      make("caption", { class: "unseen" }, caption),
      make(
        "thead",
        {},
        make("tr", {}, ...head.map((title, index) => make("th", { scope: "col", class: index ? kind : "" }, title))),
      ),
      make(
        "tbody",
        {},
        ...rows.map(([first, ...others]) =>
          make(
            "tr",
            {},
            make("th", { scope: "row" }, typeof first === "string" ? named(first) : first),
            ...others.map((cell) => make("td", { class: kind }, cell)),
          ),
        ),
      ),
    ),
  );
}

/** Only addresses of a server of pages; anything else a file may name is not made into a link.
 * @param {string | null | undefined} address */
export const safeAddress = (address) => (address && /^https?:\/\//.test(address) ? address : null);

/** @param {string | null} address @param {string} text @param {Record<string, unknown>} properties */
export function link(address, text, properties = {}) {
  const safe = safeAddress(address);
  if (!safe) return named(text);
  return make("a", { href: safe, target: "_blank", rel: "noopener noreferrer", ...properties }, named(text));
}

/**
 * @param {string} label
 * @param {string[][]} options key and title of each
 * @param {string} value
 * @param {(value: string) => void} change
 */
export function select(label, options, value, change) {
  const field = make(
    "select",
    { "aria-label": label, onchange: () => change(field.value) },
    ...options.map(([key, title]) => make("option", { value: key }, title)),
  );
  field.value = value;
  return make("label", { class: "field" }, make("span", {}, label), field);
}

/** @param {string} label @param {boolean} value @param {(value: boolean) => void} change */
export function check(label, value, change) {
  const field = make("input", { type: "checkbox", onchange: () => change(field.checked) });
  field.checked = value;
  return make("label", { class: "check" }, field, make("span", {}, label));
}

/** @param {string} name @param {string} text @param {string} type */
export function save(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/** A line for a shell with its button. @param {string} text */
export const commandLine = (text) =>
  make("div", { class: "command" }, make("code", { tabindex: 0 }, text), copyButton(text, `: ${text}`));

/** @param {string} text @param {string} what */
export function copyButton(text, what) {
  const button = make("button", { type: "button", class: "button small", "aria-label": `Copy ${what}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed here";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}
