"""Files are data: no reader of ours can be made to run what a file says."""

from __future__ import annotations

import ast
import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import calm_bench
from calm_bench.overrides import ConfigurationError, load_yaml, parse_assignment
from calm_bench.tensor_files import WeightsError, read_tensors
from calm_bench.tokens import TokensError, TokenStream
from calm_bench.training.checkpoint import Checkpoints
from evals.protocol import EvaluationError
from evals.sums import load_sums
from pipelines.results.leaderboard import Leaderboard, LeaderboardError
from pipelines.store.folder_leases import leases_in
from pipelines.store.inventory import StoreError, studies_in
from pipelines.store.manifest import Manifest
from pipelines.store.store import Store

ROOT = Path(calm_bench.__file__).parent.parent
IMPORTERS = {
    "calm_bench/__init__.py": "names of the entrance, in our code",
    "calm_bench/command.py": "a fixed name",
    "calm_bench/corpora/stdlib.py": "a fixed name",
    "calm_bench/families/base.py": "the network that a family of ours, or of an installed package, names in its class",
    "calm_bench/loaded_code.py": "what is among the imported modules already, to wait for a thread that imports it",
    "calm_bench/own_code.py": "what the user names (calm_bench/trusted_code.py, --trust-code); names of registries, in "
    "our code, and entry points of installed packages",
    "calm_bench/tokens/choose_tokenizer.py": "names in our code, chosen by a key",
    "pipelines/store/provenance.py": "our three packages",
}
"""Where modules are imported by a name that is made while the program runs, and whence the name comes."""
SENT_BY_RAY = {
    "pipelines/execution/same_code.py": "what the driver sends its own worker through Ray, which pickles all it sends",
    "pipelines/execution/ray_parts.py": "what a worker of Ray Data sends the stage that asked for it, likewise",
    "calm_bench/testing/corpus_conformance.py": "what the suite pickled itself, to see that it can travel",
}
"""Where something is unpickled that was never in a file, and whence it comes."""
COMPARED = {
    "calm_bench/loaded_code.py": "what the user's code is now, beside what this process has imported of it; never run",
}
"""Where something is compiled."""
UNPICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}


def offences(source: str, file: str = "file.py") -> Iterator[str]:
    """What in ``source`` could run what it reads."""
    tree = ast.parse(source)
    safe_loaders = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "yaml.SafeLoader" for base in node.bases)
    } | {"yaml.SafeLoader", "yaml.CSafeLoader"}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        module, _, name = called.rpartition(".")
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        is_bad = (
            called in ("eval", "exec", "__import__", "os.system", "os.popen"),
            called == "compile" and file not in COMPARED,
            module.split(".")[-1] in UNPICKLERS
            and name in ("load", "loads", "Unpickler", "open")
            and not (called == "pickle.loads" and file in SENT_BY_RAY),
            name == "read_pickle",
            name == "load" and keywords.get("allow_pickle") == "True",
            called == "torch.load" and keywords.get("weights_only") != "True",
            module == "yaml" and name in ("load", "load_all") and keywords.get("Loader") not in safe_loaders,
            module == "yaml" and name in ("unsafe_load", "full_load", "unsafe_load_all", "full_load_all"),
            keywords.get("shell") == "True" or keywords.get("trust_remote_code") == "True",
            name == "import_module" and file not in IMPORTERS,
        )
        if any(is_bad):
            yield f"{file}:{node.lineno}: {called}"


