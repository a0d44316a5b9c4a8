"""The played-through schedule: what a scheduler of so many workers would do, and bounds that hold for any graph."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.planning.estimate import worst_scratch
from pipelines.planning.schedule import Job, Span, chain_lengths, simulated
from pipelines.study.cost import StageCost
from pipelines.study.stage import Stage, StageGraph


def stage(name: str, **inputs: Stage) -> Stage:
    return Stage(name, 1, {}, inputs, label=name)


def trial(*names: str) -> StageGraph:
    """A chain of stages; equal beginnings are shared between trials."""
    stages: list[Stage] = []
    for name in names:
        stages.append(stage(name, **({"before": stages[-1]} if stages else {})))
    return StageGraph(tuple(stages))


def test_as_many_run_at_once_as_there_are_workers() -> None:
    graphs = [trial(name) for name in ("a", "b", "c")]
    jobs = [Job(graph.stages[0], 10.0) for graph in graphs]
    assert max(span.end for span in simulated(jobs, graphs, 1).values()) == pytest.approx(30.0)
    assert max(span.end for span in simulated(jobs, graphs, 2).values()) == pytest.approx(20.0)
    assert max(span.end for span in simulated(jobs, graphs, 3).values()) == pytest.approx(10.0)


def test_the_longest_chain_goes_first() -> None:
    graphs = [trial("short"), trial("begin", "middle", "end")]
    jobs = [Job(stage, 10.0) for graph in graphs for stage in graph.stages]
    spans = {str(stage): span for stage, span in simulated(jobs, graphs, 1).items()}
    assert spans["begin"].start == 0.0
    assert spans["short"].start == pytest.approx(20.0)
    assert chain_lengths(graphs)[graphs[1].stages[0]] == 3


def test_a_shared_stage_runs_once_and_what_is_done_is_not_waited_for() -> None:
    graphs = [trial("shared", "a"), trial("shared", "b")]
    listed = {stage for graph in graphs for stage in graph.stages}
    assert len(listed) == 3
    todo = [Job(stage, 10.0) for stage in listed if stage.kind != "shared"]
    assert max(span.end for span in simulated(todo, graphs, 2).values()) == pytest.approx(10.0)


def test_a_worker_imports_once_and_only_for_what_needs_it() -> None:
    graph = trial("text", "first", "second")
    jobs = [Job(graph.stages[0], 10.0, uses_torch=False), *(Job(stage, 10.0) for stage in graph.stages[1:])]
    assert max(span.end for span in simulated(jobs, [graph], 2, import_s=5.0).values()) == pytest.approx(35.0)


def test_a_stage_that_is_alone_runs_faster() -> None:
    graphs = [trial("short"), trial("long")]
    jobs = [Job(graphs[0].stages[0], 10.0), Job(graphs[1].stages[0], 20.0)]
    spans = simulated(jobs, graphs, 2, alone=0.5)
    # Ten seconds side by side, then the ten that are left at double speed.
    assert spans[graphs[1].stages[0]].end == pytest.approx(15.0)


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.floats(0.1, 50.0), min_size=1, max_size=4), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_no_schedule_beats_the_longest_chain_or_all_workers(chains: list[list[float]], workers: int) -> None:
    graphs = [trial(*(f"t{number}s{place}" for place in range(len(chain)))) for number, chain in enumerate(chains)]
    jobs = [
        Job(stage, seconds)
        for graph, chain in zip(graphs, chains, strict=True)
        for stage, seconds in zip(graph.stages, chain, strict=True)
    ]
    spans = simulated(jobs, graphs, workers)
    assert spans.keys() == {job.stage for job in jobs}
    total = max(span.end for span in spans.values())
    work = sum(map(sum, chains))
    assert total >= max(max(map(sum, chains)), work / workers) - 1e-6
    assert total <= work + 1e-6
    for each in spans:
        for source in each.inputs.values():
            assert spans[each].start >= spans[source].end - 1e-6


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(0.1, 9.0), st.integers(0, 100)), max_size=12))
def test_the_worst_scratch_is_that_of_the_fullest_moment(running: list[tuple[float, float, int]]) -> None:
    stages = [stage(f"s{number}") for number in range(len(running))]
    spans = {each: Span(start, start + length) for each, (start, length, _) in zip(stages, running, strict=True)}
    costs = {
        each: StageCost(1.0, scratch_bytes=float(size)) for each, (_, _, size) in zip(stages, running, strict=True)
    }
    moments = [
        sum(costs[other].scratch_bytes for other, span in spans.items() if span.start <= at.start < span.end)
        for at in spans.values()
    ]
    assert worst_scratch(spans, costs) == max(moments, default=0.0)
