// Curves of trainings.
const TERM_WORDS = {
  loss: "Loss",
  fidelity: "Fidelity",
  diversity: "Diversity",
  collapsed: "Collapsed share of dimensions",
  unconditional: "Loss without the context",
  denoising: "Denoising error",
  velocity_error: "Velocity error",
  shortcut_error: "Shortcut error",
  grad_norm: "Gradient norm",
  tokens_per_second: "Tokens per second",
  reconstruction: "Reconstruction",
  kl: "KL to the prior, nats a chunk",
  accuracy: "Accuracy",
};
const termName = (term) => TERM_WORDS[term] ?? term.replaceAll("_", " ");
const SPLIT_WORDS = { train: "in training", validation: "held out" };

// One line per training behind the board's rows, best rows first.
function trainings(part, of) {
  const found = new Map(data[part].map((curves) => [curves.model, curves]));
  const seen = new Set();
  return board.rows.flatMap((row) =>
    row.members.flatMap((member) => {
      const curves = found.get(member[of]);
      if (!curves || seen.has(member[of])) return [];
      seen.add(member[of]);
      const label = row.members.length > 1 ? `${row.label}, seed ${member.seed}` : row.label;
      return [{ row, label, family: row.family, url: member.url, curves, key: member[of] }];
    }),
  );
}

function lineChart({
  title,
  note,
  lines,
  height = 300,
  log = false,
  yName,
  xName = "training FLOPs",
  controls = [],
  legend = null,
}) {
  // line: {label, family, url, row, dash, points: [{x, y}]}
  const kept = lines.filter((line) => line.points.length);
  if (!kept.length) return null;
  const many = kept.length > 40;
  return chart({
    title,
    note,
    controls,
    legend,
    height,
    radius: 30,
    describe: `${title}: ${plural(kept.length, "line")} over ${xName}.`,
    draw(width) {
      const values = kept.flatMap((line) => line.points.map((point) => point.y)).sort(d3.ascending);
      // The first steps would press all that follows flat.
      const cut = kept
        .flatMap((line) => line.points.slice(Math.floor(line.points.length * 0.08)).map((point) => point.y))
        .sort(d3.ascending);
      const low = values[0];
      const high = cut.length
        ? d3.quantile(cut, 0.995) + 0.08 * (d3.quantile(cut, 0.995) - low || Math.abs(low) || 1)
        : values[values.length - 1];
      const flat = high - low < 1e-6 * Math.abs(high) ? Math.abs(high) * 0.05 || 1 : 0;
      const logged = log && low > 0;
      const last = d3.max(kept, (line) => d3.max(line.points, (point) => point.x));
      return {
        options: frame(width, height, {
          marginLeft: 52,
          x: {
            domain: [0, last],
            label: xName,
            labelAnchor: "center",
            labelArrow: "none",
            tickFormat: power,
            ticks: Math.max(3, Math.floor(width / 120)),
          },
          y: {
            ...(logged
              ? {
                  type: "log",
                  domain: [low, values[values.length - 1]],
                  ticks: logTicks(low, values[values.length - 1], 6),
                }
              : { domain: [Math.min(low, high) - 0.03 * (high - low) - flat, high + flat] }),
            clamp: false,
            label: yName ?? null,
            labelArrow: "none",
            ticks: 5,
            tickFormat: digits,
          },
          marks: [
            ...kept.map((line) =>
              Plot.line(line.points, {
                x: "x",
                y: "y",
                stroke: look(line.family).colour,
                strokeWidth: many ? 0.8 : 1.7,
                strokeOpacity: many ? 0.45 : 0.95,
                strokeDasharray: line.dash,
                strokeLinejoin: "round",
                clip: true,
                className: "run-line",
              }),
            ),
          ],
        }),
        points: kept.flatMap((line, index) =>
          line.points
            .filter((point) => point.y <= high || logged)
            .map((point) => ({
              ...point,
              title: line.label,
              family: line.family,
              url: line.url,
              row: line.row?.key,
              line: index,
              lines: [
                [yName ?? "Value", digits(point.y)],
                [xName, scientific(point.x)],
                ...(line.split ? [["Split", line.split]] : []),
              ],
            })),
        ),
        after(svg) {
          const paths = svg.querySelectorAll("g[aria-label='line'] path");
          svg.addEventListener("reach", (event) =>
            paths.forEach((path, index) => path.classList.toggle("faded", index !== event.detail.line)),
          );
          svg.addEventListener("leave", () => paths.forEach((path) => path.classList.remove("faded")));
        },
      };
    },
    rows: () => ({
      head: ["Run", "First", "Lowest", "Last", "Points"],
      rows: kept.map((line) => [
        line.split ? `${line.label}, ${line.split}` : line.label,
        digits(line.points[0].y),
        digits(d3.min(line.points, (point) => point.y)),
        digits(line.points[line.points.length - 1].y),
        String(line.points.length),
      ]),
    }),
  });
}

