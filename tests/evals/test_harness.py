"""Our models as a model of lm-eval: borders of contexts and continuations, stop strings, repeats, arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.lm import Calm, ChunkLanguageModel, TokenModel
from calm_bench.overrides import ConfigurationError
from calm_bench.registry import UnknownName
from calm_bench.tokens.byte_tokenizer import ByteTokenizer
from evals.generation_requests import read_request
from evals.harness import NAME, CalmBenchLM, register
from evals.harness_reader import HarnessSettings
from evals.protocol import EvaluationError

EOS = ByteTokenizer.eos_id


def network(chunk_size: int) -> ChunkLanguageModel:
    """An untrained byte model; a token model if ``chunk_size`` is 0."""
    torch.manual_seed(chunk_size)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_layers": 1, "chunk_size": max(1, chunk_size)}
    config = LanguageModelConfig.model_validate({**sizes, "kind": "calm" if chunk_size else "token"})
    model: ChunkLanguageModel
    if chunk_size == 0:
        model = TokenModel(config, 257)
    else:
        settings = AutoencoderConfig(latent_size=8, hidden_size=16, intermediate_size=24)
        model = Calm(config, Autoencoder(settings, chunk_size, 257))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model.eval()


def harness(chunk_size: int, **settings: Any) -> CalmBenchLM:
    return CalmBenchLM(network(chunk_size), ByteTokenizer(), HarnessSettings(**{"num_samples": 8, **settings}))


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(request_type=kind, doc={}, arguments=own, idx=0) for own in arguments]  # type: ignore[arg-type]


def log_likelihood(model: ChunkLanguageModel, tokens: list[int], start: int) -> float:
    assert isinstance(model, TokenModel)
    with torch.no_grad():
        logs = model.lm_head(model.hidden_states(torch.tensor([tokens]))).log_softmax(-1)[0]
    return sum(float(logs[place - 1, tokens[place]]) for place in range(start, len(tokens)))


PAIRS = [("abcdefg", "hij"), ("", "xyz"), ("abc ", "de"), ("a", ""), ("naïve §", "café"), ("", "")]


def test_token_model_is_exact() -> None:
    lm = harness(0)
    answers = lm.loglikelihood(requests("loglikelihood", *PAIRS))
    for (context, continuation), (value, _) in zip(PAIRS, answers, strict=True):
        before = list(context.rstrip().encode()) or [EOS]
        asked = list((context + continuation)[len(context.rstrip()) :].encode()) if continuation else []
        assert value == pytest.approx(log_likelihood(lm.network, before + asked, len(before)), abs=1e-4)
        assert lm.scores[context, continuation].value == value
    assert answers[3] == (0.0, True)


@pytest.mark.parametrize("alignment", ["start", "continuation"])
@pytest.mark.parametrize("chunk_size", [1, 3, 4])
def test_every_border_is_defined(alignment: str, chunk_size: int) -> None:
    lm = harness(chunk_size, alignment=alignment, scorer="decoder")
    answers = lm.loglikelihood(requests("loglikelihood", *PAIRS))
    backwards = harness(chunk_size, alignment=alignment, scorer="decoder").loglikelihood(
        requests("loglikelihood", *PAIRS[::-1])
    )[::-1]
    for (context, continuation), (value, _), (again, _) in zip(PAIRS, answers, backwards, strict=True):
        score = lm.scores[context, continuation]
        assert value == pytest.approx(again, rel=1e-4, abs=1e-4)
        assert (value == 0) == (continuation == "")
        assert (score.standard_error > 0) == (continuation != "")
        assert score.num_samples == 8
    # The whole text before the border is read: another first letter is another score, if no chunk leaves it out.
    changed = lm.loglikelihood(requests("loglikelihood", ("Xbcdefgh", "ijk"), ("abcdefgh", "ijk")))
    if alignment == "start" or 8 % chunk_size == 0:
        assert changed[0][0] != changed[1][0]


def test_alignment_says_where_chunks_begin() -> None:
    start = harness(4, alignment="start").reader.text("abcdef", "ghij")
    assert start.tokens == tuple(b"abcdefghij")
    assert start.start == 6
    own = harness(4, alignment="continuation").reader.text("abcdef", "ghij")
    assert own.tokens == tuple(b"cdefghij")
    assert own.start == 4
    assert harness(4, alignment="continuation").reader.text("ab", "c").tokens == (EOS, EOS, *b"abc")
    assert harness(4, alignment="start").reader.text("ab", "c").tokens == (EOS,) * 4 + tuple(b"abc")


def test_long_contexts_lose_their_beginning() -> None:
    lm = harness(4, max_length=16, alignment="start")
    text = lm.reader.text("abcdefghijklmnopqrstuvwxyz", "0123")
    assert len(text.tokens) <= 16
    assert text.tokens[-4:] == tuple(b"0123")
    assert text.tokens[: text.start] == tuple(b"abcdefghijklmnopqrstuvwxyz"[-text.start :])
    assert (26 - text.start) % 4 == 0  # chunks stay where they were
    with pytest.raises(EvaluationError, match=r"continuation of 13 tokens cannot be scored within 16 .*max_length"):
        lm.loglikelihood(requests("loglikelihood", ("ab", "0123456789abc")))


def test_rolling_likelihood_scores_every_token_once() -> None:
    lm = harness(0, max_length=8)
    string = "abcdefghijklmnopqrs"
    tokens = [EOS, *string.encode()]
    # Windows of 7 targets after one token; the last one reads as much before its targets as fits.
    expected = (
        log_likelihood(lm.network, tokens[:8], 1)
        + log_likelihood(lm.network, tokens[7:15], 1)
        + log_likelihood(lm.network, tokens[12:20], 3)
    )
    answers = lm.loglikelihood_rolling(requests("loglikelihood_rolling", (string,), ("",), ("é",)))
    assert answers[0] == pytest.approx(expected, abs=1e-4)
    assert answers[1] == 0
    assert answers[2] == pytest.approx(log_likelihood(lm.network, [EOS, *"é".encode()], 1), abs=1e-4)


def test_rolling_of_a_chunk_model_is_the_decoders_bound() -> None:
    string = "abcdefghijklmnopqrstu"
    values = []
    for scorer in ("decoder", "latent_energy"):
        lm = harness(4, max_length=12, scorer=scorer)
        values += lm.loglikelihood_rolling(requests("loglikelihood_rolling", (string,)))
        assert lm.scores["", string].num_chunks == 6
        assert lm.scores["", string].standard_error > 0
    assert values[0] == values[1] < 0


@pytest.mark.parametrize("chunk_size", [0, 4])
def test_generation_stops_and_repeats_differ(chunk_size: int) -> None:
    lm = harness(chunk_size)
    sampled = {"do_sample": True, "temperature": 1.0, "max_gen_toks": 24, "until": []}
    first, second, other = lm.generate_until(
        requests("generate_until", ("ab", sampled), ("ab", sampled), ("cd", sampled))
    )
    assert first != second
    assert lm.generate_until(requests("generate_until", ("cd", sampled), ("ab", sampled))) == [other, first]
    stop = next(letter for letter in first[1:] if letter != first[0] and letter != "\N{REPLACEMENT CHARACTER}")
    cut = lm.generate_until(requests("generate_until", ("ab", {**sampled, "until": [stop, "never"]})))[0]
    assert cut == first[: first.index(stop)]
    assert lm.generate_until(requests("generate_until", ("ab", {**sampled, "until": first[0]})))[0] == ""


def test_greedy_token_model_takes_the_likeliest_token() -> None:
    lm = harness(0)
    written = lm.generate_until(requests("generate_until", ("ab", {"max_gen_toks": 6, "until": []})))[0]
    tokens = list(b"ab")
    with torch.no_grad():
        for _ in range(6):
            assert isinstance(lm.network, TokenModel)
            tokens.append(int(lm.network.lm_head(lm.network.hidden_states(torch.tensor([tokens])))[0, -1].argmax()))
    assert written == ByteTokenizer().decode(tokens[2:])


def test_greedy_chunk_model_takes_the_most_frequent_sample() -> None:
    lm = harness(2, num_samples=64)
    written = lm.generate_until(requests("generate_until", ("ab", {"max_gen_toks": 2, "temperature": 0.0})))[0]
    with torch.no_grad():
        hidden = lm.network.hidden_states(torch.tensor([list(b"ab")]))[0, -1]
        drawn = lm.network.draw(hidden, 4000, torch.Generator().manual_seed(0))
    chunks, counts = torch.unique(drawn, dim=0, return_counts=True)
    likely = chunks[counts >= 0.5 * counts.max()].tolist()
    assert written in {ByteTokenizer().decode(chunk) for chunk in likely}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_sample": True, "top_p": 0.9}, "top_p=0.9 cannot be followed"),
        ({"do_sample": True, "temperature": 1.5}, r"temperature 1.5 is not in \(0, 1\]"),
        ({"max_gen_tokens": 3}, "did you mean 'max_gen_toks'"),
    ],
)
def test_settings_that_cannot_be_followed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        harness(2).generate_until(requests("generate_until", ("ab", settings)))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'decoder'"):
        HarnessSettings(scorer="decode")
    with pytest.raises(ConfigurationError, match="token model has exact likelihoods"):
        harness(0, scorer="decoder")
    with pytest.raises(ConfigurationError, match="chunk model has no exact likelihood"):
        harness(2, scorer="exact")
    with pytest.raises(ConfigurationError, match="num_samples 1"):
        HarnessSettings(num_samples=1)
    with pytest.raises(ConfigurationError, match="did you mean 'scorer'"):
        CalmBenchLM.create_from_arg_string("pretrained=x,scorrer=decoder")
    with pytest.raises(ConfigurationError, match="pretrained=FOLDER"):
        CalmBenchLM.create_from_arg_string("scorer=decoder")


def test_lm_eval_knows_the_model_and_its_own(tmp_path: Path) -> None:
    from lm_eval.api.registry import get_model

    register()
    register()
    assert get_model(NAME) is CalmBenchLM
    assert get_model("hf").__name__ == "HFLM"
    network(2).save(tmp_path / "model")
    ByteTokenizer().save(tmp_path / "model" / "tokenizer")
    lm = get_model(NAME).create_from_arg_string(
        f"pretrained={tmp_path},num_samples=4", {"batch_size": 1, "device": "cuda:0"}
    )
    assert lm.get_model_info()["num_samples"] == 4
    sampler, tokenizer = lm.token_sampler
    assert (sampler.chunk_size, tokenizer.eos_id) == (2, EOS)


def test_nan_says_so() -> None:
    lm = harness(2)
    with torch.no_grad():
        lm.network.backbone.norm.weight.fill_(float("nan"))
    with pytest.raises(EvaluationError, match="not finite"):
        lm.loglikelihood(requests("loglikelihood", ("ab", "cd")))


QUESTION = {"until": ["\n\n"], "max_gen_toks": 256}
"""lm-eval's own settings of a task that leaves them open."""


