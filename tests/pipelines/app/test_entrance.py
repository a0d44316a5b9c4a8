"""The Python entrance: one import, and what the docs show works as shown."""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

import calm_bench as cb
from calm_bench.errors import CalmBenchError, UsageError
from calm_bench.overrides import ConfigurationError
from calm_bench.registry import UnknownName
from evals.markov import MarkovSampler
from evals.protocol import EvaluationError
from tests.evals.markov_texts import language

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("entrance") / "runs"


@pytest.fixture(scope="module")
def result(store: Path) -> cb.StudyResult:
    return cb.Study.from_yaml("smoke", "tracking.enabled=false", store=store).run(local=True, quiet=True)


def test_an_import_loads_nothing_heavy() -> None:
    script = (
        "import sys, calm_bench; from calm_bench import Study; "
        "print(*({'torch', 'ray', 'mlflow', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.slow
def test_what_is_done_is_told_without_torch(result: cb.StudyResult, store: Path) -> None:
    # It takes a second and 200 MB to import, and nothing is trained or scored.
    script = (
        "import sys\nfrom pipelines.app.entry import main\n"
        f"sys.argv = ['calm-bench', 'run', 'smoke', 'tracking.enabled=false', '--local', '--store', {str(store)!r}]\n"
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(row.label in done.stdout for row in result.leaderboard)
    assert done.stdout.endswith("False\n")


def test_every_name_is_there_and_no_other() -> None:
    for name in cb.__all__:
        assert getattr(cb, name) is not None
    assert set(cb.__all__) <= set(dir(cb))
    with pytest.raises(AttributeError, match="no attribute 'Stuty'"):
        cb.Stuty  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("benchmarks.scorer=relativ_energy", "relative_energy"),
        ("benchmarks.tasks=[stdlib_choise]", "stdlib_choice"),
        ("corpus.validation_fraction=0", "leaves no text"),
        ("tokens.tokenizer=./nowhere", "there is no folder"),
    ],
)
def test_what_no_trial_could_use_is_refused_before_anything_runs(setting: str, message: str, tmp_path: Path) -> None:
    study = cb.Study.from_yaml("smoke", setting, store=tmp_path / "runs")
    for call in (study.plan, lambda: study.run(local=True, quiet=True)):
        with pytest.raises((ConfigurationError, UnknownName), match=message):
            call()
    assert not (tmp_path / "runs").exists()


def test_code_that_nobody_could_tell_is_refused_before_a_trial_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a kernel: a head of a cell, which the next cell may define anew, and one that was edited after its import."""
    (tmp_path / "entrance_head.py").write_text("SCALE = 1\n\n\nclass Head:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)

    def study(module: str) -> cb.Study:
        head = f"model.head={{kind: custom, target: '{module}:Head'}}"
        return cb.Study.from_yaml("smoke", head, store=tmp_path / "runs")

    # Another script than pytest's own, whichever way that was started.
    script = ModuleType("__main__")
    script.__file__ = str(tmp_path / "script.py")
    (tmp_path / "script.py").touch()
    monkeypatch.setitem(sys.modules, "__main__", script)
    refused = r"workers of Ray import no script\. Write the class into a file .* or use run\(local"
    with pytest.raises(UsageError, match=refused):
        study("__main__").run()
    monkeypatch.delattr(sys.modules["__main__"], "__file__")  # a notebook has none
    importlib.import_module("entrance_head")
    (tmp_path / "entrance_head.py").write_text("SCALE = 2\n\n\nclass Head:\n    pass\n")
    for module, message in (("__main__", "cell that begins with %%writefile"), ("entrance_head", "restart the kernel")):
        for act in (study(module).plan, partial(study(module).run, local=True)):
            with pytest.raises(UsageError, match=message):
                act()
    assert not (tmp_path / "runs").exists()
    del sys.modules["entrance_head"]


def test_the_types_are_those_of_the_names() -> None:
    """What editors and mypy read stands in a stub, which imports what the module itself finds when it is asked."""
    stub = ast.parse((Path(cb.__file__).with_suffix(".pyi")).read_text(encoding="utf-8"))
    places = {alias.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {name: getattr(cb, name).__module__ for name in places} == places
    assert {*places, "__version__"} == set(cb.__all__)


def test_results_are_rows_a_data_frame_and_a_table(result: cb.StudyResult) -> None:
    assert [row.label for row in result] == [row.label for row in result.leaderboard.entries]
    assert result[0].brierlm >= result[1].brierlm
    frame = result.to_pandas()
    assert len(frame) == 2
    assert frame["brierlm"].tolist() == pytest.approx([row.brierlm for row in result])
    for shown in (repr(result), result._repr_html_()):
        assert "token" in shown
        assert "BrierLM" in shown
    assert result.failed == {}
    assert (result.folder / "leaderboard.json").is_file()


def test_a_finished_study_is_read_without_running(result: cb.StudyResult, store: Path) -> None:
    study = cb.Study.from_yaml("smoke", "tracking.enabled=false", store=store)
    assert study.result().rows == result.rows
    assert study.plan().training_flops > study.plan().training_flops_to_run == 0
    assert "smoke" in repr(study)
    assert "language model" in study.plan()._repr_html_()
    with pytest.raises(FileNotFoundError):
        cb.Study.from_yaml("smoke", "seed=9", store=store).result()


class ZMQInteractiveShell:
    """What a notebook's cells find as ``get_ipython()``, by the name that rich asks for."""


