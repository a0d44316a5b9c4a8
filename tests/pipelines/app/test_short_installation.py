"""Models are loaded, generate and are scored where only the documented short list is installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import calm_bench

PAGE = Path(__file__).parents[3] / "docs/how-to/short-installation.md"
LEFT_OUT = ("ray", "mlflow", "optuna", "lm_eval", "matplotlib", "accelerate", "datasets", "scipy", "pandas")
SCRIPT = """
import importlib.util, json, sys
from pathlib import Path

site, *left_out = sys.argv[1:]
sys.path.insert(0, site)
found = [name for name in left_out if importlib.util.find_spec(name)]
assert not found, found

import torch
import calm_bench as cb
from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig, LanguageModel
from calm_bench.export import export_reference
from calm_bench.lm import Calm

torch.manual_seed(0)
small = {"hidden_size": 16, "intermediate_size": 24}
autoencoder = Autoencoder(AutoencoderConfig(latent_size=8, **small), 2, 257)
network = Calm(LanguageModel(chunk_size=2, num_layers=1, **small), autoencoder)
export_reference(network, Path("model"), eos_id=256)
lines = (" ".join(str(n * n) for n in range(start, start + 60)) for start in range(0, 12000, 60))
Path("text.jsonl").write_text("".join(json.dumps({"text": line}) + "\\n" for line in lines))
model = cb.load_model("model", tokenizer="bytes")
text = model.generate("ab", max_new_tokens=8)
score = model.score("text.jsonl", store="store", max_windows=12, context_length=64)

class Uniform:
    vocab_size, chunk_size = 257, 1
    def sample(self, contexts, num_samples, horizon, seeds):
        import numpy as np
        return np.stack([np.random.default_rng(seed).integers(0, 257, (num_samples, horizon)) for seed in seeds])

uniform = cb.score(Uniform(), [" ".join(map(str, range(2000)))], context_length=64)
print(json.dumps([len(text), score.num_positions, uniform.num_positions]))
"""


def short_list() -> list[str]:
    """The distributions that the page names."""
    found = re.search(
        r"^pip install (?!.*--no-deps)(.+) -c constraints.txt$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert found is not None
    return found[1].split()


def with_dependencies(names: list[str]) -> list[Distribution]:
    """The distributions called ``names`` and what they need, extras left out."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = canonicalize_name(Requirement(waiting.pop()).name)
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # of another platform, or of the GPU build
        needed = map(Requirement, found[name].requires or ())
        waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return list(found.values())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages as a clean environment has it after the page's two commands."""
    folder = tmp_path_factory.mktemp("site")
    for one in with_dependencies(short_list()):
        for top in {file.parts[0] for file in one.files or ()} - {"..", "__pycache__"}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(str(one.locate_file(top))).resolve())
    root = Path(calm_bench.__file__).parent.parent
    for package in ("calm_bench", "evals", "pipelines"):
        (folder / package).symlink_to(root / package)
    return folder


def test_the_short_list_is_enough(site: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", "-c", SCRIPT, str(site), *LEFT_OUT]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    written, positions, of_uniform = json.loads(ended.stdout.splitlines()[-1])
    assert written > 0
    assert positions > 0
    assert of_uniform > 0
