"""The protocol behind a score, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.results.entry import Entry
from pipelines.results.error_unit import copies_among, errors_over, few_documents
from pipelines.results.unlike_arithmetic import unlike_arithmetic


def protocol_title(protocol: Mapping[str, Any], name: str) -> str:
    """A few words that tell protocols apart."""
    if not protocol:
        return f"protocol {name[:8]}"
    windows = protocol.get("max_windows")
    length = f"{windows:,} windows" if windows else "all windows"
    return (
        f"{protocol.get('name', 'matched')}, {protocol.get('split', 'test')} split, {length}, "
        f"{protocol.get('num_samples')} samples ({name[:8]})"
    )


def protocol_words(protocol: Mapping[str, Any], entries: Sequence[Entry]) -> list[str]:
    """What was scored, where, with how many samples; only the counts where the protocol itself is not at hand."""
    documents = _spread([entry.num_documents for entry in entries])
    positions = _spread([entry.num_positions for entry in entries])
    samples = _spread([entry.num_samples for entry in entries])
    counted = f"{positions} positions in {documents} documents, {samples} samples at each"
    if not protocol:
        return [
            f"Scored: {counted}.",
            "The evaluation's own record is no longer in the store, so the protocol is known by its hash alone.",
        ]
    windows = protocol.get("max_windows")
    stride = protocol["position_stride"]
    last = protocol.get("last_position")
    orders = protocol.get("ngram_lengths", (1, 2, 3, 4))
    sentences = [
        f"Text: the {protocol['split']} split of the corpus, documents that no model was trained on"
        + (f"; at most {windows:,} windows of it." if windows else "; all of it."),
        f"Windows of {protocol['context_length']} tokens that do not overlap; no target sees further back than its "
        "window's start.",
        f"Positions: {_every(stride)} token from {protocol['first_position']} on"
        + (f" to {last}" if last is not None else "")
        + f"; in all {counted}.",
        f"Brier-n for n = {', '.join(map(str, orders))}: how well the model's own draws match the next n tokens, "
        "estimated without bias from pairs of draws. BrierLM is 100 times their geometric mean; higher is better.",
        f"Draws: {protocol.get('decode_mode', 'sample T=1')}, seed {protocol.get('seed', 0)}.",
        f"Errors are one standard error over {errors_over(entries)}.",
        *filter(None, (few_documents(entries), copies_among(entries), unlike_arithmetic(entries))),
    ]
    if protocol.get("name") == "paper":
        sentences.insert(2, "Positions are those of the paper's reference implementation, which differ by K.")
    estimators = sorted({entry.estimator for entry in entries})
    if estimators != ["all-pairs"]:
        sentences.append(f"Estimators: {', '.join(estimators)}; all have the same expectation.")
    return sentences


def _every(stride: int) -> str:
    return "every" if stride == 1 else f"every {stride}th"


def _spread(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
