"""SAC, PPO and APPO of Ray RLlib as baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtrl.rollout import Extra, Policy, PolicySnapshot
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet
from mtrl.training import External, require_one_rank

from .config import APPOArguments, PPOArguments, ReplayArguments, RLlibConfig, SACArguments
from .metrics import METRICS
from .policy import RLlibController, RLlibPolicy, controller_from, policy_from

if TYPE_CHECKING:
    from .baseline import RLlibBaseline


class RLlibFactory:
    """What the entry point `rllib` names. Only `build` loads RLlib; its policies do without."""

    name = "rllib"
    config_class = RLlibConfig
    metrics = METRICS

    def needs(self, config: RLlibConfig, tasks: TaskSet) -> External:
        """The library collects in its own loop."""
        return External()

    def extras(self, config: RLlibConfig, layout: Layout) -> tuple[Extra, ...]:
        """The log-probability of an action."""
        return RLlibPolicy.extras

    def build(
        self,
        config: RLlibConfig,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parents: Mapping[str, Policy] | None = None,
    ) -> RLlibBaseline:
        """A new learner; raises what `RLlibBaseline` raises, UnsupportedError for more than one rank."""
        from .baseline import RLlibBaseline

        require_one_rank("rllib", ranks)
        return RLlibBaseline(config, tasks, seed)

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> RLlibPolicy:
        """The policy of a snapshot."""
        return policy_from(snapshot, tasks)

    def controller(self, snapshot: PolicySnapshot, tasks: TaskSet) -> RLlibController:
        """The deterministic policy as one forward pass, to be exported without distillation."""
        return controller_from(snapshot, tasks)


AGENT = RLlibFactory()

__all__ = [
    "AGENT",
    "APPOArguments",
    "PPOArguments",
    "RLlibConfig",
    "RLlibController",
    "RLlibFactory",
    "RLlibPolicy",
    "ReplayArguments",
    "SACArguments",
]
