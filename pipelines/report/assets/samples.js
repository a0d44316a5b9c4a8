// Texts by two temperatures beside each other, one model at a time or several below each other.
const SHOWN_MODELS = 4;

function sampleParts() {
  const texts = new Map(data.writings.map((writing) => [writing.model, writing.texts]));
  const models = board.rows.flatMap((row) =>
    row.members
      .filter((member) => texts.has(member.model))
      .slice(0, 1)
      .map((member) => ({ row, texts: texts.get(member.model), seed: member.seed })),
  );
  if (!models.length) return [];
  const host = make("div", { class: "samples", "aria-live": "polite" });
  const prompts = [...new Set(models.flatMap((model) => model.texts.map((text) => text.prompt)))];
  const state = { prompt: 0, model: models.length > SHOWN_MODELS ? "0" : "all" };
  function fill() {
    const chosen = state.model === "all" ? models : [models[Number(state.model)]];
    host.replaceChildren(
      ...chosen.map((model) => {
        const own = model.texts.filter((text) => text.prompt === prompts[state.prompt]);
        return make(
          "article",
          { class: "card sample" },
          make(
            "h3",
            {},
            swatch(model.row.family),
            named(model.row.label),
            make("span", { class: "quiet" }, ` BrierLM ${shown(column("brierlm"), model.row.values)}`),
          ),
          own.length
            ? make("div", { class: "grid two tight" }, ...own.map(textBox))
            : make("p", { class: "empty" }, "No text after this prompt."),
        );
      }),
    );
  }
  const controls = make(
    "div",
    { class: "controls" },
    models.length > 1
      ? select(
          "Model",
          [
            ...(models.length <= 12 ? [["all", "All models"]] : []),
            ...models.map((model, index) => [String(index), model.row.label]),
          ],
          state.model,
          (value) => {
            state.model = value;
            fill();
          },
        )
      : null,
    prompts.length > 1
      ? select(
          "Prompt",
          prompts.map((prompt, index) => [String(index), `${index + 1}: ${prompt.replace(/\s+/g, " ").slice(0, 32)}…`]),
          "0",
          (value) => {
            state.prompt = Number(value);
            fill();
          },
        )
      : null,
  );
  fill();
  return [controls, host, ...data.left_out.map((text) => make("p", { class: "notice" }, text))];
}

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
