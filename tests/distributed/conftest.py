"""One private cluster for all tests here, and a plug-in suite that its actors import like any other."""

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtrl import registry
from mtrl.distributed import cluster
from mtrl.errors import EnvironmentFault
from mtrl.evaluation import EvaluationConfig, EvaluationResult, PolicyReference, Provenance, evaluate
from mtrl.rollout import Acting, EpisodeJob, PolicySnapshot, Rollouts, RuntimeConfig
from mtrl.tasks import Split, TaskSet, start_id

EXPERT = PolicySnapshot(kind="expert")


@pytest.fixture(scope="package")
def trial_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A distribution with an entry point, found over PYTHONPATH; yields where its tasks leave marks."""
    site = tmp_path_factory.mktemp("plug-in")
    shutil.copy(Path(__file__).with_name("trial_suite.py"), site / "trial_suite.py")
    information = site / "trial_suite-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: trial-suite\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[mtrl.suites]\ntrial = trial_suite:SUITE\n")
    marks = tmp_path_factory.mktemp("marks")
    with pytest.MonkeyPatch.context() as patch:
        inherited = os.environ.get("PYTHONPATH")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), *([inherited] if inherited else [])]))
        patch.setenv("TRIAL_FOLDER", str(marks))
        patch.setattr(sys, "path", [str(site), *sys.path])
        _look_again()
        yield marks
    _look_again()


def _look_again() -> None:
    """Lets the registry find what was installed, or removed, meanwhile."""
    registry._all_installed.cache_clear()
    registry._declared.cache_clear()


@pytest.fixture(scope="package")
def ray_cluster(trial_folder: Path) -> Iterator[None]:
    """Four logical processors, held open so that rollouts join it: two for those that tests share."""
    cluster.connect(RuntimeConfig(kind="ray", actors=4))
    yield
    cluster.disconnect()


@pytest.fixture
def marks(trial_folder: Path) -> Path:
    """The folder of marks, empty."""
    for mark in trial_folder.iterdir():
        mark.unlink()
    return trial_folder


@contextlib.contextmanager
def killing(marks: Path, count: int) -> Iterator[None]:
    """Ends the first `count` processes that play an episode within the block, from outside, as it begins."""
    done = threading.Event()

    def kill() -> None:
        killed: set[int] = set()
        while len(killed) < count and not done.wait(0.002):
            log = marks / "resets"
            lines = log.read_text().splitlines() if log.exists() else []
            for pid in {int(line.split()[0]) for line in lines} - killed:
                # an actor of the test before may write its last line late
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class Faults:
    """A fault handler that keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[EnvironmentFault, bool]] = []

    def __call__(self, fault: EnvironmentFault, quarantined: bool) -> None:
        self.seen.append((fault, quarantined))


def jobs_for(task_index: int, count: int, episodes: int = 2) -> list[EpisodeJob]:
    """`count` recorded expert jobs of one task with different starts."""
    return [
        EpisodeJob(
            task_index=task_index,
            starts=tuple(start_id(Split.TRAIN, n * episodes + e) for e in range(episodes)),
            seed=3,
            acting=Acting(explore=True),
            copies=2,
            record=True,
        )
        for n in range(count)
    ]


def evaluated(rollouts: Rollouts, tasks: TaskSet) -> EvaluationResult:
    """The expert on four test starts of every task, two copies side by side."""
    origin = Provenance(command="none", created="2030-01-01T00:00:00Z", hardware="none")
    who, protocol = PolicyReference("expert", "expert", "expert", 0), EvaluationConfig(episodes=4, copies=2)
    return evaluate(rollouts, tasks, EXPERT, protocol, who, origin)
