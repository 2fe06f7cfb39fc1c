"""What the controller costs: parity, inference, and how late the servo wakes up under load.

    python benchmarks/controller.py --json controller.json

parity_max_abs                    largest difference of an action between torch and ONNX Runtime, over 10,000
                                  observations of each of ten tasks, extremes among them
inference_us_p99_256, _512        99th percentile of one inference of three layers of that width, one thread,
                                  microseconds
servo_lateness_us_p50, p99, p999  how late the servo woke up at 500 Hz, in microseconds, while another process
                                  kept a processor busy
servo_missed                      wake-ups more than two periods late

SCHED_FIFO is used where the system grants it; `fifo` says whether it did. Times are reported, never asserted.
The parts of a run are kept beside the JSON: what is there is not done again.
"""

from __future__ import annotations

import argparse
import functools
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from robot_faults import flying
from side_by_side import Parts, publish

from mtrl.deployment import ArtefactPolicy, RobotConfig, latency_apart
from mtrl.deployment.realtime.roles import FLYING, POLICY

TASKS = (
    "assembly", "basketball", "button-press-topdown", "door-open", "drawer-close",
    "drawer-open", "peg-insert-side", "pick-place", "push", "reach",
)  # fmt: skip
OBSERVATIONS = 10_000
CALLS, REPEATS = 4000, 3
SERVO_S = 60.0
FLIGHT_S = 5.5
BARS = {
    "parity_max_abs": "<= 1e-5",
    "inference_us_p99_256": "<= 100 at rest",
    "inference_us_p99_512": "<= 200 at rest",
    "servo_lateness_us_p99": "<= 500 with FIFO",
    "servo_missed": "0 with FIFO",
}


def parity(artefact: object, controller: torch.nn.Module) -> float:
    """Row by row as a controller runs, against one batch of torch."""
    policy = ArtefactPolicy(artefact)  # type: ignore[arg-type]
    worst = 0.0
    for entry in policy.manifest.tasks:
        draws = np.random.default_rng(entry.index)
        scale = 10.0 ** draws.uniform(-3, 3, (OBSERVATIONS, 1))
        states = (scale * draws.standard_normal((OBSERVATIONS, policy.manifest.state_size))).astype(
            np.float32
        )
        with torch.no_grad():
            expected = controller(torch.from_numpy(states), torch.full((OBSERVATIONS,), entry.index)).numpy()
        for state, action in zip(states, expected, strict=True):
            worst = max(worst, float(np.abs(policy.act(state, entry.index)[0] - action).max()))
    return worst


def servo_flight(artefact: Path, where: Path, seconds: float) -> dict[str, Any]:
    """How late the servo woke up in one flight under load, in microseconds, and whether all got FIFO."""
    load = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        with flying.flight(artefact, where, RobotConfig()) as flight:
            flight.wait(seconds)
            late = (1e6 * flight.lateness()).round(1).tolist()
            return {"late_us": late, "fifo": all(flight.control[role.granted] for role in FLYING)}
    finally:
        load.kill()
        load.wait()


def main() -> None:
    """Measures and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--seconds", type=float, default=SERVO_S, help="time for which the servo is watched")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts = Parts(arguments.json)
    with tempfile.TemporaryDirectory() as place:
        figures: dict[str, float | str] = {}
        for width in (256, 512):
            directory = Path(place) / str(width)
            artefact, controller = flying.export(directory, tuple(f"metaworld/{n}-v3" for n in TASKS), width)
            difference = parts.get(
                f"parity {width}",
                lambda artefact=artefact, controller=controller: parity(artefact, controller),
            )
            figures["parity_max_abs"] = max(float(figures.get("parity_max_abs", 0.0)), difference)
            measured = parts.get(
                f"latency {width}",
                functools.partial(latency_apart, directory, CALLS, REPEATS, POLICY.priority),
            )
            figures[f"inference_us_p50_{width}"] = measured["p50"]
            figures[f"inference_us_p99_{width}"] = measured["p99"]
        length = min(FLIGHT_S, arguments.seconds)
        flights = [
            parts.get(f"servo {n}", lambda: servo_flight(Path(place) / "256", Path(place), length))
            for n in range(math.ceil(arguments.seconds / length))
        ]
    late = np.concatenate([flight["late_us"] for flight in flights])
    fifo = all(flight["fifo"] for flight in flights)
    for name, share in (("p50", 50), ("p99", 99), ("p999", 99.9)):
        figures[f"servo_lateness_us_{name}"] = float(np.percentile(late, share))
    period_us = 1e6 / RobotConfig().servo_hz
    figures["servo_missed"] = float(np.count_nonzero(late > 2 * period_us))
    figures["fifo"] = "granted" if fifo else "refused"
    details = {"wake_ups": len(late), "tasks": len(TASKS), "observations": OBSERVATIONS, "calls": CALLS}
    publish("The controller", figures, BARS, details, arguments.json)


if __name__ == "__main__":
    main()
