"""The stage ``trajectory``: the models kept along a training, each with its BrierLM and its cross-entropy."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calm_bench.atomic import write_json
from calm_bench.config import Trajectory
from calm_bench.fingerprint import identity
from pipelines.study.cost import SMALL_FILES_BYTES, STAGE_S, UNKNOWN_COST, CostContext, StageCost
from pipelines.study.kinds.enough_text import text_left_elsewhere
from pipelines.study.kinds.evaluation import protocol_of, scoring_memory, text_is_too_short
from pipelines.study.kinds.trained import load_trained
from pipelines.study.stage import Interrupted, Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_folder import METRICS_FILE, RESULT_FILE, read_result
from pipelines.study.stage_kind import StageKind


def run_trajectory(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Score every snapshot; those that an interrupted attempt had scored are not scored again."""
    from calm_bench.tokens import TokenStream
    from calm_bench.training.snapshots import kept_snapshots
    from evals.cross_entropy import cross_entropy
    from evals.evaluate import ModelSampler, evaluate_brierlm, window_starts
    from evals.replicates import leave_groups_out

    settings = Trajectory.model_validate(stage.config["trajectory"])
    protocol = protocol_of(stage, inputs)
    training = read_result(inputs["language_model"])
    stream = TokenStream.open(inputs["tokens"], protocol.split)
    starts = window_starts(len(stream), protocol.context_length, settings.max_windows).tolist()
    snapshots = kept_snapshots(inputs["language_model"])
    points = []
    with (folder / METRICS_FILE).open("w") as metrics:
        begun = time.perf_counter()
        for number, (step, snapshot) in enumerate(snapshots.items(), start=1):
            kept = folder / "points" / f"{step:09d}.json"
            if not kept.is_file():

                def check(done: int, total: int) -> None:
                    if context.stop():
                        raise Interrupted(f"stopped at snapshot {number} of {len(snapshots)}")  # noqa: B023

                model = load_trained(stage, snapshot, context.device)
                score = evaluate_brierlm(ModelSampler(model), stream, protocol, check)
                entropy = cross_entropy(
                    model,
                    stream,
                    starts,
                    protocol.context_length,
                    protocol.first_position,
                    settings.num_samples,
                    protocol.seed,
                    check,
                )
                share = step / training["steps"]
                point = {
                    "step": step,
                    "tokens": share * training["tokens"],
                    "training_flops": share * training["training_flops"],
                    "cross_entropy": entropy.to_dict(),
                    "score": score.to_dict(),
                    "replicates": leave_groups_out(score.sums).to_text(),
                }
                kept.parent.mkdir(exist_ok=True)
                write_json(kept, point)
            points.append(json.loads(kept.read_text(encoding="utf-8")))
            line: dict[str, Any] = {
                "step": number,
                "total_steps": len(snapshots),
                "split": protocol.split,
                "metrics": {},
            }
            metrics.write(json.dumps(line | {"time": round(time.perf_counter() - begun, 3)}) + "\n")
            metrics.flush()
    return {"protocol_hash": protocol.hash, "points": points, "cross_entropy_text": _text(settings, protocol, starts)}


def _text(settings: Trajectory, protocol: Any, starts: list[int]) -> str:
    """Identity of the text behind the cross-entropies: only equal ones are compared."""
    return identity(
        [protocol.corpus_digest, protocol.tokenizer_digest, protocol.split, protocol.context_length, starts]
    )


def trajectory_cost(stage: Stage, context: CostContext) -> StageCost:
    """An evaluation and a cross-entropy for every snapshot."""
    trajectory, workload = context.experiment.trajectory, context.language_model
    if trajectory is None:
        return UNKNOWN_COST
    speed, windows = context.speed_of(workload), context.scored_windows
    entropy_windows = min(windows, trajectory.max_windows or windows)
    each = windows * speed.window + entropy_windows * speed.entropy_window
    seconds = STAGE_S + trajectory.snapshots * each
    memory = scoring_memory(context)
    return StageCost(seconds, memory, 4.0 * SMALL_FILES_BYTES, measured=context.is_measured(workload))


def trajectory_summary(result: Mapping[str, Any]) -> str:
    """How many models were scored, in words."""
    return f"{len(result['points'])} models scored" if result.get("points") else ""


TRAJECTORY = StageKind(
    "trajectory",
    run_trajectory,
    heading="Models along training",
    scratch=("checkpoints", "points"),
    left_elsewhere=text_left_elsewhere,
    cost=trajectory_cost,
    refusal=text_is_too_short,
    summary=trajectory_summary,
    artifacts=(RESULT_FILE,),
)
