"""The online loop: exact resuming, the replay ratio, episodes across fragments, what it logs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mtrl import registry
from mtrl.agents.sac import AGENT, NetworkConfig, SACAgent, SACConfig
from mtrl.data import ReplayConfig
from mtrl.errors import OutOfRangeError, ResourceError, UnsupportedError
from mtrl.nn import TorsoConfig
from mtrl.rollout import (
    CollectionConfig,
    Fragment,
    Fragments,
    LocalFragments,
    PolicySnapshot,
    RuntimeConfig,
    Version,
)
from mtrl.tasks import Score, TaskSet
from mtrl.training import (
    EPISODE_METRICS,
    RUN_METRICS,
    RUN_TIMINGS,
    Checkpoints,
    Clock,
    EpisodeStatistics,
    JsonlTracker,
    OnlineConfig,
    RunRecorder,
    StreamSource,
    learn,
    read_jsonl,
    undocumented,
)

from ..synthetic import counter_suite, counter_task

SMALL = SACConfig(
    network=NetworkConfig(torso=TorsoConfig(width=16, depth=1), bins=11),
    replay=ReplayConfig(capacity=300),
    batch_size=8,
)
ONLINE = OnlineConfig(steps=900, warmup=150, log_every=90, checkpoint_every=10_000)
COLLECTION = CollectionConfig(copies=2, steps=7)


@pytest.fixture(scope="module")
def tasks() -> TaskSet:
    """A continuous and a discrete task that step in microseconds."""
    return registry.task_set(["point/obstacle", "gym/CartPole-v1"])


def run(
    tasks: TaskSet,
    place: Path,
    *,
    stop_after: int = 10**9,
    settings: SACConfig = SMALL,
    config: OnlineConfig = ONLINE,
    source: type[LocalFragments] = LocalFragments,
) -> tuple[bool, SACAgent]:
    """A run that is stopped after so many fragments."""
    agent = AGENT.build(settings, tasks, 3)
    taken = iter(range(10**9))

    def open_fragments(snapshot: PolicySnapshot, steps: int) -> Fragments:
        return source(tasks, RuntimeConfig(), COLLECTION, snapshot, 3 + 1000 * bool(steps))

    recorder = RunRecorder(
        Clock.of_steps(config, config.warmup),
        JsonlTracker(place),
        Checkpoints(place),
        tasks.names,
        skip_episodes_below=COLLECTION.copies,
        stop=lambda: next(taken) + 1 >= stop_after,
    )
    finished = learn(agent, StreamSource(open_fragments, tasks.names, config.warmup), recorder)
    return finished, agent


def test_an_interrupted_run_logs_what_an_uninterrupted_one_does(tasks: TaskSet, tmp_path: Path) -> None:
    finished, whole = run(tasks, tmp_path / "whole")
    assert finished
    # stopped in the warm-up, between two log lines, and after the ring has gone round
    for stop_after in (5, 17, 30):
        finished, _ = run(tasks, tmp_path / "parts", stop_after=stop_after)
        assert not finished
    finished, parts = run(tasks, tmp_path / "parts")
    assert finished
    logged = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts")]
    assert logged[0] == logged[1]
    mine, theirs = whole.snapshot(), parts.snapshot()
    assert mine.same_as(theirs)


def test_a_finished_run_is_not_trained_further(tasks: TaskSet, tmp_path: Path) -> None:
    _, agent = run(tasks, tmp_path)
    finished, again = run(tasks, tmp_path)
    assert finished
    assert again.updates == agent.updates


def test_updates_follow_the_steps_at_the_replay_ratio(tasks: TaskSet, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, replay_ratio=0.3)
    _, agent = run(tasks, tmp_path, settings=settings)
    # fragments of 14 steps: learning begins with the first that reaches 150 steps, and ends with the first
    # that reaches 900
    begun, ended = 14 * 11, 14 * 65
    assert agent.updates == int(0.3 * (ended - begun))


def test_a_run_without_a_saved_replay_refills_it_before_it_learns_on(tasks: TaskSet, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, replay=ReplayConfig(capacity=300, save=False))
    _, before = run(tasks, tmp_path, stop_after=40, settings=settings)
    finished, after = run(tasks, tmp_path, settings=settings)
    assert finished
    # the 40th fragment ends at step 560; 150 steps of warm-up later is the fragment that ends at 714
    assert after.updates - before.updates == int(0.2 * (910 - 714))


class Unresumable(LocalFragments):
    """Local fragments without their state, as those that come by arrival are."""

    def state_dict(self) -> dict[str, object]:
        raise UnsupportedError("these lanes cannot be rebuilt")


def test_a_source_without_state_begins_afresh(tasks: TaskSet, tmp_path: Path) -> None:
    run(tasks, tmp_path, stop_after=20, source=Unresumable)
    finished, agent = run(tasks, tmp_path, source=Unresumable)
    assert finished
    assert agent.updates == int(0.2 * (910 - 154))
    # every copy was left in the midst of an episode
    lost = json.loads((tmp_path / "lost_starts.json").read_text())
    assert lost["count"] == len(lost["starts"]) == COLLECTION.copies * len(tasks)
    assert {(one["task"], one["copy"]) for one in lost["starts"]} == {
        (name, copy) for name in tasks.names for copy in range(COLLECTION.copies)
    }
    assert all(one["start"] > 0 and one["noticed_at_step"] >= 280 for one in lost["starts"])
    assert read_jsonl(tmp_path / "metrics.jsonl")[-1]["lost_starts"] == lost["count"]


def test_every_logged_name_is_documented(tasks: TaskSet, tmp_path: Path) -> None:
    run(tasks, tmp_path)
    metrics, timings = (
        {name for row in read_jsonl(tmp_path / file) for name in row}
        for file in ("metrics.jsonl", "timing.jsonl")
    )
    declared = registry.load("agent", "sac").metrics
    assert undocumented(metrics, declared, EPISODE_METRICS, RUN_METRICS) == []
    assert undocumented(timings, RUN_TIMINGS) == []
    assert {"return/gym/CartPole-v1", "updates", "temperature/point/obstacle"} <= metrics


def test_a_run_without_any_task_left_is_an_error(tmp_path: Path) -> None:
    with counter_suite():
        tasks = TaskSet([counter_task("counter/short", fail_at=2)])
        with pytest.raises(ResourceError, match=r"(?s)every task is in quarantine.*the arm fell off"):
            run(tasks, tmp_path)


@pytest.mark.parametrize("key", ["steps", "log_every", "checkpoint_every"])
def test_budgets_are_positive(key: str) -> None:
    with pytest.raises(OutOfRangeError, match=rf"online.{key}=0"):
        OnlineConfig(**{key: 0})


def fragment_of(reward: list[float], ids: list[int], ends: list[int], success: list[int] = []) -> Fragment:  # noqa: B006
    """One copy of task 0; `ends` and `success` are the decisions at which it was so."""
    steps = len(reward)

    def flags(places: list[int]) -> np.ndarray:
        return np.isin(np.arange(steps), places)[:, None]

    return Fragment(
        task_index=0,
        policy_version=Version(),
        observations={"state": np.zeros((steps + 1, 1, 1), np.float32)},
        continuous=np.zeros((steps, 1, 1), np.float32),
        discrete=np.zeros((steps, 1), np.int64),
        reward=np.array(reward, np.float32)[:, None],
        terminated=flags([]),
        truncated=flags(ends),
        success=flags(success),
        start_id=np.zeros((steps + 1, 1), np.int64),
        episode_id=np.array([*ids, ids[-1] + (steps - 1 in ends)])[:, None],
        final_index=np.array([(t, 0) for t in ends], np.int64).reshape(-1, 2),
        final_observations={"state": np.zeros((len(ends), 1), np.float32)},
    )


def added(statistics: EpisodeStatistics, fragment: Fragment) -> EpisodeStatistics:
    statistics.add(fragment)
    statistics.merge()
    return statistics


def test_episodes_are_summed_across_fragments() -> None:
    # episode 0 was cut short on purpose: 1 + 2; episode 1 is 3 + 4 + 5 with success in its middle
    statistics = added(EpisodeStatistics(["task"], skip_below=1), fragment_of([1, 2, 3], [0, 0, 1], ends=[1]))
    assert statistics.metrics() == {}
    saved = statistics.state_dict()
    second = dataclasses.replace(fragment_of([4, 5, 6], [1, 1, 2], ends=[1], success=[0]), first_step=3)
    added(statistics, second)
    expected = {"return/task": 12.0, "success/task": 1.0, "length/task": 3.0}
    assert statistics.metrics() == expected
    restored = EpisodeStatistics(["task"], skip_below=1)
    restored.load_state_dict(saved)
    added(restored, second)
    assert restored.metrics() == expected
    added(restored, dataclasses.replace(fragment_of([7], [2], ends=[0]), first_step=6))
    assert restored.metrics() == {"return/task": 13.0, "success/task": 0.0, "length/task": 2.0}


def test_an_episode_whose_beginning_was_missed_is_left_out() -> None:
    # the learner was restarted while lanes went on: the end of episode 4 is seen, and all of 5 and 6
    statistics = EpisodeStatistics(["task"])
    statistics.forget_open()
    later = dataclasses.replace(fragment_of([1, 2, 3], [4, 5, 6], ends=[0, 1]), first_step=9)
    added(statistics, later)
    assert statistics.metrics() == {"return/task": 2.0, "success/task": 0.0, "length/task": 1.0}
    added(statistics, dataclasses.replace(fragment_of([4], [6], ends=[0]), first_step=12))
    assert statistics.metrics() == {"return/task": 7.0, "success/task": 0.0, "length/task": 2.0}
    # lanes that are opened again begin with whole episodes
    statistics.forget_open()
    added(statistics, fragment_of([8], [7], ends=[0]))
    assert statistics.metrics() == {"return/task": 8.0, "success/task": 0.0, "length/task": 1.0}


def test_the_latest_episodes_as_text() -> None:
    won, earned = (
        dataclasses.replace(counter_task(), score=Score(kind, 0.0, 10.0)) for kind in ("success", "return")
    )
    first = fragment_of([1, 2, 3], [0, 0, 1], ends=[1, 2], success=[0])
    for task, words in ((won, {"success": "50%"}), (earned, {"return": "3"})):
        statistics = EpisodeStatistics(["task"])
        assert statistics.recent([task]) == {}
        assert added(statistics, first).recent([task]) == words
    statistics = added(EpisodeStatistics(["earned", "won"]), first)
    # of a task without episodes nothing is known
    assert statistics.recent([earned, won]) == {"score": "30%"}
    added(statistics, dataclasses.replace(fragment_of([9], [0], ends=[0], success=[0]), task_index=1))
    assert statistics.recent([earned, won]) == {"score": "65%"}
