"""Faults of the controller on purpose: lost policies, hostile policies, tampered artefacts.

    python benchmarks/faults_robot.py --json faults.json

hold_ms_max, hold_ms_p50   from SIGKILL or SIGSTOP of the policy's process to the servo's first hold command
false_trips                holds of flights that nothing was done to, in `quiet_minutes`
limit_violations           commands beyond a limit, of a million that a guard in a servo decided under a fake
                           clock while the policy and the robot lied, stopped and went wild, and of joint
                           positions beyond a joint's limits
tampered_accepted          of a thousand edits of a single byte of an artefact, those that its id let pass

A full run takes half an hour; its parts are kept beside the JSON, so that it may be stopped and run again.
`--only quiet` watches flights that nothing is done to, for `--minutes`, ten where it is not said.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
from robot_faults import flying
from robot_faults.hostile_policy import violations_of_guard, violations_of_joints
from side_by_side import Parts, publish

from mtrl.deployment import GuardFlag, RobotConfig, open_artefact
from mtrl.deployment.realtime.roles import FLYING
from mtrl.errors import IntegrityError

TRIALS = 20
EDITS = 1000
QUIET_MINUTES = 10.0
PARTS = ("tampered", "limits", "lost", "quiet")
FLIGHT_S = 5.5
RATE_HZ, SERVO_HZ = 80.0, 500.0
BAR_MS = 1000 * (3 / RATE_HZ + 2 / SERVO_HZ)
BARS = {
    "hold_ms_max": f"<= {BAR_MS:.1f}",
    "false_trips": "0 with FIFO",
    "limit_violations": "0",
    "tampered_accepted": "0",
}
HOLDS = int(GuardFlag.STALE_PROPOSAL | GuardFlag.STALE_OBSERVATION | GuardFlag.LATE_INFERENCE)


def lost_policy(artefact: Path, where: Path, trial: int) -> dict[str, float]:
    """Milliseconds to the first hold and hold commands in the .6 s after it, of one trial."""
    draws = np.random.default_rng(trial)
    with flying.flight(artefact, where, RobotConfig()) as flight:
        granted = all(flight.control[role.granted] for role in FLYING)
        flight.wait(float(draws.uniform(0.3, 0.8)))
        lost_at = flying.signalled(flight.process("policy"), (signal.SIGKILL, signal.SIGSTOP)[trial % 2])
        flight.wait(0.6)
        held = flying.times_of(flight.rows(), int(GuardFlag.STALE_PROPOSAL))
        held = held[held >= lost_at]
    first = 1000 * float(held[0] - lost_at) if len(held) else float("inf")
    return {"ms": first, "held": len(held), "fifo": granted}


def left_alone(artefact: Path, where: Path) -> dict[str, float]:
    """Holds in a flight that nothing is done to, and how late its servo woke up at worst."""
    with flying.flight(artefact, where, RobotConfig()) as flight:
        flight.wait(FLIGHT_S)
        held = len(flying.times_of(flight.rows(), HOLDS))
        granted = all(flight.control[role.granted] for role in FLYING)
        return {"held": held, "latest_ms": 1000 * float(flight.lateness().max()), "fifo": granted}


def tampered(artefact: Path, where: Path, edits: int) -> int:
    """Edits that leave an artefact which opens under the id that it had."""
    root = open_artefact(artefact).root
    draws = np.random.default_rng(0)
    accepted = 0
    copy = where / "copy"
    shutil.copytree(artefact, copy)
    files = sorted(path for path in copy.iterdir() if path.is_file())
    for edit in range(edits):
        path = files[edit % len(files)]
        content = bytearray(path.read_bytes())
        place = int(draws.integers(len(content)))
        whole = bytes(content)
        content[place] ^= int(draws.integers(1, 256))
        path.write_bytes(bytes(content))
        with contextlib.suppress(IntegrityError):
            accepted += open_artefact(copy).root == root
        path.write_bytes(whole)
    return accepted


def lost_figures(trials: list[dict[str, float]]) -> tuple[dict[str, float | str], dict[str, object]]:
    """Figures and details of lost policies."""
    held = [trial["ms"] for trial in trials]
    figures: dict[str, float | str] = {
        "hold_ms_max": max(held),
        "hold_ms_p50": float(np.median(held)),
        "fifo": "granted" if all(trial["fifo"] for trial in trials) else "refused",
    }
    return figures, {
        "trials": len(trials),
        "hold_ms": held,
        "hold_commands": [trial["held"] for trial in trials],
    }


def main() -> None:
    """Injects the faults and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument(
        "--only", choices=PARTS, action="append", help="this part; may be given several times"
    )
    parser.add_argument("--trials", type=int, default=TRIALS, help="policies that are killed or stopped")
    parser.add_argument("--ticks", type=int, default=1_000_000, help="commands under hostile policies")
    parser.add_argument("--minutes", type=float, default=QUIET_MINUTES, help="of flights left alone")
    arguments = parser.parse_args()
    chosen, ticks = arguments.only or PARTS, arguments.ticks
    figures: dict[str, float | str] = {}
    details: dict[str, object] = {"processors": os.cpu_count() or 0}
    with tempfile.TemporaryDirectory() as place:
        artefact = Path(place) / "artefact"
        flying.export(artefact, (flying.TASK,), 256)
        parts, root = Parts(arguments.json), Path(place)
        if "tampered" in chosen:
            accepted = parts.get(f"tampered {EDITS}", lambda: tampered(artefact, root, EDITS))
            figures["tampered_accepted"], details["edits"] = accepted, EDITS
        if "limits" in chosen:
            violations = parts.get(f"guard {ticks}", lambda: violations_of_guard(ticks))
            violations += parts.get(f"joints {ticks // 10}", lambda: violations_of_joints(ticks // 10))
            figures["limit_violations"] = violations
            details |= {"ticks": ticks, "joint_ticks": ticks // 10}
        if "lost" in chosen:
            trials = [
                parts.get(f"lost policy {trial}", lambda trial=trial: lost_policy(artefact, root, trial))
                for trial in range(arguments.trials)
            ]
            found, more = lost_figures(trials)
            figures, details = figures | found, details | more
        if "quiet" in chosen:
            flights = math.ceil(60 * arguments.minutes / FLIGHT_S)
            quiet = [parts.get(f"quiet {n}", lambda: left_alone(artefact, root)) for n in range(flights)]
            figures["false_trips"] = sum(flight["held"] for flight in quiet)
            figures["fifo"] = "granted" if all(flight["fifo"] for flight in quiet) else "refused"
            details["latest_wake_up_ms"] = max(flight["latest_ms"] for flight in quiet)
            details["quiet_minutes"] = arguments.minutes
    publish("Faults of the controller", figures, BARS, details, arguments.json)


if __name__ == "__main__":
    main()
