"""What is taken of lm-eval beyond its public interface is still there; each failure names what has changed."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from evals.adapters.lm_eval_internals import add_request_types, load_task_settings, request_seed, run_command


def test_the_reader_of_task_files(tmp_path: Path) -> None:
    (tmp_path / "common.yaml").write_text("description: Think\n")
    (tmp_path / "mine.yaml").write_text("task: mine\ninclude: common.yaml\nprocess_docs: !function helpers.tidy\n")
    (tmp_path / "helpers.py").write_text("def tidy(docs):\n    return docs\n")
    settings = load_task_settings(tmp_path / "mine.yaml")
    changed = "lm_eval.tasks._yaml_loader.load_yaml no longer"
    assert settings["description"] == "Think", f"{changed} merges includes"
    assert callable(settings["process_docs"]), f"{changed} imports functions"


def test_requests_go_to_the_method_of_their_name() -> None:
    def sample_nothing(lm: LM, requests: list[Instance]) -> list[str]:
        return ["nothing" for _ in requests]

    from lm_eval import evaluator

    source = inspect.getsource(evaluator.evaluate)
    assert "getattr(lm, reqtype)" in source, "lm_eval.evaluate no longer calls the method that a request type names"
    try:
        add_request_types(sample_nothing)
        assert LM.sample_nothing is sample_nothing
    finally:
        del LM.sample_nothing


def test_the_seed_of_models_behind_a_server() -> None:
    from lm_eval.models import api_models

    source = inspect.getsource(api_models.TemplateAPI)
    assert "self._seed = " in source, "lm_eval's TemplateAPI no longer keeps its seed as _seed"

    class Model:
        _seed = 5

    lm = Model()
    with request_seed(lm, 7 + 2**31):
        assert lm._seed == 7
    assert lm._seed == 5


@pytest.mark.parametrize("arguments", [["run", "--help"], ["--model", "hf", "--help"]])
def test_the_command_takes_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With and without the name of the command, as lm-eval's own reads ``sys.argv``."""
    with pytest.raises(SystemExit) as ended:
        run_command(arguments)
    assert ended.value.code == 0, "lm_eval._cli.HarnessCLI has no parser that takes arguments any more"
    assert "--model_args" in capsys.readouterr().out


def test_the_command_without_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    run_command([])
    run_command(["run"])
    assert "--model_args" in capsys.readouterr().out
