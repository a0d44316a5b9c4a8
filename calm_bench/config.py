"""The typed, frozen description of an experiment.

Nothing here imports torch: a description can be read, checked and priced on a machine that cannot train.
What belongs to one experiment (:class:`Experiment`) determines its numbers and enters identities; what belongs to
its execution (:mod:`pipelines.study.config`) never does.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from calm_bench.family_config import ChunkDecoder, CustomFamily, Denoiser
from calm_bench.family_registry import FAMILIES, SECTIONS, FamilyRules
from calm_bench.frozen import Fraction, Frozen, NonNegativeInt, PositiveInt
from calm_bench.head_config import EnergyHead, HeadConfig
from calm_bench.pretrained_config import (
    NOTHING_PRETRAINED,
    Pretrained,
    autoencoder_settings,
    model_settings,
    with_settings_of_the_folder,
)
from calm_bench.text_config import NO_FILTERS as NO_FILTERS
from calm_bench.text_config import Corpus as Corpus
from calm_bench.text_config import Markov as Markov
from calm_bench.text_config import MixtureSource as MixtureSource
from calm_bench.text_config import Quality as Quality
from calm_bench.text_config import Tokens as Tokens
from calm_bench.training_config import Training as Training

RMS_NORM_EPS = 1e-6
ROPE_THETA = 10000.0
"""Both the reference's."""


class Autoencoder(Frozen):
    """The chunk autoencoder (paper section 2): K tokens to one latent and back."""

    chunk_size: PositiveInt | None = None
    """K; unset means the language model's."""
    latent_size: PositiveInt = 32
    hidden_size: PositiveInt = 96
    intermediate_size: PositiveInt = 256
    num_encoder_layers: Annotated[int, Field(ge=2, multiple_of=2)] = 2
    num_decoder_layers: Annotated[int, Field(ge=2, multiple_of=2)] = 2
    kl_weight: Annotated[float, Field(ge=0)] = 1e-3
    kl_clamp: Annotated[float, Field(ge=0)] = 0.5
    token_dropout: Fraction = 0.15
    latent_dropout: Fraction = 0.15
    dropped_token: Literal["mask"] | NonNegativeInt = "mask"
    """What a dropped input token becomes: a learned mask embedding, or a token id (the released models used 0)."""
    context_chunks: Annotated[int, Field(ge=0, le=1, exclude_if=lambda count: not count)] = 0
    """Chunks before a chunk that encoder and decoder read beside it: with 1 a latent need not hold what the text before
    tells. 0, the paper's, is left out of identities and files."""
    rms_norm_eps: Annotated[float, Field(gt=0, exclude_if=lambda eps: eps == RMS_NORM_EPS)] = RMS_NORM_EPS
    """Another value is for checkpoints that were trained with it. The usual one is left out of identities and files."""
    training: Training = Training(num_steps=1000)
    pretrained: Annotated[Pretrained, Field(exclude_if=lambda part: part.folder is None)] = NOTHING_PRETRAINED
    """A trained autoencoder, or a CALM around one, that is taken instead of training one."""

    @model_validator(mode="before")
    @classmethod
    def _sizes_are_those_of_the_folder(cls, data: Any) -> Any:
        return with_settings_of_the_folder(data, autoencoder_settings)


