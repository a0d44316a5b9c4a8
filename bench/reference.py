"""The authors' implementation and ours in turns, on the same weights: CPU seconds of one thread, and their ratios.

    python -m bench.reference --reference CHECKOUT --python PYTHON [--trained STORE] [--only WORD] [--windows N]
        [--products]

CHECKOUT is a clone of https://github.com/shaochenze/calm, PYTHON the interpreter of an environment with its
requirements (bench/README.md says how to make one). STORE holds a finished study with a token model and chunk models at
K = 1, 2 and 4, such as ``k-ablation``; without it the rows of trained models are left out.

A row is the median of five rounds, in each of which both run once, after a run that does not count, both in processes
of the row's own. Scores follow the paper's protocol, which is theirs, and are of what ``eval_energy.sh`` scores at
once: a window of 1024 tokens. Trained models score windows of 128, as long as those they learned from, which the
authors' side takes one by one, as its scripts do. With ``--windows 8`` the 1024 tokens are so many windows, which both
sides take together. What their script computes with the scores of a CALM, the energy loss and six further samples of
each position, is left out of ``theirs``; with it, their script has a column of its own. ``collide`` says how often two
samples of a position begin alike: always, as seldom as is usual (a tenth of the time), or as they do in a trained
model.

``--products`` counts the arithmetic of matrix products on both sides instead: what would be left of a row if all else
took no time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from bench.exchange import Folder
from bench.measure import machine
from bench.models import (
    agreeing,
    calm,
    certain,
    states_that_agree,
    token_model,
    trained_models,
    trained_text,
)
from bench.products import gflop
from calm_bench.config import Evaluation, Training
from calm_bench.freed_memory import keep_freed_memory
from calm_bench.lm import Calm, ChunkLanguageModel, TokenModel
from calm_bench.sampling.generate import generate_batch
from calm_bench.sampling.temperature import Decoding, Method, sample_chunks
from calm_bench.training.autoencoder import training_loss
from calm_bench.training.optim import build_optimizer
from evals.estimators import estimator_for, score_windows
from evals.protocol import protocol_for
from evals.samplers import ModelSampler

VOCABULARY, LARGE_VOCABULARY, ROUNDS = 4096, 32_000, 5
TRAINING, NEW_TOKENS = (16, 256), 64
"""Sequences and their length in tokens, and tokens generated after 32."""
SCORED = 1024
"""Tokens that are scored."""
END = VOCABULARY - 1
"""A token that is never drawn: all texts must get their full length."""


@dataclass(frozen=True)
class Both:
    """The same work, twice."""

    ours: Callable[[], object]
    request: dict[str, Any]
    """What :mod:`bench.authors` is asked for."""
    script: dict[str, Any] | None = None
    """The same, where the authors' script cannot be had without more than that."""


@dataclass(frozen=True)
class Row:
    """A line of the table; what it needs is made when it is its turn."""

    name: str
    prepare: Callable[[], Both]


