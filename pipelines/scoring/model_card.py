"""The card of an exported model: what it is, its score with errors and protocol, its compute, and how to load it.

The same numbers stand in the card's metadata as a ``model-index``, which the hub and its tools read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pipelines.common.corpus_name import corpus_name, is_of_hub
from pipelines.common.numbers import clipped_with_error, compact, printable, scientific, with_error
from pipelines.results.entry import Entry

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

    from calm_bench.lm.base import ChunkLanguageModel

ExportFormat = Literal["hf", "released"]
CARD_FILE = "README.md"
TASK = "text-generation"

_USE = {
    "hf": """\
With calm-bench:

```python
import calm_bench as cb

model = cb.load_model("FOLDER")  # this folder; of a hub, huggingface_hub.snapshot_download("REPO") gives it
print(model.generate("Once", max_new_tokens=100))
```

Behind the interface of transformers, after `import calm_bench.hub`: `AutoModel.from_pretrained("FOLDER")`. The \
tokenizer needs no code of calm-bench: `AutoTokenizer.from_pretrained("FOLDER")`.""",
    "released": """\
In the format of CALM's released checkpoints: the authors' code reads it, and so does calm-bench (`calm-bench eval \
FOLDER`). `ae_path` in `config.json` has to lead to the folder `autoencoder` before their code reads it.""",
}


def model_card(
    name: str,
    network: ChunkLanguageModel,
    corpus: Mapping[str, Any] | None,
    rows: Sequence[Entry],
    format: ExportFormat,
    notes: Sequence[str] = (),
) -> ModelCard:
    """The card of ``network``, called ``name``.

    Local paths do not reach it: a corpus in a file is called as the file is.

    Args:
        corpus: settings of the text that it was trained on, where they are known.
        rows: its rows on leaderboards, one a protocol.
        notes: what is lost in the format.
    """
    from huggingface_hub import ModelCard, ModelCardData

    source = None if corpus is None else str(corpus.get("source", ""))
    data = ModelCardData(
        model_name=printable(name),
        library_name="calm-bench",
        pipeline_tag=TASK,
        tags=["calm-bench", network.config.kind, f"K={network.chunk_size}"],
        datasets=[corpus_name(source)] if source and is_of_hub(source) else None,
        metrics=["brierlm"] if rows else None,
        eval_results=[result for row in rows for result in _results(row, source)] or None,
    )
    parts = [f"# {printable(name)}", _kind(network, source), *map(_score, rows)]
    if rows:
        parts.append(_compute(rows[0]))
    parts.append(f"## Use\n\n{_USE[format]}")
    if notes:
        parts.append("## What differs in this format\n\n" + "\n".join(f"- {note}" for note in notes))
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def _kind(network: ChunkLanguageModel, source: str | None) -> str:
    config = network.config
    head = f", {config.head.kind} head" if config.family.uses("head") else ""
    kind = (
        "A token language model"
        if config.kind == "token"
        else f"A `{config.kind}` language model with chunks of K = {network.chunk_size} tokens{head}"
    )
    trained = "" if source is None else f", trained on {corpus_name(source)}"
    return f"{kind}{trained}."


def _score(row: Entry) -> str:
    lines = [f"| BrierLM | {clipped_with_error(row.brierlm, row.brierlm_se)} |"]
    lines += [
        f"| Brier-{n} times 100 | {with_error(100 * value, 100 * error)} |"
        for n, (value, error) in enumerate(row.parts, 1)
    ]
    table = "\n".join(["| score | ± one standard error |", "| :-- | --: |", *lines])
    return (
        f"## Score\n\n{table}\n\nBrierLM is 100 times the geometric mean of Brier-1 to 4; higher is better. Measured "
        f"on {printable(row.text) or 'held-out text'} (corpus `{row.corpus_digest[:16]}`): {row.num_positions:,} "
        f"positions in {row.num_documents:,} documents, {row.num_samples} samples at each, decoded by "
        f"{printable(row.decode_mode)}; errors are over {row.error_unit}s. Protocol `{row.protocol_hash}`: scores "
        "compare where it is equal."
    )


def _compute(row: Entry) -> str:
    lines = [f"| {heading} | {scientific(value)} |" for _, heading, value in _costs(row)]
    if row.parameters is not None:
        lines.append(f"| Parameters, without the autoencoder | {row.parameters:,} |")
    if row.tokens is not None:
        lines.append(f"| Training tokens | {compact(row.tokens)} |")
    return "\n".join(["## Compute\n", "| | |", "| :-- | --: |", *lines])


def _costs(row: Entry) -> Iterator[tuple[str, str, float]]:
    """Metric, heading and value of what is known."""
    known = (
        ("total_training_flops", "Training FLOPs, language model and autoencoder", row.total_training_flops),
        ("training_flops", "Training FLOPs, language model alone", row.training_flops),
        ("inference_flops_per_token", "Inference FLOPs per generated token", row.inference_flops_per_token),
    )
    return ((metric, heading, value) for metric, heading, value in known if value is not None)


def _results(row: Entry, source: str | None) -> list[EvalResult]:
    """The row as results of a ``model-index``: BrierLM and Brier-n with their errors, then the compute behind them."""
    from huggingface_hub import EvalResult

    errors_over = {"over": f"{row.error_unit}s", "positions": row.num_positions, "documents": row.num_documents}
    values = [("brierlm", "BrierLM", row.brierlm, row.brierlm_se)]
    values += [(f"brier_{n}", f"Brier-{n}", value, error) for n, (value, error) in enumerate(row.parts, 1)]
    metrics: list[tuple[str, str, float, dict[str, Any] | None]] = [
        (
            metric,
            heading,
            value,
            {"standard_error": error, **errors_over, "samples": row.num_samples, "decode_mode": row.decode_mode},
        )
        for metric, heading, value, error in values
    ]
    metrics += [(metric, heading, value, None) for metric, heading, value in _costs(row)]
    # The hub shows what stands in one result's dataset as one table: all numbers of a protocol have the same.
    name = "text" if source is None else corpus_name(source)
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=name,
            dataset_name=name,
            dataset_args={"digest": row.corpus_digest, "protocol_hash": row.protocol_hash},
            metric_type=metric,
            metric_name=heading,
            metric_value=value,
            metric_args=arguments,
        )
        for metric, heading, value, arguments in metrics
    ]
