"""The headline in words: nothing here is computed, everything is said with its error and its limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipelines.common.numbers import compact, scientific, short, signed_with_error, with_error
from pipelines.results.answers import Answer, Claim, Difference, Family, Gain, Ratio, Verdict
from pipelines.results.entry import compute_of
from pipelines.results.holm import LEVEL
from pipelines.results.wording import CLIPPED, model_name, start, times

if TYPE_CHECKING:
    from pipelines.results.entry import Entry
    from pipelines.results.noise import Noise

PAPER_CHUNK_SIZE = 4
PAPER_TRAINING, PAPER_INFERENCE = 0.56, 0.66
"""CALM-M against Transformer-S (paper section 5.2): 44 % and 34 % fewer FLOPs."""
PAPER_TRAINING_FLOPS, PAPER_PARAMETERS = 3.7e20, 371e6
Side = Literal["inside", "above", "below"]
"""Where a score lies, seen from a family's points."""


@dataclass(frozen=True)
class Reach:
    """A family's ends, and where the score lies that is asked about."""

    name: str
    side: Side
    cheapest: float
    dearest: float
    """Training FLOPs of the language model."""
    dearest_total: float
    """With the autoencoder."""
    has_one_size: bool
    is_single: bool
    """One model only, so that there is no curve."""


def no_score(which: str, names: tuple[str, str]) -> str:
    return (
        f"{start(model_name(names[0]))} and {model_name(names[1])} cannot be compared: {model_name(which)} has no "
        "score above 0, below which BrierLM tells nothing apart."
    )


def answer(
    ours: Reach,
    theirs: Reach,
    score: float,
    asked: Literal["common", "reference", "target"],
    training: Ratio,
    total: Ratio,
    inference: Ratio | None,
) -> str:
    """One answer as one or two sentences."""
    name, base, level = model_name(ours.name), model_name(theirs.name), short(score, 1)
    best = f", the score of {base}" if theirs.is_single else f", the best of {base} by its law"
    what = {"common": ", the highest that both reach", "reference": best, "target": ""}[asked]
    at = f"At BrierLM {level}{what},"
    with_autoencoder = f" ({times(total)} with its autoencoder)" if _differs(training, total) else ""
    if ours.side == "above" and theirs.side == "above":
        return f"No answer at BrierLM {level}: neither {name} nor {base} reaches it within the compute spent here."
    if ours.side == "below" and theirs.side == "below":
        return f"No answer at BrierLM {level}: both {name} and {base} have more with the least compute spent here."
    if ours.side == "above":
        spent = scientific(ours.dearest)
        whole = f" ({scientific(ours.dearest_total)} with its autoencoder)" if _differs(training, total) else ""
        if training.low == 0:
            return f"The errors leave open whether {name} reaches BrierLM {level} within {spent} training FLOPs."
        return (
            f"Within {spent} training FLOPs{whole} {name} does not reach BrierLM {level}{what}: for that it needs "
            f"{times(training)} those of {base}{with_autoencoder}. How much more is not extrapolated."
        )
    if theirs.side == "above":
        return (
            f"{start(base)} does not reach BrierLM {level} within {scientific(theirs.dearest)} training FLOPs, "
            f"{name} does: it needs {times(training)} its training FLOPs{with_autoencoder}."
        )
    tail = ""
    if theirs.side == "below":
        tail = f" {start(base)} has more than that with {scientific(theirs.cheapest)} FLOPs, the least spent here."
    elif ours.side == "below":
        tail = f" {start(name)} has more than that with {scientific(ours.cheapest)} FLOPs, the least spent here."
    per_token = ""
    if inference is not None:
        size = " (one size of model each)" if ours.has_one_size and theirs.has_one_size else ""
        per_token = f", and {times(inference)} its inference FLOPs per token{size}"
    return f"{at} {name} needs {times(training)} the training FLOPs of {base}{with_autoencoder}{per_token}.{tail}"