def test_in_a_notebook_a_result_is_shown_once_and_quiet_is_quiet(
    result: cb.StudyResult, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel asks for text and HTML of what a cell returns; neither may show anything by itself."""
    shown: list[object] = []
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    monkeypatch.setattr("rich.jupyter.display", lambda segments, text: shown.append(text))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    study = cb.Study.from_yaml("smoke", "tracking.enabled=false", store=store)
    for one in (study.plan(), result):
        assert len(repr(one).splitlines()) > 5
        assert "\x1b" not in repr(one)
        assert "<pre" in one._repr_html_()
    assert len(study.run(local=True, quiet=True)) == len(result)
    assert capsys.readouterr().out == ""
    assert len(study.run(local=True)) == len(result)
    out = capsys.readouterr().out
    assert "BrierLM" in out
    assert "\x1b[2K" not in out, "lines that a cell keeps are not written over"
    assert shown == []


def test_a_model_writes_what_the_command_writes(result: cb.StudyResult, store: Path) -> None:
    model = result.load_model("K=2")
    pieces = list(model.stream("ab", 24, temperature=0.5, seed=3))
    text = model.generate("ab", 24, temperature=0.5, seed=3)
    assert "".join(pieces) == text
    assert len(pieces) > 1
    command = ["generate", "smoke/K=2", "--prompt", "ab", "--tokens", "24", "--temperature", "0.5", "--seed", "3"]
    done = subprocess.run(
        [sys.executable, "-c", "from calm_bench.command import main; main()", *command, "--store", str(store)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout == f"ab{text}\n"


def test_a_stream_that_is_left_ends(result: cb.StudyResult) -> None:
    model = result.load_model("token")
    stream = model.stream("ab", 100_000)
    assert next(stream)
    stream.close()
    assert model.generate("ab", 8), "the network is free again"


def test_a_model_has_its_parts(result: cb.StudyResult) -> None:
    chunks, tokens = result.load_model("K=2"), result.load_model("token")
    assert chunks.chunk_size == 2
    assert chunks.autoencoder is not None
    assert tokens.autoencoder is None
    assert chunks.decode(chunks.encode("größe")) == "größe"
    moved = result.load_model("K=2").to("meta")
    assert {parameter.device.type for parameter in moved.network.parameters()} == {moved.device} == {"meta"}
    assert "K=2" in repr(chunks)
    with pytest.raises(ConfigurationError, match="temperature"):
        chunks.generate("ab", temperature=1.5)
    with pytest.raises(ConfigurationError, match="there is no model"):
        cb.load_model("K=16", store="nowhere")


def test_a_model_scores_as_its_study_did(result: cb.StudyResult, store: Path) -> None:
    row = next(row for row in result if row.label == "token")
    score = cb.load_model("smoke/token", store=store).score(store=store)
    assert (score.brierlm, score.protocol_hash) == (pytest.approx(row.brierlm, abs=1e-9), row.protocol_hash)


def test_a_score_is_kept_where_the_model_is(
    result: cb.StudyResult, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a store elsewhere, by its label or its path; what ``load_model`` was given is for models of no store."""
    monkeypatch.chdir(tmp_path)
    model = cb.load_model("smoke/token", store=store)
    again = cb.load_model(model.folder)
    for own in (model, result.load_model("token"), again):
        assert own.score(max_windows=4).num_windows == 4
    assert not list(tmp_path.iterdir())
    alone = shutil.copytree(model.folder, tmp_path / "alone")
    assert cb.load_model(alone, store=tmp_path / "own").score("stdlib", max_windows=4).num_windows == 4
    assert {path.name for path in tmp_path.iterdir()} == {"alone", "own"}


def test_the_field_that_holds_the_text_is_named(result: cb.StudyResult, tmp_path: Path) -> None:
    lines = [{"title": f"No {n}", "body": f"def number_{n}():\n    return {n}\n" * 60} for n in range(40)]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    model, settings = result.load_model("token"), {"max_windows": 8, "store": tmp_path / "runs"}
    scored = model.score(file, text_field="body", **settings)
    assert scored.num_windows > 2
    with pytest.raises(CalmBenchError, match="text"):
        model.score(file, **settings)


def test_whatever_samples_has_a_score() -> None:
    known = language()
    documents = [(known.sample_codes(seed, 300) + ord("a")).tolist() for seed in range(12)]
    scored = cb.score(MarkovSampler(known), documents, context_length=64, first_position=8)
    assert scored.num_documents == 12
    assert scored.error_unit == "document"
    assert scored.brierlm_se > 0
    again = cb.score(MarkovSampler(known), documents, context_length=64, first_position=8)
    assert (again.brierlm, again.protocol_hash) == (scored.brierlm, scored.protocol_hash)
    other = cb.score(MarkovSampler(known), documents[1:], context_length=64, first_position=8)
    assert other.protocol_hash != scored.protocol_hash


@pytest.mark.parametrize(
    ("documents", "said"), [([], "no documents"), ([[]], "document 0"), ([[1], [999]], "document 1")]
)
def test_documents_that_cannot_be_scored_are_named(documents: list[list[int]], said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        cb.score(MarkovSampler(language()), documents)


COMPARE_HEADS = pytest.param("compare_heads", marks=pytest.mark.extended)


@pytest.mark.parametrize("name", [COMPARE_HEADS, "score_any_sampler", "read_a_store"])
def test_the_examples_run(name: str, result: cb.StudyResult, store: Path, tmp_path: Path) -> None:
    arguments = {"compare_heads": [str(tmp_path / "runs")], "read_a_store": [str(tmp_path / "smoke.yaml"), str(store)]}
    (tmp_path / "smoke.yaml").write_text((ROOT / "pipelines" / "studies" / "smoke.yaml").read_text())
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments.get(name, [])],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "brierlm" in done.stdout.lower()


def test_a_result_loads_models_of_its_own_study(result: cb.StudyResult, store: Path) -> None:
    overrides = ("name=another", "search.parameters.0.include=[K=2]", "tracking.enabled=false")
    other = cb.Study.from_yaml("smoke", *overrides, store=store).run(local=True, quiet=True)
    assert [row.label for row in other] == ["K=2"]
    assert other.load_model("K=2").chunk_size == 2
    with pytest.raises(ConfigurationError, match=r"another-.* has no row called 'token'"):
        other.load_model("token")
    assert result.load_model("token").autoencoder is None
