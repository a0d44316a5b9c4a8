"""Energy training step against a plain implementation of the formulas: tokens per second and peak memory.

    python bench/energy_step.py

Both variants share weights and random draws, so their losses are compared too. Each of five rounds runs both in fresh
processes, one after the other; medians are printed. Peak memory is the growth of the process's resident set over its
size before the first step.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from torch import Tensor

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel
from calm_bench.head_config import EnergyHead as EnergyHeadConfig
from calm_bench.heads.energy import EnergyHead
from calm_bench.lm import Calm
from calm_bench.lm.folder import build_language_model

CHUNK_SIZE, VOCAB_SIZE, BATCH, LENGTH = 4, 4096, 16, 256
WIDTH, LAYERS, LATENT = 256, 4, 128
ROUNDS, STEPS = 5, 3


def plain_head(head: EnergyHead, hidden: Tensor, noise: Tensor) -> Tensor:
    """Every sample computes everything: the condition is repeated N times and concatenated in each block."""
    hidden = hidden.expand(len(noise), *hidden.shape)
    condition = head.hidden_norm(head.hidden_embedding(hidden))
    x = head.noise_norm(head.noise_embedding(noise))
    for block in head.blocks:
        y = block.in_proj(torch.cat([block.norm(x), condition], dim=-1))
        y = block.out_proj(torch.nn.functional.silu(block.mid_proj(torch.nn.functional.silu(y))))
        gate, up = y.chunk(2, dim=-1)
        x = x + block.down_proj(torch.nn.functional.silu(gate) * up)
    latents: Tensor = head.final(x)
    return latents


def plain_score(samples: Tensor, mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    """Equation 11 with every difference in memory: [N, M, P, Z] and [N, N, P, Z]."""
    targets = mean + noise * log_std.exp()
    fidelity = torch.linalg.vector_norm(samples[:, None] - targets[None], dim=-1).mean(dim=(0, 1))
    between = torch.linalg.vector_norm(samples[:, None] - samples[None], dim=-1).sum(dim=(0, 1))
    return (2 * fidelity - between / (len(samples) * (len(samples) - 1))).mean()


def plain_loss(model: Calm, tokens: Tensor, generator: torch.Generator) -> Tensor:
    hidden = model.hidden_states(tokens[:, : -model.chunk_size]).flatten(0, 1)
    with torch.no_grad():
        mean, log_std = model.autoencoder.encode(tokens[:, model.chunk_size :])
    mean, log_std = mean.flatten(0, 1), log_std.flatten(0, 1)
    config = model.head.config
    assert isinstance(model.head, EnergyHead)
    size = (config.num_samples, len(hidden), config.noise_size)
    uniform = torch.rand(size, generator=generator, device=hidden.device)
    samples = plain_head(model.head, hidden, uniform - 0.5)
    noise = torch.randn((config.num_targets, *mean.shape), generator=generator, device=mean.device)
    return plain_score(samples, mean, log_std, noise)


def measure(variant: str) -> dict[str, float]:
    """Tokens per second, peak memory in bytes and first loss of one variant, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LanguageModel(
        chunk_size=CHUNK_SIZE,
        hidden_size=WIDTH,
        intermediate_size=683,
        num_layers=LAYERS,
        num_attention_heads=4,
        head=EnergyHeadConfig(num_blocks=2, num_samples=8, num_targets=100),
    )
    sizes = AutoencoderConfig(latent_size=LATENT, hidden_size=WIDTH, intermediate_size=640)
    model = build_language_model(config, VOCAB_SIZE, Autoencoder(sizes, CHUNK_SIZE, VOCAB_SIZE), seed=0)
    assert isinstance(model, Calm)
    assert isinstance(model.head, EnergyHead)
    # The last layer starts at zero; with a little noise the losses compare more than two constants.
    torch.nn.init.normal_(model.head.final.out_proj.weight, std=0.1)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, fused=True)
    tokens = torch.randint(VOCAB_SIZE, (BATCH, LENGTH))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    first_loss = 0.0
    times = []
    for step in range(1 + STEPS):
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(step)
        loss = plain_loss(model, tokens, generator) if variant == "plain" else model.loss(tokens, generator)[0]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - start)
        first_loss = first_loss or float(loss.detach())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "tokens_per_second": BATCH * LENGTH / statistics.median(times[1:]),
        "peak_bytes": 1024.0 * (peak - before),
        "loss": first_loss,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--variant", choices=["plain", "calm-bench"], help="measure one variant here and print JSON")
    variant = parser.parse_args().variant
    if variant:
        print(json.dumps(measure(variant)))
        return
    found: dict[str, list[dict[str, float]]] = {"plain": [], "calm-bench": []}
    for _ in range(ROUNDS):
        for name, results in found.items():
            command = [sys.executable, __file__, "--variant", name]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    speed = {name: statistics.median(r["tokens_per_second"] for r in results) for name, results in found.items()}
    memory = {name: statistics.median(r["peak_bytes"] for r in results) for name, results in found.items()}
    for name in found:
        print(f"{name:<11} {speed[name]:>8,.0f} tokens/s  {memory[name] / 1e6:>8,.0f} MB above the idle model")
    ratios = [
        ours["tokens_per_second"] / plain["tokens_per_second"]
        for ours, plain in zip(found["calm-bench"], found["plain"], strict=True)
    ]
    gap = abs(found["calm-bench"][0]["loss"] - found["plain"][0]["loss"])
    print(
        f"speed x{statistics.median(ratios):.2f} (rounds {min(ratios):.2f} to {max(ratios):.2f}), "
        f"memory x{memory['calm-bench'] / memory['plain']:.2f}, losses differ by {gap:.1e}"
    )


if __name__ == "__main__":
    main()
