"""Models of transformers: all positions together against one by one, exact laws, files, and refusals."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from calm_bench.finite import NotFinite
from calm_bench.tensor_files import WeightsError
from calm_bench.tokens.hugging_face import HuggingFaceTokenizer
from evals.adapters.hugging_face import HuggingFaceSampler
from evals.evaluate import evaluate_brierlm
from evals.protocol import EvaluationError, Protocol
from tests.evals.tiny_models import save_tiny, tiny_model, tiny_tokenizer

FAST = ["gpt2", "llama", "gpt_neox"]
VOCABULARY = 23


def most_likely(model: Any, text: np.ndarray, horizon: int) -> list[int]:
    """One by one, each time on the whole text."""
    ids = text.tolist()
    with torch.no_grad():
        for _ in range(horizon):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(text) :]


@pytest.mark.parametrize("kind", [*FAST, "bloom"])
def test_all_ways_of_reading_agree_with_one_by_one(kind: str) -> None:
    """With logits so sharp that every draw is the most likely token."""
    model = tiny_model(kind, VOCABULARY, sharpness=1e5)
    sampler = HuggingFaceSampler(model, eos_id=0)
    assert sampler.in_batches == (kind in FAST)
    windows = np.random.default_rng(0).integers(0, VOCABULARY, (3, 20))
    positions = [1, 2, 7, 16, 20]
    drawn = sampler.continue_windows(windows, positions, 3, 4, [1, 2, 3])
    expected = [[most_likely(model, window[:t], 4) for t in positions] for window in windows]
    np.testing.assert_array_equal(drawn, np.array(expected)[:, :, None].repeat(3, axis=2))
    contexts = [windows[0, :5], windows[1, :1], windows[2], np.array([], dtype=np.int64)]
    drawn = sampler.sample(contexts, 2, 4, [1, 2, 3, 4])
    alone = [most_likely(model, context if len(context) else np.array([0]), 4) for context in contexts]
    np.testing.assert_array_equal(drawn, np.array(alone)[:, None].repeat(2, axis=1))
    # Different positions go on differently, or this would show little.
    assert len(np.unique(np.array(expected).reshape(-1, 4), axis=0)) > 5


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "bloom"])
def test_draws_follow_the_model(kind: str) -> None:
    model = tiny_model(kind, 4)
    sampler = HuggingFaceSampler(model, eos_id=0)
    window = np.array([[1, 3, 2, 0, 1]])
    texts = torch.tensor([[1, 3, 2, x] for x in range(4)])
    with torch.no_grad():
        logits = model(input_ids=texts).logits.double().softmax(-1)
    joint = (logits[0, 2, :, None] * logits[:, 3]).flatten().numpy()
    number = 3000
    draws = [
        sampler.continue_windows(window, [3], number, 2, [5])[0, 0],
        sampler.sample([window[0, :3]], number, 2, [5])[0],
    ]
    for drawn in draws:
        counts = np.bincount(drawn[:, 0] * 4 + drawn[:, 1], minlength=16)
        errors = np.sqrt(joint * (1 - joint) / number)
        assert (np.abs(counts / number - joint) < 4 * errors).all()
    assert joint.max() > 2 * joint.min()


@pytest.mark.parametrize("kind", FAST)
def test_neither_batch_nor_other_windows_change_a_window(kind: str) -> None:
    sampler = HuggingFaceSampler(tiny_model(kind, VOCABULARY), eos_id=0)
    windows = np.random.default_rng(0).integers(0, VOCABULARY, (4, 20))
    whole = sampler.continue_windows(windows, [3, 8, 15], 5, 3, [1, 2, 3, 4])
    alone = [sampler.continue_windows(windows[i : i + 1], [3, 8, 15], 5, 3, [i + 1])[0] for i in range(4)]
    np.testing.assert_array_equal(whole, np.stack(alone))
    contexts = [windows[0, :5], windows[1, :2], windows[2]]
    together = sampler.sample(contexts, 5, 3, [1, 2, 3])
    np.testing.assert_array_equal(together[1], sampler.sample(contexts[1:2], 5, 3, [2])[0])


class Windows:
    """Text of random tokens, one document per window."""

    vocab_size = VOCABULARY

    def __init__(self, num_windows: int, length: int) -> None:
        self.tokens = np.random.default_rng(1).integers(0, VOCABULARY, num_windows * length)
        self.length = length

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, span: slice) -> np.ndarray:
        return self.tokens[span]

    @property
    def document_ends(self) -> np.ndarray:
        return np.arange(self.length, len(self.tokens) + 1, self.length)

    def document_of(self, positions: np.ndarray) -> np.ndarray:
        return positions // self.length


@pytest.mark.parametrize("kind", FAST)
def test_exact_probabilities_agree_with_samples(kind: str) -> None:
    sampler = HuggingFaceSampler(tiny_model(kind, VOCABULARY), eos_id=0)
    rules = Protocol(
        corpus_digest="c", tokenizer_digest="t", split="test", context_length=16, first_position=4, position_stride=2,
        num_samples=8, max_windows=None, seed=0, ngram_lengths=(1, 2),
    )  # fmt: skip
    text = Windows(60, 16)
    exact = evaluate_brierlm(sampler, text, rules)
    pairs = evaluate_brierlm(sampler, text, rules, estimator="all-pairs")
    assert (exact.estimator, exact.protocol_hash) == ("exact", pairs.protocol_hash)
    assert np.abs((np.array(exact.brier) - pairs.brier) / pairs.brier_se).max() < 3.5
    assert exact.brier_se[0] < pairs.brier_se[0]
    plain = HuggingFaceSampler(tiny_model("bloom", VOCABULARY), eos_id=0)
    assert not plain.has_probabilities
    with pytest.raises(EvaluationError, match="all-pairs"):
        plain.trace_windows(text.tokens[None, :16], [4], 2, 2, [0], squared=True)


@pytest.mark.parametrize("kind", FAST)
def test_a_saved_model_is_the_same_model(kind: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, kind)
    opened = HuggingFaceSampler.open(folder)
    assert opened.in_batches
    assert opened.tokenizer is not None
    assert (opened.vocab_size, opened.tokenizer.vocab_size, opened.max_positions) == (270, 270, 512)
    model = HuggingFaceSampler(tiny_model(kind, 270, 512), opened.tokenizer)
    context = [np.array(opened.tokenizer.encode("the quick brown"))]
    np.testing.assert_array_equal(opened.sample(context, 4, 3, [1]), model.sample(context, 4, 3, [1]))
    assert opened.prefix == []


@pytest.mark.parametrize("shown", [True, False])
def test_no_bar_shows_while_weights_are_read(shown: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # A documented name, which the package re-exports without saying so to type checkers.
    from huggingface_hub.utils import are_progress_bars_disabled  # type: ignore[attr-defined]
    from transformers.utils import logging

    folder = save_tiny(tmp_path, "gpt2")
    switch = {True: logging.enable_progress_bar, False: logging.disable_progress_bar}
    before = logging.is_progress_bar_enabled()
    switch[shown]()
    capfd.readouterr()
    try:
        HuggingFaceSampler.open(folder)
        assert (logging.is_progress_bar_enabled(), are_progress_bars_disabled()) == (shown, not shown)
    finally:
        switch[before]()
    said = capfd.readouterr()
    assert "Loading" not in said.out + said.err


def test_rows_that_the_tokenizer_does_not_use_are_never_drawn(tmp_path: Path) -> None:
    for kind in ("gpt_neox", "bloom"):
        folder = save_tiny(tmp_path / kind, kind, vocab_size=400)
        sampler = HuggingFaceSampler.open(folder)
        drawn = sampler.sample([np.array([1, 2, 3])], 400, 2, [0])
        assert sampler.vocab_size == 270 > drawn.max() > 200
        with pytest.raises(EvaluationError, match="tokens 1 to 300 are not in the model's vocabulary of 270"):
            sampler.sample([np.array([1, 300])], 2, 2, [0])


def test_a_text_begins_as_the_tokenizer_lets_it_begin(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    backend = tiny_tokenizer()
    backend.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer = HuggingFaceTokenizer(backend, "begins")
    assert HuggingFaceSampler(tiny_model("llama", 270), tokenizer).prefix == [0]


def test_positions_are_respected() -> None:
    model = tiny_model("gpt2", VOCABULARY, positions=8)
    sampler = HuggingFaceSampler(model, eos_id=0)
    text = np.arange(7)[None]
    assert sampler.sample([text[0]], 2, 2, [0]).shape == (1, 2, 2)  # reads 8 tokens, draws the ninth
    assert sampler.continue_windows(text, [2, 7], 2, 2, [0]).shape == (1, 2, 2, 2)
    for call in (
        lambda: sampler.sample([text[0]], 2, 3, [0]),
        lambda: sampler.continue_windows(text, [2, 7], 2, 3, [0]),
    ):
        with pytest.raises(EvaluationError, match=r"10 tokens, .* longer than the model's 8 positions: lower"):
            call()


def test_what_cannot_be_continued_is_refused() -> None:
    sampler = HuggingFaceSampler(tiny_model("gpt2", VOCABULARY))
    with pytest.raises(EvaluationError, match="cannot continue an empty context"):
        sampler.sample([np.array([], dtype=np.int64)], 2, 2, [0])
    with pytest.raises(EvaluationError, match="tokens 1 to 23 are not in the model's vocabulary of 23"):
        sampler.sample([np.array([1, 23])], 2, 2, [0])
    with pytest.raises(EvaluationError, match="not in the model's vocabulary"):
        sampler.continue_windows(np.array([[1, 2, 50]]), [2], 2, 2, [0])
    with pytest.raises(ValueError, match="1 contexts need as many seeds, found 2"):
        sampler.sample([np.array([1])], 2, 2, [0, 1])
    with pytest.raises(EvaluationError, match=r"has 270 ids, the model 23"):
        HuggingFaceSampler(tiny_model("gpt2", VOCABULARY), HuggingFaceTokenizer(tiny_tokenizer(), "tiny"))


@pytest.mark.parametrize("kind", ["gpt2", "bloom"])
def test_a_model_that_computes_nan_is_refused(kind: str) -> None:
    model = tiny_model(kind, VOCABULARY)
    with torch.no_grad():
        model.get_output_embeddings().weight[3] = torch.nan
    with pytest.raises((ValueError, ArithmeticError), match=r"NaN|not finite"):
        HuggingFaceSampler(model, eos_id=0).sample([np.array([1, 2])], 2, 2, [0])


def test_only_weights_that_are_read_must_be_finite() -> None:
    """Attention on a CPU makes ordinary numbers of NaN; ids beyond the tokenizer's are never read."""
    model, tokenizer = tiny_model("gpt2", 300), HuggingFaceTokenizer(tiny_tokenizer(), "tiny")
    expected = HuggingFaceSampler(model, tokenizer).sample([np.array([1, 2])], 2, 2, [0])
    with torch.no_grad():
        model.get_input_embeddings().weight[270:] = torch.nan
        model.get_output_embeddings().weight[270:] = torch.nan
    found = HuggingFaceSampler(model, tokenizer).sample([np.array([1, 2])], 2, 2, [0])
    np.testing.assert_array_equal(found, expected)
    with torch.no_grad():
        model.transformer.h[0].attn.c_attn.weight[0, 0] = torch.nan
    with pytest.raises(NotFinite, match=r"weights \(transformer.h.0.attn.c_attn.weight\) are not finite"):
        HuggingFaceSampler(model, tokenizer)


