from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Experiment
from calm_bench.overrides import (
    ConfigurationError,
    apply_settings,
    assign,
    load_yaml,
    merge,
    parse_assignment,
    validate,
)
from pipelines.study.config import Study


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.chunk_size=2", ("model.chunk_size", 2)),
        ("a=1e-3", ("a", 1e-3)),
        ("a=.5", ("a", 0.5)),
        ("a=no", ("a", "no")),
        ("a=true", ("a", True)),
        ("a=1:30", ("a", "1:30")),
        ("a=2024-01-01", ("a", "2024-01-01")),
        ("a=1_000", ("a", 1000)),
        ("a=[1, 2e5, x]", ("a", [1, 2e5, "x"])),
        ("a=null", ("a", None)),
        ("corpus.source=/some/where=odd.txt", ("corpus.source", "/some/where=odd.txt")),
    ],
)
def test_assignment_values_are_read_as_people_mean_them(text: str, expected: tuple[str, object]) -> None:
    path, value = parse_assignment(text)
    assert (path, value) == expected
    assert type(value) is type(expected[1])


@pytest.mark.parametrize("text", ["model.chunk_size", "=3", "a=[1"])
def test_malformed_assignment_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_assignment(text)


def test_duplicate_key_is_refused_with_both_lines(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("name: a\nseed: 1\nseed: 2\n")
    with pytest.raises(ConfigurationError, match=r"(?s)'seed' of line 2.*line 3"):
        load_yaml(file)


@pytest.mark.parametrize("content", [b"- a\n- b\n", b"name: [", b"\xff\xfe", b"1: 2\n"])
def test_unusable_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "study.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"study\.yaml"):
        load_yaml(file)
    with pytest.raises(ConfigurationError, match="cannot read"):
        load_yaml(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: !!int abc\n", "invalid literal.*line 1"),
        ("? !!set {a, b}\n: 3\n", "unhashable.*line 1"),
        (f"seed: {'9' * 5000}\n", "Exceeds the limit.*line 1"),
        (f"seed: {'[' * 2000}\n", "in each other without end"),
        ("seed: 1\u001b", "line 1: the character #x1b is none that YAML allows"),
    ],
)
def test_whatever_yaml_stumbles_over_is_told_with_the_file(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=rf"^{tmp_path}/study\.yaml is not valid YAML: .*{message}"):
        load_yaml(tmp_path / "study.yaml")
    if text.startswith("seed: "):
        with pytest.raises(ConfigurationError, match=f"^the value of seed is not valid YAML: .*{message}") as refused:
            parse_assignment(text.strip("\n").replace(": ", "=", 1))
        assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: a\nx: caf\xe9\n", r"is no UTF-8 text in line 2 \(byte 0xe9\): convert it, as with `iconv -f LATIN1"),
        (gzip.compress(b"name: a\n", mtime=0), "is compressed: unpack it first, with `gunzip < FILE > NEW`"),
        (bytes(4096), "is nothing but NUL bytes, as a full disk or a crash leaves a file"),
    ],
)
def test_what_is_no_text_is_named_with_the_way_out(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"^{tmp_path}/study\.yaml {message}"):
        load_yaml(tmp_path / "study.yaml")


PACKED = [pack(b"name: a\n") for pack in (partial(gzip.compress, mtime=0), bz2.compress, lzma.compress)]
"""Names of tests are made of it, which every process of pytest must find alike: without the time of packing."""


@pytest.mark.slow
@pytest.mark.parametrize("content", [*PACKED, "name: é".encode("latin-1")])
def test_the_command_that_is_given_for_a_file_makes_it_readable(content: bytes, tmp_path: Path) -> None:
    old, new = tmp_path / "study.yaml", tmp_path / "new.yaml"
    old.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"`(.*) FILE > NEW`") as refused:
        load_yaml(old)
    (command,) = re.findall("`(.*)`", str(refused.value))
    assert os.system(command.replace("FILE", str(old)).replace("NEW", str(new))) == 0
    assert load_yaml(new)["name"] in ("a", "é")


def test_what_is_found_is_shown_cut() -> None:
    with pytest.raises(ConfigurationError, match=r"^seed: .*found 'xxx") as refused:
        validate(Experiment, {"seed": "x" * 10**6})
    assert len(str(refused.value)) < 400


def test_empty_file_sets_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert load_yaml(tmp_path / "empty.yaml") == {}


def test_yaml_cannot_construct_objects(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigurationError):
        load_yaml(file)


def test_a_later_layer_replaces_an_earlier_budget() -> None:
    lower = {"training": {"num_steps": 10, "num_tokens": None, "batch_size": 8}}
    assert merge(lower, {"training": {"num_tokens": 5e6}}) == {
        "training": {"num_steps": None, "num_tokens": 5e6, "batch_size": 8}
    }
    changed = apply_settings(Experiment(), {"model.training.num_flops": 1e12})
    assert (changed.model.training.num_flops, changed.model.training.num_steps) == (1e12, None)


def test_two_budgets_in_one_layer_contradict() -> None:
    with pytest.raises(ConfigurationError, match=r"model\.training: exactly one .* num_steps and num_tokens"):
        apply_settings(Experiment(), {"model.training.num_tokens": 1e6, "model.training.num_steps": 3})


def test_layers_leave_their_sources_alone() -> None:
    lower = {"a": {"b": [1, 2]}}
    merged = assign(merge(lower, {"a": {"c": 1}}), {"a.b[1]": 5})
    assert merged == {"a": {"b": [1, 5], "c": 1}}
    assert lower == {"a": {"b": [1, 2]}}


def test_list_items_are_reached_by_number() -> None:
    data = {"search": {"parameters": [{"name": "x", "values": [1]}]}}
    assert assign(data, {"search.parameters.0.values": [2]})["search"]["parameters"][0]["values"] == [2]
    with pytest.raises(ConfigurationError, match="1 items"):
        assign(data, {"search.parameters[1].values": [2]})
    with pytest.raises(ConfigurationError, match="number"):
        assign(data, {"search.parameters.first.values": [2]})


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        ("model.chunksize", "'model.chunk_size'"),
        ("chunk_size", "'autoencoder.chunk_size' or 'model.chunk_size'"),
        ("modle.head.alpha", "'model.head.alpha'|'model'"),
        ("model.head.noise", "'model.head.noise_size'"),
        ("learning_rate", "'model.training.learning_rate'"),
        ("zzz", "seed, corpus, tokens"),
    ],
)
def test_unknown_key_names_the_nearest(path: str, suggestion: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"unknown key '{path}'.*(?:{suggestion})"):
        apply_settings(Experiment(), {path: 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.head.alpha": 2.5}, r"^model\.head\.alpha: .*less than 2, found 2\.5"),
        ({"model.head.num_samples": 1}, r"^model\.head\.num_samples: .*found 1"),
        ({"autoencoder.chunk_size": 2}, r"model\.chunk_size is 4 but autoencoder\.chunk_size is 2"),
        ({"model.training.sequence_length": 254}, r"sequence_length 254 is not a multiple of model\.chunk_size 4"),
        ({"autoencoder.dropped_token": -3}, r"^autoencoder\.dropped_token: .*'mask' or .*found -3$"),
        ({"seed.x": 1}, r"seed has no parts"),
        ({"seed": "x"}, r"^seed: .*found 'x'"),
        ({"seed": True}, r"^seed: true is a truth value, and a number is wanted"),
        ({"model.training.num_steps": True}, r"^model\.training: num_steps: true is a truth value"),
        ({"model.head.alpha": False}, r"alpha: false is a truth value"),
    ],
)
def test_impossible_values_are_refused_with_their_path(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        apply_settings(Experiment(), settings)


def test_all_problems_of_a_file_are_told_at_once() -> None:
    data = {"name": "a", "seed": "x", "search": {"parameters": [{"name": "x", "valus": [1]}]}}
    with pytest.raises(ConfigurationError) as caught:
        validate(Study, data, "study.yaml")
    assert "seed: " in str(caught.value)
    assert "search.parameters[0].valus: unknown key; did you mean 'search.parameters[0].values'?" in str(caught.value)


def test_settings_together_are_judged_together() -> None:
    """Neither of the two alone would be valid after the other."""
    changed = apply_settings(Experiment(), {"model.chunk_size": 8, "autoencoder.chunk_size": 8})
    assert changed.model.chunk_size == changed.autoencoder.chunk_size == 8


def test_token_model_has_chunks_of_one() -> None:
    assert apply_settings(Experiment(), {"model.kind": "token"}).model.chunk_size == 1


def test_nothing_set_is_nothing_changed() -> None:
    assert apply_settings(Experiment(), {}) == Experiment()


def test_several_values_of_a_number_are_told_how_to_sweep() -> None:
    from calm_bench.overrides import ConfigurationError, validate

    with pytest.raises(ConfigurationError, match=r"search.parameters=\[\{name: seed, values: \[0, 1, 2\]\}\]"):
        validate(Experiment, {"seed": "0, 1,2"})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("en", ["en"]),
        ("en, de", ["en", "de"]),
        ("pt br,hf:en", ["pt br", "hf:en"]),
        (12, ["12"]),
        (True, ["true"]),
        (None, []),
        ("it's", ["it's"]),
        ("#1", ["#1"]),
        ("zh:", ["zh:"]),
    ],
)
def test_a_list_is_told_as_it_is_to_be_written(tmp_path: Path, given: object, wanted: list[str]) -> None:
    path = "corpus.quality.languages"
    with pytest.raises(ConfigurationError) as told:
        apply_settings(Experiment(), {path: given})
    pattern = rf"^{path}: should be a list, found .*; write (.*?)(?: for none|, on the command line (.*))?$"
    found = re.search(pattern, str(told.value))
    assert found is not None, told.value
    (tmp_path / "study.yaml").write_text(f"languages: {found[1]}")
    assert load_yaml(tmp_path / "study.yaml") == {"languages": wanted}
    (option,) = shlex.split(found[2] or f"{path}={found[1]}")
    assert parse_assignment(option) == (path, wanted)


@pytest.mark.parametrize(
    ("section", "given", "message"),
    [
        ("search", {"parameters": "x"}, r"search.parameters: should be a list, found 'x'; write its elements as \[\{"),
        ("search", {"parameters": {"name": "seed"}}, r"search.parameters: should be a list; put it in brackets: \[\{"),
        ("search", {"parameters": [{"name": "seed", "values": "1,2"}]}, r"\[0\].values: .*; write \[1,2\]$"),
        ("samples", {"temperatures": 0.5}, r"temperatures: should be a list, found 0.5; write \[0.5\]$"),
    ],
)
def test_lists_of_other_than_text(section: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        validate(Study, {"name": "a", section: given})
