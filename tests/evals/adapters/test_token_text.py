"""Text out of tokens: the bytes of every token, chunk models, limits, and refusals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import Evaluation
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.head_config import EnergyHead
from calm_bench.lm import Calm
from calm_bench.tokens import ByteTokenizer
from calm_bench.tokens.bpe import BpeTokenizer
from calm_bench.tokens.hugging_face import HuggingFaceTokenizer
from evals.adapters.hugging_face import HuggingFaceSampler
from evals.adapters.token_bytes import token_bytes
from evals.adapters.token_text import TokenTextSampler
from evals.any_sampler import score
from evals.brier import Integers
from evals.evaluate import ModelSampler
from evals.protocol import EvaluationError
from evals.text_brier import evaluate_text_brierlm, text_protocol_for
from evals.text_units import Bytes, Words
from tests.evals.tiny_models import tiny_model, tiny_tokenizer

TEXTS = ["the quick brown fox", " naïve 日本語 🙂\n\n\tx", "a<b>  c"]


def wrapped(backend: Tokenizer, end: str = "</s>") -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end), "test")


def spaces_as_words() -> HuggingFaceTokenizer:
    """As SentencePiece has it: U+2581 for spaces, one also before a text, and single bytes for other characters."""
    pieces = ["</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcfghiknoqrtuwx", "▁the", "▁qu"]
    backend = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return wrapped(backend)


@pytest.mark.parametrize(
    "tokenizer",
    [
        ByteTokenizer(),
        BpeTokenizer.train(TEXTS * 3, 300),
        HuggingFaceTokenizer(tiny_tokenizer(), "t"),
        spaces_as_words(),
    ],
    ids=["bytes", "bpe", "byte-level", "byte-fallback"],
)
def test_the_bytes_of_tokens_are_the_bytes_of_the_text(tokenizer: Any) -> None:
    table = token_bytes(tokenizer)
    assert table is not None
    assert len(table) == tokenizer.vocab_size
    assert table[tokenizer.eos_id] == b""
    for text in TEXTS:
        written = b"".join(table[token] for token in tokenizer.encode(text))
        assert written in (text.encode(), b" " + text.encode())
    assert sum(map(len, table)) >= 256


class Says:
    """Goes on with the tokens of one text after another, a call each."""

    chunk_size = 1

    def __init__(self, tokenizer: Any, texts: Sequence[Sequence[int]]) -> None:
        self.vocab_size, self.end = tokenizer.vocab_size, tokenizer.eos_id
        self.texts = list(texts)
        self.contexts: list[list[int]] = []

    def sample(self, contexts: Sequence[Integers], num_samples: int, horizon: int, seeds: Sequence[int]) -> Integers:
        self.contexts += [context.tolist() for context in contexts]
        begun = [next(t for t in self.texts if len(t)) for _ in contexts]
        rows = [(list(text)[:horizon] + [self.end] * horizon)[:horizon] for text in begun]
        self.texts = [text[horizon:] for text in self.texts]
        return np.array(rows)[:, None].repeat(num_samples, axis=1)


def test_characters_in_several_tokens_and_texts_in_several_rounds() -> None:
    tokenizer = ByteTokenizer()
    said = " é" + "日" * 12 + " b c d e f"
    sampler = Says(tokenizer, [tokenizer.encode(said)])
    [[text]] = TokenTextSampler(sampler, tokenizer).sample_text(["ä"], 1, Words(), 4, [0])
    assert Words().outcomes(text, 4) == tuple(word.encode() for word in ["é" + "日" * 12, "b", "c", "d"])
    assert sampler.contexts[0] == list("ä".encode())
    assert sampler.contexts[1] == list("ä".encode() + said.encode()[:32])
    # Cut inside a character: the bytes there are, not U+FFFD.
    [[text]] = TokenTextSampler(Says(tokenizer, [[0xC3]]), tokenizer).sample_text(["a"], 1, Bytes(), 2, [0])
    assert text == b"\xc3"


def test_an_empty_context_and_the_space_that_some_tokenizers_write_first() -> None:
    tokenizer = spaces_as_words()
    ids = tokenizer.encode("the x")
    sampler = TokenTextSampler(Says(tokenizer, [ids, ids]), tokenizer, prefix=[5])
    assert sampler.sample_text([""], 1, Bytes(), 5, [0]) == [[b"the x"]]
    says = Says(tokenizer, [ids])
    assert TokenTextSampler(says, tokenizer, prefix=[5]).sample_text(["a"], 1, Bytes(), 5, [0])[0][0][:4] == b" the"
    assert says.contexts[0][0] == 5
    bare = Says(tokenizer, [ids])
    TokenTextSampler(bare, tokenizer).sample_text([""], 1, Bytes(), 2, [0])
    assert bare.contexts[0] == [tokenizer.eos_id]


def test_a_tokenizer_of_unknown_kind_is_decoded() -> None:
    backend = Tokenizer(models.WordPiece({"</s>": 0, "[UNK]": 1, "play": 2, "##ing": 3, "on": 4}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    tokenizer = wrapped(backend)
    assert token_bytes(tokenizer) is None
    sampler = TokenTextSampler(Says(tokenizer, [[3, 4, 2, 4]]), tokenizer)
    assert sampler.sample_text(["play"], 1, Words(), 3, [0]) == [[b"ing on play on"]]


@pytest.mark.parametrize("context", ["", "ab", "abcdefg "])
def test_a_chunk_model_writes_text(context: str) -> None:
    torch.manual_seed(0)
    config = LanguageModelConfig.model_validate(
        {"hidden_size": 16, "intermediate_size": 24, "num_layers": 2, "num_attention_heads": 2, "chunk_size": 4}
        | {"head": EnergyHead(noise_size=8)}
    )
    own = AutoencoderConfig(latent_size=8, hidden_size=16, intermediate_size=24)
    autoencoder = Autoencoder(own, 4, 257)
    sampler = TokenTextSampler(ModelSampler(Calm(config, autoencoder), eos_id=256), ByteTokenizer())
    alone = sampler.sample_text([context], 3, Bytes(), 5, [7])
    together = sampler.sample_text(["other text", context], 3, Bytes(), 5, [1, 7])
    assert together[1] == alone[0]
    assert len(alone[0]) == 3
    assert len(sampler.sample_text([context], 1, Words(), 1, [7])[0]) == 1


def test_positions_that_are_used_up_end_a_continuation_and_too_long_a_context_is_refused() -> None:
    tokenizer = HuggingFaceTokenizer(tiny_tokenizer(), "tiny")
    sampler = TokenTextSampler(HuggingFaceSampler(tiny_model("gpt2", 270, positions=40), tokenizer), tokenizer)
    drawn = sampler.sample_text(["the quick brown"], 4, Words(), 4, [0])
    assert None in {outcome for text in drawn[0] for outcome in Words().outcomes(text, 4)}
    with pytest.raises(EvaluationError, match=r"60 bytes, 60 tokens, .* longer than the model's 40 positions"):
        sampler.sample_text(["z" * 60], 4, Words(), 4, [0])


@pytest.mark.parametrize("unit", ["words", "bytes"])
def test_what_is_advised_for_a_model_of_few_positions_is_there(unit: str) -> None:
    """Contexts of words and bytes are set in Python alone; from a command tokens are scored."""
    tokenizer, texts = HuggingFaceTokenizer(tiny_tokenizer(), "tiny"), [f"{n} brown jumps " * 30 for n in range(12)]
    model = HuggingFaceSampler(tiny_model("gpt2", 270, positions=64), tokenizer)
    sampler = TokenTextSampler(model, tokenizer)
    with pytest.raises(EvaluationError) as refused:
        evaluate_text_brierlm(sampler, texts, text_protocol_for(texts, unit=unit, num_samples=2))
    told = r"evaluation\.(\w+)=(\d+)\), or in Python lower (\w+) and (\w+) \(text_protocol_for"
    advice = re.search(told, str(refused.value))
    assert advice is not None, refused.value
    lower = {advice[3]: 24, advice[4]: 8, "max_positions": 2}
    assert evaluate_text_brierlm(sampler, texts, text_protocol_for(texts, unit=unit, **lower)).num_windows > 3
    assert advice[1] in Evaluation.model_fields
    assert score(model, texts, tokenizer, num_samples=2, max_windows=4, **{advice[1]: int(advice[2])}).num_windows == 4


def test_another_vocabulary_is_refused() -> None:
    tokenizer = HuggingFaceTokenizer(tiny_tokenizer(), "tiny")
    sampler = HuggingFaceSampler(tiny_model("gpt2", 270), tokenizer)
    with pytest.raises(EvaluationError, match="vocabulary of 270 tokens, the tokenizer bytes one of 257"):
        TokenTextSampler(sampler, ByteTokenizer())