const pointsOf = (curve, term) =>
  (curve.terms[term] ?? []).flatMap((y, index) =>
    y === null || y === undefined ? [] : [{ x: curve.flops[index], y }],
  );
const linesOf = (all, split, term, more = {}) =>
  all.map((run) => ({
    label: run.label,
    family: run.family,
    url: run.url,
    row: run.row,
    split: SPLIT_WORDS[split],
    points: pointsOf(run.curves[split], term),
    ...more,
  }));
const termsOf = (all, split) => [...new Set(all.flatMap((run) => Object.keys(run.curves[split].terms)))];

// What a loss is depends on the kind of model and head: a panel for each.
function lossGroups(all) {
  const kind = (run) => (run.row.head ? `${run.row.head} head` : "token model");
  return d3.groups(all, kind);
}

function trainingCharts() {
  const all = trainings("curves", "model");
  if (!all.length) return [];
  const host = make("div", { class: "grid two" });
  const state = {
    split: all.some((run) => run.curves.validation.flops.length > 2) ? "validation" : "train",
    term: "loss",
    log: false,
  };
  const options = (split) => termsOf(all, split).map((term) => [term, termName(term)]);
  let termChoice = null;
  const bar = make("div", { class: "controls" });
  function controls() {
    if (!options(state.split).some(([term]) => term === state.term)) state.term = "loss";
    termChoice = select("Term", options(state.split), state.term, (value) => {
      state.term = value;
      fill();
    });
    bar.replaceChildren(
      select(
        "Split",
        [
          ["train", "Training"],
          ["validation", "Held out"],
        ],
        state.split,
        (value) => {
          state.split = value;
          controls();
          fill();
        },
      ),
      termChoice,
      check("Logarithmic", state.log, (value) => {
        state.log = value;
        fill();
      }),
    );
  }
  function fill() {
    const groups = ["grad_norm", "tokens_per_second"].includes(state.term) ? [["all models", all]] : lossGroups(all);
    const cards = groups
      .map(([name, own]) => {
        const made = lineChart({
          title: `${termName(state.term)}, ${name}`,
          note: SPLIT_WORDS[state.split],
          lines: linesOf(own, state.split, state.term),
          yName: termName(state.term),
          log: state.log,
          legend: legendOf(familiesOf(own.map((run) => run.row))),
        });
        return made && make("div", { class: "card" }, made);
      })
      .filter(Boolean);
    host.replaceChildren(...cards);
    host.classList.toggle("one", cards.length === 1);
  }
  state.split = "train";
  controls();
  fill();
  const most = d3.max(all, (run) => run.curves.train.flops.length);
  const logged = d3.max(all, (run) => run.curves.num_logged);
  const note =
    logged > most
      ? make(
          "p",
          { class: "caption" },
          `Thinned to at most ${most} of ${logged.toLocaleString("en")} logged points a run, so that a spike is kept.`,
        )
      : null;
  return [bar, host, note].filter(Boolean);
}

function termCharts() {
  const all = trainings("curves", "model").filter(
    (run) => run.curves.train.terms.fidelity && run.curves.train.terms.diversity,
  );
  if (!all.length) return [];
  const both = lineChart({
    title: "Fidelity and diversity",
    note: "in training; diversity dashed",
    lines: [...linesOf(all, "train", "fidelity"), ...linesOf(all, "train", "diversity", { dash: "5 3" })].map(
      (line, index) => ({ ...line, split: index < all.length ? "fidelity" : "diversity" }),
    ),
    yName: "Distance between latents",
    height: 320,
    legend: legendOf(familiesOf(all.map((run) => run.row)), [
      ["solid", "fidelity"],
      ["dashed", "diversity"],
    ]),
  });
  const share = lineChart({
    title: "Diversity as a share of fidelity",
    note: "1 would be draws as far from each other as from the data",
    lines: all.map((run) => ({
      label: run.label,
      family: run.family,
      url: run.url,
      row: run.row,
      points: pointsOf(run.curves.train, "diversity").flatMap((point, index) => {
        const other = run.curves.train.terms.fidelity[index];
        return other ? [{ x: point.x, y: point.y / other }] : [];
      }),
    })),
    yName: "Diversity / fidelity",
    height: 320,
    legend: legendOf(familiesOf(all.map((run) => run.row))),
  });
  return [
    make(
      "div",
      { class: "grid two" },
      ...[both, share].filter(Boolean).map((each) => make("div", { class: "card" }, each)),
    ),
  ];
}
