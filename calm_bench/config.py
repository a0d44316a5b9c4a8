"""The typed, frozen description of an experiment and of a study.

Nothing here imports torch: a description can be read, checked and priced on a machine that cannot train.
What belongs to one experiment (:class:`Experiment`) determines its numbers and enters identities; what belongs to
its execution (:class:`Execution`, :class:`Tracking`) never does.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Frozen(BaseModel):
    """Immutable, and an unknown key is an error rather than a silent no-op."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Markov(Frozen):
    """The synthetic language of ``corpus.source=markov``: a random chain whose exact scores are known."""

    order: PositiveInt = 1
    alphabet_size: Annotated[int, Field(ge=2, le=26)] = 8
    concentration: Annotated[float, Field(gt=0)] = 0.5
    """Dirichlet concentration of each transition row; smaller is more predictable."""
    num_documents: PositiveInt = 400
    document_length: PositiveInt = 500
    seed: int = 0


class Corpus(Frozen):
    """Where the text comes from and how its documents are split."""

    source: str = "stdlib"
    """``stdlib``, ``markov``, a file or folder of .txt/.jsonl/.parquet, or ``hf:NAME`` (hub name or local folder)."""
    text_field: str = "text"
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    """Commit of a Hugging Face data set; a hub data set without one is refused, since it could change."""
    max_documents: PositiveInt | None = None
    validation_fraction: Fraction = 0.05
    test_fraction: Fraction = 0.1
    split_seed: int = 0
    markov: Markov = Markov()

    @model_validator(mode="after")
    def _some_text_is_left_to_train_on(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1.0:
            raise ValueError("validation_fraction + test_fraction must stay below 1, or nothing is left to train on")
        return self


class Tokens(Frozen):
    """The tokenizer and the layout of token shards."""

    tokenizer: str = "bytes"
    """``bytes``, ``bpe`` (trained on the corpus), or a Hugging Face tokenizer (local folder or hub name)."""
    vocab_size: Annotated[int, Field(ge=257)] = 512
    """Size of a ``bpe`` vocabulary; other tokenizers bring their own."""
    revision: str | None = None
    shard_tokens: PositiveInt = 16_777_216


class Training(Frozen):
    """One optimisation: its budget, batches, optimizer and schedule. Lengths are in tokens, whatever K is."""

    num_steps: PositiveInt | None = None
    num_tokens: Annotated[float, Field(gt=0)] | None = None
    num_flops: Annotated[float, Field(gt=0)] | None = None
    batch_size: PositiveInt = 8
    """Sequences per optimizer step."""
    sequence_length: PositiveInt = 256
    gradient_accumulation: PositiveInt = 1
    """Micro-batches a step is split into; must divide ``batch_size``."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    warmup_steps: NonNegativeInt = 100
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    final_learning_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Last learning rate as a fraction of ``learning_rate`` (cosine and linear schedules)."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto`` is bf16 on a GPU and fp32 on a CPU."""
    log_every: PositiveInt = 20
    validate_every: PositiveInt = 200
    validation_batches: PositiveInt = 8
    checkpoint_every: PositiveInt = 200
    divergence_factor: Annotated[float, Field(gt=1)] = 5.0
    """Stop when the smoothed loss exceeds this many times the loss of the first steps."""

    @model_validator(mode="after")
    def _one_budget_and_whole_micro_batches(self) -> Self:
        given = [name for name in ("num_steps", "num_tokens", "num_flops") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            raise ValueError(f"exactly one of num_steps, num_tokens, num_flops must be set, found {found}")
        if self.batch_size % self.gradient_accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of gradient_accumulation {self.gradient_accumulation}"
            )
        return self


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
    training: Training = Training(num_steps=1000)


class EnergyHead(Frozen):
    """The one-step head trained with the energy score (paper section 3.3)."""

    kind: Literal["energy"] = "energy"
    width: PositiveInt | None = None
    """Hidden width; unset means the backbone's."""
    num_blocks: PositiveInt = 2
    noise_size: PositiveInt = 64
    num_samples: Annotated[int, Field(ge=2)] = 8
    """N, model samples per position in the energy score; its diversity term needs two."""
    num_targets: PositiveInt = 100
    """M, draws from the target chunk's posterior."""
    alpha: Annotated[float, Field(gt=0, lt=2)] = 1.0
    """Exponent of the distance; the score is strictly proper only inside (0, 2)."""


class NetworkHead(Frozen):
    """What the heads that move noise to data have in common: an MLP that a time and the hidden state modulate."""

    width: PositiveInt | None = None
    """Hidden width; unset means the backbone's."""
    num_blocks: PositiveInt = 2
    num_samples: PositiveInt = 4
    """N, noised draws of the target a position is trained on; the paper's models have 8."""
    time_features: Annotated[int, Field(ge=2, multiple_of=2)] = 64
    """Sines and cosines that a time becomes before the network reads it; the paper's models have 256."""


class DiffusionHead(NetworkHead):
    """The many-step head that removes noise (paper section 3.2)."""

    kind: Literal["diffusion"] = "diffusion"
    objective: Literal["velocity", "noise"] = "velocity"
    """What the network predicts. ``velocity`` ends in pure noise and divides by no vanishing signal; ``noise`` is the
    reference's, with learned variances, whose first sampling step multiplies an error by hundreds."""
    sampler: Literal["ancestral", "ddim"] = "ancestral"
    """``ancestral`` draws fresh noise at every step; ``ddim`` draws only the start."""
    num_steps: Annotated[int, Field(ge=2, le=1000)] = 25
    """Network passes per sample; the paper's models have 100."""
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Sampling begins at the last time whose signal is at least this share of the standard deviation: 0.05 bounds an
    error's factor at 20 where a ``noise`` network from the very end (0) has 20 000."""


class FlowHead(NetworkHead):
    """The many-step head that integrates a velocity from noise to data (flow matching on straight lines)."""

    kind: Literal["flow"] = "flow"
    solver: Literal["midpoint", "euler"] = "midpoint"
    """``midpoint`` passes the network twice a step."""
    num_steps: PositiveInt = 4
    skip: bool = True
    """Add to the network what is linear in its input, so that it need not copy it; the reference does not."""
    time_levels: PositiveInt | None = None
    """Round times down to this many levels before the network reads them; the reference has 1000."""


class ShortcutHead(NetworkHead):
    """The few-step head whose steps of any length agree with two of half the length (arXiv 2410.12557)."""

    kind: Literal["shortcut"] = "shortcut"
    num_shortcuts: PositiveInt = 1
    """Of the N samples, those that learn a long step; the others learn the velocity."""
    num_halvings: PositiveInt = 4
    """Long steps have length 1, 1/2, 1/4, ...: so many lengths."""
    num_steps: Literal[1, 2, 4, 8, 16, 32, 64] = 1
    """Network passes per sample."""

    @model_validator(mode="after")
    def _every_step_is_learned(self) -> Self:
        if self.num_shortcuts >= self.num_samples:
            raise ValueError(
                f"num_shortcuts {self.num_shortcuts} must stay below num_samples {self.num_samples}: "
                "long steps are learned from velocities"
            )
        if self.num_steps > 2 ** (self.num_halvings - 1):
            raise ValueError(f"num_halvings {self.num_halvings} trains no steps as short as 1/{self.num_steps}")
        return self


class CustomHead(Frozen):
    """A head whose class is somewhere else: :mod:`calm_bench.heads.custom` says what it must be."""

    kind: Literal["custom"] = "custom"
    target: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """``module:Class``, importable where the training runs."""
    options: dict[str, Any] = {}
    """Keyword arguments of the class, after the hidden size and the latent size."""
    revision: int = 1
    """Count up when the class changes: its code is not looked at to decide whether a trained model can be reused."""


HeadConfig = Annotated[EnergyHead | DiffusionHead | FlowHead | ShortcutHead | CustomHead, Field(discriminator="kind")]


class LanguageModel(Frozen):
    """A chunk model (``calm``) or the token-by-token baseline (``token``) on a Llama-style backbone."""

    kind: Literal["calm", "token"] = "calm"
    chunk_size: PositiveInt = 4
    hidden_size: PositiveInt = 96
    intermediate_size: PositiveInt = 256
    num_layers: PositiveInt = 3
    num_attention_heads: PositiveInt = 4
    num_key_value_heads: PositiveInt | None = None
    """Unset means as many as attention heads (no grouping)."""
    head: HeadConfig = EnergyHead()
    training: Training = Training(num_steps=1000)

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

    @property
    def key_value_heads(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads


class Evaluation(Frozen):
    """The protocol of BrierLM. Everything here moves the score, so all of it enters the protocol hash."""

    split: Literal["validation", "test"] = "test"
    context_length: PositiveInt = 256
    """Tokens of one scored window; a target never sees further back than its window's start."""
    first_position: PositiveInt = 32
    """First scored position of a window, so that every target has at least this much left context."""
    position_stride: PositiveInt = 8
    """Distance between scored positions; a multiple of every compared K gives all models the same targets."""
    num_samples: Annotated[int, Field(ge=2)] = 8
    """S, independent continuations per position; all pairs of them are used."""
    max_windows: PositiveInt | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _positions_exist(self) -> Self:
        if self.first_position + 4 > self.context_length:
            raise ValueError(f"first_position {self.first_position} leaves no 4-gram in {self.context_length} tokens")
        return self


class Experiment(Frozen):
    """All that determines the numbers of one leaderboard row."""

    seed: int = 0
    corpus: Corpus = Corpus()
    tokens: Tokens = Tokens()
    autoencoder: Autoencoder = Autoencoder()
    model: LanguageModel = LanguageModel()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="before")
    @classmethod
    def _fill_what_follows_from_the_model(cls, data: Any) -> Any:
        """A token model has K = 1; the autoencoder's K is the model's unless set."""
        if not isinstance(data, dict):
            return data
        model = data.get("model")
        model = dict(model) if isinstance(model, dict) else None
        if model is None:
            return data
        if model.get("kind") == "token":
            model["chunk_size"] = 1
        return {**data, "model": model}

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        chunk_size = self.model.chunk_size
        if self.model.kind == "calm":
            if self.autoencoder.chunk_size not in (None, chunk_size):
                raise ValueError(
                    f"model.chunk_size is {chunk_size} but autoencoder.chunk_size is {self.autoencoder.chunk_size}: "
                    "leave autoencoder.chunk_size unset to follow the model"
                )
            for path, length in (
                ("model.training.sequence_length", self.model.training.sequence_length),
                ("autoencoder.training.sequence_length", self.autoencoder.training.sequence_length),
                ("evaluation.context_length", self.evaluation.context_length),
                ("evaluation.first_position", self.evaluation.first_position),
                ("evaluation.position_stride", self.evaluation.position_stride),
            ):
                if length % chunk_size:
                    raise ValueError(f"{path} {length} is not a multiple of model.chunk_size {chunk_size}")
            if self.model.training.sequence_length < 2 * chunk_size:
                raise ValueError("model.training.sequence_length holds fewer than two chunks: nothing to predict")
        return self


class Parameter(Frozen):
    """One dimension of a search: listed values, a range, or named bundles of settings."""

    name: str
    """A dotted path of the experiment (``values``, ``low``/``high``), or a free label (``choices``)."""
    values: tuple[Any, ...] | None = None
    low: float | None = None
    high: float | None = None
    log: bool = False
    integer: bool = False
    choices: dict[str, dict[str, Any]] | None = None
    """Label -> settings by dotted path, applied together."""
    include: tuple[str, ...] | None = None
    """The choices to use; unset means all."""

    @model_validator(mode="after")
    def _exactly_one_form(self) -> Self:
        forms = [self.values is not None, self.low is not None and self.high is not None, self.choices is not None]
        if sum(forms) != 1:
            raise ValueError(f"search parameter {self.name!r} needs exactly one of values, low with high, or choices")
        if self.include is not None:
            unknown = [label for label in self.include if label not in (self.choices or {})]
            if unknown:
                raise ValueError(
                    f"search parameter {self.name!r} includes unknown choices {unknown}; "
                    f"there are {list(self.choices or {})}"
                )
        return self


class Objective(Frozen):
    """A column of the leaderboard to be pushed up or down."""

    metric: Literal["brierlm", "inference_flops_per_token", "training_flops", "validation_loss"] = "brierlm"
    direction: Literal["maximize", "minimize"] = "maximize"


class Search(Frozen):
    """Which experiments a study consists of."""

    sampler: Literal["grid", "tpe", "random"] = "grid"
    parameters: tuple[Parameter, ...] = ()
    num_trials: PositiveInt | None = None
    """Number of trials of ``tpe`` and ``random``; a grid has as many as it has points."""
    concurrent_trials: PositiveInt = 4
    """How many trials ``tpe`` proposes beyond those whose results it knows. Part of the search and not of its
    execution: what the sampler knows decides what it proposes, whatever runs where."""
    objectives: tuple[Objective, ...] = (Objective(),)

    @model_validator(mode="after")
    def _sampler_fits_parameters(self) -> Self:
        if self.sampler == "grid":
            continuous = [p.name for p in self.parameters if p.low is not None]
            if continuous:
                raise ValueError(f"a grid needs listed values; {continuous} are ranges (use sampler: tpe)")
        elif self.num_trials is None:
            raise ValueError(f"sampler {self.sampler} needs num_trials")
        return self


class Execution(Frozen):
    """How and where stages run; never part of an identity."""

    backend: Literal["ray", "local"] = "ray"
    address: str | None = None
    """Address of an existing Ray cluster; unset starts a private one."""
    cpus_per_stage: Annotated[float, Field(gt=0)] = 1.0
    gpus_per_stage: Annotated[float, Field(ge=0)] = 0.0
    max_parallel: PositiveInt | None = None
    """Stages at once; unset means as many as the resources allow."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    store: str = "runs"


class Tracking(Frozen):
    """The mirror in MLflow; ``MLFLOW_TRACKING_URI`` is used where ``uri`` is unset, then a file in the store."""

    enabled: bool = True
    uri: str | None = None
    experiment: str = "calm-bench"


class Study(Experiment):
    """A search over experiments, with its execution."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    description: str = ""
    search: Search = Search()
    execution: Execution = Execution()
    tracking: Tracking = Tracking()

    def experiment(self) -> Experiment:
        """The base experiment, without search and execution."""
        return Experiment(**{name: getattr(self, name) for name in Experiment.model_fields})