class LanguageModel(Frozen):
    """A model of one of the families, on a Llama-style backbone."""

    kind: str = "calm"
    """The family: ``calm`` predicts the next chunk's latent, ``token`` the next token; others predict the tokens of the
    next chunk (:data:`calm_bench.family_registry.FAMILIES`)."""
    chunk_size: PositiveInt = 4
    """K, tokens that one step of the backbone reads and predicts; 1 in a token model."""
    hidden_size: PositiveInt = 96
    intermediate_size: PositiveInt = 256
    num_layers: PositiveInt = 3
    num_attention_heads: PositiveInt = 4
    num_key_value_heads: PositiveInt | None = None
    """Unset means as many as attention heads (no grouping)."""
    rope_theta: Annotated[float, Field(gt=0, exclude_if=lambda theta: theta == ROPE_THETA)] = ROPE_THETA
    """Base of the rotary positions. Here and below, another value is for checkpoints that were trained with it; the
    usual one is left out of identities and files."""
    rms_norm_eps: Annotated[float, Field(gt=0, exclude_if=lambda eps: eps == RMS_NORM_EPS)] = RMS_NORM_EPS
    document_masking: Annotated[bool, Field(exclude_if=lambda masks: not masks)] = False
    """Whether attention stays inside documents, whose positions then begin anew. The reference reads across them; left
    out of identities and files where it is off."""
    head: HeadConfig = EnergyHead()
    """The generative head of ``calm``."""
    decoder: ChunkDecoder = ChunkDecoder()
    """The decoder inside a chunk of ``patch``."""
    denoiser: Denoiser = Denoiser()
    """The diffusion inside a block of ``block_diffusion``."""
    custom: CustomFamily = CustomFamily()
    """The family itself and its settings, of ``custom`` and of families that other distributions bring."""
    training: Training = Training(num_steps=1000)
    pretrained: Annotated[Pretrained, Field(exclude_if=lambda part: part.folder is None)] = NOTHING_PRETRAINED
    """A language model to go on training (fine-tuning), with a fresh optimizer and schedule."""

    @model_validator(mode="before")
    @classmethod
    def _architecture_is_that_of_the_folder(cls, data: Any) -> Any:
        return with_settings_of_the_folder(data, model_settings)

    @model_validator(mode="before")
    @classmethod
    def _a_head_is_an_energy_head_unless_it_says_otherwise(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("head"), dict) and "kind" not in data["head"]:
            return {**data, "head": {"kind": "energy", **data["head"]}}
        return data

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.num_attention_heads % self.key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        return self

    @field_validator("kind")
    @classmethod
    def _family_is_known(cls, kind: str) -> str:
        FAMILIES.get(kind)
        return kind

    @model_validator(mode="after")
    def _settings_are_of_the_family(self) -> Self:
        for section in SECTIONS:
            default = LanguageModel.model_fields[section].default
            if section not in self.family.sections and getattr(self, section) != default:
                owners = [name for name in FAMILIES.built_in if section in FAMILIES.get(name).sections]
                raise ValueError(
                    f"model.{section} belongs to model.kind={' or '.join(owners)}, not to {self.kind}: leave it out"
                )
        if (problem := self.family.problem(self)) is not None:
            raise ValueError(problem)
        return self

    @model_serializer(mode="wrap")
    def _without_settings_of_other_families(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = written(self)
        return {name: value for name, value in data.items() if name not in SECTIONS or name in self.family.sections}

    @property
    def family(self) -> FamilyRules:
        """The rules of the family that the model is of."""
        return FAMILIES.get(self.kind)

    @property
    def needs_autoencoder(self) -> bool:
        """Whether the model is built on a trained chunk autoencoder."""
        return self.family.needs_autoencoder

    @property
    def is_chunked(self) -> bool:
        """Whether a step of the backbone is a chunk of ``chunk_size`` tokens, even if that is 1."""
        return self.family.fixed_chunk_size is None

    @property
    def key_value_heads(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads


class Evaluation(Frozen):
    """The protocol of BrierLM. Everything here moves the score, so all of it enters the protocol hash."""

    protocol: Literal["matched", "paper"] = "matched"
    """``matched``: the same target positions for every model, so that all can be ranked. ``paper``: the positions of
    the reference implementation, which differ by K, and two samples each; the settings of ``matched`` are not read."""
    split: Literal["validation", "test"] = "test"
    context_length: PositiveInt = 256
    """Tokens of one scored window; a target never sees further back than its window's start."""
    first_position: PositiveInt = 32
    """First scored position of a window, so that every target has at least this much left context (``matched``)."""
    position_stride: PositiveInt = 8
    """Distance between scored positions; a multiple of every compared K gives all models the same targets
    (``matched``)."""
    num_samples: Annotated[int, Field(ge=2)] = 8
    """S, independent continuations per position (``matched``); exact probabilities of a token model take fewer."""
    max_windows: PositiveInt | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _positions_exist(self) -> Self:
        if self.protocol == "matched" and self.first_position + 4 > self.context_length:
            raise ValueError(f"first_position {self.first_position} leaves no 4-gram in {self.context_length} tokens")
        return self


class Trajectory(Frozen):
    """Models kept along the training of the language model, each scored: how quality grows with compute."""

    snapshots: Annotated[int, Field(ge=2)] = 8
    """How many, at equal FLOPs apart; the last is the finished model."""
    num_samples: PositiveInt = 32
    """Draws of the latent per chunk behind a chunk model's bound on its cross-entropy."""
    max_windows: PositiveInt | None = 100
    """Windows of the evaluation's split on which the cross-entropy is taken."""


class Samples(Frozen):
    """Text that a trained model writes, to be read beside its scores."""

    num_prompts: NonNegativeInt = 2
    """Beginnings of held-out documents to continue; 0 leaves the text out."""
    prompt_tokens: PositiveInt = 64
    num_tokens: PositiveInt = 160
    """Tokens to write after a prompt."""
    temperatures: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (1.0, 0.5)
    candidates: PositiveInt = 200
    """N of the batch approximation that temperatures below 1 are drawn by."""
    judge: Annotated[str | None, Field(exclude_if=lambda judge: judge is None)] = None
    """Folder of a causal language model of transformers that says how likely the texts are (generative perplexity)."""


class Benchmarks(Frozen):
    """Tasks of lm-eval that a trained model is scored on, beside BrierLM."""

    tasks: tuple[str, ...] = ()
    limit: PositiveInt | None = None
    """Documents per task; unset means all."""
    scorer: str | None = None
    """How a model without likelihood compares choices; unset means what its kind does best."""
    num_samples: PositiveInt = 64
    """Draws of the latent per chunk, from which a score without likelihood is estimated."""
    max_length: Annotated[PositiveInt | None, Field(exclude_if=lambda length: length is None)] = None
    """Tokens of a prompt and its answer that are read; unset means 1024, as everywhere."""
    seed: int = 0


class ExtraStage(Frozen):
    """A stage of a kind from elsewhere, which a trial runs after its own: ``{kind: NAME, SETTING: VALUE, ...}``."""

    model_config = ConfigDict(extra="allow")

    kind: str
    """Under which a distribution registers it (entry point group ``calm_bench.stage``)."""

    @property
    def settings(self) -> dict[str, Any]:
        """What stands beside ``kind``; the kind itself checks it."""
        return dict(self.model_extra or {})


class Experiment(Frozen):
    """All that determines the numbers of one leaderboard row."""

    seed: int = 0
    corpus: Corpus = Corpus()
    tokens: Tokens = Tokens()
    autoencoder: Autoencoder = Autoencoder()
    model: LanguageModel = LanguageModel()
    evaluation: Evaluation = Evaluation()
    samples: Samples = Samples()
    benchmarks: Benchmarks = Benchmarks()
    trajectory: Trajectory | None = None
    """Unset keeps and scores the finished model only."""
    # Only where there are some, so that an experiment without has the identity that it always had.
    extra_stages: Annotated[tuple[ExtraStage, ...], Field(exclude_if=lambda stages: not stages)] = ()
    """Stages of kinds that other distributions bring, with their settings."""

    @model_validator(mode="before")
    @classmethod
    def _fill_what_follows_from_the_model(cls, data: Any) -> Any:
        """A family with but one K, such as the token model, has it; the autoencoder's K is the model's unless set."""
        if not isinstance(data, dict):
            return data
        model = data.get("model")
        model = dict(model) if isinstance(model, dict) else None
        if model is None:
            return data
        kind = model.get("kind")
        if isinstance(kind, str) and kind in FAMILIES.names() and (size := FAMILIES.get(kind).fixed_chunk_size):
            model["chunk_size"] = size
        return {**data, "model": model}

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        chunk_size = self.model.chunk_size
        if self.model.is_chunked:
            if self.model.needs_autoencoder and self.autoencoder.chunk_size not in (None, chunk_size):
                raise ValueError(
                    f"model.chunk_size is {chunk_size} but autoencoder.chunk_size is {self.autoencoder.chunk_size}: "
                    "leave autoencoder.chunk_size unset to follow the model"
                )
            lengths = {
                "model.training.sequence_length": self.model.training.sequence_length,
                "evaluation.context_length": self.evaluation.context_length,
            }
            if self.model.needs_autoencoder:
                lengths["autoencoder.training.sequence_length"] = self.autoencoder.training.sequence_length
            if self.evaluation.protocol == "matched":
                lengths["evaluation.first_position"] = self.evaluation.first_position
                lengths["evaluation.position_stride"] = self.evaluation.position_stride
            for path, length in lengths.items():
                if length % chunk_size:
                    raise ValueError(f"{path} {length} is not a multiple of model.chunk_size {chunk_size}")
            reads = (1 + self.autoencoder.context_chunks) * chunk_size
            if self.model.needs_autoencoder and self.autoencoder.training.sequence_length < reads:
                raise ValueError(
                    f"autoencoder.training.sequence_length {self.autoencoder.training.sequence_length} holds no chunk "
                    f"of {chunk_size} tokens behind another, which autoencoder.context_chunks=1 asks for"
                )
            if self.model.training.sequence_length < 2 * chunk_size:
                raise ValueError("model.training.sequence_length holds fewer than two chunks: nothing to predict")
        return self
