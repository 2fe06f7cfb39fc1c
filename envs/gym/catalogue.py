"""Regenerates catalogue.json from the installed package: `python -m mtrl.envs.gym.catalogue`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from mtrl.tasks import Split, start_id
from mtrl.tasks.catalogue import catalogue_text, resolve_options

from .construction import build, describe
from .entry import GymEntry
from .environment import GymnasiumEnvironment
from .suite import OPTIONS, task_of

EPISODES = 100
"""Episodes of random play whose mean return is the low end of a score."""

SETS = {
    "classic-control": (
        "CartPole-v1",
        "MountainCar-v0",
        "MountainCarContinuous-v0",
        "Pendulum-v1",
        "Acrobot-v1",
    ),
    "toy-text": (
        "FrozenLake-v1",
        "FrozenLake8x8-v1",
        "CliffWalking-v1",
        "CliffWalkingSlippery-v1",
        "Taxi-v3",
    ),
    "gymnasium-mujoco": (
        "Reacher-v5",
        "Pusher-v5",
        "InvertedPendulum-v5",
        "InvertedDoublePendulum-v5",
        "HalfCheetah-v5",
        "Hopper-v5",
        "Swimmer-v5",
        "Walker2d-v5",
        "Ant-v5",
        "Humanoid-v5",
        "HumanoidStandup-v5",
    ),
}
"""Gymnasium's own ids that work with the packages mtrl requires, newest versions only."""


def entries(identifiers: Iterable[str]) -> dict[str, GymEntry]:
    """Builds each id once; without the returns of random play."""
    return {identifier: describe(f"gym/{identifier}", ()) for identifier in identifiers}


def random_return(identifier: str, entry: GymEntry, episodes: int = EPISODES) -> float:
    """Mean undiscounted return of uniformly random actions over the first validation starts."""
    task = task_of(f"gym/{identifier}", entry, resolve_options("gym", OPTIONS, None))
    limit = task.horizon_decisions
    environment = GymnasiumEnvironment(task, build(task.name), limit)
    out = {}
    if entry.state is not None:
        out["state"] = np.zeros(entry.state, dtype=np.float32)
    generator = np.random.default_rng(0)
    total = 0.0
    for index in range(episodes):
        environment.reset(start_id(Split.VALIDATION, index), out)
        for _ in range(limit):
            if entry.discrete:
                action: np.ndarray | int = int(generator.integers(entry.discrete))
            else:
                action = generator.uniform(-1.0, 1.0, entry.continuous).astype(np.float32)
            reward, terminated, _ = environment.step(action, out)
            total += reward
            if terminated:
                break
    environment.close()
    return round(total / episodes, 2)


def generate() -> str:
    """The text of catalogue.json; a few minutes, most of them random play."""
    identifiers = [identifier for members in SETS.values() for identifier in members]
    tasks = {
        identifier: replace(entry, random_return=random_return(identifier, entry))
        for identifier, entry in entries(identifiers).items()
    }
    return catalogue_text("gym", f"gymnasium {version('gymnasium')}", tasks, SETS)


if __name__ == "__main__":
    Path(__file__).with_name("catalogue.json").write_text(generate(), encoding="utf-8")
