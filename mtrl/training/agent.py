"""What learns: the agent contract, the data an agent declares, and gradients as per-task sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from mtrl.rollout import Policy, PolicySnapshot
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet

from .metrics import Metrics


@dataclass(frozen=True)
class DataNeeds:
    """What an agent learns from, so that the loop can feed it."""

    kind: str
    """"fragments" (continuous collection), "groups" (episode groups) or "dataset" (demonstrations)."""
    on_policy: bool = False
    """Whether data of an older policy version must be thrown away."""
    replay_ratio: float = 0.0
    """Updates per environment step, held by the loop in both directions; 0 for on-policy and dataset."""
    demonstrations: bool = False
    """Whether demonstrations are ingested too, before the first fragment."""


@dataclass
class TaskGradients:
    """Gradients as sums and counts per task, so that data-parallel ranks can add them before use.

    The gradient of task k's mean loss is `sums[name][k] / counts[k]`. An agent whose tasks are
    combined linearly needs no separate rows and keeps one row for all (K = 1), at the price of a
    plain backward pass.
    """

    sums: dict[str, torch.Tensor]
    """Parameter name -> [K, *parameter shape], or [1, ...] when already combined."""
    counts: torch.Tensor
    """[K], the summed weights behind each row."""
    losses: torch.Tensor
    """[K], summed losses; NaN for tasks without data."""


class Agent(Protocol):
    """Learns one policy for all tasks of a set.

    Constructed as `Agent(config, layout, tasks, seed)`. The same agent runs in-process, on Ray and
    data-parallel: a rank calls `compute_gradients`, sums travel, every rank calls `apply`.
    """

    needs: DataNeeds
    updates: int
    """Updates applied so far."""

    def policy(self) -> Policy:
        """The current policy, for use in this process."""

    def snapshot(self) -> PolicySnapshot:
        """The current policy as data, for workers elsewhere."""

    def ingest(self, data: object) -> None:
        """Takes a Fragment, an EpisodeGroup or a dataset, as `needs.kind` says."""

    def compute_gradients(self) -> TaskGradients:
        """Gradients of one batch; changes no weight."""

    def apply(self, gradients: TaskGradients) -> Mapping[str, float]:
        """One optimiser step; returns metrics."""

    def update(self) -> Mapping[str, float]:
        """`apply(compute_gradients())`; returns metrics."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on, random states included."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`; the run then goes on as if never interrupted."""


class OnlineAgent(Agent, Protocol):
    """An agent that learns from fragments while they are collected."""

    @property
    def ready(self) -> bool:
        """Whether enough was ingested for an update."""


class AgentFactory(Protocol):
    """What an entry point in the group `mtrl.agents` names."""

    name: str

    # Properties, which a factory may narrow: its own dataclass is a type, and its constant is read only.
    @property
    def config_class(self) -> type:
        """Frozen dataclass of the agent's settings; configs/agent/<name>.yaml mirrors ours."""

    @property
    def metrics(self) -> Metrics:
        """Every name that `update` returns, with its meaning."""

    def build(self, config: Any, layout: Layout, tasks: TaskSet, seed: int) -> Agent:  # noqa: ANN401
        """A new agent; `config` is an instance of `config_class`."""

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> Policy:
        """Rebuilds a policy from data."""


class Baseline(Protocol):
    """A learner that owns its loop (Stable-Baselines3, RLlib).

    It shares tasks, starts, evaluation, tracking, distillation and export; it stores tensors and
    JSON, and promises no bit-equal resume.
    """

    def run(self, tasks: TaskSet, budget: int) -> Policy:
        """Trains for `budget` environment steps and returns what acts."""
