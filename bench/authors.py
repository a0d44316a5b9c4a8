"""The authors' side of :mod:`bench.reference`: runs in an environment of theirs, on their code and nothing of ours.

    PYTHON bench/authors.py CHECKOUT [--products]

Reads a JSON object a line, ``{"case": ..., "folder": ..., ...}``, and answers each with the CPU seconds that the case
took, or with the GFLOP of its matrix products. A case is prepared when it first comes, and run once beforehand.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from products import gflop

Run = Callable[[], object]


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever their code prints is no answer
    checkout = Path(sys.argv[1])
    sys.path[:1] = [str(checkout), str(checkout / "train")]  # in place of the folder of this file
    torch.set_num_threads(1)
    prepared: dict[str, Run] = {}
    for line in sys.stdin:
        if line not in prepared:
            request = json.loads(line)
            prepared[line] = CASES[request.pop("case")](**request)
            prepared[line]()
        begin = time.process_time()
        found = gflop(prepared[line]) if "--products" in sys.argv else prepared[line]()
        print(found if "--products" in sys.argv else time.process_time() - begin, file=answers, flush=True)


def calm(folder: str) -> Any:
    from models.modeling_energy import EnergyTransformer

    return EnergyTransformer.from_pretrained(folder).eval()


def llama(folder: str) -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder).eval()


def load(file: str) -> torch.Tensor:
    return torch.from_numpy(np.load(file))


def training_step(model: Any, tokens: torch.Tensor) -> Run:
    """As their trainer makes it: loss, gradients, clipping, AdamW. Nothing is learned, so that all steps are alike."""
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0)

    def step() -> None:
        model(input_ids=tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def energy_step(folder: str, tokens: str) -> Run:
    return training_step(calm(folder), load(tokens))


def token_step(folder: str, tokens: str) -> Run:
    return training_step(llama(folder), load(tokens))


def autoencoder_step(folder: str, tokens: str) -> Run:
    from models.modeling_autoencoder import Autoencoder

    return training_step(Autoencoder.from_pretrained(folder), load(tokens))


def score_calm(folder: str, tokens: str, at_once: int) -> Run:
    """What BrierLM needs of their evaluation: two samples, and not the energy loss that it computes as well."""
    model = calm(folder)
    size = model.patch_size

    @torch.no_grad()
    def score(windows: torch.Tensor) -> object:
        embedded = model.transformer.embed_tokens(windows).reshape(len(windows), windows.shape[1] // size, -1)
        outputs = model.transformer(inputs_embeds=model.embed_proj(embedded[:, :-1]))
        hidden = outputs[0].flatten(0, 1)
        latents = model.generative_head.sample(hidden.expand(2, *hidden.shape))
        return model.eval_brier(latents, windows[:, size:], outputs, None)

    return by_batches(score, tokens, at_once)


def by_batches(score: Callable[[torch.Tensor], object], tokens: str, at_once: int) -> Run:
    """All windows, so many together as ``--per_device_eval_batch_size`` says, which is 1 in all of their scripts."""
    batches = load(tokens).split(at_once)
    return lambda: [score(windows) for windows in batches]


def evaluate_calm(folder: str, tokens: str, at_once: int) -> Run:
    """Their evaluation as their script runs it: it draws the samples of the energy loss, and computes that as well."""
    model = calm(folder)

    @torch.no_grad()
    def evaluate(windows: torch.Tensor) -> object:
        return model(input_ids=windows, labels=windows)

    return by_batches(evaluate, tokens, at_once)


def score_token(folder: str, tokens: str, at_once: int) -> Run:
    from train_ar import CustomTrainer

    model = llama(folder)

    @torch.no_grad()
    def score(windows: torch.Tensor) -> object:
        return CustomTrainer.compute_loss(None, model, {"input_ids": windows, "labels": windows}, return_outputs=True)

    return by_batches(score, tokens, at_once)


def temperature(folder: str, hidden: str, temperature: float) -> Run:
    model, states = calm(folder), load(hidden)
    return lambda: model.temperature_sampling(states, temperature)


def generate_calm(folder: str, tokens: str, count: int) -> Run:
    model, prompts = calm(folder), load(tokens)
    return lambda: model.generate(prompts, max_length=prompts.shape[1] + count, temperature=1.0)


def generate_token(folder: str, tokens: str, count: int) -> Run:
    model, prompts = llama(folder), load(tokens)
    return lambda: model.generate(prompts, do_sample=True, top_k=0, max_new_tokens=count, pad_token_id=0)


CASES: dict[str, Callable[..., Run]] = {
    case.__name__: case
    for case in (
        energy_step,
        token_step,
        autoencoder_step,
        score_calm,
        evaluate_calm,
        score_token,
        temperature,
        generate_calm,
        generate_token,
    )
}

if __name__ == "__main__":
    main()
