"""What a one-forward student keeps of its diffusion teacher, and what it saves.

    python benchmarks/distillation.py --json distillation.json

A teacher is trained on the tasks of MT10 and on a point task with two ways round an obstacle, distilled and
exported, unless --run is there already. Figures:

teacher_success, student_success  on equal test starts, mean over tasks
difference                        student minus teacher; _low and _high are its 95% interval, paired by start
modes_kept                        share of the rarer way round the obstacle among the student's successes
student_latency_us_p99            99th percentile of one decision of the exported student, one thread,
                                  microseconds; _p50 its median
speedup_onnx, speedup_eager       time of a plan of the teacher in torch over that of the student in ONNX
                                  Runtime, and in torch; one plan at a time, medians of interleaved runs
speedup_over_mtdiff_size          time of a plan of a network of MTDiff's size (transformer of 4 layers of
                                  256, 32 actions, 200 steps with classifier-free guidance; He et al. 2023)
                                  over that of the student in ONNX Runtime
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from side_by_side import interleave, median_of, publish

from mtrl.agents.diffusion import DiffusionConfig, DiffusionSampler
from mtrl.deployment import latency_apart
from mtrl.evaluation import paired_differences, read_result, read_saved
from mtrl.launch.main import main as mtrl
from mtrl.nn import ChunkNetwork, ChunkShape
from mtrl.pipeline import load_artefact, load_policy
from mtrl.registry import task_set
from mtrl.rollout import ChunkPolicy, ChunkSampler, policy_from
from mtrl.tasks import TaskSet

BARS = {
    "difference_low": ">= -0.05",
    "modes_kept": "0.3 to 0.5",
    "speedup_onnx": ">= 8",
    "student_latency_us_p99": "<= 200 at rest",
}
MTDIFF = ChunkShape(width=256, blocks=4, heads=2, chunk=32, backbone="transformer")
MTDIFF_STEPS, MEASURED_STEPS = 200, 10
PLANS = 20
"""Plans of a timed run."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--run", type=Path, default=Path("runs/benchmark_distillation"))
    parser.add_argument("--tasks", default="mt10,point/obstacle", help="names, the point task among them")
    parser.add_argument("--episodes", type=int, default=400, help="test starts a task")
    parser.add_argument("--updates", type=int, default=8000, help="of the teacher; the student has a quarter")
    arguments = parser.parse_args()
    names = arguments.tasks.split(",")
    options = {"metaworld": {"horizon": 200}}
    run = arguments.run
    code = mtrl(
        [
            "train",
            f"tasks.names=[{arguments.tasks}]",
            "tasks.options.metaworld.horizon=200",
            "stages=[collect,train,distill,evaluate,export]",
            f"output={run.parent}",
            f"name={run.name}",
            "tracking=files",
            "training.threads=1",
            "agent.execution.noise=episode",
            "distillation.execution.noise=episode",
            f"training.updates={arguments.updates}",
            f"distillation.updates={arguments.updates // 4}",
            f"evaluation.episodes={arguments.episodes}",
            "--resume",
            "auto",
        ]
    )
    if code:
        raise SystemExit(code)
    torch.set_num_threads(1)
    tasks = task_set(names, options)
    figures, details = kept(run, tasks)
    figures |= saved(run, tasks)
    publish("distillation", figures, BARS, details, arguments.json)


def kept(run: Path, tasks: TaskSet) -> tuple[dict[str, float | str], dict[str, object]]:
    """Figures of success, and success by task."""
    outcomes, by_task = {}, {}
    for label in ("teacher", "student"):
        (file,) = (run / "evaluations").glob(f"{label}-*.json")
        result = read_result(file)
        outcomes[label] = [
            np.array([episode.success_any for episode in result.task_episodes(name)], dtype=np.float64)
            for name in tasks.names
        ]
        by_task[label] = {
            name: round(float(won.mean()), 3) for name, won in zip(tasks.names, outcomes[label], strict=True)
        }
    difference = paired_differences(outcomes["student"], outcomes["teacher"], np.random.default_rng(0)).mean
    figures: dict[str, float | str] = {
        f"{label}_success": float(np.mean([won.mean() for won in tasks_won]))
        for label, tasks_won in outcomes.items()
    }
    figures |= {"difference": difference.value}
    figures |= {"difference_low": difference.low, "difference_high": difference.high}
    counts = [list(found["successes"].values()) for found in read_saved(run / "modes/student.json").values()]
    if counts:
        figures["modes_kept"] = min(min(one) / max(1, sum(one)) for one in counts)
    return figures, {"success": by_task}


def saved(run: Path, tasks: TaskSet) -> dict[str, float | str]:
    """Figures of time."""
    teacher, student = (
        _sampler(load_policy(run / "policies" / label, tasks)[0], tasks) for label in ("teacher", "student")
    )
    exported = _sampler(load_artefact(run / "artefact")[0], tasks)
    large = DiffusionSampler(
        DiffusionConfig(network=MTDIFF, sampler_steps=MEASURED_STEPS, guidance=1.0),
        ChunkNetwork(MTDIFF, tasks.layout).requires_grad_(False).eval(),
    )
    times = interleave(
        {
            "teacher": lambda: _seconds(teacher),
            "student": lambda: _seconds(student),
            "onnx": lambda: _seconds(exported),
            "mtdiff": lambda: _seconds(large) * MTDIFF_STEPS / MEASURED_STEPS,
        }
    )
    latency = latency_apart(run / "artefact")
    ratio: Callable[[float, float], float] = lambda slow, fast: slow / fast  # noqa: E731
    return {
        "speedup_onnx": median_of(ratio, times["teacher"], times["onnx"]),
        "speedup_eager": median_of(ratio, times["teacher"], times["student"]),
        "speedup_over_mtdiff_size": median_of(ratio, times["mtdiff"], times["onnx"]),
        "student_latency_us_p50": latency["p50"],
        "student_latency_us_p99": latency["p99"],
    }


def _sampler(snapshot: object, tasks: TaskSet) -> ChunkSampler:
    policy = policy_from(snapshot, tasks)  # type: ignore[arg-type]
    assert isinstance(policy, ChunkPolicy)
    return policy.sampler


def _seconds(sampler: ChunkSampler) -> float:
    """Of one plan for one copy."""
    spec, draws = sampler.spec, np.random.default_rng(0)
    states = draws.standard_normal((1, spec.history, spec.state_size)).astype(np.float32)
    z = draws.standard_normal((1, spec.noise_size)).astype(np.float32)
    task = np.zeros(1, dtype=np.int64)
    began = time.perf_counter()
    for _ in range(PLANS):
        sampler.sample(states, task, z)
    return (time.perf_counter() - began) / PLANS


if __name__ == "__main__":
    main()
