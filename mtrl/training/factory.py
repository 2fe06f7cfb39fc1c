"""The contract of an entry point that builds agents or baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from mtrl.rollout import Extra, Policy, PolicySnapshot
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet

from .agent import Agent, Needs
from .baseline import Baseline
from .metrics import Metrics


class AgentFactory(Protocol):
    """Factory of agents: the object behind an entry point in the group `mtrl.agents`."""

    name: str

    # Properties, which a factory may narrow: its own dataclass is a type, and its constant is read only.
    @property
    def config_class(self) -> type:
        """Frozen dataclass of the agent's settings with their defaults."""

    @property
    def metrics(self) -> Metrics:
        """Every name that `update` returns, or a baseline logs, with its meaning."""

    def needs(self, config: Any, tasks: TaskSet) -> Needs:  # noqa: ANN401 - its own dataclass
        """What the agent will learn from; builds no network and no simulator."""

    def extras(self, config: Any, layout: Layout) -> tuple[Extra, ...]:  # noqa: ANN401
        """What its policies record with every action; see `Extra`."""

    def build(
        self,
        config: Any,  # noqa: ANN401
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parents: Mapping[str, Policy] | None = None,
    ) -> Agent | Baseline:
        """A new agent, or a Baseline where needs are External; `config` is an instance of `config_class`.

        Weights are equal on all ranks; draws of data and noise differ. `parents` holds the policies that the
        configuration names. Raises UnsupportedError for tasks that it cannot serve, ConfigError for settings
        that do not fit each other.
        """

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> Policy:
        """Rebuilds a policy from data."""
