"""`mtrl doctor`: what this machine has and lacks, and how to mend it.

Imports nothing that may be missing before it has reported it: each check is independent.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtrl.diagnostics import Finding, State, broken, drawing, ray_ports, software, warning

from .arguments import add_json, add_overrides, emit

if TYPE_CHECKING:
    from mtrl.pipeline import Config
    from mtrl.tasks import TaskSet

EXAMPLES = (
    "mtrl doctor                  this machine, with memory for mt10",
    "mtrl doctor tasks=mt50       memory for another task set",
    "mtrl doctor tasks=mt50 runtime.actors=4 evaluation.copies=2 --json",
)

MARKS = {
    State.GOOD: ("ok", "32"),
    State.OPTIONAL: ("note", "2"),
    State.WARNING: ("warn", "33"),
    State.BROKEN: ("FAIL", "31"),
}
"""State -> word and colour (ANSI)."""

DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "hydra": "hydra-core",
    "mtrl": software.DISTRIBUTION,
    "yaml": "pyyaml",
}
"""Imported name -> what pip calls it, where the two differ by more than an underscore."""

SUBJECT = 18
"""Width of the column of subjects."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The tasks to have memory for, and the format."""
    add_overrides(parser, "settings, such as tasks=mt50 (mt10)")
    add_json(parser, "the findings")


def run(arguments: argparse.Namespace) -> int:
    """Prints every finding; 1 when something required is broken, otherwise 0."""
    # a mistake in a setting is reported before seconds of checks; a missing package by its check
    with contextlib.suppress(ImportError):
        _configured(arguments.overrides)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    width = shutil.get_terminal_size().columns
    findings = []
    for finding in examine(arguments.overrides):
        findings.append(finding)
        print(rendered(finding, width, colour), flush=True)
    emit(arguments, [{**vars(one), "state": one.state.value} for one in findings])
    return int(any(finding.state is State.BROKEN for finding in findings))


def examine(overrides: Sequence[str]) -> Iterator[Finding]:
    """Every check on the facts of this machine, in the order of the screen."""
    checks: tuple[tuple[str, Callable[[], list[Finding]]], ...] = (
        ("packages", _software),
        ("renderer", _drawing),
        ("processors", _processors),
        ("GPU", _gpu),
        ("memory", lambda: _memory(overrides)),
        ("disk", lambda: _places(overrides)),
        ("Ray", _ray),
        ("Ray start", _ray_start),
        ("real time", _realtime),
        ("extras", _extras),
    )
    for subject, check in checks:
        try:
            yield from check()
        except ImportError as error:
            name = (error.name or "mtrl").split(".")[0]
            package = DISTRIBUTIONS.get(name, name.replace("_", "-"))
            pins = "-c constraints.txt " if (_root() / "constraints.txt").is_file() else ""
            yield broken(subject, f"cannot be checked: {error}", f"pip install {pins}{package}")


def rendered(finding: Finding, width: int, colour: bool) -> str:
    """A finding as lines of at most `width` columns."""
    word, code = MARKS[finding.state]
    mark = f"\033[{code}m{word:<4}\033[0m" if colour else f"{word:<4}"
    room = max(30, width - SUBJECT - 7)
    lines = textwrap.wrap(finding.text, room, break_on_hyphens=False)
    if finding.remedy:
        lines += textwrap.wrap(
            f"mend: {finding.remedy}", room, subsequent_indent="  ", break_on_hyphens=False
        )
    indent = " " * (SUBJECT + 7)
    return f"{mark}  {finding.subject:<{SUBJECT}} " + f"\n{indent}".join(lines)


def _software() -> list[Finding]:
    root = _root()
    return [
        software.check_python(sys.version_info[:3]),
        *software.check_packages(
            software.declared_requirements(root),
            software.known_good_versions(root),
            software.installed_versions(),
        ),
    ]


def _drawing() -> list[Finding]:
    errors = drawing.probe_renderers(os.environ)
    return [
        drawing.check_renderer(os.environ.get("MUJOCO_GL", ""), bool(os.environ.get("DISPLAY")), errors),
        drawing.check_encoder(drawing.encoder_error()),
    ]


def _processors() -> list[Finding]:
    from mtrl.diagnostics import machine
    from mtrl.distributed import processors
    from mtrl.tasks import allowed_processors

    usable = processors()
    return [
        machine.check_processors(usable, allowed_processors(), os.cpu_count() or usable),
        machine.check_threads(
            os.environ.get("OMP_NUM_THREADS", ""), os.environ.get("OMP_WAIT_POLICY", ""), usable
        ),
    ]


def _gpu() -> list[Finding]:
    import torch

    from mtrl.diagnostics import machine

    count = torch.cuda.device_count()
    return [machine.check_gpu([torch.cuda.get_device_name(k) for k in range(count)], torch.version.cuda)]


def _configured(overrides: Sequence[str]) -> tuple[Config, TaskSet]:
    """The settings and their tasks; raises MtrlError for those that do not fit."""
    from mtrl.pipeline import task_set_of

    from .compose import compose

    config = compose(overrides, command="doctor")
    return config, task_set_of(config)


def _memory(overrides: Sequence[str]) -> list[Finding]:
    from mtrl.diagnostics import machine
    from mtrl.distributed import processors
    from mtrl.distributed.resources import memory_megabytes

    config, tasks = _configured(overrides)
    copies, usable = max(config.evaluation.copies, config.demonstrations.copies), processors()
    return [
        *machine.check_hosts(config.runtime, usable),
        machine.check_memory(tasks, config.runtime, copies, memory_megabytes(), usable),
    ]


def _places(overrides: Sequence[str]) -> list[Finding]:
    from mtrl.diagnostics import machine

    given = [word.partition("=")[2] for word in overrides if word.startswith("output=")]
    runs, temporary = Path(given[-1] if given else "runs"), Path(tempfile.gettempdir())
    return [
        machine.check_folder("runs", machine.inspect_folder(runs), "choose another folder with output=PATH"),
        machine.check_folder(
            "temporary files", machine.inspect_folder(temporary), "choose another folder with TMPDIR=PATH"
        ),
        machine.check_shared_memory(machine.shared_memory_bytes()),
    ]


def _ray() -> list[Finding]:
    return [
        ray_ports.check_ray_version(software.installed_versions().get("ray")),
        ray_ports.check_ray_ports(ray_ports.ray_processes()),
    ]


def _ray_start() -> list[Finding]:
    from mtrl.distributed.ray_start import obstacles, own_token

    found, file = obstacles(os.environ), Path.home() / ".ray" / "auth_token"
    others = file.stat().st_mode & 0o077 if file.is_file() else 0
    return [
        *(warning("Ray start", f"Ray cannot start: {cause}", remedy) for cause, remedy in found),
        ray_ports.check_ray_token(bool(own_token()), others),
        *ray_ports.check_ray_address(
            os.environ.get("RAY_ADDRESS", ""), os.environ.get("RAY_API_SERVER_ADDRESS", "")
        ),
    ]


def _realtime() -> list[Finding]:
    from mtrl.diagnostics import machine

    return [machine.check_realtime(*machine.realtime_rights())]


def _extras() -> list[Finding]:
    wandb_mode, has_key = os.environ.get("WANDB_MODE", ""), software.wandb_has_key(os.environ, Path.home())
    return [
        *software.check_extras(software.declared_requirements(_root()), software.installed_versions()),
        software.check_wandb(wandb_mode, has_key),
    ]


def _root() -> Path:
    """The checkout that mtrl runs from, if it does."""
    import mtrl

    return Path(mtrl.__file__).resolve().parent.parent
