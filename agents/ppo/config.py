"""Settings of multi-task PPO."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.gradients import SurgeryConfig
from mtrl.structured import POSITIVE, SHARE, UNIT, Checked, at_least

from ..grpo.config import CloningConfig, PolicyConfig, ReturnConfig


@dataclass(frozen=True)
class EpisodeConfig(Checked, place="agent.episodes"):
    """Whole episodes instead of a stream: those that GRPO would learn from."""

    groups: Annotated[int, at_least(0, "a stream")] = 0
    """Groups of a round, of all tasks and ranks together, at least 0. Their episodes end at the first success
    of a task that is scored by success."""
    group_size: int = 8
    """Episodes from one start, at least 2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size < 2:
            raise OutOfRangeError("agent.episodes.group_size", self.group_size, "at least 2")


@dataclass(frozen=True)
class PPOConfig(Checked, place="agent"):
    """Multi-task PPO with a critic for every task."""

    network: PolicyConfig = field(default_factory=PolicyConfig)
    """The policy, as of GRPO. The critics have a torso of their own with the same settings."""
    cloning: CloningConfig = field(default_factory=CloningConfig)
    """Behaviour cloning at first."""
    returns: ReturnConfig = field(default_factory=lambda: ReturnConfig(kind="dense", discount=0.99))
    """What an episode is worth, and the discount; "success" needs whole episodes."""
    episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    """Whole episodes instead of a stream."""
    rollout: Annotated[int, at_least(1)] = 2048
    """Environment steps of a round of a stream, of all tasks and ranks together, at least 1."""
    gae: Annotated[float, UNIT] = 0.95
    """lambda of generalised advantage estimation, 0 to 1."""
    epochs: Annotated[int, at_least(1)] = 10
    """Passes over a round, at least 1."""
    minibatches: Annotated[int, at_least(1)] = 8
    """Parts of a pass with an optimiser step each, at least 1; on each of several ranks."""
    clip: Annotated[float, POSITIVE] = 0.2
    """How far the ratio may leave 1 before it is clipped, above 0."""
    entropy: Annotated[float, at_least(0)] = 0.0
    """Coefficient of the entropy, at least 0."""
    value: Annotated[float, at_least(0)] = 0.5
    """Coefficient of the critics' loss, at least 0."""
    popart: Annotated[float, SHARE] = 0.1
    """Share of a round's returns in the mean and deviation by which a task's critic is scaled, in (0, 1]."""
    learning_rate: Annotated[float, POSITIVE] = 3e-4
    """Step size of Adam, above 0."""
    decay_rounds: Annotated[int, at_least(0, "constant")] = 0
    """Rounds over which step size and clip range fall to 0 along a line, at least 0."""
    gradients: SurgeryConfig = field(default_factory=SurgeryConfig)
    """How the gradients of the tasks are combined, in the critics, the actor or both."""
    gradient_clip: Annotated[float, at_least(0, "none")] = 0.5
    """Largest norm of the gradient of actor and critics together, at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.episodes.groups:
            return
        if self.returns.kind == "success":
            raise ConfigError(
                "agent.returns.kind=success needs whole episodes, which end at the first success; set "
                "agent.episodes.groups, or agent.returns.kind=dense"
            )
        if self.network.correlation:
            raise ConfigError(
                "agent.network.correlation needs whole episodes, in which the density of every action given "
                "the past is known; set agent.episodes.groups, or correlation=0"
            )
