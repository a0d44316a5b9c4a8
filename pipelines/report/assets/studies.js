// What concerns studies and not their rows: trials without a row, commands, configuration, environment.
const STAGE_WORDS = {
  corpus: "Corpus",
  tokens: "Tokens",
  autoencoder: "Autoencoders",
  language_model: "Language models",
  evaluation: "Evaluations",
  samples: "Samples of text",
  benchmarks: "Tasks",
  trajectory: "Models along training",
};
const STATE_WORDS = { failed: "failed", pruned: "pruned", invalid: "impossible", open: "open" };
const several = data.studies.length > 1;
const studyTitle = (study) =>
  several
    ? make("h3", {}, named(study.name), make("span", { class: "quiet" }, ` ${study.identity.slice(0, 8)}`))
    : null;

function endedParts() {
  return data.studies.flatMap((study) =>
    study.ended.length
      ? [
          studyTitle(study),
          make(
            "ul",
            { class: "ended" },
            ...study.ended.map((trial) => {
              const lines = trial.error.trim().split("\n");
              return make(
                "li",
                { class: "card" },
                make(
                  "p",
                  { class: "ended-head" },
                  make("span", { class: `state ${trial.state}` }, STATE_WORDS[trial.state] ?? trial.state),
                  make("strong", {}, link(trial.url, trial.label)),
                  make("span", { class: "quiet" }, `trial ${trial.trial}`),
                ),
                lines[0]
                  ? make("p", { class: "reason" }, named(lines.length > 3 ? lines[lines.length - 1] : lines.join(" ")))
                  : null,
                lines.length > 3
                  ? make(
                      "details",
                      {},
                      make("summary", {}, "The whole message"),
                      make("pre", { tabindex: 0 }, trial.error),
                    )
                  : null,
                Object.keys(trial.settings).length
                  ? make(
                      "p",
                      { class: "quiet settings" },
                      Object.entries(trial.settings)
                        .map(([key, value]) => `${key}=${value}`)
                        .join(", "),
                    )
                  : null,
              );
            }),
          ),
        ].filter(Boolean)
      : [],
  );
}

function protocolParts() {
  return data.boards.map((each) =>
    make(
      "div",
      { class: "card words" },
      make(
        "p",
        { class: "hash" },
        "Protocol ",
        make("code", {}, each.protocol_hash),
        make("span", { class: "quiet" }, ` ${plural(each.rows.length, "row")}`),
      ),
      make("ul", {}, ...each.protocol.map((sentence) => make("li", {}, named(sentence)))),
    ),
  );
}

function reproduceParts() {
  return data.studies.flatMap((study) =>
    study.commands.length
      ? [
          studyTitle(study),
          make(
            "ol",
            { class: "commands" },
            ...study.commands.map((command) =>
              make(
                "li",
                {},
                make("span", { class: "quiet" }, command.purpose),
                make(
                  "div",
                  { class: "command" },
                  make("code", { tabindex: 0 }, command.text),
                  copyButton(command.text, `: ${command.text}`),
                ),
              ),
            ),
          ),
          make("ul", { class: "notes" }, ...study.notes.map((note) => make("li", {}, note))),
        ].filter(Boolean)
      : [],
  );
}

function configurationParts() {
  return data.studies.flatMap((study) => {
    const environment = study.environment.map(([name, value]) => [name, value]);
    return [
      studyTitle(study),
      make(
        "details",
        { class: "card yaml" },
        make(
          "summary",
          {},
          make("strong", {}, "study.yaml"),
          make("span", { class: "quiet" }, " every setting, defaults included; passwords masked"),
        ),
        make(
          "div",
          { class: "controls" },
          make(
            "button",
            {
              type: "button",
              class: "button small",
              onclick: () => save("study.yaml", study.configuration, "application/yaml"),
            },
            "Save",
          ),
          copyButton(study.configuration, "the configuration"),
        ),
        make("pre", { tabindex: 0, "aria-label": "Configuration" }, study.configuration),
      ),
      make(
        "div",
        { class: "grid two top" },
        make(
          "div",
          { class: "card" },
          make("h4", {}, "Environment"),
          environment.length
            ? table(["", "Version or value"], environment, { caption: "Environment", numeric: () => false })
            : make("p", { class: "empty" }, "Not recorded."),
        ),
        make(
          "div",
          { class: "card" },
          make("h4", {}, "Work"),
          table(
            ["Stages", "Count", "Time", "Training FLOPs"],
            study.stages.map((stage) => [
              STAGE_WORDS[stage.kind] ?? stage.kind,
              String(stage.count),
              duration(stage.wall_time_s),
              stage.flops ? scientific(stage.flops) : MISSING,
            ]),
            { caption: "Work by stage" },
          ),
          estimatePart(study.estimates),
        ),
      ),
    ].filter(Boolean);
  });
}

function estimatePart(estimates) {
  if (!estimates.length) return null;
  const error = (each) =>
    each.measured_s > 0
      ? `${each.estimated_s >= each.measured_s ? "+" : "−"}${Math.abs(100 * (each.estimated_s / each.measured_s - 1)).toFixed(0)} %`
      : MISSING;
  const rows = estimates
    .filter((each) => each.kind === "total" || Math.max(each.estimated_s, each.measured_s) >= 1)
    .map((each) => [
      each.kind === "total" ? "In all" : (STAGE_WORDS[each.kind] ?? each.kind),
      duration(each.estimated_s),
      duration(each.measured_s),
      error(each),
    ]);
  return make(
    "div",
    { class: "estimates" },
    make("h4", {}, "Estimate against outcome"),
    table(["", "Foreseen", "Taken", "Error"], rows, { caption: "Estimate against outcome" }),
    make(
      "p",
      { class: "caption" },
      "Of the last run that had something to do. Several stages run at once, so kinds add up to more than the whole.",
    ),
  );
}
