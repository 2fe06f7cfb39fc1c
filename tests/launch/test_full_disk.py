"""A disk that fills up while a command works: it stops by name, and goes on once there is room."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtrl.launch.main import main
from mtrl.pipeline import demonstrations
from mtrl.training import Checkpoints

SMALL = [
    "tasks=point/obstacle",
    "agent.network.width=16",
    "agent.network.blocks=1",
    "agent.batch_size=16",
    "demonstrations.episodes=1",
    "demonstrations.job_episodes=1",
    "training.updates=8",
    "training.log_every=1",
    "training.checkpoint_every=4",
    "training.threads=1",
    "tracking=files",
    "stages=[collect,train]",
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 80 megabytes."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(mount)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount; mend: run as root")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def fill(disk: Path) -> None:
    """Leaves no room for a single byte."""
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (2**20, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


def test_a_run_goes_on_after_a_full_disk_as_if_nothing_had_been(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *SMALL, f"output={tmp_path}", "name=whole"]) == 0
    words = ["train", *SMALL, f"output={disk}", "name=run"]
    monkeypatch.setattr(sys, "argv", ["mtrl", *words])
    save = Checkpoints.save

    def filling(self: Checkpoints, step: int, state: object) -> Path:
        if step == 8:
            fill(disk)
        return save(self, step, state)

    monkeypatch.setattr(Checkpoints, "save", filling)
    capsys.readouterr()
    assert main(words) == 2
    printed = capsys.readouterr()
    assert "newest checkpoint of: diffusion at step 4" in printed.out
    assert f"go on from there with:\n  {shlex.join(['mtrl', *words, '--resume', 'auto'])}" in printed.out
    # the first thing that finds no room, and everything that is written on the way out, say so in one line
    assert printed.err.splitlines()[-1].startswith("mtrl: the disk is full: ")
    assert not [path for path in disk.rglob(".*") if path.is_file() or path.name.endswith(".owner")]
    os.unlink(disk / "filler")
    monkeypatch.setattr(Checkpoints, "save", save)
    assert main([*words, "--resume", "auto"]) == 0
    found, expected = (place / "metrics.jsonl" for place in (disk / "run", tmp_path / "whole"))
    assert found.read_bytes() == expected.read_bytes()


def test_a_collection_names_the_command_that_goes_on(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["collect", *SMALL[:1], *SMALL[4:6], "--out", str(disk / "data")]
    monkeypatch.setattr(sys, "argv", ["mtrl", *words])
    keep = demonstrations.write_dataset

    def filling(*given: object, **named: object) -> str:
        fill(disk)
        return keep(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(demonstrations, "write_dataset", filling)
    assert main(words) == 2
    printed = capsys.readouterr()
    assert "disk is full" in printed.err and "--resume auto" in printed.out
    os.unlink(disk / "filler")
    assert not [path for path in disk.rglob("*") if path.is_file()]
    monkeypatch.setattr(demonstrations, "write_dataset", keep)
    assert main([*words, "--resume", "auto"]) == 0
