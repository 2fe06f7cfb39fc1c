"""The configuration of a run: frozen dataclasses with every default; the YAML holds differences."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mtrl import registry
from mtrl.data import DemonstrationConfig
from mtrl.deployment import RobotConfig
from mtrl.distillation import DistillationConfig
from mtrl.errors import ConfigError, IntegrityError, UnknownNameError
from mtrl.evaluation import EvaluationConfig
from mtrl.reading import reading
from mtrl.rollout import CollectionConfig, RuntimeConfig, require_backends
from mtrl.run_directory import split_label
from mtrl.structured import SEED, Checked, at_least, build, canonical
from mtrl.tasks import Option, SamplingConfig, TaskSet
from mtrl.training import PARENTS, OnlineConfig, TrainingConfig, WandbConfig

if TYPE_CHECKING:
    from mtrl.training import AgentFactory, Needs

STAGE_NAMES = ("collect", "train", "clone", "distill", "evaluate", "export", "deploy", "report")
"""Names of every stage, in the order in which a run takes them."""


@dataclass(frozen=True)
class TasksConfig:
    """The tasks, in order, and their options."""

    names: tuple[str, ...] = ("mt10",)
    """Names of tasks ("metaworld/reach-v3") and of task sets ("mt10"), expanded in order."""
    options: Mapping[str, Mapping[str, Option]] = field(default_factory=dict)
    """Name of a suite, or of one of the tasks -> settings: atari: {sticky: 0.0}, atari/Pong: {sticky: 0.25}.
    A task's own come before those of its suite."""


@dataclass(frozen=True)
class TrackingConfig:
    """Trackers in addition to metrics.jsonl and timing.jsonl, which are always written."""

    tensorboard: bool = True
    """Write TensorBoard events under events/."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Weights & Biases."""


@dataclass(frozen=True)
class CloningConfig(Checked, place="cloning"):
    """The behaviour-cloning counterpart for comparison: the same network trained by squared error."""

    updates: Annotated[int, at_least(1)] = 2000
    """Updates, at least 1."""


@dataclass(frozen=True)
class Config(Checked):
    """Everything a run is made of. One seed; every random stream derives from it."""

    name: str = ""
    """Name of the run's folder; empty derives it from agent, tasks and seed."""
    output: str = "runs"
    """Folder that holds runs."""
    data: str = ""
    """Folder of collected demonstrations to train on; empty collects them into the run."""
    init_from: str = ""
    """A run, LABEL@RUN or artefact whose policy the agent begins from, where it can; empty for none."""
    reference: str = ""
    """A run, LABEL@RUN or artefact whose policy the agent stays close to; empty for none."""
    teacher: str = ""
    """A run, LABEL@RUN or artefact whose policy is distilled; empty takes the run's own."""
    student: str = ""
    """A run, LABEL@RUN or artefact whose frozen student the agent learns to steer; empty for none."""
    seed: Annotated[int, SEED] = 1
    """Seed of the run, 0 to 2^32 - 1."""
    stages: tuple[str, ...] = ("collect", "train", "evaluate")
    """Names of the stages to run, of `STAGE_NAMES`, whatever their order here."""
    tasks: TasksConfig = field(default_factory=TasksConfig)
    agent: Mapping[str, Any] = field(default_factory=lambda: {"name": "diffusion"})
    """Name of the agent and its settings; the keys are the fields of the agent's own config."""
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    demonstrations: DemonstrationConfig = field(default_factory=DemonstrationConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    online: OnlineConfig = field(default_factory=OnlineConfig)
    collection: CollectionConfig = field(default_factory=CollectionConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    cloning: CloningConfig = field(default_factory=CloningConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    robot: RobotConfig = field(default_factory=RobotConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for stage in self.stages:
            if stage not in STAGE_NAMES:
                raise UnknownNameError("stage", stage, STAGE_NAMES)
        if self.name and any(not part or part.startswith(".") for part in self.name.split("/")):
            raise ConfigError(
                f"name={self.name} is no name of a folder in {self.output!r}: expected words such as mine or "
                "arm/first, none of which begins with a dot; another place is chosen with output=FOLDER"
            )


def task_set_of(config: Config) -> TaskSet:
    """The configured tasks; refuses vector backends that they do not have, or that are not installed."""
    tasks = registry.task_set(list(config.tasks.names), config.tasks.options)
    require_backends(tasks, config.runtime.backends)
    return tasks


NAME_LENGTH = 60
"""Characters of a run's name that tasks may fill before only the first is spelt out."""


def run_name(config: Config) -> str:
    """The configured name, or agent, tasks and seed, so that each has a folder of its own and a repeated
    command finds its run.
    """
    return config.name or f"{run_stem(config)}-seed{config.seed}"


def run_stem(config: Config) -> str:
    """What the runs of several seeds are called together: the configured name, or agent and tasks."""
    if config.name:
        return config.name
    kind = "-".join(str(config.agent[key]) for key in ("name", "algorithm") if key in config.agent)
    return f"{kind}-{tasks_stem(config.tasks.names)}"


def tasks_stem(tasks: Sequence[str]) -> str:
    """Names of tasks and sets as part of a folder's name, different for different tasks."""
    names = [re.sub("[/:]", "-", name) for name in tasks]
    joined = "+".join(names)
    if len(joined) <= NAME_LENGTH:
        return joined
    return f"{names[0]}+{len(names) - 1}-{hashlib.sha256(joined.encode()).hexdigest()[:6]}"


def agent_of(config: Config) -> tuple[str, AgentFactory, Any]:
    """Name, factory and settings of the configured agent."""
    settings = dict(config.agent)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError("agent.name is missing; choose an agent with agent=NAME")
    factory: AgentFactory = registry.load("agent", name)
    return name, factory, build(factory.config_class, settings, "agent")


def distiller_of(config: Config, tasks: TaskSet) -> tuple[AgentFactory, Needs]:
    """The factory of the configured distiller, that of an agent which takes the parent "teacher", and what it
    learns from.
    """
    settings, method = config.distillation, config.distillation.method
    if method == "auto":
        _, agent, own = agent_of(config)
        seen = tasks.layout.pixels_shape is not None
        method = "dagger" if seen or agent.needs(own, tasks).offline is None else "same_noise"
    factory: AgentFactory = registry.load("distiller", method)
    return factory, factory.needs(settings, tasks)


def anchored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the paths of data and policies made absolute, from the present folder, so that a recorded
    configuration means the same from every other one; `LABEL@PATH` keeps its label.
    """
    found = dict(values)
    for key in ("data", *PARENTS):
        text = found.get(key)
        if isinstance(text, str) and text:
            label, path = ("", Path(text)) if key == "data" else split_label(text)
            found[key] = f"{label}{'@' if label else ''}{os.path.abspath(path)}"
    return found


def canonical_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded configuration as this version writes it, to compare it with a composed one; unchanged where
    this version cannot read it.
    """
    with contextlib.suppress(IntegrityError), reading(Path("config.yaml"), "a configuration"):
        found = anchored(canonical(Config, values))
        agent = dict(found["agent"])
        factory: AgentFactory = registry.load("agent", agent.pop("name"))
        found["agent"] = {"name": factory.name, **canonical(factory.config_class, agent)}
        return found
    return dict(values)