@pytest.mark.parametrize("chunk_size", [0, 4])
def test_prompts_reach_a_model_of_short_context(chunk_size: int, caplog: pytest.LogCaptureFixture) -> None:
    """Of a context of 256 tokens, 256 are asked for: the prompt is read whole, and the answer is shorter."""
    lm = harness(chunk_size, max_length=256, num_samples=2)
    prompts = [f"{letter} " * 60 + "is the question that is asked of the model here, so what?" for letter in "abc"]
    read: list[list[int]] = []
    whole = lm.network.embed

    def embed(tokens: torch.Tensor) -> torch.Tensor:
        read.extend(tokens.tolist())
        return whole(tokens)

    lm.network.embed = embed  # type: ignore[method-assign]
    texts = lm.generate_until(requests("generate_until", *((prompt, QUESTION) for prompt in prompts)))
    begins = [list(prompt.encode())[:64] for prompt in prompts]
    assert all(any(row[: len(begin)] == begin for row in read) for begin in begins)
    assert len(set(texts)) == 3
    assert all(len(text) <= 256 - len(prompt) + 4 for text, prompt in zip(texts, prompts, strict=True))
    assert lm.shortened == set()
    assert [record.getMessage() for record in caplog.records] == [
        "answers are shorter than the 256 tokens asked for (max_gen_toks) where the prompt leaves less of 256 "
        "(max_length)"
    ]


