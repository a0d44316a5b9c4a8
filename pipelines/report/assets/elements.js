// Elements are made by name and text is set as text: nothing on this page is ever parsed as markup.
const data = JSON.parse(document.getElementById("data").textContent);

function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [name, what] of Object.entries(value)) element.style.setProperty(name, what);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function drawn(name, properties = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(properties)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}

const byId = (id) => document.getElementById(id);

// Names of runs may be of any script: isolated, so that they cannot turn what stands around them.
const named = (text, properties = {}) => make("bdi", properties, text);

function table(head, rows, { caption = "", numeric = () => true } = {}) {
  return make(
    "div",
    { class: "scroll", role: "region", tabindex: 0, "aria-label": caption || "Table" },
    make(
      "table",
      { class: "plain" },
      caption && make("caption", { class: "unseen" }, caption),
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          ...head.map((title, index) =>
            make("th", { scope: "col", class: index && numeric(index) ? "number" : "" }, title),
          ),
        ),
      ),
      make(
        "tbody",
        {},
        ...rows.map((row) =>
          make(
            "tr",
            {},
            ...row.map((cell, index) =>
              index === 0
                ? make("th", { scope: "row" }, typeof cell === "string" ? named(cell) : cell)
                : make("td", { class: numeric(index) ? "number" : "" }, cell instanceof Node ? cell : String(cell)),
            ),
          ),
        ),
      ),
    ),
  );
}

// Only addresses of a server of pages; anything else a file may name is not made into a link.
const safeAddress = (address) => (typeof address === "string" && /^https?:\/\//.test(address) ? address : null);

function link(address, text, properties = {}) {
  const safe = safeAddress(address);
  if (!safe) return named(text);
  return make("a", { href: safe, target: "_blank", rel: "noopener noreferrer", ...properties }, named(text));
}

function select(label, options, value, change) {
  const field = make(
    "select",
    { "aria-label": label, onchange: () => change(field.value) },
    ...options.map(([key, title]) => make("option", { value: key, selected: key === value }, title)),
  );
  field.value = value;
  return make("label", { class: "field" }, make("span", {}, label), field);
}

function check(label, value, change) {
  const field = make("input", { type: "checkbox", onchange: () => change(field.checked) });
  field.checked = value;
  return make("label", { class: "check" }, field, make("span", {}, label));
}

function save(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const anchor = make("a", { href: address, download: name });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

function copyButton(text, what) {
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
