"""A training whose attention stays inside documents knows their ends from the tokens, and saves them."""

from __future__ import annotations

from pathlib import Path

from calm_bench.config import Experiment
from calm_bench.lm.folder import load_language_model
from calm_bench.tokens import TokenStream
from calm_bench.training import train_language_model
from tests.calm_bench.training.tiny_trainings import Trainings, experiment, never


def test_a_model_is_trained_and_read_inside_documents(trainings: Trainings, tmp_path: Path) -> None:
    described = experiment("energy", batch_size=4, sequence_length=32).model_dump(mode="json")
    described["model"]["document_masking"] = True
    masked = Experiment.model_validate(described)
    result = train_language_model(masked, trainings.tokens, trainings.autoencoder, tmp_path, "cpu", never)
    model = load_language_model(tmp_path / "model")
    assert model.document_end == TokenStream.open(trainings.tokens, "train").eos_id
    # Documents of 60 characters: every other sequence of 32 holds the end of one.
    assert result["validation"] != trainings.undisturbed("energy", batch_size=4, sequence_length=32)[0]["validation"]
    assert load_language_model(trainings.undisturbed("energy")[1] / "model").document_end is None
