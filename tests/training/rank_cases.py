"""What ranks do in tests of the loop; run as `python -m tests.training.rank_cases CASE ...`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtrl import registry
from mtrl.agents.sac import AGENT, NetworkConfig, SACConfig
from mtrl.data import ReplayConfig
from mtrl.errors import ResourceError
from mtrl.nn import TorsoConfig
from mtrl.reducer import Reducer
from mtrl.rollout import CollectionConfig, LocalFragments, RuntimeConfig
from mtrl.training import (
    Agent,
    Checkpoints,
    Clock,
    JsonlTracker,
    RunRecorder,
    StreamSource,
    Trackers,
    learn,
)

from ..ranks import main

PLACE = "MTRL_TEST_PLACE"
"""Environment variable: the folder of checkpoints and metrics."""

SMALL = SACConfig(
    network=NetworkConfig(torso=TorsoConfig(width=16, depth=1), bins=11),
    replay=ReplayConfig(capacity=300),
    batch_size=8,
)


class Failing(StreamSource):
    """Fails on one rank, after a few fragments."""

    def take(self, agent: Agent, reducer: Reducer) -> Sequence[Any]:
        if reducer.rank == 1 and self._steps > 200:
            raise ResourceError("the simulator of rank 1 is gone")
        return super().take(agent, reducer)


def trained(
    reducer: Reducer,
    *,
    source: type[StreamSource] = StreamSource,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """A run of both ranks in one folder, resumed where it stopped; what came of it."""
    tasks, place = registry.task_set(["point/obstacle", "gym/CartPole-v1"]), Path(os.environ[PLACE])
    agent = AGENT.build(SMALL, tasks, 3, rank=reducer.rank, ranks=reducer.size)
    collection = CollectionConfig(copies=2, steps=7)
    own = place if reducer.rank == 0 else place / f"rank{reducer.rank}"
    own.mkdir(parents=True, exist_ok=True)
    run = RunRecorder(
        Clock("steps", budget=450, log_every=90, checkpoint_every=10_000, warmup=150),
        JsonlTracker(own) if reducer.rank == 0 else Trackers([]),
        Checkpoints(own),
        tasks.names,
        skip_episodes_below=2,
        stop=stop,
        shared=Checkpoints(place),
    )
    fragments = source(
        lambda snapshot, _: LocalFragments(tasks, RuntimeConfig(), collection, snapshot, 3 + reducer.rank),
        tasks.names,
        150,
    )
    finished = learn(agent, fragments, run, reducer)
    found: dict[str, Any] = {"finished": finished, "steps": run.steps, "updates": agent.updates}
    return found | {f"weight/{name}": value for name, value in agent.snapshot().tensors.items()}


def whole(reducer: Reducer) -> Mapping[str, Any]:
    """Trains to the end."""
    return trained(reducer)


def stopped(reducer: Reducer) -> Mapping[str, Any]:
    """One rank is asked to stop in its twelfth round."""
    rounds = iter(range(10**9))
    return trained(reducer, stop=lambda: reducer.rank == 1 and next(rounds) >= 11)


def failing(reducer: Reducer) -> Mapping[str, Any]:
    """One rank's simulator goes."""
    return trained(reducer, source=Failing)


if __name__ == "__main__":
    main({"whole": whole, "stopped": stopped, "failing": failing})
