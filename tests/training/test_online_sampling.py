"""Task sampling in the online loop: who is stepped, who counts, what is logged, and exact resuming."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtrl import registry
from mtrl.agents.sac import NetworkConfig, SACAgent, SACConfig
from mtrl.data import ReplayConfig
from mtrl.nn import TorsoConfig
from mtrl.rollout import (
    CollectionConfig,
    Fragment,
    Fragments,
    LocalFragments,
    PolicySnapshot,
    RuntimeConfig,
)
from mtrl.tasks import SamplingConfig, TaskSampler, TaskSet
from mtrl.training import (
    Checkpoints,
    Clock,
    CosineTracker,
    EpisodeStatistics,
    JsonlTracker,
    OnlineConfig,
    RunRecorder,
    StreamSource,
    TakesShares,
    Trackers,
    learn,
    read_jsonl,
)

SMALL = SACConfig(
    network=NetworkConfig(torso=TorsoConfig(width=16, depth=1), bins=11),
    replay=ReplayConfig(capacity=300),
    batch_size=8,
    replay_ratio=0.1,
)
ONLINE = OnlineConfig(steps=900, warmup=150, log_every=90, checkpoint_every=10_000)
COLLECTION = CollectionConfig(copies=2, steps=7)
POINT, POLE = "point/obstacle", "gym/CartPole-v1"


@pytest.fixture(scope="module")
def tasks() -> TaskSet:
    """A continuous task that is judged by success and a discrete one with a range of returns."""
    return registry.task_set([POINT, POLE])


class Counting(LocalFragments):
    """Keeps the order of tasks."""

    order: list[int]

    def stream(self) -> Iterator[Fragment]:
        self.order = []
        for fragment in super().stream():
            self.order.append(fragment.task_index)
            yield fragment


class Travelling:
    """Local fragments to which every policy travels as data."""

    def __init__(self, inner: LocalFragments) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Alike(StreamSource):
    """Steps every task alike, whatever the shares."""

    def set_shares(self, shares: np.ndarray) -> bool:
        return False


class Watched(SACAgent):
    """Keeps what it was told, and pretends to measure cosines."""

    def __init__(self, config: SACConfig, tasks: TaskSet, seed: int) -> None:
        super().__init__(config, tasks, seed)
        self.told: list[list[float]] = []

    def set_task_shares(self, shares: np.ndarray) -> None:
        super().set_task_shares(shares)
        self.told.append(shares.tolist())

    def task_cosines(self) -> Mapping[str, np.ndarray]:
        if self.updates == 0:
            return {}
        value = 1.0 / self.updates
        return {"critic": np.array([[1.0, value], [value, 1.0]]), "actor": np.array([[1.0, np.nan]] * 2)}


def run(
    tasks: TaskSet,
    place: Path,
    sampling: SamplingConfig | None = None,
    *,
    stop_after: int = 10**9,
    travelling: bool = False,
    kind: type[StreamSource] = StreamSource,
    config: OnlineConfig = ONLINE,
) -> tuple[Watched, Counting]:
    """A run, stopped after so many fragments."""
    agent, taken = Watched(SMALL, tasks, 3), iter(range(10**9))
    source: list[Counting] = []

    def open_fragments(snapshot: PolicySnapshot, steps: int) -> Fragments:
        source.append(Counting(tasks, RuntimeConfig(), COLLECTION, snapshot, 3))
        return Travelling(source[0]) if travelling else source[0]

    recorder = RunRecorder(
        Clock.of_steps(config, config.warmup),
        Trackers([JsonlTracker(place), CosineTracker(place, agent, tasks.names)]),
        Checkpoints(place),
        tasks.names,
        skip_episodes_below=COLLECTION.copies,
        sampler=None if sampling is None else TaskSampler(sampling, tuple(tasks)),
        stop=lambda: next(taken) + 1 >= stop_after,
    )
    learn(agent, kind(open_fragments, tasks.names, config.warmup), recorder)
    return agent, source[0]


# CartPole's episodes end and its score stays near 0; of the other task nothing is known for 150 decisions,
# so that equal shares are left behind only where both have a score
WORST = SamplingConfig("worst_task", updates=True, floor=0.1, temperature=0.05)


@pytest.fixture(scope="module")
def sampled(tasks: TaskSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Watched, Counting]:
    """A long enough run in which only CartPole's score can move: learning progress."""
    place = tmp_path_factory.mktemp("sampled")
    settings = SamplingConfig("learning_progress", updates=True, short_episodes=1, long_episodes=4)
    config = dataclasses.replace(ONLINE, steps=2400)
    return place, *run(tasks, place, settings, config=config)


