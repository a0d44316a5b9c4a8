// What autoencoders keep, and what they bear.
function autoencoderParts() {
  const used = new Set(board.rows.flatMap((row) => row.members.map((member) => member.autoencoder)).filter(Boolean));
  const all = data.autoencoders.filter((each) => used.has(each.model));
  if (!all.length) return [];
  all.sort((a, b) => a.chunk_size - b.chunk_size || a.latent_size - b.latent_size);
  const bySize = new Map(
    all.map((each) => [each, looks.has(`K=${each.chunk_size}`) ? `K=${each.chunk_size}` : "autoencoder"]),
  );
  const percent = (value, error) =>
    `${(100 * value).toFixed(2)}${error === null || error === undefined ? "" : ` ± ${error >= 5e-5 ? (100 * error).toFixed(2) : "<0.01"}`} %`;
  const probed = all.filter((each) => each.probes?.collapsed);
  const names = all.map((each) =>
    all.filter((other) => other.label === each.label).length > 1
      ? `${each.label} (${each.model.slice(0, 6)})`
      : each.label,
  );
  const nameOf = (each) => names[all.indexOf(each)];
  const rows = all.map((each) => [
    make("span", { class: "with-swatch" }, swatch(bySize.get(each)), named(nameOf(each))),
    percent(each.accuracy, each.accuracy_se),
    each.probes?.collapsed ? `${each.probes.collapsed.value} of ${each.latent_size}` : MISSING,
    each.probes?.posterior ? percent(each.probes.posterior.value, each.probes.posterior.standard_error) : MISSING,
    each.probes?.posterior_std !== undefined ? digits(each.probes.posterior_std) : MISSING,
    compact(each.parameters),
  ]);
  const parts = [
    table(
      ["Autoencoder", "Tokens kept", "Collapsed dimensions", "From a draw", "Posterior's std", "Parameters"],
      rows,
      { caption: "Autoencoders" },
    ),
  ];
  if (probed.length) {
    const curve = (probe, title, xName, note) =>
      lineAccuracy({
        title,
        note,
        xName,
        series: probed
          .slice(0, 40)
          .map((each) => ({
            each,
            family: bySize.get(each),
            label: nameOf(each),
            points: (each.probes[probe] ?? []).map((point) => ({
              x: point.level,
              y: point.accuracy.value,
              se: point.accuracy.standard_error,
            })),
          })),
      });
    const kl = klChart(probed.slice(0, 40), bySize, nameOf);
    parts.push(
      make(
        "div",
        { class: "grid two" },
        ...[
          curve(
            "noise",
            "Noise on the latent",
            "standard deviation of the noise",
            "tokens kept when the latent is disturbed",
          ),
          curve("bits", "Coarser latents", "bits a dimension", "tokens kept when every dimension is rounded"),
          kl,
        ].map((each) => make("div", { class: "card" }, each)),
      ),
    );
    parts.push(
      make(
        "p",
        { class: "caption" },
        "A collapsed dimension carries nothing: its KL to the prior is below 0.01 nats. Noise is added to the posterior's mean; bits: each dimension of the mean is rounded to one of 2ᵇ equal cells. Bars are one standard error over chunks.",
      ),
    );
  }
  return parts;
}

function lineAccuracy({ title, note, xName, series }) {
  const all = series.flatMap((one) => one.points.map((point) => ({ ...point, one })));
  return chart({
    title,
    note,
    height: 290,
    describe: `${title}: tokens kept over ${xName}, ${plural(series.length, "autoencoder")}.`,
    legend: legendOf([...new Set(series.map((one) => one.family))]),
    draw: (width) => ({
      options: frame(width, 290, {
        marginLeft: 52,
        x: { label: xName, labelAnchor: "center", labelArrow: "none", ticks: Math.max(3, Math.floor(width / 80)) },
        y: {
          label: "tokens kept",
          labelArrow: "none",
          tickFormat: (value) => `${Math.round(100 * value)} %`,
          ticks: 5,
          domain: [Math.min(0.9, d3.min(all, (point) => point.y) ?? 0) - 0.02, 1.005],
        },
        marks: [
          ...series.map((one) =>
            Plot.line(one.points, { x: "x", y: "y", stroke: look(one.family).colour, strokeWidth: 1.6 }),
          ),
          Plot.ruleX(all, {
            x: "x",
            y1: (point) => point.y - point.se,
            y2: (point) => point.y + point.se,
            stroke: (point) => look(point.one.family).colour,
          }),
          Plot.dot(all, {
            x: "x",
            y: "y",
            r: 4,
            symbol: (point) => look(point.one.family).symbol,
            fill: (point) => look(point.one.family).colour,
            stroke: "var(--card)",
          }),
        ],
      }),
      points: all.map((point) => ({
        x: point.x,
        y: point.y,
        title: point.one.label,
        family: point.one.family,
        lines: [
          ["Tokens kept", `${(100 * point.y).toFixed(2)} ± ${(100 * point.se).toFixed(2)} %`],
          [xName, digits(point.x)],
        ],
      })),
    }),
    rows: () => ({
      head: ["Autoencoder", xName, "Tokens kept"],
      rows: all.map((point) => [
        point.one.label,
        digits(point.x),
        `${(100 * point.y).toFixed(2)} ± ${(100 * point.se).toFixed(2)} %`,
      ]),
    }),
  });
}

function klChart(probed, looksOf, nameOf) {
  const lines = probed.map((each) => ({
    each,
    family: looksOf.get(each),
    points: [...each.probes.collapsed.kl].sort(d3.descending).map((y, index) => ({ x: index + 1, y })),
  }));
  const all = lines.flatMap((line) => line.points.map((point) => ({ ...point, line })));
  return chart({
    title: "What each dimension carries",
    note: "KL to the prior, largest first",
    height: 290,
    describe: `KL of every latent dimension, ${plural(lines.length, "autoencoder")}.`,
    legend: legendOf([...new Set(lines.map((line) => line.family))]),
    draw: (width) => ({
      options: frame(width, 290, {
        x: {
          label: "dimension, by rank",
          labelAnchor: "center",
          labelArrow: "none",
          ticks: Math.max(3, Math.floor(width / 80)),
        },
        y: { label: "nats", labelArrow: "none", domain: [0, 1.08 * (d3.max(all, (point) => point.y) || 1)], ticks: 5 },
        marks: [
          ...lines.map((line) =>
            Plot.line(line.points, {
              x: "x",
              y: "y",
              curve: "step",
              stroke: look(line.family).colour,
              strokeWidth: 1.6,
            }),
          ),
          Plot.ruleY([0.01], { stroke: "var(--soft)", strokeDasharray: "3 3" }),
        ],
      }),
      points: all.map((point) => ({
        x: point.x,
        y: point.y,
        title: nameOf(point.line.each),
        family: point.line.family,
        lines: [
          ["KL", `${digits(point.y)} nats`],
          ["Rank", String(point.x)],
        ],
      })),
    }),
    rows: () => ({
      head: ["Autoencoder", "Smallest", "Median", "Largest"],
      rows: lines.map((line) => [
        nameOf(line.each),
        digits(line.points[line.points.length - 1].y),
        digits(d3.median(line.points, (point) => point.y)),
        digits(line.points[0].y),
      ]),
    }),
  });
}
