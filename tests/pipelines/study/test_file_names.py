"""A study is called after its file; where that is no name, the message says how to give it one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from calm_bench.overrides import ConfigurationError
from pipelines.study.catalogue import resolve_study


@pytest.mark.parametrize("stem", ["my study", "étude", "数", "-", "a" * 65, "a/b c"])
def test_a_file_whose_name_no_study_can_have(tmp_path: Path, stem: str) -> None:
    file = tmp_path / f"{stem}.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text("corpus: {source: markov}\n")
    with pytest.raises(ConfigurationError, match="a study is called after its file") as refused:
        resolve_study(str(file))
    in_file, beside = re.findall(r"\((name[:=] ?[^)]+)\)", str(refused.value))
    assert resolve_study(str(file), [beside]).name == beside.removeprefix("name=")
    file.write_text(f"{in_file}\ncorpus: {{source: markov}}\n")
    assert resolve_study(str(file)).name == beside.removeprefix("name=")


def test_a_name_that_fits_is_the_files(tmp_path: Path) -> None:
    (tmp_path / "my-study_2.x.yml").write_text("corpus: {source: markov}\n")
    assert resolve_study(str(tmp_path / "my-study_2.x.yml")).name == "my-study_2.x"
