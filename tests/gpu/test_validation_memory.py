"""A validation of a model of the paper's size needs less memory than the step that it follows."""

from __future__ import annotations

import pytest

from tests.gpu.paper_sizes import TRAININGS, as_on_a_gpu, experiment, held, held_in_validation

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Mismatch dtype")]


@pytest.mark.parametrize("kind", TRAININGS)
def test_a_micro_batch_without_gradients_takes_less_than_one_with_them(kind: str) -> None:
    described = experiment("paper-m", kind)
    training = described.autoencoder.training if kind == "autoencoder" else described.model.training
    sequences = training.batch_size // training.gradient_accumulation
    with as_on_a_gpu():
        step = held(described, kind, sequences)
        validation = held_in_validation(described, kind, sequences)
    assert 1e9 < validation < 0.8 * step
