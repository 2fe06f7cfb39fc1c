"""Trials on training: a learner, Ray Train's controller, the evaluator or the command itself is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

from mtrl.data import MappedStorage, Replay
from mtrl.distributed import Progress, Stream, learn_on_ray
from mtrl.pipeline import Config, RankWork, agent_of, clock_of, evaluate_here, task_set_of, train_rank
from mtrl.rollout import FaultLog
from mtrl.structured import build, plain
from mtrl.training import RANDOM, RunDirectory, read_jsonl

from .nodes import TwoNodes, alive, signal_all

PATIENCE_SECONDS = 400.0
FRAGMENT = 2 * 8
IMPORTS = "import torch, ray.train.torch"
EVERY = 256
"""Steps between two checkpoints, and between two evaluations."""
SAC = {
    "name": "sac",
    "batch_size": 16,
    "replay": {"capacity": 4000},
    "network": {"torso": {"width": 16, "depth": 1}, "bins": 11},
}
SETTINGS = {
    "tasks": {"names": ["gym/CartPole-v1"]},
    "agent": SAC,
    "online": {"steps": 10**9, "warmup": 64, "log_every": 64, "checkpoint_every": EVERY},
    "collection": {"copies": 2, "steps": 8},
    "evaluation": {"episodes": 2},
    "tracking": {"tensorboard": False},
}
EVALUATED = {**SETTINGS, "online": {**SETTINGS["online"], "evaluate_every": EVERY}}  # type: ignore[dict-item]


@dataclass
class Trial:
    """What became of one fault."""

    recovered: bool = False
    seconds: float = PATIENCE_SECONDS
    """From the fault to the first record after it."""
    import_seconds: float = 0.0
    """Time of `IMPORTS` in a process started with the fault."""
    lost_fragments: int = 0
    steps_went_back: int = 0


@dataclass
class Session:
    """A training, and what is done to it one fault after another."""

    nodes: TwoNodes
    count: int
    folder: Path
    trials: list[Trial] = field(default_factory=list)
    _began: float = 0.0
    _steps: int = 0
    """The most that was seen."""
    _before: Progress = field(default_factory=Progress)
    """Progress when the last fault came, or when the one before it was over."""
    _results: int = 0
    """Evaluations logged until the fault."""
    _victims: list[int] = field(default_factory=list)
    _under_way: Trial | None = None
    _imports: threading.Thread | None = None

    def run(self, kind: str, note: Callable[[str], None]) -> list[dict[str, object]]:
        """Trains until `count` faults of a kind are over."""
        settings = EVALUATED if kind == "evaluator_killed" else SETTINGS
        runtime = {"kind": "ray", "learners": 1, "actors": 1, "address": self.nodes.address}
        work = work_of(self.folder, {**settings, "runtime": runtime})
        learn_on_ray(
            partial(train_rank, work),
            task_set_of(work.config),
            work.config.runtime,
            work.run / "ray_train",
            stream=Stream(work.collection, RANDOM, 1),
            evaluate=partial(evaluate_here, work) if kind == "evaluator_killed" else None,
            on_look=partial(self._look, kind, note),
            on_fault=FaultLog(),
        )
        replay = Replay(
            task_set_of(work.config),
            work.settings.replay,
            storage=MappedStorage(self.folder / "replay" / "0-of-1"),
        )
        assert replay.record is not None, "the learner leaves its replay"
        for trial in self.trials:
            # of all faults together: fragments are numbered as they are delivered
            trial.lost_fragments = replay.record.number - replay.record.steps // FRAGMENT
            trial.recovered &= trial.steps_went_back == 0
        return [asdict(trial) for trial in self.trials]

    def _look(self, kind: str, note: Callable[[str], None], progress: Progress) -> bool:
        trial = self._under_way
        if trial is not None:
            trial.steps_went_back += progress.steps < self._steps
        self._steps = max(self._steps, progress.steps)
        if trial is not None and time.monotonic() - self._began > PATIENCE_SECONDS:
            self.trials.append(trial)
            self._under_way = None
            return True
        if trial is None and len(self.trials) < self.count:
            if progress.steps >= self._before.steps + EVERY and progress.pids:
                self._hit(kind, progress)
        elif trial is not None and self._is_over(kind, progress):
            trial.seconds, trial.recovered = time.monotonic() - self._began, True
            assert self._imports is not None, "started with the fault"
            self._imports.join()
            self.trials.append(trial)
            self._under_way, self._before = None, progress
            note(f"{kind} {len(self.trials)}: {trial.seconds:.1f} s, imports {trial.import_seconds:.1f} s")
        return len(self.trials) >= self.count

    def _hit(self, kind: str, progress: Progress) -> None:
        if kind == "learner_killed":
            pids = [progress.pids[0]]
        else:
            pids = self.nodes.actors("TrainController" if kind == "controller_killed" else "EvaluatorActor")
        if not pids:
            return
        self._under_way, self._before, self._victims = Trial(), progress, pids
        self._began, self._results = time.monotonic(), self._evaluations()
        signal_all(pids, signal.SIGKILL)
        self._imports = threading.Thread(target=self._measure_imports, args=(self._under_way,))
        self._imports.start()

    def _is_over(self, kind: str, progress: Progress) -> bool:
        if kind == "evaluator_killed":
            # two, for one may have been on its way
            return self._evaluations() >= self._results + 2 and not any(map(alive, self._victims))
        return progress.starts > self._before.starts and progress.steps > self._before.steps

    def _evaluations(self) -> int:
        metrics = self.folder / "metrics.jsonl"
        rows = read_jsonl(metrics) if metrics.exists() else []
        return sum(any(name.startswith("evaluation_return") for name in row) for row in rows)

    def _measure_imports(self, trial: Trial) -> None:
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
        trial.import_seconds = time.monotonic() - began


def work_of(folder: Path, values: dict[str, object]) -> RankWork:
    """A training below a folder, as one rank of it gets it."""
    config = build(Config, values, "")
    RunDirectory.create(folder, resume=True, config=plain(config))
    tasks = task_set_of(config)
    _, factory, settings = agent_of(config)
    needs = factory.needs(settings, tasks)
    clock = clock_of(needs, config.training, config.online)
    return RankWork(
        config, folder.resolve(), "teacher", settings, needs, clock, config.collection, RANDOM, 0.0
    )


def driver_killed(folder: Path) -> dict[str, object]:
    """SIGKILL of the command, then the same command with --resume auto, to its end."""
    words = [
        sys.executable, "-m", "mtrl.launch.main", "train", "tasks=gym/CartPole-v1", "agent=sac",
        "runtime=ray", "runtime.learners=1", "runtime.actors=1", "agent.batch_size=16",
        "agent.replay.capacity=4000", "agent.network.torso.width=16", "agent.network.torso.depth=1",
        "online.steps=2000", "online.warmup=64", "online.log_every=64", f"online.checkpoint_every={EVERY}",
        "stages=[train]", "tracking=files", f"output={folder}", "name=driver",
    ]  # fmt: skip
    run, began = folder / "driver", time.monotonic()
    first = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not list(run.glob("checkpoints/[0-9]*")) and first.poll() is None:
        if time.monotonic() - began > PATIENCE_SECONDS:
            break
        time.sleep(0.1)
    ended_early = first.poll() is not None
    first.send_signal(signal.SIGKILL)
    first.wait()
    began = time.monotonic()
    again = subprocess.run(
        [*words, "--resume", "auto"], capture_output=True, text=True, timeout=900, check=False
    )
    steps = [row["step"] for row in read_jsonl(run / "metrics.jsonl")]
    trial = Trial(recovered=again.returncode == 0 and not ended_early and bool(steps) and steps[-1] >= 1984)
    trial.seconds = time.monotonic() - began
    trial.steps_went_back = sum(b <= a for a, b in pairwise(steps))
    trial.recovered &= not trial.steps_went_back
    if not trial.recovered:
        print(again.stderr[-2000:], file=sys.stderr)
    return asdict(trial)


TRAININGS = ("learner_killed", "controller_killed", "evaluator_killed")
