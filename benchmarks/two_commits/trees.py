"""Work trees of two commits, and programs that run in them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

STOPPING_SECONDS = 20.0
"""How long an interrupted program may take to end before it is killed."""
NOT_INSTALLED = "not-installed"
"""Folder on the path of a side's programs, below its scratch folder."""
LAST_LINES = 15
"""Lines of a failed program's output that its error shows."""


class CommitError(Exception):
    """A comparison that cannot be made, with the reason and the remedy."""


@dataclass(frozen=True)
class Side:
    """One of the two commits in a work tree of its own."""

    name: str
    """before or after."""
    commit: str
    """The full hash."""
    tree: Path
    scratch: Path
    """Folder for what its programs write, outside the work tree."""

    def __str__(self) -> str:
        return f"{self.name} ({self.commit[:9]})"

    def start(self, *words: str, environment: Mapping[str, str] | None = None) -> Program:
        """Starts Python with `words` in the work tree, whose `mtrl` it imports."""
        return Program(self, words, environment or {})


class Program:
    """A running Python program. Leaving the `with` block before it has ended stops it and its children."""

    def __init__(self, side: Side, words: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts it; output goes to a file of the side's scratch folder."""
        self._words, self._side = words, side
        self._log = side.scratch / "output.txt"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        paths = {"PYTHONPATH": os.pathsep.join((str(side.tree), str(side.scratch / NOT_INSTALLED)))}
        with self._log.open("wb") as output:
            # A session of its own: Ctrl-C reaches this process alone, which then stops the whole group.
            self._process = subprocess.Popen(
                [sys.executable, *words],
                cwd=side.tree,
                env={**inherited, **paths, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOPPING_SECONDS)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def wait(self) -> int:
        """Its exit status."""
        return self._process.wait()

    def finish(self) -> str:
        """Waits and returns the output; raises CommitError with its last lines where the status is not 0."""
        if status := self.wait():
            raise CommitError(self.failure(status))
        return self.output()

    def output(self) -> str:
        """What it has printed, errors included."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def failure(self, status: int) -> str:
        """The message for an exit status that is not 0."""
        end = "\n".join(f"  {line}" for line in self.output().splitlines()[-LAST_LINES:])
        return f"{self._side}: python {' '.join(self._words)}\nended with status {status}:\n{end}"

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def resolve(root: Path, commit: str) -> str:
    """The full hash of a commit, branch or tag; raises CommitError for none."""
    found = _git(
        root, "rev-parse", "--verify", "--quiet", "--end-of-options", commit + "^{commit}", check=False
    )
    if found.returncode != 0:
        raise CommitError(
            f"{commit!r} is no commit of {root}; expected a hash, a branch or a tag: see git log --oneline"
        )
    return found.stdout.strip()


@contextmanager
def sides_of(root: Path, before: str, after: str, work: Path | None = None) -> Iterator[tuple[Side, Side]]:
    """Both commits in work trees below `work` or the system's temporary folder; removed at the end.

    The checkout at `root` and its branches stay as they are. Raises CommitError for what is no commit, or
    where a work tree's own `mtrl` is not the one that its programs import.
    """
    commits = {"before": resolve(root, before), "after": resolve(root, after)}
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="commits-", dir=work) as made:
        folder = Path(made).resolve()
        sides = tuple(
            Side(name, commit, folder / name, folder / f"{name}-scratch") for name, commit in commits.items()
        )
        try:
            for side in sides:
                hide_installed(side.scratch / NOT_INSTALLED)
                # without hooks, which may do anything to the user's checkout
                words = ("-c", f"core.hooksPath={os.devnull}", "worktree", "add", "--detach", "--quiet")
                _git(root, *words, str(side.tree), side.commit)
                _require_own_library(side)
            yield sides[0], sides[1]
        finally:
            for side in sides:
                _git(root, "worktree", "remove", "--force", str(side.tree), check=False)


def hide_installed(folder: Path) -> None:
    """Puts an empty distribution into a folder of PYTHONPATH, in front of the installed one, whose entry
    points are those of another commit: plug-ins are then read from the work tree's own pyproject.toml.
    """
    empty = folder / "mtrl_platform.egg-info"
    empty.mkdir(parents=True)
    (empty / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: mtrl-platform\nVersion: 0\n")


def write_json(path: Path, record: object) -> None:
    """Writes a whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def _require_own_library(side: Side) -> None:
    with side.start("-c", "import mtrl; print(mtrl.__file__)") as program:
        found = Path(program.finish().splitlines()[-1])
    if not found.resolve().is_relative_to(side.tree):
        raise CommitError(
            f"{side} imports mtrl from {found} where its work tree was expected; "
            "give --work a folder that holds no other checkout"
        )


def _git(root: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise CommitError(f"git {' '.join(words)} failed: {done.stderr.strip()}")
    return done
