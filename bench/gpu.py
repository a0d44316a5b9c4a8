"""Energy training step at CALM-M's size on a GPU, in bf16: tokens per second, memory, and the share of the peak used.

Once as it is and once with its regions compiled, as trainings there are (:mod:`calm_bench.regions`).

    python -m bench.gpu
    python -m bench.gpu --peak 312e12     # a GPU that is not in the list below

MFU is the FLOPs that the step needs by calm_bench.flops, a second, over the GPU's peak for dense bf16 products as its
maker states it. Without a GPU it says so and ends.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel
from calm_bench.flops import training_flops
from calm_bench.lm import Calm
from calm_bench.lm.folder import build_language_model
from calm_bench.presets import PRESETS
from calm_bench.regions import backend_for, compiling

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
"""Dense bf16 FLOPs a second."""
BATCH, VOCABULARY, STEPS = 4, 128_256, 5


def measure(model: Calm, length: int, backend: str | None) -> tuple[float, float, float]:
    """Tokens a second (the median of the steps), peak memory in GB above the idle model, and the first loss."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, fused=True)
    device = parameters[0].device
    tokens = torch.randint(VOCABULARY, (BATCH, length), generator=torch.Generator().manual_seed(0)).to(device)
    torch.cuda.reset_peak_memory_stats()
    idle = torch.cuda.memory_allocated()
    times, losses = [], []
    for number in range(2 + STEPS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        generator = torch.Generator(device).manual_seed(number)
        with torch.autocast("cuda", dtype=torch.bfloat16), compiling(backend):
            loss = model.loss(tokens, generator)[0]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        losses.append(float(loss.detach()))
    peak = torch.cuda.max_memory_allocated() - idle
    return tokens.numel() / statistics.median(times[2:]), peak / 1e9, losses[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peak", type=float, help="FLOPs a second of the GPU, dense bf16")
    given = parser.parse_args().peak
    if not torch.cuda.is_available():
        print("There is no GPU here, so the table at CALM-M's size is skipped.")
        return
    name = torch.cuda.get_device_name()
    peak = given or next((flops for part, flops in PEAKS.items() if part in name), None)
    preset = PRESETS["paper-m"]
    config = LanguageModel.model_validate(preset["model"])
    sizes = AutoencoderConfig.model_validate(preset["autoencoder"])
    length = config.training.sequence_length
    flops = training_flops(config, sizes, VOCABULARY, length // config.chunk_size).total
    print(f"{name}, torch {torch.__version__}; CALM-M, {BATCH} x {length} tokens, bf16, {flops:.3g} FLOPs a token")
    torch.manual_seed(0)
    inner = Autoencoder(sizes, config.chunk_size, VOCABULARY)
    model = build_language_model(config, VOCABULARY, inner, seed=0).to("cuda")
    assert isinstance(model, Calm)
    for backend in dict.fromkeys((None, backend_for("cuda"))):
        speed, memory, loss = measure(model, length, backend)
        share = "" if peak is None else f"  MFU {speed * flops / peak:.1%} of {peak:.3g} FLOPs/s"
        how = "as it is" if backend is None else "compiled"
        print(f"{how}: {speed:,.0f} tokens/s  {memory:.1f} GB above the idle model  loss {loss:.4f}{share}")
    if peak is None:
        print("The GPU's peak is not known here: --peak FLOPS gives it, for the MFU")


if __name__ == "__main__":
    main()
