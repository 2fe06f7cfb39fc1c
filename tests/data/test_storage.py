"""Where a replay's arrays live."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtrl.data import CommitRecord, MappedStorage
from mtrl.errors import ConfigError


def test_a_file_is_found_as_it_was_left(tmp_path: Path) -> None:
    first = MappedStorage(tmp_path / "replay").allocate("0.reward", (4, 2), np.float32)
    assert not first.any()
    first[1] = 3.0
    del first
    again = MappedStorage(tmp_path / "replay").allocate("0.reward", (4, 2), np.float32)
    np.testing.assert_array_equal(again, [[0, 0], [3, 3], [0, 0], [0, 0]])
    again[2] = 1.0
    assert sorted(path.name for path in (tmp_path / "replay").iterdir()) == ["0.reward.npy"]


def test_another_array_of_the_name_is_refused(tmp_path: Path) -> None:
    storage = MappedStorage(tmp_path)
    storage.allocate("0.reward", (4,), np.float32)
    with pytest.raises(ConfigError, match=r"holds float32 \[4\]; expected float32 \[8\].*another folder"):
        storage.allocate("0.reward", (8,), np.float32)
    with pytest.raises(ConfigError, match=r"holds float32 \[4\]; expected int64 \[4\]"):
        storage.allocate("0.reward", (4,), np.int64)


def test_nothing_needs_no_file(tmp_path: Path) -> None:
    assert MappedStorage(tmp_path).allocate("0.continuous", (4, 0), np.float32).shape == (4, 0)
    assert not list(tmp_path.iterdir())


def test_a_commit_is_one_store(tmp_path: Path) -> None:
    record = CommitRecord(MappedStorage(tmp_path), 2)
    assert (record.number, record.steps) == (0, 0)
    record.commit(3, 96, np.array([40, 56]))
    # all of the next commit but its last store, after which the process is killed
    cells = np.load(tmp_path / "commits.npy", mmap_mode="r+")
    cells[1 - int(np.load(tmp_path / "turn.npy")[0])] = [4, 128, 72, 56]
    again = CommitRecord(MappedStorage(tmp_path), 2)
    assert (again.number, again.steps, again.written.tolist()) == (3, 96, [40, 56])
    again.commit(4, 128, np.array([72, 56]))
    assert CommitRecord(MappedStorage(tmp_path), 2).written.tolist() == [72, 56]