def test_shares_are_logged_collected_and_told(sampled: tuple[Path, Watched, Counting]) -> None:
    place, agent, source = sampled
    rows = read_jsonl(place / "metrics.jsonl")
    shares = np.array([[row[f"share/{POINT}"], row[f"share/{POLE}"]] for row in rows])
    np.testing.assert_allclose(shares.sum(1), 1.0)
    # the other task is unknown at first, and later makes no progress
    np.testing.assert_array_equal(shares[0], [0.5, 0.5])
    np.testing.assert_allclose(shares[-1], [0.1, 0.9])
    assert agent.told[0] == [0.5, 0.5]
    assert agent.told[-1] == shares[-1].tolist()
    # 2400 steps are 172 fragments; the last quarter follows the shares
    assert len(source.order) == 172
    assert np.mean(source.order[-40:]) == pytest.approx(0.9, abs=0.03)


def test_an_interrupted_run_with_a_sampler_logs_what_an_uninterrupted_one_does(
    tasks: TaskSet, tmp_path: Path
) -> None:
    settings = SamplingConfig("worst_task", updates=True, solved_share=0.5, solved_episodes=3)
    whole, _ = run(tasks, tmp_path / "whole", settings)
    for stop_after in (5, 30):
        run(tasks, tmp_path / "parts", settings, stop_after=stop_after)
    # lines after the last checkpoint, as of a killed run, are dropped
    with (tmp_path / "parts" / "cosines.jsonl").open("ab") as file:
        file.write(b'{"step": 1}\n{"half')
    parts, _ = run(tasks, tmp_path / "parts", settings)
    for name in ("metrics.jsonl", "cosines.jsonl"):
        logged = [(tmp_path / run / name).read_bytes() for run in ("whole", "parts")]
        assert logged[0] == logged[1]
        assert logged[0]
    assert whole.snapshot().same_as(parts.snapshot())


def test_equal_shares_and_a_travelling_policy_change_nothing(tasks: TaskSet, tmp_path: Path) -> None:
    _, source = run(tasks, tmp_path / "plain")
    assert source.order[:4] == [0, 1, 0, 1]
    run(tasks, tmp_path / "travelling", travelling=True)
    logged = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("plain", "travelling")]
    assert logged[0] == logged[1]
    assert b"share/" not in logged[0]


def test_a_source_and_an_agent_that_cannot_follow_are_told_of_once(tasks: TaskSet, tmp_path: Path) -> None:
    config = dataclasses.replace(ONLINE, steps=140)
    with pytest.warns(
        RuntimeWarning, match="no effect here: the source collects all tasks equally"
    ) as caught:
        agent, source = run(tasks, tmp_path / "a", WORST, kind=Alike, config=config)
    assert len(caught) == 1
    assert agent.told and source.order == [0, 1] * 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        only = dataclasses.replace(WORST, updates=False)
        agent, _ = run(tasks, tmp_path / "b", only, config=config)
    assert agent.told == []
    assert isinstance(agent, TakesShares)


def test_cosines_are_lines_with_null_for_what_was_not_measured(
    sampled: tuple[Path, Watched, Counting],
) -> None:
    rows = read_jsonl(sampled[0] / "cosines.jsonl")
    metrics = [row for row in read_jsonl(sampled[0] / "metrics.jsonl") if row["updates"] > 0]
    assert [row["step"] for row in rows[::2]] == [row["step"] for row in metrics]
    assert [row["part"] for row in rows[:2]] == ["actor", "critic"]
    assert rows[0]["tasks"] == [POINT, POLE]
    assert rows[0]["cosines"] == [[1.0, None], [1.0, None]]
    assert rows[1]["cosines"][0][1] == 1.0 / metrics[0]["updates"]


def test_no_file_of_cosines_is_made_before_one_was_measured(tasks: TaskSet, tmp_path: Path) -> None:
    run(tasks, tmp_path, config=dataclasses.replace(ONLINE, steps=100))
    assert not (tmp_path / "cosines.jsonl").exists()


def test_every_episode_is_reported_but_those_cut_short() -> None:
    from .test_online import fragment_of

    reported: list[tuple[int, float, bool]] = []
    statistics = EpisodeStatistics(
        ["task"], skip_below=1, on_episode=lambda *episode: reported.append(episode)
    )
    statistics.add(fragment_of([1, 2, 3], [0, 0, 1], ends=[1]))
    statistics.add(
        dataclasses.replace(fragment_of([4, 5, 6], [1, 2, 2], ends=[0, 2], success=[0]), first_step=3)
    )
    statistics.merge()
    assert reported == [(0, 7.0, True), (0, 11.0, False)]
