"""The scripts for Slurm, under a scheduler that sends what Slurm sends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from pipelines.store.store import Store
from pipelines.study.catalogue import resolve_study
from tests.faults.small_study import COMMAND, STUDY, Outcome, begun, left_behind, outcome_in, wait_for

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[2] / "deploy" / "slurm"
JOB = str(os.getpid() % 20_000)
"""A port follows from it."""
CANCELLED = "cancelled"
SRUN = f"""#!/bin/bash
while [ "${{1#-}}" != "$1" ]; do shift; done
"$@" &
trap '[ -e {CANCELLED} ] || kill -KILL $!' TERM
while kill -0 $! 2>/dev/null; do wait; done
"""
"""Begins here what is to run on a node, which stands behind the options, and ends it at once where it is told to; but
not in a job that is cancelled, whose end is Slurm's by then."""
GRACE_S = 30.0
"""KillWait of a cluster that sets none."""


class Scheduler:
    """Runs a script as jobs: again where it asks for it, with the signals of Slurm."""

    def __init__(self, folder: Path, script: str, *settings: str) -> None:
        """
        Args:
            settings: further arguments of the script.
        """
        self.store = Store(folder / "store")
        self._folder, self._script, self._settings = folder, script, settings
        self._requests = folder / "requests"
        programs = folder / "bin"
        programs.mkdir(parents=True)
        self._program(
            programs / "scontrol",
            f'#!/bin/sh\n[ "$1 $2" = "show hostnames" ] && exec echo 127.0.0.1\necho "$@" >> "{self._requests}"\n',
        )
        self._program(programs / "srun", SRUN)
        (programs / "ray").symlink_to(Path(sys.executable).parent / "ray")
        (programs / "python").symlink_to(sys.executable)
        python, flag, code = sys.executable, *COMMAND[1:]
        self._program(programs / "calm-bench", f'#!/bin/sh\nexec "{python}" {flag} "{code}" "$@"\n')
        (folder / "faults.yaml").write_text(yaml.safe_dump(STUDY))
        self._path = f"{programs}:{os.environ['PATH']}"

    @staticmethod
    def _program(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def begin(self) -> subprocess.Popen[str]:
        """One turn of the job."""
        for note in (self._requests, self._folder / CANCELLED):
            note.unlink(missing_ok=True)
        return subprocess.Popen(
            ["bash", str(SCRIPTS / self._script), "faults.yaml", *self._settings],
            cwd=self._folder,
            env={
                **os.environ,
                "PATH": self._path,
                "SLURM_JOB_ID": JOB,
                "SLURM_JOB_NODELIST": "node1",
                "SLURM_JOB_NUM_NODES": "1",
                "SLURM_SUBMIT_DIR": str(SCRIPTS.parents[1]),
                "CALM_BENCH_STORE": str(self.store.root),
                "CALM_BENCH_SETTINGS": "execution.device=cpu",
                "PYTHONPATH": str(SCRIPTS.parents[1]),
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def cancel(self, job: subprocess.Popen[str]) -> list[psutil.Process]:
        """As ``scancel`` and preemption: SIGTERM to the script and all that it started, which are returned."""
        (self._folder / CANCELLED).touch()
        return to_all(job, signal.SIGTERM)

    @property
    def asked_again(self) -> bool:
        return self._requests.exists() and f"requeue {JOB}" in self._requests.read_text()


def to_all(job: subprocess.Popen[str], number: signal.Signals) -> list[psutil.Process]:
    """Send ``number`` to the script and all that it started."""
    root = psutil.Process(job.pid)
    found = [*root.children(recursive=True), root]
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    scheduler = Scheduler(tmp_path_factory.mktemp("undisturbed"), "one-node.sh", "--local")
    said, _ = (job := scheduler.begin()).communicate(timeout=300)
    assert job.returncode == 0, said
    assert not scheduler.asked_again
    return outcome_in(scheduler.store)


@pytest.mark.parametrize("script", ["one-node.sh", pytest.param("array.sh", marks=pytest.mark.long)])
@pytest.mark.extended
def test_a_time_limit_costs_nothing_and_the_job_is_queued_again(
    script: str, tmp_path: Path, undisturbed: Outcome
) -> None:
    scheduler = Scheduler(tmp_path, script, "--local")
    job = scheduler.begin()
    wait_for(lambda: begun(scheduler.store, "language_model"), "a training has begun", of=job)
    # --signal=B:USR1@120: the script alone.
    job.send_signal(signal.SIGUSR1)
    said, _ = job.communicate(timeout=120)
    assert (job.returncode, scheduler.asked_again) == (143, True), said
    said, _ = (again := scheduler.begin()).communicate(timeout=300)
    assert (again.returncode, scheduler.asked_again) == (0, False), said
    assert outcome_in(scheduler.store) == undisturbed
    assert left_behind(scheduler.store) == []


@pytest.mark.long  # a time limit is in the suite
def test_a_preempted_job_goes_on_with_the_same_bits(tmp_path: Path, undisturbed: Outcome) -> None:
    scheduler = Scheduler(tmp_path, "one-node.sh", "--local")
    job = scheduler.begin()
    wait_for(lambda: begun(scheduler.store, "autoencoder"), "a training has begun", of=job)
    processes = scheduler.cancel(job)
    _, living = psutil.wait_procs([one for one in processes if one.pid != job.pid], timeout=GRACE_S)
    for process in living:
        process.kill()
    said, _ = job.communicate(timeout=30)
    assert "stopped by SIGTERM" in said, "by Slurm and by its script, it was asked once"
    assert not scheduler.asked_again
    said, _ = (again := scheduler.begin()).communicate(timeout=300)
    assert again.returncode == 0, said
    assert outcome_in(scheduler.store) == undisturbed
    assert left_behind(scheduler.store) == []


@pytest.mark.parametrize("script", ["one-node.sh", "several-nodes.sh"])
@pytest.mark.parametrize(
    ("number", "whom", "queued"),
    [(signal.SIGUSR1, "script", True), (signal.SIGTERM, "script", False), (signal.SIGTERM, "all", False)],
)
def test_only_who_has_reached_a_time_limit_is_queued_again(
    script: str, number: signal.Signals, whom: str, queued: bool, tmp_path: Path
) -> None:
    """Whom ``scancel`` has ended is not to come back."""
    scheduler = Scheduler(tmp_path, script)
    for name in ("ray", "calm-bench"):
        (tmp_path / "bin" / name).unlink()
    scheduler._program(tmp_path / "bin" / "ray", "#!/bin/sh\n")
    scheduler._program(
        tmp_path / "bin" / "calm-bench",
        "#!/bin/bash\ntrap 'exit 143' TERM\ntouch begun\nwhile :; do sleep 0.01; done\n",
    )
    job = scheduler.begin()
    wait_for((tmp_path / "begun").exists, "the study has begun", of=job)
    if whom == "all":
        scheduler.cancel(job)
    else:
        job.send_signal(number)
    said, _ = job.communicate(timeout=120)
    assert (job.returncode, scheduler.asked_again) == (143, queued), said


@pytest.mark.parametrize(("number", "queued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_a_job_that_is_told_to_end_while_ray_starts_begins_no_study(
    number: signal.Signals, queued: bool, tmp_path: Path
) -> None:
    scheduler = Scheduler(tmp_path, "several-nodes.sh")
    for name in ("ray", "calm-bench"):
        (tmp_path / "bin" / name).unlink()
    # Started, and not healthy yet.
    scheduler._program(
        tmp_path / "bin" / "ray", '#!/bin/sh\n[ "$1" = start ] || exit 1\ntouch starting\nexec sleep 600\n'
    )
    scheduler._program(tmp_path / "bin" / "calm-bench", "#!/bin/sh\ntouch begun\n")
    job = scheduler.begin()
    wait_for((tmp_path / "starting").exists, "Ray has begun to start", of=job)
    job.send_signal(number)
    said, _ = job.communicate(timeout=120)
    assert (job.returncode, scheduler.asked_again) == (143, queued), said
    assert not (tmp_path / "begun").exists()


def test_ray_is_there_until_the_study_has_saved_and_no_longer(tmp_path: Path) -> None:
    """Slurm tells Ray's processes to end together with the study, and waits for them at the end of a script."""
    scheduler = Scheduler(tmp_path, "several-nodes.sh")
    for name in ("ray", "calm-bench"):
        (tmp_path / "bin" / name).unlink()
    scheduler._program(
        tmp_path / "bin" / "ray", '#!/bin/sh\n[ "$1" = start ] || exit 0\necho $$ > ray.pid\nexec sleep 600\n'
    )
    scheduler._program(
        tmp_path / "bin" / "calm-bench",
        "#!/bin/bash\ntrap 'sleep 0.5; kill -0 $(cat ray.pid) && touch saved; exit 143' TERM\n"
        "touch begun\nwhile :; do sleep 0.01; done\n",
    )
    job = scheduler.begin()
    wait_for((tmp_path / "begun").exists, "the study has begun", of=job)
    # It is there a moment before its content.
    ray = psutil.Process(int(wait_for((tmp_path / "ray.pid").read_text, "Ray has begun", of=job)))
    wait_for(lambda: ray.name() == "sleep", "Ray has begun")
    for process in (psutil.Process(job.pid), *psutil.Process(job.pid).children(recursive=True)):
        # The one that asks for ray.pid every hundredth of a second may have ended.
        with suppress(psutil.NoSuchProcess):
            if "srun" not in " ".join(process.cmdline()):
                process.terminate()
    said, _ = job.communicate(timeout=120)
    assert (job.returncode, (tmp_path / "saved").exists()) == (143, True), said
    assert not ray.is_running() or ray.status() == psutil.STATUS_ZOMBIE


def ended(job: subprocess.Popen[str]) -> str:
    """What a job has said when its script has ended, and Slurm all that it had started."""
    started = set[psutil.Process]()
    deadline = time.monotonic() + 300
    while job.poll() is None and time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):
            started.update(psutil.Process(job.pid).children(recursive=True))
        time.sleep(0.2)
    job.kill()
    for process in started:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(started, timeout=GRACE_S)
    return job.communicate(timeout=GRACE_S)[0]


@pytest.mark.long
def test_a_cluster_of_the_job_and_a_time_limit_that_costs_nothing(tmp_path: Path, undisturbed: Outcome) -> None:
    """Of one node, which listens on loopback and asks for its token: Ray's command allows no second one there."""
    scheduler = Scheduler(tmp_path, "several-nodes.sh")
    job = scheduler.begin()
    try:
        # Not ``of`` the job, whose output is read to its end then: Ray's servers keep it open.
        wait_for(lambda: begun(scheduler.store, "language_model") or job.poll() is not None, "a training has begun")
        job.send_signal(signal.SIGUSR1)
    finally:
        said = ended(job)
    assert (job.returncode, scheduler.asked_again) == (143, True), said
    said = ended(again := scheduler.begin())
    assert (again.returncode, scheduler.asked_again) == (0, False), said
    assert outcome_in(scheduler.store) == undisturbed
    assert left_behind(scheduler.store) == []


@pytest.mark.long
def test_a_cluster_of_the_job_does_not_hear_that_it_is_to_end(tmp_path: Path, undisturbed: Outcome) -> None:
    """Where Slurm tells the steps alone, as at the beginning of a partition's GraceTime, and where it tells all."""
    scheduler = Scheduler(tmp_path, "several-nodes.sh")
    job = scheduler.begin()
    try:
        # Ray runs one stage at a time here, and the autoencoder first.
        wait_for(lambda: begun(scheduler.store, "autoencoder") or job.poll() is not None, "a training has begun")
        for step in psutil.Process(job.pid).children():
            if "srun" in " ".join(step.cmdline()):
                for process in step.children(recursive=True):
                    process.terminate()
        wait_for(lambda: begun(scheduler.store, "language_model") or job.poll() is not None, "Ray is still there")
        if job.poll() is None:
            scheduler.cancel(job)
    finally:
        said = ended(job)
    assert (job.returncode, scheduler.asked_again) == (143, False), said
    assert "stopped by SIGTERM" in said
    assert os.listdir(scheduler.store.root / "leases") == [".guard"]
    said = ended(again := scheduler.begin())
    assert (again.returncode, scheduler.asked_again) == (0, False), said
    assert outcome_in(scheduler.store) == undisturbed
    assert left_behind(scheduler.store) == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (None, "execution.gpus_per_stage=1 tracking.enabled=false"),
        ("sqlite:////shared/mlflow.db", "execution.gpus_per_stage=1 tracking.enabled=false"),
        ("http://mlflow.example.org:5000", "execution.gpus_per_stage=1"),
    ],
)
def test_drivers_of_an_array_write_to_a_server_or_not_at_all(
    address: str | None, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "one-node.sh").write_text('echo "$CALM_BENCH_SETTINGS"')
    surroundings = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    surroundings |= {"CALM_BENCH_SLURM": str(tmp_path)} | ({"MLFLOW_TRACKING_URI": address} if address else {})
    done = subprocess.run(
        ["bash", str(SCRIPTS / "array.sh")], env=surroundings, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.sh")))
def test_scripts_are_shell_and_ask_for_a_signal_in_time(script: str) -> None:
    text = (SCRIPTS / script).read_text()
    subprocess.run(["bash", "-n", str(SCRIPTS / script)], check=True)
    assert "#SBATCH --signal=B:USR1@1" in text
    assert "#SBATCH --requeue" in text
    assert resolve_study("k-ablation", ["execution.gpus_per_stage=1"]).execution.gpus_per_stage == 1
    if "ray start" in text:
        assert "RAY_AUTH_MODE=token" in text
        assert text.count("ray start") == text.count('--num-cpus="$cpus"') == 2, "Ray counts those of the machine"
        assert "--include-dashboard=false" in text
