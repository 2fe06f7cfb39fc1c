"""What a lane costs over a bare simulator, and what worker processes bring over one process per copy.

    python benchmarks/stepping.py --json stepping.json

Figures, each the median of five interleaved runs:

overhead_metaworld            share of time that a lane of one Meta-World copy adds to a loop of `env.step`
                              on the same simulator object
overhead_metaworld_official   the same against metaworld's own class, as a user's loop would step it
overhead_cartpole_us          microseconds a step and copy that a lane of 16 CartPole copies adds to a bare
                              loop of `env.step`, resets on both sides
ratio_vs_async_metaworld16    steps per second of 16 copies in two worker processes, with the policy and the
ratio_vs_async_cartpole16     fragments, over gymnasium's AsyncVectorEnv of 16 with ready-made actions
envpool_over_python_metaworld steps per second of a lane of 16 copies on EnvPool, a thread per CPU core, over
                              the same lane on the official environment, which has one; in one process
mixed_efficiency              time that Meta-World, DeepMind Control and Atari need one after another, over
                              the time of the same fragments from one mixed run, two worker processes
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MUJOCO_GL", "")

import gymnasium
import numpy as np
from compared.stepped_environments import (
    LaneStepper,
    async_cartpole,
    async_metaworld,
    bare_cartpole,
    official_episode,
    official_metaworld,
)
from side_by_side import RUNS, interleave, median_of, publish

from mtrl import registry
from mtrl.distributed import fragments_for
from mtrl.rollout import CollectionConfig, Fragment, PolicySnapshot, PoolFragments, RuntimeConfig

COPIES, WORKERS = 16, 2
METAWORLD, CARTPOLE = "metaworld/reach-v3", "gym/CartPole-v1"
MIXED = ("metaworld/reach-v3", "dmc/walker-walk", "atari/Pong")
MIXED_COPIES = 4

BARS = {
    "overhead_metaworld": "<= 0.15",
    "overhead_cartpole_us": "<= 40",
    "ratio_vs_async_metaworld16": ">= 2.5",
    "ratio_vs_async_cartpole16": ">= 2.5",
    "envpool_over_python_metaworld": ">= 1.4",
    "mixed_efficiency": ">= 0.8",
}


def main() -> None:
    """Measures everything, prints the table, writes the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"interleaved runs ({RUNS})")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    details: dict[str, object] = {}
    for part in (overhead_metaworld, overhead_cartpole, versus_async, versus_python, mixed):
        found, raw = part(arguments.runs)
        figures |= found
        details |= raw
    publish("Stepping", figures, BARS, details, arguments.json)


Part = tuple[dict[str, float], dict[str, object]]


def overhead_metaworld(runs: int) -> Part:
    """One copy, one and the same episode; the reset is left out on both sides."""
    steps = 480
    with LaneStepper(METAWORLD, 1) as lane:
        rivals = {
            "lane": partial(lane.lane_episode, steps),
            "bare": partial(lane.bare_episode, steps),
            "official": partial(official_episode, official_metaworld(), steps),
        }
        found = interleave(rivals, runs)
    return {
        "overhead_metaworld": median_of(lambda a, b: a / b - 1, found["lane"], found["bare"]),
        "overhead_metaworld_official": median_of(lambda a, b: a / b - 1, found["lane"], found["official"]),
    }, {"metaworld_seconds_per_step": found}


def overhead_cartpole(runs: int) -> Part:
    """Sixteen copies with their resets against one environment with its resets."""
    with LaneStepper(CARTPOLE, COPIES) as lane:
        rivals = {"lane": lambda: lane.seconds_per_step(500), "bare": bare_cartpole(COPIES * 500)}
        found = interleave(rivals, runs)
    return {
        "overhead_cartpole_us": median_of(lambda a, b: 1e6 * (a - b), found["lane"], found["bare"]),
        "cartpole_us": median_of(lambda a: 1e6 * a, found["lane"]),
    }, {"cartpole_seconds_per_step": found}


