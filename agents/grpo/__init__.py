"""Multi-task GRPO for control: groups of episodes from one start, and no critic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtrl.errors import ConfigError
from mtrl.lazy import lazy_names
from mtrl.rollout import ChunkPolicy, Extra, Policy, PolicySnapshot
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet
from mtrl.training import Groups, Needs

from .config import GRPOConfig
from .metrics import METRICS

if TYPE_CHECKING:
    from torch import nn

    from mtrl.nn import TaskController

    from .agent import GRPOAgent
    from .export import GroupController
    from .policy import GroupPolicy


class GRPOFactory:
    """The entry point `grpo` of the group mtrl.agents."""

    name = "grpo"
    controller_serves = ("pixels", "discrete")
    config_class = GRPOConfig
    metrics = METRICS

    def needs(self, config: GRPOConfig, tasks: TaskSet) -> Needs:
        """Groups; demonstrations to clone first, if any; policies to begin as and to stay near."""
        return Needs(
            config.cloning.offline(tasks), Groups(size=config.group_size), parents=("init_from", "reference")
        )

    def extras(self, config: GRPOConfig, layout: Layout) -> tuple[Extra, ...]:
        """The drawn action and its log-probability."""
        from .policy import step_extras

        return step_extras(layout)

    def build(
        self,
        config: GRPOConfig,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parents: Mapping[str, Policy] | None = None,
    ) -> GRPOAgent:
        """A new agent, which begins as the parent "init_from"."""
        from .agent import GRPOAgent

        found = {key: actor_in(policy, key) for key, policy in (parents or {}).items()}
        return GRPOAgent(
            config,
            tasks,
            seed,
            rank=rank,
            ranks=ranks,
            parent=found.get("init_from"),
            reference=found.get("reference"),
        )

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> GroupPolicy:
        """The policy of a snapshot."""
        from .policy import policy_from

        return policy_from(snapshot, tasks)

    def controller(self, snapshot: PolicySnapshot, tasks: TaskSet) -> GroupController | TaskController:
        """The same without exploration, for export."""
        from .export import controller_from

        return controller_from(snapshot, tasks)


def actor_in(policy: Policy, key: str) -> nn.Module:
    """The network of a parent: a policy that holds one as `actor`, as GRPO's, PPO's and SAC's do, or a
    distilled student.
    """
    from torch import nn

    from mtrl.distillation.student import Student

    if isinstance(policy, ChunkPolicy) and isinstance(policy.sampler, Student):
        return policy.sampler
    actor = getattr(policy, "actor", None)
    if not isinstance(actor, nn.Module):
        raise ConfigError(
            f"{key} is a policy of GRPO, PPO or SAC, or a student; got a {type(policy).__name__}. Name a run "
            "of one of these; a teacher that denoises is distilled first: mtrl distill RUN, then "
            f"{key}=student@RUN"
        )
    return actor


AGENT = GRPOFactory()

__all__ = ["AGENT", "GRPOAgent", "GRPOConfig", "GRPOFactory", "GroupPolicy"]

__getattr__, __dir__ = lazy_names(__name__)
