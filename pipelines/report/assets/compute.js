// Score against compute: any column against any other, with the front and the fitted laws.
const LABELLED = 14;
const MANY = 60;
let board = null;
let matching = () => true;

const rowUrl = (row) => row.members.find((member) => member.url)?.url ?? null;
const number = (row, key) => (typeof row.values[key] === "number" ? row.values[key] : null);
const rowLines = (row, columns) => [
  ["Rank", String(row.rank)],
  ...columns.map((column) => [column.title, shown(column, row.values)]),
  ...(new Set(data.studies.map((study) => study.name)).size > 1 ? [["Study", row.study]] : []),
  [row.members.length === 1 ? "Seed" : "Seeds", String(row.values.seeds)],
];
const rowPoint = (row, x, y, columns) => ({
  x,
  y,
  title: row.label,
  family: row.family,
  row: row.key,
  url: rowUrl(row),
  lines: rowLines(row, columns),
});
const familiesOf = (rows) =>
  data.families.map((family) => family.name).filter((name) => rows.some((row) => row.family === name));

// Nobody is at least as good for at most the price and better in one of the two. Where a column has no better end it is
// no price, and there is no front.
function frontOf(rows, x, y) {
  if (!x.better || !y.better || x.key === y.key) return [];
  const sign = (column) => (column.better === "low" ? 1 : -1);
  const points = rows.map((row) => ({ row, a: sign(x) * number(row, x.key), b: sign(y) * number(row, y.key) }));
  const front = points.filter((p) => !points.some((q) => q.a <= p.a && q.b <= p.b && (q.a < p.a || q.b < p.b)));
  return front
    .map((point) => point.row)
    .sort((a, b) => number(a, x.key) - number(b, x.key) || number(a, y.key) - number(b, y.key));
}

function errorBars(rows, x, y) {
  const marks = [];
  const ends = (row, column) => [
    number(row, column.key) - number(row, column.error),
    number(row, column.key) + number(row, column.error),
  ];
  const has = (column) => column.error && rows.some((row) => number(row, column.error) !== null);
  const common = {
    stroke: (row) => look(row.family).colour,
    strokeWidth: 1.5,
    strokeOpacity: (row) => (matching(row) ? (rows.length > MANY ? 0.4 : 0.85) : 0.12),
  };
  if (has(y))
    marks.push(
      Plot.ruleX(rows, {
        x: (row) => number(row, x.key),
        y1: (row) => ends(row, y)[0],
        y2: (row) => ends(row, y)[1],
        ...common,
      }),
    );
  if (has(x) && !x.log)
    marks.push(
      Plot.ruleY(rows, {
        y: (row) => number(row, y.key),
        x1: (row) => ends(row, x)[0],
        x2: (row) => ends(row, x)[1],
        ...common,
      }),
    );
  return marks;
}

const dots = (rows, x, y, r = 6) =>
  Plot.dot(rows, {
    x,
    y,
    r,
    symbol: (row) => look(row.family).symbol,
    fill: (row) => look(row.family).colour,
    fillOpacity: (row) => (matching(row) ? 1 : 0.15),
    stroke: "var(--card)",
    strokeWidth: rows.length > MANY ? 0.6 : 1.2,
  });

// The fitted laws of the headline, where the axes are those they were fitted on.
function lawMarks(x, y) {
  if (y !== "brierlm") return { marks: [], ends: [], heights: [] };
  const fitted = (board.headline.families ?? []).filter((family) => family.curve?.[x]?.length);
  const marks = fitted.flatMap((family) => {
    const points = d3
      .range(family.curve.score.length)
      .map((i) => ({
        x: family.curve[x][i],
        y: family.curve.score[i],
        low: Math.max(0, family.curve.low[i]),
        high: Math.min(100, family.curve.high[i]),
      }))
      .sort((a, b) => a.x - b.x);
    const colour = look(familyLook(family)).colour;
    const snapshots = family.points
      .filter((point) => !point.is_finished && point.is_used)
      .map((point) => ({ x: priceOf(point, x), y: point.score }));
    return [
      Plot.areaY(points, { x: "x", y1: "low", y2: "high", fill: colour, fillOpacity: 0.13, clip: true }),
      Plot.line(points, { x: "x", y: "y", stroke: colour, strokeWidth: 1.6, clip: true }),
      Plot.dot(snapshots, { x: "x", y: "y", r: 2.2, fill: colour, fillOpacity: 0.55, clip: true }),
    ];
  });
  const ends = fitted.flatMap((family) => d3.extent(family.curve[x]));
  return { marks, ends, heights: fitted.flatMap((family) => family.curve.high) };
}

const priceOf = (point, x) =>
  x === "total_training_flops" ? point.training_flops + point.autoencoder_training_flops : point[x];

function familyLook(family) {
  const names = [
    family.name,
    family.kind === "token" ? "token" : `K=${family.chunk_size}`,
    `K=${family.chunk_size} ${family.head}`,
  ];
  return names.find((name) => looks.has(name)) ?? family.name;
}

