// From data to page.
function fillSection(id, host, parts) {
  const section = byId(id);
  const found = parts.filter(Boolean);
  section.hidden = found.length === 0;
  byId(host).replaceChildren(...found);
}

function headlineParts() {
  const { headline } = board;
  const sentences = headline.sentences ?? [];
  const claim =
    headline.claim && (headline.claim.sentences ?? []).length
      ? make(
          "div",
          { class: "claim" },
          make("p", { class: "eyebrow" }, "The paper's claim"),
          make(
            "p",
            { class: "verdicts" },
            ...["training", "inference"].map((part) =>
              make("span", { class: `verdict ${headline.claim[part]}` }, `${part}: ${headline.claim[part]}`),
            ),
          ),
          ...headline.claim.sentences.map((text) => make("p", {}, named(text))),
        )
      : null;
  const told = new Set(headline.claim?.sentences ?? []);
  const others = sentences.slice(1).filter((text) => !told.has(text));
  return [
    sentences.length
      ? make("p", { class: `headline${sentences[0].length > 170 ? " long" : ""}` }, named(sentences[0]))
      : null,
    answerTable(headline),
    others.length
      ? make(
          "details",
          { class: "words-of-it" },
          make("summary", {}, "All of it in words"),
          make("ul", {}, ...others.map((text) => make("li", {}, named(text)))),
        )
      : null,
    claim,
    headline.command
      ? make(
          "div",
          {},
          make("p", { class: "quiet before-command" }, "What is still open can be answered by"),
          make(
            "div",
            { class: "command" },
            make("code", { tabindex: 0 }, headline.command),
            copyButton(headline.command, "the command"),
          ),
        )
      : null,
    headline.method
      ? make(
          "details",
          { class: "method" },
          make("summary", {}, "How the intervals were made"),
          make("p", {}, named(headline.method)),
        )
      : null,
  ].filter(Boolean);
}

// 4.69 x [3.71, 5.99]; or the bound that is known.
function ratio(found) {
  if (!found) return MISSING;
  const times = (value) => `${value >= 100 ? Math.round(value) : value.toFixed(2)}×`;
  if (found.value !== null && found.value !== undefined) {
    const isExact = found.high !== null && Math.abs(found.high - found.low) < 1e-9;
    return make(
      "span",
      {},
      make("strong", {}, times(found.value)),
      isExact
        ? null
        : make("small", {}, ` [${found.low.toFixed(2)}, ${found.high === null ? "∞" : found.high.toFixed(2)}]`),
    );
  }
  if (found.low > 0 && found.high === null) return make("strong", {}, `> ${times(found.low)}`);
  if (found.high !== null) return make("strong", {}, `< ${times(found.high)}`);
  return MISSING;
}

function answerTable(headline) {
  const answers = (headline.answers ?? []).filter((answer) => answer.training || answer.total || answer.inference);
  const differences = new Map((headline.differences ?? []).map((difference) => [difference.family, difference]));
  if (!answers.length && !differences.size) return null;
  const families = new Map((headline.families ?? []).map((family) => [family.name, family]));
  const cell = (name) =>
    make("span", { class: "with-swatch" }, swatch(familyLook(families.get(name) ?? { name })), named(name));
  const answered = new Set(answers.map((answer) => answer.family));
  const seen = new Set();
  const gap = (name) => {
    const difference = seen.has(name) ? null : differences.get(name);
    seen.add(name);
    return difference
      ? `${difference.score_difference < 0 ? "−" : "+"}${Math.abs(difference.score_difference).toFixed(2)} ± ${difference.standard_error.toFixed(2)}`
      : "";
  };
  const rows = [
    ...answers.map((answer) => [
      cell(answer.family),
      answer.score === null ? MISSING : answer.score.toFixed(2),
      ratio(answer.training),
      ratio(answer.total),
      answer.inference ? ratio(answer.inference) : ratio(null),
      gap(answer.family),
    ]),
    ...[...differences.keys()]
      .filter((name) => !answered.has(name))
      .map((name) => [cell(name), MISSING, MISSING, MISSING, MISSING, gap(name)]),
  ];
  const reference = answers[0]?.reference ?? [...differences.values()][0].reference;
  return make(
    "div",
    { class: "answers" },
    make(
      "p",
      { class: "answers-title" },
      "FLOPs for the same score, as a multiple of those of ",
      named(reference === "token" ? "the token model" : reference),
    ),
    table(["Family", "At BrierLM", "Training", "with autoencoder", "Inference", "Score at equal training"], rows, {
      caption: "FLOPs for the same score",
    }),
  );
}

function tiles() {
  const top = board.rows[0];
  const seeds = d3.sum(board.rows, (row) => row.members.length || 1);
  const flops = d3.sum(data.studies, (study) => d3.sum(study.stages, (stage) => stage.flops));
  const seconds = d3.sum(data.studies, (study) => d3.sum(study.stages, (stage) => stage.wall_time_s));
  const tied = board.rows.filter((row) => row.rank === 1).length;
  const tile = (name, value, note) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, named(value)), make("dd", { class: "note" }, named(note)));
  return [
    tile(
      "Best BrierLM",
      shown(column("brierlm"), top.values),
      tied > 1 ? `${top.label}; ${tied} rows share rank 1` : top.label,
    ),
    tile(
      "Compared",
      plural(board.rows.length, "row"),
      `${plural(seeds, "training")}, ${plural(familiesOf(board.rows).length, "family", "families")}`,
    ),
    tile("Training", scientific(flops, 1), "FLOPs, autoencoders included"),
    tile("Work", duration(seconds), "summed over all stages"),
  ];
}