def claim(
    has_token_model: bool, answers: Sequence[Answer], families: Sequence[Family], entries: Sequence[Entry]
) -> Claim:
    """What the answers say on the paper's claim; the paper's own head speaks first where there are several."""
    stated = (
        "The paper claims for K=4, at comparable BrierLM, 0.56 times the training FLOPs (autoencoder not counted) and "
        "0.66 times the inference FLOPs of a token model."
    )
    fours = [family for family in families if family.kind == "calm" and family.chunk_size == PAPER_CHUNK_SIZE]
    if not has_token_model or not fours:
        lacks = "no token model" if not has_token_model else "no CALM with K=4"
        return Claim("open", "open", (stated, f"The paper's claim on K=4 is left open: this study has {lacks}."))
    verdicts: list[tuple[Verdict, Verdict]] = []
    sentences = [stated]
    tokens = next(family for family in families if family.kind == "token")
    best = max((point.score for point in tokens.used), default=0.0)
    for family in fours:
        own = [one for one in answers if one.family == family.name and one.training is not None]
        if not own:
            verdicts.append(("open", "open"))
            sentences.append(f"{start(model_name(family.name))} has no score to judge it by.")
            continue
        first = own[0]
        assert first.training is not None
        training = _verdict(first.training)
        is_level = first.score is not None and first.score >= 0.95 * best
        inference: Verdict = "open"
        if first.inference is not None and is_level:
            inference = _verdict(first.inference)
        verdicts.append((training, inference))
        sentences += [
            _on_training(family.name, training, first),
            _on_inference(family.name, inference, first, is_level),
        ]
    parameters = max(entry.parameters or 0 for entry in entries)
    flops = max(compute_of(entry).training for entry in entries)
    sentences.append(
        f"All of this is about models of up to {compact(parameters)} parameters and "
        f"{scientific(flops)} training FLOPs; "
        f"the paper's have {compact(PAPER_PARAMETERS)} and {scientific(PAPER_TRAINING_FLOPS)}, "
        f"{PAPER_TRAINING_FLOPS / flops:.0e} times as many FLOPs, and may behave otherwise."
    )
    return Claim(*verdicts[0], tuple(sentences))


def method(families: Sequence[Family], noise: Noise, num_replicates: int) -> str:
    """How the points were chosen, the laws fitted and the intervals made."""
    bases = {family.basis for family in families}
    parts = []
    if bases == {"single"}:
        parts.append("Every family has one budget only, so no curve of score against compute is known.")
    else:
        parts.append(
            "Laws: score = limit - a C^-b in training FLOPs C, with b free also below 0 where the points show no "
            "saturation, fitted by generalised least squares and never read beyond their points."
        )
    if "trajectory" in bases:
        parts.append(
            "Points: models kept along each training, unfinished but for the last, because their learning rate had not "
            "come down yet. A training planned for less compute would have been there earlier; so whoever reaches the "
            "common score before the end of its training needs less than stated, and the ratio lies further from 1."
        )
    left_out = [point for family in families for point in family.points if not point.is_used]
    if left_out:
        reasons = sorted({point.reason for point in left_out})
        models = f"{len(left_out)} {'model' if len(left_out) == 1 else 'models'}"
        parts.append(f"Left out: {models} ({'; '.join(reasons)}).")
    apart = "for each model by itself, since per-document scores are not known for all: too wide if anything"
    if noise.num_joint == 0:
        documents = f"drawn {apart}"
    else:
        documents = "drawn jointly for all models, from their scores without each group of documents (jackknife)"
        if noise.num_joint < noise.num_models:
            several = noise.num_models - noise.num_joint > 1
            documents = documents.replace("all models", f"{noise.num_joint} of {noise.num_models} models")
            documents += (
                f" and {'for the others' if several else 'for the other'} by {'themselves' if several else 'itself'}"
            )
    parts.append(
        f"In brackets 95 % intervals: {num_replicates:,} bootstrap replicates; errors over documents {documents}"
    )
    if noise.seed_error is not None:
        parts[-1] += f"; between seeds {short(noise.seed_error)}"
    if noise.misfit > 0:
        parts[-1] += f"; scatter around the laws {short(noise.misfit)} ({noise.freedom} degrees of freedom)"
    parts[-1] += "."
    if noise.seed_error is None:
        parts.append(
            "With one seed each, what another seed would change is not in the intervals"
            + (" beyond that scatter." if noise.freedom and "trajectory" not in bases else ".")
        )
    return " ".join(parts)


def command(families: Sequence[Family], answers: Sequence[Answer]) -> str | None:
    """What to run for what is still open."""
    answered = {one.family for one in answers if one.state == "answered" and one.basis == "budgets"}
    others = {family.name for family in families if family.kind == "calm"}
    has_token_model = any(family.kind == "token" for family in families)
    return None if has_token_model and others and others <= answered else "calm-bench run compute-frontier"