@pytest.mark.parametrize("package", ["calm_bench", "evals", "pipelines"])
def test_no_reader_that_could_run_what_it_reads_is_in_our_code(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 20
    found = [
        offence
        for path in files
        for offence in offences(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "exec(text)",
        "pickle.load(file)",
        "ray.cloudpickle.loads(content)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.UnsafeLoader)",
        "yaml.full_load(text)",
        "subprocess.run(command, shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "importlib.import_module(name)",
    ],
)
def test_such_a_reader_would_be_found(line: str) -> None:
    assert list(offences(f"x = {line}"))


def test_safe_readers_are_no_offence() -> None:
    source = """
class Loader(yaml.SafeLoader): ...
a = yaml.load(text, Loader=Loader)
b = yaml.safe_load(text)
c = torch.load(path, weights_only=True)
d = model.eval()
e = re.compile("x")
"""
    assert list(offences(source)) == []


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        import os

        return os.mkdir, (str(self._folder),)


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[bytes]:
    """A pickle that must never be loaded; whether it was shows in the end."""
    sprung = tmp_path / "sprung"
    content = pickle.dumps({"model": Trap(sprung)})
    yield content
    assert not sprung.exists(), "code of a file was run"
    # It would have been: the trap works.
    pickle.loads(content)
    assert sprung.is_dir()


def test_a_pickle_in_the_place_of_a_checkpoint_is_not_loaded(trap: bytes, tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    path = folder / "step-000000010.safetensors"
    path.write_bytes(trap)
    path.with_suffix(".sha256").write_text(hashlib.sha256(trap).hexdigest())
    with pytest.raises(Exception, match=r"(?i)header|deserializing"):
        Checkpoints(folder).restore(model, torch.optim.AdamW(model.parameters()))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00001.bin", "model.safetensors"])
def test_a_pickle_in_the_place_of_weights_is_refused(trap: bytes, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / name).write_bytes(trap)
    with pytest.raises(WeightsError):
        read_tensors(folder, pickles=True)


def test_a_zipped_pickle_with_code_is_refused_by_name(trap: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    torch.save({"weight": torch.ones(1), "trap": Trap(tmp_path / "sprung")}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="carries more than tensors and is not loaded"):
        read_tensors(folder, pickles=True)


def test_pickles_in_the_place_of_other_files_are_not_loaded(trap: bytes, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("sums.arrow", "tokens", "study.yaml", "leases", "store")}
    files["sums.arrow"].write_bytes(trap)
    with pytest.raises(EvaluationError):
        load_sums(files["sums.arrow"])
    files["tokens"].mkdir()
    (files["tokens"] / "manifest.json").write_bytes(trap)
    with pytest.raises(TokensError):
        TokenStream.open(files["tokens"], "train")
    files["study.yaml"].write_bytes(trap)
    with pytest.raises(ConfigurationError):
        load_yaml(files["study.yaml"])
    with pytest.raises(LeaderboardError):
        Leaderboard.from_json(trap.decode("latin-1"))
    with pytest.raises(ValueError, match=r"codec|JSON|Expecting"):
        Manifest.from_json(trap)
    files["leases"].mkdir()
    (files["leases"] / "stage-1.json").write_bytes(trap)
    assert leases_in(files["leases"]).holder("stage-1") is None
    study = files["store"] / "studies" / "x-0123456789abcdef"
    study.mkdir(parents=True)
    (study / "trials.json").write_bytes(trap)
    with pytest.raises(StoreError):
        studies_in(Store(files["store"]))


def test_a_pickle_in_the_place_of_a_shard_is_no_arrow_file(trap: bytes, tmp_path: Path) -> None:
    from calm_bench.config import Corpus, Markov, Tokens
    from calm_bench.corpora import write_corpus
    from calm_bench.tokens import DamagedShard, write_tokens

    write_corpus(Corpus(source="markov", markov=Markov(num_documents=10, document_length=50)), tmp_path / "corpus")
    folder = tmp_path / "tokens"
    write_tokens(Tokens(), tmp_path / "corpus", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    described = manifest["splits"]["train"]["shards"][0]
    (folder / described["file"]).write_bytes(trap)
    described |= {"size": len(trap), "sha256": hashlib.sha256(trap).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedShard, match="no Arrow file"):
        TokenStream.open(folder, "train")
    shutil.rmtree(folder)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/name:os.mkdir", "!!python/module:os"])
def test_yaml_cannot_name_python(tmp_path: Path, tag: str) -> None:
    sprung = tmp_path / "sprung"
    path = tmp_path / "study.yaml"
    path.write_text(f"name: {tag} [{str(sprung)!r}]\n")
    with pytest.raises(ConfigurationError, match="not valid YAML"):
        load_yaml(path)
    with pytest.raises(ConfigurationError):
        parse_assignment(f"name={tag} [{str(sprung)!r}]")
    assert not sprung.exists()
