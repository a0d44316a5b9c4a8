// Texts by two temperatures beside each other, one model at a time or several below each other.
import { page } from "./board.js";
import { data, make, named, plural, select } from "./elements.js";
import { swatch } from "./looks.js";

/** @import {Text} from "./data.js" */

const SHOWN_MODELS = 4;
const LISTED_MODELS = 12;

export function sampleParts() {
  const texts = new Map(data.writings.map((writing) => [writing.model, writing.texts]));
  const models = page.board.rows.flatMap((row) => {
    const own = row.members.map((member) => texts.get(member.model)).find(Boolean);
    return own ? [{ row, texts: own }] : [];
  });
  if (!models.length) return [];
  const host = make("div", { class: "samples", "aria-live": "polite" });
  const prompts = [...new Set(models.flatMap((model) => model.texts.map((text) => text.prompt)))];
  const state = { prompt: "0", model: models.length > SHOWN_MODELS ? "0" : "all" };
  function fill() {
    const chosen = state.model === "all" ? models : [models[Number(state.model)]];
    host.replaceChildren(
      ...chosen.map(({ row, texts }) => {
        const own = texts.filter((text) => text.prompt === prompts[Number(state.prompt)]);
        return make(
          "article",
          { class: "card sample" },
          make(
            "h3",
            {},
            swatch(row.family),
            named(row.label),
            make("span", { class: "quiet" }, ` BrierLM ${row.texts.brierlm}`),
          ),
          own.length
            ? make("div", { class: "grid two tight" }, ...own.map(textBox))
            : make("p", { class: "empty" }, "No text after this prompt."),
        );
      }),
    );
  }
  /** @param {Partial<typeof state>} change */
  const choose = (change) => {
    Object.assign(state, change);
    fill();
  };
  const ofModels = [
    ...(models.length <= LISTED_MODELS ? [["all", "All models"]] : []),
    ...models.map((model, index) => [String(index), model.row.label]),
  ];
  const ofPrompts = prompts.map((prompt, index) => [
    String(index),
    `${index + 1}: ${prompt.replace(/\s+/g, " ").slice(0, 32)}…`,
  ]);
  fill();
  return [
    make(
      "div",
      { class: "controls" },
      models.length > 1 && select("Model", ofModels, state.model, (model) => choose({ model })),
      prompts.length > 1 && select("Prompt", ofPrompts, state.prompt, (prompt) => choose({ prompt })),
    ),
    host,
    ...data.left_out.map((text) => make("p", { class: "notice" }, text)),
  ];
}

/** @param {Text} text */
function textBox(text) {
  return make(
    "figure",
    { class: "text" },
    make(
      "figcaption",
      {},
      make("strong", {}, `Temperature ${text.temperature}`),
      make("span", {}, text.ended ? "the model ended the text" : `cut after ${plural(text.num_tokens, "token")}`),
    ),
    make(
      "p",
      {
        class: "pre",
        dir: "auto",
        tabindex: 0,
        role: "group",
        "aria-label": `Text at temperature ${text.temperature}`,
      },
      make("span", { class: "prompt" }, text.prompt),
      make("span", {}, text.text),
    ),
  );
}
