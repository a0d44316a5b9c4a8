"""What messages of tasks, protocols and samplers advise is taken from the message, done, and helps."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from calm_bench.config import Corpus, Evaluation, LanguageModel, Samples
from calm_bench.corpora import write_corpus
from calm_bench.errors import CalmBenchError
from calm_bench.lm import TokenModel
from calm_bench.tokens import ByteTokenizer
from evals.adapters.hugging_face import HuggingFaceSampler
from evals.adapters.lm_eval_requests import token_sampler_of
from evals.adapters.named_sampler import open_named_sampler
from evals.adapters.token_text import TokenTextSampler
from evals.any_sampler import score
from evals.context_sweep import sweep_context
from evals.estimators import estimator_for
from evals.evaluate import MarkovSampler, ModelSampler, evaluate_brierlm
from evals.harness import CalmBenchLM
from evals.judge import judge_texts
from evals.protocol import protocol_for
from evals.sample_size import variance_parts
from evals.sums import compare
from evals.task_identity import task_identity
from evals.task_loading import check_tasks
from evals.tasks import shipped_tasks
from evals.tasks.markov_text import choice
from evals.tasks.stdlib_text import choice as stdlib_choice
from evals.text_brier import evaluate_text_brierlm, text_protocol_for
from evals.text_protocol import TextProtocol
from tests.evals.markov_texts import OnlySamples, fresh_text, language, protocol, text_of
from tests.evals.own_tasks import ROWS, write_task
from tests.evals.tiny_models import save_tiny, tiny_model

Changes = dict[str, Any]
Taken = Callable[[re.Match[str]], Changes]


def refusal(call: Callable[[], object], advice: str) -> re.Match[str]:
    """What ``advice`` finds in the message with which ``call`` is refused."""
    with pytest.raises((CalmBenchError, ValueError)) as refused:
        call()
    found = re.search(advice, str(refused.value), re.DOTALL)
    assert found is not None, refused.value
    return found


def setting(name: str) -> Taken:
    """The setting ``name`` of a task, with what the message gives first."""
    return lambda found: {name: found[1]}


def in_yaml(found: re.Match[str]) -> Changes:
    """Settings that stand in the message as a task file has them."""
    read: Changes = yaml.safe_load(found[1])
    return read


def metric(**changes: Any) -> Changes:
    return {"metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True, **changes}]}


TINY = LanguageModel(kind="token", hidden_size=16, intermediate_size=24, num_layers=1, chunk_size=1)
FILES = "dataset_kwargs"
WRITTEN = {"output_type": "generate_until", "doc_to_choice": None, "doc_to_target": "{{choices[answer]}}"}
WRITTEN |= metric(metric="exact_match")


@pytest.mark.parametrize(
    ("given", "advice", "taken"),
    [
        ({"dataset_path": "jsonl"}, r"is no kind of files: write (\w+)$", setting("dataset_path")),
        ({"doc_to_text": "qestion"}, r"did you mean '(\w+)'", setting("doc_to_text")),
        ({"doc_to_target": "anwser"}, r"did you mean '(\w+)'", setting("doc_to_target")),
        ({"doc_to_text": "{{qestion}}"}, r"did you mean '(\w+)'", lambda found: {"doc_to_text": f"{{{{{found[1]}}}}}"}),
        ({"test_split": "tset"}, r"did you mean '(\w+)'", setting("test_split")),
        ({"test_split": None}, r"test_split is not set, .*; there is (\w+)", setting("test_split")),
        ({"doc_to_txt": "question"}, r"did you mean '(\w+)'", lambda found: {found[1]: "question"}),
        ({"output_type": "multiplechoice"}, r"did you mean '(\w+)'", setting("output_type")),
        (metric(aggregation="means"), r"did you mean '(\w+)'", lambda found: metric(aggregation=found[1])),
        ({"description": 5}, r"(\w+) must be a text, found (5): put it in quotes", lambda found: {found[1]: found[2]}),
        ({FILES: ["x"]}, r"\((dataset_kwargs: \{.*\}\})\)", in_yaml),
        ({FILES: {"data_files": 3}}, r"by split \((\{.*?\})\)", lambda found: {FILES: {"data_files": in_yaml(found)}}),
        ({"metric_list": []}, r"must list metrics \((\[.*?\])\)", lambda found: {"metric_list": in_yaml(found)}),
        ({"filter_list": 3}, r"must list filters \((\[.*\])\)", lambda found: {"filter_list": in_yaml(found)}),
        (WRITTEN | {"generation_kwargs": [1]}, r"\((generation_kwargs: \{.*?\})\)", lambda m: WRITTEN | in_yaml(m)),
        (
            {"num_fewshot": 50, "fewshot_split": "test"},
            r"look at its .* its (num_fewshot)$",
            lambda found: {"fewshot_split": "test", found[1]: 2},
        ),
    ],
)
def test_settings_of_a_task_are_written_as_the_message_has_them(
    tmp_path: Path, given: Changes, advice: str, taken: Taken
) -> None:
    path = str(write_task(tmp_path, **given))
    found = refusal(lambda: check_tasks([path]), advice)
    write_task(tmp_path, **taken(found))
    check_tasks([path])


@pytest.mark.parametrize("way", ["its files", "as dataset_path"])
def test_a_folder_of_data_is_named_by_its_files_or_as_the_data_set(tmp_path: Path, way: str) -> None:
    path = str(write_task(tmp_path, dataset_kwargs={"data_files": {"test": "data/"}}, rows=None))
    write_task(tmp_path / "data", rows=ROWS)
    (tmp_path / "data" / "mine.yaml").unlink()
    files, key = refusal(lambda: check_tasks([path]), r"as in (\S+), or give it as (\w+)").groups()
    if way == "its files":
        write_task(tmp_path, dataset_kwargs={"data_files": {"test": files}}, rows=None)
    else:
        # Where no file is called after a split, all of it is one, which a message names in turn.
        write_task(tmp_path, dataset_kwargs=None, rows=None, **{key: "data"})
        split = refusal(lambda: check_tasks([path]), r"have no split 'test'; (?:did you mean|known:) '?(\w+)")[1]
        write_task(tmp_path, dataset_kwargs=None, rows=None, test_split=split, **{key: "data"})
    check_tasks([path])


def test_one_choice_is_scored_as_a_text(tmp_path: Path) -> None:
    rows = [{**row, "choices": row["choices"][:1], "answer": 0} for row in ROWS]
    path = str(write_task(tmp_path, rows=rows))
    changes = in_yaml(refusal(lambda: check_tasks([path]), r"score that text with (output_type: \w+)$"))
    changes |= {"doc_to_choice": None, "doc_to_target": "{{choices[0]}}"}
    write_task(tmp_path, rows=rows, **changes)
    check_tasks([path])


def test_a_task_of_what_an_empty_file_is_told_to_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of the files that a kind of files is told to need; others in the working directory are none of its data."""
    monkeypatch.chdir(tmp_path)
    path = write_task(tmp_path)
    path.write_text("")
    needed = refusal(lambda: check_tasks([str(path)]), r"needs (\w+), (\w+), (\w+), (\w+) and (\w+)$").groups()
    values = dict(zip(needed, ("mine", "json", "test", "question", "answer"), strict=True))
    path.write_text(yaml.safe_dump(values))
    values |= in_yaml(refusal(lambda: check_tasks([str(path)]), r"name them beside it \((dataset_kwargs: .+)\)$"))
    path.write_text(yaml.safe_dump(values))
    check_tasks([str(path)])


