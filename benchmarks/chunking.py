"""What self-guidance and adaptive chunking win over chunks carried out to their end, where actions are noisy.

    python benchmarks/chunking.py --json chunking.json

A diffusion policy of 8 actions a chunk is trained on three Meta-World tasks, unless --run is there already.
Every task has the least noise of `NOISE` at which open-loop chunks succeed in at most 70% of its validation
starts, and the weight of self-guidance is chosen among `WEIGHTS` on validation starts too. Figures, on 100
equal test starts a task:

open_loop_success       all 8 actions of a chunk, then the next plan; mean over tasks
adaptive_success        self-guidance, and the plan before is left only where a new one begins otherwise
                        (cosine below 0.97)
difference              adaptive minus open loop, mean over tasks; _low and _high are its 95% interval, paired
                        by start
closed_loop_success     a new plan at every decision, for comparison
unguided_success        adaptive chunking without self-guidance
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from chunked_policies import Teacher, successes
from side_by_side import publish

from mtrl.evaluation import paired_differences
from mtrl.tasks import Split

TASKS = ("metaworld/reach-v3", "metaworld/push-v3", "metaworld/drawer-open-v3")
CHUNK = 8
NOISE = (0.5, 1.0, 1.5, 2.0)
WEIGHTS = (0.0, 0.6, 1.6)
OPEN, ADAPTIVE, CLOSED = {"steps": CHUNK}, {"adaptive": 0.97}, {"steps": 1}
BARS = {"difference": ">= 0.10", "difference_low": "> 0"}
CHOOSING = 20
"""Validation starts that noise and weight are chosen on."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--run", type=Path, default=Path("runs/benchmark_chunking"))
    parser.add_argument("--episodes", type=int, default=100, help="test starts a task")
    arguments = parser.parse_args()
    words = (f"agent.network.chunk={CHUNK}", "demonstrations.episodes=50", "training.updates=4000")
    teacher = Teacher(arguments.run, TASKS, words)
    noise = [chosen_noise(teacher, k) for k in range(len(TASKS))]
    weight = max(WEIGHTS, key=lambda w: guided_success(teacher, noise, w))
    ways = {
        "open_loop": (OPEN, 0.0),
        "adaptive": (ADAPTIVE, weight),
        "unguided": (ADAPTIVE, 0.0),
        "closed_loop": (CLOSED, 0.0),
    }
    found = {
        way: [
            successes(teacher.play(k, arguments.episodes, execution, guidance=guidance, noise=noise[k]))
            for k in range(len(TASKS))
        ]
        for way, (execution, guidance) in ways.items()
    }
    figures: dict[str, float | str] = {
        f"{way}_success": float(np.mean([one.mean() for one in tasks])) for way, tasks in found.items()
    }
    difference = paired_differences(found["adaptive"], found["open_loop"], np.random.default_rng(0)).mean
    figures |= {"difference": difference.value}
    figures |= {"difference_low": difference.low, "difference_high": difference.high}
    details = {
        "noise": dict(zip(TASKS, noise, strict=True)),
        "guidance": weight,
        "success": {
            way: {task: round(float(one.mean()), 3) for task, one in zip(TASKS, tasks, strict=True)}
            for way, tasks in found.items()
        },
    }
    publish("self-guidance and adaptive chunking", figures, BARS, details, arguments.json)
    print(details)


def chosen_noise(teacher: Teacher, task: int) -> float:
    """The least noise at which open-loop chunks succeed in at most 70% of validation starts."""
    for deviation in NOISE:
        result = teacher.play(task, CHOOSING, OPEN, noise=deviation, split=Split.VALIDATION)
        rate = successes(result).mean()
        print(f"{TASKS[task]}: open loop {rate:.0%} at noise {deviation}", flush=True)
        if rate <= 0.7:
            return deviation
    return NOISE[-1]


def guided_success(teacher: Teacher, noise: list[float], weight: float) -> float:
    """Success of adaptive chunking on validation starts, mean over tasks."""
    rates = [
        successes(
            teacher.play(k, CHOOSING, ADAPTIVE, guidance=weight, noise=noise[k], split=Split.VALIDATION)
        ).mean()
        for k in range(len(TASKS))
    ]
    print(f"guidance {weight}: {np.mean(rates):.0%}", flush=True)
    return float(np.mean(rates))


if __name__ == "__main__":
    main()
