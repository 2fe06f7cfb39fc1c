"""What Ray costs and brings: rollouts on actors, learning beside them, scaling, and memory that stays flat.

    python benchmarks/distributed.py --json distributed.json
    python benchmarks/distributed.py --only memory --json memory.json

ray_over_local        environment steps per second of two rollout actors over two worker processes, on
                      Meta-World; the median of interleaved runs
async_over_sync       SAC on Ray, one learner and one actor, over SAC in one process, steps per second of
                      training at one ratio of updates; a step waits as long as its updates take
rllib_ratio           the same SAC in one process over RLlib's, with stepping that costs nothing
weak_scaling_1_to_4   steps per second of four actors over four times those of one; environments that sleep,
                      so that the processors of the machine do not limit them
store_growth          share by which Ray's object store, and the resident memory of its processes and of this,
resident_growth       grow from the second minute on while actors outrun a learner, the largest of all parts
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import ray
from ray._private.internal_api import node_stats
from ray_faults.environments import task_name
from ray_faults.nodes import TwoNodes, descendants
from side_by_side import RUNS, interleave, median_of, publish

from mtrl import registry
from mtrl.distributed import fragments_for
from mtrl.distributed.cluster import connect, disconnect
from mtrl.rollout import CollectionConfig, PolicySnapshot, PoolFragments, RuntimeConfig
from mtrl.training import read_jsonl

BARS = {
    "ray_over_local": ">= 0.85",
    "async_over_sync": ">= 1.3 (aim)",
    "rllib_ratio": ">= 10",
    "weak_scaling_1_to_4": ">= 0.9",
    "store_growth": "<= 0.05",
    "resident_growth": "<= 0.05",
}
Figures = dict[str, float]
SLEEPER = task_name("sleeps")
SAC = (
    "agent=sac", "agent.replay_ratio=0.25", "agent.batch_size=128", "agent.network.torso.width=128",
    "stages=[train]", "tracking=files", "online.warmup=500", "online.log_every=250",
    "online.checkpoint_every=100000", "agent.replay.capacity=20000",
)  # fmt: skip
RLLIB = (
    "agent=rllib", "agent.algorithm=sac", "agent.sac.train_batch_size_per_learner=128",
    "agent.sac.training_intensity=32", "agent.sac.num_steps_sampled_before_learning_starts=500",
    "stages=[train]", "tracking=files", "online.log_every=250", "online.checkpoint_every=100000",
)  # fmt: skip
SLOW_LEARNER_SECONDS = 0.5
"""Pause after each fragment, so that the queue is always full."""
SETTLING_SECONDS = 120.0


def collecting(
    task: str, runtime: RuntimeConfig, copies: int, steps: int, megabytes: float = 256.0
) -> PoolFragments:
    """Continuous collection by random play."""
    collection = CollectionConfig(copies=copies, steps=steps, stagger=False, queue_megabytes=megabytes)
    tasks = registry.task_set(task)
    source = fragments_for(tasks, runtime, collection, PolicySnapshot("random"), 0, step_seconds=[1.0])
    assert isinstance(source, PoolFragments), "a pool was asked for"
    return source


def speed(source: PoolFragments, count: int) -> float:
    """Environment steps per second over so many fragments."""
    began = time.perf_counter()
    steps = sum(fragment.steps for fragment in islice(source.stream(), count))
    return steps / (time.perf_counter() - began)


def throughput(runs: int, minutes: float) -> tuple[Figures, dict[str, object]]:
    """Two actors beside two worker processes; only one of them works at a time."""
    shared = {"task": "metaworld/reach-v3", "copies": 4, "steps": 64}
    with (
        closing(collecting(runtime=RuntimeConfig(workers=2), **shared)) as local,  # type: ignore[arg-type]
        closing(collecting(runtime=RuntimeConfig(kind="ray", actors=2), **shared)) as actors,  # type: ignore[arg-type]
    ):
        found = interleave({"local": lambda: speed(local, 16), "ray": lambda: speed(actors, 16)}, runs)
    ratio = median_of(lambda ray_speed, local_speed: ray_speed / local_speed, found["ray"], found["local"])
    return {"ray_over_local": ratio}, {"throughput": found}


def scaling(runs: int, minutes: float) -> tuple[Figures, dict[str, object]]:
    """One actor and four, each with two copies of an environment that sleeps."""
    speeds = {}
    # four processors that are declared, whatever the machine has
    nodes = TwoNodes(head=3, other=1)
    for actors in (1, 4):
        runtime = RuntimeConfig(kind="ray", actors=actors, address=nodes.address)
        with closing(collecting(SLEEPER, runtime, copies=2 * actors, steps=32)) as source:
            speed(source, 4 * actors)
            speeds[actors] = [speed(source, 8 * actors) for _ in range(runs)]
    nodes.close()
    four, one = (statistics.median(speeds[actors]) for actors in (4, 1))
    return {"weak_scaling_1_to_4": four / (4 * one)}, {"weak_scaling": speeds}


def asynchrony(runs: int, minutes: float) -> tuple[Figures, dict[str, object]]:
    """SAC in one process, where stepping waits for learning, and on Ray, where it does not."""
    words = (*SAC, f"tasks=[{SLEEPER}]", "online.steps=3000", "collection.copies=1", "collection.steps=32")
    on_ray = ("runtime=ray", "runtime.learners=1", "runtime.actors=1")
    found: dict[str, list[float]] = {"sync": [], "async": []}
    for _ in range(runs):
        found["sync"].append(training_speed(*words))
        found["async"].append(training_speed(*words, *on_ray))
    ratio = median_of(lambda beside, alone: beside / alone, found["async"], found["sync"])
    return {"async_over_sync": ratio}, {"asynchrony": found}


def against_rllib(runs: int, minutes: float) -> tuple[Figures, dict[str, object]]:
    """SAC of both at a quarter of an update a step."""
    shared = ("tasks=[gym/Pendulum-v1]", "online.steps=2000", "collection.copies=1")
    found: dict[str, list[float]] = {"mtrl": [], "rllib": []}
    for _ in range(runs):
        found["mtrl"].append(training_speed(*SAC, *shared))
        found["rllib"].append(training_speed(*RLLIB, *shared))
    ratio = median_of(lambda ours, theirs: ours / theirs, found["mtrl"], found["rllib"])
    return {"rllib_ratio": ratio}, {"rllib": found}


def training_speed(*words: str) -> float:
    """Steps per second of `mtrl train`, the median of the records of its second half."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mtrl.launch.main", "train", *words, f"output={folder}", "name=run"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rows = read_jsonl(Path(folder) / "run" / "timing.jsonl")
    rates = [row["steps_per_second"] for row in rows if "steps_per_second" in row]
    return statistics.median(rates[len(rates) // 2 :])


def memory(runs: int, minutes: float) -> tuple[Figures, dict[str, object]]:
    """Fast actors before a slow learner, whose replay has touched all its pages before."""
    connect(RuntimeConfig(kind="ray", actors=2))
    runtime, samples = RuntimeConfig(kind="ray", actors=2), list[tuple[float, float, float]]()
    replay = np.ones(32 * 2**20, dtype=np.uint8)
    try:
        with closing(collecting("gym/CartPole-v1", runtime, copies=64, steps=256, megabytes=16)) as source:
            began, at = time.monotonic(), 0
            for fragment in source.stream():
                rows = fragment.observations["state"].view(np.uint8).ravel()
                place = np.arange(at, at + rows.size) % replay.size
                replay[place], at = rows, at + rows.size
                samples.append((time.monotonic() - began, store_bytes(), resident_bytes()))
                if samples[-1][0] > 60 * minutes:
                    break
                time.sleep(SLOW_LEARNER_SECONDS)
    finally:
        disconnect()
    settling = min(SETTLING_SECONDS, 12 * minutes)
    figures = {
        name: growth([(row[0], row[column]) for row in samples], settling)
        for column, name in ((1, "store_growth"), (2, "resident_growth"))
    }
    return figures, {"memory": samples[:: max(1, len(samples) // 200)], "minutes": minutes}


def growth(samples: list[tuple[float, float]], settling: float) -> float:
    """Largest mean of a part as long as the settling time, over that of the first one after it, minus 1."""
    parts: dict[int, list[float]] = {}
    for second, value in samples:
        if second >= settling:
            parts.setdefault(int(second / settling), []).append(value)
    means = [statistics.mean(values) for _, values in sorted(parts.items())]
    return max(means[1:], default=means[0]) / max(1.0, means[0]) - 1


def store_bytes() -> float:
    """Bytes used in the object store of this node."""
    node = ray.nodes()[0]
    stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], include_memory_info=False)
    return float(stats.store_stats.object_store_bytes_used)


def resident_bytes() -> float:
    """Private resident memory of this process and all that it has started."""
    total = 0
    for pid in (os.getpid(), *descendants([os.getpid()])):
        try:
            fields = Path(f"/proc/{pid}/statm").read_text().split()
        except OSError:
            continue
        total += (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
    return float(total)


PARTS: dict[str, Callable[[int, float], tuple[Figures, dict[str, object]]]] = {
    "throughput": throughput,
    "scaling": scaling,
    "asynchrony": asynchrony,
    "rllib": against_rllib,
    "memory": memory,
}


def main() -> None:
    """Measures what was asked for, prints the table, writes the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"interleaved runs ({RUNS})")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the memory part (10)")
    parser.add_argument("--only", nargs="*", choices=tuple(PARTS), default=tuple(PARTS), help="these parts")
    arguments = parser.parse_args()
    here, found = str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *([found] if found else [])])
    figures: Figures = {}
    details: dict[str, object] = {}
    for part in arguments.only:
        measured, raw = PARTS[part](arguments.runs, arguments.minutes)
        figures |= measured
        details |= raw
        print(part, measured, flush=True)
    publish("Ray", figures, BARS, details, arguments.json)


if __name__ == "__main__":
    main()
