"""The stage ``corpus``: the documents of a study, read from where they lie and split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calm_bench.atomic import write_bytes
from calm_bench.config import Corpus
from calm_bench.corpora.source import ADDRESS, HUGGING_FACE_PREFIX
from calm_bench.fingerprint import identity
from calm_bench.published_parts import SCRATCH
from pipelines.common.numbers import printable
from pipelines.study.changed_source import refuse_changed
from pipelines.study.cost import SMALL_FILES_BYTES, STAGE_S, CostContext, StageCost
from pipelines.study.graph import corpus_identity_of
from pipelines.study.kinds.text_parts import MUCH_TEXT, Text, part_workers, watched_parts
from pipelines.study.row import FinishedStage, RowPart
from pipelines.study.stage import Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import StageKind

STDLIB_SECONDS = 4.7
"""Seconds of reading ``corpus.source=stdlib``."""
READ_BYTES_PER_SECOND = {"markov": 2.5e6, "local": 3.0e7}
"""Text of a corpus written per second: measured on one core, ``calm-bench``'s own readers."""
NEAR_SECONDS_PER_BYTE, WORDS_SECONDS_PER_BYTE = 3.1e-7, 1.7e-7
"""What ``quality.duplicates=near`` and ``quality.decontaminate_words`` add on one core, 13 words (``bench.text``)."""


def run_corpus(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Write the documents of ``stage.settings["corpus"]``, by split, and their data card."""
    from calm_bench.corpora import PartFound, write_corpus
    from calm_bench.corpora.data_card import CARD, corpus_card

    parts = watched_parts(context, folder, lambda found: Text(found.bytes) if isinstance(found, PartFound) else None)
    corpus = Corpus.model_validate(stage.settings["corpus"])
    report = write_corpus(corpus, folder, parts, context.earlier()).as_dict()
    # It may have been written to while it was read.
    refuse_changed(corpus_changed(stage))
    write_bytes(folder / CARD, corpus_card(corpus, report, stage.config["depends_on"]).encode())
    return report


def corpus_changed(stage: Stage) -> str | None:
    """The text, where it is another than that of which the study spoke."""
    from calm_bench.corpora import CorpusError

    corpus = Corpus.model_validate(stage.settings["corpus"])
    try:
        is_same = identity(corpus_identity_of(corpus)) == identity(stage.config)
    except CorpusError:
        # What cannot be read says so itself.
        return None
    return None if is_same else f"the text of corpus.source={corpus.source} or the code that reads it"


def corpus_in_parts(stage: Stage, results: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the source is large, and read in parts."""
    from calm_bench.corpora import CorpusError, divisible_bytes

    try:
        return divisible_bytes(Corpus.model_validate(stage.settings["corpus"])) > MUCH_TEXT
    except CorpusError:
        # The stage itself will say so.
        return False


def corpus_cost(stage: Stage, context: CostContext) -> StageCost:
    """Seconds by the size of the text, where that is known; it needs no torch and next to no memory."""
    corpus, num_bytes = context.experiment.corpus, context.sizes.num_bytes
    written = None if num_bytes is None else num_bytes + SMALL_FILES_BYTES
    if corpus.source == "stdlib":
        return StageCost(STAGE_S + STDLIB_SECONDS, disk_bytes=written)
    if num_bytes is None:
        return StageCost(None)
    each = 1 / READ_BYTES_PER_SECOND["markov" if corpus.source == "markov" else "local"]
    if corpus.quality.duplicates == "near":
        each += NEAR_SECONDS_PER_BYTE
    if corpus.quality.decontaminate_words is not None:
        each += WORDS_SECONDS_PER_BYTE
    is_of_hub = corpus.source.startswith(HUGGING_FACE_PREFIX) and ADDRESS not in corpus.source
    if corpus.source != "markov" and not is_of_hub:
        each /= part_workers(num_bytes, context)
    return StageCost(STAGE_S + (0.1 + num_bytes * each), disk_bytes=written)


def corpus_summary(result: Mapping[str, Any]) -> str:
    """How many documents and bytes there are, what was left out, and copies in held-out text, in words."""
    if "documents" not in result:
        return ""
    megabytes = sum(result["bytes"].values()) / 1e6
    skipped = [f"{count:,} x {printable(reason)}" for reason, count in result.get("skipped", {}).items()]
    left_out = f"; left out: {', '.join(skipped)}" if skipped else ""
    repeated = [f"{count:,} of {split}" for split, count in result.get("repeated", {}).items() if count]
    copies = f"; exact copies of other documents: {', '.join(repeated)}" if repeated else ""
    return f"{sum(result['documents'].values()):,} documents, {megabytes:.3g} MB{left_out}{copies}"


def corpus_row(finished: FinishedStage) -> RowPart:
    """The content that the row's model was trained and scored on."""
    return RowPart({"corpus_digest": finished.result["digest"]})


CORPUS = StageKind(
    "corpus",
    run_corpus,
    heading="Corpus",
    uses_torch=False,
    uses_device=False,
    changed=corpus_changed,
    in_parts=corpus_in_parts,
    scratch=SCRATCH,
    cost=corpus_cost,
    summary=corpus_summary,
    row_part=corpus_row,
)
