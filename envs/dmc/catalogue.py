"""Regenerates catalogue.json from the installed package: `python -m mtrl.envs.dmc.catalogue`."""

from __future__ import annotations

import math
from importlib.metadata import version
from pathlib import Path

import numpy as np
from dm_control import suite as control_suite

from mtrl.tasks.catalogue import catalogue_text

from .simulator import load_simulator
from .suite import ControlEntry

# the 18 tasks of ScaleZero and UniZero (Pu et al.; LightZero's DMC18 configuration), in its order
DMC18 = (
    "acrobot-swingup",
    "cartpole-balance",
    "cartpole-balance_sparse",
    "cartpole-swingup",
    "cartpole-swingup_sparse",
    "cheetah-run",
    "ball_in_cup-catch",
    "finger-spin",
    "finger-turn_easy",
    "finger-turn_hard",
    "hopper-hop",
    "hopper-stand",
    "pendulum-swingup",
    "reacher-easy",
    "reacher-hard",
    "walker-run",
    "walker-stand",
    "walker-walk",
)


def generate() -> str:
    """The text of catalogue.json: the benchmark first, then the rest; builds each once, about 12 s."""
    benchmark = list(control_suite.BENCHMARKING)
    others = [pair for pair in control_suite.ALL_TASKS if pair not in benchmark]
    tasks = {f"{domain}-{task}": describe(domain, task) for domain, task in benchmark + others}
    sets = {
        "dmc18": DMC18,
        "dmc28": tuple(f"{domain}-{task}" for domain, task in benchmark),
        "dmc-all": tuple(tasks),
    }
    return catalogue_text("dmc", f"dm_control {version('dm_control')}", tasks, sets)


def describe(domain: str, task: str) -> ControlEntry:
    """What listing one task needs, read from its simulator."""
    simulator = load_simulator(domain, task)
    model = simulator.physics.model
    entry = ControlEntry(
        domain=domain,
        task=task,
        state=sum(int(np.prod(spec.shape)) for spec in simulator.observation_spec().values()),
        action=int(np.prod(simulator.action_spec().shape)),
        control_timestep=float(simulator.control_timestep()),
        step_limit=math.ceil(simulator._step_limit),
        cameras=[model.id2name(camera, "camera") for camera in range(model.ncam)],
    )
    simulator.close()
    return entry


if __name__ == "__main__":
    Path(__file__).with_name("catalogue.json").write_text(generate(), encoding="utf-8")
