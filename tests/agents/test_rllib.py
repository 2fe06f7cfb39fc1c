"""The RLlib baseline without a cluster: parity with the library, tasks in turns, refusals."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

import mtrl.agents.rllib
from mtrl import registry
from mtrl.agents.rllib import AGENT, APPOArguments, PPOArguments, RLlibConfig, RLlibPolicy, SACArguments
from mtrl.agents.rllib.algorithms import CONFIGS, module_of, quiet, settings_of
from mtrl.agents.rllib.baseline import RLlibBaseline
from mtrl.agents.rllib.environment import RunnerEnvironment, TaskSchedule
from mtrl.errors import ConfigError, IntegrityError, OutOfRangeError, UnknownNameError, UnsupportedError
from mtrl.rollout import Acting, PolicySnapshot, SharedSpace, policy_from
from mtrl.spaces import Observation
from mtrl.structured import build, plain
from mtrl.tasks import TaskSet
from mtrl.training import load_state, save_state

from ..synthetic import counter_suite

CONTINUOUS, DISCRETE = ["point/obstacle", "maze2d/umaze"], ["gym/CartPole-v1", "gym/Acrobot-v1"]
CASES = [(name, names) for name in ("sac", "ppo", "appo") for names in (CONTINUOUS, DISCRETE)]


def config_of(algorithm: str, **settings: Any) -> RLlibConfig:
    return RLlibConfig(algorithm=algorithm, fcnet_hiddens=(12, 8), head_fcnet_hiddens=(6,), **settings)


def observations(tasks: TaskSet, count: int = 24) -> tuple[Observation, np.ndarray]:
    """Random states, padded with zeros, and the tasks they belong to."""
    task_index = np.arange(count) % len(tasks)
    states = np.random.default_rng(0).standard_normal((count, tasks.layout.state_size))
    return {"state": (states * tasks.layout.state_mask[task_index]).astype(np.float32)}, task_index


def act(policy: RLlibPolicy, tasks: TaskSet, explore: bool) -> Any:
    seen, task_index = observations(tasks)
    generators = [np.random.default_rng([0, copy]) for copy in range(len(task_index))]
    ended = np.ones(len(task_index), dtype=bool)
    return policy.act(seen, task_index, {}, ended, acting=Acting(explore), generators=generators)


Case = tuple[RLlibConfig, TaskSet, PolicySnapshot, Any]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1][0].partition('/')[0]}")
def case(request: pytest.FixtureRequest) -> Case:
    """Settings, tasks, the snapshot of a new learner, and RLlib's own module with the same weights.

    The weights are larger than new ones, so that actions are clipped and deviations are far from 1.
    """
    algorithm, names = request.param
    tasks = registry.task_set(names)
    config = config_of(algorithm)
    baseline = AGENT.build(config, tasks, 1)
    state = baseline.state()
    state["weights"] = {name: 2.5 * value for name, value in state["weights"].items()}
    baseline.restore(state)
    with quiet():
        module = module_of(settings_of(config, SharedSpace(tasks), 1, [0] * len(tasks)), inference_only=True)
    module.load_state_dict({name: state["weights"][name] for name in module.state_dict()})
    return config, tasks, baseline.snapshot(), module


def distribution(case: Case) -> tuple[Any, np.ndarray]:
    """RLlib's own distribution of actions for the observations, and the tasks they belong to."""
    _, tasks, _, module = case
    seen, task_index = observations(tasks)
    rows = torch.as_tensor(SharedSpace(tasks).observe(seen, task_index))
    with torch.no_grad():
        outputs = module.forward_inference({"obs": rows})
    return module.get_inference_action_dist_cls().from_logits(outputs["action_dist_inputs"]), task_index


def test_acting_is_what_rllibs_own_module_does_in_inference(case: Case) -> None:
    config, tasks, snapshot, _ = case
    theirs, task_index = distribution(case)
    # of a squashed Gaussian RLlib takes the mean before the tanh, as nowhere else; that we do not repeat
    squashed = config.algorithm == "sac" and not tasks.layout.discrete_tasks.any()
    chosen = (torch.tanh(theirs.loc) if squashed else theirs.to_deterministic().sample()).numpy()
    action = act(AGENT.policy(snapshot, tasks), tasks, explore=False)
    if tasks.layout.discrete_tasks.all():
        counts = np.array([task.action.discrete for task in tasks])[task_index]
        assert (action.discrete == chosen % counts).all()
    else:
        # RLlib's connectors clip to the action space
        clipped = np.where(tasks.layout.continuous_mask[task_index], np.clip(chosen, -1, 1), 0)
        np.testing.assert_allclose(action.continuous, clipped, atol=1e-6)
        assert (np.abs(action.continuous) > 0.5).any(), "the case has no large action"


