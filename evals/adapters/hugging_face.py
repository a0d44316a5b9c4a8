"""Any causal language model of transformers, from a local folder or the hub.

Most architectures take embedded inputs, 4-D attention masks and positions, which scoring many positions at once needs
(:mod:`calm_bench.sampling.continuations`). Whether one does is not known from its name: a model is tried once when it
is opened, against its own plain forward pass, and read prefix by prefix if the two differ.

Shape letters: C contexts, S samples, L tokens, H tokens drawn, V vocabulary, d hidden size, Q nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np

from calm_bench.folder_signs import model_fault
from calm_bench.hub_contact import hub_silence
from calm_bench.tensor_files import WeightsError, listed, weights_fault
from calm_bench.tokens.hugging_face import HuggingFaceTokenizer
from calm_bench.tokens.tokenizer import Tokenizer, TokenizerError
from evals.brier import Integers
from evals.protocol import EvaluationError
from evals.samplers import ModelSampler, Traces, continue_windows

if TYPE_CHECKING:
    import torch


class HuggingFaceSampler:
    """A causal language model of transformers as a :class:`evals.samplers.Sampler`, with exact probabilities.

    A context or window must fit into the positions that the model was made with, its continuation included. Embeddings
    often have more rows than the tokenizer has ids; those beyond are no text and are never drawn: the distribution is
    the model's over the tokenizer's ids.
    """

    chunk_size = 1

    def __init__(self, model: Any, tokenizer: Tokenizer | None = None, eos_id: int | None = None) -> None:
        """
        Args:
            model: of a class of ``AutoModelForCausalLM``; it is put into evaluation mode.
            tokenizer: says which of the model's ids are in use; unset, all are.
            eos_id: what an empty context is read as; unset, the tokenizer's.

        Raises:
            EvaluationError: the tokenizer has ids that the model does not.
            NotFiniteWeights: the weights of these ids, or of anything else, hold NaN or infinity.
        """
        from calm_bench.finite import require_finite_weights
        from evals.adapters.batched_model import batched_model

        self._model = model.eval()
        rows = int(model.get_output_embeddings().weight.shape[0])
        if tokenizer is not None and tokenizer.vocab_size > rows:
            raise EvaluationError(
                f"the tokenizer {tokenizer.name} has {tokenizer.vocab_size} ids, the model {rows}: give the tokenizer "
                "that the model was trained with"
            )
        self.tokenizer = tokenizer
        self.vocab_size = rows if tokenizer is None else tokenizer.vocab_size
        self._eos_id = tokenizer.eos_id if eos_id is None and tokenizer is not None else eos_id
        require_finite_weights(_read_weights(model, self.vocab_size))
        batched = batched_model(model, self.vocab_size, self.max_positions)
        self._batched = None if batched is None else ModelSampler(batched, self._eos_id, check_weights=False)

    @classmethod
    def open(cls, name: str | Path, revision: str | None = None, device: str = "cpu") -> HuggingFaceSampler:
        """Read the model ``name``, a local folder or a name of the hub (at ``revision``), and its tokenizer.

        Code that comes with a model is not run, and a pickle is read for its tensors only. In fp32 on a CPU, in the
        precision of the file elsewhere.

        Raises:
            WeightsError: there is no such model, it needs code of its own, files of it are missing or cut off, or
                tensors are.
            TokenizerError: it has a tokenizer that cannot be used; without any, tokens are scored but no text.
        """
        import torch
        from transformers import AutoModelForCausalLM

        folder = Path(name).expanduser()
        if (wrong := model_fault(folder)) is not None:
            raise WeightsError(wrong)
        silence = None if folder.is_dir() else hub_silence()
        where: dict[str, Any] = {"local_files_only": folder.is_dir() or silence is not None}
        if not folder.is_dir():
            where["revision"] = revision
        try:
            with _without_loading_bars():
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    str(folder) if folder.is_dir() else str(name),
                    trust_remote_code=False,
                    weights_only=True,
                    dtype=torch.float32 if device == "cpu" else "auto",
                    output_loading_info=True,
                    **where,
                )
        except Exception as error:  # transformers and the hub client raise a dozen unrelated kinds
            raise WeightsError(_why_unread(name, folder, error, silence)) from error
        model, report = loaded
        # Missing weights would be filled with random numbers, and scored.
        problems = [f"missing {name}" for name in sorted(report["missing_keys"])]
        problems += [f"another shape of {name}" for name in sorted(map(str, report["mismatched_keys"]))]
        if problems:
            raise WeightsError(f"{name} does not fit its configuration: {listed(problems)}")
        return cls(model.to(device), _tokenizer(name, revision))

    @property
    def model(self) -> Any:
        """The model of transformers."""
        return self._model

    @property
    def parameters(self) -> int:
        """Parameters of the model, each once."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    @property
    def max_positions(self) -> int | None:
        """Positions that the model was made with; None if its configuration names no limit."""
        found = getattr(self._model.config, "max_position_embeddings", None)
        return found if isinstance(found, int) and found > 0 else None

    @property
    def prefix(self) -> list[int]:
        """Ids that the model's tokenizer puts before every text, such as its beginning-of-text token."""
        if not isinstance(self.tokenizer, HuggingFaceTokenizer):
            return []
        backend = self.tokenizer.backend
        ids: list[int] = backend("a")["input_ids"]
        bare = backend("a", add_special_tokens=False)["input_ids"]
        starts = [start for start in range(len(ids)) if ids[start : start + len(bare)] == bare]
        return ids[: starts[0]] if starts else []

    @property
    def in_batches(self) -> bool:
        """Whether the architecture lets positions be scored together rather than one by one."""
        return self._batched is not None

    def sample(self, contexts: Sequence[Integers], num_samples: int, horizon: int, seeds: Sequence[int]) -> Integers:
        """See :class:`evals.samplers.Sampler`; an empty context is the beginning of a text, the end-of-text token.

        Raises:
            EvaluationError: a context and its continuation need more positions than the model has, or an empty
                context where no end-of-text token is known.
            ValueError: a token that the model does not have, or numbers of contexts and seeds that differ.
            NotFinite: the model computed NaN.
        """
        if len(seeds) != len(contexts):
            raise ValueError(f"{len(contexts)} contexts need as many seeds, found {len(seeds)}")
        texts = [self._nonempty(np.asarray(context, dtype=np.int64)) for context in contexts]
        for text in texts:
            self._check(text, len(text) + horizon)
        if self._batched is not None:
            return self._batched.sample(texts, num_samples, horizon, seeds)
        rows = [self._one_by_one(text, num_samples, horizon, seed) for text, seed in zip(texts, seeds, strict=True)]
        return np.stack(rows) if rows else np.empty((0, num_samples, horizon), dtype=np.int64)

    def continue_windows(
        self,
        windows: Integers,
        positions: Sequence[int],
        num_samples: int,
        horizon: int,
        seeds: Sequence[int],
        targets: Integers | None = None,
    ) -> Integers:
        """See :class:`evals.samplers.WindowSampler`.

        Raises:
            EvaluationError, ValueError, NotFinite: as :meth:`sample`.
        """
        self._check(windows, max(positions) + horizon)
        if self._batched is None or min(positions) < 1:
            return continue_windows(_Prefixes(self), windows, positions, num_samples, horizon, seeds)
        return self._batched.continue_windows(windows, positions, num_samples, horizon, seeds, targets)

    @property
    def has_probabilities(self) -> bool:
        """Whether :meth:`trace_windows` can be called: if positions can be scored together."""
        return self._batched is not None

    def trace_windows(
        self,
        windows: Integers,
        positions: Sequence[int],
        num_samples: int,
        horizon: int,
        seeds: Sequence[int],
        squared: bool,
    ) -> Traces:
        """See :class:`evals.samplers.ProbabilitySampler`.

        Raises:
            EvaluationError, ValueError, NotFinite: as :meth:`sample`; also a model without this (``in_batches``).
        """
        if self._batched is None:
            raise EvaluationError(
                f"a {type(self._model).__name__} is read one position at a time here: score it with the estimator "
                "all-pairs instead of exact"
            )
        self._check(windows, max(positions) + horizon)
        return self._batched.trace_windows(windows, positions, num_samples, horizon, seeds, squared)

    def _nonempty(self, context: Integers) -> Integers:
        if len(context):
            return context
        if self._eos_id is None:
            raise EvaluationError(
                "nothing says what begins a text of this model, so it cannot continue an empty context: give "
                "HuggingFaceSampler the end-of-text token (eos_id), or score positions with text before them"
            )
        return np.array([self._eos_id], dtype=np.int64)

    def _check(self, tokens: Integers, length: int) -> None:
        if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocab_size:
            raise EvaluationError(
                f"tokens {tokens.min()} to {tokens.max()} are not in the model's vocabulary of {self.vocab_size}: use "
                "the tokenizer that the model was trained with"
            )
        # The last token drawn is not read.
        if self.max_positions is not None and length - 1 > self.max_positions:
            raise EvaluationError(
                f"a text of {length} tokens, its continuation included, is longer than the model's "
                f"{self.max_positions} positions: lower the length of the context (evaluation.context_length; of "
                "cb.score the argument context_length)"
            )

    def _one_by_one(self, text: Integers, num_samples: int, horizon: int, seed: int) -> Integers:
        """``[S, H]``, by the model's forward pass on whole texts, without a cache."""
        import torch

        from calm_bench.lm.exact import draw_tokens

        device = self._model.device
        own = [torch.Generator(device=device).manual_seed(seed)]
        rows = torch.from_numpy(text).to(device).expand(num_samples, -1)
        with torch.no_grad():
            # S numbers from one state first, then one from each of S states.
            logits = self._logits(rows[:1])
            rows = torch.cat([rows, draw_tokens(logits, num_samples, own)[:, 0]], dim=1)
            while rows.shape[1] < len(text) + horizon:
                drawn = draw_tokens(self._logits(rows), 1, own * num_samples)[0]
                rows = torch.cat([rows, drawn], dim=1)
        continuation: Integers = rows[:, len(text) :].cpu().numpy()
        return continuation

    def _logits(self, rows: torch.Tensor) -> torch.Tensor:
        """``[rows, V]`` of the token after each row."""
        logits: torch.Tensor = self._model(input_ids=rows, use_cache=False).logits[:, -1, : self.vocab_size]
        return logits


