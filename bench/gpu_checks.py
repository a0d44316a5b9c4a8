"""Whether a GPU computes what a CPU does, and what only a GPU's own kernels can get wrong: the checks of
:mod:`bench.gpu`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.gpu_device import Case, Device, Row, apart, near
from calm_bench import blockwise
from calm_bench.config import Training
from calm_bench.devices import set_tf32
from calm_bench.lm.backbone import attend
from calm_bench.regions import compiling
from calm_bench.sampling.generate import generate_batch
from calm_bench.sampling.reader import Reader
from calm_bench.sampling.recorded import VARIABLE
from calm_bench.training import Interrupted
from calm_bench.training.loop import Loop
from calm_bench.training.task import Summary, TrainingTask
from tests.gpu.small_models import KINDS, LENGTH, VOCAB_SIZE, case, language_model, tokens

AS_A_CPU = 1e-4
"""Relative distance of a loss and of its gradients in fp32."""
COMPILED = 1e-3
COMPILED_IN_BF16 = 0.05
"""What rounding in bf16 moves a gradient by, as it is and compiled."""
BF16 = 0.01
"""Relative error of the gradient of a vocabulary-sized weight, summed over blocks, beyond that of one block."""


def checks(device: Device, peak: float | None) -> list[Case]:
    backends = [None, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH]
    return [
        *(
            (
                f"rows that see nothing, {'default' if backend is None else backend.name}, {str(dtype)[6:]}",
                partial(blind_rows, device, backend, dtype),
            )
            for dtype in (torch.float32, torch.bfloat16)
            for backend in (backends if device.is_gpu else [None, SDPBackend.MATH])
        ),
        ("texts padded in front", partial(padded_texts, device)),
        *((f"{kind} as on a CPU", partial(as_a_cpu, device, kind)) for kind in KINDS),
        ("bf16 gradient of a vocabulary, summed over blocks", partial(gradient_of_blocks, device)),
        ("TF32 of CALM-M's hidden states", partial(tf32, device)),
        *(
            (f"{kind} written by CUDA graphs", partial(recorded, device, kind))
            for kind in ("energy", "token", "diffusion")
        ),
        ("a training stopped and gone on with", partial(resumed, device)),
    ]


def compiled_checks(device: Device, peak: float | None) -> list[Case]:
    """What compiled code computes; it takes the longest."""
    return [
        *(
            (f"{kind} compiled", partial(compiled, device, kind))
            for kind in ("energy", "token", "autoencoder", "flow", "patch", "block_diffusion")
        ),
        *((f"{kind} compiled, bf16", partial(compiled, device, kind, True)) for kind in ("energy", "token", "patch")),
        ("layers computed again, compiled", partial(computed_again, device)),
        ("documents apart, compiled", partial(documents, device)),
        ("documents apart, compiled, bf16", partial(documents, device, True)),
        ("FlexAttention of documents", partial(flex_attention, device)),
    ]


def blind_rows(device: Device, backend: SDPBackend | None, dtype: torch.dtype) -> Row:
    """Positions that may look nowhere, as those of a padded text, give zeros, and no NaN to any gradient."""
    generator = device.generator()
    sizes: list[tuple[int, ...]] = [(2, 64, 8, 64), (2, 8, 64, 64), (2, 8, 64, 64)]
    query, keys, values = (
        torch.randn(size, device=device.name, generator=generator, dtype=dtype).requires_grad_() for size in sizes
    )
    mask = torch.ones(64, 64, dtype=torch.bool, device=device.name).tril().repeat(2, 1, 1)
    mask[0, :, :10] = False
    try:
        with sdpa_kernel([backend]) if backend else nullcontext():
            found = attend(query, keys, values, mask)
        found.float().square().sum().backward()
    except RuntimeError as error:
        # Any other error is a kernel's that took the mask.
        if backend is None or "No available kernel" not in str(error):
            raise
        return {"found": "not for such a mask"}
    blind = found[0, :10].detach().abs().max().item()
    finite = all(bool(each.grad.isfinite().all()) for each in (query, keys, values) if each.grad is not None)
    return {"found": blind, "expected": "0, finite gradients", "holds": blind == 0 and finite}


def padded_texts(device: Device) -> Row:
    """Texts of unequal lengths that are read together have the hidden states that they have alone."""
    model = device.language_model("paper-m", "energy").eval()
    texts = [[5] * 8, [7] * (400 if device.is_gpu else 40), [9] * 16]
    with torch.no_grad():
        together = Reader(model, texts).hidden
        alone = torch.cat([Reader(model, [text]).hidden for text in texts])
    distance = apart(together, alone)
    return {"found": distance, "expected": f"< {AS_A_CPU}", "holds": distance < AS_A_CPU}


def as_a_cpu(device: Device, kind: str) -> Row:
    """Loss and gradients of a small model for the same noise, in fp32."""
    found = []
    for name in ("cpu", device.name):
        own = case(kind)
        batch = tokens(4)
        noise = own.noise(batch)
        own.module.to(name)
        loss = own.loss(batch.to(name), tuple(part.to(name) for part in noise))
        loss.backward()
        gradients = [each.grad.flatten() for each in own.module.parameters() if each.grad is not None]
        found.append((loss, torch.cat(gradients)))
    (expected, wanted), (loss, gradient) = found
    distances = apart(loss, expected), apart(gradient, wanted)
    holds = near(distances, AS_A_CPU)
    return {"found": distances[0], "of gradients": distances[1], "expected": f"< {AS_A_CPU}", "holds": holds}


def gradient_of_blocks(device: Device) -> Row:
    """Against fp32: of few blocks, and of thousands."""
    rows, width, vocab_size = (32_768, 512, device.vocab_size) if device.is_gpu else (2048, 32, 300)
    generator = device.generator()
    hidden = torch.randn(rows, width, device=device.name, generator=generator)
    weight = torch.randn(vocab_size, width, device=device.name, generator=generator) * width**-0.5
    frequencies = 1 / torch.arange(1, vocab_size + 1, device=device.name, dtype=torch.float32)
    targets = torch.multinomial(frequencies, rows, replacement=True, generator=generator)

    def gradient(is_bf16: bool, at_once: int) -> Tensor:
        own = weight.clone().requires_grad_()
        with device.autocast(is_bf16):
            blockwise.cross_entropy(hidden, own, targets, at_once * vocab_size).backward()
        summed: Tensor | None = own.grad
        assert summed is not None
        return summed

    truth = gradient(False, 2048)
    one, many = (apart(gradient(True, at_once), truth) for at_once in (rows // 8, 16))
    return {"found": many, "in 8 blocks": one, "expected": f"< {BF16} more", "holds": many < one + BF16}


def compiled(device: Device, kind: str, is_bf16: bool = False) -> Row:
    """Loss and gradients of regions as they are compiled here, and the seconds that it takes to compile."""
    batch = tokens(4).to(device.name)
    found: list[tuple[Tensor, Tensor]] = []
    took = 0.0
    for backend in (None, device.backend):
        own = case(kind)
        noise = tuple(part.to(device.name) for part in own.noise(tokens(4)))
        own.module.to(device.name)
        begun = time.perf_counter()
        with compiling(backend), device.autocast(is_bf16):
            loss = own.loss(batch, noise)
        loss.backward()
        device.synchronize()
        took = time.perf_counter() - begun
        found.append(
            (loss, torch.cat([each.grad.flatten() for each in own.module.parameters() if each.grad is not None]))
        )
    return as_it_is(found[0], found[1], took, is_bf16)


def computed_again(device: Device) -> Row:
    """Gradients of layers that are computed again, compiled, beside those of layers as they are."""
    found: list[tuple[Tensor, Tensor]] = []
    took = 0.0
    for backend, recomputes in ((None, False), (device.backend, True)):
        model = language_model("energy").to(device.name)
        model.backbone.recomputes = recomputes
        begun = time.perf_counter()
        with compiling(backend):
            loss = model.loss(tokens(4).to(device.name), device.generator())[0]
        loss.backward()
        device.synchronize()
        took = time.perf_counter() - begun
        gradients = [each.grad.flatten() for each in model.parameters() if each.grad is not None]
        found.append((loss, torch.cat(gradients)))
    return as_it_is(found[0], found[1], took)


def as_it_is(
    plain: tuple[Tensor, Tensor], compiled: tuple[Tensor, Tensor], seconds: float, is_bf16: bool = False
) -> Row:
    """Beside each other: loss and gradient as they are, and those of compiled code."""
    distances = [apart(one, other) for one, other in zip(compiled, plain, strict=True)]
    limit = COMPILED_IN_BF16 if is_bf16 else COMPILED
    found = {"found": distances[0], "of gradients": distances[1], "expected": f"< {limit}"}
    found["holds"] = near(distances, limit)
    return {**found, "same bits": bool(torch.equal(compiled[0], plain[0])), "compiled in, s": seconds}


def documents(device: Device, is_bf16: bool = False) -> Row:
    """A model whose attention stays inside documents, compiled and as it is."""
    model = device.language_model("paper-m", "energy", document_end=0)
    batch = device.tokens(device.rows(2), 4096 if device.is_gpu else 64)
    batch[:, ::37] = 0
    batch = batch.to(device.name)
    trained = [each for each in model.parameters() if each.requires_grad]
    found: list[tuple[Tensor, Tensor]] = []
    times: list[float] = []
    for backend in (None, device.backend):
        for _ in range(2):
            begun = time.perf_counter()
            with compiling(backend), device.autocast(is_bf16):
                loss = model.loss(batch, device.generator())[0]
            gradients = torch.autograd.grad(loss, trained)
            device.synchronize()
            times.append(time.perf_counter() - begun)
        found.append((loss, torch.cat([gradient.flatten() for gradient in gradients])))
    return {**as_it_is(found[0], found[1], times[2], is_bf16), "times as fast": times[1] / times[3]}


def flex_attention(device: Device) -> Row:
    """torch's FlexAttention with a mask by blocks beside the masked attention that is used, forward and backward."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    length = 2048 if device.is_gpu else 128
    generator = device.generator()
    dtype = torch.bfloat16 if device.is_gpu else torch.float32
    given = [
        torch.randn((4, 16, length, 64), device=device.name, generator=generator, dtype=dtype).requires_grad_(
            device.is_gpu
        )
        for _ in range(3)
    ]
    document = torch.arange(length, device=device.name).repeat(4, 1) // 300

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (document[row, query] == document[row, key])

    by_blocks = create_block_mask(sees, 4, None, length, length, device=device.name)
    steps = torch.arange(length, device=device.name)
    mask = (steps[:, None] >= steps) & (document[:, :, None] == document[:, None])
    flex: Any = torch.compile(flex_attention, dynamic=False) if device.is_gpu else flex_attention
    query, key, value = given

    def masked() -> Tensor:
        return attend(query.transpose(1, 2), key, value, mask).transpose(1, 2)

    def blocked() -> Tensor:
        attended: Tensor = flex(query, key, value, block_mask=by_blocks)
        return attended

    def with_gradients(work: Callable[[], Tensor]) -> list[Tensor]:
        attended = work()
        # Its backward pass does not exist on CPUs.
        gradients = torch.autograd.grad(attended.float().square().sum(), given) if device.is_gpu else ()
        return [attended, *gradients]

    distances = [apart(one, other) for one, other in zip(with_gradients(blocked), with_gradients(masked), strict=True)]
    times = [device.seconds(partial(with_gradients, work))[0] for work in (masked, blocked)]
    limit = 0.02 if device.is_gpu else AS_A_CPU
    found: Row = {"found": distances[0], "of gradients": max(distances[1:], default=None), "expected": f"< {limit}"}
    return {**found, "holds": near(distances, limit), "times as fast": times[0] / times[1]}


