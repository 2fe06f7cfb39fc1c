"""Files and directories that are written whole or not at all, also where the disk refuses."""

import contextlib
import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from mtrl.atomic import atomic_directory, atomic_file, remove_directory, sweep_partials, write_text
from mtrl.deployment.flight.log import Flight, write_flight
from mtrl.deployment.guard.limits import GuardConfig
from mtrl.deployment.realtime.records import Column
from mtrl.disk_errors import is_disk_full
from mtrl.errors import ExistsError, ResourceError
from mtrl.evaluation import write_record
from mtrl.run_directory import RunDirectory, own_folder
from mtrl.training import Checkpoints, JsonlTracker, codec, read_jsonl, save_state
from mtrl.videos.video_file import VideoFile


def test_a_finished_block_becomes_the_target(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "deep" / "target") as partial:
        assert not (tmp_path / "deep" / "target").exists()
        (partial / "file").write_text("content")
    assert (tmp_path / "deep" / "target" / "file").read_text() == "content"
    assert os.listdir(tmp_path / "deep") == ["target"]


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with atomic_directory(tmp_path / "target") as partial:
            (partial / "file").write_text("content")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_an_existing_target_needs_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with atomic_directory(target) as partial:
        (partial / "old").touch()
    with pytest.raises(ExistsError, match=r"target already exists.*--overwrite"), atomic_directory(target):
        pytest.fail("the block must not run")
    with atomic_directory(target, overwrite=True) as partial:
        (partial / "new").touch()
    assert os.listdir(target) == ["new"]
    assert os.listdir(tmp_path) == ["target"]


def test_a_failed_overwrite_keeps_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with atomic_directory(target) as partial:
        (partial / "old").touch()
    with pytest.raises(RuntimeError, match="no"), atomic_directory(target, overwrite=True):
        raise RuntimeError("no")
    assert os.listdir(target) == ["old"]


def test_a_file_or_a_link_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with (
            pytest.raises(ExistsError, match="not a directory"),
            atomic_directory(tmp_path / name, overwrite=True),
        ):
            pytest.fail("the block must not run")


def test_remove_and_sweep(tmp_path: Path) -> None:
    (tmp_path / "doomed").mkdir()
    (tmp_path / ".kept").mkdir()
    (tmp_path / f".target.{'0' * 32}.partial").mkdir()
    remove_directory(tmp_path / "doomed")
    sweep_partials(tmp_path)
    assert os.listdir(tmp_path) == [".kept"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    mount = tmp_path / "tiny"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        # Without the right to mount, a write that fails as a full disk does has to stand in.
        yield mount
        return
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_full_disk_is_a_resource_error_and_leaves_nothing(tiny_disk: Path) -> None:
    def write_too_much() -> None:
        with atomic_directory(tiny_disk / "big") as partial:
            (partial / "small").write_bytes(b"0")
            if os.path.ismount(tiny_disk):
                (partial / "large").write_bytes(bytes(2_000_000))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ResourceError, match=r"disk is full.*nothing is left"):
        write_too_much()
    assert os.listdir(tiny_disk) == []


def test_a_full_disk_is_recognised_through_safetensors(
    tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    if not os.path.ismount(tiny_disk):
        monkeypatch.setattr(codec, "save_file", full)
    state = {"replay": torch.zeros(500_000)}
    with pytest.raises(ResourceError, match="disk is full"):
        save_state(tiny_disk / "state", state)
    assert os.listdir(tiny_disk) == []


def test_a_full_disk_is_recognised_through_foreign_exceptions() -> None:
    assert is_disk_full(ValueError("I/O error: No space left on device (os error 28)"))
    assert not is_disk_full(PermissionError(13, "Permission denied"))


def test_a_file_takes_the_place_of_an_older_one_whole_or_not_at_all(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "deep" / "page.html") as partial:
        assert partial.suffix == ".html"
        partial.write_text("old")

    def fails() -> None:
        with atomic_file(tmp_path / "deep" / "page.html") as partial:
            partial.write_text("ha")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    with atomic_file(tmp_path / "deep" / "page.html"):
        pass
    assert (tmp_path / "deep" / "page.html").read_text() == "old"
    assert os.listdir(tmp_path / "deep") == ["page.html"]


def fill(disk: Path) -> None:
    """Leaves no room for a single byte."""
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


def test_every_writer_answers_a_full_disk_by_name(tiny_disk: Path) -> None:
    """On a file system of one megabyte without a free byte; afterwards everything is as it was before."""
    if not os.path.ismount(tiny_disk):
        pytest.skip("needs the right to mount; mend: run as root")
    run = RunDirectory.create(tiny_disk / "run", config={"seed": 1})
    tracker = JsonlTracker(run.path)
    tracker.log(1, {"a": 1.0})
    write_record(run.path / "record.json", {"old": True})
    guard = GuardConfig(1, ("zero",))
    rows = np.zeros((50, 1))
    flight = Flight("point/obstacle", "0" * 64, guard, np.zeros((50, len(Column))), rows, rows, rows)
    image = np.zeros((64, 64, 3), dtype=np.uint8)

    def video() -> None:
        with VideoFile(run.videos / "a.mp4", Fraction(30)) as file:
            for _ in range(30):
                file.write(image)

    writers: dict[str, Callable[[], object]] = {
        # longer than what is left of the block that the file has
        "a line": lambda: tracker.log(2, {f"metric {k}": 2.0 for k in range(500)}),
        "the configuration": lambda: run.write_config({"seed": 2, "text": "x" * 5000}),
        "a record": lambda: write_record(run.path / "record.json", {"old": "x" * 5000}, overwrite=True),
        "a checkpoint": lambda: Checkpoints(run.path).save(1, {"weights": torch.zeros(5000)}),
        "a flight log": lambda: write_flight(run.path / "flight.mcap", flight),
        "a video": video,
        "a run": lambda: RunDirectory.create(tiny_disk / "other"),
        "a lock": lambda: contextlib.ExitStack().enter_context(own_folder(tiny_disk / "results")),
    }
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    fill(tiny_disk)
    for name, write in writers.items():
        with pytest.raises(ResourceError, match=r"disk is full|could not be encoded"):
            write()
        assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before, name
        assert sorted(os.listdir(tiny_disk)) == ["filler", "run"], name
    (tiny_disk / "filler").unlink()
    tracker.log(3, {"a": 3.0})
    assert [record["step"] for record in read_jsonl(run.path / "metrics.jsonl")] == [1, 3]


def test_a_place_that_refuses_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=r"cannot write to .*file/x: Not a directory.*another place"):
        write_text(tmp_path / "file" / "x", "text")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(ResourceError, match=r"cannot write to .*long: File too large; .*ulimit -f"):
            write_text(tmp_path / "long", "x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == ["file"]