def versus_async(runs: int) -> Part:
    """Two chunks of eight copies against sixteen processes of one."""
    figures: dict[str, float] = {}
    details: dict[str, object] = {}
    cases = (
        ("metaworld", METAWORLD, async_metaworld, 32, 4),
        ("cartpole", CARTPOLE, async_cartpole, 256, 6),
    )
    for label, name, build, steps, rounds in cases:
        with ExitStack() as stack:
            peer = stack.enter_context(AsyncStepper(build(COPIES)))
            ours = stack.enter_context(WorkerStepper([name], COPIES, steps))
            rivals = {
                "workers": partial(ours.steps_per_second, rounds),
                "async": partial(peer.steps_per_second, rounds * steps),
            }
            found = interleave(rivals, runs)
        ratio = median_of(lambda a, b: a / b, found["workers"], found["async"])
        figures[f"ratio_vs_async_{label}16"] = ratio
        details[f"{label}16_steps_per_second"] = found
    return figures, details


def versus_python(runs: int) -> Part:
    """One process, sixteen copies, the same lane; EnvPool steps without the lock, on every core."""
    with ExitStack() as stack:
        python = stack.enter_context(LaneStepper(METAWORLD, COPIES))
        envpool = stack.enter_context(LaneStepper(METAWORLD, COPIES, backend="envpool"))
        rivals = {
            "python": lambda: 1.0 / python.seconds_per_step(60),
            "envpool": lambda: 1.0 / envpool.seconds_per_step(60),
        }
        found = interleave(rivals, runs)
    ratio = median_of(lambda a, b: a / b, found["envpool"], found["python"])
    return {"envpool_over_python_metaworld": ratio}, {"metaworld_lane_steps_per_second": found}


def mixed(runs: int) -> Part:
    """Equal numbers of fragments of each task, alone and together."""
    steps, rounds = 24, 8
    with ExitStack() as stack:
        alone = {name: stack.enter_context(WorkerStepper([name], MIXED_COPIES, steps)) for name in MIXED}
        together = stack.enter_context(WorkerStepper(list(MIXED), MIXED_COPIES, steps))
        rivals = {name: partial(stepper.seconds, rounds) for name, stepper in alone.items()}
        rivals["mixed"] = partial(together.seconds, rounds)
        found = interleave(rivals, runs)
    efficiency = median_of(lambda *t: sum(t[:-1]) / t[-1], *(found[name] for name in (*MIXED, "mixed")))
    return {"mixed_efficiency": efficiency}, {"mixed_seconds": found}


class WorkerStepper:
    """Continuous collection in two processes with the random policy, drained after every measurement."""

    def __init__(self, names: list[str], copies: int, steps: int) -> None:
        self._source = fragments_for(
            registry.task_set(names),
            RuntimeConfig(workers=WORKERS),
            CollectionConfig(copies=copies, steps=steps),
            PolicySnapshot("random"),
            seed=0,
        )
        assert isinstance(self._source, PoolFragments)
        self._lanes = sum(len(lanes) for lanes in self._source.lanes)
        self._stream: Iterator[Fragment] = self._source.stream()
        self._round_steps = len(names) * copies * steps

    def __enter__(self) -> WorkerStepper:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def steps_per_second(self, rounds: int) -> float:
        """Decisions per second, as `seconds`."""
        return rounds * self._round_steps / self.seconds(rounds)

    def seconds(self, rounds: int) -> float:
        """Time of `rounds` fragments of every lane, once two rounds have gone by.

        Every lane has one fragment ready from before; afterwards those in progress finish, so that
        the next rival has the machine to itself.
        """
        for _ in range(2 * self._lanes):
            next(self._stream)
        began = time.perf_counter()
        for _ in range(rounds * self._lanes):
            next(self._stream)
        spent = time.perf_counter() - began
        time.sleep(2.0 * spent / rounds + 0.1)
        return spent


class AsyncStepper:
    """Gymnasium's AsyncVectorEnv, shared memory on, with actions drawn beforehand."""

    def __init__(self, environment: gymnasium.vector.AsyncVectorEnv) -> None:
        self._environment = environment
        environment.reset(seed=0)
        environment.action_space.seed(0)
        self._actions = [environment.action_space.sample() for _ in range(64)]

    def __enter__(self) -> AsyncStepper:
        return self

    def __exit__(self, *_: object) -> None:
        self._environment.close()

    def steps_per_second(self, batches: int) -> float:
        """Environment steps per second over `batches` steps of all copies."""
        began = time.perf_counter()
        for index in range(batches):
            self._environment.step(self._actions[index % 64])
        return batches * self._environment.num_envs / (time.perf_counter() - began)


if __name__ == "__main__":
    np.random.seed(0)  # noqa: NPY002 - Meta-World's own task sampler draws from the global generator
    main()
