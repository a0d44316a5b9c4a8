"""A head written outside of the package, as a user would."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import gaussian_nll_loss

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import Experiment, LanguageModel
from calm_bench.flops import training_flops
from calm_bench.head_config import CustomHead
from calm_bench.heads import HEADS, Head
from calm_bench.lm import load_language_model
from calm_bench.lm.folder import build_language_model
from calm_bench.overrides import apply_settings
from calm_bench.registry import UnknownName
from calm_bench.testing.head_conformance import HeadConformance
from calm_bench.weights import WeightsError


class GaussianHead(Head):
    """One normal distribution of each latent dimension."""

    def __init__(self, hidden_size: int, latent_size: int, min_std: float = 0.1) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 2 * latent_size)
        self.min_std = min_std

    def normal(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = self.linear(hidden).float().chunk(2, dim=-1)
        return mean, self.min_std + nn.functional.softplus(spread)

    def loss(
        self, hidden: Tensor, target_mean: Tensor, target_log_std: Tensor, generator: Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        target = target_mean + target_log_std.exp() * torch.randn(target_mean.shape, generator=generator)
        mean, std = self.normal(hidden)
        loss = gaussian_nll_loss(mean, target, std.square())
        return loss, {"nll": loss.detach()}

    def sample(self, hidden: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        mean, std = self.normal(hidden)
        return (mean + std * torch.randn((num_samples, *mean.shape), generator=generator)).to(hidden.dtype)


TARGET = f"{__name__}:GaussianHead"


class TestCustom(HeadConformance):
    config = CustomHead(target=TARGET)
    # One normal distribution cannot have two peaks.
    toy_distance = 0.15


def test_options_reach_the_class() -> None:
    head = HEADS.get("custom")(CustomHead(target=TARGET, options={"min_std": 0.5}), 4, 2)  # type: ignore[call-arg]
    assert head.inner.min_std == 0.5


def test_a_name_that_is_not_there_is_refused() -> None:
    with pytest.raises(UnknownName, match=r"model\.head\.target 'nowhere:Head' cannot be imported"):
        HEADS.get("custom")(CustomHead(target="nowhere:Head"), 4, 2)  # type: ignore[call-arg]


def test_what_is_not_a_head_is_refused() -> None:
    with pytest.raises(TypeError, match=r"no class derived from calm_bench\.heads\.Head"):
        HEADS.get("custom")(CustomHead(target="torch.nn:Linear"), 4, 2)  # type: ignore[call-arg]


def test_it_is_chosen_and_priced_like_any_other() -> None:
    model = apply_settings(Experiment(), {"model.head": {"kind": "custom", "target": TARGET}}).model
    assert isinstance(model, LanguageModel)
    experiment = Experiment(model=model)
    parts = training_flops(model, experiment.autoencoder, 257, 64).parts
    # Forward, gradient for the weights, gradient for the hidden state.
    linear = 2 * model.hidden_size * 2 * experiment.autoencoder.latent_size
    assert parts["head"] == pytest.approx(3 * linear / model.chunk_size)


def test_a_folder_may_not_choose_what_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model from elsewhere that names a class is refused before that class's module is imported."""
    model = LanguageModel(chunk_size=2, hidden_size=16, num_attention_heads=2, head=CustomHead(target=TARGET))
    autoencoder = Autoencoder(AutoencoderConfig(latent_size=4, hidden_size=8, intermediate_size=12), 2, 19)
    build_language_model(model, 19, autoencoder, seed=0).save(tmp_path)
    with pytest.raises(WeightsError, match="which loading would import and run") as refused:
        load_language_model(tmp_path)
    assert load_language_model(tmp_path, trusted_heads=[TARGET]).chunk_size == 2
    monkeypatch.setenv(*str(refused.value).partition("if you trust it, set ")[2].split("="))
    assert load_language_model(tmp_path).chunk_size == 2


@pytest.mark.parametrize("target", ["os:getcwd", "subprocess:Popen", "collections:OrderedDict"])
def test_only_heads_are_called(target: str) -> None:
    with pytest.raises(TypeError, match=r"is no class derived from calm_bench\.heads\.Head"):
        HEADS.get("custom")(CustomHead(target=target), 4, 2)  # type: ignore[call-arg]
