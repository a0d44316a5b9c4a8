"""The text of an experiment, from its source to token shards: the sections ``corpus`` and ``tokens``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from calm_bench.frozen import Fraction, Frozen, PositiveInt


class Markov(Frozen):
    """The synthetic language of ``corpus.source=markov``: a random chain whose exact scores are known."""

    order: PositiveInt = 1
    alphabet_size: Annotated[int, Field(ge=2, le=26)] = 8
    concentration: Annotated[float, Field(gt=0)] = 0.5
    """Dirichlet concentration of each transition row; smaller is more predictable."""
    num_documents: PositiveInt = 400
    document_length: PositiveInt = 500
    seed: int = 0


class Quality(Frozen):
    """What is left out of a corpus; nothing of it by default."""

    min_characters: PositiveInt | None = None
    """Shorter documents are left out."""
    max_characters: PositiveInt | None = None
    min_letters: Fraction = 0.0
    """Documents with a smaller part of letters, among their characters that are no white space, are left out."""
    language_field: str | None = None
    """The field of a record that names its language."""
    languages: tuple[str, ...] = ()
    """Values of ``language_field`` that are kept."""
    duplicates: Literal["keep", "exact", "near"] = "keep"
    """Which copies of documents are left out: ``exact`` ones, or ``near`` ones too."""
    similarity: Annotated[float, Field(gt=0.5, le=1)] = 0.8
    """Jaccard similarity of two documents' runs of five words from which on they are near duplicates."""
    decontaminate_words: Annotated[int, Field(ge=5)] | None = None
    """Held-out documents are left out that share so many words in a row with the training text; 13 is usual."""

    @model_validator(mode="after")
    def _languages_have_a_field(self) -> Self:
        if bool(self.languages) != (self.language_field is not None):
            raise ValueError("language_field and languages go together: the field, and the values that are kept")
        if None not in (self.min_characters, self.max_characters) and self.min_characters > self.max_characters:  # type: ignore[operator]
            raise ValueError("min_characters is larger than max_characters: no document is left")
        return self


NO_FILTERS = Quality()

MIXTURE = "mixture"
"""``corpus.source`` where there are several."""


class MixtureSource(Frozen):
    """One source of a mixture; ``corpus`` says of the same fields what they mean."""

    source: str
    weight: Annotated[float, Field(gt=0)]
    """Its tokens are ``weight`` over the sum of all weights, of every split."""
    text_field: str = "text"
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    max_documents: PositiveInt | None = None
    license: Annotated[str | None, Field(exclude_if=lambda license: license is None)] = None


class Corpus(Frozen):
    """Where the text comes from and how its documents are split."""

    source: str = "stdlib"
    """``stdlib``, ``markov``, a file or folder of texts and records, its address (``https://``, ``s3://``), or
    ``hf:NAME`` (hub name or local folder)."""
    text_field: str = "text"
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    """Commit of a Hugging Face data set; a hub data set without one is refused, since it could change."""
    license: Annotated[str | None, Field(exclude_if=lambda license: license is None)] = None
    """The licence of the text, for its data card; enters no identity."""
    max_documents: PositiveInt | None = None
    max_document_bytes: Annotated[PositiveInt | None, Field(exclude_if=lambda limit: limit is None)] = None
    """Longer documents, in bytes of UTF-8, are left out and counted."""
    validation_fraction: Fraction = 0.05
    test_fraction: Fraction = 0.1
    split_seed: int = 0
    markov: Markov = Markov()
    quality: Annotated[Quality, Field(exclude_if=lambda quality: quality == NO_FILTERS)] = NO_FILTERS
    mixture: Annotated[tuple[MixtureSource, ...], Field(exclude_if=lambda sources: not sources)] = ()
    """Several sources with exact shares of the tokens, instead of ``source``, which then is ``mixture``."""

    @model_validator(mode="before")
    @classmethod
    def _a_mixture_is_the_source(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        if data.get("mixture"):
            if data.get("source", MIXTURE) != MIXTURE:
                raise ValueError(
                    f"corpus.source={data['source']} and corpus.mixture exclude each other: set "
                    f"corpus.source={MIXTURE} for the mixture, or corpus.mixture=[] for the source"
                )
            return {**data, "source": MIXTURE}
        if data.get("source") == MIXTURE:
            raise ValueError("corpus.source=mixture needs corpus.mixture=[{source: ..., weight: ...}, ...]")
        return data

    @model_validator(mode="after")
    def _each_source_of_a_mixture_has_its_own_settings(self) -> Self:
        for name in MixtureSource.model_fields.keys() - {"source", "weight"} if self.mixture else ():
            default = MixtureSource.model_fields[name].default
            if getattr(self, name) != default:
                usual = "null" if default is None else default
                raise ValueError(
                    f"corpus.{name} and corpus.mixture exclude each other: say it of each source there, and here set "
                    f"corpus.{name}={usual}"
                )
        return self

    @property
    def members(self) -> tuple[Corpus, ...]:
        """The corpora of the sources of a mixture; this one alone where it is none."""
        if not self.mixture:
            return (self,)
        own = {"mixture", *MixtureSource.model_fields}
        shared = {name: value for name, value in self if name not in own}
        return tuple(Corpus(**shared, **member.model_dump(exclude={"weight"})) for member in self.mixture)

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
    """Commit, branch or tag of a tokenizer of the hub; of other than a commit, that in the hub's cache here counts."""
    shard_tokens: PositiveInt = 16_777_216