def test_a_function_is_named_as_in_the_message(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    path.write_text(f"{path.read_text()}process_docs: !function tidy\n")
    module, function = refusal(lambda: check_tasks([str(path)]), r"as in !function (\w+)\.(\w+)$").groups()
    (tmp_path / f"{module}.py").write_text(f"def {function}(docs):\n    return docs\n")
    write_task(tmp_path)
    path.write_text(f"{path.read_text()}process_docs: !function {module}.{function}\n")
    check_tasks([str(path)])


def test_two_files_of_one_task_get_names(tmp_path: Path) -> None:
    paths = [str(write_task(tmp_path / name)) for name in ("one", "two")]
    key = refusal(lambda: check_tasks(paths), r"give each file a name of its own \(its key '(\w+)'\)")[1]
    write_task(tmp_path / "two", **{key: "other"})
    check_tasks(paths)


@pytest.mark.parametrize(
    ("drawn", "advice", "instead"),
    [
        ("random.sample(range(4), 2)", "by chance: give it a seed", "random.Random(0).sample(range(4), 2)"),
        ("[int(time.time()) % 2]", r"\(time\): do without it", "[0]"),
    ],
)
def test_questions_drawn_by_chance(tmp_path: Path, drawn: str, advice: str, instead: str) -> None:
    path = write_task(tmp_path)
    path.write_text(f"{path.read_text()}process_docs: !function draws.some\n")

    def reasons(chosen: str) -> str:
        code = f"import random, time\ndef some(docs):\n    return docs.select({chosen})\n"
        (tmp_path / "draws.py").write_text(code)
        return " ".join(task_identity(str(path)).unknown)

    assert re.search(advice, reasons(drawn)), reasons(drawn)
    assert reasons(instead) == ""


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 3, 4, 5, 6, 7, 8])
def test_a_window_of_the_length_that_the_paper_is_said_to_need(chunk_size: int | None) -> None:
    def positions(length: int) -> tuple[int, ...]:
        return protocol_for(Evaluation(protocol="paper", context_length=length), "c", "t", chunk_size).positions

    least = int(refusal(lambda: positions(chunk_size or 1), r"needs (\d+) or more$")[1])
    assert positions(least)


