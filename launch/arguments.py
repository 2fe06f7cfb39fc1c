"""Arguments that commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from mtrl.errors import ConfigError


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
