"""Collecting demonstrations: which attempts are kept, in which order, and when it gives up."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from mtrl import registry
from mtrl.data import DemonstrationConfig, MixtureConfig, collect_demonstrations
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


class SecondTime(Unlucky):
    """Local rollouts in which every third start succeeds at the first attempt, the others at the third."""

    def run(
        self,
        jobs: Sequence[EpisodeJob],
        snapshot: PolicySnapshot,
        *,
        on_result: Callable[[JobResult], None] | None = None,
    ) -> Iterator[JobResult]:
        for result in self.inner.run(jobs, snapshot, on_result=on_result):
            summaries = tuple(
                dataclasses.replace(one, success_any=one.start // 3 % 3 == 0 or one.repeat == 2)
                for one in result.summaries
            )
            assert result.episodes is not None
            episodes = dataclasses.replace(result.episodes, summaries=summaries)
            yield dataclasses.replace(result, summaries=summaries, episodes=episodes)


def test_a_start_is_tried_again_until_it_succeeds(tasks: TaskSet) -> None:
    config = DemonstrationConfig(episodes=4, job_episodes=2, tries=3)
    found = collect_demonstrations(SecondTime(tasks), tasks, config, seed=0)[0]
    # starts 0 to 3, then 1 and 2 again, then for the last time
    assert (found.attempts, found.successes, found.starts) == (8, 4, 4)
    assert (found.trajectories.start_id // 3).tolist() == [0, 3, 1, 2]
    gave_up = DemonstrationConfig(episodes=4, job_episodes=2, tries=2, attempts_factor=8.0)
    found = collect_demonstrations(SecondTime(tasks), tasks, gave_up, seed=0)[0]
    assert (found.trajectories.start_id // 3).tolist() == [0, 3, 6, 9]


def test_attempts_at_one_start_have_noise_of_their_own(tasks: TaskSet) -> None:
    config = DemonstrationConfig(
        episodes=4,
        job_episodes=2,
        noise=NoiseConfig(fraction=1.0, low=2.5, high=3.0),
        tries=20,
        attempts_factor=200.0,
    )
    found = collect_demonstrations(LocalRollouts(tasks, RuntimeConfig()), tasks, config, seed=0)[0]
    assert found.attempts > found.starts >= found.successes >= 4
    assert found.trajectories.success.any()


def test_a_mixture_has_episodes_of_three_qualities(tasks: TaskSet) -> None:
    mixture = MixtureConfig(noisy=0.25, failing=0.25)
    config = DemonstrationConfig(episodes=8, noise=NoiseConfig(fraction=0.5), mixture=mixture)
    shown: list[int] = []
    found = collect_demonstrations(
        LocalRollouts(tasks, RuntimeConfig()), tasks, config, seed=0, on_episodes=lambda _, n: shown.append(n)
    )[0]
    data = found.trajectories
    assert data.episode_count == 8 and shown[-1] == 8
    worse = np.repeat(np.arange(8) >= 4, data.lengths)
    np.testing.assert_array_equal(data.actions[worse], data.labels[worse])
    assert np.abs(data.actions[~worse] - data.labels[~worse]).max() > 0.05
    won = np.logical_or.reduceat(data.success, data.offsets[:-1])
    assert won[:4].all() and not won[6:].any()
    returns = data.returns(0.99, tasks[0].horizon_decisions)
    assert returns[:4].mean() > returns[4:].mean()


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(OutOfRangeError, match=r"mixture.failing=0.7"):
        MixtureConfig(noisy=0.5, failing=0.7)
    with pytest.raises(OutOfRangeError, match=r"demonstrations.episodes=0"):
        DemonstrationConfig(episodes=0)
    with pytest.raises(OutOfRangeError, match=r"noise.fraction=2"):
        NoiseConfig(fraction=2.0)
