"""Texts of several prompts, streamed, and what is said about them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from calm_bench.atomic import write_json
from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.config import Samples
from calm_bench.lm import Calm
from calm_bench.opening import TokenIds, open_vocabulary
from calm_bench.overrides import ConfigurationError
from calm_bench.sampling.temperature import Decoding
from calm_bench.tokens.byte_tokenizer import ByteTokenizer
from calm_bench.tokens.tokenizer import TokenizerError
from pipelines.app.commands.generate import Method, generate
from pipelines.scoring.generation import continue_texts
from pipelines.scoring.models import TrainedModel, find_model
from pipelines.scoring.scoring import Scoring
from pipelines.store.store import Store
from pipelines.study.stage import Stage
from tests.evals.tiny_models import save_tiny


@pytest.fixture
def model(tmp_path: Path) -> TrainedModel:
    torch.manual_seed(0)
    sizes = {"kind": "calm", "chunk_size": 2, "hidden_size": 16, "intermediate_size": 24, "num_layers": 1}
    autoencoder = Autoencoder(AutoencoderConfig(latent_size=8, hidden_size=16, intermediate_size=24), 2, 257)
    network = Calm(LanguageModelConfig.model_validate(sizes), autoencoder)
    with torch.no_grad():
        network.head.final.out_proj.weight.normal_()
    network.save(tmp_path / "model")
    ByteTokenizer().save(tmp_path / "model" / "tokenizer")
    return find_model(str(tmp_path), Store(tmp_path / "runs"))


def test_texts_are_drawn_in_tf32_on_a_gpu(model: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []
    monkeypatch.setattr("pipelines.scoring.generation.set_tf32", lambda *settings: asked.append(settings))
    continue_texts(model, ["ab"], 2, 0, Decoding())
    assert asked == [("cpu", True)]


def test_a_terminal_is_not_steered_by_what_a_model_continues(
    model: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = os.openpty()
    with open(theirs, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        generate(str(model.folder), ["a\x1b[31mb\x07"], tokens=2, method=Method.auto, device="cpu")
        terminal.flush()
        shown = os.read(ours, 4096)
    os.close(ours)
    assert shown.startswith("a�[31mb�".encode())
    written: list[str] = []
    continue_texts(model, ["a\x1b[31mb"], 2, 0, Decoding(), write=written.append)
    assert "".join(written).startswith("a\x1b[31mb"), "as it is for who is no terminal"


def test_a_model_of_few_positions_has_some_left_to_write_on(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "gpt2", positions=32)
    store = Store(tmp_path / "runs")
    corpus = ["corpus.source=markov", "corpus.markov.num_documents=40", "corpus.markov.document_length=300"]
    scoring = Scoring(find_model(str(folder), store), store, corpus, "cpu")
    texts = scoring.texts(Samples(num_prompts=2, num_tokens=64, prompt_tokens=64))
    assert len(texts) == 2 * len(Samples().temperatures)
    for text in texts:
        read = len(scoring.tokenizer.encode(text["prompt"]))
        assert 24 >= read > 16, "three quarters of what it reads"
        assert read + text["num_tokens"] == 32 or text["ended"]


def test_what_is_streamed_is_what_is_returned(model: TrainedModel) -> None:
    written: list[str] = []
    said: list[str] = []
    prompts = ["ab", "", "abcdef"]
    texts = continue_texts(model, prompts, 9, 0, Decoding(0.5, max_draws=64), write=written.append, say=said.append)
    expected = "\n".join(f"{prompt}{text}\n" for prompt, text in zip(prompts, texts, strict=True))
    assert "".join(written) == expected
    assert len(written) > 6
    assert said[0].startswith("sample T=0.5 (exact): ")
    assert "head and" in said[0]


def test_a_prompt_is_continued_as_it_would_be_alone(model: TrainedModel) -> None:
    decoding = Decoding(0.7, max_draws=64)
    together = continue_texts(model, ["ab", "zz", "ab"], 12, 3, decoding)
    assert together[0] == continue_texts(model, ["ab"], 12, 3, decoding)[0]
    assert together[1] == continue_texts(model, ["zz"], 12, 3, decoding)[0]
    assert together[2] != together[0]  # the same prompt twice is not the same text twice


def test_approximations_are_told(model: TrainedModel) -> None:
    said: list[str] = []
    continue_texts(model, ["a"], 8, 0, Decoding(0.2, max_draws=3), say=said.append)
    assert any("aligned with the prompt's end" in line for line in said)
    assert any("not accepted within 3 draws" in line for line in said)
    # At T = 1/5 three draws cannot hold five equal chunks.
    assert said[-1].endswith("--max-draws allows more, and would take more draws than these can tell")


def test_auto_says_what_the_exact_algorithm_would_take(model: TrainedModel) -> None:
    said: list[str] = []
    continue_texts(model, ["ab"], 16, 0, Decoding(0.5, "auto", candidates=40), say=said.append)
    assert said[0].startswith("sample T=0.5 (auto up to 40): ")
    told = re.fullmatch(
        r"(\d) chunks were not accepted within 40 draws and were chosen .*; --method exact draws more, and would take "
        r"some ([\d,]+) attempts a chunk",
        said[-1],
    )
    assert told is not None, said[-1]
    # In 40 draws without an accepted pair, few of the 780 pairs are equal.
    assert 10 < int(told[2].replace(",", "")) <= 1 * 780 * int(told[1])


def test_a_prompt_that_is_no_text_is_said(model: TrainedModel) -> None:
    """As a command line brings bytes of another encoding."""
    raw = b"a long way to the caf\xe9"
    with pytest.raises(ConfigurationError, match=r"no text in UTF-8, at '.*the caf\\xe9': convert it") as refused:
        continue_texts(model, ["fine", os.fsdecode(raw)], 4, 0, Decoding(max_draws=64))
    named = re.search(r"iconv -f LATIN1 -t UTF-8", str(refused.value))
    assert named is not None
    converted = subprocess.run(named[0].split(), input=raw, capture_output=True, check=True).stdout
    continue_texts(model, [os.fsdecode(converted)], 4, 0, Decoding(max_draws=64))


def test_without_a_tokenizer_prompts_are_ids(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"eos_token_id": 255}')
    vocabulary = open_vocabulary(tmp_path)
    assert vocabulary.eos_id == 255
    assert vocabulary.encode("5 17, 42") == [5, 17, 42]
    assert vocabulary.decode([7, 8]) == " 7 8"
    with pytest.raises(TokenizerError, match="has no tokenizer"):
        TokenIds(255).encode("five")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TokenizerError, match="no eos_token_id"):
        open_vocabulary(tmp_path)


def test_a_folder_without_weights_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no model"):
        find_model(str(tmp_path), Store(tmp_path / "runs"))


def test_a_model_that_a_kind_from_elsewhere_trained_has_its_origin(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    corpus = Stage("corpus", 1, {"n": 1}, settings={"corpus": {"source": "stdlib"}})
    tokens = Stage("tokens", 1, {"n": 2}, {"corpus": corpus})
    tuned = Stage("tuned", 1, {"n": 3}, {"tokens": tokens})
    evaluation = Stage("evaluation", 1, {"protocol": {"context_length": 77}}, {"language_model": tuned})
    for stage in (corpus, tokens, tuned, evaluation):
        folder = store.root / "stages" / stage.kind / stage.identity
        (folder / "model").mkdir(parents=True)
        write_json(folder / "config.json", stage.description())
        write_json(folder / "result.json", {})
    (folder.parent.parent / "tuned" / tuned.identity / "model" / "model.safetensors").touch()
    model = find_model(str(store.root / "stages" / "tuned" / tuned.identity), store)
    assert model.corpus == {"source": "stdlib"}
    assert model.evaluation is not None
    assert model.evaluation["context_length"] == 77
