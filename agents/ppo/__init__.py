"""Multi-task PPO with a critic for every task, scaled by PopArt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtrl.lazy import lazy_names
from mtrl.rollout import Extra, Policy, PolicySnapshot
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet
from mtrl.training import Groups, Needs, Stream

from ..grpo import actor_in
from .config import EpisodeConfig, PPOConfig
from .metrics import METRICS

if TYPE_CHECKING:
    from mtrl.nn import TaskController

    from ..grpo.export import GroupController
    from ..grpo.policy import GroupPolicy
    from .agent import PPOAgent


class PPOFactory:
    """The entry point `ppo` of the group mtrl.agents."""

    name = "ppo"
    controller_serves = ("pixels", "discrete")
    config_class = PPOConfig
    metrics = METRICS

    def needs(self, config: PPOConfig, tasks: TaskSet) -> Needs:
        """A stream, or groups of whole episodes; demonstrations where the settings clone them first."""
        online = Groups(size=config.episodes.group_size) if config.episodes.groups else Stream()
        return Needs(config.cloning.offline(tasks), online, parents=("init_from",))

    def extras(self, config: PPOConfig, layout: Layout) -> tuple[Extra, ...]:
        """The drawn action and its log-probability."""
        from ..grpo.policy import step_extras

        return step_extras(layout)

    def build(
        self,
        config: PPOConfig,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parents: Mapping[str, Policy] | None = None,
    ) -> PPOAgent:
        """A new agent, which begins as the parent "init_from"."""
        from .agent import PPOAgent

        parent = (parents or {}).get("init_from")
        actor = None if parent is None else actor_in(parent, "init_from")
        return PPOAgent(config, tasks, seed, rank=rank, ranks=ranks, parent=actor)

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> GroupPolicy:
        """The policy of a snapshot."""
        from ..grpo.policy import policy_from

        return policy_from(snapshot, tasks)

    def controller(self, snapshot: PolicySnapshot, tasks: TaskSet) -> GroupController | TaskController:
        """The same without exploration, for export."""
        from ..grpo.export import controller_from

        return controller_from(snapshot, tasks)


AGENT = PPOFactory()

__all__ = ["AGENT", "EpisodeConfig", "PPOAgent", "PPOConfig", "PPOFactory"]

__getattr__, __dir__ = lazy_names(__name__)