function computeChart() {
  const columns = board.columns.filter(
    (column) => column.axis && board.rows.some((row) => number(row, column.key) !== null),
  );
  const find = (key) => columns.find((column) => column.key === key);
  const state = {
    x: find("total_training_flops") ? "total_training_flops" : columns[0].key,
    y: "brierlm",
    log: true,
    laws: true,
  };
  const usable = () => {
    const [x, y] = [find(state.x), find(state.y)];
    return board.rows.filter(
      (row) =>
        number(row, x.key) !== null && number(row, y.key) !== null && (!(x.log && state.log) || number(row, x.key) > 0),
    );
  };
  const options = columns.map((column) => [column.key, column.title]);
  const quick = [
    ["total_training_flops", "Training"],
    ["inference_flops_per_token", "Inference"],
  ].filter(([key]) => find(key));
  const tabs = quick.map(([key, text]) =>
    make(
      "button",
      { type: "button", class: "tab", "aria-pressed": "false", onclick: () => choose({ x: key, y: "brierlm" }) },
      text,
    ),
  );
  const xChoice = select("Across", options, state.x, (key) => choose({ x: key }));
  const yChoice = select("Up", options, state.y, (key) => choose({ y: key }));
  const hasLaws = (board.headline.families ?? []).some((family) => family.curve);
  const controls = [
    make("div", { class: "tabs", role: "group", "aria-label": "Compute" }, ...tabs),
    xChoice,
    yChoice,
    check("Logarithmic", state.log, (value) => choose({ log: value })),
    hasLaws ? check("Fitted laws", state.laws, (value) => choose({ laws: value })) : null,
  ];
  function choose(change) {
    Object.assign(state, change);
    xChoice.lastChild.value = state.x;
    yChoice.lastChild.value = state.y;
    quick.forEach(([key], index) =>
      tabs[index].setAttribute("aria-pressed", String(state.x === key && state.y === "brierlm")),
    );
    made.chart.refresh();
  }
  const made = chart({
    title: null,
    describe: () => `${find(state.y).title} against ${find(state.x).title}, ${plural(usable().length, "row")}.`,
    controls,
    legend: legendOf(familiesOf(board.rows), [
      ["dashed", "Pareto front"],
      ...(hasLaws ? [["band", "fitted law, 95 %"]] : []),
    ]),
    height: 440,
    draw(width) {
      const [x, y] = [find(state.x), find(state.y)];
      const rows = usable();
      if (!rows.length) return null;
      const height = width < 520 ? 360 : 440;
      const isLog = x.log && state.log;
      const values = rows.map((row) => number(row, x.key));
      const tops = rows.map((row) => number(row, y.key) + (y.error ? (number(row, y.error) ?? 0) : 0));
      const lows = rows.map((row) => number(row, y.key) - (y.error ? (number(row, y.error) ?? 0) : 0));
      const laws = state.laws ? lawMarks(x.key, y.key) : { marks: [], ends: [], heights: [] };
      const yLog = y.log && state.log && Math.min(...rows.map((row) => number(row, y.key))) > 0;
      const top = d3.max([...tops, ...laws.heights.map((value) => Math.min(100, value))]) || 1;
      const front = frontOf(rows, x, y);
      const priced =
        x.key === "total_training_flops" && rows.length <= MANY
          ? rows.filter((row) => number(row, "autoencoder_training_flops") > 0)
          : [];
      return {
        options: frame(width, height, {
          x: {
            ...(isLog
              ? logAxis([...values, ...laws.ends, ...priced.map((row) => number(row, "training_flops"))], { width })
              : { nice: true, inset: 16 }),
            label: axisName(x),
            labelAnchor: "center",
            labelArrow: "none",
            tickFormat: tickOf(x),
          },
          y: yLog
            ? {
                ...logAxis(
                  rows.map((row) => number(row, y.key)),
                  { width: height },
                ),
                label: axisName(y),
                tickFormat: tickOf(y),
                labelArrow: "none",
              }
            : {
                domain: [Math.min(-0.04 * top, d3.min(lows)), 1.1 * top],
                label: axisName(y),
                labelArrow: "none",
                tickFormat: tickOf(y),
                ticks: 6,
              },
          marks: [
            ...laws.marks,
            Plot.line(front, {
              x: (row) => number(row, x.key),
              y: (row) => number(row, y.key),
              stroke: "var(--soft)",
              strokeDasharray: "4 4",
              strokeWidth: 1.3,
            }),
            Plot.ruleY(priced, {
              y: (row) => number(row, y.key),
              x1: (row) => number(row, "training_flops"),
              x2: (row) => number(row, x.key),
              stroke: (row) => look(row.family).colour,
              strokeOpacity: (row) => (matching(row) ? 0.35 : 0.06),
              strokeWidth: 1.2,
            }),
            ...errorBars(rows, x, y),
            dots(
              rows,
              (row) => number(row, x.key),
              (row) => number(row, y.key),
              rows.length > MANY ? 4 : 6,
            ),
          ],
        }),
        points: rows.map((row) => rowPoint(row, number(row, x.key), number(row, y.key), [y, x])),
        after: (svg) =>
          rows.length <= (width < 520 ? LABELLED / 2 : LABELLED) &&
          label(
            svg,
            rows.map((row) => ({ x: number(row, x.key), y: number(row, y.key), title: row.label })),
          ),
      };
    },
    rows: () => ({
      head: ["Row", find(state.x).title, find(state.y).title, "On the front"],
      rows: usable().map((row) => [
        row.label,
        shown(find(state.x), row.values),
        shown(find(state.y), row.values),
        frontOf(usable(), find(state.x), find(state.y)).includes(row) ? "yes" : "",
      ]),
    }),
  });
  made.append(
    make(
      "p",
      { class: "caption" },
      `Training FLOPs are those of the language model and its autoencoder; ${board.rows.length <= MANY ? "the thin line to the left of a mark begins at the language model's own. " : ""}The front does not consider errors: two rows on it may differ by less than theirs.`,
    ),
  );
  choose({});
  return made;
}

const axisName = (column) =>
  column.unit && column.unit !== "task" ? `${column.title} (${column.unit})` : column.title;
const tickOf = (column) =>
  column.form === "flops"
    ? power
    : column.form === "count" || column.form === "whole"
      ? compact
      : column.form === "share"
        ? (value) => `${Number((100 * value).toFixed(2))} %`
        : column.form === "duration"
          ? duration
          : undefined;
