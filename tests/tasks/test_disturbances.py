"""Disturbances of a real robot, as options of any task."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mtrl import registry
from mtrl.errors import ConfigError, MtrlError, OutOfRangeError, UnknownNameError, UnsupportedError
from mtrl.rollout.lanes.environments import backends_of
from mtrl.tasks import Environment, Option, Task

SUITES = (
    "metaworld/reach-v3",
    "dmc/cartpole-swingup",
    "gym/Pendulum-v1",
    "point/obstacle",
    "gym/HalfCheetah-v5",
)
SIMULATED = ("metaworld/push-v3", "dmc/cartpole-swingup", "dmc/walker-walk", "gym/HalfCheetah-v5")
START = 5


def _actions(task: Task, count: int) -> list[npt.NDArray[np.float32] | int]:
    generator = np.random.default_rng(3)
    if task.action.is_discrete:
        return [int(generator.integers(task.action.discrete)) for _ in range(count)]
    return [generator.uniform(-1, 1, task.action.continuous).astype(np.float32) for _ in range(count)]


def _play(
    task: Task, actions: list[npt.NDArray[np.float32] | int], start: int = START
) -> list[tuple[object, ...]]:
    """States and outcomes of an episode with these actions, which a caller overwrites in place."""
    environment = registry.environment(task)
    try:
        return _episode(environment, task, actions, start)
    finally:
        environment.close()


def _episode(
    environment: Environment, task: Task, actions: list[npt.NDArray[np.float32] | int], start: int = START
) -> list[tuple[object, ...]]:
    out = {"state": np.zeros(task.observation.state or 0, dtype=np.float32)}
    environment.reset(start, out)
    seen: list[tuple[object, ...]] = [(out["state"].copy(),)]
    for action in actions:
        mine = action if isinstance(action, int) else action.copy()
        result = environment.step(mine, out)
        if not isinstance(mine, int):
            mine[...] = np.nan
        seen.append((out["state"].copy(), *result))
    return seen


def _same(one: list[tuple[object, ...]], other: list[tuple[object, ...]]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a[0], b[0]) and a[1:] == b[1:]  # type: ignore[arg-type]
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("name", [*SUITES, "gym/CartPole-v1"])
def test_a_late_action_is_the_same_action_after_neutral_ones(name: str) -> None:
    plain, late = registry.task(name), registry.task(name, {"action_delay": 2})
    actions = _actions(plain, 6)
    neutral: npt.NDArray[np.float32] | int = 0
    if not plain.action.is_discrete:
        neutral = np.zeros(plain.action.continuous, dtype=np.float32)
    assert _same(_play(late, actions), _play(plain, [neutral, neutral, *actions[:4]]))


def test_a_spread_delay_takes_every_value_and_belongs_to_the_start() -> None:
    task = registry.task("gym/Pendulum-v1", {"action_delay": 1, "action_delay_spread": 2})
    plain = registry.task("gym/Pendulum-v1")
    actions, neutral = _actions(plain, 6), np.zeros(1, dtype=np.float32)
    found = set()
    for start in range(20):
        played = _play(task, actions, start)
        assert _same(played, _play(task, actions, start))
        matches = [n for n in range(7) if _same(played, _play(plain, ([neutral] * n + actions)[:6], start))]
        assert len(matches) == 1
        found.update(matches)
    assert found == {1, 2, 3}


def test_noise_has_its_deviation_and_leaves_rewards_true() -> None:
    plain, noisy = (
        registry.task("dmc/walker-walk"),
        registry.task("dmc/walker-walk", {"observation_noise": 0.1}),
    )
    actions = _actions(plain, 200)
    clean, seen = _play(plain, actions), _play(noisy, actions)
    assert [row[1:] for row in clean] == [row[1:] for row in seen]
    differences = np.stack([a[0] for a in seen]) - np.stack([a[0] for a in clean])
    assert abs(differences.std() - 0.1) < 0.005 and abs(differences.mean()) < 0.01
    assert abs(np.corrcoef(differences[:-1].ravel(), differences[1:].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("name", SUITES)
def test_a_lost_observation_is_the_one_before_and_the_share_is_as_set(name: str) -> None:
    plain, lossy = registry.task(name), registry.task(name, {"observation_dropout": 0.4})
    actions = _actions(plain, 45)
    clean, seen = _play(plain, actions), _play(lossy, actions)
    assert [row[1:] for row in clean] == [row[1:] for row in seen]
    assert np.array_equal(clean[0][0], seen[0][0])  # type: ignore[arg-type]
    lost = 0
    for at in range(1, len(seen)):
        if not np.array_equal(seen[at][0], clean[at][0]):  # type: ignore[arg-type]
            assert np.array_equal(seen[at][0], seen[at - 1][0])  # type: ignore[arg-type]
            lost += 1
    assert 8 <= lost <= 30


@pytest.mark.parametrize("name", SIMULATED)
def test_dynamics_belong_to_the_start_and_leave_no_trace(name: str) -> None:
    plain, varied = registry.task(name), registry.task(name, {"dynamics_spread": 0.5})
    actions = _actions(plain, 15)
    environment = registry.environment(varied)
    try:
        first = _episode(environment, varied, actions, 1)
        second = _episode(environment, varied, actions, 2)
        assert _same(first, _episode(environment, varied, actions, 1))
        assert _same(second, _play(varied, actions, 2))
    finally:
        environment.close()
    assert not _same(first, _play(plain, actions, 1))


def test_factors_are_within_the_spread_and_zero_restores_the_model() -> None:
    from mtrl.envs.dynamics import DynamicsVariation
    from mtrl.tasks import undisturbed

    environment = registry.suite("metaworld").environment(undisturbed(registry.task("metaworld/push-v3")))
    model, data = environment._model, environment._data
    fields = (
        "body_mass",
        "body_inertia",
        "geom_friction",
        "dof_damping",
        "actuator_gainprm",
        "actuator_biasprm",
    )
    before = {field: getattr(model, field).copy() for field in fields}
    variation, generator = DynamicsVariation(model, data), np.random.default_rng(0)
    for _ in range(3):
        variation.draw(generator, 0.5)
        for field, values in before.items():
            ratio = getattr(model, field)[values != 0] / values[values != 0]
            assert ratio.min() >= 1 / 1.5 - 1e-9 and ratio.max() <= 1.5 + 1e-9, field
        assert not np.allclose(model.body_mass, before["body_mass"])
        gain = model.actuator_gainprm[:, 0] / before["actuator_gainprm"][:, 0]
        assert np.allclose(model.actuator_biasprm[:, 1], before["actuator_biasprm"][:, 1] * gain)
    variation.draw(generator, 0.0)
    assert all(np.array_equal(getattr(model, field), values) for field, values in before.items())
    environment.close()


def test_a_disturbed_task_is_another_protocol_without_vector_backends() -> None:
    plain = registry.task("dmc/cartpole-swingup")
    assert (
        registry.task(plain.name, {"action_delay": 0, "observation_noise": 0}).protocol_hash
        == plain.protocol_hash
    )
    hashes = {plain.protocol_hash}
    options: list[dict[str, Option]] = [
        {"action_delay": 1},
        {"action_delay": 2},
        {"observation_noise": 0.01},
        {"observation_dropout": 0.1},
        {"dynamics_spread": 0.2},
    ]
    for given in options:
        hashes.add(registry.task(plain.name, given).protocol_hash)
    assert len(hashes) == 6
    assert backends_of(plain) == ("python", "envpool")
    assert backends_of(registry.task(plain.name, {"action_delay": 1})) == ("python",)


def test_an_own_clock_is_seen_through_disturbances() -> None:
    task = registry.task("gym/CartPole-v1", {"horizon": 0, "action_delay": 1})
    environment = registry.environment(task)
    assert environment.truncated is False  # type: ignore[attr-defined]
    environment.close()


@pytest.mark.parametrize(
    ("name", "options", "kind", "words"),
    [
        ("dmc/walker-walk", {"action_delay": -1}, OutOfRangeError, "tasks.options.dmc.action_delay"),
        ("dmc/walker-walk", {"observation_dropout": 1.0}, OutOfRangeError, "observation_dropout"),
        ("dmc/walker-walk", {"action_delay": 1.5}, ConfigError, "whole number"),
        ("dmc/walker-walk", {"observation_noise": float("nan")}, OutOfRangeError, "observation_noise"),
        ("dmc/walker-walk", {"acton_delay": 1}, UnknownNameError, "action_delay"),
        ("atari/Boxing", {"observation_noise": 0.1}, ConfigError, "pixels alone"),
    ],
)
def test_bad_options_are_refused_by_name(
    name: str, options: dict[str, Option], kind: type[MtrlError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        registry.task(name, options)


@pytest.mark.parametrize("name", ["gym/CartPole-v1", "point/obstacle", "atari/Boxing"])
def test_dynamics_that_cannot_vary_are_refused(name: str) -> None:
    task = registry.task(name, {"dynamics_spread": 0.1})
    with pytest.raises(UnsupportedError, match=r"cannot be varied.*(Leave it|Leave dynamics_spread) out"):
        registry.environment(task)
