"""A trained model to work with from Python: text in, text out, and its score."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.scoring.models import TrainedModel, find_model, store_of

if TYPE_CHECKING:
    from typing import Self

    from calm_bench.autoencoder import Autoencoder
    from calm_bench.lm.base import ChunkLanguageModel
    from calm_bench.opening import Vocabulary
    from evals.evaluate import BrierResult
    from pipelines.store.store import Store


UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a character is decoded to while some of its bytes are still missing."""


class Model:
    """A language model with its tokenizer and, if it predicts vectors, its autoencoder; made by :func:`load_model`."""

    def __init__(
        self, trained: TrainedModel, network: ChunkLanguageModel, tokenizer: Vocabulary, device: str, store: Store
    ) -> None:
        self._trained = trained
        self._store = store
        self.network = network
        """The torch module, in evaluation mode."""
        self.tokenizer = tokenizer
        self.device = device

    @property
    def folder(self) -> Path:
        """The folder that it was read from."""
        return self._trained.folder

    @property
    def chunk_size(self) -> int:
        """K, the tokens that one step of the model predicts; 1 for a token model."""
        return self.network.chunk_size

    @property
    def autoencoder(self) -> Autoencoder | None:
        """The frozen autoencoder of a chunk model; None for a token model."""
        from calm_bench.lm.calm import Calm

        return self.network.autoencoder if isinstance(self.network, Calm) else None

    def encode(self, text: str) -> list[int]:
        """The token ids of ``text``, without an end-of-text token."""
        return self.tokenizer.encode(text)

    def decode(self, ids: list[int]) -> str:
        """The text of token ids."""
        return self.tokenizer.decode(ids)

    def to(self, device: str) -> Self:
        """Move the network to ``device`` (``cpu``, ``cuda``, ``cuda:1``); returns this model."""
        self.network.to(device)
        self.device = device
        return self

    def generate(
        self,
        prompt: str = "",
        max_new_tokens: int = 200,
        *,
        temperature: float = 1.0,
        method: Literal["exact", "batch", "auto"] = "auto",
        candidates: int = 200,
        seed: int = 0,
    ) -> str:
        """The text that the model writes after ``prompt``, the prompt not included.

        Equal arguments give equal text.

        Args:
            temperature: above 0, at most 1; below 1 chunk models sample by the paper's algorithms (section 5).
            method: ``exact`` is Algorithm 1, ``batch`` the approximation of Algorithm 2 from ``candidates`` draws;
                ``auto`` is the first where it ends within ``candidates`` draws and the second where it does not.

        Raises:
            ConfigurationError: a temperature outside (0, 1], or a prompt with tokens that the model does not have.
        """
        return "".join(
            self.stream(
                prompt, max_new_tokens, temperature=temperature, method=method, candidates=candidates, seed=seed
            )
        )

    def stream(
        self,
        prompt: str = "",
        max_new_tokens: int = 200,
        *,
        temperature: float = 1.0,
        method: Literal["exact", "batch", "auto"] = "auto",
        candidates: int = 200,
        seed: int = 0,
    ) -> Generator[str, None, None]:
        """The pieces of :meth:`generate` as they are drawn; a character is given when all of its bytes are there.

        Leaving the loop early ends the generation.
        """
        from calm_bench.overrides import ConfigurationError
        from calm_bench.sampling.generate import generate_batch
        from calm_bench.sampling.temperature import Decoding
        from calm_bench.seeding import generator

        try:
            decoding = Decoding(temperature, method, candidates)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        ids = self.encode(prompt)
        for token in ids:
            if not 0 <= token < self.network.vocab_size:
                raise ConfigurationError(f"token {token} is not in the model's vocabulary of {self.network.vocab_size}")
        pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
        tokens: list[int] = []
        left = threading.Event()
        told = 0

        def tell(_: int, drawn: list[int]) -> None:
            nonlocal told
            tokens.extend(drawn)
            text = self.decode(tokens)
            whole = text.rstrip(UNFINISHED) if drawn else text
            pieces.put(whole[told:])
            told = len(whole)

        def work() -> None:
            # As `calm-bench generate` seeds it, which therefore writes the same text.
            noise = generator(seed, "generate", prompt, 0, device=self.device)
            try:
                generate_batch(
                    self.network,
                    [ids],
                    max_new_tokens,
                    [noise],
                    self.tokenizer.eos_id,
                    decoding,
                    on_tokens=tell,
                    stop=lambda _, __: left.is_set(),
                )
            except BaseException as error:
                pieces.put(error)
            else:
                pieces.put(None)

        thread = threading.Thread(target=work, name="generate", daemon=True)
        thread.start()
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                if piece:
                    yield piece
        finally:
            left.set()
            thread.join()

    def score(
        self,
        corpus: str | Path | None = None,
        store: str | Path | None = None,
        *,
        text_field: str | None = None,
        **settings: Any,
    ) -> BrierResult:
        """BrierLM of the model with its standard error, under the protocol that it was scored with before.

        Args:
            corpus: a text to score on, as ``corpus.source``: a file, a folder, ``stdlib``, ``markov``. Unset means
                the held-out part of the text that the model was trained on, or the default corpus where that is not
                known.
            store: where corpus and tokens are kept, so that scoring again does not tokenise again; unset means the
                store that keeps the model, or that :func:`load_model` was given for a model of no store.
            text_field: of the records of ``corpus`` (.jsonl, .parquet and the like), as ``corpus.text_field``: the one
                that holds the text; unset means that of the text that the model was trained on, ``text`` if none.
            settings: of ``evaluation``, such as ``max_windows=100``, ``num_samples=8``, ``context_length=512``.

        Raises:
            ConfigurationError: a setting that does not exist or does not fit.
            EvaluationError: the text is too short for the protocol.
        """
        from pipelines.scoring.scoring import score_model
        from pipelines.store.opening import open_store

        overrides = [f"evaluation.{name}={value}" for name, value in settings.items()]
        if corpus is not None:
            overrides.insert(0, f"corpus.source={corpus}")
        if text_field is not None:
            overrides.insert(0, f"corpus.text_field={text_field}")
        where = self._store if store is None else open_store(store)
        return score_model(self._trained, where, overrides, self.device)

    def __repr__(self) -> str:
        kind = "token model" if self.autoencoder is None else f"chunk model, K={self.chunk_size}"
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        return f"<{kind}, {parameters:,} parameters with its autoencoder's, from {self.folder}, on {self.device}>"


