// What mattered in a search, and a slice through its points for every parameter.
const ENOUGH_FOR_SLICES = 5;
const OBJECTIVE_WORDS = {
  brierlm: "BrierLM",
  validation_loss: "held-out loss",
  inference_flops_per_token: "inference FLOPs per token",
  training_flops: "training FLOPs",
};

function searchParts() {
  return data.studies.flatMap((study) => {
    const search = study.search;
    if (!search || search.points.length < 2) return [];
    const done = search.points.filter((point) => point.state === "complete" && point.value !== null);
    const objective = OBJECTIVE_WORDS[search.objective] ?? search.objective;
    const word =
      search.sampler === "grid"
        ? "Every point of a grid"
        : search.sampler === "tpe"
          ? "Points proposed by TPE from those before"
          : "Points drawn at random";
    const head = [
      data.studies.length > 1
        ? make("h3", {}, named(study.name), make("span", { class: "quiet" }, ` ${study.identity.slice(0, 8)}`))
        : null,
      make(
        "p",
        {},
        `${word}; ${plural(search.points.length, "trial")}, ${done.length} finished. Objective: ${objective}, ${search.direction === "maximize" ? "higher" : "lower"} is better.`,
      ),
    ];
    const parts = [...head];
    if (search.why) parts.push(make("p", { class: "notice" }, search.why));
    else parts.push(make("div", { class: "card" }, importanceChart(search)));
    if (done.length >= ENOUGH_FOR_SLICES) {
      const varied = search.parameters.filter(
        (parameter) => new Set(done.map((point) => String(point.at[parameter.name]))).size > 1,
      );
      if (varied.length)
        parts.push(
          make(
            "div",
            { class: `grid two${varied.length === 1 ? " one" : ""}` },
            ...varied.map((parameter) =>
              make("div", { class: "card" }, slice(study, search, parameter, done, objective)),
            ),
          ),
        );
    }
    return parts.filter(Boolean);
  });
}

function importanceChart(search) {
  const title = (name) => search.parameters.find((parameter) => parameter.name === name)?.label ?? name;
  const bars = Object.entries(search.importance).map(([name, value]) => ({ name: title(name), value }));
  const height = 44 + 34 * bars.length;
  return chart({
    title: "Importance",
    note: "share of what the parameters explain (PED-ANOVA, by Optuna)",
    height,
    radius: 60,
    describe: `Importance by parameter: ${bars.map((bar) => `${bar.name} ${Math.round(100 * bar.value)} percent`).join(", ")}.`,
    draw: (width) => ({
      options: frame(width, height, {
        marginLeft: Math.min(190, width * 0.4, 24 + 7.5 * d3.max(bars, (bar) => bar.name.length)),
        marginTop: 4,
        marginBottom: 30,
        x: {
          domain: [
            0,
            Math.max(
              0.05,
              d3.max(bars, (bar) => bar.value),
            ) * 1.12,
          ],
          label: null,
          tickFormat: (value) => `${Math.round(100 * value)} %`,
          ticks: Math.max(3, Math.floor(width / 110)),
        },
        y: { domain: bars.map((bar) => bar.name), label: null, tickSize: 0, padding: 0.35 },
        marks: [
          Plot.barX(bars, { x: "value", y: "name", fill: "var(--accent)", rx: 3 }),
          Plot.text(bars, {
            x: "value",
            y: "name",
            text: (bar) => `${Math.round(100 * bar.value)} %`,
            textAnchor: "start",
            dx: 6,
            fill: "currentColor",
          }),
        ],
      }),
      grid: "x",
      points: [],
    }),
    rows: () => ({
      head: ["Parameter", "Importance"],
      rows: bars.map((bar) => [bar.name, `${(100 * bar.value).toFixed(1)} %`]),
    }),
  });
}

function slice(study, search, parameter, done, objective) {
  const flops = search.objective.includes("flops");
  const family = (point) =>
    board.rows.find((row) =>
      row.members.some((member) => data.studies[member.study] === study && member.trial === point.trial),
    )?.family;
  const url = (point) =>
    board.rows
      .flatMap((row) => row.members)
      .find((member) => data.studies[member.study] === study && member.trial === point.trial)?.url;
  const points = done.filter((point) => point.at[parameter.name] !== null && point.at[parameter.name] !== undefined);
  const levels = [...new Set(points.map((point) => String(point.at[parameter.name])))];
  const numeric = parameter.numeric;
  const short = (text, room) => (text.length > room ? `${text.slice(0, Math.max(1, room - 1))}…` : text);
  const at = (point) => (numeric ? point.at[parameter.name] : levels.indexOf(String(point.at[parameter.name])));
  const values = points.map(at);
  const log =
    numeric && (parameter.log || (Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) >= 20));
  return chart({
    title: parameter.label,
    note: parameter.label === parameter.name ? null : parameter.name,
    height: 260,
    describe: `${objective} by ${parameter.name}, ${plural(points.length, "trial")}.`,
    draw: (width) => ({
      options: frame(width, 260, {
        marginLeft: flops ? 62 : 50,
        x: numeric
          ? {
              ...(log
                ? logAxis(values, { width, left: 0.05, right: 0.05 })
                : { nice: true, inset: 12, ticks: Math.max(3, Math.floor(width / 100)) }),
              label: null,
              tickFormat: digits,
            }
          : {
              domain: [-0.5, levels.length - 0.5],
              ticks: d3.range(levels.length),
              tickFormat: (index) => short(levels[index] ?? "", Math.floor(width / levels.length / 7)),
              label: null,
            },
        y: { label: objective, labelArrow: "none", tickFormat: flops ? power : undefined, ticks: 5, nice: true },
        marks: [
          Plot.dot(points, {
            x: at,
            y: "value",
            r: 5,
            symbol: (point) => look(family(point)).symbol,
            fill: (point) => look(family(point)).colour,
            fillOpacity: 0.85,
            stroke: "var(--card)",
          }),
        ],
      }),
      grid: numeric ? "xy" : "y",
      points: points.map((point) => ({
        x: at(point),
        y: point.value,
        title: point.label,
        family: family(point),
        url: url(point),
        lines: [
          [objective, flops ? scientific(point.value) : digits(point.value)],
          [parameter.label, String(point.at[parameter.name])],
          ["Trial", String(point.trial)],
        ],
      })),
    }),
    rows: () => ({
      head: ["Trial", parameter.label, objective],
      rows: points.map((point) => [
        point.label,
        String(point.at[parameter.name]),
        flops ? scientific(point.value) : digits(point.value),
      ]),
    }),
  });
}