def test_exploring_draws_from_rllibs_distribution(case: Case) -> None:
    _, tasks, snapshot, _ = case
    theirs, task_index = distribution(case)
    action = act(AGENT.policy(snapshot, tasks), tasks, explore=True)
    if tasks.layout.discrete_tasks.all():
        shares = torch.softmax(theirs.logits, dim=1).numpy()
        for row, (k, index) in enumerate(zip(task_index, action.discrete, strict=True)):
            own = shares[row, index :: tasks[k].action.discrete].sum()
            assert np.exp(action.extras["log_probability"][row]) == pytest.approx(own, rel=1e-4)
    else:
        inside = (np.abs(action.continuous) < 0.99).all(axis=1)
        expected = theirs.logp(torch.from_numpy(action.continuous)).numpy()
        assert tasks.layout.continuous_mask.all() and inside.any()
        np.testing.assert_allclose(
            action.extras["log_probability"][inside], expected[inside], rtol=1e-3, atol=1e-3
        )
    again = act(AGENT.policy(snapshot, tasks), tasks, explore=True)
    assert (again.continuous == action.continuous).all() and (again.discrete == action.discrete).all()


def test_a_snapshot_comes_back_from_disk_as_the_same_policy(case: Case, tmp_path: Path) -> None:
    _, tasks, snapshot, _ = case
    save_state(tmp_path / "policy", asdict(snapshot))
    again = PolicySnapshot(**load_state(tmp_path / "policy"))
    assert snapshot.same_as(again)
    ours, theirs = (
        act(AGENT.policy(snapshot, tasks), tasks, False),
        act(policy_from(again, tasks), tasks, False),
    )
    assert (ours.continuous == theirs.continuous).all() and (ours.discrete == theirs.discrete).all()


def test_a_controller_computes_what_the_policy_does(case: Case) -> None:
    _, tasks, snapshot, _ = case
    seen, task_index = observations(tasks)
    controller = AGENT.controller(snapshot, tasks)
    with torch.no_grad():
        action = controller(torch.from_numpy(np.asarray(seen["state"])), torch.from_numpy(task_index))
    expected = act(AGENT.policy(snapshot, tasks), tasks, explore=False)
    if tasks.layout.discrete_tasks.any():
        assert action.argmax(1).tolist() == expected.discrete.tolist()
    else:
        np.testing.assert_allclose(action.numpy(), expected.continuous, atol=1e-6)


def test_a_snapshot_of_other_tasks_is_refused(case: Case) -> None:
    _, tasks, snapshot, _ = case
    with pytest.raises(IntegrityError, match="Use the tasks"):
        AGENT.policy(snapshot, registry.task_set([tasks.names[0]]))