class _Prefixes:
    """Only :meth:`HuggingFaceSampler.sample`, so that windows are cut into prefixes."""

    chunk_size = 1

    def __init__(self, sampler: HuggingFaceSampler) -> None:
        self.sample = sampler.sample
        self.vocab_size = sampler.vocab_size


def _why_unread(name: str | Path, folder: Path, error: Exception, silence: str | None) -> str:
    """What ``error`` of transformers means, with the way out.

    Args:
        silence: of the hub, which is the reason then.
    """
    if (folder / "config.json").is_file() and (wrong := weights_fault(folder)) is not None:
        return f"{wrong}: bring all files of the model again from where they came"
    # Of the model's classes, or in a pickle.
    has_code = "trust_remote_code" in str(error) or isinstance(error, UnpicklingError)
    code = " without running code of the model's own" if has_code else ""
    why = silence or f"{type(error).__name__}: {error}"
    return (
        f"{name} is no causal language model that transformers can read{code} ({why}); give a folder written by "
        "save_pretrained, or a name of the hub"
    )


def _read_weights(model: Any, vocab_size: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Named parameters of ``model``, of its embeddings the rows of ids in use: what the others hold is never read."""
    embeddings = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    for name, parameter in model.named_parameters():
        by_id = any(parameter is embedding for embedding in embeddings)
        yield name, parameter[:vocab_size] if by_id else parameter


def _tokenizer(name: str | Path, revision: str | None) -> HuggingFaceTokenizer | None:
    """The tokenizer beside a model; None in a local folder without one."""
    from calm_bench.opening import HUGGING_FACE_FILES

    folder = Path(name).expanduser()
    if folder.is_dir():
        candidates = [inner for inner in (folder / "tokenizer", folder) if _has_any(inner, HUGGING_FACE_FILES)]
        if not candidates and not _has_any(folder, ("vocab.json", "tokenizer.model", "spiece.model")):
            return None
        return HuggingFaceTokenizer.from_pretrained(str(candidates[0] if candidates else folder))
    return HuggingFaceTokenizer.from_pretrained(str(name), revision)


def _has_any(folder: Path, names: Sequence[str]) -> bool:
    return any((folder / name).is_file() for name in names)


__all__ = ["HuggingFaceSampler", "TokenizerError", "WeightsError"]


@contextmanager
def _without_loading_bars() -> Iterator[None]:
    """No bars of transformers while weights are read: they end in a second and break the caller's own lines.

    The switch of transformers is the hub client's too, whose bars of a download stay as they were.
    """
    # Documented names, which the package re-exports without saying so to type checkers.
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers.utils import logging

    shown, downloads_shown = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    logging.disable_progress_bar()
    if downloads_shown:
        enable_progress_bars()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
        if not downloads_shown:
            disable_progress_bars()
