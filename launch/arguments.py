"""Arguments that commands share: settings, runs, and `--json`."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtrl.errors import ConfigError, ExistsError

STDOUT = "-"
"""Stands for standard output where a file could be named."""


def add_overrides(parser: argparse.ArgumentParser, text: str, *, config_dir: bool = False) -> None:
    """Settings as `key=value` words, and with `config_dir` a folder of the user's own groups."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=text)
    parser.add_argument(
        "--allow-import",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module that tasks named in a run or an artefact may import; may be given several times",
    )
    if config_dir:
        parser.add_argument("--config-dir", type=Path, help="folder of your own configuration groups")


def add_run(parser: argparse.ArgumentParser) -> None:
    """The run, and changes to its settings."""
    parser.add_argument("run", type=Path, help="folder of a run, such as runs/quickstart")
    add_overrides(parser, "settings changed for this command")


def add_continuing(parser: argparse.ArgumentParser, overwrite: str, resume: str) -> None:
    """`--overwrite` and `--resume`, each with its help."""
    parser.add_argument("--overwrite", action="store_true", help=overwrite)
    parser.add_argument("--resume", choices=("auto", "never"), default="never", help=f"auto: {resume}")


def resumes(arguments: argparse.Namespace) -> bool:
    """Whether `--resume auto` is given; raises ConfigError where `--overwrite` is given too."""
    if arguments.overwrite and arguments.resume == "auto":
        raise ConfigError("--overwrite and --resume auto contradict each other; give one of them")
    return bool(arguments.resume == "auto")


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """`--json` for standard output and `--json FILE.json`, with `what` is printed."""
    parser.add_argument(
        "--json",
        metavar="FILE.json",
        help=f"print {what} as JSON, and everything else on standard error; with a name ending in .json: "
        "into that file (docs/json.md)",
    )


def with_json(words: Sequence[str]) -> list[str]:
    """The words of a command line with the file of `--json` joined to it, where one follows, so that any
    other word behind it is what it would be elsewhere.
    """
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] == "--json" and (word == STDOUT or word.endswith(".json")):
            joined[-1] = f"--json={word}"
        else:
            joined.append(word)
    return [f"--json={STDOUT}" if word == "--json" else word for word in joined]


def emit(arguments: argparse.Namespace, record: Any) -> None:  # noqa: ANN401 - any JSON value
    """Keeps what `--json` prints once the command has ended."""
    arguments.record = record


@contextlib.contextmanager
def json_output(arguments: argparse.Namespace) -> Iterator[None]:
    """Prints or writes what the block emits. Meanwhile all that goes to standard output, of libraries and
    processes too, goes to standard error.

    Raises ExistsError before the block where the file is there.
    """
    wanted = getattr(arguments, "json", None)
    if wanted is None:
        yield
        return
    # imported here: `mtrl doctor` reports what is missing
    from mtrl.atomic import write_text

    file = None if wanted == STDOUT else Path(wanted)
    if file is not None and file.exists():
        raise ExistsError(f"{file} is there already; remove it, or name another file with --json")
    with _redirected() if file is None else contextlib.nullcontext():
        yield
    if not hasattr(arguments, "record"):
        return
    text = json.dumps(_strict(arguments.record), indent=2, sort_keys=True, allow_nan=False) + "\n"
    if file is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_text(file, text)


@contextlib.contextmanager
def _redirected() -> Iterator[None]:
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _strict(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """The value with null for numbers that JSON has no form for, and text for paths."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return str(value) if isinstance(value, Path) else value
