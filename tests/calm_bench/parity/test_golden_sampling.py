"""Temperature sampling and generation against the reference, with its recorded draws."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from safetensors.torch import load_file
from torch import Generator, Tensor

from calm_bench.heads.energy import EnergyHead
from calm_bench.lm import Calm
from calm_bench.pretrained import load_released_calm
from calm_bench.sampling.batch import selection_probabilities
from calm_bench.sampling.generate import generate_batch
from calm_bench.sampling.power import Power
from calm_bench.sampling.temperature import Decoding, sample_chunks
from tests.calm_bench.parity.reference_data import GOLDEN

NAMES = pytest.mark.parametrize("name", ["energy_k1", "energy_k4"])
END = 255


class RecordedHead(EnergyHead):
    """Takes its noise from a recording [calls, rows, samples, noise] instead of the generators."""

    recording: Tensor

    def sample_rows(self, hidden: Tensor, num_samples: int, generators: Sequence[Generator]) -> Tensor:
        uniform, self.recording = self.recording[0], self.recording[1:]
        rows = [generator.initial_seed() for generator in generators]  # rows leave the batch: seeds say which are left
        latents: Tensor = self(hidden, (uniform[rows] - 0.5).transpose(0, 1))
        return latents


def recorded(name: str, recording: str) -> tuple[Calm, dict[str, Tensor]]:
    expected, model = load_file(GOLDEN / name / "golden.safetensors"), load_released_calm(GOLDEN / name / "model")
    model.head.__class__ = RecordedHead
    calls = expected[recording]
    model.head.recording = calls.unsqueeze(2) if recording == "gen.rand" else calls.unsqueeze(0)
    return model, expected


@NAMES
@pytest.mark.parametrize(("label", "power"), [("T0.5", Power(2, 0.0)), ("T0.333", Power(3, 0.0))])
def test_selection_probabilities_of_the_batch_approximation(name: str, label: str, power: Power) -> None:
    expected = load_file(GOLDEN / name / "golden.safetensors")
    pool = expected["ts.pool"]
    found = selection_probabilities(pool, power)
    for row in range(len(pool)):
        chosen = found[row].nonzero().squeeze(1)
        ours = {tuple(chunk): float(p) for chunk, p in zip(pool[row, chosen].tolist(), found[row, chosen], strict=True)}
        patches, probabilities = expected[f"ts.{label}.row{row}.patches"], expected[f"ts.{label}.row{row}.probs"]
        theirs = dict(zip(map(tuple, patches.tolist()), probabilities.tolist(), strict=True))
        assert ours == pytest.approx(theirs, rel=1e-9)


@NAMES
@pytest.mark.parametrize("temperature", [0.5, 1 / 3])
def test_sampled_chunks_come_from_the_references_candidates(name: str, temperature: float) -> None:
    model, expected = recorded(name, "ts.rand")
    generators = [Generator().manual_seed(row) for row in range(3)]
    sampled = sample_chunks(model, expected["ts.hidden"], Decoding(temperature, "batch", 200), generators)
    label = "T0.5" if temperature == 0.5 else "T0.333"
    for row, chunk in enumerate(sampled.chunks.tolist()):
        assert chunk in expected[f"ts.{label}.row{row}.patches"].tolist()
    assert sampled.head_evaluations.tolist() == [200] * 3


@NAMES
def test_generation(name: str) -> None:
    """The reference puts a PAD behind a prompt that is no whole number of chunks, drops every PAD from its output,
    and goes on after an end inside a chunk. So our prompt is given its PAD, and texts agree up to the end."""
    model, expected = recorded(name, "gen.rand")
    prompt, output = expected["gen.prompt"], expected["gen.output"]
    pad = model.vocab_size - 1
    padding = [pad] * (-prompt.shape[1] % model.chunk_size)
    num_new = output.shape[1] - prompt.shape[1] - len(padding)
    generators = [Generator().manual_seed(row) for row in range(len(prompt))]
    found = generate_batch(model, [row + padding for row in prompt.tolist()], num_new, generators, END)
    compared = 0
    for row, result in enumerate(found):
        ours = [token for token in result.tokens if token != pad]
        theirs = output[row, prompt.shape[1] :].tolist()
        if END in theirs:
            assert result.ended
            theirs = theirs[: theirs.index(END)]
        assert ours == [token for token in theirs if token != pad]
        compared += len(ours)
    assert compared >= model.chunk_size
