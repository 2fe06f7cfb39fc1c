"""Small trainings on learners of Ray, with a hand on their processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mtrl.data import MappedStorage, Replay
from mtrl.distributed import Progress, Stream, learn_on_ray
from mtrl.pipeline import Config, RankWork, agent_of, clock_of, task_set_of, train_rank
from mtrl.rollout import FaultLog
from mtrl.structured import build, plain
from mtrl.training import RANDOM, RunDirectory

SAC: Mapping[str, Any] = {
    "name": "sac",
    "batch_size": 16,
    "replay": {"capacity": 2000},
    "network": {"torso": {"width": 16, "depth": 1}, "bins": 11},
}
TASKS = ("gym/CartPole-v1",)
FRAGMENT = 2 * 8
"""Steps of one fragment: two copies, eight decisions each."""

OnLook = Callable[[Progress], bool]


def work_of(folder: Path, steps: int, agent: Mapping[str, Any] = SAC, **sections: Any) -> RankWork:
    """A training below `folder` as one rank of it gets it."""
    values = {
        "tasks": {"names": list(TASKS)},
        "agent": dict(agent),
        "online": {"steps": steps, "warmup": 64, "log_every": 64, "checkpoint_every": 256},
        "collection": {"copies": 2, "steps": 8},
        "tracking": {"tensorboard": False},
        **sections,
    }
    config = build(Config, values, "")
    RunDirectory.create(folder, resume=True, config=plain(config))
    tasks = task_set_of(config)
    _, factory, settings = agent_of(config)
    needs = factory.needs(settings, tasks)
    clock = clock_of(needs, config.training, config.online)
    return RankWork(
        config, folder.resolve(), "teacher", settings, needs, clock, config.collection, RANDOM, 0.0
    )


def train(work: RankWork, on_look: OnLook = lambda progress: False) -> list[Progress]:
    """Trains to the end; returns what was seen of it, one entry for every change."""
    seen: list[Progress] = []

    def look(progress: Progress) -> bool:
        if not seen or seen[-1] != progress:
            seen.append(progress)
        return on_look(progress)

    learn_on_ray(
        partial(train_rank, work),
        task_set_of(work.config),
        work.config.runtime,
        work.run / "ray_train",
        stream=Stream(work.collection, RANDOM, work.config.seed) if work.needs.stream else None,
        evaluate=None,
        on_look=look,
        on_fault=FaultLog(),
    )
    return seen


def killer(rank: int, at: int, times: int = 1) -> OnLook:
    """Kills the process of a rank once the run has come to step `at`, so many times."""
    killed: set[int] = set()

    def look(progress: Progress) -> bool:
        if len(killed) < times and progress.steps >= at and len(progress.pids) > rank:
            pid = progress.pids[rank]
            if pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
        return False

    return look


def replay_of(work: RankWork, rank: int) -> Replay:
    """The replay of a rank, as its files hold it."""
    folder = work.run / "replay" / f"{rank}-of-{work.config.runtime.learners}"
    assert folder.is_dir()
    return Replay(task_set_of(work.config), work.settings.replay, storage=MappedStorage(folder))