def test_estimators_that_need_no_probabilities() -> None:
    sampler, rules = OnlySamples(language()), protocol()
    for name in refusal(lambda: estimator_for(sampler, rules, "exact"), r"; ([\w-]+) and ([\w-]+) need none$").groups():
        assert estimator_for(sampler, rules, name) == name  # type: ignore[arg-type]
    listed = refusal(lambda: estimator_for(sampler, rules, "exct"), r"; there are (.+)$")[1].split(", ")  # type: ignore[arg-type]
    assert {estimator_for(MarkovSampler(language()), rules, name) for name in listed if name != "teacher-forced"} < {  # type: ignore[arg-type]
        *listed
    }


def test_windows_and_contexts_are_made_fewer_and_shorter() -> None:
    truth = language()
    sampler, text = MarkovSampler(truth), text_of(truth, 20)
    few = protocol(max_windows=1)
    said = refusal(lambda: evaluate_brierlm(sampler, text, few), r"raise evaluation\.(\w+) to (\d+) or more")
    assert evaluate_brierlm(sampler, text, protocol(**{said[1]: int(said[2])})).num_windows == int(said[2])
    long = protocol(context_length=400)
    name = refusal(lambda: evaluate_brierlm(sampler, text, long), r"lower evaluation\.(\w+) or raise")[1]
    assert evaluate_brierlm(sampler, text, protocol(**{name: 42})).num_windows == 20
    refusal(lambda: sweep_context(sampler, text, protocol(), [4, 800]), "take shorter contexts")
    assert sweep_context(sampler, text, protocol(), [4, 8])


def test_text_too_short_for_the_protocol() -> None:
    texts = ["a b c d e f g h"] * 2 + ["h g f e d c b a"]

    def scored(**changes: Any) -> object:
        rules = text_protocol_for(texts, **{"unit": "bytes", "first_position": 12, "num_samples": 2, **changes})
        return evaluate_text_brierlm(TokenTextSampler(Uniform(), ByteTokenizer()), texts, rules)

    named = refusal(scored, r"in Python lower (\w+), (\w+) or (\w+) \(text_protocol_for\)$").groups()
    assert set(named) <= set(TextProtocol.model_fields)
    assert scored(**dict.fromkeys(named, 4))