def test_only_prompts_without_room_lose_their_beginning(caplog: pytest.LogCaptureFixture) -> None:
    lm = harness(4, max_length=64, num_samples=2)
    short, long = "x" * 40, "y" * 100
    lm.generate_until(requests("generate_until", (short, QUESTION), (long, QUESTION), (long, QUESTION)))
    assert lm.shortened == {long}
    assert lm.get_model_info()["num_prompts_shortened"] == 1
    assert len(caplog.records) == 2  # each is said once
    prompt, room = lm.reader.prompt(read_request(long, QUESTION))
    assert (prompt, room) == ([ord("y")] * 48, 16)


def test_prompts_that_fit_are_answered_as_ever() -> None:
    """The numbers of an earlier version, which cut prompts only where they did not fit."""
    lm = harness(4, max_length=256, num_samples=4)
    prompt, room = lm.reader.prompt(read_request("a question", {"max_gen_toks": 20}))
    assert (prompt, room) == (list(b"a question"), 20)


@pytest.mark.parametrize(("chunk_size", "max_length"), [(4, 8), (8, 8), (8, 16), (16, 32)])
def test_a_prompt_that_is_cut_to_a_chunk_keeps_a_whole_one(chunk_size: int, max_length: int) -> None:
    """One token too many must not cost a chunk but for its last token."""
    lm = harness(chunk_size, max_length=max_length, num_samples=2)
    for length in range(chunk_size + 1, 3 * chunk_size):
        context = "".join(chr(ord("a") + index % 26) for index in range(length))
        prompt, _ = lm.reader.prompt(read_request(context, QUESTION))
        assert len(prompt) >= chunk_size
        assert bytes(prompt) == context.encode()[-len(prompt) :]
        asked = "0" * (max(2, max_length // chunk_size) * chunk_size - chunk_size)
        assert lm.reader.text(context, asked).tokens[:chunk_size] == tuple(context.encode()[-chunk_size:])
    starting = harness(chunk_size, max_length=max_length, alignment="start").reader.text(context, asked)
    assert starting.tokens[: starting.start] == tuple(context.encode()[-chunk_size:])


def test_a_context_that_is_cut_keeps_all_the_chunks_that_fit() -> None:
    lm = harness(8, max_length=32)
    text = lm.reader.text("abcdefghijklmnopqrstuvwxyz0123", "asked")
    assert bytes(text.tokens) == b"ghijklmnopqrstuvwxyz0123asked"


def test_of_several_lengths_the_one_counts_that_counts_for_lm_eval() -> None:
    from lm_eval.models.utils import normalize_gen_kwargs

    given = {"max_new_tokens": 12, "max_gen_toks": 30, "max_tokens": 5}
    assert read_request("a", given).settings.max_tokens == normalize_gen_kwargs(given)["max_gen_toks"] == 30


def test_a_chat_template_is_refused() -> None:
    lm = harness(2)
    assert lm.chat_template() == ""
    with pytest.raises(ConfigurationError, match="trained on no chat: leave --apply_chat_template out"):
        lm.chat_template(True)


def test_a_cache_of_answers_belongs_to_one_model(tmp_path: Path) -> None:
    from lm_eval.api.model import CachingLM

    asked = requests("loglikelihood", *PAIRS)
    token, path = harness(0), str(tmp_path / "answers.db")
    answers = CachingLM(token, path).loglikelihood(asked)
    assert CachingLM(harness(0), path).loglikelihood(asked) == answers  # the same weights, opened again
    retrained = harness(0)
    with torch.no_grad():
        next(retrained.network.parameters()).add_(0.01)
    for other in (harness(4), retrained, harness(0, seed=1)):
        with pytest.raises(ConfigurationError, match=f"answers.db holds answers of another model.*{other.identity}"):
            CachingLM(other, path)
    assert CachingLM(harness(4), str(tmp_path / f"answers-{harness(4).identity}.db")).loglikelihood(asked) != answers
    from sqlitedict import SqliteDict

    with SqliteDict(str(tmp_path / "old.db"), autocommit=True) as old:
        old["an answer"] = 1
    with pytest.raises(ConfigurationError, match="of an unknown model"):
        CachingLM(harness(0), str(tmp_path / "old.db"))
