// The leaderboard: sorted by any column, filtered by words, columns to choose.
const stateOf = new Map();
const AT_ONCE = 100;
let showAll = () => {};

function leaderboardTable() {
  const state = stateOf.get(board) ?? {
    sort: "rank",
    down: false,
    words: "",
    hidden: new Set(board.columns.filter((each) => !each.shown).map((each) => each.key)),
    limit: AT_ONCE,
  };
  stateOf.set(board, state);
  const best = Math.max(...board.rows.map((row) => number(row, "brierlm") + number(row, "brierlm_se")), 1e-9);
  const count = make("span", { class: "count", role: "status", "aria-live": "polite" });
  const body = make("tbody");
  const head = make("tr");
  const grid = make(
    "table",
    { class: "board", id: "board" },
    make("caption", { class: "unseen" }, "Leaderboard; the buttons in its head sort it."),
    make("thead", {}, head),
    body,
  );
  const filter = make("input", {
    type: "search",
    id: "filter",
    placeholder: "e.g. K=4 energy",
    "aria-label": "Filter the rows by words",
    autocomplete: "off",
    spellcheck: "false",
    value: state.words,
  });
  const search = new Map(
    board.rows.map((row) => [
      row,
      [row.label, row.study, row.family, row.head ?? "", ...row.members.map((member) => `seed=${member.seed}`)]
        .join(" ")
        .toLowerCase(),
    ]),
  );
  const lines = new Map();
  const line = (row) => {
    if (!lines.has(row)) lines.set(row, rowElement(row, state, best));
    return lines.get(row);
  };
  const more = make("button", { type: "button", class: "button", onclick: () => showAll() });
  showAll = () => {
    state.limit = Infinity;
    fill();
  };
  const visible = () => board.columns.filter((each) => !state.hidden.has(each.key));

  function heads() {
    const titles = [
      { key: "rank", title: "#", better: "low" },
      { key: "label", title: "Model", form: "text" },
      ...visible(),
    ];
    head.replaceChildren(
      ...titles.map((each, index) => {
        const sorted = state.sort === each.key;
        const button = make(
          "button",
          { type: "button", class: "sort", "data-key": each.key, onclick: () => sortBy(each) },
          make("span", {}, named(each.title), each.unit && each.unit !== "task" ? make("small", {}, each.unit) : null),
          make("span", { class: "arrow", "aria-hidden": "true" }, sorted ? (state.down ? "↓" : "↑") : ""),
        );
        return make(
          "th",
          {
            scope: "col",
            class: `${index === 1 || each.form === "text" ? "" : "number"} ${index < 2 ? `fixed fixed-${index}` : ""}`,
            "aria-sort": sorted ? (state.down ? "descending" : "ascending") : "none",
          },
          button,
        );
      }),
    );
  }
  function sortBy(each) {
    if (state.sort === each.key) state.down = !state.down;
    else [state.sort, state.down] = [each.key, each.better === "high"];
    heads();
    fill();
    head.querySelector(`button[data-key="${CSS.escape(each.key)}"]`)?.focus();
  }
  function value(row) {
    if (state.sort === "rank") return row.rank;
    if (state.sort === "label") return row.label;
    return row.values[state.sort];
  }
  function fill() {
    const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (row) => words.every((word) => search.get(row).includes(word));
    const sign = state.down ? -1 : 1;
    const rows = board.rows.filter(matches);
    const order = new Map(board.rows.map((row, index) => [row, index]));
    rows.sort((a, b) => {
      const [p, q] = [value(a), value(b)];
      const [noP, noQ] = [p === null || p === undefined || p === "", q === null || q === undefined || q === ""];
      // What is missing is neither small nor large: always below.
      if (noP || noQ) return noP - noQ || order.get(a) - order.get(b);
      const difference =
        typeof p === "number" && typeof q === "number"
          ? p - q
          : String(p).localeCompare(String(q), "en", { numeric: true });
      return sign * difference || order.get(a) - order.get(b);
    });
    body.replaceChildren(...rows.slice(0, state.limit).map(line));
    more.hidden = rows.length <= state.limit;
    more.textContent = `Show all ${rows.length} rows`;
    if (!rows.length)
      body.replaceChildren(
        make("tr", {}, make("td", { colspan: visible().length + 2, class: "empty" }, "No row has these words.")),
      );
    count.textContent =
      rows.length === board.rows.length
        ? plural(rows.length, "row")
        : `${rows.length} of ${plural(board.rows.length, "row")}`;
    matching = words.length ? matches : () => true;
  }
  let waiting = null;
  filter.addEventListener("input", () => {
    state.words = filter.value;
    fill();
    clearTimeout(waiting);
    waiting = setTimeout(() => byId("compute-chart").querySelector(".chart")?.chart.refresh(), 120);
  });
  const chooser = make("details", { class: "menu" }, make("summary", { class: "button" }, "Columns"));
  chooser.append(
    make(
      "div",
      { class: "menu-list", role: "group", "aria-label": "Columns" },
      ...board.columns.map((each) =>
        check(each.title, !state.hidden.has(each.key), (on) => {
          state.hidden[on ? "delete" : "add"](each.key);
          for (const [row, made] of lines) made.replaceChildren(...cells(row, state, best));
          heads();
          fill();
        }),
      ),
    ),
  );
  chooser.addEventListener(
    "keydown",
    (event) => event.key === "Escape" && (chooser.removeAttribute("open"), chooser.querySelector("summary").focus()),
  );
  document.addEventListener("click", (event) => chooser.contains(event.target) || chooser.removeAttribute("open"));
  const saver = make(
    "button",
    { type: "button", class: "button", onclick: () => save("leaderboard.csv", csv(), "text/csv") },
    "Save as CSV",
  );
  heads();
  fill();
  return [
    make(
      "div",
      { class: "controls" },
      make("label", { class: "field grow" }, make("span", {}, "Filter"), filter),
      count,
      chooser,
      saver,
    ),
    make("div", { class: "scroll board-scroll", role: "region", tabindex: 0, "aria-label": "Leaderboard" }, grid),
    make("p", { class: "more" }, more),
  ];
}

