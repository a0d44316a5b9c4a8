"""A cluster that somebody else started, asking for its token, gets the code of the driver that connects to it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import calm_bench

DRIVER = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from ray.cluster_utils import Cluster
from pipelines.study.config import Execution
from pipelines.execution.ray_executor import RayExecutor
from pipelines.study.stage_kind import STAGE_KINDS, StageKind
from pipelines.study.stage import Stage
from pipelines.store.store import Store

def run_where(stage, inputs, folder, context):
    import calm_bench, evals, pipelines
    files = [module.__file__ for module in (calm_bench, evals, pipelines)]
    return {"files": files, "mark": calm_bench.MARK, "threads": os.environ["OMP_NUM_THREADS"], "pid": os.getpid()}

if __name__ == "__main__":
    STAGE_KINDS.register("where", StageKind("where", run_where, uses_torch=False))
    head = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    executor = RayExecutor(Store(sys.argv[2]), Execution(address=cluster.address, device="cpu"))
    try:
        print(json.dumps(executor.submit(Stage("where", 1, {})).result() | {"driver": os.getpid()}))
    finally:
        executor.close()
        cluster.shutdown()
"""


@pytest.mark.extended
def test_a_changed_checkout_runs_on_nodes_that_do_not_have_it(tmp_path: Path) -> None:
    """The checkout lies where no import looks for it; what is installed beside it is another version."""
    checkout, empty = tmp_path / "checkout", tmp_path / "empty"
    empty.mkdir()
    here = Path(calm_bench.__file__).parent.parent
    for name in ("calm_bench", "evals", "pipelines"):
        shutil.copytree(here / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (checkout / "calm_bench" / "__init__.py").open("a") as file:
        file.write('\nMARK = "changed"\n')
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(script), str(checkout), str(tmp_path / "store")],
        cwd=empty,
        env={**environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a1" * 32, "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["mark"] == "changed"
    assert all("runtime_resources" in file for file in found["files"]), found["files"]
    assert found["threads"] == "1"
    assert found["pid"] != found["driver"]
