"""SAC, PPO and APPO of Ray RLlib as baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtrl.lazy import lazy_names
from mtrl.rollout import PolicySnapshot
from mtrl.tasks import TaskSet

from ..library_factory import LibraryFactory
from .config import APPOArguments, PPOArguments, ReplayArguments, RLlibConfig, SACArguments
from .metrics import METRICS

if TYPE_CHECKING:
    from ..libraries import LibraryController
    from .baseline import RLlibBaseline
    from .policy import RLlibPolicy


class RLlibFactory(LibraryFactory[RLlibConfig, "RLlibBaseline"]):
    """The entry point `rllib` of the group mtrl.agents. Only `build` loads RLlib; policies do without."""

    name = "rllib"
    controller_serves = ("discrete",)
    config_class = RLlibConfig
    metrics = METRICS

    def learner(self, config: RLlibConfig, tasks: TaskSet, seed: int) -> RLlibBaseline:
        """A new learner; raises what `RLlibBaseline` raises."""
        from .baseline import RLlibBaseline

        return RLlibBaseline(config, tasks, seed)

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> RLlibPolicy:
        """The policy of a snapshot."""
        from .policy import RLlibPolicy, network_from

        return RLlibPolicy(*network_from(snapshot, tasks), snapshot.version)

    def controller(self, snapshot: PolicySnapshot, tasks: TaskSet) -> LibraryController:
        """The deterministic policy as one forward pass, which is exported without distillation."""
        from .policy import controller_from

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

__getattr__, __dir__ = lazy_names(__name__)