def load_model(
    name: str | Path,
    *,
    store: str | Path = "runs",
    device: str = "cpu",
    tokenizer: str | None = None,
    autoencoder: str | Path | None = None,
) -> Model:
    """The model in a folder, or with a label on a leaderboard of ``store``, with tokenizer and autoencoder.

    Args:
        name: a folder of this project's, a released CALM checkpoint, or a label such as ``K=4`` or ``k-ablation/K=4``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:n``.
        tokenizer: ``bytes`` or a folder, where the model brings none or another one is meant.
        autoencoder: folder of a released checkpoint's autoencoder, where it carries none.

    Raises:
        ConfigurationError: there is no such model, or no such device; says what there is.
        WeightsError, TokenizerError: the folder cannot be read.
    """
    from calm_bench.devices import resolve_device
    from calm_bench.opening import open_network, open_vocabulary
    from pipelines.store.opening import open_store

    device = resolve_device(device)
    separate = None if autoencoder is None else Path(autoencoder)
    where = open_store(store)
    trained = replace(find_model(str(name), where), tokenizer=tokenizer, autoencoder=separate)
    vocabulary, network = open_vocabulary(trained.folder, tokenizer), open_network(trained.folder, device, separate)
    return Model(trained, network, vocabulary, device, store_of(trained, where))
