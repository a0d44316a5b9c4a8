"""Generation: alignment of the prompt, conditioning by rejection, ends, and agreement with cache-free computation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Generator, Tensor

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.finite import NotFinite
from calm_bench.lm import Calm, ChunkLanguageModel, TokenModel
from calm_bench.lm.folder import build_language_model
from calm_bench.sampling.generate import Decoding, generate, generate_batch
from calm_bench.sampling.reader import Reader

VOCAB_SIZE = 6
EOS = 5


def model_of(chunk_size: int, seed: int = 0) -> ChunkLanguageModel:
    """A token model (chunk_size 0) or a chunk model with weights large enough to say something."""
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_layers": 2,
        "kind": "calm" if chunk_size else "token",
        "chunk_size": max(1, chunk_size),
    }
    config = LanguageModelConfig.model_validate(sizes)
    model: ChunkLanguageModel
    if chunk_size == 0:
        model = TokenModel(config, VOCAB_SIZE)
    else:
        autoencoder = Autoencoder(
            AutoencoderConfig(latent_size=8, hidden_size=16, intermediate_size=24), chunk_size, VOCAB_SIZE
        )
        model = Calm(config, autoencoder)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # a large bias would say the same whatever was read
                parameter.add_(0.4 * torch.randn(parameter.shape))
    return model.eval()


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


@pytest.mark.parametrize("chunk_size", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("prompt_length", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("max_new_tokens", [0, 1, 7])
def test_length_is_exact_unless_the_text_ends(chunk_size: int, prompt_length: int, max_new_tokens: int) -> None:
    prompt = [index % 4 for index in range(prompt_length)]
    pieces: list[int] = []
    found = generate(model_of(chunk_size), prompt, max_new_tokens, seeded(1), EOS, on_tokens=pieces.extend)
    assert EOS not in found.tokens
    assert pieces == found.tokens
    assert len(found.tokens) < max_new_tokens if found.ended else len(found.tokens) == max_new_tokens
    assert found.head_evaluations >= -(-len(found.tokens) // max(1, chunk_size))


@pytest.mark.parametrize("chunk_size", [0, 2, 4])
def test_cache_changes_nothing(chunk_size: int) -> None:
    """The same draws as reading the whole text again for every chunk."""
    model = model_of(chunk_size, seed=1)
    prompt, longest = [0, 1, 2, 3, 4, 5, 1, 0], 0
    # Whatever the untrained model likes to say, some token is rare enough, as the end, to let texts grow.
    for seed, end in enumerate([0, 1, 2, 3, 4, 5]):
        found = generate(model, prompt, 40, seeded(seed), end)
        generator, text = seeded(seed), list(prompt)
        while len(text) < len(prompt) + 40 and end not in text[len(prompt) :]:
            with torch.no_grad():
                hidden = model.hidden_states(torch.tensor([text]))[0, -1]
                text += model.draw(hidden, 1, generator)[0].tolist()
        expected = text[len(prompt) : len(prompt) + 40]
        if end in expected:
            expected = expected[: expected.index(end)]
        assert found.tokens == expected
        longest = max(longest, len(expected))
    assert longest > max(1, chunk_size)  # at least one sampled chunk was read from the cache


def test_end_inside_a_chunk_cuts_there() -> None:
    model = model_of(4)
    results = [generate(model, [0, 1, 2, 3], 64, seeded(seed), EOS) for seed in range(40)]
    ended = [result for result in results if result.ended]
    assert any(len(result.tokens) % 4 for result in ended)
    assert all(EOS not in result.tokens for result in results)


@pytest.mark.slow
def test_left_over_prompt_tokens_condition_the_chunk_exactly() -> None:
    """Next-token frequencies after a prompt of K + 2 tokens against conditional frequencies of free chunks."""
    model = model_of(4)
    context = [0, 1, 2, 3]
    with torch.no_grad():
        hidden = model.hidden_states(torch.tensor([context]))[0, -1]
        chunks = model.draw(hidden, 50_000, seeded(0))
    counts = Counter(map(tuple, chunks[:, :2].tolist()))
    known = list(counts.most_common(3)[-1][0])
    fitting = chunks[(chunks[:, :2] == torch.tensor(known)).all(1)][:, 2]
    exact = torch.bincount(fitting, minlength=VOCAB_SIZE).double() / len(fitting)
    num_runs = 300
    results = [generate(model, context + known, 1, seeded(seed), EOS) for seed in range(num_runs)]
    assert not any(result.fell_back for result in results)
    tokens = torch.tensor([EOS if result.ended else result.tokens[0] for result in results])
    frequency = torch.bincount(tokens, minlength=VOCAB_SIZE).double() / num_runs
    error = (exact * (1 - exact) * (1 / num_runs + 1 / len(fitting))).sqrt()
    assert ((frequency - exact).abs() <= 4 * error + 1e-9).all()
    assert exact.max() < 0.95  # more than one continuation, or nothing was tested
    draws = sum(result.head_evaluations for result in results) / num_runs
    # Draws come in doubling batches: at least 1/p are needed on average, at most about four times as many made.
    expected = len(chunks) / counts[tuple(known)]
    assert 0.8 * expected < draws < 4 * expected


class NeverZeroCalm(Calm):
    """Never draws token 0, so a chunk cannot begin with it."""

    def draw(self, hidden: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        return super().draw(hidden, num_samples, generator).clamp(1, VOCAB_SIZE - 2)

    def draw_rows(self, hidden: Tensor, num_samples: int, generators: Sequence[Generator]) -> Tensor:
        return super().draw_rows(hidden, num_samples, generators).clamp(1, VOCAB_SIZE - 2)


@pytest.mark.parametrize(
    ("prompt", "aligned"),
    [([1, 2, 3, 4, 2, 0], [3, 4, 2, 0]), ([0, 2, 0], [EOS, 0, 2, 0]), ([0], [EOS, EOS, EOS, 0])],
)
def test_fallback_aligns_chunks_with_the_prompts_end(prompt: list[int], aligned: list[int]) -> None:
    model = model_of(4)
    model.__class__ = NeverZeroCalm
    found = generate(model, prompt, 6, seeded(0), EOS, Decoding(max_draws=10))
    assert found.fell_back
    assert found.head_evaluations == 12  # ten rejected, two used
    generator = seeded(0)
    with torch.no_grad():
        # The rejected draws came from the same generator, in batches of 1, 1, 2, 4 and the 2 left.
        before = model.hidden_states(torch.tensor([prompt[:4] if len(prompt) > 4 else [EOS] * 4]))[0, -1]
        for size in (1, 1, 2, 4, 2):
            model.draw(before, size, generator)
        first = model.draw(model.hidden_states(torch.tensor([aligned]))[0, -1], 1, generator)[0].tolist()
    assert found.tokens[:4] == first


def test_same_seed_same_text() -> None:
    model = model_of(2)
    assert generate(model, [1], 20, seeded(5), EOS) == generate(model, [1], 20, seeded(5), EOS)
    assert generate(model, [1], 20, seeded(5), EOS) != generate(model, [1], 20, seeded(6), EOS)


DECODINGS = [
    Decoding(max_draws=64),
    Decoding(0.6, max_draws=64),
    Decoding(0.5, "batch", candidates=30, max_draws=90),
]
PROMPTS = [[0, 1, 2, 3, 4, 1, 2, 3, 0], [], [3, 2, 1, 0], [1], [2, 2, 0, 1, 3, 4]]


@pytest.mark.parametrize("chunk_size", [0, 1, 3, 4])
@pytest.mark.parametrize("decoding", DECODINGS)
def test_a_batch_gives_each_row_what_it_would_get_alone(chunk_size: int, decoding: Decoding) -> None:
    """Prompts of unequal lengths, with and without left-over tokens; rows end at different times."""
    model = model_of(chunk_size, seed=2)
    pieces: dict[int, list[list[int]]] = {row: [] for row in range(len(PROMPTS))}
    together = generate_batch(
        model, PROMPTS, 15, [seeded(row) for row in range(5)], EOS, decoding, lambda row, new: pieces[row].append(new)
    )
    alone = [generate(model, prompt, 15, seeded(row), EOS, decoding) for row, prompt in enumerate(PROMPTS)]
    assert together == alone
    assert [result.tokens for result in together] == [
        [token for piece in own for token in piece] for own in pieces.values()
    ]
    assert all(own.index([]) == len(own) - 1 for own in pieces.values())  # the last piece says that it is the last
    assert len({tuple(result.tokens) for result in together}) > 1


def test_a_row_that_falls_back_leaves_the_others_alone() -> None:
    model = model_of(4)
    model.__class__ = NeverZeroCalm
    prompts = [[1, 2, 3, 4, 2, 0], [1, 2, 3, 4], [0], [3, 2, 1, 4, 3, 2, 1, 4, 1]]
    decoding = Decoding(max_draws=64)
    together = generate_batch(model, prompts, 18, [seeded(row) for row in range(4)], EOS, decoding)
    assert [result.fell_back for result in together] == [True, False, True, False]
    assert together == [generate(model, p, 18, seeded(row), EOS, decoding) for row, p in enumerate(prompts)]


def test_hidden_states_of_padded_rows_are_those_without_padding() -> None:
    model = model_of(2)
    texts = [[0, 1, 2, 3, 4, 0], [1, 2], [3, 3, 1, 0]]
    reader = Reader(model, texts)
    with torch.no_grad():
        for text, hidden in zip(texts, reader.hidden, strict=True):
            torch.testing.assert_close(hidden, model.hidden_states(torch.tensor([text]))[0, -1])
        chunks = torch.tensor([[1, 1], [0, 4], [2, 3]])
        reader.read(chunks)
        reader.keep([2, 1])
        reader.read(chunks[:2])
        for text, more, hidden in zip([texts[2], texts[1]], [[2, 3, 1, 1], [0, 4, 0, 4]], reader.hidden, strict=True):
            torch.testing.assert_close(hidden, model.hidden_states(torch.tensor([text + more]))[0, -1])


def test_no_prompts_no_texts() -> None:
    assert generate_batch(model_of(2), [], 5, [], EOS) == []
    with pytest.raises(ValueError, match="2 prompts need as many generators, found 1"):
        generate_batch(model_of(2), [[], []], 5, [seeded(0)], EOS)


def test_low_temperature_repeats_itself_more() -> None:
    """Collisions of two texts of the same prompt, which a lower temperature makes likelier."""
    model = model_of(2, seed=3)
    agree = []
    for temperature in (1.0, 0.5, 0.25):
        prompts = [[0, 1, 2, 3]] * 120
        results = generate_batch(model, prompts, 4, [seeded(row) for row in range(120)], EOS, Decoding(temperature))
        texts = Counter(tuple(result.tokens) for result in results)
        agree.append(sum(count * (count - 1) for count in texts.values()) / (120 * 119))
    assert agree[0] < agree[1] < agree[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([VOCAB_SIZE], 1), "token 6 is not in the model's vocabulary of 6"),
        (([0], -1), "must not be negative"),
    ],
)
def test_impossible_requests_are_refused(arguments: tuple[list[int], int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(model_of(1), *arguments, seeded(0), EOS)


@pytest.mark.parametrize("kind", ["token", "patch", "block_diffusion", "calm"])
@pytest.mark.parametrize("prompt", [[0, 1], [0]])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_nan_is_an_error_before_any_text(kind: str, prompt: list[int], temperature: float) -> None:
    """Also where whether the model's numbers are finite is asked after later tokens of the chunk were drawn."""
    if kind in ("token", "calm"):
        model = model_of(0 if kind == "token" else 2)
    else:
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_layers": 1, "num_attention_heads": 4}
        config = LanguageModelConfig.model_validate({**sizes, "kind": kind, "chunk_size": 2})
        model = build_language_model(config, VOCAB_SIZE, None, seed=0).eval()
    with torch.no_grad():
        # Numbers themselves, whose products are none.
        model.backbone.norm.weight.fill_(3e38)
    pieces: list[list[int]] = []
    with pytest.raises(NotFinite, match=r"the model's (logits|latents) are not finite: its weights are damaged"):
        generate(model, prompt, 8, seeded(0), EOS, Decoding(temperature), pieces.append)
    assert not pieces


@pytest.mark.parametrize(
    ("chunk_size", "part"),
    [
        (0, "backbone.layers.0.self_attn.q_proj.weight"),  # of which attention on a CPU makes ordinary numbers
        (0, "backbone.embed_tokens.weight"),
        (2, "backbone.layers.1.self_attn.k_proj.weight"),
        (2, "head.final.out_proj.weight"),
        (2, "autoencoder.decoder.from_latent.bias"),
        (2, "autoencoder.encoder.embedding.weight"),
    ],
)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_weights_that_are_not_finite_are_named_before_any_text(
    chunk_size: int, part: str, value: float, temperature: float
) -> None:
    model, pieces = model_of(chunk_size), list[list[int]]()
    with torch.no_grad():
        model.get_parameter(part).view(-1)[-1] = value
    with pytest.raises(NotFinite, match=rf"the model's weights \({part}\) are not finite: they are damaged"):
        generate(model, [0, 1, 2], 8, seeded(0), EOS, Decoding(temperature), pieces.append)
    assert not pieces
