"""What copies of training text in held-out text do to scores: BrierLM with the passages that repeat, and without.

    python -m bench.repeated_scores STORE LABEL [LABEL ...]

A scored position is repeated where the token that it asks for lies in a passage of at least 64 characters that also
stands in the training text (``bench/repeated_passages.py``). Each model is scored once, under its own protocol on
400 windows; the rest is which positions count. Errors are over documents. For corpora whose tokens are bytes.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from bench.repeated_passages import covered, known_passages
from calm_bench.config import Evaluation
from calm_bench.corpora import read_documents
from calm_bench.lm.folder import load_language_model
from calm_bench.seeding import derive
from calm_bench.tokens import TokenStream
from evals.clusters import clusters_of
from evals.estimators import estimator_for, value_of_a_match
from evals.evaluate import Scoring, window_starts
from evals.protocol import protocol_for
from evals.samplers import ModelSampler
from evals.stats import cluster_sums, summarise
from pipelines.scoring.models import find_model
from pipelines.store.store import Store

LENGTH = 64
WINDOWS = 400
"""Scored, spread evenly over the test text."""


def repeated_tokens(corpus: Path, stream: TokenStream) -> np.ndarray:
    """Which tokens of the test split lie in repeated passages, ``[T]``."""
    known = known_passages(list(read_documents(corpus, "train")), LENGTH)
    found = np.zeros(len(stream), dtype=bool)
    ends = [0, *map(int, stream.document_ends)]
    for text, (begin, end) in zip(read_documents(corpus, "test"), pairwise(ends), strict=True):
        widths = [len(character.encode()) for character in text]
        mask = np.repeat(covered(text, known, LENGTH), widths)
        assert end - begin - len(mask) in (0, 1), "tokens are bytes, with one end of text"
        found[begin : begin + len(mask)] = mask
    return found


def main() -> None:
    """Print BrierLM of each model: of all positions, without the repeated ones, and of these alone."""
    torch.set_num_threads(1)
    store = Store(sys.argv[1])
    (corpus,) = (store.root / "stages" / "corpus").iterdir()
    (tokens,) = (store.root / "stages" / "tokens").iterdir()
    stream = TokenStream.open(tokens, "test")
    repeated = repeated_tokens(corpus, stream)
    print(f"{100 * repeated.mean():.1f} % of {len(stream):,} test tokens are repeated")
    for label in sys.argv[2:]:
        found = find_model(label, store)
        model = load_language_model(found.folder)
        settings = Evaluation.model_validate({**(found.evaluation or {}), "max_windows": WINDOWS})
        protocol = protocol_for(settings, "", "", None if model.chunk_size == 1 else model.chunk_size)
        sampler = ModelSampler(model)
        estimator = estimator_for(sampler, protocol, None)
        starts = window_starts(len(stream), protocol.context_length, WINDOWS)
        scores, _ = Scoring(sampler, stream, protocol, estimator).score(
            starts, protocol.context_length, protocol.positions, starts, 16
        )
        targets = (starts[:, None] + np.array(protocol.positions)).ravel()
        windows = np.repeat(np.arange(len(starts)), len(protocol.positions))
        for name, mask in (
            ("all", np.ones(len(targets), dtype=bool)),
            ("without repeated", ~repeated[targets]),
            ("repeated alone", repeated[targets]),
        ):
            clusters = clusters_of(stream, targets[mask], windows[mask])
            summary = summarise(
                cluster_sums(scores[mask], clusters.index),
                match_value=value_of_a_match(estimator, protocol.num_samples),
                seed=derive(protocol.seed, "bootstrap"),
            )
            error, unit = summary.brierlm.standard_error, clusters.unit
            counts = f"{mask.sum():,} positions in {clusters.num_documents} documents, error over {unit}s"
            print(f"{label:8} {name:17} BrierLM {summary.brierlm.value:.3f} ± {error:.3f} ({counts})", flush=True)


if __name__ == "__main__":
    main()
