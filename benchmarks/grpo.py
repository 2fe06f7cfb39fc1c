"""What GRPO costs beside the environments that it steps.

    python benchmarks/grpo.py --json grpo.json

Figures, each the median of interleaved runs in one process and one thread, on the tasks and settings of
experiment=grpo_metaworld4, of a policy that is not cloned and learns from rewards, so that every group
counts:

frames_ratio        environment steps per second of whole rounds of GRPO, updates included, over those of the
                    same groups of episodes under random actions; resets included in both
update_share        share of a round's time that its optimiser steps take
steps_per_second    the numerator, in environment steps of three control steps
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import torch
from side_by_side import RUNS, interleave, median_of, publish

from mtrl.agents.grpo import GRPOAgent
from mtrl.agents.grpo.config import CloningConfig, ReturnConfig
from mtrl.launch.compose import compose
from mtrl.pipeline import agent_of, task_set_of
from mtrl.reducer import ALONE
from mtrl.rollout import EpisodeGroup, LocalRollouts, PolicySnapshot, RuntimeConfig

BARS = {"frames_ratio": ">= 0.65"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--runs", type=int, default=RUNS, help="interleaved runs behind each median")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = compose(["experiment=grpo_metaworld4"], command="train")
    tasks = task_set_of(config)
    _, _, settings = agent_of(config)
    # by rewards every group has a gradient, though nothing succeeds
    changes = {"cloning": CloningConfig(), "returns": ReturnConfig(kind="dense")}
    agent = GRPOAgent(dataclasses.replace(settings, **changes), tasks, 1)
    rollouts = LocalRollouts(tasks, RuntimeConfig())
    shares: list[float] = []

    def round_of_grpo() -> float:
        began = time.perf_counter()
        jobs = [request.job() for request in agent.request(ALONE)]
        steps = 0
        for result in rollouts.run(jobs, agent.snapshot("collect")):
            agent.ingest(EpisodeGroup.of(result))
            steps += sum(summary.length for summary in result.summaries)
        assert agent.due(steps, ALONE) == 1, "a round without a filter is complete at once"
        collected = time.perf_counter()
        agent.update(ALONE)
        ended = time.perf_counter()
        shares.append((ended - collected) / (ended - began))
        return steps / (ended - began)

    def random_play() -> float:
        began = time.perf_counter()
        jobs = [request.job() for request in agent.request(ALONE)]
        played = list(rollouts.run(jobs, PolicySnapshot("random")))
        agent.restore(agent.shared_state(), None)
        steps = sum(summary.length for result in played for summary in result.summaries)
        return steps / (time.perf_counter() - began)

    rates = interleave({"grpo": round_of_grpo, "random": random_play}, arguments.runs)
    rollouts.close()
    figures = {
        "frames_ratio": median_of(lambda a, b: a / b, rates["grpo"], rates["random"]),
        "update_share": median_of(lambda a: a, shares[1:]),
        "steps_per_second": median_of(lambda a: a, rates["grpo"]),
    }
    publish("GRPO, one thread", figures, BARS, {"steps_per_second": rates}, arguments.json)


if __name__ == "__main__":
    main()
