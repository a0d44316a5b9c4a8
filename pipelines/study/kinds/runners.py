"""What each kind of stage does.

A stage is run from its own configuration and inputs alone, never from the trial that asked for it: what is not in its
identity cannot reach its result.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.config import Autoencoder, Corpus, Experiment, LanguageModel, Tokens, Trajectory
from pipelines.study.kinds.trained import load_trained
from pipelines.study.stage import Interrupted, Stage, StageKind

if TYPE_CHECKING:
    from evals.protocol import Protocol

Inputs = Mapping[str, Path]
Stop = Callable[[], bool]


def run_corpus(stage: Stage, inputs: Inputs, folder: Path, device: str, stop: Stop) -> dict[str, Any]:
    from calm_bench.corpora import write_corpus

    return write_corpus(Corpus.model_validate(stage.settings["corpus"]), folder).as_dict()


def run_tokens(stage: Stage, inputs: Inputs, folder: Path, device: str, stop: Stop) -> dict[str, Any]:
    from calm_bench.tokens import write_tokens

    return write_tokens(Tokens.model_validate(stage.settings["tokens"]), inputs["corpus"], folder).as_dict()


def run_autoencoder(stage: Stage, inputs: Inputs, folder: Path, device: str, stop: Stop) -> dict[str, Any]:
    from calm_bench import training

    try:
        return training.train_autoencoder(autoencoder_experiment(stage), inputs["tokens"], folder, device, stop)
    except training.Interrupted as error:
        raise Interrupted(str(error)) from error


def run_language_model(stage: Stage, inputs: Inputs, folder: Path, device: str, stop: Stop) -> dict[str, Any]:
    from calm_bench import training

    experiment = language_model_experiment(stage)
    try:
        return training.train_language_model(
            experiment, inputs["tokens"], inputs.get("autoencoder"), folder, device, stop
        )
    except training.Interrupted as error:
        raise Interrupted(str(error)) from error


def run_evaluation(stage: Stage, inputs: Inputs, folder: Path, device: str, stop: Stop) -> dict[str, Any]:
    from calm_bench.tokens import TokenStream
    from evals.evaluate import ModelSampler, evaluate_brierlm
    from evals.sums import FILE, save_sums

    protocol = protocol_of(stage, inputs)
    model = load_trained(stage, inputs["language_model"] / "model", device)
    stream = TokenStream.open(inputs["tokens"], protocol.split)
    start = time.perf_counter()
    # It begins anew after an interruption, so lines of an earlier attempt would be told twice.
    with (folder / "metrics.jsonl").open("w") as metrics:

        def progress(done: int, total: int) -> None:
            record: dict[str, Any] = {"step": done, "total_steps": total, "split": protocol.split, "metrics": {}}
            record["time"] = round(time.perf_counter() - start, 3)
            metrics.write(json.dumps(record) + "\n")
            metrics.flush()
            if stop():
                raise Interrupted(f"stopped after window {done} of {total}")

        result = evaluate_brierlm(ModelSampler(model), stream, protocol, progress)
    save_sums(result.scored, folder / FILE)
    return result.to_dict()


def autoencoder_experiment(stage: Stage) -> Experiment:
    """The part of an experiment that an autoencoder stage knows; the rest is left at defaults that nothing reads."""
    autoencoder = Autoencoder.model_validate(stage.config["autoencoder"])
    # Not validated as a whole: the default evaluation need not fit this K.
    return Experiment.model_construct(
        seed=stage.config["seed"],
        autoencoder=autoencoder,
        model=LanguageModel.model_validate({"chunk_size": autoencoder.chunk_size}),
    )


def language_model_experiment(stage: Stage) -> Experiment:
    """The part of an experiment that a language-model stage and its autoencoder know."""
    model = stage.config["model"]
    known: dict[str, Any] = {"seed": stage.config["seed"]}
    if "snapshots" in stage.config:
        known["trajectory"] = Trajectory(snapshots=stage.config["snapshots"])
    if model["kind"] == "token":
        return Experiment.model_construct(**known, model=LanguageModel.model_validate({**model, "chunk_size": 1}))
    return Experiment.model_construct(
        **known,
        autoencoder=Autoencoder.model_validate(stage.inputs["autoencoder"].config["autoencoder"]),
        model=LanguageModel.model_validate(model),
    )


def protocol_of(stage: Stage, inputs: Inputs) -> Protocol:
    """The protocol that a stage is to score under, on the text that it reads."""
    from evals.protocol import Protocol

    digests = {
        "corpus_digest": result_of(inputs["corpus"])["digest"],
        "tokenizer_digest": result_of(inputs["tokens"])["tokenizer_digest"],
    }
    return Protocol.model_validate({**stage.config["protocol"], **digests})


def result_of(folder: Path) -> dict[str, Any]:
    """What a finished stage returned."""
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def _import_training() -> None:
    import calm_bench.training  # noqa: F401


def _import_scoring() -> None:
    import calm_bench.lm  # noqa: F401
    import evals.evaluate  # noqa: F401


SCRATCH = ("checkpoints", "stop")
CORPUS = StageKind("corpus", run_corpus, uses_torch=False, uses_device=False)
TOKENS = StageKind("tokens", run_tokens, uses_torch=False, uses_device=False)
AUTOENCODER = StageKind(
    "autoencoder", run_autoencoder, revision=2, get_ready=_import_training, data_parallel=True, scratch=SCRATCH
)
LANGUAGE_MODEL = StageKind(
    "language_model", run_language_model, get_ready=_import_training, data_parallel=True, scratch=SCRATCH
)
EVALUATION = StageKind("evaluation", run_evaluation, revision=2, get_ready=_import_scoring)
