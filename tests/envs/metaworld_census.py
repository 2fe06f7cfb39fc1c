"""Resets and steps Meta-World tasks many times and prints what came of it, one JSON line a task.

Run as `python -m tests.envs.metaworld_census TASK ...`, in a process of its own: a reset that never ends
cannot be interrupted from within.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import metaworld
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl import registry
from mtrl.envs.metaworld.catalogue import entry
from mtrl.envs.metaworld.environment import MetaworldEnvironment

from .episodes import first_observation, same

STARTS = 100
FRESH_STARTS = 3
EXPERT_STEPS = 40


@dataclass
class Findings:
    """What one task did."""

    task: str
    different: int = 0
    """Distinct first observations among `STARTS` starts."""
    changed_on_used: list[int] = field(default_factory=list)
    """Starts whose first observation was another one in a second pass in another order."""
    changed_on_fresh: list[int] = field(default_factory=list)
    """Starts below `FRESH_STARTS` whose first observation was another one on a second environment."""
    without_goal: list[int] = field(default_factory=list)
    """Starts whose observation hides the goal."""
    not_finite: list[int] = field(default_factory=list)
    """Starts whose observation is not finite."""
    equal_official_start: bool = False
    """Whether a fresh official environment, given the accepted vector, begins with the same observation."""
    equal_official_steps: int = 0
    """Steps of the scripted expert until ours and the official environment first differ."""
    official_entry: dict[str, int] = field(default_factory=dict)
    """What the catalogue should say."""


def main(short_names: list[str]) -> None:
    """Prints the findings on each task as soon as they are complete."""
    for short_name in short_names:
        sys.stdout.write(json.dumps(asdict(examine(short_name))) + "\n")
        sys.stdout.flush()


def examine(short_name: str) -> Findings:
    """Two passes over all starts, a few on a second environment, and an episode beside the official one."""
    task = registry.task(f"metaworld/{short_name}")
    suite = registry.suite("metaworld")
    used, fresh = suite.environment(task), suite.environment(task)
    assert isinstance(used, MetaworldEnvironment)
    findings = Findings(short_name)
    first = [first_observation(used, task, start) for start in range(STARTS)]
    states = np.stack([observation["state"] for observation in first])
    findings.different = len({row.tobytes() for row in states})
    findings.without_goal = [start for start in range(STARTS) if not states[start, -3:].any()]
    findings.not_finite = [start for start in range(STARTS) if not np.isfinite(states[start]).all()]
    generator = np.random.default_rng(0)
    out = {"state": np.zeros(task.observation.state or 0, dtype=np.float32)}
    for start in map(int, generator.permutation(STARTS)):
        used.step(generator.uniform(-1.0, 1.0, 4).astype(np.float32), out)
        if not same(first_observation(used, task, start), first[start]):
            findings.changed_on_used.append(start)
    findings.changed_on_fresh = [
        start
        for start in reversed(range(FRESH_STARTS))
        if not same(first_observation(fresh, task, start), first[start])
    ]
    equal = list(_beside_official(used, short_name, findings))
    findings.equal_official_start = equal[0]
    findings.equal_official_steps = [*equal[1:], False].index(False)
    return findings


def _beside_official(ours: MetaworldEnvironment, short_name: str, findings: Findings) -> Iterator[bool]:
    """Whether the first observation, then each step of an expert's episode, equals the official one."""
    task = registry.task(f"metaworld/{short_name}")
    expert = registry.suite("metaworld").expert(task)
    state = first_observation(ours, task, 7)["state"]
    official = fresh_official(short_name, ours.start_vector)
    findings.official_entry = asdict(entry(official))
    observation, _ = official.reset()
    yield state.tobytes() == observation.astype(np.float32).tobytes()
    out = {"state": np.zeros_like(state)}
    for step in range(EXPERT_STEPS):
        # a little off the expert's way, so that the arm also meets things it should not
        action = np.clip(expert.act({"state": state}) + 0.1 * np.sin(step), -1.0, 1.0).astype(np.float32)
        reward, _, success = ours.step(action, out)
        observation, official_reward, _, _, info = official.step(action)
        state = out["state"]
        yield (
            state.tobytes() == observation.astype(np.float32).tobytes()
            and reward == official_reward
            and success == bool(info["success"])
        )


def fresh_official(short_name: str, start_vector: np.ndarray, reward_version: str = "v2") -> SawyerXYZEnv:
    """A new environment of metaworld's own, set to a start in the official way, goal visible."""
    build = ALL_V3_ENVIRONMENTS[short_name]
    official: SawyerXYZEnv = build(reward_function_version=reward_version)
    content = {"env_cls": build, "rand_vec": start_vector, "partially_observable": False}
    official.set_task(metaworld.Task(env_name=short_name, data=pickle.dumps(content)))
    return official


if __name__ == "__main__":
    main(sys.argv[1:])