function rowElement(row, state, best) {
  return make("tr", { id: `row-${row.key}`, "data-key": row.key }, ...cells(row, state, best));
}

function cells(row, state, best) {
  const url = rowUrl(row);
  const seeds =
    row.members.length > 1
      ? make(
          "span",
          { class: "seeds" },
          ...row.members.map((member) =>
            member.url ? link(member.url, `seed ${member.seed}`) : named(`seed ${member.seed}`),
          ),
        )
      : null;
  const name = make(
    "span",
    { class: "model" },
    swatch(row.family),
    make(
      "span",
      { class: "name", title: row.label },
      url && row.members.length === 1 ? link(url, row.label, { title: "The run in MLflow" }) : named(row.label),
    ),
  );
  return [
    make("td", { class: "number fixed fixed-0" }, String(row.rank)),
    make(
      "th",
      { scope: "row", class: "fixed fixed-1" },
      name,
      seeds,
      row.violations.length ? make("span", { class: "broken" }, `breaks ${row.violations.join(", ")}`) : null,
    ),
    ...board.columns
      .filter((each) => !state.hidden.has(each.key))
      .map((each) => {
        const text = shown(each, row.values);
        if (each.key === "brierlm")
          return make("td", { class: "number score" }, scoreBar(row, best), make("span", { class: "figure" }, text));
        const front = row.fronts.includes(each.key);
        return make(
          "td",
          { class: `${each.form === "text" ? "" : "number"} ${front ? "front" : ""}`.trim() },
          front
            ? make(
                "span",
                {
                  class: "star",
                  title: "On the Pareto front: no row scores as high for less",
                  role: "img",
                  "aria-label": "on the Pareto front",
                },
                "★",
              )
            : null,
          each.form === "text" ? named(text) : text,
        );
      }),
  ];
}

function scoreBar(row, best) {
  const [value, error] = [number(row, "brierlm"), number(row, "brierlm_se")];
  const share = (what) => `${Math.max(0, Math.min(100, (100 * what) / best))}%`;
  return make(
    "span",
    { class: "strip", "aria-hidden": "true" },
    make("span", {
      class: "whisker",
      style: {
        left: share(value - error),
        width: `calc(${share(value + error)} - ${share(value - error)})`,
        background: look(row.family).colour,
      },
    }),
    make("span", { class: "middle", style: { left: share(value), background: look(row.family).colour } }),
  );
}

function showRow(key) {
  const find = () => document.querySelector(`tr[data-key="${CSS.escape(key)}"]`);
  if (!find()) {
    byId("filter").value = "";
    byId("filter").dispatchEvent(new Event("input"));
    showAll();
  }
  const line = find();
  line.scrollIntoView({
    block: "center",
    behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth",
  });
  line.classList.remove("found");
  requestAnimationFrame(() => line.classList.add("found"));
}

function csv() {
  const quoted = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    // A spreadsheet would run a cell that begins like a formula.
    const safe = /^[=+@\t\r-]/.test(text) && typeof value !== "number" ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const keys = board.columns.flatMap((each) => (each.error ? [each.key, each.error] : [each.key]));
  return (
    [
      ["rank", "model", ...keys],
      ...board.rows.map((row) => [row.rank, row.label, ...keys.map((key) => row.values[key])]),
    ]
      .map((line) => line.map(quoted).join(","))
      .join("\n") + "\n"
  );
}
