// Score against K, and the four components.
const MOST_LISTED = 24;
const CROWDED = 30;
const column = (key) => board.columns.find((each) => each.key === key);

function chunksChart() {
  const y = column("brierlm");
  const k = column("chunk_size");
  const rows = board.rows.filter((row) => number(row, y.key) !== null);
  const place = (row) => (row.family === "token" ? "token" : `K=${number(row, "chunk_size")}`);
  const sizes = [...new Set(rows.filter((row) => place(row) !== "token").map((row) => number(row, "chunk_size")))].sort(
    d3.ascending,
  );
  const domain = [
    ...(rows.some((row) => place(row) === "token") ? ["token"] : []),
    ...sizes.map((size) => `K=${size}`),
  ];
  if (domain.length < 2) return null;
  const heads = [...new Set(rows.filter((row) => row.head).map((row) => row.head))].sort();
  const best = heads.flatMap((head) => {
    const own = d3
      .rollups(
        rows.filter((row) => row.head === head),
        (group) => d3.greatest(group, (row) => number(row, y.key)),
        place,
      )
      .map(([, row]) => row);
    return own.sort((a, b) => number(a, "chunk_size") - number(b, "chunk_size")).map((row) => ({ row, head }));
  });
  // Rows of one K stand beside each other, so that their bars do not cover each other.
  const beside = new Map();
  for (const name of domain) {
    const own = rows.filter((row) => place(row) === name);
    // Many are strewn, so that their order does not look like a slope; the golden ratio spreads them evenly.
    own.forEach((row, index) =>
      beside.set(
        row,
        own.length === 1 ? 0 : own.length > CROWDED ? ((index * 0.618034) % 1) - 0.5 : index / (own.length - 1) - 0.5,
      ),
    );
  }
  const at = (row, spread) => domain.indexOf(place(row)) + beside.get(row) * spread;
  return chart({
    title: null,
    describe: `BrierLM against K, ${plural(rows.length, "row")}: ${domain
      .map(
        (name) =>
          `${name} at best ${number(
            d3.greatest(
              rows.filter((row) => place(row) === name),
              (row) => number(row, y.key),
            ),
            y.key,
          ).toFixed(2)}`,
      )
      .join(", ")}.`,
    legend: legendOf(familiesOf(rows)),
    height: 320,
    draw(width) {
      const crowded = d3.max(
        d3.rollups(rows, (group) => group.length, place),
        ([, count]) => count,
      );
      const spread = crowded > 1 ? Math.min(0.72, 0.12 * crowded) : 0;
      const top = d3.max(rows, (row) => number(row, y.key) + (number(row, y.error) ?? 0)) || 1;
      return {
        options: frame(width, 320, {
          x: {
            domain: [-0.5, domain.length - 0.5],
            ticks: d3.range(domain.length),
            tickFormat: (index) => domain[index] ?? "",
            label: null,
          },
          y: { domain: [-0.04 * top, 1.1 * top], label: axisName(y), labelArrow: "none", ticks: 6 },
          marks: [
            Plot.line(best, {
              x: ({ row }) => at(row, spread),
              y: ({ row }) => number(row, y.key),
              z: "head",
              stroke: "var(--soft)",
              strokeOpacity: 0.6,
              strokeWidth: 1.2,
            }),
            Plot.ruleX(rows, {
              x: (row) => at(row, spread),
              y1: (row) => number(row, y.key) - number(row, y.error),
              y2: (row) => number(row, y.key) + number(row, y.error),
              stroke: (row) => look(row.family).colour,
              strokeWidth: crowded > CROWDED ? 0.7 : 1.5,
              strokeOpacity: crowded > CROWDED ? 0.3 : 0.9,
            }),
            Plot.dot(rows, {
              x: (row) => at(row, spread),
              y: (row) => number(row, y.key),
              r: crowded > CROWDED ? 3 : 6,
              symbol: (row) => look(row.family).symbol,
              fill: (row) => look(row.family).colour,
              stroke: crowded > CROWDED ? "none" : "var(--card)",
            }),
          ],
        }),
        grid: "y",
        points: rows.map((row) => rowPoint(row, at(row, spread), number(row, y.key), [y, k])),
      };
    },
    rows: () => ({
      head: ["Row", "K", "BrierLM"],
      rows: rows.map((row) => [row.label, place(row), shown(y, row.values)]),
    }),
  });
}

function componentCharts() {
  const all = board.rows;
  const isFew = all.length <= MOST_LISTED;
  const rows = isFew
    ? [...all]
    : familiesOf(all)
        .map((family) => all.find((row) => row.family === family))
        .slice(0, MOST_LISTED);
  rows.sort((a, b) => all.indexOf(a) - all.indexOf(b));
  const names = rows.map((row, index) => `${index}`);
  const height = 46 + 24 * rows.length;
  const short = (text, room) => (text.length > room ? `${text.slice(0, room - 1)}…` : text);
  const made = [1, 2, 3, 4].map((n) => {
    const x = column(`brier_${n}`);
    return make(
      "div",
      { class: "card" },
      chart({
        title: x.title,
        note: isFew ? null : "the best row of each family",
        describe: `${x.title} of ${plural(rows.length, "row")}, with one standard error.`,
        height,
        radius: 20,
        draw(width) {
          const left = Math.min(150, width * 0.36, 18 + 7.2 * d3.max(rows, (row) => row.label.length));
          const low = d3.min(rows, (row) => number(row, x.key) - (number(row, x.error) ?? 0));
          return {
            options: frame(width, height, {
              marginLeft: left,
              marginTop: 6,
              marginBottom: 30,
              x: {
                domain: [
                  Math.min(0, low),
                  1.04 * d3.max(rows, (row) => number(row, x.key) + (number(row, x.error) ?? 0)),
                ],
                label: null,
                ticks: Math.max(3, Math.floor(width / 80)),
              },
              y: {
                domain: names,
                type: "point",
                padding: 0.5,
                label: null,
                tickSize: 0,
                tickFormat: (name) => short(rows[Number(name)].label, Math.floor(left / 7)),
              },
              marks: [
                Plot.ruleX([0], { stroke: "var(--soft)", strokeOpacity: 0.5 }),
                Plot.ruleY(rows, {
                  y: (_, index) => names[index],
                  x1: (row) => number(row, x.key) - number(row, x.error),
                  x2: (row) => number(row, x.key) + number(row, x.error),
                  stroke: (row) => look(row.family).colour,
                  strokeWidth: 1.8,
                }),
                Plot.dot(rows, {
                  y: (_, index) => names[index],
                  x: (row) => number(row, x.key),
                  r: 5.5,
                  symbol: (row) => look(row.family).symbol,
                  fill: (row) => look(row.family).colour,
                  stroke: "var(--card)",
                }),
              ],
            }),
            grid: "x",
            points: rows.map((row, index) => rowPoint(row, number(row, x.key), names[index], [x, column("brierlm")])),
          };
        },
        rows: () => ({ head: ["Row", x.title], rows: all.map((row) => [row.label, shown(x, row.values)]) }),
      }),
    );
  });
  return made;
}
