"""A family from anywhere, named by ``model.custom.target``: its description, or its network alone, counted by torch.

A description is an object, or a class without arguments, derived from :class:`calm_bench.families.base.Family`. Where
there is none the target is the network, a class derived from :class:`calm_bench.lm.base.ChunkLanguageModel` that is
built from ``(model, vocab_size)``; torch then counts what one training pass and one draw of it cost. Whatever is asked
of the family raises :class:`calm_bench.trusted_code.UntrustedCode` where the user did not name the target.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from calm_bench.config import Autoencoder, LanguageModel
from calm_bench.families.base import Family, Parts
from calm_bench.head_costs import Accounting
from calm_bench.own_code import import_own
from calm_bench.part_memory import Device, chunk_input_kept, cross_entropy_peak, logits_held
from calm_bench.registry import UnknownName
from calm_bench.trusted_code import check_trusted


class CustomFamily(Family):
    name = "custom"

    def problem(self, model: Any) -> str | None:
        return None if model.custom.target else "model.custom.target must name the family or its network (module:NAME)"

    def network_of(self, model: LanguageModel) -> str:
        described = description_of(model)
        return _target(model) if described is None else described.network_of(model)

    def likelihood_of(self, model: LanguageModel) -> Literal["exact", "bound", "none"]:
        described = description_of(model)
        if described is not None:
            return described.likelihood_of(model)
        known: Literal["exact", "bound", "none"] = getattr(imported(_target(model)), "likelihood", "none")
        return known

    def draws_by_rows(self, model: LanguageModel, autoencoder: Autoencoder | None) -> bool:
        described = description_of(model)
        if described is not None:
            return described.draws_by_rows(model, autoencoder)
        return bool(getattr(imported(_target(model)), "draws_by_rows", True))

    def training_flops(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, accounting: Accounting
    ) -> Parts:
        described = description_of(model)
        if described is not None:
            return described.training_flops(model, autoencoder, vocab_size, accounting)
        return {"head": _counted(model.model_dump_json(), vocab_size)[0]}

    def inference_flops(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, accounting: Accounting
    ) -> Parts:
        described = description_of(model)
        if described is not None:
            return described.inference_flops(model, autoencoder, vocab_size, accounting)
        return {"head": _counted(model.model_dump_json(), vocab_size)[1]}

    def parameters(self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int) -> Parts:
        described = description_of(model)
        if described is not None:
            return described.parameters(model, autoencoder, vocab_size)
        return {"head": _counted(model.model_dump_json(), vocab_size)[2]}

    def kept(self, model: LanguageModel, autoencoder: Autoencoder | None) -> float:
        described = description_of(model)
        if described is not None:
            return described.kept(model, autoencoder)
        # As much as a small decoder of the backbone's width keeps of every token.
        return chunk_input_kept(model) + 16.0 * model.chunk_size * model.hidden_size

    def loss_peak(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, rows: int, device: Device
    ) -> float:
        described = description_of(model)
        if described is not None:
            return described.loss_peak(model, autoencoder, vocab_size, rows, device)
        return cross_entropy_peak(rows * model.chunk_size, model.hidden_size, vocab_size, device)

    def drawing(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, samples: int, device: Device
    ) -> float:
        described = description_of(model)
        if described is not None:
            return described.drawing(model, autoencoder, vocab_size, samples, device)
        return 6.0 * samples * model.hidden_size + 3.0 * logits_held(samples, vocab_size, device)


CUSTOM = CustomFamily()


def imported(target: str) -> Any:
    """What ``module:NAME`` names, imported now.

    Raises:
        UnknownName: nothing importable has this name.
    """
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_own(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UnknownName(f"model.custom.target {target!r} cannot be imported: {error}") from error


def description_of(model: LanguageModel) -> Family | None:
    """The description that ``model.custom.target`` names; None where it names something else, which must be a network.

    Raises:
        UntrustedCode: the user named no such target.
        UnknownName: nothing importable has this name.
        TypeError: it is no class and no description.
    """
    check_trusted(_target(model))
    found = imported(_target(model))
    if isinstance(found, type) and issubclass(found, Family):
        found = found()
    if isinstance(found, Family):
        return found
    if isinstance(found, type):
        return None
    raise TypeError(
        f"model.custom.target {_target(model)} is neither a calm_bench.families.base.Family nor a class derived from "
        "calm_bench.lm.ChunkLanguageModel"
    )


def _target(model: LanguageModel) -> str:
    assert model.custom.target is not None  # a model without one is refused
    return model.custom.target


@cache
def _counted(model: str, vocab_size: int) -> tuple[float, float, float]:
    from calm_bench.families.counting import counted_cost
    from calm_bench.own_contract import make, telling

    config = LanguageModel.model_validate_json(model)
    target, network = _target(config), imported(_target(config))

    def build(config: LanguageModel, vocab_size: int) -> Any:
        return make(target, network, {"model": config, "vocab_size": vocab_size}, {})

    with telling(target, "the network"):
        return counted_cost(config, build, vocab_size, target)
