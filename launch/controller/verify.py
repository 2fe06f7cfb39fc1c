"""`mtrl verify`: an artefact proved on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from mtrl.deployment import latency_apart, verify
from mtrl.deployment.realtime.roles import POLICY
from mtrl.pipeline import log

from ..arguments import add_json, add_overrides, emit
from ..compose import compose

EXAMPLES = (
    "mtrl verify runs/quickstart/artefact",
    "mtrl verify artefact robot=ros2 robot.file=robot.yaml",
    "mtrl verify runs/quickstart/artefact robot.inference_deadline_ms=2   as this robot demands",
)
CALLS, REPEATS = 2000, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The artefact and the robot."""
    parser.add_argument("artefact", type=Path, help="folder of an artefact")
    add_overrides(parser, "settings of the robot that it is for", config_dir=True)
    add_json(parser, "what was measured")


def run(arguments: argparse.Namespace) -> int:
    """Checks hashes, schema, golden parity and the time of an inference; 1 where that is too long.

    What is wrong with the artefact itself is raised as IntegrityError.
    """
    robot = compose(arguments.overrides, command="deploy", config_dir=arguments.config_dir).robot
    console = Console(emoji=False)
    checked = verify(arguments.artefact)
    log(console, f"artefact {checked.artefact}")
    difference = f"{checked.golden_error:.3g}"
    log(console, f"hashes, schema and graph fit; largest difference to the golden chunks {difference}")
    priority = POLICY.priority if robot.fifo else 0
    measured = latency_apart(arguments.artefact, CALLS, REPEATS, priority)
    limit_us = 1000.0 * robot.inference_deadline_ms
    log(
        console,
        f"inference {measured['p50']:.0f} us, 99th percentile {measured['p99']:.0f} us; "
        f"robot={robot.name} allows {limit_us:.0f} us",
    )
    fast = measured["p99"] <= limit_us
    emit(
        arguments,
        {
            "artefact": checked.artefact,
            "golden_error": checked.golden_error,
            "latency_us": measured,
            "limit_us": limit_us,
            "fast_enough": fast,
        },
    )
    if not fast:
        log(console, "too slow here: the guard would hold the robot again and again")
        return 1
    return 0
