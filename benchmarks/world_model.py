"""What the world model costs, and whether its planner and its router do anything.

    python benchmarks/world_model.py --json world_model.json
    python benchmarks/world_model.py --run runs/world_model_mixed       # of a trained run too
    python benchmarks/world_model.py --run runs/world_model_mixed --student     # and of its student

Figures, each the median of interleaved runs, one thread:

updates_per_second          `agent.update()` of experiment=world_model_mixed: five tasks, 40 sequences of
                            each, size nano
moe_over_dense              time of an update with experts over that of one network of as many active
                            parameters
compiled_over_plain         with --compile: updates per second with agent.compile=true over those without
plan_ms_64x3                one decision of one copy by planning: 64 sequences, 3 iterations, 3 steps
policy_ms                   the same by the policy prior

With --run, of its policy on 20 test starts and on a batch of random play of the experiment's tasks:

planned_minus_policy        return of cartpole-swingup planned minus that of the prior, on equal starts;
                            _low and _high are its 95% interval
gate_entropy_ratio          entropy of a task's gate over ln(experts), mean over tasks: 1 chooses nothing
marginal_entropy_ratio      the same of the mean gate: 1 uses all experts alike
exchanged_gate_error_ratio  latent error after three steps with another task's gate over that with its own
unused_expert_error_ratio   the same with the experts that the task does not use

With --student too, once `mtrl distill RUN` and `mtrl export RUN` are done:

student_return_ratio        return of the student over that of the planner on equal starts, mean over tasks;
                            the mean returns of every task are under "returns" in the file
student_latency_us_p99      one decision by the exported student, 99% of 20,000 calls, median of three
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from side_by_side import RUNS, interleave, median_of, publish

import mtrl
from mtrl.agents.world_model import WorldModelAgent, WorldModelConfig
from mtrl.agents.world_model.config import SIZES, ExpertsConfig
from mtrl.agents.world_model.diagnostics import measure
from mtrl.agents.world_model.policy import policy_from
from mtrl.agents.world_model.sequences import sequences_of
from mtrl.data import Replay, ReplayConfig
from mtrl.deployment import latency_apart
from mtrl.evaluation import paired_differences
from mtrl.launch.compose import compose
from mtrl.pipeline import agent_of, task_set_of
from mtrl.pipeline.policies import load_policy
from mtrl.reducer import ALONE
from mtrl.rollout import Acting, Fragment, LocalFragments, PolicySnapshot, generator_for
from mtrl.structured import build
from mtrl.tasks import TaskSet

EXPERIMENT = "experiment=world_model_mixed"
SWINGUP = "dmc/cartpole-swingup"
UPDATES, DECISIONS, EPISODES = 20, 20, 20
BARS = {
    "updates_per_second": ">= 20", "moe_over_dense": "<= 1.15", "plan_ms_64x3": "<= 15",
    "planned_minus_policy_low": "> 0", "gate_entropy_ratio": "<= 0.8", "marginal_entropy_ratio": ">= 0.8",
    "exchanged_gate_error_ratio": ">= 1.5", "student_return_ratio": ">= 0.9",
    "student_latency_us_p99": "<= 200",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--runs", type=int, default=RUNS, help="interleaved runs behind each median")
    parser.add_argument("--run", type=Path, help="a trained run of agent=world_model")
    parser.add_argument("--student", action="store_true", help="of the run's exported student too")
    parser.add_argument("--compile", action="store_true", help="time compiled updates too")
    parser.add_argument("--size", choices=list(SIZES), default="nano", help="size of the model")
    parser.add_argument("--device", default="cpu", help="where it learns, such as cuda")
    arguments = parser.parse_args()
    if arguments.student and arguments.run is None:
        parser.error("--student is of a run: expected --run RUN too")
    torch.set_num_threads(1)
    config = compose([EXPERIMENT], command="train")
    tasks = task_set_of(config)
    source = LocalFragments(tasks, config.runtime, config.collection, PolicySnapshot("random"), 1)
    fragments = list(islice(source.stream(), 200))
    source.close()
    _, _, settings = agent_of(config)
    settings = dataclasses.replace(settings, size=arguments.size, device=arguments.device)
    figures, details = costs(settings, tasks, fragments, arguments.runs, compiled=arguments.compile)
    if arguments.run is not None:
        found, returns = trained(arguments.run, tasks, fragments, ["student"] if arguments.student else [])
        figures, details = figures | found, details | {"returns": returns}
    if arguments.student:
        ratios = [of["student"] / of["planned"] for of in returns.values()]
        figures["student_return_ratio"] = float(np.mean(ratios))
        figures["student_latency_us_p99"] = float(latency_apart(arguments.run / "artefact")["p99"])
    publish("World model, one thread", figures, BARS, details, arguments.json)


def costs(
    settings: WorldModelConfig, tasks: TaskSet, fragments: list[Fragment], runs: int, *, compiled: bool
) -> tuple[dict[str, float], dict[str, object]]:
    """Updates per second of both forms, and milliseconds of a decision."""
    plain = dataclasses.replace(settings, diagnostics_every=0)
    agents = {
        "experts": fed(plain, tasks, fragments),
        "dense": fed(dataclasses.replace(plain, experts=ExpertsConfig(dense=True)), tasks, fragments),
    }
    if compiled:
        agents["compiled"] = fed(dataclasses.replace(plain, compile=True), tasks, fragments)
        # not timed: compilation
        agents["compiled"].update(ALONE)

    def updates(agent: WorldModelAgent) -> float:
        began = time.perf_counter()
        for _ in range(UPDATES):
            agent.update(ALONE)
        return UPDATES / (time.perf_counter() - began)

    rates = interleave({name: lambda agent=agent: updates(agent) for name, agent in agents.items()}, runs)
    waits = interleave(
        {
            "plan": decision(agents["experts"], tasks, plan=True),
            "policy": decision(agents["experts"], tasks, plan=False),
        },
        runs,
    )
    figures = {
        "updates_per_second": median_of(lambda a: a, rates["experts"]),
        "moe_over_dense": median_of(lambda a, b: b / a, rates["experts"], rates["dense"]),
        "plan_ms_64x3": median_of(lambda a: a, waits["plan"]),
        "policy_ms": median_of(lambda a: a, waits["policy"]),
    }
    if compiled:
        figures["compiled_over_plain"] = median_of(lambda a, b: b / a, rates["experts"], rates["compiled"])
    return figures, {"updates_per_second": rates, "milliseconds": waits}


def fed(config: WorldModelConfig, tasks: TaskSet, fragments: list[Fragment]) -> WorldModelAgent:
    """An agent with experience."""
    agent = WorldModelAgent(config, tasks, 1)
    for fragment in fragments:
        agent.ingest(fragment)
    agent.due(sum(fragment.steps for fragment in fragments), ALONE)
    return agent


def decision(agent: WorldModelAgent, tasks: TaskSet, *, plan: bool) -> Callable[[], float]:
    """Milliseconds of one decision of one copy of the first task."""
    policy = agent.policy()
    index, generators = np.zeros(1, np.int64), [generator_for(1, tasks.names[0], 0)]
    observation = tasks.layout.zeros(1)

    def window() -> float:
        state = policy.initial_state(1)
        began = time.perf_counter()
        for _ in range(DECISIONS):
            action = policy.act(
                observation, index, state, np.zeros(1, bool), acting=Acting(plan=plan), generators=generators
            )
            state = action.state
        return 1e3 * (time.perf_counter() - began) / DECISIONS

    return window


def trained(
    run: Path, tasks: TaskSet, fragments: list[Fragment], others: list[str]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """What planner and router of a trained run do; of every task the mean return of planner, prior and
    `others`, policies that the run keeps.
    """
    snapshot, _ = load_policy(run / "policies" / "teacher", tasks)
    planning = snapshot.config["planning"]
    settings = build(WorldModelConfig, snapshot.config)
    prior = dataclasses.replace(
        snapshot, config={**snapshot.config, "planning": {**planning, "evaluate": "policy"}}
    )
    swingup = tasks.names.index(SWINGUP)
    replay = Replay(tasks, ReplayConfig(capacity=10_000))
    for fragment in fragments:
        replay.add(fragment)
    policy = policy_from(snapshot, tasks)
    ones = torch.ones(len(tasks))
    batch = sequences_of(
        policy.model,
        replay.sample_sequences(settings.batch_size, settings.sequence, np.random.default_rng(0)),
        *[ones] * 4,
    )
    found = measure(policy.model, batch, tasks.names, 0)

    def mean(metric: str) -> float:
        return float(np.mean([found[f"{metric}/{name}"] for name in tasks.names]))

    kept = {label: load_policy(run / "policies" / label, tasks)[0] for label in others}
    results = mtrl.evaluate({"planned": snapshot, "policy": prior, **kept}, tasks, episodes=EPISODES)
    returns = {
        name: {
            label: [episode.episode_return for episode in results[label].task_episodes(name)]
            for label in ("planned", "policy", *others)
        }
        for name in tasks.names
    }
    planned, acted = (returns[tasks.names[swingup]][label] for label in ("planned", "policy"))
    means = {
        name: {label: float(np.mean(rows)) for label, rows in of.items()} for name, of in returns.items()
    }
    difference = paired_differences([planned], [acted], np.random.default_rng(0)).mean
    figures = {
        "planned_minus_policy": difference.value,
        "planned_minus_policy_low": difference.low,
        "planned_minus_policy_high": difference.high,
        "gate_entropy_ratio": mean("gate_entropy"),
        "marginal_entropy_ratio": found["gate_entropy_marginal"],
        "exchanged_gate_error_ratio": mean("exchanged_gate_error"),
        "unused_expert_error_ratio": mean("unused_expert_error"),
    }
    return figures, means


if __name__ == "__main__":
    main()
