// The models kept along trainings: score against compute, and against cross-entropy.
function keptCharts() {
  const kept = data.kept.filter((each) => each.protocol_hash === board.protocol_hash && each.points.length);
  if (!kept.length) return [];
  const names = [...new Set(kept.map((each) => each.family))];
  const make2 = ({ title, x, xName, xTick, xError, domain }) =>
    make(
      "div",
      { class: "card" },
      chart({
        title,
        height: 340,
        describe: `${title}: ${kept.map((each) => `${each.label}, ${each.points.length} models`).join("; ")}.`,
        legend: legendOf(names),
        draw(width) {
          const all = kept.flatMap((each) => each.points.map((point) => ({ ...point, each })));
          const colour = (point) => look(point.each.family).colour;
          const top = d3.max(all, (point) => point.brierlm + point.brierlm_se) || 1;
          return {
            options: frame(width, 340, {
              x: {
                ...(domain ?? {}),
                label: xName,
                labelAnchor: "center",
                labelArrow: "none",
                tickFormat: xTick,
                ticks: Math.max(3, Math.floor(width / 110)),
                nice: true,
                zero: x === "training_flops",
              },
              y: {
                domain: [
                  Math.min(
                    -0.04 * top,
                    d3.min(all, (point) => point.brierlm - point.brierlm_se),
                  ),
                  1.08 * top,
                ],
                label: "BrierLM",
                labelArrow: "none",
                ticks: 6,
              },
              marks: [
                ...kept.map((each) =>
                  Plot.line(each.points, {
                    x,
                    y: "brierlm",
                    stroke: look(each.family).colour,
                    strokeWidth: 1.2,
                    strokeOpacity: 0.7,
                  }),
                ),
                Plot.ruleX(all, {
                  x,
                  y1: (point) => point.brierlm - point.brierlm_se,
                  y2: (point) => point.brierlm + point.brierlm_se,
                  stroke: colour,
                  strokeOpacity: 0.5,
                }),
                xError
                  ? Plot.ruleY(all, {
                      y: "brierlm",
                      x1: (point) => point[x] - point[xError],
                      x2: (point) => point[x] + point[xError],
                      stroke: colour,
                      strokeOpacity: 0.5,
                    })
                  : null,
                Plot.dot(all, {
                  x,
                  y: "brierlm",
                  r: 4.5,
                  symbol: (point) => look(point.each.family).symbol,
                  fill: colour,
                  stroke: "var(--card)",
                }),
              ].filter(Boolean),
            }),
            points: all.map((point) => ({
              x: point[x],
              y: point.brierlm,
              title: point.each.label,
              family: point.each.family,
              lines: [
                ["BrierLM", `${point.brierlm.toFixed(2)} ± ${point.brierlm_se.toFixed(2)}`],
                [
                  `Cross-entropy${point.each.kind === "bound" ? ", at most" : ""}`,
                  `${point.cross_entropy.toFixed(3)} ± ${point.cross_entropy_se.toFixed(3)}`,
                ],
                ["Training FLOPs", scientific(point.training_flops)],
              ],
            })),
          };
        },
        rows: () => ({
          head: ["Run", "Training FLOPs", "BrierLM", "Cross-entropy"],
          rows: kept.flatMap((each) =>
            each.points.map((point) => [
              each.label,
              scientific(point.training_flops),
              `${point.brierlm.toFixed(2)} ± ${point.brierlm_se.toFixed(2)}`,
              `${point.cross_entropy.toFixed(3)} ± ${point.cross_entropy_se.toFixed(3)}${each.kind === "bound" ? " (bound)" : ""}`,
            ]),
          ),
        }),
      }),
    );
  return [
    make2({
      title: "Score along training",
      x: "training_flops",
      xName: "training FLOPs of the language model",
      xTick: power,
    }),
    make2({
      title: "Score against cross-entropy",
      x: "cross_entropy",
      xName: "cross-entropy, nats per token (of chunk models an upper bound)",
      xError: "cross_entropy_se",
      domain: { reverse: true },
    }),
  ];
}
