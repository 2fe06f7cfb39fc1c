"""The page of a flight log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mtrl.atomic import write_text
from mtrl.deployment import (
    Flight,
    GuardFlag,
    Latency,
    read_flight,
    replay,
    replay_joints,
    shadow_finding,
)
from mtrl.deployment.realtime.records import Column
from mtrl.errors import ConfigError

from ..chart import PALETTE
from ..figures import latency_figure
from .figures import MOST_STATES, Panel, command_panels, guard_figure, joint_panels, state_panels


def write_flight_report(log: Path, *, unfinished: bool = False) -> Path:
    """Writes `LOG.html` beside the log, with all that it shows inside, and returns its path.

    Raises IntegrityError for a file that is no whole log, ConfigError for one without a decision.
    """
    flight = read_flight(log, unfinished=unfinished)
    if not len(flight.numbers):
        raise ConfigError(f"{log} holds no decision: there is nothing to draw")
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, Path(__file__).parents[1]]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    begun = flight.transitions[0].at if flight.transitions else 0.0
    text = environment.get_template("flight.html").render(
        palette=PALETTE,
        name=log.name,
        flight=flight,
        facts=_facts(flight),
        begun=begun,
        guard=guard_figure(flight),
        sections=[
            ("Commands against their limits", command_panels(flight)),
            ("Joints against their limits", joint_panels(flight)),
            (f"Observation, the first {MOST_STATES} entries", state_panels(flight)),
        ],
        times=_times(flight),
        findings=_findings(flight),
    )
    page = log.with_suffix(".html")
    write_text(page, text, overwrite=True)
    return page


def _facts(flight: Flight) -> dict[str, str]:
    commands = replay(flight)[0]
    again = "bit for bit" if commands.tobytes() == flight.command.tobytes() else "not the same"
    joints = replay_joints(flight)
    facts = {
        "task": flight.task,
        "artefact": flight.artefact[:16],
        "mode": flight.mode,
        "ended": flight.ending or "the log has no end",
        "decisions": f"{len(flight.numbers):,}",
        "guard run again": again,
    }
    if flight.names and not joints.unavailable:
        same = "bit for bit" if not joints.different else f"{len(joints.different)} are not the same"
        facts["joints run again"] = f"{joints.positions:,} decisions, {same}"
    if (shadow := shadow_finding(flight)) is not None:
        facts["beside the present controller"] = str(shadow)
    return facts


def _times(flight: Flight) -> list[Panel]:
    columns = (Column.PLANNED, Column.INFERENCE_S, Column.SENT, Column.OBSERVED, Column.READ)
    planned, inference, sent, observed, read = (flight.column(column) for column in columns)
    durations = {
        "inference, µs": inference[planned > 0],
        "observation to command, µs": sent - observed,
        "guard and command, µs": sent - read,
    }
    return [
        Panel(name, f"{len(kept):,} decisions", latency_figure(Latency.of(kept)))
        for name, values in durations.items()
        if len(kept := values[np.isfinite(values) & (values > 0)])
    ]


def _findings(flight: Flight) -> list[tuple[str, int]]:
    """The guard's findings, and the decisions of each."""
    flags = flight.column(Column.FLAGS).astype(np.int64)
    counts = [(str(flag.name), int(np.count_nonzero(flags & flag))) for flag in GuardFlag]
    return [(name, count) for name, count in counts if count]
