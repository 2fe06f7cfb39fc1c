"""SAC, PPO and APPO of Ray RLlib as baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtrl.rollout import PolicySnapshot
from mtrl.tasks import TaskSet

from ..libraries import LibraryController, LibraryFactory
from .config import APPOArguments, PPOArguments, ReplayArguments, RLlibConfig, SACArguments
from .metrics import METRICS
from .policy import RLlibPolicy, controller_from, network_from

if TYPE_CHECKING:
    from .baseline import RLlibBaseline


class RLlibFactory(LibraryFactory[RLlibConfig, "RLlibBaseline"]):
    """The entry point `rllib` of the group mtrl.agents. Only `build` loads RLlib; policies do without."""

    name = "rllib"
    config_class = RLlibConfig
    metrics = METRICS

    def learner(self, config: RLlibConfig, tasks: TaskSet, seed: int) -> RLlibBaseline:
        """A new learner; raises what `RLlibBaseline` raises."""
        from .baseline import RLlibBaseline

        return RLlibBaseline(config, tasks, seed)

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> RLlibPolicy:
        """The policy of a snapshot."""
        return RLlibPolicy(*network_from(snapshot, tasks), snapshot.version)

    def controller(self, snapshot: PolicySnapshot, tasks: TaskSet) -> LibraryController:
        """The deterministic policy as one forward pass, which is exported without distillation."""
        return controller_from(snapshot, tasks)


AGENT = RLlibFactory()

__all__ = [
    "AGENT",
    "APPOArguments",
    "PPOArguments",
    "RLlibConfig",
    "RLlibFactory",
    "RLlibPolicy",
    "ReplayArguments",
    "SACArguments",
]
