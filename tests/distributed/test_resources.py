"""Pre-flight and balance: decided without Ray."""

import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtrl import registry
from mtrl.distributed import preflight, processors, rollouts_for
from mtrl.errors import ConfigError, ResourceError
from mtrl.rollout import LaneAssignment, LocalRollouts, RuntimeConfig, balance
from mtrl.tasks import TaskSet

ACTOR = 160.0
"""MB of an actor before it builds anything."""


@pytest.fixture
def tasks(trial_folder: object, monkeypatch: pytest.MonkeyPatch) -> TaskSet:
    """Two tasks of 1 MB and one of 40 MB."""
    monkeypatch.setattr(registry.suite("metaworld"), "environment_megabytes", 40.0)
    return registry.task_set(["trial/walk", "metaworld/reach-v3", "trial/reach"])


def test_memory_is_added_up_by_hand(tasks: TaskSet) -> None:
    config = RuntimeConfig(kind="ray", actors=2)
    plan = preflight(tasks, config, copies=3, processor_count=2, available_megabytes=10_000.0)
    assert plan.actor_megabytes == 2 * ACTOR
    assert plan.environment_megabytes == 2 * 3 * (1 + 40 + 1)
    assert plan.least_megabytes == 2 * 3 * 40
    assert plan.cache_megabytes == float("inf")
    assert "2 actors on 2 processors; 320 MB for actors, 252 MB for environments" in str(plan)


def test_too_little_for_everything_leaves_a_share_to_each_actor(tasks: TaskSet) -> None:
    config = RuntimeConfig(kind="ray", actors=2)
    plan = preflight(tasks, config, copies=3, processor_count=2, available_megabytes=2 * ACTOR + 242)
    assert plan.cache_megabytes == 121.0
    with pytest.raises(ResourceError, match="at least 560 MB"):
        preflight(tasks, config, copies=3, processor_count=2, available_megabytes=2 * ACTOR + 239)


def test_lanes_stay_open_so_all_of_them_must_fit(tasks: TaskSet) -> None:
    config = RuntimeConfig(kind="ray", actors=2)
    lanes = partial(preflight, tasks, config, copies=4, held=True, processor_count=2)
    plan = lanes(available_megabytes=1_000.0)
    assert plan.environment_megabytes == plan.least_megabytes == 4 * (1 + 40 + 1)
    with pytest.raises(ResourceError, match="488 MB"):
        lanes(available_megabytes=487.0)


def test_more_actors_than_processors_is_refused_at_once(tasks: TaskSet) -> None:
    began = time.monotonic()
    with pytest.raises(
        ResourceError, match=r"runtime\.actors=8 needs 8 processors, one per actor; 2 are there"
    ):
        preflight(tasks, RuntimeConfig(kind="ray", actors=8), processor_count=2)
    with pytest.raises(ResourceError, match=r"runtime\.actors=9999"):
        rollouts_for(tasks, RuntimeConfig(kind="ray", actors=9999))
    with pytest.raises(
        ResourceError, match=r"runtime\.workers=9999 needs .* one per worker process; .* none but"
    ):
        rollouts_for(tasks, RuntimeConfig(workers=9999))
    assert time.monotonic() - began < 5.0


def test_a_cluster_not_joined_yet_is_believed_to_suffice(tasks: TaskSet) -> None:
    config = RuntimeConfig(kind="ray", actors=500, address="head:6379")
    assert preflight(tasks, config, copies=100).actors == 500


def test_no_number_of_actors_means_one_per_processor(tasks: TaskSet) -> None:
    plan = preflight(tasks, RuntimeConfig(kind="ray"), available_megabytes=1e9)
    assert plan.actors == plan.processors == processors()


def test_the_local_runtime_never_imports_ray() -> None:
    code = (
        "import sys; from mtrl import registry; from mtrl.rollout import RuntimeConfig\n"
        "from mtrl.distributed import rollouts_for, preflight\n"
        "rollouts_for(registry.task_set('metaworld/reach-v3'), RuntimeConfig()).close()\n"
        "assert 'ray' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_factory_follows_the_configuration(tasks: TaskSet) -> None:
    assert isinstance(rollouts_for(tasks, RuntimeConfig()), LocalRollouts)


def loads(assignments: Sequence[Sequence[LaneAssignment]], cost: Sequence[float]) -> list[float]:
    return [sum(cost[s.task_index] * s.copies for s in actor) for actor in assignments]


def test_equal_tasks_are_dealt_evenly() -> None:
    assignments = balance([4, 4, 4, 4], 2)
    assert sorted(s.task_index for actor in assignments for s in actor) == [0, 1, 2, 3]
    assert [sum(s.copies for s in actor) for actor in assignments] == [8, 8]


def test_a_dear_lane_is_split_and_cheap_ones_fill_up() -> None:
    """Humanoid costs ten times cheetah: 8 x 10 + 8 x 1 = 88, so 44 each."""
    assignments = balance([8, 8], 2, [10.0, 1.0])
    assert max(loads(assignments, [10.0, 1.0])) <= 48.0
    humanoid = sorted((s.first_copy, s.copies) for actor in assignments for s in actor if s.task_index == 0)
    assert humanoid == [(0, 4), (4, 4)]


@given(
    st.lists(st.tuples(st.integers(1, 9), st.floats(0.01, 10.0)), min_size=1, max_size=12), st.integers(1, 6)
)
def test_every_copy_is_hosted_once_and_no_actor_is_swamped(
    lanes: list[tuple[int, float]], actors: int
) -> None:
    copies, cost = [n for n, _ in lanes], [c for _, c in lanes]
    assignments = balance(copies, actors, cost)
    hosted = sorted(
        (s.task_index, s.first_copy + c) for actor in assignments for s in actor for c in range(s.copies)
    )
    assert hosted == [(k, c) for k, n in enumerate(copies) for c in range(n)]
    assert all(s.total_copies == copies[s.task_index] for actor in assignments for s in actor)
    fair = sum(c * n for c, n in zip(cost, copies, strict=True)) / actors
    assert max(loads(assignments, cost)) <= 2 * fair + max(cost) + 1e-6


def test_impossible_balances_are_refused() -> None:
    with pytest.raises(ConfigError, match="one positive cost per task"):
        balance([4, 4], 2, [1.0])
