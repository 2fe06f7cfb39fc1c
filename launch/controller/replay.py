"""`mtrl replay`: the guard run again on a flight log."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console

from mtrl.deployment import Flight, read_flight, replay, replay_joints, shadow_finding
from mtrl.pipeline import log

from ..arguments import add_json, emit

EXAMPLES = (
    "for log in deployments/*.mcap; do mtrl replay $log; done",
    "mtrl replay deployments/metaworld-reach-v3.mcap",
    "mtrl replay deployments/metaworld-reach-v3.mcap --unfinished   what is whole of a log that was cut off",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The log."""
    parser.add_argument("log", type=Path, help="flight log, a .mcap file that mtrl deploy wrote")
    parser.add_argument("--unfinished", action="store_true", help="take the whole ticks of a log without end")
    add_json(parser, "what came out")


def run(arguments: argparse.Namespace) -> int:
    """Prints the guard's states and whether every command comes out again bit for bit; if not, 1."""
    flight = read_flight(arguments.log, unfinished=arguments.unfinished)
    commands, transitions = replay(flight)
    console = Console(emoji=False)
    log(console, f"{flight.task}, {flight.mode}, artefact {flight.artefact[:12]}")
    begun = transitions[0].at if transitions else 0.0
    for change in transitions:
        states = f"{change.before.name} -> {change.after.name}"
        log(console, f"  {change.at - begun:9.3f} s  {states}: {change.cause}")
    log(console, f"ended: {flight.ending or 'the log has no end'}")
    shadow = shadow_finding(flight)
    if shadow is not None:
        log(console, str(shadow))
    # as bits: NaN equals NaN, and 0 differs from -0
    equal = (commands.view(np.uint64) == flight.command.view(np.uint64)).all(axis=1)
    emit(
        arguments,
        {
            "task": flight.task,
            "mode": flight.mode,
            "artefact": flight.artefact,
            "ending": flight.ending,
            "commands": len(commands),
            "reproduced": int(equal.sum()),
            "shadow": None if shadow is None else asdict(shadow),
            "transitions": [
                {"at": c.at - begun, "before": c.before.name, "after": c.after.name, "cause": c.cause}
                for c in transitions
            ],
        },
    )
    if equal.all():
        log(console, f"{len(commands)} commands, all reproduced bit for bit")
        return _joints(flight, console)
    first = int(np.flatnonzero(~equal)[0])
    log(
        console,
        f"{int((~equal).sum())} of {len(commands)} commands are not reproduced, the first in row {first}: "
        f"recorded {flight.command[first].tolist()}, computed {commands[first].tolist()}",
    )
    return 1


def _joints(flight: Flight, console: Console) -> int:
    """Of a robot of joints, prints whether the positions of its joints come out again; if not, 1."""
    if not flight.names:
        return 0
    found = replay_joints(flight)
    if found.unavailable:
        log(console, f"positions of joints were not computed again: {found.unavailable}")
        return 0
    missing = f"; {found.missing} lack the decision before" if found.missing else ""
    if not found.different:
        log(console, f"{found.positions} positions of joints, all reproduced bit for bit{missing}")
        return 0
    log(
        console,
        f"{len(found.different)} of {found.positions} positions of joints are not reproduced, the first in "
        f"row {found.different[0]}{missing}",
    )
    return 1
