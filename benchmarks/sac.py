"""How fast SAC trains: against two peers on one task, and on five tasks in two precisions.

    python benchmarks/sac.py --json sac.json

Figures, each the median of interleaved runs:

ratio_sb3_fp32          environment steps per second of training one Meta-World task over those of
                        Stable-Baselines3's SAC: one environment, one update per step, batches of 256, two
                        layers of 256 units, a thread per CPU core. Ours runs the loop of
                        `mtrl train agent=sac`; each trains in a process of its own, which waits while the
                        other is measured. Both step the task through mtrl, so that its price is the same.
ratio_rllib_fp32        the same over RLlib's SAC (new API stack, local env runner and learner, uniform
                        replay); fewer and shorter windows, since it is slow
steps_per_second        ours, in the runs against Stable-Baselines3
updates_per_second_fp32 `agent.update()` of experiment=sac_mixed: five tasks, 64 transitions of each, width
                        256, critics with LayerNorm; a thread per CPU core
bf16_speedup            the same updates per second in bf16 over those in fp32; not measured, and "not served
                        by this processor", where it has no bf16 instructions
..._one_thread          both with one thread
..._published_size      both with networks and batches of the published MTMHSAC (three layers of 400 units,
                        128 transitions of each task): what bf16 wins grows with the products
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from side_by_side import RUNS, interleave, median_of, publish

from mtrl.distributed import processors
from mtrl.nn import has_bf16

RIVALS = Path(__file__).parent / "compared" / "sac_rivals.py"
"""The program of the peers, run in a process of its own."""

STEPS = {"sb3": 400, "rllib": 60}
"""Environment steps of a window, per peer, and for ours next to it."""
OUR_STEPS = 400
RLLIB_RUNS = 2
"""Runs against RLlib are this many, or `--runs` if that is fewer."""
UPDATES = 60
"""Updates of a window."""
FRAGMENTS = 100
"""Fragments of random play that the agents learn from."""
PUBLISHED = ("agent.network.torso.width=400", "agent.network.torso.depth=3", "agent.batch_size=128")
"""Sizes of MTMHSAC (Meta-World+, McLean et al. 2025)."""

BARS = {"ratio_sb3_fp32": ">= 1.4", "ratio_rllib_fp32": ">= 12", "updates_per_second_fp32": ">= 60"}
BF16_BARS = {"bf16_speedup": ">= 1.6"}
"""Where the CPU multiplies in bfloat16."""
NOT_SERVED = "not served by this processor"


class Rival:
    """One process that trains window by window; see `sac_rivals`."""

    def __init__(self, name: str, threads: int) -> None:
        """Starts it and waits until it has warmed up."""
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).parent / "compared" / "sac_rivals.py"),
                name,
                "--threads",
                str(threads),
            ],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.name = name
        self.facts = self._answer()

    def __enter__(self) -> Rival:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None, "a pipe"
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def train(self, steps: int) -> float:
        """Environment steps per second over the next `steps`."""
        assert self._process.stdin is not None, "a pipe"
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return float(self._answer()["steps_per_second"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(
                f"{self.name} ended; see: python benchmarks/sac_rivals.py {self.name} --threads 1"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    """Measures, prints, and writes the figures to --json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"interleaved runs ({RUNS})")
    parser.add_argument("--only", choices=("sb3", "rllib", "updates"), help="measure one part")
    parser.add_argument("--updates", type=int, metavar="THREADS", help=argparse.SUPPRESS)
    parser.add_argument("--words", nargs="*", default=[], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.updates:
        print(json.dumps(updates_here(arguments.updates, arguments.runs, arguments.words)))
        return
    threads = processors()
    figures: dict[str, float | str] = {}
    details: dict[str, object] = {"threads": threads}
    native = has_bf16(torch.device("cpu"))
    for peer, runs in (("sb3", arguments.runs), ("rllib", min(RLLIB_RUNS, arguments.runs))):
        if arguments.only in (None, peer):
            raw, facts = against(peer, threads, runs)
            figures[f"ratio_{peer}_fp32"] = median_of(lambda a, b: a / b, raw["mtrl"], raw[peer])
            if peer == "sb3":
                figures["steps_per_second"] = median_of(lambda a: a, raw["mtrl"])
            details[peer] = {"steps_per_second": raw, "facts": facts}
    if arguments.only in (None, "updates"):
        for suffix, count, words in (
            ("", threads, ()),
            ("_one_thread", 1, ()),
            ("_published_size", threads, PUBLISHED),
        ):
            rates = updates_apart(count, arguments.runs, words)
            figures["updates_per_second_fp32" + suffix] = median_of(lambda a: a, rates["fp32"])
            figures["bf16_speedup" + suffix] = (
                median_of(lambda a, b: b / a, rates["fp32"], rates["bf16"]) if native else NOT_SERVED
            )
            details["updates_per_second" + suffix] = rates
    bars = BARS | (BF16_BARS if native else {})
    publish(f"SAC, {threads} threads", figures, bars, details, arguments.json)


def against(peer: str, threads: int, runs: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Steps per second of our training and a peer's, taking turns, and the sizes of their actors."""
    with ExitStack() as stack:
        rivals = [stack.enter_context(Rival(name, threads)) for name in ("mtrl", peer)]
        steps = {"mtrl": OUR_STEPS, peer: STEPS[peer]}
        found = interleave({r.name: partial(r.train, steps[r.name]) for r in rivals}, runs)
        return found, {r.name: r.facts for r in rivals}


def updates_apart(threads: int, runs: int, words: Sequence[str]) -> dict[str, list[float]]:
    """`updates_here` in a process that never had another number of threads."""
    command = [sys.executable, __file__, "--updates", str(threads), "--runs", str(runs), "--words", *words]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    rates: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return rates


def updates_here(threads: int, runs: int, words: Sequence[str]) -> dict[str, list[float]]:
    """Updates per second of experiment=sac_mixed with `words` in the precisions that the CPU has, in turn."""
    from mtrl.launch.compose import compose
    from mtrl.pipeline import agent_of, task_set_of
    from mtrl.reducer import Reducer
    from mtrl.rollout import LocalFragments, PolicySnapshot

    torch.set_num_threads(threads)
    alone = Reducer()
    config = compose(["experiment=sac_mixed", *words], command="train")
    tasks = task_set_of(config)
    _, factory, settings = agent_of(config)
    source = LocalFragments(tasks, config.runtime, config.collection, PolicySnapshot("random"), 1)
    fragments = list(islice(source.stream(), FRAGMENTS))
    source.close()

    def rival(precision: str) -> Callable[[], float]:
        agent = factory.build(dataclasses.replace(settings, precision=precision), tasks, config.seed)
        for fragment in fragments:
            agent.ingest(fragment)
        agent.due(sum(fragment.steps for fragment in fragments), alone)

        def window() -> float:
            began = time.perf_counter()
            for _ in range(UPDATES):
                agent.update(alone)
            return UPDATES / (time.perf_counter() - began)

        return window

    precisions = ("fp32", "bf16") if has_bf16(torch.device("cpu")) else ("fp32",)
    return interleave({precision: rival(precision) for precision in precisions}, runs)


if __name__ == "__main__":
    main()