def test_a_policy_needs_no_ray() -> None:
    folder = Path(mtrl.agents.rllib.__file__).parent
    with_ray = {"algorithms", "baseline"}
    for path in folder.glob("*.py"):
        top = [
            node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        named = {getattr(node, "module", None) or node.names[0].name for node in top}
        if path.stem not in with_ray:
            assert not named & with_ray, path.name
            assert not any(name.split(".")[0] == "ray" for name in named), path.name


def test_a_new_learner_depends_on_the_seed_alone() -> None:
    tasks = registry.task_set(CONTINUOUS)
    torch.manual_seed(3)
    first = AGENT.build(config_of("sac"), tasks, 1).snapshot()
    before = torch.random.get_rng_state()
    second = AGENT.build(config_of("sac"), tasks, 1)
    assert first.same_as(second.snapshot()) and second.steps == 0
    assert (torch.random.get_rng_state() == before).all()
    assert not first.same_as(AGENT.build(config_of("sac"), tasks, 2).snapshot())


@pytest.mark.parametrize(
    ("algorithm", "arguments"), [("sac", SACArguments()), ("ppo", PPOArguments()), ("appo", APPOArguments())]
)
def test_the_defaults_are_rllibs(algorithm: str, arguments: Any) -> None:
    theirs = CONFIGS[algorithm]()
    for field in dataclasses.fields(arguments):
        value = getattr(theirs, field.name)
        if field.name == "train_batch_size_per_learner" and value is None:
            value = theirs.train_batch_size
        ours = plain(getattr(arguments, field.name))
        assert ours == value, field.name
    network = DefaultModelConfig()
    for key in ("fcnet_hiddens", "fcnet_activation", "head_fcnet_hiddens", "head_fcnet_activation"):
        assert plain(getattr(RLlibConfig(), key)) == getattr(network, key), key


def play(schedule: TaskSchedule, environments: int, steps: int) -> list[set[int]]:
    """Steps vectors of environments as RLlib does; returns the tasks that each environment played."""
    playing = [RunnerEnvironment({"schedule": schedule}) for _ in range(environments)]
    met: list[set[int]] = [{environment.reset()[1]["task"]} for environment in playing]
    ended = [False] * environments
    for _ in range(steps):
        for e, environment in enumerate(playing):
            if ended[e]:
                met[e].add(environment.reset()[1]["task"])
                ended[e] = False
            else:
                _, _, terminated, truncated, _ = environment.step(np.zeros(4, dtype=np.float32))
                ended[e] = terminated or truncated
    for environment in playing:
        environment.close()
    return met


@pytest.mark.parametrize("environments", [1, 2, 4])
def test_tasks_get_equally_many_steps_whatever_their_lengths(environments: int) -> None:
    with counter_suite():
        options = {"counter": {"terminate_at": 3}}
        short = registry.task_set(["counter/short"], options).tasks[0]
        tasks = TaskSet([short, registry.task_set(["counter/long"]).tasks[0]])
        longest = max(task.horizon_decisions for task in tasks)
        assert longest > 3
        schedule = TaskSchedule(SharedSpace(tasks), first_copy=0, copies=environments, seed=1, begun=[0, 0])
        play(schedule, environments, 300)
        assert abs(schedule.steps[0] - schedule.steps[1]) <= environments * longest
        assert min(schedule.steps) > 100 * environments


def test_environments_stay_with_their_task_where_episodes_are_equally_long() -> None:
    with counter_suite():
        tasks = registry.task_set(["counter/short", "counter/long"])
        schedule = TaskSchedule(SharedSpace(tasks), first_copy=0, copies=2, seed=1, begun=[0, 0])
        if len({task.horizon_decisions for task in tasks}) == 1:
            assert play(schedule, 2, 100) == [{0}, {1}]


def test_copies_of_all_runners_begin_different_episodes() -> None:
    with counter_suite():
        tasks = registry.task_set(["counter/short"])
        starts: list[int] = []
        for first, begun in ((0, 0), (2, 0), (0, 5)):
            schedule = TaskSchedule(SharedSpace(tasks), first_copy=first, copies=4, seed=1, begun=[begun])
            environments = [RunnerEnvironment({"schedule": schedule}) for _ in range(2)]
            starts += [environment.reset()[1]["start"] for environment in environments for _ in range(2)]
        assert len(set(starts)) == len(starts) == 12


REFUSED: list[tuple[Mapping[str, Any], type[Exception], str]] = [
    ({"algorithm": "apo"}, UnknownNameError, "'appo' or 'ppo'"),
    ({"env_runners": -1}, OutOfRangeError, "agent.env_runners=-1"),
    ({"fcnet_hiddens": ()}, OutOfRangeError, "at least one layer"),
    ({"fcnet_activation": "reluu"}, UnknownNameError, "did you mean 'relu'"),
    ({"ppo": {"gamma": 1.5}}, OutOfRangeError, r"agent.ppo.gamma=1.5"),
    ({"ppo": {"minibatch_size": 5000}}, ConfigError, "minibatch_size=5000 is above"),
    ({"sac": {"replay_buffer_config": {"type": "ReplayBuffer"}}}, UnknownNameError, "EpisodeReplayBuffer"),
    ({"settings": {"grad_clip_bye": "norm"}}, UnknownNameError, "did you mean 'grad_clip_by'"),
    ({"settings": {"lr": 0.1}}, ConfigError, "write agent.ppo.lr=VALUE"),
    ({"settings": {"model": {}}}, ConfigError, "write agent.fcnet_hiddens"),
    ({"settings": {"use_gae": False}}, ConfigError, "RLlib refuses the settings of ppo"),
]


@pytest.mark.parametrize(("settings", "error", "words"), REFUSED)
def test_wrong_settings_are_refused(settings: Mapping[str, Any], error: type[Exception], words: str) -> None:
    tasks = registry.task_set(["gym/CartPole-v1"])
    with pytest.raises(error, match=words):
        RLlibBaseline(build(RLlibConfig, settings, "agent"), tasks, 1)


def test_tasks_that_rllib_cannot_serve_are_refused() -> None:
    with counter_suite():
        frames = registry.task_set(["counter/frames"])
        with pytest.raises(UnsupportedError, match="counter/frames shows pixels"):
            AGENT.build(config_of("ppo"), frames, 1)
        mixed = registry.task_set(["counter/frames", "counter/short"])
        with pytest.raises(UnsupportedError, match="one action space"):
            AGENT.build(config_of("ppo"), mixed, 1)
