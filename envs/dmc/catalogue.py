"""Regenerates catalogue.json from the installed package: `python -m mtrl.envs.dmc.catalogue`."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
from dm_control import suite as control_suite

from mtrl.tasks.catalogue import catalogue_text

from .suite import ControlEntry


def generate() -> str:
    """The text of catalogue.json; builds every task once, about 3 s."""
    tasks = {}
    for domain, task in control_suite.BENCHMARKING:
        simulator = control_suite.load(domain, task)
        sizes = [int(np.prod(spec.shape)) for spec in simulator.observation_spec().values()]
        tasks[f"{domain}-{task}"] = ControlEntry(
            domain=domain,
            task=task,
            state=sum(sizes),
            action=int(np.prod(simulator.action_spec().shape)),
            control_timestep=float(simulator.control_timestep()),
            step_limit=int(simulator._step_limit),
        )
    return catalogue_text("dmc", f"dm_control {version('dm_control')}", tasks, {"dmc28": tuple(tasks)})


if __name__ == "__main__":
    Path(__file__).with_name("catalogue.json").write_text(generate(), encoding="utf-8")
