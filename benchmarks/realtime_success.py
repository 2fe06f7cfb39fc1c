"""Success through the wire in real time against the same policy in process, and under delay.

    python benchmarks/realtime_success.py --run RUN [--delayed RUN] --json docs/results/realtime_success.json

Six tasks of the run's artefact. Every episode is flown twice from one start with the same noise: as deployed
(robot's process, policy, servo and guard, shared memory, real time) and in process, a step for each decision.

success, success_in_process    shares of the episodes without delay
difference, _low, _high        of the two, paired by start, with its 95% interval (bootstrap within tasks)
success_MS, delayed_MS         shares with commands late by so many milliseconds, of the run trained without
                               delay and of the one trained with it

A cell (policy, delay, task) that is finished is kept beside the JSON and not flown again.
"""

from __future__ import annotations

import argparse
import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
from side_by_side import Parts, publish

from mtrl import registry
from mtrl.deployment import ArtefactPolicy, EpisodeReport, RobotConfig, deploy, verify
from mtrl.deployment.realtime.controller import ChunkController
from mtrl.pipeline import REALTIME_STARTS, artefact_of
from mtrl.rollout import generator_for
from mtrl.tasks import Split, Task, start_id

TASKS, EPISODES, DELAYED_EPISODES = 6, 50, 10
DELAYS_MS = (5.0, 10.0, 20.0, 50.0)
SEED, DRAWS = 0, 10_000
BAR = 0.05
BARS = {"difference": f"within {BAR} by its interval"}
Cell = list[list[bool]]
"""Success of every episode: as deployed, and in process where it was flown so too."""


def in_process(policy: ArtefactPolicy, task: Task, start: int, settle: int) -> bool:
    """Whether the policy ever succeeds without clock, processes and guard."""
    entry = policy.manifest.task(task.name)
    controller = ChunkController(policy, entry, generator_for(SEED, task.name, start))
    environment = registry.environment(task)
    out = {"state": np.zeros(entry.state_size, dtype=np.float32)}
    action = np.zeros(entry.action_size)
    environment.reset(start, out)
    succeeded_at = -1
    for tick in range(task.horizon_decisions):
        controller.observe(out["state"].astype(np.float64))
        if controller.needs_plan(tick):
            controller.plan(tick)
        controller.action(tick, action)
        taken = int(action[0]) if entry.choices else action.astype(np.float32)
        _, terminated, success = environment.step(taken, out)
        if success and succeeded_at < 0:
            succeeded_at = tick
        if terminated or 0 <= succeeded_at <= tick - settle:
            break
    environment.close()
    return succeeded_at >= 0


def fly(artefact: Path, task: str, delay_ms: float, episodes: int, where: Path, robot: RobotConfig) -> Cell:
    """Flies the episodes of a cell; without delay in process too."""
    config = replace(robot, delay_ms=delay_ms)
    checked = verify(artefact)
    policy = ArtefactPolicy(checked.contents)
    built = registry.task(task, dict(checked.manifest.task(task).options))
    starts = [start_id(Split.TEST, REALTIME_STARTS + number) for number in range(episodes)]

    def show(report: EpisodeReport) -> None:
        print(f"{task}, {delay_ms:g} ms: {report.outcome}, {report.final_state}", flush=True)

    # one session for all of them: its processes start once
    flown = deploy(
        artefact, config, [task] * episodes, starts, SEED, where, overwrite=True, on_episode=show
    ).episodes
    rows = [[report.success] for report in flown]
    if not delay_ms:
        for row, start in zip(rows, starts, strict=True):
            row.append(in_process(policy, built, start, config.settle_decisions))
    return rows


def paired_interval(cells: list[Cell]) -> tuple[float, float, float]:
    """Mean difference over tasks, and its interval: starts are drawn again within each task."""
    draws = np.random.default_rng(0)
    differences = [np.array([float(row[0]) - float(row[1]) for row in cell]) for cell in cells]
    means = np.mean(
        [found[draws.integers(0, len(found), (DRAWS, len(found)))].mean(axis=1) for found in differences],
        axis=0,
    )
    low, high = np.percentile(means, (2.5, 97.5))
    return float(np.mean([found.mean() for found in differences])), float(low), float(high)


def main() -> None:
    """Flies what is missing and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="run or artefact, trained without delay")
    parser.add_argument("--delayed", type=Path, help="the same, trained with delay")
    parser.add_argument("--json", type=Path, required=True, help="where the figures and finished cells go")
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--episodes", type=int, default=EPISODES, help="a task, without delay")
    parser.add_argument("--delayed-episodes", type=int, default=DELAYED_EPISODES, help="a task and delay")
    parser.add_argument("--robot", default="sim", help="a simulation: sim or arm")
    arguments = parser.parse_args()
    robot: RobotConfig = registry.load("robot", arguments.robot).config
    parts, where = Parts(arguments.json), arguments.json.with_suffix(".flights")
    runs = {"success": artefact_of(arguments.run)}
    if arguments.delayed:
        runs["delayed"] = artefact_of(arguments.delayed)
    found: dict[str, list[Cell]] = {}
    for label, artefact in runs.items():
        checked = verify(artefact)
        names = [entry.name for entry in checked.manifest.tasks][: arguments.tasks]
        for delay in (0.0, *DELAYS_MS):
            episodes = arguments.delayed_episodes if delay else arguments.episodes
            for task in names:
                key = f"{checked.artefact} {arguments.robot} {delay:g} {task} {episodes}"
                if episodes:
                    cell = parts.get(
                        key, functools.partial(fly, artefact, task, delay, episodes, where, robot)
                    )
                    found.setdefault(f"{label}_{delay:g}" if delay else label, []).append(cell)
    figures: dict[str, float | str] = {
        name: float(np.mean([[row[0] for row in cell] for cell in kept])) for name, kept in found.items()
    }
    plain = found["success"]
    figures["success_in_process"] = float(np.mean([[row[1] for row in cell] for cell in plain]))
    figures["difference"], figures["difference_low"], figures["difference_high"] = paired_interval(plain)
    sizes = {name: [len(cell) for cell in kept] for name, kept in found.items()}
    outcomes = {
        name: ["".join("01"[row[0]] for row in cell) for cell in kept] for name, kept in found.items()
    }
    outcomes["success_in_process"] = ["".join("01"[row[1]] for row in cell) for cell in plain]
    details = {"episodes": sizes, "robot": arguments.robot, "outcomes": outcomes}
    publish("Success through the wire in real time", figures, BARS, details, arguments.json)


if __name__ == "__main__":
    main()
