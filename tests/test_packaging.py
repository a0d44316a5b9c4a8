"""What is declared and shipped: dependencies, data files, names, and the command that CI and README share."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

import calm_bench

ROOT = Path(__file__).parent.parent
PACKAGES = ("calm_bench", "evals", "pipelines")
TRAINING_ONLY = {
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "datasets",
    "huggingface_hub",
    "fsspec",
    "numpy",
    "pyarrow",
    "pydantic",
    "yaml",
}
"""All that ``calm_bench`` may import: what a GPU machine without the rest has."""
ON_REQUEST = {"datasketch"}
"""What it imports inside the function that needs it, with advice where it is missing."""
DISTRIBUTIONS = {"yaml": "pyyaml", "optuna_dashboard": "optuna-dashboard"}
"""Distribution of an import name where the two differ."""


def imported(package: str) -> set[str]:
    """Top-level names of other projects that the package imports, anywhere in a file but for the conformance suites."""
    names: set[str] = set()
    for path in set((ROOT / package).rglob("*.py")) - set((ROOT / package / "testing").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - set(PACKAGES)


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    from packaging.requirements import Requirement

    optional = [text for extra, texts in project["optional-dependencies"].items() if extra != "dev" for text in texts]
    return {Requirement(text).name.lower() for text in [*project["dependencies"], *optional]}


def pinned(file: str = "constraints.txt") -> dict[str, str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return {name.lower(): version for name, _, version in (line.partition("==") for line in lines) if version}


def test_every_import_is_declared() -> None:
    needed = {DISTRIBUTIONS.get(name, name).lower() for package in PACKAGES for name in imported(package)}
    assert needed - declared() == set()


def test_training_needs_only_torch_and_data_libraries() -> None:
    assert imported("calm_bench") - TRAINING_ONLY - ON_REQUEST == set()


def test_every_dependency_is_pinned() -> None:
    pins = pinned()
    assert declared() - set(pins) == set()
    assert pins["torch"] == "2.13.0", "without a local version, which exists on one index only"


FROZEN = sorted(path.name for path in ROOT.glob("constraints*.txt"))


@pytest.mark.parametrize("file", FROZEN)
def test_every_set_of_versions_lies_in_the_ranges(file: str) -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = {name.replace("_", "-"): version for name, version in pinned(file).items()}
    assert pins["torch"] == "2.13.0"
    for wanted in map(Requirement, project["dependencies"]):
        version = pins[wanted.name.lower().replace("_", "-")]
        assert wanted.specifier.contains(version), f"{wanted} and {version}"
        if "lowest" in file:
            (low,) = (each.version for each in wanted.specifier if each.operator == ">=")
            bound = Version(low).release
            assert Version(version).release[: len(bound)] == bound, f"{wanted} and {version}: a bound nobody tests"


def test_tox_installs_the_frozen_sets() -> None:
    told = (ROOT / "tox.ini").read_text(encoding="utf-8")
    assert set(re.findall(r"constraints[\w-]*\.txt", told)) == set(FROZEN)
    assert len(FROZEN) == 3


def test_ci_runs_what_the_readme_says() -> None:
    *_, command, longer = (ROOT / ".ci" / "run").read_text(encoding="utf-8").strip().splitlines()
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")
    assert longer == ".venv/bin/tox -e extended"


@pytest.mark.parametrize("name", ["evals", "pipelines"])
@pytest.mark.parametrize("kind", ["package", "module", "package that comes later"])
def test_a_foreign_package_of_the_same_name_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / f"{name}.py" if kind == "module" else tmp_path / name / "__init__.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import calm_bench"
    if kind == "package that comes later":
        script = f"import sys, calm_bench; sys.path.insert(0, {str(tmp_path)!r}); calm_bench.Study"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"the name {name!r} leads to {path.resolve()}" in done.stderr


def test_a_folder_of_the_same_name_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "evals").mkdir()
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import calm_bench, evals; print(evals.__file__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert str(tmp_path) not in done.stdout


def test_pytest_is_for_the_conformance_suites_alone() -> None:
    """Who installs the package to train has no pytest."""
    script = "import sys; sys.modules['pytest'] = None; import calm_bench, calm_bench.heads, calm_bench.testing"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "import of pytest halted" in done.stderr, "the suites need it"
    assert "calm_bench/testing" in done.stderr.replace("\\", "/"), "and nothing before them"
    assert "calm_bench/heads" not in done.stderr


def test_what_is_to_be_cited_is_this_version() -> None:
    """``CITATION.cff``, which hosts of repositories show, and the BibTeX in README."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    (entry,) = re.findall(r"@software\{.*?\n\}", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    found = dict(re.findall(r"(\w+)\s*=\s*\{(.*?)\},?\n", entry))
    assert found["version"] == citation["version"] == calm_bench.__version__
    assert found["title"].startswith(citation["title"])
    assert found["license"] == citation["license"]
    (paper,) = citation["references"]
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2510.27688"}]
