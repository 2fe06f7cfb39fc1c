"""What the configured agent learns from, known before anything is collected."""

from __future__ import annotations

from mtrl.tasks import TaskSet
from mtrl.training import DataNeeds

from .compose import agent_of
from .config import Config


def needs_of(config: Config, tasks: TaskSet) -> DataNeeds:
    """The data that the agent declares."""
    _, factory, settings = agent_of(config)
    return factory.build(settings, tasks.layout, tasks, config.seed).needs


def needs_demonstrations(config: Config, tasks: TaskSet) -> bool:
    """Whether demonstrations are collected or read at all."""
    needs = needs_of(config, tasks)
    return needs.kind == "dataset" or needs.demonstrations