class Bomb:
    """What a pickle can do to whoever loads it."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path("exploded"),))  # type: ignore[return-value]


def test_files_are_read_for_their_tensors_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = save_tiny(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    context = [np.array([1, 2, 3])]
    expected = HuggingFaceSampler(tiny_model("gpt2", 270, 512), eos_id=0).sample(context, 3, 3, [0])
    np.testing.assert_array_equal(HuggingFaceSampler.open(folder).sample(context, 3, 3, [0]), expected)
    torch.save({"weights": Bomb()}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="without running code"):
        HuggingFaceSampler.open(folder)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (("model.safetensors", 100), r"model\.safetensors is damaged: .*not fully covered"),
        (("model.safetensors", None), "has neither model.safetensors nor pytorch_model.bin"),
        (("model-00002-of-00005.safetensors", 50), r"model-00002-of-00005\.safetensors is damaged"),
        (("model-00002-of-00005.safetensors", None), "missing file model-00002-of-00005.safetensors"),
        (("model.safetensors.index.json", None), "found in directory"),
        (("pytorch_model.bin", 500), r"pytorch_model\.bin is damaged: its end is missing"),
    ],
)
def test_files_that_are_missing_or_cut_off_are_named(damage: tuple[str, int | None], told: str, tmp_path: Path) -> None:
    """None of these models needs code."""
    name, cut = damage
    model, folder = tiny_model("gpt2", 270, 512), tmp_path / "model"
    model.save_pretrained(folder, max_shard_size="20KB" if "-of-" in name or "index" in name else "1GB")
    tiny_tokenizer().save_pretrained(folder)
    if name.endswith(".bin"):
        torch.save(model.state_dict(), folder / name)
        (folder / "model.safetensors").unlink()
    assert HuggingFaceSampler.open(folder).vocab_size == 270
    if cut is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:-cut])
    with pytest.raises(WeightsError, match=told) as refused:
        HuggingFaceSampler.open(folder)
    assert "running code" not in str(refused.value)


def test_folders_that_cannot_be_trusted_are_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("mlp.c_fc.weight"))
    save_file(
        {key: value for key, value in tensors.items() if key != name}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(WeightsError, match=r"missing .*mlp.c_fc.weight"):
        HuggingFaceSampler.open(folder)
    config = json.loads((folder / "config.json").read_text())
    own_code = {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    (folder / "config.json").write_text(json.dumps({**config, **own_code}))
    (folder / "code.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(WeightsError, match="without running code"):
        HuggingFaceSampler.open(folder)
    with pytest.raises(WeightsError, match="give a folder written by save_pretrained"):
        HuggingFaceSampler.open(tmp_path)
    assert list(itertools.islice(tmp_path.glob("ran*"), 1)) == []
