"""The RLlib baseline on a real cluster; it stands here because tests of this folder share one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from mtrl import registry
from mtrl.agents.rllib import AGENT, APPOArguments, PPOArguments, RLlibConfig, SACArguments
from mtrl.agents.rllib.baseline import RLlibBaseline
from mtrl.errors import EnvironmentFault, ResourceError
from mtrl.rollout import EpisodeSummary
from mtrl.training import load_state, save_state, undocumented

from ..synthetic import counter_suite

pytestmark = pytest.mark.usefixtures("ray_cluster")

SMALL: Mapping[str, RLlibConfig] = {
    "sac": RLlibConfig(
        algorithm="sac",
        fcnet_hiddens=(8,),
        sac=SACArguments(train_batch_size_per_learner=8, num_steps_sampled_before_learning_starts=10),
    ),
    "ppo": RLlibConfig(
        algorithm="ppo",
        fcnet_hiddens=(8,),
        ppo=PPOArguments(train_batch_size_per_learner=64, minibatch_size=32, num_epochs=2),
    ),
    "appo": RLlibConfig(
        algorithm="appo",
        fcnet_hiddens=(8,),
        appo=APPOArguments(train_batch_size_per_learner=64, use_kl_loss=True),
    ),
}
TASKS = {
    "sac": ["point/obstacle", "maze2d/umaze"],
    "ppo": ["gym/CartPole-v1", "gym/Acrobot-v1"],
    "appo": ["gym/CartPole-v1"],
}


class Log:
    """A run that keeps what is reported to it, and stops at a step."""

    def __init__(self, budget: int, stop_at: int = 10**9) -> None:
        self.budget, self.log_every, self.stop_at = budget, budget // 2, stop_at
        self.logged: list[tuple[int, Mapping[str, float]]] = []
        self.episodes: list[EpisodeSummary] = []
        self.steps: list[int] = []

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.logged.append((step, metrics))

    def add(self, summary: EpisodeSummary) -> None:
        self.episodes.append(summary)

    def advance(self, step: int) -> None:
        self.steps.append(step)

    def stop(self) -> bool:
        return self.steps[-1] >= self.stop_at


def learner(algorithm: str) -> RLlibBaseline:
    tasks = registry.task_set(TASKS[algorithm])
    return AGENT.build(SMALL[algorithm], tasks, 1)


def flat(state: Any, place: str = "") -> dict[str, Any]:
    """Dotted place -> leaf."""
    if isinstance(state, dict):
        return {k: v for key, item in state.items() for k, v in flat(item, f"{place}.{key}").items()}
    if isinstance(state, list | tuple):
        return {k: v for n, item in enumerate(state) for k, v in flat(item, f"{place}.{n}").items()}
    return {place: state}


def assert_equal_states(first: Any, second: Any) -> None:
    ours, theirs = flat(first), flat(second)
    assert ours.keys() == theirs.keys()
    for place, value in ours.items():
        same = (
            torch.equal(value, theirs[place]) if isinstance(value, torch.Tensor) else value == theirs[place]
        )
        assert same, place


@pytest.mark.parametrize("algorithm", ["sac", "ppo", "appo"])
def test_a_run_learns_reports_stops_and_goes_on(algorithm: str, tmp_path: Path) -> None:
    baseline = learner(algorithm)
    budget = {"sac": 40, "ppo": 192, "appo": 400}[algorithm]
    new = baseline.snapshot()
    if algorithm == "ppo":
        log = Log(budget, stop_at=1)
        assert not baseline.run(log), "stopped after the first iteration"
        assert 0 < baseline.steps < budget and log.steps == [baseline.steps]

    log = Log(budget)
    assert baseline.run(log)
    assert budget <= baseline.steps == log.steps[-1] == log.logged[-1][0]
    learned = {name for _, metrics in log.logged for name in metrics}
    assert learned and not undocumented(learned, AGENT.metrics)
    assert all(np.isfinite(value) for _, metrics in log.logged for value in metrics.values())
    snapshot = baseline.snapshot()
    assert snapshot.version > new.version
    assert all((snapshot.tensors[name] != value).any() for name, value in new.tensors.items())
    if algorithm != "sac":
        assert log.episodes and all(episode.length > 0 and episode.start % 3 == 0 for episode in log.episodes)
    assert ray.is_initialized(), "the cluster was there before, and stays"

    save_state(tmp_path / "state", baseline.state())
    again = learner(algorithm)
    again.restore(load_state(tmp_path / "state"))
    assert_equal_states(again.state(), baseline.state())
    assert again.steps == baseline.steps and again.snapshot().same_as(snapshot)
    with again._running():
        assert_equal_states(again.state(), baseline.state())


@pytest.mark.slow
def test_runners_in_processes_of_their_own_send_their_episodes() -> None:
    tasks = registry.task_set(["gym/CartPole-v1", "gym/MountainCar-v0"])
    # two rounds: what takes time is the way to the other process and back
    rounds = PPOArguments(train_batch_size_per_learner=500, minibatch_size=250, num_epochs=1)
    config = replace(SMALL["ppo"], ppo=rounds, env_runners=1, copies=2)
    baseline, log = AGENT.build(config, tasks, 1), Log(1000)
    assert baseline.run(log)
    starts = [(episode.task_index, episode.start) for episode in log.episodes]
    assert len(set(starts)) == len(starts) > 1
    played = [sum(e.length for e in log.episodes if e.task_index == k) for k in range(2)]
    assert abs(played[0] - played[1]) <= 4 * 200, "but for the episodes under way"


def test_a_broken_environment_ends_the_run_with_its_own_words() -> None:
    with counter_suite():
        tasks = registry.task_set(["counter/short"], {"counter": {"fail_at": 2}})
        baseline = AGENT.build(SMALL["ppo"], tasks, 1)
        with pytest.raises(EnvironmentFault, match=r"(?s)counter/short.*the arm fell off"):
            baseline.run(Log(100))
        assert baseline.steps == 0 and baseline.snapshot().version == 0


def test_more_processes_than_processors_are_refused_at_once() -> None:
    tasks = registry.task_set(["gym/CartPole-v1"])
    baseline = AGENT.build(RLlibConfig(env_runners=50), tasks, 1)
    with pytest.raises(ResourceError, match=r"agent.env_runners=50"):
        baseline.run(Log(100))


@pytest.mark.slow
@pytest.mark.parametrize("runners", [0, 2])
def test_ppo_learns_to_balance_a_pole(runners: int) -> None:
    tasks = registry.task_set(["gym/CartPole-v1"])
    settings = PPOArguments(lr=1e-3, train_batch_size_per_learner=1000, num_epochs=10, vf_clip_param=1e4)
    config = RLlibConfig(fcnet_hiddens=(64, 64), env_runners=runners, ppo=settings)
    baseline, log = AGENT.build(config, tasks, 1), Log(20_000)
    assert baseline.run(log)
    lengths = [episode.length for episode in log.episodes]
    assert np.mean(lengths[-20:]) > 3 * np.mean(lengths[:20])
