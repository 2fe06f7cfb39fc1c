"""What self-guidance and adaptive chunking win over chunks carried out to their end, where actions are noisy.

    python benchmarks/chunking.py --json chunking.json

A diffusion policy of 8 actions a chunk is trained on three Meta-World tasks, unless --run is there already.
Every task has the least noise of `NOISE` at which open-loop chunks succeed in at most 70% of its validation
starts; the weight of self-guidance and the threshold are chosen among `WEIGHTS` and `THRESHOLDS` on those
too. Figures, on equal test starts:

open_loop_success       all 8 actions of a chunk, then the next plan; mean over tasks
adaptive_success        self-guidance, and the plan before is left only where a new one begins otherwise
                        (cosine below the threshold)
difference              adaptive minus open loop, mean over tasks; _low and _high are its 95% interval, paired
                        by start
closed_loop_success     a new plan at every decision, for comparison
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
from compared.chunked_policies import Teacher, successes
from side_by_side import publish

from mtrl.evaluation import paired_differences
from mtrl.tasks import Split

TASKS = ("metaworld/reach-v3", "metaworld/push-v3", "metaworld/drawer-open-v3")
CHUNK = 8
NOISE = (0.25, 0.5, 1.0, 2.0)
WEIGHTS, THRESHOLDS = (0.0, 0.6), (0.97, 0.99)
"""So et al. 2025 choose weights by task, and thresholds of 0.97 and 0.99."""
OPEN, CLOSED = {"steps": CHUNK}, {"steps": 1}
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
    choices = itertools.product(WEIGHTS, THRESHOLDS)
    weight, threshold = max(choices, key=lambda choice: adaptive_success(teacher, noise, *choice))
    ways: dict[str, tuple[dict[str, float], float]] = {
        "open_loop": (OPEN, 0.0),
        "adaptive": ({"adaptive": threshold}, weight),
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
        "threshold": threshold,
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


def adaptive_success(teacher: Teacher, noise: list[float], weight: float, threshold: float) -> float:
    """Success of adaptive chunking on validation starts, mean over tasks."""
    how = {"adaptive": threshold}
    rates = [
        successes(
            teacher.play(k, CHOOSING, how, guidance=weight, noise=noise[k], split=Split.VALIDATION)
        ).mean()
        for k in range(len(TASKS))
    ]
    print(f"guidance {weight}, threshold {threshold}: {np.mean(rates):.0%}", flush=True)
    return float(np.mean(rates))


if __name__ == "__main__":
    main()