def tf32(device: Device) -> Row:
    """How far TF32 moves hidden states, and how many of the tokens that are drawn from them."""
    model = device.language_model("paper-m", "energy").eval()
    batch = device.tokens(2, 2048 if device.is_gpu else 64).to(device.name)
    found = []
    for wanted in (False, True):
        set_tf32(device.name, wanted)
        with torch.no_grad():
            hidden = model.hidden_states(batch)
            found.append((hidden, model.draw(hidden, 2, device.generator())))
    set_tf32(device.name, False)
    (exact, drawn), (rounded, others) = found
    distance, same = apart(rounded, exact), (drawn == others).float().mean().item()
    return {"found": distance, "same tokens, %": 100 * same, "expected": "< 0.01", "holds": distance < 0.01}


def recorded(device: Device, kind: str) -> Row:
    """A text whose steps are played back is the text of steps as they are."""
    written, played = [], 0
    playback = torch.cuda.CUDAGraph.replay

    def replay(graph: torch.cuda.CUDAGraph) -> None:
        nonlocal played
        played += 1
        playback(graph)

    for value in ("0", "1"):
        model = language_model(kind).eval().to(device.name)
        generators = [device.generator(index) for index in range(6)]
        prompts = [[1, 2, 3, 4], [5, 6], [7, 8, 9, 10, 11, 12], [13, 14], [15, 16], [17, 18]]
        with patch.dict(os.environ, {VARIABLE: value}), patch.object(torch.cuda.CUDAGraph, "replay", replay):
            texts = generate_batch(model, prompts, 64, generators, VOCAB_SIZE - 1)
        written.append([text.tokens for text in texts])
    length, holds = sum(map(len, written[0])), written[0] == written[1] and (played > 0 or not device.is_gpu)
    return {"found": f"{length} tokens, {played} steps played back", "expected": "the same tokens", "holds": holds}


