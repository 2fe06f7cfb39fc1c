"""Checkpoints: the newest is found, the oldest go, damage is said and not skipped."""

from pathlib import Path

import pytest

from mtrl.errors import IntegrityError, OutOfRangeError
from mtrl.training.checkpoint import Checkpoints


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).latest() is None
    assert Checkpoints(tmp_path).steps() == []


def test_the_newest_is_the_largest_number_not_the_last_word(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (9, 100, 20):
        path = checkpoints.save(step, {"step": step})
        assert path == tmp_path / "checkpoints" / str(step)
    assert checkpoints.steps() == [9, 20, 100]
    assert Checkpoints(tmp_path).latest() == (100, {"step": 100})
    assert checkpoints.load(20) == {"step": 20}


def test_only_the_newest_few_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(0, 50, 10):
        checkpoints.save(step, step)
    assert checkpoints.steps() == [30, 40]


def test_what_was_just_saved_is_never_dropped(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(100, "later")
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(50, "went back")
    assert checkpoints.steps() == [50, 100]


def test_the_same_step_is_replaced(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, "first")
    checkpoints.save(5, "second")
    assert checkpoints.latest() == (5, "second")


def test_a_damaged_newest_is_refused_by_name_with_the_way_out(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, [1.0])
    checkpoints.save(2, [2.0])
    file = tmp_path / "checkpoints" / "2" / "state.json"
    file.write_text(file.read_text().replace("2.0", "3.0"))
    with pytest.raises(IntegrityError, match=r"2/state\.json was truncated or edited.*go on from step 1"):
        checkpoints.latest()
    assert checkpoints.load(1) == [1.0]


def test_a_writer_that_was_killed_leaves_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, 1)
    torn = checkpoints.directory / f".2.{'0' * 32}.partial"
    torn.mkdir()
    (torn / "state.json").write_text("{")
    assert checkpoints.latest() == (1, 1)
    checkpoints.save(3, 3)
    assert not torn.exists()


def test_keep_is_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(OutOfRangeError, match="keep=0"):
        Checkpoints(tmp_path, keep=0)
