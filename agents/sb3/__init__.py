"""SAC, PPO and DQN of Stable-Baselines3 as baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtrl.lazy import lazy_names
from mtrl.rollout import PolicySnapshot
from mtrl.tasks import TaskSet

from ..library_factory import LibraryFactory
from .config import DQNArguments, PPOArguments, SACArguments, SB3Config
from .metrics import METRICS

if TYPE_CHECKING:
    from ..libraries import LibraryController
    from .baseline import SB3Baseline
    from .policy import SB3Policy


class SB3Factory(LibraryFactory[SB3Config, "SB3Baseline"]):
    """The entry point `sb3` of the group mtrl.agents."""

    name = "sb3"
    controller_serves = ("pixels", "discrete")
    config_class = SB3Config
    metrics = METRICS

    def learner(self, config: SB3Config, tasks: TaskSet, seed: int) -> SB3Baseline:
        """A new learner of the library's algorithm."""
        from .baseline import SB3Baseline

        return SB3Baseline(config, tasks, seed)

    def replay_bytes(self, config: SB3Config, tasks: TaskSet) -> int:
        """Memory of the full replay; 0 for PPO, which keeps none."""
        from mtrl.rollout import SharedSpace

        from .algorithms import replay_bytes

        return replay_bytes(config, SharedSpace(tasks))

    def saves_replay(self, config: SB3Config) -> bool:
        """False: checkpoints leave out the replay."""
        return False

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> SB3Policy:
        """The policy of a snapshot."""
        from .policy import SB3Policy, network_from

        return SB3Policy(*network_from(snapshot, tasks), snapshot.version)

    def controller(self, snapshot: PolicySnapshot, tasks: TaskSet) -> LibraryController:
        """The deterministic policy as one forward pass, which is exported without distillation."""
        from .policy import controller_from

        return controller_from(snapshot, tasks)


AGENT = SB3Factory()

__all__ = [
    "AGENT",
    "DQNArguments",
    "PPOArguments",
    "SACArguments",
    "SB3Baseline",
    "SB3Config",
    "SB3Factory",
    "SB3Policy",
]

__getattr__, __dir__ = lazy_names(__name__)