def summary(answers: Sequence[Answer], differences: Sequence[Difference]) -> str | None:
    """All families in one sentence: the least that an equal score costs, or how far the nearest is from it."""
    known = [one for one in answers if one.training is not None and one.training.is_known and not one.is_target]
    if known:
        least = min(known, key=lambda one: (one.training and one.training.value) or float("inf"))
        assert least.training is not None
        name = start(model_name(least.family))
        needs = f"Of all families {name} needs the fewest:" if len(known) > 1 else f"{name} needs"
        base, level = model_name(least.reference), short(least.score or 0.0, 1)
        return f"{needs} {times(least.training)} the training FLOPs of {base} for equal BrierLM ({level})."
    if not differences:
        return None
    if all(one.is_clipped for one in differences):
        return (
            f"No model here has a BrierLM above {CLIPPED}, so that BrierLM tells nothing apart; rows are ranked by "
            "Brier-1 to Brier-4 in this order. More training or more test text lifts scores above 0."
        )
    nearest = max(differences, key=lambda one: (not one.is_clipped, one.score_difference))
    base, error = model_name(nearest.reference), nearest.standard_error
    name, value = model_name(nearest.family), nearest.score_difference
    if value < 0 and nearest.p_value <= LEVEL and len(differences) > 1:
        return (
            f"No K comes up to {base} within the compute spent here: {name}, the nearest, scores "
            f"{with_error(-value, error)} below it at equal training FLOPs."
        )
    return f"At equal training FLOPs {name} scores {signed_with_error(value, error)} against {base}."


def whole(
    answers: Sequence[Answer],
    differences: Sequence[Difference],
    questions: Sequence[str],
    found: Claim,
    how: Sequence[str],
    open_command: str | None,
) -> list[str]:
    """All sentences in the order in which people need them, the one that says most first."""
    answered = {one.family for one in answers if one.state == "answered"}
    first = summary(answers, differences)
    lines = [] if first is None else [first]
    lines += questions
    lines += [one.sentence for one in answers]
    lines += [one.sentence for one in differences if one.family not in answered]
    lines += found.sentences
    lines += how
    if open_command is not None:
        lines.append(f"To answer what is open with finished models at several budgets: {open_command}")
    return lines


def gain(found: Gain) -> str:
    """What one search gained, and what it spent."""
    what = f"Tuning {found.stratum}" if found.stratum else "Tuning"
    if found.study:
        what += f" in {found.study}"
    if found.trials is not None and found.search_flops is not None:
        what += f" ({found.trials} trials, {scientific(found.search_flops)} training FLOPs)"
    again = f"{found.seeds} fresh {'training' if found.seeds == 1 else 'trainings'} of each, on text that chose neither"
    if found.is_clipped:
        return (
            f"{what}: no gain can be told, what it chose and what it began from both have BrierLM {CLIPPED} ({again})."
        )
    value = signed_with_error(found.value, found.standard_error)
    if found.low <= 0 <= found.high:
        return f"{what} gained {value} BrierLM over what it began from, which may be chance ({again})."
    return f"{what} gained {value} BrierLM over what it began from ({again})."


def _on_training(family: str, verdict: Verdict, answer: Answer) -> str:
    assert answer.training is not None
    assert answer.total is not None
    name = model_name(family)
    with_autoencoder = (
        f", {times(answer.total)} with the autoencoder" if _differs(answer.training, answer.total) else ""
    )
    needs = f"{name} needs {times(answer.training)} the token model's{with_autoencoder}"
    if verdict == "supported":
        inside = answer.training.high is not None and answer.training.low <= PAPER_TRAINING <= answer.training.high
        rest = "the paper's 0.56 lies in the interval" if inside else "the paper's 0.56 does not lie in the interval"
        return f"Training: supported in its direction at this scale; {needs}, and {rest}."
    if verdict == "contradicted":
        return f"Training: contradicted at this scale; {needs}."
    return f"Training: left open; {needs}, so neither more nor fewer is shown."


def _on_inference(family: str, verdict: Verdict, answer: Answer, is_level: bool) -> str:
    name = model_name(family)
    if not is_level:
        return (
            f"Inference: left open; {name} does not come to the token model's best score here, and what a token model "
            "as weak would need per token was not measured."
        )
    if answer.inference is None:
        return f"Inference: left open; no model of {name} with the token model's score is known."
    return {
        "supported": f"Inference: supported in its direction at this scale; {name} needs {times(answer.inference)} the "
        "token model's FLOPs per token (the paper: 0.66).",
        "contradicted": f"Inference: contradicted at this scale; {name} needs {times(answer.inference)} the token "
        "model's FLOPs per token.",
        "open": f"Inference: left open; {name} needs {times(answer.inference)} the token model's FLOPs per token, "
        "so neither more nor fewer is shown.",
    }[verdict]


def _verdict(ratio: Ratio) -> Verdict:
    # A bound such as "more than 1.00 times" comes from equal FLOPs and a lower score: that is a contradiction too.
    if ratio.low > 1 or (ratio.value is None and ratio.low >= 0.98):
        return "contradicted"
    return "supported" if ratio.high is not None and ratio.high < 1 else "open"


def _differs(training: Ratio, total: Ratio) -> bool:
    return any(
        (one is None) != (other is None)
        or (one is not None and other is not None and abs(one - other) > 1e-3 * abs(one))
        for one, other in ((training.value, total.value), (training.low, total.low), (training.high, total.high))
    )
