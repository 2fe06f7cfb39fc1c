"""The console script `mtrl`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

# Threads that outnumber free processors and spin while they wait make training ten times slower. The
# learner's share is set when it is known; both must stand before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from mtrl import __version__
from mtrl.errors import ConfigError, MtrlError, MtrlWarning, UnknownNameError, UntrustedCodeError
from mtrl.faults import Terminated, UserInterrupt, user_interrupts

from .arguments import json_output, with_json

COMMANDS = {
    "train": "train on many tasks; experiment=quickstart goes all the way to a robot controller",
    "collect": "collect demonstrations from scripted experts",
    "data": "look into demonstrations, convert them from and to LeRobot, merge them",
    "distill": "distil a run's teacher into a one-forward student",
    "evaluate": "evaluate policies on fixed test starts",
    "watch": "record a video of a policy, or show it in a window",
    "compare": "compare results start by start, or runs seed by seed, with intervals",
    "export": "export a run's student as an artefact",
    "inspect": "show what an artefact is: tasks, sizes, limits, origin",
    "verify": "prove an artefact on this machine: hashes, schema, golden outputs, latency",
    "deploy": "run an artefact on a robot in real time",
    "replay": "run the guard again on a flight log, bit for bit",
    "report": "write a run's report as one self-contained page",
    "runs": "list runs: how far they came, what they reached, how they go on",
    "tune": "search settings by many runs, with early stops",
    "submit": "run another command as a job of a Ray cluster: submit -- train ...",
    "tasks": "list tasks and task sets",
    "doctor": "check this machine, with a remedy for what is missing",
    "completion": "print the code by which bash or zsh completes mtrl",
}
"""Verb -> what it does; each is the module `mtrl.launch.<verb>` with `add_arguments` and `run`."""
FOLDERS = dict.fromkeys(("inspect", "verify", "replay"), "controller.") | {
    "runs": "several.",
    "completion": "shell.",
}
"""Verb -> the folder of its module, where it has one."""

SLOW = {
    "torch": "PyTorch",
    "ray": "Ray",
    "mujoco": "MuJoCo",
    "metaworld": "Meta-World",
    "dm_control": "dm_control",
    "stable_baselines3": "Stable-Baselines3",
}
"""Packages whose import takes seconds -> their names."""

READS = {
    "evaluate": "a run's folder, an artefact's folder, or expert or random",
    "watch": "a run's folder, an artefact's folder, or expert or random",
    "distill": "a run's folder",
    "export": "a run's folder",
    "report": "a run's folder",
    "deploy": "an artefact's folder, or its run's",
}
"""Command -> what its first argument names."""

SCRIPTED = ("expert", "random")
"""Policies that are no paths."""


class Announcer:
    """Says on the standard error, as a finder of modules, which slow package is being imported."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Finds nothing; the next finder does."""
        if name in SLOW:
            print(f"mtrl: loading {SLOW[name]} ...", file=sys.stderr, flush=True)
        return None


def load_command(name: str, folder: str, words: Sequence[str]) -> ModuleType:
    """The module of a command; raises ConfigError where its first argument names an absent path."""
    first = words[0] if words else ""
    named = name in READS and first and first[0] != "-" and "=" not in first and first not in SCRIPTED
    if named and not Path(first).exists():
        raise ConfigError(f"there is no {first}; expected {READS[name]}; runs are folders below runs/")
    if Announcer not in sys.meta_path:
        sys.meta_path.insert(0, Announcer)
    return importlib.import_module(f"mtrl.launch.{folder}{name}")


def build_parser(filled: str = "") -> argparse.ArgumentParser:
    """The command line; a verb's module is imported only when the verb is used, and its arguments are there
    of the verb `filled` alone.
    """
    parser = argparse.ArgumentParser(
        prog="mtrl", description="Multi-task reinforcement learning and robotics.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"mtrl {__version__}")
    verbs = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, summary in COMMANDS.items():
        verb = verbs.add_parser(name, help=summary, add_help=name == filled, allow_abbrev=False)
        if name == filled:
            importlib.import_module(f"mtrl.launch.{FOLDERS.get(name, '')}{name}").add_arguments(verb)
    return parser


def build_verb(name: str, module: ModuleType) -> argparse.ArgumentParser:
    """The command line of one verb, whose module it is."""
    verb = argparse.ArgumentParser(
        prog=f"mtrl {name}",
        description=COMMANDS[name][0].upper() + COMMANDS[name][1:] + ".",
        epilog="examples:\n" + "\n".join(f"  {example}" for example in module.EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(verb)
    return verb


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 on success, 2 for a mistake of the user's, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser()
    if arguments is None and "_ARGCOMPLETE" in os.environ:
        return _complete()
    if not words or words[0] not in COMMANDS:
        if words and not words[0].startswith("-"):
            return _fail(str(UnknownNameError("command", words[0], COMMANDS)))
        parser.parse_args(words or ["--help"])
        return 0
    name, *own = words
    try:
        module = load_command(name, FOLDERS.get(name, ""), own)
    except MtrlError as error:
        return _fail(str(error))
    inner: list[str] = []
    if getattr(module, "TAKES_COMMAND", False) and "--" in own:
        own, inner = own[: own.index("--")], own[own.index("--") + 1 :]
    parsed = build_verb(name, module).parse_intermixed_args(with_json(own))
    parsed.command_words = inner
    if allowed := getattr(parsed, "allow_import", ()):
        # imported here: --help, --version and doctor need none of it
        from mtrl import registry

        registry.allow_imports(allowed)
    try:
        with user_interrupts(), json_output(parsed), plain_warnings():
            return int(module.run(parsed))
    except UntrustedCodeError as error:
        command = shlex.join(["mtrl", *words, "--allow-import", error.module])
        return _fail(f"{error}. If you trust it, run: {command}")
    except MtrlError as error:
        return _fail(str(error))
    except UserInterrupt:
        print("\nmtrl: interrupted", file=sys.stderr)
        return 130
    except Terminated:
        raise
    except (SystemExit, KeyboardInterrupt) as error:
        if isinstance(error.__context__, BrokenPipeError):
            # what rich makes of it
            return _closed_output()
        # would end the process without a word, and SystemExit(0) as a success
        raise RuntimeError(f"a plug-in raised {error!r} in the middle of mtrl {name}") from error
    except BrokenPipeError:
        return _closed_output()
    except OSError as error:
        # A path of the user's: no permission, a file where a folder should be. Without one it is our bug.
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}; check the path, or choose another place")


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Within the block our own warnings are a line, without file and code."""
    usual = warnings.formatwarning

    def plain(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if issubclass(category, MtrlWarning):
            return f"mtrl: note: {message}\n"
        return usual(message, category, filename, lineno, line)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _closed_output() -> int:
    """The reader of our output closed it, as `| head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _complete() -> int:
    """Answers a shell that asks how the words before the cursor go on."""
    from .shell.completion import complete

    words = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])].split()[1:]
    complete(build_parser(words[0] if words else ""), words)
    return 0


def _fail(message: str) -> int:
    print(f"mtrl: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