class Uniform:
    vocab_size, chunk_size = 257, 1

    def sample(self, contexts: Any, num_samples: int, horizon: int, seeds: Any) -> Any:
        return np.stack([np.random.default_rng(seed).integers(97, 100, (num_samples, horizon)) for seed in seeds])


def test_a_pilot_of_more_samples() -> None:
    truth = language(alphabet_size=4, concentration=0.5)

    def parts(num_samples: int) -> object:
        text, rules = fresh_text(truth, 60, 0), protocol(num_samples=num_samples)
        return variance_parts(evaluate_brierlm(OnlySamples(truth), text, rules, windows_at_once=60).scored)

    said = refusal(lambda: parts(2), r"use (\w+) or more \(evaluation\.(\w+)\)$")
    assert (said[1], said[2] in Evaluation.model_fields) == ("four", True)
    assert parts(4)


def test_texts_are_long_enough_for_the_task_that_ships() -> None:
    def made(length: int) -> object:
        markov = {"num_documents": 60, "document_length": length}
        return choice(num_documents=5, documents_seed=0, corpus={"source": "markov", "markov": markov})

    named = refusal(lambda: made(20), r"of (\d+) letters or more: raise corpus\.(\S+) or corpus\.(\w+)$")
    assert named[2] == "markov.document_length"
    assert named[3] in Corpus.model_fields
    assert made(2 * int(named[1]))


def test_two_models_are_scored_by_the_same_settings() -> None:
    first, other = (
        evaluate_brierlm(MarkovSampler(language()), text_of(language(), 20), protocol(seed=seed)).scored
        for seed in (0, 1)
    )
    refusal(lambda: compare(first, other), "score both by the same settings")
    assert compare(first, first).value == 0


def test_documents_are_a_list() -> None:
    text = "the quick brown fox " * 40
    refusal(lambda: score(Uniform(), text, context_length=64), "documents are a list of texts, and this is a sing")
    assert score(Uniform(), [text], context_length=64, num_samples=2).num_windows > 3


def test_a_model_is_told_what_begins_a_text() -> None:
    model = tiny_model("gpt2", 23)
    empty = [np.array([], dtype=np.int64)]
    name = refusal(lambda: HuggingFaceSampler(model).sample(empty, 2, 2, [0]), r"end-of-text token \((\w+)\), or")[1]
    assert HuggingFaceSampler(model, **{name: 0}).sample(empty, 2, 2, [0]).shape == (1, 2, 2)
    torch.manual_seed(0)
    own = TokenModel(TINY, 257)
    name = refusal(lambda: ModelSampler(own.eval()).sample(empty, 2, 2, [0]), r"end-of-text token \((\w+)\) that")[1]
    assert ModelSampler(own.eval(), **{name: 256}).sample(empty, 2, 2, [0]).shape == (1, 2, 2)


def test_a_model_that_is_read_one_position_at_a_time_is_scored_by_what_is_named() -> None:
    sampler = HuggingFaceSampler(tiny_model("bloom", 23), eos_id=0)
    windows = np.zeros((1, 9), dtype=np.int64)
    said = refusal(
        lambda: sampler.trace_windows(windows, [4], 2, 4, [0], squared=True), r"the estimator (\S+) instead of (\S+)$"
    )
    assert estimator_for(sampler, protocol()) == said[1]
    assert estimator_for(MarkovSampler(language()), protocol()) == said[2]


