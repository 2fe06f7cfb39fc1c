"""Trackers: equal runs have equal files, and no tracker stops a run."""

import json
import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtrl.errors import ConfigError, IntegrityError, ResourceError
from mtrl.training.jsonl import JsonlTracker, read_jsonl
from mtrl.training.tensorboard import TensorBoardTracker
from mtrl.training.trackers import Trackers


def metrics_of(step: int) -> dict[str, float]:
    return {"loss": 1 / (step + 1), "a/success": step / 7}


def test_lines_are_json_with_sorted_names(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    tracker.log(3, {"z": torch.tensor(0.5), "a": np.float32(2)})
    tracker.timing(3, {"seconds": 1.25})
    tracker.close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 3, "a": 2.0, "z": 0.5}\n'
    assert (tmp_path / "timing.jsonl").read_text() == '{"step": 3, "seconds": 1.25}\n'


def test_floats_keep_every_bit(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=50).tolist()
    tracker = JsonlTracker(tmp_path)
    tracker.log(0, {f"{i}": number for i, number in enumerate(numbers)})
    record = read_jsonl(tmp_path / "metrics.jsonl")[0]
    assert [record[f"{i}"] for i in range(50)] == numbers


@pytest.mark.filterwarnings("error")
def test_not_finite_is_null_and_warned_about_once(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    with pytest.warns(RuntimeWarning, match="metric 'loss' is nan at step 1.*null"):
        tracker.log(1, {"loss": float("nan"), "fine": 1.0})
    tracker.log(2, {"loss": float("inf")})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail) for line in lines] == [
        {"step": 1, "fine": 1.0, "loss": None},
        {"step": 2, "loss": None},
    ]


@pytest.mark.parametrize("torn", [b"", b'{"step": 9', b'{"step": 9, "loss": 1.0}'])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, torn: bytes) -> None:
    whole = JsonlTracker(tmp_path / "whole")
    for step in range(10):
        whole.log(step, metrics_of(step))
    first = JsonlTracker(tmp_path / "resumed")
    for step in range(6):
        first.log(step, metrics_of(step))
    state = first.state_dict()
    for step in range(6, 9):
        first.log(step, metrics_of(step))
    first.close()
    with (tmp_path / "resumed" / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    second = JsonlTracker(tmp_path / "resumed")
    second.load_state_dict(json.loads(json.dumps(state)))
    for step in range(6, 10):
        second.log(step, metrics_of(step))
    whole_bytes = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert (tmp_path / "resumed" / "metrics.jsonl").read_bytes() == whole_bytes
    assert len(whole_bytes.splitlines()) == 10


def test_a_torn_last_line_is_dropped_by_the_next_writer_and_ignored_by_readers(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 0}\n{"step": 1')
    assert read_jsonl(tmp_path / "metrics.jsonl") == [{"step": 0}]
    JsonlTracker(tmp_path).log(1, {})
    assert read_jsonl(tmp_path / "metrics.jsonl") == [{"step": 0}, {"step": 1}]


def test_an_empty_state_is_the_beginning(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    tracker.log(1, {"a": 1.0})
    tracker.timing(1, {"a": 1.0})
    Trackers([tracker]).load_state_dict({})
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
    assert (tmp_path / "timing.jsonl").read_bytes() == b""


@pytest.mark.parametrize("content", [b"", b'{"step": 1, "a": 10.0}\n{"step": 2, "a": 1.0}\n'])
def test_a_file_that_changed_since_the_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    tracker = JsonlTracker(tmp_path)
    tracker.log(1, {"a": 1.0})
    state = tracker.state_dict()
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"metrics\.jsonl is not as it was"):
        JsonlTracker(tmp_path).load_state_dict(state)
    assert (tmp_path / "metrics.jsonl").read_bytes() == content


def test_an_edited_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 0}\n{"st\n')
    with pytest.raises(IntegrityError, match=r"metrics\.jsonl is not a JSON object in line 2"):
        read_jsonl(tmp_path / "metrics.jsonl")


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    tracker.log(1, {"a": 1.0})
    file = tmp_path / "metrics.jsonl"
    before = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Room for five more bytes: the system takes a part of the line, as it does when a disk fills up.
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, limits[1]))
    try:
        with pytest.raises(ResourceError, match=r"disk is full: a line of .*metrics\.jsonl was not written"):
            tracker.log(2, {"a": 2.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == before
    tracker.log(3, {"a": 3.0})
    assert [record["step"] for record in read_jsonl(file)] == [1, 3]


class Broken:
    """Fails at everything."""

    name = "broken"

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        raise ValueError(f"no connection at {step}")

    def timing(self, step: int, values: Mapping[str, float]) -> None:
        raise ValueError("no connection")

    def close(self) -> None:
        raise ValueError("no connection")

    def state_dict(self) -> dict[str, Any]:
        raise ValueError("no connection")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        raise ValueError("no connection")


def test_a_broken_tracker_is_warned_about_once_and_the_others_go_on(tmp_path: Path) -> None:
    trackers = Trackers([Broken(), JsonlTracker(tmp_path)])

    def work() -> dict[str, Any]:
        trackers.log(1, {"a": 1.0})
        trackers.log(2, {"a": 1.0})
        trackers.timing(2, {"a": 1.0})
        return trackers.state_dict()

    with pytest.warns(RuntimeWarning) as caught:
        state = work()
    assert [str(one.message).split(";")[0] for one in caught] == [
        "tracker 'broken' failed and training goes on without this record (ValueError: no connection at 1)"
    ]
    assert state["broken"] is None
    assert state["jsonl"]["metrics_bytes"] == os.path.getsize(tmp_path / "metrics.jsonl")
    trackers.load_state_dict(state)
    with pytest.warns(RuntimeWarning, match="'broken' failed 5 times"):
        trackers.close()
    assert len(read_jsonl(tmp_path / "metrics.jsonl")) == 2


def test_a_tracker_added_on_resume_is_left_as_it_is(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    tracker.log(1, {})
    Trackers([tracker]).load_state_dict({"another": {}})
    assert len(read_jsonl(tmp_path / "metrics.jsonl")) == 1


def test_names_are_unique_and_step_is_reserved(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="different names"):
        Trackers([JsonlTracker(tmp_path), JsonlTracker(tmp_path)])
    with pytest.raises(ConfigError, match="'step'"):
        JsonlTracker(tmp_path).log(1, {"step": 1.0})


def test_tensorboard_reads_the_events_and_hides_what_was_lost(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = TensorBoardTracker(tmp_path)
    first.log(1, {"loss": 0.5})
    state = first.state_dict()
    first.log(2, {"loss": 99.0})
    first.close()
    second = TensorBoardTracker(tmp_path)
    second.load_state_dict(state)
    second.log(2, {"loss": 0.25})
    second.timing(2, {"seconds": 3.0})
    second.close()
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    assert [(event.step, event.value) for event in events.Scalars("timing/seconds")] == [(2, 3.0)]


def test_a_tensorboard_tracker_that_logs_nothing_writes_nothing(tmp_path: Path) -> None:
    tracker = TensorBoardTracker(tmp_path)
    tracker.close()
    assert not (tmp_path / "events").exists()
