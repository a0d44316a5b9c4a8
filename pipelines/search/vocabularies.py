"""Vocabularies whose size only the finished tokens tell: a BPE finds fewer words than it is asked for, and what
transformers adds to the files of a folder is up to the tokenizer's class.

A budget that counts FLOPs depends on that size, so under one the tokens are made before a trial gets its length.
"""

from __future__ import annotations

from collections.abc import Callable

from calm_bench.config import Experiment
from calm_bench.errors import RunError
from pipelines.execution.scheduler import Scheduler
from pipelines.store.store import Store
from pipelines.study.price import BYTES_VOCABULARY
from pipelines.study.stage import Interrupted, Stage, StageGraph


class TokensFailed(RunError):
    """The tokens whose vocabulary is needed could not be made."""


class Vocabularies:
    """The size of an experiment's vocabulary, from its tokens; they are made where they are not there.

    Args:
        scheduler: runs their stages; nothing else is given to it.
        stop_asked: whether somebody wants this process to stop.
    """

    def __init__(
        self,
        store: Store,
        graph_for: Callable[[Experiment], StageGraph],
        scheduler: Scheduler,
        stop_asked: Callable[[], bool],
    ) -> None:
        self._store = store
        self._graph_for = graph_for
        self._scheduler = scheduler
        self._stop_asked = stop_asked

    def __call__(self, experiment: Experiment) -> int:
        """
        Raises:
            TokensFailed: a stage failed; its message says why.
            Interrupted: the process was asked to stop.
        """
        if experiment.tokens.tokenizer == "bytes":
            return BYTES_VOCABULARY
        tokens = self._graph_for(experiment)["tokens"]
        if self._store.is_done(tokens):
            return int(self._store.result(tokens)["vocab_size"])
        self._make(tokens)
        return int(self._scheduler.results[tokens]["vocab_size"])

    def _make(self, tokens: Stage) -> None:
        graph = StageGraph((tokens.inputs["corpus"], tokens))
        self._scheduler.add(graph)
        stopping = False
        while tokens not in self._scheduler.results:
            if self._stop_asked() and not stopping:
                stopping = True
                self._scheduler.stop()
            if stopping and self._scheduler.is_idle:
                raise Interrupted(
                    f"stopped while {tokens} was being made, before any training. The same command goes on"
                )
            if (error := self._scheduler.failure(graph)) is not None:
                raise TokensFailed(error)
            self._scheduler.submit()
            self._scheduler.wait()
