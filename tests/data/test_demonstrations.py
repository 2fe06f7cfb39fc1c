"""Collecting demonstrations: which attempts are kept, in which order, and when it gives up."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from mtrl import registry
from mtrl.data import DemonstrationConfig, collect_demonstrations
from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.rollout import (
    EpisodeJob,
    JobResult,
    LocalRollouts,
    NoiseConfig,
    PolicySnapshot,
    RuntimeConfig,
)
from mtrl.tasks import Split, TaskSet, split_of, start_id


@pytest.fixture(scope="module")
def tasks() -> TaskSet:
    return registry.task_set("point/obstacle")


class Unlucky:
    """Local rollouts that report every second episode as a failure."""

    def __init__(self, tasks: TaskSet, lucky: bool = True) -> None:
        self.quarantined: dict[int, str] = {}
        self.inner, self.lucky = LocalRollouts(tasks, RuntimeConfig()), lucky

    def run(
        self,
        jobs: Sequence[EpisodeJob],
        snapshot: PolicySnapshot,
        *,
        on_result: Callable[[JobResult], None] | None = None,
    ) -> Iterator[JobResult]:
        for result in self.inner.run(jobs, snapshot, on_result=on_result):
            summaries = tuple(
                dataclasses.replace(
                    summary,
                    success_any=self.lucky and summary.start % 2 == 0,
                    success_end=False,
                    first_success=None,
                )
                for summary in result.summaries
            )
            assert result.episodes is not None
            episodes = dataclasses.replace(result.episodes, summaries=summaries)
            yield dataclasses.replace(result, summaries=summaries, episodes=episodes)

    def close(self) -> None:
        self.inner.close()


def test_successes_are_kept_in_order_of_attempt(tasks: TaskSet) -> None:
    config = DemonstrationConfig(episodes=3, job_episodes=2)
    found = collect_demonstrations(Unlucky(tasks), tasks, config, seed=0)[0]
    even = [start_id(Split.TRAIN, i) for i in range(20) if start_id(Split.TRAIN, i) % 2 == 0]
    assert list(found.trajectories.start_id) == even[:3]
    assert found.attempts == 6 and found.successes == 3


def test_failures_are_kept_on_request(tasks: TaskSet) -> None:
    config = DemonstrationConfig(episodes=3, job_episodes=2, keep_failures=True)
    found = collect_demonstrations(Unlucky(tasks), tasks, config, seed=0)[0]
    assert list(found.trajectories.start_id) == [start_id(Split.TRAIN, i) for i in range(3)]


def test_it_gives_up_and_says_so(tasks: TaskSet) -> None:
    config = DemonstrationConfig(episodes=2, job_episodes=2, attempts_factor=2.0)
    with pytest.raises(ConfigError, match=r"point/obstacle: the expert succeeded in 0 of 4 attempts"):
        collect_demonstrations(Unlucky(tasks, lucky=False), tasks, config, seed=0)


def test_noise_is_executed_and_labels_stay_clean(tasks: TaskSet) -> None:
    rollouts = LocalRollouts(tasks, RuntimeConfig())
    noisy, clean = (
        collect_demonstrations(
            rollouts, tasks, DemonstrationConfig(episodes=4, noise=NoiseConfig(fraction=fraction)), seed=0
        )[0].trajectories
        for fraction in (1.0, 0.0)
    )
    assert np.abs(noisy.actions - noisy.labels).max() > 0.05
    np.testing.assert_array_equal(clean.actions, clean.labels)
    assert all(split_of(int(start)) is Split.TRAIN for start in noisy.start_id)


def test_another_job_size_gives_the_same_demonstrations(tasks: TaskSet) -> None:
    rollouts = LocalRollouts(tasks, RuntimeConfig())
    first, second = (
        collect_demonstrations(rollouts, tasks, DemonstrationConfig(episodes=5, job_episodes=size), seed=0)[0]
        for size in (2, 5)
    )
    np.testing.assert_array_equal(first.trajectories.actions, second.trajectories.actions)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(OutOfRangeError, match=r"demonstrations.episodes=0"):
        DemonstrationConfig(episodes=0)
    with pytest.raises(OutOfRangeError, match=r"noise.fraction=2"):
        NoiseConfig(fraction=2.0)
