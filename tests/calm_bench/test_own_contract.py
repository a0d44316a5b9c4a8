"""Faults of heads and families of one's own are told by file, class and what is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from calm_bench.config import LanguageModel
from calm_bench.flops import training_flops
from calm_bench.head_config import CustomHead
from calm_bench.heads.custom import CustomHead as CustomHeadModule
from calm_bench.heads.custom import counted_cost
from calm_bench.overrides import ConfigurationError
from calm_bench.registry import UnknownName
from calm_bench.trusted_code import trust_code

HEAD = """import torch
from torch import nn
from calm_bench.heads import Head


class Mine(Head):
    def __init__(self, hidden_size, latent_size):
        super().__init__()
        self.linear = nn.Linear(hidden_size, latent_size)

    def loss(self, hidden, target_mean, target_log_std, generator=None):
        each = (self.linear(hidden) - target_mean).square()
        loss = each.mean()
        return loss, {"mse": loss.detach()}

    def sample(self, hidden, num_samples, generator=None):
        return self.linear(hidden).expand(num_samples, *hidden.shape[:-1], -1)
"""
FAMILY = """from calm_bench.lm.token import TokenModel


class Mine(TokenModel):
    def loss(self, tokens, generator=None):
        return super().loss(tokens, generator)[0]
"""
RETURN = 'return loss, {"mse": loss.detach()}'


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A file of one's own that is imported under a name that no other test takes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / f"own_contract_{abs(hash(request.node.name))}.py"


def cost_of(module: Path, text: str) -> tuple[float, float, int]:
    module.write_text(text)
    return counted_cost(CustomHead(target=f"{module.stem}:Mine"), 16, 4)


@pytest.mark.parametrize(
    "given",
    [
        RETURN,
        'return loss, {"mse": loss}',
        'return [loss, {"mse": float(loss.detach())}]',
        "return loss, {}",
    ],
)
def test_what_trains_is_counted_and_handed_on_as_it_is(module: Path, given: str) -> None:
    assert cost_of(module, HEAD.replace(RETURN, given))[1] == 2 * 16 * 4
    head = CustomHeadModule(CustomHead(target=f"{module.stem}:Mine"), 16, 4)
    inputs = torch.ones(3, 16), torch.ones(3, 4), torch.zeros(3, 4)
    found, own = head.loss(*inputs), head.inner.loss(*inputs)
    assert type(found) is type(own)
    assert torch.equal(found[0], own[0])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("return loss", r"loss gives a tensor of shape \[\] instead of a scalar tensor and a dictionary"),
        ("return None", "loss gives None instead of"),
        ("return loss, {}, 3", "loss gives a tuple of 3 instead of"),
        ("return each, {}", r"loss gives a tensor of shape \[\d+, 4\] as its first value"),
        ("return loss[None], {}", r"loss gives a tensor of shape \[1\] as its first value"),
        ("return float(loss.detach()), {}", "loss gives a value of the kind float as its first value"),
        ("return loss, loss", r"loss gives a tensor of shape \[\] as its second value"),
        (
            'return loss, {"mse": each.mean(-1)}',
            r"the term 'mse' of loss is a tensor of shape \[\d+\]",
        ),
        ('return loss, {"mse": "low"}', "the term 'mse' of loss is a value of the kind str"),
        ("return loss.detach(), {}", "loss gives a number without a gradient"),
    ],
)
def test_what_a_loss_gives_is_told_where_it_is_something_else(module: Path, given: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{module.stem}:Mine in {module}: {told}"):
        cost_of(module, HEAD.replace(RETURN, given))


def test_a_training_tells_it_too(module: Path) -> None:
    """A loss may give something else for other shapes than those that were looked at before."""
    module.write_text(HEAD.replace(RETURN, "return (loss, {}) if len(hidden) > 3 else loss"))
    target = f"{module.stem}:Mine"
    assert counted_cost(CustomHead(target=target), 16, 4)[1] > 0
    head = CustomHeadModule(CustomHead(target=target), 16, 4)
    with pytest.raises(ConfigurationError, match=r"loss gives a tensor of shape \[\] instead of"):
        head.loss(torch.ones(3, 16), torch.ones(3, 4), torch.zeros(3, 4))


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("def sample", "def draw", r"must have the method sample\(self, hidden, num_samples, generator=None\)"),
        (
            "def loss",
            "def score",
            r"must have the method loss\(self, hidden, target_mean, target_log_std, generator=None",
        ),
        ("        super().__init__()\n", "", r"its __init__ must begin with super\(\).__init__\(\)"),
        (
            "super().__init__()\n        self.linear = nn.Linear(hidden_size, latent_size)",
            "pass",
            r"must begin with super",
        ),
        ("(self, hidden_size, latent_size)", "(self, latent_size)", r"is built as Mine\(hidden_size, latent_size\)"),
        ("(Head)", "", r"is no class derived from calm_bench\.heads\.Head"),
    ],
)
def test_parts_that_are_missing_are_told(module: Path, before: str, after: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{module.stem}:Mine in {module}:? ?.*{told}"):
        cost_of(module, HEAD.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after", "line", "told"),
    [
        ("loss = each.mean()", "loss = each @ each", 13, "loss raises RuntimeError: mat1 and mat2"),
        ("return self.linear(hidden)", "return hidden.nothing", 17, "sample raises AttributeError: .*'nothing'"),
        ("super().__init__()", "super().__init__(); 1 / 0", 8, "__init__ raises ZeroDivisionError"),
    ],
)
def test_an_error_inside_keeps_its_traceback_and_is_told_with_its_line(
    module: Path, before: str, after: str, line: int, told: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"{module}, line {line}: {told}") as refused:
        cost_of(module, HEAD.replace(before, after))
    assert refused.value.__cause__ is not None


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [("x = (\n", 1, "SyntaxError"), ("\nx = 1 / 0\n", 2, "ZeroDivisionError")],
)
@pytest.mark.parametrize("by_another", [False, True], ids=["itself", "imported"])
def test_code_that_cannot_be_imported_is_told_with_its_line(
    module: Path, text: str, line: int, told: str, by_another: bool
) -> None:
    wrong = module.with_name(f"{module.stem}_constants.py") if by_another else module
    wrong.write_text(text)
    main = f"import {wrong.stem}\n{HEAD}" if by_another else text
    with pytest.raises(UnknownName, match=rf"'{module.stem}:Mine' cannot be imported: {wrong}, line {line}: {told}"):
        cost_of(module, main)


def test_the_loss_of_a_family_is_told_too(module: Path) -> None:
    module.write_text(FAMILY)
    target = f"{module.stem}:Mine"
    trust_code(target)
    model = LanguageModel.model_validate(
        {"kind": "custom", "chunk_size": 1, "hidden_size": 16, "num_attention_heads": 2, "custom": {"target": target}}
    )
    with pytest.raises(
        ConfigurationError, match=rf"{target} in {module}: loss gives a tensor of shape \[\] instead of"
    ):
        training_flops(model, None, 257, 8)
