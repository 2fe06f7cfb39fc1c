"""SAC, PPO and DQN of Stable-Baselines3 as baselines."""

from __future__ import annotations

from mtrl.rollout import PolicySnapshot, SharedSpace
from mtrl.tasks import TaskSet

from ..libraries import LibraryController, LibraryFactory
from .algorithms import replay_bytes
from .baseline import SB3Baseline
from .config import DQNArguments, PPOArguments, SACArguments, SB3Config
from .metrics import METRICS
from .policy import SB3Policy, controller_from, network_from


class SB3Factory(LibraryFactory[SB3Config, SB3Baseline]):
    """The entry point `sb3` of the group mtrl.agents."""

    name = "sb3"
    config_class = SB3Config
    metrics = METRICS

    def learner(self, config: SB3Config, tasks: TaskSet, seed: int) -> SB3Baseline:
        """A new learner of the library's algorithm."""
        return SB3Baseline(config, tasks, seed)

    def replay_bytes(self, config: SB3Config, tasks: TaskSet) -> int:
        """Memory of the full replay; 0 for PPO, which keeps none."""
        return replay_bytes(config, SharedSpace(tasks))

    def saves_replay(self, config: SB3Config) -> bool:
        """False: checkpoints leave out the replay."""
        return False

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> SB3Policy:
        """The policy of a snapshot."""
        return SB3Policy(*network_from(snapshot, tasks), snapshot.version)

    def controller(self, snapshot: PolicySnapshot, tasks: TaskSet) -> LibraryController:
        """The deterministic policy as one forward pass, which is exported without distillation."""
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