class Numbered:
    """A batch of its own for every step."""

    def __init__(self) -> None:
        self._number = 0

    def take(self, rows: Tensor) -> Tensor:
        self._number += 1
        return torch.randint(VOCAB_SIZE, (8, LENGTH), generator=torch.Generator().manual_seed(self._number))[rows]

    def state_dict(self) -> dict[str, Any]:
        return {"number": self._number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._number = state["number"]


def resumed(device: Device) -> Row:
    """Losses of a training that is stopped after five steps, and of one that is not."""
    sizes = {"num_steps": 12, "batch_size": 8, "sequence_length": LENGTH, "gradient_accumulation": 2, "log_every": 2}
    config = Training.model_validate({**sizes, "checkpoint_every": 4, "validate_every": 6, "warmup_steps": 1})

    def trained(folder: str, stop_after: int) -> Summary:
        model = language_model("energy").to(device.name)
        task = TrainingTask(model, model.loss, model.loss, tokens(8), 1.0)
        left = iter(range(stop_after))
        stop = lambda: next(left, None) is None  # noqa: E731
        return Loop(task, Numbered(), config, Path(folder), 0, device.name, stop).run()

    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        whole = trained(one, 100)
        with suppress(Interrupted):
            trained(other, 5)
        again = trained(other, 100)
    losses = [(each.final_loss or 0.0, each.validation["loss"]) for each in (again, whole)]
    distances = [abs(a - b) / abs(b) for a, b in zip(*losses, strict=True)]
    found = {"found": max(distances), "expected": f"< {AS_A_CPU}", "holds": near(distances, AS_A_CPU)}
    return {**found, "same bits": losses[0] == losses[1]}