class Authors:
    """The other side, in a process of its own."""

    def __init__(self, python: Path, checkout: Path, *options: str) -> None:
        command = [str(python), str(Path(__file__).with_name("authors.py")), str(checkout.absolute()), *options]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def answer(self, request: dict[str, Any]) -> float:
        """CPU seconds that the request took there, or what the options ask for."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the authors' side ended at {request}: give the same by hand to {self._process.args!r}")
        return float(answer)


def rows(folder: Folder, trained: Path | None, windows: int) -> Iterator[Row]:
    yield from steps(folder)
    yield from scores(folder, trained, windows)
    yield from temperatures(folder)
    yield from generations(folder)


def steps(folder: Folder) -> Iterator[Row]:
    """Training steps."""
    tokens = random_tokens(*TRAINING)

    def energy() -> Both:
        model = calm(VOCABULARY)
        request = {"case": "energy_step", "folder": folder.model(model), "tokens": folder.tensor(tokens)}
        return Both(training_step(model, model.loss, tokens), request)

    def autoencoder() -> Both:
        model = calm(VOCABULARY)
        inner = model.autoencoder.requires_grad_(True)
        where = f"{folder.model(model)}/autoencoder"
        request = {"case": "autoencoder_step", "folder": where, "tokens": folder.tensor(tokens)}
        return Both(training_step(inner, training_loss(inner), tokens), request)

    def token() -> Both:
        model = token_model(VOCABULARY)
        request = {"case": "token_step", "folder": folder.model(model), "tokens": folder.tensor(tokens)}
        return Both(training_step(model, model.loss, tokens), request)

    yield Row("training step: energy head, K=4", energy)
    yield Row("training step: autoencoder, K=4", autoencoder)
    yield Row("training step: token model", token)


def training_step(
    model: torch.nn.Module, loss: Callable[[Tensor, torch.Generator], tuple[Tensor, object]], tokens: Tensor
) -> Callable[[], object]:
    """As our training loop makes it; nothing is learned, so that all steps are alike."""
    model.train()
    parameters = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    optimizer = build_optimizer(parameters, Training(num_steps=1, learning_rate=1e-30, weight_decay=0.0))

    def step() -> None:
        loss(tokens, torch.Generator().manual_seed(0))[0].backward()
        torch.nn.utils.clip_grad_norm_([parameter for _, parameter in parameters], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def scores(folder: Folder, trained: Path | None, count: int) -> Iterator[Row]:
    """BrierLM under the paper's protocol."""
    windows = random_tokens(count, SCORED // count)
    for name, build in MODELS.items():
        for how, change in {"all collide": all_of_them, "a tenth collide": a_tenth}.items():
            yield Row(f"BrierLM, {name}, {how}", partial(changed_score, folder, build, change, windows))
    for name, build in MODELS.items():
        larger = partial(build, LARGE_VOCABULARY)
        yield Row(
            f"BrierLM, {name}, a tenth collide, 32,000 words", partial(changed_score, folder, larger, a_tenth, windows)
        )
    if trained is not None:
        text, found = trained_text(trained, SCORED), trained_models(trained)
        for name in MODELS:
            if name in found:
                yield Row(f"BrierLM, {name}, trained", partial(score, folder, found[name], text, count))


def of_chunks(chunk_size: int, vocab_size: int = VOCABULARY) -> ChunkLanguageModel:
    return calm(vocab_size, chunk_size)


def of_tokens(vocab_size: int = VOCABULARY) -> ChunkLanguageModel:
    return token_model(vocab_size)


MODELS: dict[str, Callable[..., ChunkLanguageModel]] = {
    "token": of_tokens,
    "K=1": partial(of_chunks, 1),
    "K=2": partial(of_chunks, 2),
    "K=4": partial(of_chunks, 4),
}


def a_tenth(model: ChunkLanguageModel, windows: Tensor) -> ChunkLanguageModel:
    return agreeing(model, windows, 0.1)


def all_of_them(model: ChunkLanguageModel, windows: Tensor) -> ChunkLanguageModel:
    return certain(model)


def changed_score(
    folder: Folder,
    build: Callable[[], ChunkLanguageModel],
    change: Callable[[ChunkLanguageModel, Tensor], ChunkLanguageModel],
    windows: Tensor,
) -> Both:
    return score(folder, change(build(), windows), windows, len(windows))


def score(folder: Folder, model: ChunkLanguageModel, windows: Tensor, at_once: int) -> Both:
    """Args: ``at_once``, windows that their side takes together."""
    sampler, texts = ModelSampler(model), windows.numpy()
    is_token = isinstance(model, TokenModel)
    evaluation = Evaluation(protocol="paper", context_length=windows.shape[1])
    protocol = protocol_for(evaluation, "", "", None if is_token else model.chunk_size)
    estimator = estimator_for(sampler, protocol)
    seeds = list(range(len(windows)))

    def run() -> object:
        return score_windows(sampler, texts, protocol.positions, 2, protocol.ngram_lengths, seeds, estimator)

    request = {"folder": folder.model(model), "tokens": folder.tensor(windows), "at_once": at_once}
    if is_token:
        return Both(run, {"case": "score_token"} | request)
    return Both(run, {"case": "score_calm"} | request, script={"case": "evaluate_calm"} | request)


def temperatures(folder: Folder) -> Iterator[Row]:
    """A batch of 16 next chunks, where two samples agree as often as is said; theirs draws 200 candidates."""
    for temperature, wanted in ((1 / 2, 0.3), (1 / 2, 0.05), (1 / 2, 0.005), (1 / 3, 0.3), (1 / 3, 0.05)):
        for method in get_args(Method):
            name = f"T=1/{round(1 / temperature)}, {wanted:.1%} agree: {method}"
            yield Row(name, partial(next_chunks, folder, temperature, wanted, method))


def next_chunks(folder: Folder, temperature: float, wanted: float, method: Method) -> Both:
    model = calm(VOCABULARY)
    hidden = states_that_agree(model, wanted, 16)
    seeds = iter(range(10**9))  # new numbers every time, since how many candidates it takes is random

    def run() -> object:
        own = [torch.Generator().manual_seed(next(seeds)) for _ in hidden]
        return sample_chunks(model, hidden, Decoding(temperature, method), own)

    request = {"case": "temperature", "folder": folder.model(model), "hidden": folder.tensor(hidden)}
    return Both(run, request | {"temperature": temperature})


def generations(folder: Folder) -> Iterator[Row]:
    for batch in (1, 16):
        yield Row(f"generation, K=4, batch {batch}", partial(generation, folder, "K=4", batch))
        yield Row(f"generation, token, batch {batch}", partial(generation, folder, "token", batch))


@torch.no_grad()
def generation(folder: Folder, name: str, batch: int) -> Both:
    model, prompts = MODELS[name](), random_tokens(batch, 32)
    # The end of a text is taken out of what the model draws.
    if isinstance(model, Calm):
        model.autoencoder.encoder.embedding.weight[END] = 0  # a logit of 0 is never the largest
    else:
        assert isinstance(model, TokenModel)
        model.lm_head.weight[END] = 0

    def run() -> None:
        generators = [torch.Generator().manual_seed(row) for row in range(batch)]
        found = generate_batch(model, prompts.tolist(), NEW_TOKENS, generators, eos_id=END)
        assert all(len(text.tokens) == NEW_TOKENS for text in found)

    case = "generate_token" if isinstance(model, TokenModel) else "generate_calm"
    request = {"case": case, "folder": folder.model(model), "tokens": folder.tensor(prompts), "count": NEW_TOKENS}
    return Both(run, request)


def random_tokens(batch: int, length: int) -> Tensor:
    return torch.randint(END, (batch, length), generator=torch.Generator().manual_seed(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="a checkout of the authors' repository")
    parser.add_argument("--python", type=Path, required=True, help="an interpreter with its requirements")
    parser.add_argument("--trained", type=Path, help="a store with trained models")
    parser.add_argument("--only", default="", help="rows that have this in their names")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--windows", type=int, default=1, help="into which what is scored is cut")
    parser.add_argument("--products", action="store_true", help="count GFLOP of matrix products, and measure nothing")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    # As processes of stages and commands do.
    torch.set_num_threads(1)
    keep_freed_memory()
    if asked.row is None:
        if asked.products:
            print("GFLOP of matrix products\n\n| | theirs | ours | ratio |\n|---|---|---|---|", flush=True)
        else:
            print(f"{machine()}; medians of {asked.rounds} rounds in turns, CPU seconds\n")
            titles = ["", "theirs", "ours", "ratio", "rounds", "their script", "ratio"]
            print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(Folder(Path(folder)), asked.trained, asked.windows):
            if asked.row == row.name and asked.products:
                print(products(row, Authors(asked.python, asked.reference, "--products")), flush=True)
            elif asked.row == row.name:
                print(line(row, Authors(asked.python, asked.reference), asked.rounds), flush=True)
            elif asked.row is None and asked.only in row.name:
                # What ran before changes how memory is handed out, and so a row by a fifth.
                subprocess.run([sys.executable, "-m", "bench.reference", *sys.argv[1:], "--row", row.name], check=True)


def products(row: Row, authors: Authors) -> str:
    """A row of the table of arithmetic."""
    both = row.prepare()
    ours, theirs = gflop(both.ours), authors.answer(both.request)
    return f"| {row.name} | {theirs:.2f} | {ours:.2f} | {theirs / ours:.2f} |"


def line(row: Row, authors: Authors, rounds: int) -> str:
    """A row of the table."""
    both = row.prepare()
    both.ours()
    ours, theirs, scripts = [], [], []
    for _ in range(rounds):
        begin = time.process_time()
        both.ours()
        ours.append(time.process_time() - begin)
        theirs.append(authors.answer(both.request))
        if both.script is not None:
            scripts.append(authors.answer(both.script))
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    of_scripts = [script / our for script, our in zip(scripts, ours, strict=bool(scripts))]
    return (
        f"| {row.name} | {statistics.median(theirs):.3f} | {statistics.median(ours):.3f} "
        f"| {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} "
        + (f"| {statistics.median(scripts):.3f} | {statistics.median(of_scripts):.2f} |" if scripts else "| | |")
    )


if __name__ == "__main__":
    main()
