"""At equal score, what share of the compute: against families whose laws are known."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.random import Generator

from evals.replicates import leave_groups_out
from evals.stats import cluster_sums
from pipelines.planning.planner import plan_study
from pipelines.results.entry import Entry
from pipelines.results.headline import headline, headlines
from pipelines.results.trajectories import Point, Trajectory
from pipelines.store.store import Store
from pipelines.study.catalogue import resolve_study

Make = Callable[..., Entry]
BUDGETS = (0.5e12, 1e12, 2e12, 4e12)
AUTOENCODER = 1e12


def family(make: Make, kind: str, scores: dict[float, float], error: float = 0.1, **changes: object) -> list[Entry]:
    calm = kind != "token"
    row = {
        "kind": "calm" if calm else "token",
        "chunk_size": 4 if calm else 1,
        "head": "energy" if calm else None,
        "autoencoder_training_flops": AUTOENCODER if calm else 0.0,
        "inference_flops_per_token": 5.5e5 if calm else 1e6,
        "brierlm_se": error,
    }
    return [
        make(
            **row
            | {
                "label": f"{kind}, {budget:.1e}",
                "trial": number + 10 * calm,
                "brierlm": score,
                "training_flops": budget,
                "total_training_flops": budget + (AUTOENCODER if calm else 0.0),
                "model_identity": f"{kind}{budget}",
            }
            | changes
        )
        for number, (budget, score) in enumerate(scores.items())
    ]


def saturating(compute: float) -> float:
    return float(20 - 12 * (compute / 1e12) ** -0.4)


def straight(compute: float) -> float:
    return float(1 + 3 * compute / 1e12)


def study(
    make: Make,
    ratio: float,
    law: Callable[[float], float],
    noise: Callable[[], float] = lambda: 0.0,
    error: float = 0.1,
) -> list[Entry]:
    """A family with K = 4 that needs ``ratio`` times the compute for every score."""
    return [
        row
        for kind, factor in (("token", 1.0), ("K=4", ratio))
        for row in family(make, kind, {budget: law(budget / factor) + noise() for budget in BUDGETS}, error)
    ]


@pytest.mark.parametrize("law", [saturating, straight])
@pytest.mark.parametrize("ratio", [0.6, 1.0, 2.5])
def test_the_ratio_of_known_laws(make_entry: Make, law: Callable[[float], float], ratio: float) -> None:
    answer = headline(study(make_entry, ratio, law)).answers[0]
    assert answer.state == "answered"
    assert answer.basis == "budgets"
    assert answer.training is not None
    assert answer.training.value == pytest.approx(ratio, rel=0.06)
    assert answer.training.low <= ratio <= (answer.training.high or 0)
    assert answer.total is not None
    # At the highest common score one of the two has spent all it has.
    spent = min(4e12, 4e12 * ratio)
    assert answer.total.value == pytest.approx(ratio + AUTOENCODER / (spent / ratio), rel=0.06)
    assert answer.inference is not None
    assert answer.inference.value == pytest.approx(0.55)


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say(make_entry: Make) -> None:
    repetitions, held = 60, 0
    for seed in range(repetitions):
        stream = np.random.default_rng(seed)
        rows = study(make_entry, 1.5, saturating, lambda stream=stream: float(stream.normal(0, 0.3)), 0.3)  # type: ignore[misc]
        ratio = headline(rows).answers[0].training
        assert ratio is not None
        held += ratio.low <= 1.5 <= (ratio.high or np.inf)
    # 95 % of 60 is 57; fewer than 52 would happen to a true 95 % once in some two thousand times.
    assert held >= 52


def test_what_is_out_of_reach_is_bounded_and_said(make_entry: Make) -> None:
    found = headline(study(make_entry, 4.0, straight))
    common, beyond = found.answers
    assert common.state == "answered"
    assert beyond.state == "bounded"
    assert beyond.score == pytest.approx(13.0, abs=0.2)
    assert beyond.training is not None
    assert beyond.total is not None
    assert (beyond.training.value, beyond.training.high) == (None, None)
    assert beyond.training.low == pytest.approx(1.0)
    assert beyond.total.low == pytest.approx(1.25)
    assert beyond.inference is None
    assert "does not reach BrierLM 13.0, the best of the token model by its law" in beyond.sentence
    assert "more than 1.00 times" in beyond.sentence
    assert "not extrapolated" in beyond.sentence


def test_scores_that_nobody_was_asked_to_reach(make_entry: Make) -> None:
    rows = study(make_entry, 1.5, saturating)
    inside, neither = (headline(rows, target=score).answers[-1] for score in (9.0, 19.0))
    assert inside.training is not None
    assert inside.training.value == pytest.approx(1.5, rel=0.06)
    assert neither.state == "open"
    assert "neither" in neither.sentence
    assert "both" in headline(rows, target=-5.0).answers[-1].sentence


def test_one_budget_each_gives_bounds_and_a_command(make_entry: Make) -> None:
    rows = family(make_entry, "token", {3.5e12: 14.5}) + family(make_entry, "K=4", {3.5e12: 4.3})
    found = headline(rows)
    assert {one.basis for one in found.families} == {"single"}
    assert all(one.curve is None for one in found.families)
    (answer,) = found.answers
    assert answer.training is not None
    assert answer.state == "bounded"
    assert answer.training.value is None
    assert answer.training.low == pytest.approx(1.0)
    (difference,) = found.differences
    assert difference.score_difference == pytest.approx(-10.2)
    assert difference.dominance == "neither"
    assert not difference.is_paired
    assert found.command == "calm-bench run compute-frontier"
    assert found.claim.training == "contradicted"
    assert found.claim.inference == "open"


def test_one_model_against_a_curve_is_an_answer(make_entry: Make) -> None:
    rows = study(make_entry, 1.0, saturating)[:4] + family(make_entry, "K=4", {3e12: saturating(1.5e12)})
    answer = headline(rows).answers[0]
    assert answer.training is not None
    assert answer.training.value == pytest.approx(2.0, rel=0.06)


def test_models_that_do_not_differ_leave_it_open(make_entry: Make) -> None:
    rows = family(make_entry, "token", {1e12: 5.0}, 0.8) + family(make_entry, "K=4", {1e12: 5.1}, 0.8)
    found = headline(rows)
    assert [one.state for one in found.answers] == ["open"]
    assert found.claim.training == "open"
    assert "may be chance" in found.differences[0].sentence


def test_the_claim_is_supported_only_by_an_interval(make_entry: Make) -> None:
    better, level = (headline(study(make_entry, ratio, saturating)).claim for ratio in (0.56, 1.0))
    assert (better.training, better.inference) == ("supported", "supported")
    assert "0.56 lies in the interval" in " ".join(better.sentences)
    assert level.training == "open"
    assert "paper's have 371M" in level.sentences[-1]


def test_without_a_token_model_the_claim_is_left_open(make_entry: Make) -> None:
    rows = family(make_entry, "K=4", {1e12: 5.0}) + family(make_entry, "K=4", {1e12: 7.0}, head="flow", label="flow")
    found = headline(rows)
    assert found.reference == "K=4 energy"
    assert [one.name for one in found.families] == ["K=4 energy", "K=4 flow"]
    assert found.claim.training == "open"
    assert "no token model" in found.claim.sentences[1]


def test_a_chunk_model_of_four_tokens_is_not_what_the_claim_is_about(make_entry: Make) -> None:
    (patch,) = family(make_entry, "K=4", {1e12: 7.0}, head=None, autoencoder_training_flops=0.0)
    rows = [*family(make_entry, "token", {1e12: 5.0}), patch.model_copy(update={"kind": "patch"})]
    assert headline(rows).claim.sentences[1].endswith("this study has no CALM with K=4.")


@pytest.mark.parametrize("shift", [-30.0, 0.0])
def test_negative_scores_are_scores(make_entry: Make, shift: float) -> None:
    answer = headline(study(make_entry, 2.0, lambda compute: saturating(compute) + shift)).answers[0]
    assert answer.training is not None
    assert answer.training.value == pytest.approx(2.0, rel=0.06)


def test_clipped_scores_are_left_out_and_said(make_entry: Make) -> None:
    rows = study(make_entry, 1.0, straight) + family(make_entry, "K=4", {0.1e12: 0.0})
    found = headline(rows)
    assert [point.is_used for point in found.families[1].points] == [False, True, True, True, True]
    assert "clipped to 0" in found.method
    none = headline(family(make_entry, "token", {1e12: 5.0}) + family(make_entry, "K=4", {1e12: 0.0}))
    assert none.answers[0].state == "open"
    assert "no score above 0" in none.answers[0].sentence


def test_a_family_stands_for_its_best(make_entry: Make) -> None:
    rows = study(make_entry, 1.0, saturating) + family(make_entry, "K=4", {4e12: 2.0}, label="badly tuned")
    found = headline(rows)
    assert found.answers[0].training is not None
    assert found.answers[0].training.value == pytest.approx(1.0, rel=0.05)
    assert [point.label for point in found.families[1].points if not point.is_used] == ["badly tuned"]


def test_a_search_at_one_budget_is_one_model_and_no_curve(make_entry: Make) -> None:
    rows = family(make_entry, "token", {1e12: 5.0})
    for number, score in enumerate((4.0, 3.9, 4.05, 3.95)):
        rows += family(make_entry, "K=4", {1e12 * (1 + 0.004 * number): score}, label=f"try {number}")
    found = headline(rows)
    assert [point.label for point in found.families[1].used] == ["try 2"]
    assert found.families[1].curve is None
    assert found.answers[0].state == "bounded"


def trajectory(label: str, scores: Sequence[float], flops: float, protocol: str) -> Trajectory:
    points = tuple(Point(flops * (n + 1) / len(scores), 3.0, 0.1, score, 0.1) for n, score in enumerate(scores))
    return Trajectory(0, label, "exact", (protocol, "text"), points, f"{label}4000000000000.0")


def test_models_kept_along_one_training_stand_in(make_entry: Make) -> None:
    rows = family(make_entry, "token", {4e12: straight(4e12)}) + family(make_entry, "K=4", {4e12: straight(1e12)})
    kept = [
        trajectory(
            kind, [straight(4e12 * share / factor) for share in np.linspace(0.125, 1, 8)], 4e12, rows[0].protocol_hash
        )
        for kind, factor in (("token", 1.0), ("K=4", 4.0))
    ]
    found = headline(rows, kept)
    assert {one.basis for one in found.families} == {"trajectory"}
    assert [point.is_finished for point in found.families[0].points] == [False] * 7 + [True]
    assert found.answers[0].training is not None
    assert found.answers[0].training.value == pytest.approx(4.0, rel=0.06)
    assert "unfinished" in found.method
    assert found.command is not None
    # One that is no number is left out, and does not reach the JSON.
    broken = replace(kept[0], points=(replace(kept[0].points[0], brierlm=math.nan), *kept[0].points[1:]))
    without = headline(rows, [broken, kept[1]])
    assert without.answers[0].training is not None
    assert without.answers[0].training.value == pytest.approx(4.0, rel=0.06)
    assert len(without.families[0].points) == 7
    assert without.to_json()
    # Scored under another protocol, they are of no use.
    other = [trajectory(kind, [1.0, 2.0, 3.0], 4e12, "other") for kind in ("token", "K=4")]
    assert {one.basis for one in headline(rows, other).families} == {"single"}


def paired_rows(make: Make, stream: Generator) -> list[Entry]:
    """Rows whose documents are hard or easy for all models alike, with the replicates that tell."""
    documents = np.repeat(np.arange(60), 20)
    hard = np.repeat(stream.normal(0, 0.05, 60), 20)
    rows = []
    for row in study(make, 2.0, lambda compute: 10 + saturating(compute), error=0.6):
        scores = np.stack([row.brierlm / 100 + hard + stream.normal(0, 0.02, 1200) for _ in range(4)], axis=1)
        replicates = leave_groups_out(cluster_sums(scores, documents))
        rows.append(row.model_copy(update={"replicates": replicates.to_text(), "brierlm": float(100 * scores.mean())}))
    return rows


def test_documents_common_to_all_models_make_the_interval_narrower(make_entry: Make) -> None:
    rows = paired_rows(make_entry, np.random.default_rng(3))
    paired = headline(rows).answers[0].training
    alone = headline([row.model_copy(update={"replicates": ""}) for row in rows]).answers[0].training
    assert paired is not None
    assert alone is not None
    assert paired.low <= 2.0 <= (paired.high or np.inf)
    assert np.log((paired.high or np.inf) / paired.low) < 0.5 * np.log((alone.high or np.inf) / max(alone.low, 1e-9))


def test_seeds_are_pooled_and_their_error_is_said(make_entry: Make) -> None:
    rows = [
        row.model_copy(
            update={"seed": seed, "configuration": row.label, "brierlm": row.brierlm + 0.1 * seed, "trial": 100 * seed}
        )
        for row in study(make_entry, 1.5, saturating)
        for seed in range(3)
    ]
    found = headline(rows)
    assert len(found.families[0].points) == 4
    assert "between seeds 0.10" in found.method


def test_json_has_no_numbers_that_json_has_not(make_entry: Make) -> None:
    for rows in (study(make_entry, 4.0, straight), family(make_entry, "token", {1e12: 5.0})):
        found = headline(rows)
        again = json.loads(found.to_json())
        assert again["families"][0]["name"] == "token"
        assert again["sentences"] == list(found.sentences)


def test_the_order_of_rows_does_not_matter(make_entry: Make) -> None:
    rows = study(make_entry, 2.0, saturating)
    assert headline(rows[::-1]) == headline(rows)


def test_protocols_have_headlines_of_their_own(make_entry: Make) -> None:
    rows = study(make_entry, 2.0, saturating)
    other = [row.model_copy(update={"protocol_hash": "other"}) for row in rows[:3]]
    with pytest.raises(ValueError, match="one protocol"):
        headline(rows + other)
    with pytest.raises(ValueError, match="one protocol"):
        headline([])
    assert [one.protocol_hash for one in headlines([*other, *rows])] == [rows[0].protocol_hash, "other"]


def test_hostile_labels_stay_text(make_entry: Make) -> None:
    rows = family(make_entry, "token", {1e12: 5.0}) + family(
        make_entry, "K=4", {1e12: 4.0}, head="energy\x1b[2J<b>", label="x"
    )
    rows += family(make_entry, "K=4", {1e12: 4.5}, label="y")
    assert not any("\x1b" in sentence for sentence in headline(rows).sentences)


def test_the_shipped_study_gives_every_family_a_curve_and_shares_autoencoders(tmp_path: Path) -> None:
    planned = plan_study(resolve_study("compute-frontier"), Store(tmp_path))
    assert not any(trial.error for trial in planned.trials)
    experiments = [trial.experiment for trial in planned.trials if trial.experiment is not None]
    families = Counter(
        (one.model.kind, one.model.chunk_size, one.model.head.kind if one.model.kind == "calm" else None)
        for one in experiments
    )
    assert set(families.values()) == {4}
    assert {kind for kind, _, _ in families} == {"token", "calm"}
    autoencoders = {
        trial.graph["autoencoder"].identity for trial in planned.trials if trial.graph and "K" in trial.label
    }
    assert len(autoencoders) == 2


def test_where_all_scores_are_clipped_the_components_speak(make_entry: Make) -> None:
    parts = {"token": (0.05, -0.01, 0.0, 0.0), "K=4": (0.03, 0.0, 0.0, 0.0), "K=2": (0.0501, -0.01, 0.0, 0.0)}
    rows = [
        row.model_copy(update={"brier": brier, "brier_se": (0.001, 0.002, 0.002, 0.002)})
        for name, brier in parts.items()
        for row in family(make_entry, name, {1e12: 0.0}, chunk_size=2 if name == "K=2" else 4)
    ]
    found = headline(rows)
    assert found.sentences[0].startswith("No model here has a BrierLM above 0 (clipped")
    by_family = {one.family: one.sentence for one in found.differences}
    assert "Brier-1, the first component that tells them apart, is 2.00±0.14 lower (times 100)" in by_family["K=4"]
    assert "no component tells the two apart" in by_family["K=2"]
    assert not any("0.00" in sentence for sentence in found.sentences)


def test_the_chunk_and_the_vector_are_told_apart(make_entry: Make) -> None:
    rows = family(make_entry, "token", {1e12: 14.0}, 0.5) + family(make_entry, "K=4", {1e12: 5.0}, 0.3)
    (control,) = family(make_entry, "patch K=4", {1e12: 16.0}, 0.4, head=None, total_training_flops=1e12)
    rows.append(control.model_copy(update={"kind": "patch", "autoencoder_training_flops": 0.0}))
    # Another K has no control here, and is not compared with that of K = 4.
    rows += family(make_entry, "K=2", {1e12: 6.0}, 0.3, chunk_size=2)
    found = headline(rows)
    chunk, vector = (line for line in found.sentences if "pay?" in line)
    assert found.brief[:2] == (chunk, vector)
    assert chunk.startswith(
        "Does the chunk pay? At equal training FLOPs patch K=4 scores +2.00±0.64 (95 % interval +0.7 to +3.3)"
    )
    assert vector.startswith(
        "Does the vector pay? At equal training FLOPs K=4 scores -11.00±0.50 (95 % interval -12.0 to -10.0)"
    )
    assert "against patch K=4" in vector
    assert {one.family for one in found.differences} == {"K=2", "K=4", "patch K=4"}
    (apart,) = found.vectors
    # All four comparisons are read together, and each is corrected for all.
    assert "corrected for 4 comparisons" in apart.sentence


def test_without_a_control_nothing_is_said_of_the_vector(make_entry: Make) -> None:
    found = headline(family(make_entry, "token", {1e12: 14.0}) + family(make_entry, "K=4", {1e12: 5.0}))
    assert not found.vectors
    assert not any("pay?" in line for line in found.sentences)


def test_the_claim_names_the_largest_model_and_small_scores_keep_their_digits(make_entry: Make) -> None:
    """It named the size of the model with most training FLOPs, and a BrierLM of 0.004 was 0.0."""
    rows = family(make_entry, "token", {1e12: 0.004, 2e12: 0.005}) + family(
        make_entry, "K=4", {1e12: 0.0045, 2e12: 0.0}
    )
    sizes = (3e6, 1e6, 4.4e6, 2e6)
    rows = [row.model_copy(update={"parameters": int(size)}) for row, size in zip(rows, sizes, strict=True)]
    found = headline(rows)
    (scale,) = [sentence for sentence in found.sentences if sentence.startswith("All of this")]
    assert scale.startswith("All of this is about models of up to 4.40M parameters and 2.00e12 training FLOPs;")
    text = " ".join(found.sentences)
    assert "BrierLM 0.0," not in text
    assert "At BrierLM 0.0045" in text
    assert "Left out: 1 model (a score clipped" in text
