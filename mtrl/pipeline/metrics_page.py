"""The page of every logged metric: `python -m mtrl.pipeline.metrics_page` writes docs/metrics.md."""

from __future__ import annotations

from pathlib import Path

from mtrl import registry
from mtrl.distillation import DAGGER, SAME_NOISE
from mtrl.training import (
    EPISODE_METRICS,
    EVALUATION_METRICS,
    RUN_METRICS,
    RUN_TIMINGS,
    AgentFactory,
    metrics_table,
)

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "metrics.md"

OPENING = """# Metrics

Every name that a run logs. Written by `python -m mtrl.pipeline.metrics_page` from what each agent and
learner declares with its code; a test trains each of them and fails on a name that is not here.

`metrics.jsonl` holds deterministic values, means over the updates since the record before; `timing.jsonl`
holds what a clock measured. TensorBoard and W&B show the same names, the clock's under `timing/`. The
teacher's and an agent's files lie in the run's own folder, the behaviour-cloning counterpart's below `bc/`,
the student's below `student/`. `step` counts updates, and environment steps for an agent that collects while
it learns. `{task}` stands for a task's name.
"""


def page() -> str:
    """The whole page, for our own agents."""
    parts = [OPENING]
    for name in own_agents():
        factory: AgentFactory = registry.load("agent", name)
        parts.append(f"## Agent `{name}`: metrics.jsonl\n\n{metrics_table(factory.metrics)}")
    for distiller in (SAME_NOISE, DAGGER):
        name, table = distiller.name, metrics_table(distiller.metrics)
        parts.append(f"## Distillation by `{name}`: student/metrics.jsonl\n\n{table}")
    collected = {**EPISODE_METRICS, **RUN_METRICS, **EVALUATION_METRICS}
    parts.append(f"## Agents that collect while learning: metrics.jsonl\n\n{metrics_table(collected)}")
    parts.append(f"## Every run: timing.jsonl\n\n{metrics_table(RUN_TIMINGS)}")
    return "\n".join(parts)


def own_agents() -> list[str]:
    """Names of the agents in `mtrl.agents`; those of installed plug-ins are documented by their authors."""
    loaded = {name: registry.load("agent", name) for name in registry.names("agent")}
    return [name for name, factory in loaded.items() if type(factory).__module__.startswith("mtrl.agents.")]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
