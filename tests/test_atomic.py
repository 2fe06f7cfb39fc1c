"""Files and directories that are written whole or not at all, also where the disk refuses."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from mtrl.atomic import atomic_directory, remove_directory, sweep_partials
from mtrl.disk_errors import is_disk_full
from mtrl.errors import ExistsError, ResourceError
from mtrl.training import codec, save_state


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
