"""Where a result says that it comes from."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mtrl.evaluation import Provenance
from mtrl.evaluation.provenance import checkout_commit, own_command


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *identity, "-C", str(root), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_collected_facts() -> None:
    found = Provenance.collect("mtrl evaluate runs/a")
    assert found.command == "mtrl evaluate runs/a"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found.created)
    assert found.packages["numpy"] == np.__version__
    assert found.packages["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert re.search(r", \d+ processors?, ", found.hardware)


def test_own_command_keeps_no_path_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/somewhere/bin/mtrl", "train", "name=two words"])
    assert own_command() == "mtrl train 'name=two words'"


def test_commit_of_a_checkout(tmp_path: Path) -> None:
    assert checkout_commit(tmp_path) is None
    git(tmp_path, "init")
    assert checkout_commit(tmp_path) is None
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert checkout_commit(tmp_path) == head
    (tmp_path / "file").write_text("two")
    assert checkout_commit(tmp_path) == f"{head}-dirty"


def test_a_folder_inside_a_foreign_repository_is_no_checkout(tmp_path: Path) -> None:
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "first")
    (tmp_path / "site-packages").mkdir()
    assert checkout_commit(tmp_path / "site-packages") is None
