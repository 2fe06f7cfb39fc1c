"""Every logged name is documented: what learns is run for a few updates and its files are read."""

import dataclasses
import importlib
from collections.abc import Mapping
from functools import reduce
from pathlib import Path

import pytest

from mtrl import registry
from mtrl.data import DemonstrationConfig, Trajectories, collect_demonstrations
from mtrl.distillation import DAGGER, SAME_NOISE
from mtrl.errors import ConfigError
from mtrl.nn import ChunkShape
from mtrl.pipeline.metrics_page import PAGE, own_agents, page
from mtrl.rollout import (
    CollectionConfig,
    LocalFragments,
    LocalRollouts,
    Policy,
    PolicySnapshot,
    RuntimeConfig,
)
from mtrl.tasks import TaskSet
from mtrl.training import (
    EPISODE_METRICS,
    EVALUATION_METRICS,
    RUN_METRICS,
    RUN_TIMINGS,
    Agent,
    AgentFactory,
    Checkpoints,
    Clock,
    DatasetSource,
    External,
    JsonlTracker,
    Metric,
    Metrics,
    RunRecorder,
    Source,
    Stream,
    StreamSource,
    TrainingConfig,
    learn,
    metrics_table,
    read_jsonl,
    undocumented,
)

Demonstrations = Mapping[int, Trajectories]
FEW = TrainingConfig(updates=4, log_every=2)
SMALL = ChunkShape(width=16, blocks=1)


@pytest.fixture(scope="module")
def tasks() -> TaskSet:
    return registry.task_set("point/obstacle")


@pytest.fixture(scope="module")
def demonstrations(tasks: TaskSet) -> Demonstrations:
    rollouts = LocalRollouts(tasks, RuntimeConfig())
    config = DemonstrationConfig(episodes=2, job_episodes=2)
    found = collect_demonstrations(rollouts, tasks, config, seed=1)
    rollouts.close()
    return {k: part.trajectories for k, part in found.items()}


def is_baseline(name: str) -> bool:
    """Whether the agent owns its loop; its own tests look at what it logs."""
    factory: AgentFactory = registry.load("agent", name)
    return isinstance(factory.needs(factory.config_class(), registry.task_set("point/obstacle")), External)


def logged_by(
    factory: AgentFactory,
    tasks: TaskSet,
    demonstrations: Demonstrations,
    place: Path,
    parents: Mapping[str, Policy] | None = None,
    **changes: object,
) -> tuple[set[str], set[str], Agent]:
    """The names in metrics.jsonl and in timing.jsonl after a few updates of the loop."""
    config = dataclasses.replace(factory.config_class(), **changes)
    if isinstance(getattr(config, "network", None), ChunkShape):
        config = dataclasses.replace(config, network=SMALL)
    needs = factory.needs(config, tasks)
    assert not isinstance(needs, External)
    agent: Agent = factory.build(config, tasks, 1, parents=parents)  # type: ignore[assignment]
    source: Source = DatasetSource(lambda: demonstrations)
    clock = Clock.of_updates(FEW)
    if isinstance(needs.online, Stream):
        clock = Clock("steps", budget=120, log_every=50, checkpoint_every=120)
        source = StreamSource(lambda snapshot, _: fragments_of(tasks, snapshot), tasks.names)
    assert learn(agent, source, RunRecorder(clock, JsonlTracker(place), Checkpoints(place), tasks.names))
    metrics, timings = (read_jsonl(place / file) for file in ("metrics.jsonl", "timing.jsonl"))
    return {name for row in metrics for name in row}, {name for row in timings for name in row}, agent


def fragments_of(tasks: TaskSet, snapshot: PolicySnapshot) -> LocalFragments:
    return LocalFragments(tasks, RuntimeConfig(), CollectionConfig(copies=1, steps=40), snapshot, seed=1)


@pytest.mark.parametrize("name", [name for name in own_agents() if not is_baseline(name)])
def test_every_metric_of_an_agent_is_documented(
    name: str, tasks: TaskSet, demonstrations: Demonstrations, tmp_path: Path
) -> None:
    factory: AgentFactory = registry.load("agent", name)
    metrics, timings, _ = logged_by(factory, tasks, demonstrations, tmp_path)
    declared = {**factory.metrics, **EPISODE_METRICS, **RUN_METRICS}
    assert undocumented(metrics, declared) == []
    assert undocumented(timings, RUN_TIMINGS) == []
    for pattern in factory.metrics:
        covered = [name for name in metrics if not undocumented([name], {pattern: factory.metrics[pattern]})]
        assert covered, f"the declared metric {pattern} is never logged"


def test_every_metric_of_the_cloned_twin_is_documented(
    tasks: TaskSet, demonstrations: Demonstrations, tmp_path: Path
) -> None:
    factory = registry.load("agent", "diffusion")
    metrics, _, _ = logged_by(factory, tasks, demonstrations, tmp_path, objective="regression")
    assert undocumented(metrics, factory.metrics) == []


def test_every_metric_of_distillation_is_documented(
    tasks: TaskSet, demonstrations: Demonstrations, tmp_path: Path
) -> None:
    factory = registry.load("agent", "diffusion")
    _, _, agent = logged_by(factory, tasks, demonstrations, tmp_path / "teacher")
    parents = {"teacher": factory.policy(agent.snapshot(), tasks)}
    metrics, timings, _ = logged_by(
        SAME_NOISE, tasks, demonstrations, tmp_path / "student", parents, batch_size=16
    )
    assert undocumented(metrics, SAME_NOISE.metrics) == []
    assert undocumented(timings, RUN_TIMINGS) == []
    assert set(SAME_NOISE.metrics) <= metrics


def test_the_page_is_what_the_code_declares() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m mtrl.pipeline.metrics_page"


def declarations() -> list[Metric]:
    groups: list[Metrics] = [registry.load("agent", name).metrics for name in own_agents()]
    groups += [SAME_NOISE.metrics, DAGGER.metrics]
    groups += [RUN_TIMINGS, EPISODE_METRICS, RUN_METRICS, EVALUATION_METRICS]
    return [metric for group in groups for metric in group.values()]


@pytest.mark.parametrize("where", sorted({metric.where for metric in declarations()}))
def test_a_metric_names_a_function_that_exists(where: str) -> None:
    module, _, path = where.partition(":")
    assert callable(reduce(getattr, path.split("."), importlib.import_module(module)))


def test_a_name_that_is_not_documented_is_found() -> None:
    metric = Metric("x", "1", "a:b")
    declared = {"loss": metric, "success/{task}": metric}
    logged = ["step", "loss", "success/point/obstacle", "success", "losses", "success/point"]
    assert undocumented(logged, declared) == ["losses", "success", "success/point"]
    assert undocumented(["loss"]) == ["loss"]


def test_the_table_keeps_bars_inside_cells() -> None:
    table = metrics_table({"loss": Metric("|a - b|^2", "1", "a.b:C.d")})
    assert table.splitlines()[2] == r"| `loss` | \|a - b\|^2 | 1 | `a.b:C.d` |"


@pytest.mark.parametrize(
    ("formula", "unit", "where"), [("", "1", "a:b"), ("x", "", "a:b"), ("x", "1", "a.b")]
)
def test_a_metric_is_described_in_full(formula: str, unit: str, where: str) -> None:
    with pytest.raises(ConfigError, match="metric"):
        Metric(formula, unit, where)
