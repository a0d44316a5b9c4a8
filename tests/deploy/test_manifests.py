"""What is in deploy/, held against the schemas of the programs that will read it."""

from __future__ import annotations

import copy
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "mlflow" / "compose.yaml"
STUDY = DEPLOY / "kubernetes" / "study.yaml"
DOCKERFILES = sorted(DEPLOY.rglob("Dockerfile"))
KUBERNETES = "1.34"


def _program(name: str) -> str:
    """A command of this Python's environment."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def _constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def _compose() -> dict[str, Any]:
    description: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return description


def test_the_compose_file_is_one() -> None:
    done = subprocess.run(
        [_program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_services_are_pinned_watched_and_listen_to_this_machine_alone() -> None:
    description = _compose()
    for name, service in description["services"].items():
        assert re.fullmatch(r"\S+:v?\d+\.\d+[\w.-]*", service["image"]), f"{name} has no exact version"
        assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for port in service.get("ports", [])), name
        assert "healthcheck" in service or service["restart"] == "no", name
        assert set(service.get("depends_on", {})) <= set(description["services"])
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in description["volumes"] or (COMPOSE.parent / source).is_file(), volume
        build = service.get("build")
        if build is not None:
            context = (COMPOSE.parent / build["context"]).resolve()
            assert context == ROOT
            assert (context / build["dockerfile"]).is_file()
    assert description["services"]["mlflow"]["image"].endswith(f":{importlib.metadata.version('mlflow')}")


def test_every_setting_of_the_compose_file_has_a_default_or_is_in_the_example() -> None:
    text = COMPOSE.read_text()
    settings = dict(line.split("=", 1) for line in _lines(COMPOSE.parent / ".env.example"))
    used = dict(re.findall(r"\$\{(\w+)(:[-?][^}]*)", text))
    assert set(used) == set(settings)
    assert len(re.findall(r"\$\{?\w", text)) == len(re.findall(r"\$\{\w+:[-?]", text)), "each with its default or error"
    for name, otherwise in used.items():
        if otherwise.startswith(":-"):
            assert otherwise == f":-{settings[name]}", "the example shows what holds without it"
        else:
            assert settings[name] == "", "a secret that ships is none"


def test_no_secret_ships() -> None:
    """Examples name what is secret; nothing but them is called .env."""
    assert sorted(path.name for path in DEPLOY.rglob(".env*") if path.name.endswith(".example")) == [".env.example"] * 2
    for path in (path for path in DEPLOY.rglob("*") if path.is_file() and path.name != ".env"):
        for user, password in re.findall(r"\w+://([\w.-]+):([^@\s]+)@", path.read_text()):
            assert password in ("SECRET", "${POSTGRES_PASSWORD:?set it in .env}"), (path, user)


def _lines(path: Path) -> Iterator[str]:
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            yield line


@pytest.mark.parametrize("path", sorted((DEPLOY / "ray").glob("*.yaml")), ids=lambda path: path.stem)
def test_ray_takes_the_cluster_file(path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    description = yaml.safe_load(path.read_text())
    prepared = prepare_config(copy.deepcopy(description))
    validate_config(prepared)
    workers = [kind for name, kind in prepared["available_node_types"].items() if kind["max_workers"]]
    assert sum(kind["max_workers"] for kind in workers) == prepared["max_workers"] > 0
    starts = prepared["head_start_ray_commands"] + prepared["worker_start_ray_commands"]
    starts = [command for command in starts if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts), "nobody joins or uses it without the token"
    assert "~/.ray/auth_token" in prepared["file_mounts"]
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert not [command for command in prepared["setup_commands"] if "ray-wheels" in command], "no Ray of Ray's choice"


def test_the_study_on_kubernetes_is_valid() -> None:
    import kubernetes_validate

    claim, job = yaml.safe_load_all(STUDY.read_text())
    assert kubernetes_validate.validate(claim, KUBERNETES, strict=True) == KUBERNETES

    # The fields of KubeRay 1.5's own types; a misspelt one would be dropped without a word.
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job["spec"]) <= {
        *("entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"),
        *("activeDeadlineSeconds", "submissionMode", "runtimeEnvYAML", "entrypointNumCpus", "entrypointNumGpus"),
    }
    cluster = job["spec"]["rayClusterSpec"]
    assert set(cluster) == {
        *("rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "authOptions"),
        *("headGroupSpec", "workerGroupSpecs"),
    }
    assert set(cluster["headGroupSpec"]) == {"rayStartParams", "template"}
    needed = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert all(set(group) == needed for group in cluster["workerGroupSpecs"])
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": group["template"]["spec"]}
        assert kubernetes_validate.validate(pod, KUBERNETES, strict=True) == KUBERNETES
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert volumes["store"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
            assert container["resources"]["requests"] == container["resources"]["limits"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert cluster["rayVersion"] == importlib.metadata.version("ray")
    assert cluster["authOptions"] == {"mode": "token"}


def test_ray_reads_the_resources_of_the_study_on_kubernetes() -> None:
    """By the function with which Ray's autoscaler reads the cluster that KubeRay makes of it."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    _, job = yaml.safe_load_all(STUDY.read_text())
    cluster = {"metadata": {"name": "k", "namespace": "default"}, "spec": job["spec"]["rayClusterSpec"]}
    types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert types["gpu"]["resources"] == {"CPU": 8, "GPU": 1, "memory": 64 * 2**30}
    assert (types["gpu"]["min_workers"], types["gpu"]["max_workers"]) == (0, 8)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_images_build_from_what_is_there_in_the_tested_versions(path: Path) -> None:
    done = subprocess.run([_program("hadolint"), str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert done.stdout == ""

    text = path.read_text().replace("\\\n", " ")
    pinned = _constraints()
    for name, version in re.findall(r"\b([a-z_]+)==([\d.]+)", text):
        assert pinned[name] == version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (python,) = re.findall(r"ARG PYTHON=(\S+)", text)
    assert Requirement(f"python{project['requires-python']}").specifier.contains(python)
    for extras in re.findall(r"\.\[([\w,]+)\]", text):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])
    ignored = (path.with_name("Dockerfile.dockerignore")).read_text().splitlines()
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, f"{source} does not reach the build"
    assert re.search(r"^USER [1-9]\d*$", text, re.MULTILINE), "not as root, by number, so that Kubernetes can tell"


def test_the_image_has_what_a_gpu_needs() -> None:
    """torch.compile builds what launches its kernels; memory is not to be left in gaps."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    assert re.search(r"apt-get install .*\bgcc libc6-dev\b", text)
    assert "PYTORCH_ALLOC_CONF=expandable_segments:True" in text


def test_the_image_has_what_its_entry_says() -> None:
    """Extras whose packages are not pinned would give another image every day."""
    pinned = {name.lower().replace("_", "-") for name in _constraints()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in ("cluster", "postgresql", "s3"):
        for text in project["optional-dependencies"][extra]:
            assert Requirement(text).name.lower().replace("_", "-") in pinned, text
