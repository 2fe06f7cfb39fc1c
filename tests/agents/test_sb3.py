"""The baseline on Stable-Baselines3: parity with the library, snapshots, refusals, resuming, learning."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtrl import registry
from mtrl.agents.sb3 import AGENT, DQNArguments, PPOArguments, SACArguments, SB3Baseline, SB3Config
from mtrl.agents.sb3.algorithms import CLASSES, arguments_of
from mtrl.errors import (
    ConfigError,
    DivergenceError,
    IntegrityError,
    OutOfRangeError,
    ResourceError,
    UnknownNameError,
    UnsupportedError,
)
from mtrl.rollout import Acting, EpisodeSummary, SharedSpace, policy_from
from mtrl.spaces import Observation
from mtrl.tasks import TaskSet
from mtrl.training import load_state, save_state

from ..synthetic import counter_suite, counter_task

SMALL: Mapping[str, SB3Config] = {
    "sac": SB3Config(
        algorithm="sac",
        net_arch=(16,),
        sac=SACArguments(batch_size=8, learning_starts=10, buffer_size=200),
    ),
    "ppo": SB3Config(algorithm="ppo", net_arch=(16,), ppo=PPOArguments(n_steps=8, batch_size=8, n_epochs=2)),
    "dqn": SB3Config(
        algorithm="dqn",
        net_arch=(16,),
        dqn=DQNArguments(batch_size=8, learning_starts=10, buffer_size=200),
    ),
}
CONTINUOUS, DISCRETE = ["point/obstacle", "maze2d/umaze"], ["gym/CartPole-v1", "gym/Acrobot-v1"]
CASES = [("sac", CONTINUOUS), ("ppo", CONTINUOUS), ("ppo", DISCRETE), ("dqn", DISCRETE)]


class Log:
    """A run that keeps what is reported to it, and stops at a step."""

    log_every = 20

    def __init__(self, budget: int, stop_at: int = 10**9) -> None:
        self.budget, self.stop_at = budget, stop_at
        self.logged: list[tuple[int, Mapping[str, float]]] = []
        self.episodes: list[EpisodeSummary] = []
        self.step = 0

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.logged.append((step, metrics))

    def add(self, summary: EpisodeSummary) -> None:
        self.episodes.append(summary)

    def advance(self, step: int) -> None:
        self.step = step

    def stop(self) -> bool:
        return self.step >= self.stop_at


def trained(algorithm: str, names: list[str], budget: int = 60) -> tuple[SB3Baseline, TaskSet, Log]:
    tasks = registry.task_set(names)
    baseline, log = AGENT.build(SMALL[algorithm], tasks, 1), Log(budget)
    assert baseline.run(log)
    return baseline, tasks, log


def observations(tasks: TaskSet, count: int = 6) -> tuple[Observation, np.ndarray]:
    """Random states, padded with zeros, and the tasks they belong to."""
    task_index = np.arange(count) % len(tasks)
    states = np.random.default_rng(0).standard_normal((count, tasks.layout.state_size))
    return {"state": (states * tasks.layout.state_mask[task_index]).astype(np.float32)}, task_index


def act(policy: Any, tasks: TaskSet, explore: bool, seed: int = 0) -> Any:
    seen, task_index = observations(tasks)
    generators = [np.random.default_rng([seed, copy]) for copy in range(len(task_index))]
    ended = np.ones(len(task_index), dtype=bool)
    return policy.act(seen, task_index, {}, ended, acting=Acting(explore), generators=generators)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1][0].partition('/')[0]}")
def case(request: pytest.FixtureRequest) -> tuple[SB3Baseline, TaskSet, Log]:
    torch.set_num_threads(1)
    return trained(*request.param)


def test_acting_is_the_librarys_prediction_bit_for_bit(case: tuple[SB3Baseline, TaskSet, Log]) -> None:
    baseline, tasks, _ = case
    seen, task_index = observations(tasks)
    space = SharedSpace(tasks)
    chosen, _ = baseline.model.predict(space.observe(seen, task_index), deterministic=True)
    action = act(AGENT.policy(baseline.snapshot(), tasks), tasks, explore=False)
    if space.discrete:
        counts = np.array([task.action.discrete for task in tasks])[task_index]
        assert (action.discrete == chosen % counts).all()
    else:
        assert (action.continuous == np.where(tasks.layout.continuous_mask[task_index], chosen, 0)).all()
    assert not action.extras


def test_a_snapshot_comes_back_from_disk_as_the_same_policy(
    case: tuple[SB3Baseline, TaskSet, Log], tmp_path: Path
) -> None:
    baseline, tasks, _ = case
    snapshot = baseline.snapshot()
    save_state(tmp_path / "policy", asdict(snapshot))
    again = type(snapshot)(**load_state(tmp_path / "policy"))
    assert snapshot.same_as(again)
    rebuilt = policy_from(again, tasks)
    assert rebuilt.version == AGENT.policy(baseline.snapshot(), tasks).version > 0
    for explore in (False, True):
        ours, theirs = (
            act(AGENT.policy(baseline.snapshot(), tasks), tasks, explore),
            act(rebuilt, tasks, explore),
        )
        assert (ours.continuous == theirs.continuous).all() and (ours.discrete == theirs.discrete).all()


def test_exploring_draws_from_the_given_generators_alone(case: tuple[SB3Baseline, TaskSet, Log]) -> None:
    baseline, tasks, _ = case
    policy = AGENT.policy(baseline.snapshot(), tasks)
    first = act(policy, tasks, explore=True)
    torch.manual_seed(99)
    second, other = act(policy, tasks, explore=True), act(policy, tasks, explore=True, seed=5)
    assert (first.continuous == second.continuous).all() and (first.discrete == second.discrete).all()
    assert np.isfinite(first.extras["log_probability"]).all()
    if not SharedSpace(tasks).discrete:
        assert (first.continuous != other.continuous).any()


def test_the_budget_is_kept_and_the_run_is_logged(case: tuple[SB3Baseline, TaskSet, Log]) -> None:
    baseline, tasks, log = case
    assert baseline.steps == log.step == 60
    assert [step for step, _ in log.logged] == [20, 40, 60]
    assert {"train/learning_rate", "train/n_updates"} <= set(log.logged[-1][1])
    assert {summary.task_index for summary in log.episodes} <= set(range(len(tasks)))
    assert baseline.run(log), "a spent budget is not exceeded"
    assert baseline.steps == 60


@pytest.mark.parametrize(("algorithm", "names"), CASES[:1] + CASES[2:])
def test_a_run_goes_on_from_its_state(algorithm: str, names: list[str], tmp_path: Path) -> None:
    tasks = registry.task_set(names)
    config = SMALL[algorithm]
    first = AGENT.build(config, tasks, 1)
    stopping = Log(80, stop_at=40)
    assert not first.run(stopping)
    assert first.steps == 40
    save_state(tmp_path / "state", first.state())
    second = AGENT.build(config, tasks, 1)
    second.restore(load_state(tmp_path / "state"))
    assert second.snapshot().same_as(first.snapshot())
    moments = second.state()["parameters"]
    for name, part in first.state()["parameters"].items():
        if "optimizer" in name:
            for index, entry in part["state"].items():
                assert torch.equal(entry["exp_avg"], moments[name]["state"][index]["exp_avg"])
    assert second.state()["episodes"] == first.state()["episodes"]
    log = Log(80)
    assert second.run(log)
    assert second.steps == 80 and log.logged[0][0] == 60
    assert not second.snapshot().same_as(first.snapshot())


@pytest.mark.parametrize("algorithm", ["sac", "ppo"])
def test_a_controller_computes_what_the_policy_does(algorithm: str) -> None:
    baseline, tasks, _ = trained(algorithm, CONTINUOUS)
    controller = AGENT.controller(baseline.snapshot(), tasks)
    seen, task_index = observations(tasks)
    state = seen["state"].astype(np.float32)
    found = controller(torch.from_numpy(state), torch.from_numpy(task_index))
    expected = act(AGENT.policy(baseline.snapshot(), tasks), tasks, explore=False).continuous
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "names", "error", "words"),
    [
        (SMALL["ppo"], [*CONTINUOUS, *DISCRETE], UnsupportedError, "one action space"),
        (SMALL["sac"], DISCRETE, UnsupportedError, "SAC .* learns continuous .* is discrete"),
        (SMALL["dqn"], CONTINUOUS, UnsupportedError, "DQN .* learns discrete .* is continuous"),
        (SB3Config(settings={"clip_rnge_vf": 1.0}), DISCRETE, UnknownNameError, "'clip_range_vf'"),
        (SB3Config(settings={"gamma": 0.9}), DISCRETE, ConfigError, r"write agent\.ppo\.gamma"),
        (SB3Config(settings={"seed": 3}), DISCRETE, ConfigError, "write seed=N"),
        (SB3Config(settings={"policy_kwargs": {"wrong": 1}}), DISCRETE, ConfigError, "wrong"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(
    config: SB3Config, names: list[str], error: type[Exception], words: str
) -> None:
    tasks = registry.task_set(names)
    with pytest.raises(error, match=words):
        AGENT.build(config, tasks, 1)


def test_a_budget_below_one_rollout_is_refused() -> None:
    tasks = registry.task_set(DISCRETE)
    baseline = AGENT.build(SB3Config(), tasks, 1)
    with pytest.raises(ConfigError, match=r"4,096 steps, and the budget is 4,000.*at most 2000"):
        baseline.run(Log(4000))


def test_weights_of_other_tasks_are_refused() -> None:
    tasks = registry.task_set(DISCRETE)
    snapshot = AGENT.build(SMALL["ppo"], tasks, 1).snapshot()
    with pytest.raises(IntegrityError, match="trained on"):
        AGENT.policy(snapshot, registry.task_set(DISCRETE[:1]))


def test_a_line_falls_to_0_over_the_budget() -> None:
    config = SB3Config(ppo=PPOArguments(learning_rate="lin_0.5", clip_range=0.2))
    arguments = arguments_of(config)
    assert [arguments["learning_rate"](left) for left in (1.0, 0.5, 0.0)] == [0.5, 0.25, 0.0]
    assert arguments["clip_range"] == 0.2
    for wrong in ("lin_", "lin_-1", "linear", "lin_nan", "lin_inf"):
        with pytest.raises(OutOfRangeError, match=r"agent.ppo.learning_rate.*lin_"):
            SB3Config(ppo=PPOArguments(learning_rate=wrong))


def test_settings_reach_the_library() -> None:
    tasks = registry.task_set(DISCRETE)
    config = SB3Config(net_arch=(7,), settings={"clip_range_vf": 0.3}, copies=2)
    model = AGENT.build(config, tasks, 1).model
    assert model.clip_range_vf(1.0) == 0.3
    assert model.policy.mlp_extractor.policy_net[0].out_features == 7
    assert model.n_envs == 4


@pytest.mark.parametrize("algorithm", ["sac", "ppo", "dqn"])
def test_the_defaults_are_the_librarys(algorithm: str) -> None:
    parameters = inspect.signature(CLASSES[algorithm]).parameters
    ours = asdict(getattr(SB3Config(), algorithm))
    assert {name: parameters[name].default for name in ours} == ours


@pytest.mark.parametrize("wrong", [{"copies": 0}, {"net_arch": (0,)}, {"ppo": {"gamma": 1.5}}])
def test_values_out_of_range_are_refused(wrong: Mapping[str, Any]) -> None:
    from mtrl.structured import build

    with pytest.raises(OutOfRangeError):
        build(SB3Config, wrong, "agent")


@pytest.fixture
def counters() -> Iterator[TaskSet]:
    with counter_suite():
        yield TaskSet([counter_task("counter/short", horizon=2)])


def test_truncation_bootstraps_and_episodes_are_reported(counters: TaskSet) -> None:
    baseline, log = AGENT.build(SMALL["sac"], counters, 1), Log(9)
    assert baseline.run(log)
    # rewards 1 and 2, then the clock; the replay knows that no problem ended
    assert [(e.episode_return, e.length, e.truncated) for e in log.episodes] == [(3.0, 2, True)] * 4
    buffer = baseline.model.replay_buffer
    assert buffer.dones[:9, 0].tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert buffer.timeouts[:9, 0].tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert buffer.next_observations[1, 0, 0] == 2, "the true last observation, not the next first"


def test_a_loss_that_is_not_finite_stops_the_run(counters: TaskSet) -> None:
    baseline = AGENT.build(SMALL["sac"], counters, 1)
    assert baseline.run(Log(12))
    with torch.no_grad():
        next(baseline.model.critic.parameters()).fill_(float("nan"))
    with pytest.raises(DivergenceError, match="SAC of Stable-Baselines3"):
        baseline.run(Log(20))


@pytest.mark.slow
def test_ppo_learns_cartpole() -> None:
    torch.set_num_threads(1)
    tasks = registry.task_set("gym/CartPole-v1")
    baseline, log = AGENT.build(SB3Config(), tasks, 1), Log(20_000)
    assert baseline.run(log)
    assert np.mean([summary.episode_return for summary in log.episodes[-10:]]) > 150


def test_a_gpu_that_is_not_there_is_refused() -> None:
    # the library itself would compute on the CPU without a word
    with pytest.raises(ResourceError, match="cuda:64 is not there"):
        arguments_of(SB3Config(device="cuda:64"))
