"""The lane over a vector backend keeps the same books as the lane over single environments."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from mtrl import registry
from mtrl.errors import EnvironmentFault, OutOfRangeError, SpaceError, UnknownNameError, UnsupportedError
from mtrl.rollout import (
    Acting,
    CollectionConfig,
    EpisodeGroup,
    GroupRequest,
    LocalFragments,
    PolicySnapshot,
    PythonLane,
    RolloutWorker,
    RuntimeConfig,
    VectorLane,
    backends_of,
    require_backends,
)
from mtrl.tasks import FixedStarts, Task, TaskSet, TrainingStarts

from ..synthetic import CounterSuite, counter_task
from .helpers import LAYOUT
from .test_replay import books

COPIES = 3


class VectorCounter:
    """Counting environments behind the vector contract; stands in for a compiled backend."""

    def __init__(self, task: Task, copies: int, supports_starts: bool = True) -> None:
        self.supports_starts = supports_starts
        self.environments = [CounterSuite().environment(task) for _ in range(copies)]
        self.over = [True] * copies
        self.closed = False

    def reset(
        self,
        copies: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int64],
        out: Mapping[str, npt.NDArray[np.generic]],
    ) -> None:
        for copy, start in zip(copies, starts, strict=True):
            self.environments[copy].reset(int(start), {bucket: rows[copy] for bucket, rows in out.items()})
            self.over[copy] = False

    def step(
        self,
        action: npt.NDArray[np.float32] | npt.NDArray[np.int64],
        out: Mapping[str, npt.NDArray[np.generic]],
        reward: npt.NDArray[np.float32],
        terminated: npt.NDArray[np.bool_],
        success: npt.NDArray[np.bool_],
    ) -> None:
        assert not any(self.over), "a copy that terminated is reset before the next step"
        for copy, environment in enumerate(self.environments):
            row = {bucket: rows[copy] for bucket, rows in out.items()}
            one = int(action[copy]) if action.ndim == 1 else action[copy]
            reward[copy], terminated[copy], success[copy] = environment.step(one, row)
            self.over[copy] = bool(terminated[copy])

    def close(self) -> None:
        self.closed = True


def schedule() -> TrainingStarts:
    return TrainingStarts(copies=COPIES, first_copy=1, total_copies=5, seed=1)


def vector(task: Task, **settings: object) -> VectorLane:
    return VectorLane(task, 0, LAYOUT, VectorCounter(task, COPIES), COPIES, schedule(), "native", **settings)


def python(task: Task, **settings: object) -> PythonLane:
    environments = [CounterSuite().environment(task) for _ in range(COPIES)]
    return PythonLane(task, 0, LAYOUT, environments, schedule(), **settings)


def play(
    lane: PythonLane | VectorLane, generator: np.random.Generator, steps: int
) -> list[dict[str, list[object]]]:
    trace = []
    for _ in range(steps):
        continuous = generator.uniform(-1, 1, (COPIES, 4)).astype(np.float32)
        lane.step(continuous, np.zeros(COPIES, dtype=np.int64))
        trace.append(books(lane))  # type: ignore[arg-type]
    return trace


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"terminate_at": 3},
        {"success_at": 2},
        {"success_at": 2, "end_on_success": True},
        {"terminate_at": 5},
    ],
)
@pytest.mark.parametrize("settings", [{}, {"success_tail": 1}, {"stagger": True}])
def test_the_same_books_as_the_python_lane(options: dict[str, int], settings: dict[str, object]) -> None:
    task = counter_task(horizon=5, **options)  # type: ignore[arg-type]
    place = {"first_copy": 1, "total_copies": 5}
    ours, theirs = vector(task, **place, **settings), python(task, **place, **settings)
    ours.begin()
    theirs.begin()
    assert books(ours) == books(theirs)  # type: ignore[arg-type]
    expected = play(theirs, np.random.default_rng(0), 16)
    assert play(ours, np.random.default_rng(0), 16) == expected


@pytest.mark.parametrize("interrupted_after", range(8))
def test_an_interrupted_lane_goes_on(interrupted_after: int) -> None:
    def fresh() -> VectorLane:
        task = counter_task(horizon=5, success_at=2, terminate_at=4)
        return vector(task, first_copy=1, total_copies=5, stagger=True)

    whole, first, second = fresh(), fresh(), fresh()
    generator = np.random.default_rng(0)
    whole.begin()
    expected = play(whole, generator, 12)
    generator = np.random.default_rng(0)
    first.begin()
    play(first, generator, interrupted_after)
    second.load_state_dict(first.state_dict())
    for name in ("state", "start_id", "episode_id"):
        assert books(second)[name] == books(first)[name], f"{name} of the rebuilt lane"  # type: ignore[arg-type]
    assert play(second, generator, 12 - interrupted_after) == expected[interrupted_after:]


def test_staggered_first_episodes_end_apart_and_later_ones_are_whole() -> None:
    task = counter_task(horizon=20)
    environments = [CounterSuite().environment(task) for _ in range(4)]
    lane = PythonLane(task, 0, LAYOUT, environments, TrainingStarts(copies=4), stagger=True)
    lane.begin()
    ends: list[list[int]] = [[] for _ in range(4)]
    for t in range(1, 61):
        lane.step(np.zeros((4, 4), dtype=np.float32), np.zeros(4, dtype=np.int64))
        for final in lane.final_observations:
            assert lane.truncated[final.copy]
            ends[final.copy].append(t)
    assert [end[0] for end in ends] == [20, 15, 10, 5]
    for end in ends:
        assert set(np.diff(end)) == {20}


def test_a_backend_without_starts_promises_no_resumption() -> None:
    task = counter_task()
    environment = VectorCounter(task, COPIES, supports_starts=False)
    lane = VectorLane(task, 0, LAYOUT, environment, COPIES, schedule(), "native")
    lane.begin()
    with pytest.raises(UnsupportedError, match="cannot reset to a given start"):
        lane.state_dict()
    lane.close()
    assert environment.closed


@pytest.mark.parametrize("options", [{}, {"terminate_at": 3}, {"success_at": 2}])
@pytest.mark.parametrize("settings", [{}, {"success_tail": 1}])
def test_copies_without_a_start_rest_while_others_play(
    options: dict[str, int], settings: dict[str, object]
) -> None:
    task = counter_task(horizon=5, **options)  # type: ignore[arg-type]
    queues = [[2], [5, 8, 11], [14, 17]]
    vectors = VectorCounter(task, COPIES)
    ours = VectorLane(task, 0, LAYOUT, vectors, COPIES, FixedStarts(queues), "native", **settings)
    environments = [CounterSuite().environment(task) for _ in range(COPIES)]
    theirs = PythonLane(task, 0, LAYOUT, environments, FixedStarts(queues), **settings)
    ours.begin()
    theirs.begin()
    for seed in range(20):
        if not theirs.active.any():
            break
        expected = play(theirs, np.random.default_rng(seed), 1)
        assert play(ours, np.random.default_rng(seed), 1) == expected
    assert not theirs.active.any()
    assert not ours.active.any()


def test_an_idle_copy_may_be_given_anything() -> None:
    task = counter_task(horizon=2)
    lane = VectorLane(task, 0, LAYOUT, VectorCounter(task, 2), 2, FixedStarts([[2], [5, 8]]), "native")
    lane.begin()
    values = np.zeros((2, 4), dtype=np.float32)
    for _ in range(4):
        lane.step(values, np.zeros(2, dtype=np.int64))
        if not lane.active[0]:
            values[0] = np.nan
    assert np.isfinite(lane.observation["state"]).all()
    assert not lane.active.any()


@pytest.mark.parametrize("field", ["state", "reward"])
def test_a_number_that_is_not_finite_is_a_fault(field: str) -> None:
    lane = vector(counter_task(nan_at=2, nan_field=field))
    lane.begin()
    play(lane, np.random.default_rng(0), 1)
    with pytest.raises(EnvironmentFault, match=f"decision 2 of copy 0(?s:.*)not finite: '{field}'"):
        play(lane, np.random.default_rng(0), 1)


def test_an_exception_of_the_backend_is_a_fault_with_its_traceback() -> None:
    lane = vector(counter_task(fail_at=2))
    lane.begin()
    play(lane, np.random.default_rng(0), 1)
    with pytest.raises(EnvironmentFault, match=r"backend native(?s:.*)the arm fell off"):
        play(lane, np.random.default_rng(0), 1)


def test_a_policy_that_diverged_is_not_blamed_on_the_backend() -> None:
    lane = vector(counter_task())
    lane.begin()
    with pytest.raises(SpaceError, match="decision 1 of copy 0 of task counter/short"):
        lane.step(np.full((COPIES, 4), np.nan, dtype=np.float32), np.zeros(COPIES, dtype=np.int64))


class SecondSuite(CounterSuite):
    """The counting suite with a vector backend."""

    backend_extras: Mapping[str, str] = {}

    def vector_backends(self, task: Task) -> tuple[str, ...]:
        return ("native",)

    def vector_environment(self, task: Task, copies: int, backend: str, seed: int) -> VectorCounter:
        return VectorCounter(task, copies)


def test_the_runtime_chooses_the_backend_by_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.register("suite", "counter", SecondSuite())
    try:
        tasks = TaskSet([counter_task(horizon=4)])
        assert backends_of(tasks[0]) == ("python", "native")
        found = []
        for backends in ({}, {"counter": "native"}):
            source = LocalFragments(
                tasks,
                RuntimeConfig(backends=backends),
                CollectionConfig(copies=2, steps=9),
                PolicySnapshot("random"),
                3,
            )
            fragments = source.stream()
            found.append([next(fragments), next(fragments)])
            source.close()
        for ours, theirs in zip(*found, strict=True):
            np.testing.assert_array_equal(ours.observations["state"], theirs.observations["state"])
            np.testing.assert_array_equal(ours.final_index, theirs.final_index)
        with pytest.raises(
            UnsupportedError, match=r"counter/short has no backend 'warp'; it has python, native"
        ):
            require_backends(tasks, {"counter": "warp"})
        with pytest.raises(UnknownNameError, match=r"unknown suite of runtime\.backends"):
            require_backends(tasks, {"atari": "native"})
    finally:
        registry.unregister("suite", "counter")


def test_an_environment_may_have_a_clock_of_its_own() -> None:
    class Impatient:
        truncated = False

        def reset(self, start: int, out: Mapping[str, npt.NDArray[np.generic]]) -> None:
            self.steps, self.truncated = 0, False
            out["state"][...] = start

        def step(
            self, action: object, out: Mapping[str, npt.NDArray[np.generic]]
        ) -> tuple[float, bool, bool]:
            self.steps += 1
            self.truncated = self.steps == 3
            return 0.0, False, False

        def render(self) -> npt.NDArray[np.uint8]:
            raise NotImplementedError

        def close(self) -> None: ...

    task = counter_task(horizon=10)
    lane = PythonLane(task, 0, LAYOUT, [Impatient()], FixedStarts([[2, 5]]))
    lane.begin()
    ended = []
    for t in range(1, 7):
        lane.step(np.zeros((1, 4), dtype=np.float32), np.zeros(1, dtype=np.int64))
        if lane.truncated[0]:
            ended.append(t)
        assert not lane.terminated[0]
    assert ended == [3, 6]


class Counted(SecondSuite):
    """Counts what it builds."""

    vectors_built = 0
    backend_supports_starts = True

    def vector_environment(self, task: Task, copies: int, backend: str, seed: int) -> VectorCounter:
        self.vectors_built += 1
        return VectorCounter(task, copies, self.backend_supports_starts)


class Startless(Counted):
    """Its backend draws initial states of its own."""

    backend_supports_starts = False


def group_of(size: int = 3) -> GroupRequest:
    return GroupRequest(0, 6, size, Acting(explore=True), seed=4)


@pytest.mark.parametrize("suite", [Counted(), Startless()], ids=["starts", "no starts"])
def test_groups_are_played_alike_on_the_vector_backend(suite: Counted) -> None:
    registry.register("suite", "counter", suite)
    try:
        tasks = TaskSet([counter_task(horizon=6, success_at=4)])
        results, built = [], []
        for backends in ({}, {"counter": "native"}):
            suite.built.clear()
            worker = RolloutWorker(tasks, backends)
            request = dataclasses.replace(group_of(), success_tail=1)
            results += [EpisodeGroup.of(worker.run(request.job(), PolicySnapshot("random"))) for _ in "ab"]
            assert worker.run(dataclasses.replace(request.job(), native=False), PolicySnapshot("random"))
            built.append(len(suite.built))
            worker.close()
        for group in results[1:]:
            assert group.summaries == results[0].summaries
            np.testing.assert_array_equal(group.observations["state"], results[0].observations["state"])
            np.testing.assert_array_equal(group.continuous, results[0].continuous)
        # python environments run the job that is not native, and all jobs where the backend has no starts
        assert built == [3, 3]
        assert suite.vectors_built == 1, "kept for the second group, or not asked again"
    finally:
        registry.unregister("suite", "counter")


def test_a_backend_that_faults_is_built_again() -> None:
    suite = Counted()
    registry.register("suite", "counter", suite)
    try:
        worker = RolloutWorker(TaskSet([counter_task(fail_at=2)]), {"counter": "native"})
        for _ in range(2):
            with pytest.raises(EnvironmentFault, match="a step of 3 copies on backend native"):
                worker.run(group_of().job(), PolicySnapshot("random"))
        assert suite.vectors_built == 2
    finally:
        registry.unregister("suite", "counter")


def test_a_group_of_one_has_nothing_to_compare() -> None:
    with pytest.raises(OutOfRangeError, match=r"group.size=1"):
        group_of(size=1)
    job = group_of(size=5).job()
    assert (job.copies, job.starts, job.repeats, job.record) == (5, (6,) * 5, (0, 1, 2, 3, 4), True)