function drawBoard() {
  const one = data.studies.length === 1 ? data.studies[0] : null;
  byId("title").replaceChildren(named(data.title));
  const finished = data.studies
    .map((study) => study.finished)
    .filter(Boolean)
    .sort()
    .at(-1);
  const budgets = [...new Set(data.studies.map((study) => study.budget).filter(Boolean))];
  byId("eyebrow").replaceChildren(
    "Compute against quality",
    ...budgets.flatMap((budget) => [" · ", make("span", { class: "unbroken" }, budget)]),
    ...(finished ? [" · ", make("span", { class: "unbroken" }, `finished ${finished} UTC`)] : []),
  );
  const description = one
    ? one.description
    : [...new Set(data.studies.map((study) => study.description).filter(Boolean))].slice(0, 3).join(" ");
  byId("description").replaceChildren(named(description));
  byId("description").hidden = !description;
  const pages = data.studies.filter((study) => safeAddress(study.url));
  byId("study-links").replaceChildren(
    ...pages
      .slice(0, 6)
      .map((study) =>
        link(study.url, several ? `${study.name} ${study.identity.slice(0, 8)} in MLflow` : "The study in MLflow"),
      ),
  );
  byId("study-links").hidden = !pages.length;
  hideTip();
  if (!board) {
    byId("headline-body").replaceChildren(
      make(
        "p",
        { class: "notice" },
        "No trial of this study has been scored yet, so there is no leaderboard. What is known of its trials stands below.",
      ),
    );
    for (const id of [
      "compute",
      "leaderboard",
      "chunks",
      "components",
      "training",
      "terms",
      "kept",
      "autoencoders",
      "samples",
      "search",
      "protocol-words",
    ])
      byId(id).hidden = true;
    return;
  }
  byId("headline-body").replaceChildren(...headlineParts());
  byId("tiles").replaceChildren(...tiles());
  fillSection("leaderboard", "leaderboard-table", leaderboardTable());
  byId("leaderboard-intro").textContent =
    "Best score first, ± one standard error. Rows that do not differ significantly share a rank; a star marks the Pareto front of that price.";
  byId("leaderboard-caption").replaceChildren(named(board.caption));
  fillSection("compute", "compute-chart", [computeChart()]);
  fillSection("chunks", "chunks-chart", [chunksChart()]);
  fillSection("components", "components-charts", componentCharts());
  fillSection("training", "training-charts", trainingCharts());
  fillSection("terms", "terms-charts", termCharts());
  fillSection("kept", "kept-charts", keptCharts());
  fillSection("autoencoders", "autoencoders-body", autoencoderParts());
  fillSection("search", "search-body", searchParts());
  fillSection("samples", "samples-body", sampleParts());
  for (const each of charts) if (!each.box.isConnected) charts.delete(each);
}

// Not by the address alone: inside the frame of another page, such as MLflow's, it may lead elsewhere.
function goTo(event, section) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const heading = section.querySelector("h1, h2");
  heading.setAttribute("tabindex", "-1");
  heading.focus({ preventScroll: true });
  section.scrollIntoView();
}

function contents() {
  const list = byId("contents");
  const sections = [...document.querySelectorAll("main section")].filter((section) => !section.hidden);
  list.replaceChildren(
    ...sections.map((section) =>
      make(
        "li",
        {},
        make("a", { href: `#${section.id}`, onclick: (event) => goTo(event, section) }, section.dataset.title),
      ),
    ),
  );
  const links = new Map(
    [...list.querySelectorAll("a")].map((anchor) => [anchor.getAttribute("href").slice(1), anchor]),
  );
  contents.watch?.disconnect();
  const seen = new Set();
  contents.watch = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) seen[entry.isIntersecting ? "add" : "delete"](entry.target.id);
      const first = sections.find((section) => seen.has(section.id));
      for (const [id, anchor] of links) anchor.toggleAttribute("aria-current", id === first?.id);
    },
    { rootMargin: "-64px 0px -55% 0px" },
  );
  sections.forEach((section) => contents.watch.observe(section));
}

function start() {
  startTheme();
  board = data.boards[0] ?? null;
  if (data.boards.length > 1) {
    const choice = byId("protocol");
    choice.append(
      ...data.boards.map((each, index) =>
        make("option", { value: index }, `${plural(each.rows.length, "row")}: ${each.title}`),
      ),
    );
    choice.addEventListener("change", () => {
      board = data.boards[Number(choice.value)];
      matching = () => true;
      drawBoard();
      contents();
    });
    byId("protocol-choice").hidden = false;
  }
  drawBoard();
  fillSection("ended", "ended-body", endedParts());
  fillSection("protocol-words", "protocol-body", protocolParts());
  fillSection("reproduce", "reproduce-body", reproduceParts());
  fillSection("configuration", "configuration-body", configurationParts());
  byId("foot").replaceChildren(
    make(
      "p",
      {},
      `Made by ${data.made_by}. This file is complete: it loads nothing and sends nothing. Charts are drawn by Observable Plot and D3 (ISC licence), which it holds.`,
    ),
  );
  contents();
  requestAnimationFrame(() =>
    requestAnimationFrame(() => (document.documentElement.dataset.ready = String(Math.round(performance.now())))),
  );
}
start();
