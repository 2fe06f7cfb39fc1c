"""The loop of agents that learn from demonstrations: budget, logging, checkpoints, and exact resuming."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.reducer import Reducer
from mtrl.rollout import PolicySnapshot
from mtrl.training import (
    Checkpoints,
    Clock,
    Datasets,
    DatasetSource,
    JsonlTracker,
    RunRecorder,
    State,
    TrainingConfig,
    Use,
    learn,
    read_jsonl,
)


class Counter:
    """Its loss is its update count, so that every logged mean can be worked out by hand."""

    dies = -1

    def __init__(self) -> None:
        self.updates = 0
        self.fed = 0

    def ingest(self, data: object) -> None:
        assert isinstance(data, Datasets)
        self.fed += 1

    def due(self, steps: int, reducer: Reducer) -> int:
        return steps - self.updates if self.fed else 0

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        self.updates += 1
        return {"loss": float(self.updates)}

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        return PolicySnapshot("random", version=self.updates)

    def on_evaluation(self, step: int, result: object) -> None:
        raise AssertionError("nothing is evaluated")

    def shared_state(self) -> State:
        return {"updates": self.updates}

    def local_state(self) -> State:
        return {}

    def restore(self, shared: State, local: State | None) -> None:
        self.updates = shared["updates"]


def go(place: Path, *, stop_at: int | None = None, minutes: float = 0.0) -> tuple[bool, int]:
    learner, tracker = Counter(), JsonlTracker(place)
    clock = Clock.of_updates(TrainingConfig(updates=10, log_every=4, checkpoint_every=3))
    run = RunRecorder(
        clock, tracker, Checkpoints(place), [], minutes=minutes, stop=lambda: learner.updates == stop_at
    )
    finished = learn(learner, DatasetSource(dict), run)
    tracker.close()
    assert learner.fed <= 1, "demonstrations are handed over once"
    return finished, learner.updates


def test_logged_values_are_means_over_the_interval_and_the_end_is_logged(tmp_path: Path) -> None:
    assert go(tmp_path) == (True, 10)
    # (1+2+3+4)/4, (5+6+7+8)/4, and the two that are left.
    assert read_jsonl(tmp_path / "metrics.jsonl") == [
        {"step": 4, "loss": 2.5},
        {"step": 8, "loss": 6.5},
        {"step": 10, "loss": 9.5},
    ]
    assert Checkpoints(tmp_path).steps() == [6, 9, 10]


class Pretraining(Counter):
    """Learns from demonstrations before its first step online, and is killed at it."""

    def due(self, steps: int, reducer: Reducer) -> int:
        return 100 - self.updates if self.fed else 0

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        if self.updates == self.dies:
            raise SystemExit
        return super().update(reducer)


def test_updates_before_the_first_step_are_logged_and_kept(tmp_path: Path) -> None:
    clock = Clock("steps", budget=50, log_every=4, checkpoint_every=1000)
    for dies, kept in ((50, 40), (95, 80)):
        learner, tracker = Pretraining(), JsonlTracker(tmp_path)
        learner.dies = dies
        with pytest.raises(SystemExit):
            learn(learner, DatasetSource(dict), RunRecorder(clock, tracker, Checkpoints(tmp_path), []))
        tracker.close()
        _, state = Checkpoints(tmp_path).latest() or (0, {})
        assert state["shared"]["updates"] == kept, "one is kept every ten lines, whatever steps say"
    losses = [row["loss"] for row in read_jsonl(tmp_path / "metrics.jsonl")]
    assert losses == [2.5 + 4 * line for line in range(23)], "none is missing, none is written twice"


@pytest.mark.parametrize("stop_at", [1, 3, 4, 6, 9])
def test_stopped_anywhere_and_resumed_logs_the_same(stop_at: int, tmp_path: Path) -> None:
    go(tmp_path / "whole")
    assert go(tmp_path / "parts", stop_at=stop_at) == (False, stop_at)
    assert go(tmp_path / "parts") == (True, 10)
    whole, parts = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts"))
    assert parts == whole


def test_lines_after_the_last_checkpoint_are_written_once(tmp_path: Path) -> None:
    go(tmp_path, stop_at=6)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "loss": 6.5}\n')
    go(tmp_path)
    assert [row["step"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [4, 8, 10]


def test_a_ceiling_on_minutes_leaves_a_checkpoint(tmp_path: Path) -> None:
    assert go(tmp_path, minutes=1e-9) == (False, 1)
    assert Checkpoints(tmp_path).steps() == [1]


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    go(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert go(tmp_path) == (True, 10)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("key", ["updates", "log_every", "checkpoint_every", "threads", "minutes"])
def test_ranges_are_said(key: str) -> None:
    with pytest.raises(OutOfRangeError, match=f"training.{key}=-1"):
        TrainingConfig(**{key: -1})
    with pytest.raises(OutOfRangeError, match=r"threads=100000000 .*expected 0 \(automatic\) to 1024"):
        TrainingConfig(threads=100_000_000)


def test_a_checkpoint_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(3, {"learner": {"updates": 3}, "tracker": {}, "window": {}})
    with pytest.raises(ConfigError, match=r"checkpoint has format 1.*0\.1\.0 before December 2026"):
        go(tmp_path)
