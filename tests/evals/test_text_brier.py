"""BrierLM in words and bytes: where it is scored, what is compared, known languages, tokenizers, and refusals."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calm_bench.config import Markov
from calm_bench.corpora.markov import MarkovLanguage
from calm_bench.tokens import ByteTokenizer, Tokenizer
from calm_bench.tokens.bpe import BpeTokenizer
from evals.adapters.token_text import TokenTextSampler
from evals.brier import Integers, brierlm
from evals.evaluate import MarkovSampler
from evals.protocol import EvaluationError, Protocol
from evals.stats import paired_difference
from evals.text_brier import evaluate_text_brierlm, text_protocol_for
from evals.text_protocol import TextProtocol
from evals.text_units import MAX_WORD_BYTES, Bytes, TextUnit, UnitName, Words

LEXICON = {"the": 0.5, "naïve": 0.2, "日本語": 0.2, "🙂!": 0.1}
"""Words of a language that draws each word independently, with one white space or another before it."""
SPACES = [" ", "\n", "  "]


def text_of(words: Sequence[str], source: random.Random) -> str:
    return "".join(source.choice(SPACES) + word for word in words) + "\n"


def drawn_words(source: random.Random, count: int) -> list[str]:
    return source.choices(list(LEXICON), list(LEXICON.values()), k=count)


def documents(count: int, words: int, seed: int = 0) -> list[str]:
    source = random.Random(seed)
    return [text_of(drawn_words(source, words), source) for _ in range(count)]


class WordLanguage:
    """The true model of :func:`documents` in the tokens of any tokenizer; it ends its texts after some words."""

    chunk_size = 1

    def __init__(self, tokenizer: Tokenizer, num_words: int = 12) -> None:
        self.num_words, self.end = num_words, tokenizer.eos_id
        self.vocab_size = tokenizer.vocab_size
        self.items = [(tuple(tokenizer.encode(space + word)), p) for word, p in LEXICON.items() for space in SPACES]

    def sample(self, contexts: Sequence[Integers], num_samples: int, horizon: int, seeds: Sequence[int]) -> Integers:
        out = np.full((len(contexts), num_samples, horizon), self.end, dtype=np.int64)
        for rows, context, seed in zip(out, contexts, seeds, strict=True):
            source = random.Random(seed)
            for row in rows:
                drawn = self.rest_of_item(context.tolist(), source)
                for _ in range(self.num_words):
                    drawn += source.choices([item for item, _ in self.items], [p for _, p in self.items])[0]
                row[: len(drawn)] = drawn[:horizon]
        return out

    def rest_of_item(self, context: list[int], source: random.Random) -> list[int]:
        """What completes a word that a context, drawn in parts, leaves unfinished."""
        for length in range(max(len(item) for item, _ in self.items), 0, -1):
            begun = tuple(context[-length:])
            fitting = [(item, p) for item, p in self.items if len(item) > length and item[:length] == begun]
            if fitting:
                return list(source.choices([i for i, _ in fitting], [p for _, p in fitting])[0][length:])
        return []


def exact_words() -> np.ndarray:
    return np.array([sum(p * p for p in LEXICON.values()) ** n for n in (1, 2, 3, 4)])


def test_positions_of_words_are_ends_of_words_with_enough_words_after_them() -> None:
    text = "Ä bc  déf\ng h i ".encode()
    every = [text[:place].decode() for place in Words().offsets(text, 0, 1, 2)]
    assert every == ["", "Ä", "Ä bc", "Ä bc  déf", "Ä bc  déf\ng"]
    assert [text[:place].decode() for place in Words().offsets(text, 0, 2, 2)] == ["", "Ä bc", "Ä bc  déf\ng"]
    assert Words().offsets(text, 3, 2, 2) == Words().offsets(text, 0, 2, 2)[1:]
    # Without white space behind it, the last word may be unfinished.
    assert Words().offsets(text.rstrip(), 0, 1, 2) == Words().offsets(text, 0, 1, 2)[:-1]
    for short in (b"", b"   ", b"a", b"a b"):
        assert Words().offsets(short, 0, 1, 2) == []


def test_positions_of_bytes_are_beginnings_of_characters() -> None:
    text = "aé日🙂b".encode()  # 1 + 2 + 3 + 4 + 1 bytes
    assert Bytes().offsets(text, 0, 1, 2) == [0, 1, 3, 6]
    assert Bytes().offsets(text, 0, 2, 2) == [0, 3, 6]
    assert Bytes().offsets(text, 4, 1, 2) == [6]
    assert Bytes().offsets(text, 0, 1, 11) == [0]
    assert Bytes().offsets(text, 0, 1, 12) == []


@pytest.mark.parametrize(
    ("continuation", "outcomes"),
    [
        (b" the  cat\nsat", (b"the", b"cat", None)),
        (b"s of it ", (b"s", b"of", b"it")),
        (b"", (None, None, None)),
        (b"  \n ", (None, None, None)),
        (" naïve 日本語\u3000x".encode(), ("naïve".encode(), "日本語".encode(), None)),
        ("é".encode()[:1] + b" a b ", ("é".encode()[:1], b"a", b"b")),
        (b"a " + b"x" * 63 + b" b ", (b"a", b"x" * 63, b"b")),
        (b"a " + b"x" * 64 + b" b ", (b"a", None, None)),
        (b"a" + b" " * 64 + b"x b ", (b"a", None, None)),
    ],
)
def test_words_of_a_continuation(continuation: bytes, outcomes: tuple[bytes | None, ...]) -> None:
    assert Words().outcomes(continuation, 3) == outcomes
    assert Words().outcomes(continuation, 1) == outcomes[:1]


def test_bytes_of_a_continuation() -> None:
    assert Bytes().outcomes("é!".encode(), 2) == (b"\xc3", b"\xa9")
    assert Bytes().outcomes(b"a", 2) == (b"a", None)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([Words(), Bytes()]),
    st.text(st.sampled_from("ab é日\n\u3000"), max_size=90),
    st.text(st.sampled_from("a é\u3000"), max_size=6),
    st.integers(0, 400),
)
def test_what_is_settled_does_not_change(unit: TextUnit, text: str, more: str, cut: int) -> None:
    """Wherever a text is cut, inside characters too, what its unit calls settled is what all of it gives."""
    whole = (text + more).encode()
    begun = whole[:cut]
    if unit.settled(begun, 3):
        assert unit.outcomes(begun, 3) == unit.outcomes(whole, 3)
    assert unit.settled(begun + b"x" * unit.most_bytes(3), 3)


def test_a_protocol_names_its_unit() -> None:
    texts = documents(3, 30)
    words, bytes_ = (text_protocol_for(texts, unit=unit) for unit in ("words", "bytes"))
    tokens = Protocol(
        corpus_digest=words.documents_digest, tokenizer_digest="t", split="test", context_length=256, first_position=64,
        position_stride=8, num_samples=8, max_windows=None, seed=0,
    )  # fmt: skip
    assert len({words.hash, bytes_.hash, tokens.hash, text_protocol_for(texts[:2], unit="words").hash}) == 4
    assert words.hash == text_protocol_for(texts, unit="words").hash
    assert words.max_word_bytes == MAX_WORD_BYTES
    assert TextProtocol.model_validate(words.model_dump(mode="json")) == words
    for changes in ({"ngram_lengths": (2, 1)}, {"first_position": 300}, {"unit": "letters"}, {"num_samples": 1}):
        with pytest.raises(EvaluationError):
            text_protocol_for(texts, **{"unit": "words", **changes})


def test_the_context_is_whole_characters_and_the_same_for_all() -> None:
    protocol = text_protocol_for([], unit="bytes", context_bytes=4, first_position=1)
    text = "aé日🙂b".encode()
    assert [protocol.context(text, place) for place in (1, 3, 6, 10)] == ["a", "aé", "日", "🙂"]
    few = text_protocol_for([], unit="words", max_positions=2, first_position=0)
    assert len(few.offsets(b"a b c d e f g h i j k l m n o p q r s t u v w x y z ")) == 2


def test_words_score_their_exact_value_whatever_the_tokenizer() -> None:
    texts = documents(40, 60)
    protocol = text_protocol_for(texts, unit="words", first_position=0, num_samples=6, position_stride=4)
    bpe = BpeTokenizer.train(texts, 300)
    results = [
        evaluate_text_brierlm(TokenTextSampler(WordLanguage(tokenizer), tokenizer), texts, protocol)
        for tokenizer in (bpe, ByteTokenizer())
    ]
    for result in results:
        assert np.abs((np.array(result.brier) - exact_words()) / result.brier_se).max() < 3.5
        assert result.interval[0] < brierlm(exact_words()) < result.interval[1]
        assert result.error_unit == "document"
        assert result.num_documents == 40
        assert result.protocol_hash == protocol.hash
    difference = paired_difference(results[0].sums, results[1].sums, seed=0)
    assert abs(difference.value) <= 3.5 * difference.standard_error
    # The same random numbers choose the same words, so what differs is only where the tokens of a round end.
    assert difference.standard_error < 0.2 * results[0].brierlm_se


def markov(order: int = 2) -> MarkovLanguage:
    return MarkovLanguage(Markov(order=order, alphabet_size=5, concentration=0.3))


def test_bytes_score_their_exact_value() -> None:
    truth = markov()
    texts = list(truth.sample_documents(400, 40))
    protocol = text_protocol_for(texts, unit="bytes", first_position=4, context_bytes=16)
    result = evaluate_text_brierlm(TokenTextSampler(MarkovSampler(truth), ByteTokenizer()), texts, protocol)
    exact = np.array([truth.exact_brier(n) for n in (1, 2, 3, 4)])
    assert np.abs((np.array(result.brier) - exact) / result.brier_se).max() < 3.5
    assert result.num_positions == 400 * 5
    assert result.noise is not None
    plain = result.to_dict()
    assert plain["protocol"]["unit"] == "bytes"
    assert result.scored.protocol_hash == protocol.hash


def test_a_text_that_ends_is_an_outcome_of_its_own() -> None:
    """A model that always ends at once: its samples agree with each other, and with no target."""
    texts, tokenizer = documents(12, 30), ByteTokenizer()
    sampler = TokenTextSampler(WordLanguage(tokenizer, 0), tokenizer)
    result = evaluate_text_brierlm(sampler, texts, text_protocol_for(texts, unit="words", first_position=8))
    assert result.brier == (-1.0,) * 4
    assert result.brierlm == 0.0
    # Inside a word there is something left to say: bytes that agree, until the end.
    result = evaluate_text_brierlm(sampler, texts, text_protocol_for(texts, unit="bytes", first_position=8))
    assert result.brier[0] > 0 > result.brier[3] > -1
    # Of two words, the second is not followed by white space; then bigrams of samples agree where their words do.
    sampler = TokenTextSampler(WordLanguage(tokenizer, 2), tokenizer)
    result = evaluate_text_brierlm(sampler, texts, text_protocol_for(texts, unit="words", first_position=8))
    assert result.brier[0] > 0 > result.brier[1]
    assert result.brier[1] == result.brier[2] == result.brier[3]


@pytest.mark.parametrize("unit", ["words", "bytes"])
def test_neither_batches_nor_other_documents_change_a_document(unit: UnitName) -> None:
    texts = documents(12, 40)
    sampler = TokenTextSampler(WordLanguage(ByteTokenizer()), ByteTokenizer())
    calls: list[tuple[int, int]] = []
    settings_ = {"unit": unit, "first_position": 0, "position_stride": 16, "num_samples": 4}
    whole = evaluate_text_brierlm(
        sampler, texts, text_protocol_for(texts, **settings_), lambda *done: calls.append(done), positions_at_once=7
    )
    assert calls[-1] == (whole.num_positions, whole.num_positions)
    single = evaluate_text_brierlm(sampler, texts, text_protocol_for(texts, **settings_), positions_at_once=1)
    np.testing.assert_array_equal(whole.sums.totals, single.sums.totals)
    turned = evaluate_text_brierlm(sampler, texts[::-1], text_protocol_for(texts[::-1], **settings_))
    np.testing.assert_array_equal(whole.sums.totals, turned.sums.totals[::-1])
    assert turned.protocol_hash != whole.protocol_hash


def test_few_documents_are_replaced_by_stretches() -> None:
    texts = documents(2, 200)
    sampler = TokenTextSampler(WordLanguage(ByteTokenizer()), ByteTokenizer())
    result = evaluate_text_brierlm(sampler, texts, text_protocol_for(texts, unit="words"))
    assert (result.error_unit, result.num_documents) == ("window", 2)
    assert len(result.sums.counts) == result.num_windows > 2


def test_what_cannot_be_scored_is_refused() -> None:
    tokenizer = ByteTokenizer()
    sampler = TokenTextSampler(WordLanguage(tokenizer), tokenizer)
    short = ["a b c", "d e f g", "", "é"]
    with pytest.raises(EvaluationError, match="4 documents have 0 positions with 64 bytes before and 4 words after"):
        evaluate_text_brierlm(sampler, short, text_protocol_for(short, unit="words"))
    # Documents too short are left out, and the others count.
    texts = [*short, *documents(10, 60)]
    assert evaluate_text_brierlm(sampler, texts, text_protocol_for(texts, unit="words")).num_documents == 10
    with pytest.raises(EvaluationError, match="not those of the protocol"):
        evaluate_text_brierlm(sampler, texts, text_protocol_for(short, unit="words"))
    with pytest.raises(EvaluationError, match="cannot be written as UTF-8"):
        text_protocol_for(["half a pair \ud83d"], unit="words")


def test_text_without_spaces_is_scored_in_bytes() -> None:
    """More of such text would not help."""
    texts = ["".join(random.Random(number).choices("日本語abc", k=400)) for number in range(20)]
    sampler = TokenTextSampler(WordLanguage(ByteTokenizer()), ByteTokenizer())
    with pytest.raises(EvaluationError, match=r"score bytes instead \(calm-bench eval --protocols bytes\)"):
        evaluate_text_brierlm(sampler, texts, text_protocol_for(texts, unit="words"))
    protocol = text_protocol_for(texts, unit="bytes", max_positions=2, num_samples=2)
    assert evaluate_text_brierlm(sampler, texts, protocol).num_documents == 20


class TooFew(TokenTextSampler):
    def sample_text(self, *arguments: object) -> list[list[bytes]]:
        return [texts[:-1] for texts in super().sample_text(*arguments)]  # type: ignore[arg-type]


def test_too_few_samples_are_refused() -> None:
    texts = documents(3, 60)
    with pytest.raises(EvaluationError, match="drew another number"):
        evaluate_text_brierlm(
            TooFew(WordLanguage(ByteTokenizer()), ByteTokenizer()), texts, text_protocol_for(texts, unit="words")
        )
