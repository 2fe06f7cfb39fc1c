"""Spaces of Gymnasium as buckets and actions of mtrl, and observations that leave their space."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from mtrl import registry
from mtrl.envs.gym import SUITE, add_environment
from mtrl.envs.gym.spaces import action_for, reader_for
from mtrl.errors import EnvironmentFault, UnsupportedError
from mtrl.spaces import ActionSpec, ObservationSpec

from .episodes import buffers, play
from .gym_environments import Counter, Showing

UNIT = spaces.Box(-1.0, 1.0, (3,), np.float32)


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SUITE, "added", {})


def read(space: spaces.Space[Any], observation: object) -> tuple[dict[str, np.ndarray], str]:
    """What a reader writes into dirty buffers, and what it finds wrong."""
    reader = reader_for("gym/Task-v0", space)
    out: dict[str, np.ndarray] = {}
    if reader.spec.state is not None:
        out["state"] = np.full(reader.spec.state, 77.0, dtype=np.float32)
    if reader.spec.pixels is not None:
        out["pixels"] = np.full(reader.spec.pixels, 77, dtype=np.uint8)
    return out, reader.write(observation, out)


@pytest.mark.parametrize(
    ("space", "observation", "state"),
    [
        (UNIT, np.array([0.5, -1.0, 1.0], np.float32), [0.5, -1.0, 1.0]),
        (UNIT, np.array([0.25, 0.0, 1.0], np.float64), [0.25, 0.0, 1.0]),
        (UNIT, np.array([0, 1, -1]), [0.0, 1.0, -1.0]),
        (spaces.Box(0, 9, (2, 3), np.int64), np.arange(6).reshape(2, 3), [0, 1, 2, 3, 4, 5]),
        (spaces.Box(0.0, 1.0, (), np.float64), 0.5, [0.5]),
        (spaces.Box(0.0, 1.0, (), np.float64), np.float64(0.5), [0.5]),
        (spaces.Box(0, 255, (4,), np.uint8), np.array([0, 1, 254, 255], np.uint8), [0, 1, 254, 255]),
        (spaces.Box(0, 1, (3,), np.bool_), np.array([True, False, True]), [1, 0, 1]),
        (spaces.Box(0, 255, (3, 3), np.uint8), np.eye(3, dtype=np.uint8), np.eye(3).reshape(-1)),
        (spaces.Discrete(4), 2, [0, 0, 1, 0]),
        (spaces.Discrete(3, start=5), np.int64(7), [0, 0, 1]),
        (spaces.Discrete(2), np.array(0), [1, 0]),
    ],
)
def test_numbers_and_indices_become_a_state(
    space: spaces.Space[Any], observation: object, state: list[float]
) -> None:
    out, broken = read(space, observation)
    assert broken == ""
    np.testing.assert_array_equal(out["state"], np.array(state, dtype=np.float32))


@pytest.mark.parametrize(
    ("shape", "pixels", "axes"),
    [
        ((20, 30, 3), (3, 20, 30), (2, 0, 1)),
        ((4, 20, 30), (4, 20, 30), (0, 1, 2)),
        ((20, 30, 1), (1, 20, 30), (2, 0, 1)),
        ((7, 7, 7), (7, 7, 7), (2, 0, 1)),
    ],
)
def test_images_become_pixels_with_the_channels_first(
    shape: tuple[int, ...], pixels: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    out, broken = read(spaces.Box(0, 255, shape, np.uint8), image)
    assert broken == "" and out["pixels"].shape == pixels
    np.testing.assert_array_equal(out["pixels"], image.transpose(axes))


def test_a_grey_image_without_channels_is_given_one() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 20), dtype=np.uint8)
    out, broken = read(spaces.Box(0, 255, (16, 20), np.uint8), image)
    assert broken == ""
    np.testing.assert_array_equal(out["pixels"], image[None])


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"a": UNIT}),
        spaces.Tuple((UNIT, UNIT)),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Text(5),
        spaces.Box(0.0, 1.0, (8, 8, 3), np.float32),
        spaces.Box(0, 255, (4, 8, 8, 3), np.uint8),
        spaces.Discrete(20_000),
    ],
)
def test_other_observation_spaces_are_refused_by_name_with_advice(space: spaces.Space[Any]) -> None:
    with pytest.raises(UnsupportedError, match="gym/Task-v0 observes") as raised:
        reader_for("gym/Task-v0", space)
    assert str(space) in str(raised.value)
    assert "gymnasium.wrappers.FlattenObservation" in str(raised.value)
    assert "add_environment" in str(raised.value)


@pytest.mark.parametrize(
    ("space", "advice"),
    [
        (spaces.Box(-np.inf, np.inf, (2,), np.float32), "dimension 0 reaches from -inf to inf"),
        (
            spaces.Box(np.zeros(2, np.float32), np.array([1, np.inf], np.float32)),
            "dimension 1 reaches from 0 to inf",
        ),
        (spaces.Box(-3.4e38, 3.4e38, (2,), np.float32), "finite"),
        (spaces.Box(0, 3, (2,), np.int64), "floating-point"),
        (spaces.MultiDiscrete([2, 3]), "MultiDiscrete"),
        (spaces.Dict({"a": UNIT}), "Dict"),
    ],
)
def test_other_action_spaces_are_refused_with_advice(space: spaces.Space[Any], advice: str) -> None:
    with pytest.raises(UnsupportedError, match=advice) as raised:
        action_for("gym/Task-v0", space)
    assert "gymnasium.wrappers.TransformAction" in str(raised.value)


def test_an_index_is_shifted_by_the_start_of_the_space() -> None:
    spec, native = action_for("gym/Task-v0", spaces.Discrete(3, start=-1))
    assert spec == ActionSpec(discrete=3)
    assert [native(index) for index in range(3)] == [-1, 0, 1]


def test_a_vector_is_scaled_to_the_bounds_of_each_dimension_in_the_environments_shape() -> None:
    low, high = np.array([[-2.0, 0.0]], np.float32), np.array([[6.0, 0.5]], np.float32)
    spec, native = action_for("gym/Task-v0", spaces.Box(low, high))
    assert spec == ActionSpec(continuous=2)
    for action, expected in ((-1.0, [[-2.0, 0.0]]), (0.0, [[2.0, 0.25]]), (0.5, [[4.0, 0.375]]), (1.0, high)):
        scaled = native(np.full(2, action, dtype=np.float32))
        np.testing.assert_array_equal(scaled, np.array(expected, dtype=np.float32))
        assert scaled.dtype == np.float32


@given(
    low=st.floats(-1e6, 1e6, width=32),
    width=st.floats(0, 1e6, width=32),
    action=st.floats(-1, 1, width=32),
)
def test_an_action_never_leaves_its_space(low: float, width: float, action: float) -> None:
    space = spaces.Box(low, float(np.float32(low + width)), (1,), np.float32)
    _, native = action_for("gym/Task-v0", space)
    assert space.contains(native(np.array([action], dtype=np.float32)))


def test_an_environment_may_keep_the_action_that_it_is_given() -> None:
    add_environment("Counter", Counter, horizon=10)
    task = registry.task("gym/Counter")
    environment = SUITE.environment(task)
    action = np.array([-1.0, 1.0], dtype=np.float32)
    environment.reset(0, out := buffers(task))
    environment.step(action, out)
    action[:] = 1.0
    environment.step(action, out)
    kept = environment.simulator.unwrapped.actions  # type: ignore[attr-defined]
    np.testing.assert_array_equal(kept, [[-2.0, 0.5], [6.0, 0.5]])


WRONG: list[tuple[gymnasium.Space[Any], object, str]] = [
    (UNIT, np.array([0, 0, 7.3], np.float32), r"state\[2\] = 7.3 outside \[-1, 1\]$"),
    (UNIT, np.array([0, np.nan, 0], np.float32), r"state\[1\] = nan outside \[-1, 1\]$"),
    (UNIT, np.array([-2, 0, 3], np.float32), r"state\[0\] = -2 outside \[-1, 1\], and 1 more entries"),
    (UNIT, np.array([0, 0, 1.001], np.float64), r"state\[2\] = 1.001 outside"),
    (UNIT, np.zeros(4, np.float32), r"an array of float32 with shape \[3\]; got float32 with shape \[4\]"),
    (UNIT, [0.0, 0.0, 0.0], "got list"),
    (UNIT, None, "got NoneType"),
    (UNIT, np.array([1j, 0, 0]), "got complex128"),
    (
        spaces.Box(-np.inf, np.inf, (2,), np.float32),
        np.array([0, np.inf], np.float32),
        r"state\[1\] = inf outside \[-3.4",
    ),
    (spaces.Box(0, 9, (2,), np.int64), np.array([0, 10]), r"state\[1\] = 10 outside \[0, 9\]"),
    (spaces.Box(0, 9, (2,), np.int64), np.array([0.5, 1.0]), "of int64 .* got float64"),
    (spaces.Box(0, 255, (8, 9, 3), np.uint8), np.zeros((9, 8, 3), np.uint8), r"pixels: .*\[9, 8, 3\]"),
    (spaces.Box(0, 255, (8, 9, 3), np.uint8), np.zeros((8, 9, 3), np.float32), "pixels: .* got float32"),
    (spaces.Box(0, 255, (8, 9, 3), np.uint8), np.zeros((8, 9, 3), np.uint16), "pixels: .* got uint16"),
    (
        spaces.Box(0, 9, (8, 9, 3), np.uint8),
        np.full((8, 9, 3), 10, np.uint8),
        r"pixels from 10 to 10 outside",
    ),
    (spaces.Discrete(4), 4, r"state = 4 outside \[0, 3\]"),
    (spaces.Discrete(3, start=5), 4, r"state = 4 outside \[5, 7\]"),
    (spaces.Discrete(4), 1.0, "a whole number; got float"),
    (spaces.Discrete(4), True, "a whole number; got bool"),
]


@pytest.mark.parametrize(("space", "observation", "message"), WRONG)
def test_an_observation_that_leaves_its_space_is_a_fault_with_task_step_and_field(
    space: gymnasium.Space[Any], observation: object, message: str
) -> None:
    right = space.sample()
    name = add_environment(
        "Wrong", lambda: Showing(space, lambda step: observation if step == 2 else right), horizon=9
    )
    task = registry.task(name)
    environment = SUITE.environment(task)
    environment.reset(5, out := buffers(task))
    action = np.zeros(2, dtype=np.float32)
    environment.step(action, out)
    with pytest.raises(EnvironmentFault, match=message) as raised:
        environment.step(action, out)
    assert (raised.value.task, raised.value.when) == ("gym/Wrong", "decision 2, start 5")


def test_a_first_observation_that_leaves_its_space_is_a_fault_too() -> None:
    name = add_environment(
        "Wrong", lambda: Showing(UNIT, lambda step: np.full(3, 9.0, np.float32)), horizon=9
    )
    task = registry.task(name)
    with pytest.raises(EnvironmentFault, match=r"reset to start 5:\nstate\[0\] = 9") as raised:
        SUITE.environment(task).reset(5, buffers(task))
    assert raised.value.task == name


@pytest.mark.parametrize("value", [1.0 + 2e-6, -1.0 - 2e-6])
def test_rounding_does_not_leave_a_space(value: float) -> None:
    out, broken = read(UNIT, np.array([value, 0.0, 0.0], np.float32))
    assert broken == "" and out["state"][0] == np.float32(value)


@given(
    st.lists(st.floats(width=32), min_size=3, max_size=3),
    st.sampled_from([np.float32, np.float64]),
)
def test_the_check_agrees_with_gymnasiums(values: list[float], dtype: Callable[..., Any]) -> None:
    """Within the tolerance of the bounds; beyond it, equal verdicts."""
    space = spaces.Box(np.array([-1, -np.inf, 0], np.float32), np.array([1, 5, np.inf], np.float32))
    observation = np.array(values, dtype=dtype)
    near_bound = np.abs(observation[:, None] - np.array([-1.0, 0.0, 1.0, 5.0])).min() < 1e-4
    inside = space.contains(observation.astype(np.float32)) and bool(np.isfinite(observation).all())
    broken = read(space, observation)[1]
    assert near_bound or (broken == "") == inside


@pytest.mark.parametrize("reward", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_not_finite_is_a_fault(reward: float) -> None:
    class Broken(Counter):
        def step(self, action: Any) -> Any:
            observation, _, *rest = super().step(action)
            return observation, reward, *rest

    task = registry.task(add_environment("Broken", Broken, horizon=9))
    with pytest.raises(EnvironmentFault, match=f"reward = {reward}"):
        play(SUITE.environment(task), task, 0, [np.zeros(2, dtype=np.float32)])


def test_a_multidiscrete_action_is_advised_to_become_one_index_and_the_advice_works() -> None:
    space = spaces.MultiDiscrete([2, 3], start=[0, 5])
    with pytest.raises(UnsupportedError) as raised:
        action_for("gym/Task-v0", space)
    assert "RescaleAction" not in str(raised.value)
    function = str(raised.value).split("lambda index: ")[1].split(", gymnasium.spaces")[0]
    assert function == "np.stack(np.unravel_index(index, (2, 3))) + np.array([0, 5])"
    assert str(raised.value).endswith("gymnasium.spaces.Discrete(6))")
    reached = [np.stack(np.unravel_index(index, (2, 3))) + np.array([0, 5]) for index in range(6)]
    assert all(space.contains(action) for action in reached)
    assert len({tuple(action) for action in reached}) == 6


def test_specs_of_pixels_are_part_of_the_task() -> None:
    space = spaces.Box(0, 255, (10, 12, 3), np.uint8)
    task = registry.task(
        add_environment("Seen", lambda: Showing(space, lambda step: space.sample()), horizon=3)
    )
    assert task.observation == ObservationSpec(pixels=(3, 10, 12))


def shown(values: Callable[[int], np.ndarray], dtype: type) -> None:
    """Reads 150 observations of two copies of a task."""
    for _ in range(2):
        space = (
            spaces.Box(-np.inf, np.inf, (2,), dtype)
            if dtype is not np.int64
            else spaces.Box(0, 2**62, (2,), dtype)
        )
        reader = reader_for("gym/Clock-v0", space)
        for step in range(150):
            assert reader.write(values(step).astype(dtype), {"state": np.zeros(2, np.float32)}) == ""


@pytest.mark.parametrize(
    ("values", "dtype", "step"),
    [
        (lambda t: np.array([np.sin(t), 1.7e9 + 0.02 * t]), np.float64, "128"),
        (lambda t: np.array([7 * t, 2**40 + 10**4 * t]), np.int64, "131072"),
    ],
)
def test_values_that_float32_cannot_tell_apart_are_named_once(
    values: Callable[[int], np.ndarray], dtype: type, step: str
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        shown(values, dtype)
    (found,) = caught
    assert str(found.message).startswith("gym/Clock-v0: ") and f"dimension 1 (steps of {step} " in str(
        found.message
    )


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        # a rest that is disturbed by rounding, and a fall to rest
        (lambda t: np.array([0.1 * (1.0 + 1e-16 * (t % 3)), 0.5 + np.exp(-t / 9.0)]), np.float64),
        (lambda t: np.array([t % 7, 2**24 - 200 + t]), np.int64),
        # what the environment rounded itself
        (lambda t: np.array([np.sin(t), 1.7e9 + 0.02 * t]), np.float32),
    ],
)
def test_values_that_float32_holds_are_not_warned_of(
    values: Callable[[int], np.ndarray], dtype: type
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown(values, dtype)