def test_arguments_of_the_harness(tmp_path: Path) -> None:
    model = TokenModel(TINY, 257)
    model.save(tmp_path / "model")
    ByteTokenizer().save(tmp_path / "model" / "tokenizer")
    create = CalmBenchLM.create_from_arg_string
    name = refusal(lambda: create("max_length=64"), r"(\w+)=FOLDER$")[1]
    folder = f"{name}={tmp_path / 'model'}"
    setting = refusal(lambda: create(f"{folder},max_lenght=64"), r"did you mean '(\w+)'")[1]
    assert create(f"{folder},{setting}=64").max_length == 64
    model.save(tmp_path / "bare")
    bare = f"{name}={tmp_path / 'bare'}"
    with_tokenizer = f"{bare},{refusal(lambda: create(bare), r'model_args of lm-eval (tokenizer)=NAME')[1]}=bytes"
    assert token_sampler_of(create(with_tokenizer))[1].vocab_size == 257
    # Where ids alone are known, they are no text to score.
    config = tmp_path / "bare" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": 256}))
    assert refusal(lambda: token_sampler_of(create(bare)), r"give (\w+)=NAME$")[1] == "tokenizer"


def test_a_model_that_shows_no_tokens_is_given_what_draws_them() -> None:
    model = SimpleNamespace()
    task, name = refusal(lambda: token_sampler_of(model), r"use the task (\w+), or .* attribute (\w+)$").groups()
    assert task in shipped_tasks()
    setattr(model, name, (Uniform(), ByteTokenizer()))
    assert token_sampler_of(model)[0].vocab_size == 257


SAMPLER = """
class Whole:
    vocab_size, chunk_size = 257, 1
    def __init__(self, folder):
        self.folder = folder
    def sample(self, contexts, num_samples, horizon, seeds):
        raise NotImplementedError

class Part:
    vocab_size = 257
def made():
    return Whole("here")

ready = made()
"""


def test_a_sampler_is_named_by_what_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "advised_sampler"
    (tmp_path / f"{name}.py").write_text(SAMPLER)
    refusal(lambda: open_named_sampler(f"{name}:Whole"), r"PYTHONPATH=\. calm-bench eval")
    monkeypatch.syspath_prepend(str(tmp_path))
    refusal(lambda: open_named_sampler(f"{name}:Whole"), r"name a function that makes it, or an object$")
    for other in ("made", "ready"):
        assert open_named_sampler(f"{name}:{other}").vocab_size == 257
    near = refusal(lambda: open_named_sampler(f"{name}:mde"), r"did you mean '(\w+)'")[1]
    assert open_named_sampler(f"{name}:{near}").vocab_size == 257
    said = refusal(lambda: open_named_sampler(f"{name}:Part"), r"it lacks (.+): it has (\w+), (\w+) .* and (\w+)\(")
    assert set(said[1].split(", ")) < set(said.groups()[1:])


def test_a_judge_is_given_shorter_texts(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "judge", positions=24)
    pair = [("the quick", " brown fox jumps over the lazy dog, naive fox jumps over")]
    name = refusal(lambda: judge_texts(folder, pair), r"lower samples\.(\w+)$")[1]
    assert name in Samples.model_fields
    assert judge_texts(folder, [("the quick", " brown")])


def test_too_few_documents_of_ones_text_for_its_choices(tmp_path: Path) -> None:
    words = " ".join(f"chapter{number}" for number in range(400))
    text = tmp_path / "a.jsonl"
    text.write_text("".join(json.dumps({"text": f"{number} {words}"}) + "\n" for number in range(60)))
    folders = {fraction: tmp_path / str(fraction) for fraction in (0.01, 0.2)}
    for fraction, folder in folders.items():
        write_corpus(Corpus(source=str(text), test_fraction=fraction), folder)

    def choices(fraction: float) -> Any:
        return stdlib_choice(4, corpus={"source": "stdlib"}, corpus_folder=str(folders[fraction]))

    found = refusal(lambda: choices(0.01), r"raise corpus\.(\w+)$")
    assert found[1] in Corpus.model_fields
    assert len(choices(0.2)["test"]) == 4
