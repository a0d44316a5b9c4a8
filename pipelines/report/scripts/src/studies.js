// What concerns studies and not their rows: trials without a row, commands, configuration, environment.
import { commandLine, copyButton, data, link, make, named, plural, save, table } from "./elements.js";
import { studyTitle } from "./search.js";

/** @import {UnrankedTrial, Expected, StudyPart} from "./data.js" */

const LONG_MESSAGE = 3;

export const endedParts = () =>
  data.studies.flatMap((study) =>
    study.ended.length ? [studyTitle(study), make("ul", { class: "ended" }, ...study.ended.map(endedTrial))] : [],
  );

/** @param {UnrankedTrial} trial */
function endedTrial(trial) {
  const lines = trial.error.trim().split("\n");
  const isLong = lines.length > LONG_MESSAGE;
  const reason = isLong ? lines[lines.length - 1] : lines.join(" ");
  const settings = Object.entries(trial.settings).map(([key, value]) => `${key}=${value}`);
  return make(
    "li",
    { class: "card" },
    make(
      "p",
      { class: "ended-head" },
      make("span", { class: `state ${trial.state}` }, trial.state === "invalid" ? "impossible" : trial.state),
      make("strong", {}, link(trial.url, trial.label)),
      make("span", { class: "quiet" }, `trial ${trial.trial}`),
    ),
    lines[0] && make("p", { class: "reason" }, named(reason)),
    isLong && make("details", {}, make("summary", {}, "The whole message"), make("pre", { tabindex: 0 }, trial.error)),
    settings.length > 0 && make("p", { class: "quiet settings" }, settings.join(", ")),
  );
}

export const protocolParts = () =>
  data.boards.map((each) =>
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

export const reproduceParts = () =>
  data.studies.flatMap((study) => {
    if (!study.commands.length) return [];
    const commands = study.commands.map(({ purpose, text }) =>
      make("li", {}, make("span", { class: "quiet" }, purpose), commandLine(text)),
    );
    return [
      studyTitle(study),
      make("ol", { class: "commands" }, ...commands),
      make("ul", { class: "notes" }, ...study.notes.map((note) => make("li", {}, note))),
    ];
  });

export const configurationParts = () =>
  data.studies.flatMap((study) => [
    studyTitle(study),
    configuration(study),
    make(
      "div",
      { class: "grid two top" },
      make(
        "div",
        { class: "card" },
        make("h4", {}, "Environment"),
        study.environment.length
          ? table(["", "Version or value"], study.environment, { caption: "Environment", numeric: false })
          : make("p", { class: "empty" }, "Not recorded."),
      ),
      make(
        "div",
        { class: "card" },
        make("h4", {}, "Work"),
        table(
          ["Stages", "Count", "Time", "Training FLOPs"],
          study.stages.map((stage) => stage.cells),
          { caption: "Work by stage" },
        ),
        study.estimates.length > 0 && estimates(study.estimates),
      ),
    ),
  ]);

/** @param {StudyPart} study */
const configuration = ({ configuration }) =>
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
          onclick: () => save("study.yaml", configuration, "application/yaml"),
        },
        "Save",
      ),
      copyButton(configuration, "the configuration"),
    ),
    make("pre", { tabindex: 0, "aria-label": "Configuration" }, configuration),
  );

/** @param {Expected[]} all */
const estimates = (all) =>
  make(
    "div",
    { class: "estimates" },
    make("h4", {}, "Estimate against outcome"),
    table(
      ["", "Foreseen", "Taken", "Error"],
      all.map((each) => each.cells).filter((cells) => cells.length),
      { caption: "Estimate against outcome" },
    ),
    make(
      "p",
      { class: "caption" },
      "Of the last run that had something to do. Several stages run at once, so kinds add up to more than the whole.",
    ),
  );
