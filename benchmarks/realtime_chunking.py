"""What a planner that is slower than the task's rate costs, with real-time chunking and without.

    python benchmarks/realtime_chunking.py --json realtime_chunking.json

A diffusion policy of 16 actions a chunk is trained on a point task with two ways round an obstacle and on
pushing (Meta-World), unless --run is there already. Six actions are carried out between plans, and a plan
takes four decisions. Figures, on 400 equal test starts a task:

jump_ratio_d4           change of the action where a new plan begins, over the change between other decisions;
                        root of the mean square, mean over tasks
jump_ratio_d4_naive     the same where plans replace each other as they are
success_drop            success without a delay minus success with it, mean over tasks; _low and _high are its
                        95% interval, paired by start
success_drop_naive      the same without real-time chunking
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
from compared.chunked_policies import Teacher, successes
from side_by_side import publish

from mtrl.evaluation import paired_differences
from mtrl.rollout import JobResult

TASKS = ("point/obstacle", "metaworld/push-v3")
CHUNK, STEPS, DELAY = 16, 6, 4
WAYS = {
    "no delay": {"steps": STEPS},
    "real-time chunking": {"steps": STEPS, "delay": DELAY},
    "naive": {"steps": STEPS, "delay": DELAY, "blend": "none"},
}
BARS = {"jump_ratio_d4": "<= 1.3", "success_drop": "<= 0.05"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--run", type=Path, default=Path("runs/benchmark_realtime_chunking"))
    parser.add_argument("--episodes", type=int, default=400, help="test starts a task")
    arguments = parser.parse_args()
    teacher = Teacher(
        arguments.run,
        TASKS,
        (
            f"agent.network.chunk={CHUNK}",
            "demonstrations.episodes=50",
            "training.updates=4000",
            f"agent.execution.steps={STEPS}",
        ),
    )
    played = {
        way: [teacher.play(k, arguments.episodes, execution) for k in range(len(TASKS))]
        for way, execution in WAYS.items()
    }
    details = {
        way: {
            task: {
                "success": round(float(successes(result).mean()), 4),
                "jump_ratio": round(jump_ratio(result, WAYS[way].get("delay", 0)), 3),
            }
            for task, result in zip(TASKS, results, strict=True)
        }
        for way, results in played.items()
    }
    figures: dict[str, float | str] = {}
    for way, name in (("real-time chunking", ""), ("naive", "_naive")):
        ratios = [jump_ratio(result, DELAY) for result in played[way]]
        figures[f"jump_ratio_d4{name}"] = float(np.mean(ratios))
        drop = paired_differences(
            [successes(result) for result in played["no delay"]],
            [successes(result) for result in played[way]],
            np.random.default_rng(0),
        ).mean
        figures[f"success_drop{name}"] = drop.value
        figures[f"success_drop{name}_low"], figures[f"success_drop{name}_high"] = drop.low, drop.high
    publish("real-time chunking", figures, BARS, details, arguments.json)
    for way, tasks in details.items():
        print(way, tasks)


def jump_ratio(result: JobResult, delay: int) -> float:
    """Root mean square of the change of action where a plan begins, over that elsewhere."""
    assert result.episodes is not None
    switches, others = [], []
    offsets = result.episodes.offsets
    for first, last in itertools.pairwise(offsets):
        change = ((np.diff(result.episodes.continuous[first:last], axis=0)) ** 2).sum(1)
        place = np.arange(1, last - first)
        begins = (place >= STEPS + delay) & ((place - delay) % STEPS == 0)
        switches.append(change[begins])
        others.append(change[~begins])
    return float(np.sqrt(np.concatenate(switches).mean() / np.concatenate(others).mean()))


if __name__ == "__main__":
    main()
