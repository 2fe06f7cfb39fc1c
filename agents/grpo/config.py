"""Settings of multi-task GRPO."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.gradients import SurgeryConfig
from mtrl.nn import PixelEncoderConfig, TorsoConfig
from mtrl.structured import BELOW_ONE, POSITIVE, SHARE, UNIT, Checked, at_least, between
from mtrl.tasks import TaskSet, require_continuous_states
from mtrl.training import Offline


@dataclass(frozen=True)
class PolicyConfig(Checked, place="agent.network"):
    """The policy network: a Gaussian around a bounded mean, or a categorical, by task."""

    torso: TorsoConfig = field(default_factory=lambda: TorsoConfig(width=256, depth=2))
    """What turns features into hidden features: kind, width, depth, task embedding, experts. A policy that
    begins as a SAC actor needs that actor's torso."""
    pixels: PixelEncoderConfig = field(default_factory=PixelEncoderConfig)
    """The convolutional encoder of image stacks."""
    std: Annotated[float, POSITIVE] = 0.5
    """Standard deviation of continuous actions at the beginning, above 0; learned by task and dimension."""
    std_floor: Annotated[float, at_least(0, "none")] = 0.1
    """Floor of that deviation for a task that never succeeds, at least 0. It falls with the task's success
    rate J to (1 - J) of it, so that a solved task may become precise."""
    std_ceiling: Annotated[float, POSITIVE] = 1.0
    """Largest standard deviation, above the floor."""
    correlation: Annotated[float, BELOW_ONE] = 0.0
    """Correlation of the exploration noise from one decision to the next, in [0, 1); 0 is white noise."""
    clip: Annotated[float, POSITIVE] = 5.0
    """Largest size of a standardised entry of a state, above 0."""
    normalise_until: Annotated[int, at_least(0, "never")] = 20_000
    """Steps of a task until which its states' mean and scale follow what was collected, at least 0; states
    are standardised as they are then. A parent or demonstrations fix them instead."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.torso.embedding.kind == "given":
            raise ConfigError("agent.network.torso.embedding.kind is 'one_hot' or 'learned'; got 'given'")
        if not self.std_floor < self.std_ceiling:
            raise OutOfRangeError(
                "agent.network.std_floor", self.std_floor, f"below std_ceiling={self.std_ceiling}"
            )


@dataclass(frozen=True)
class ReturnConfig(Checked, place="agent.returns"):
    """What an episode is worth."""

    kind: Annotated[str, ("auto", "success", "dense")] = "auto"
    """"success": 1 at the first success, and a bonus for time. "dense": rewards, divided by the task's score
    range, or by its horizon where the score is success. "auto": what the task is scored by."""
    time_bonus: Annotated[float, at_least(0)] = 0.5
    """b, at least 0: a success after t of T decisions is worth 1 + b (1 - t / T)."""
    discount: Annotated[float, SHARE] = 1.0
    """Discount per decision, in (0, 1]."""
    tail: Annotated[int, at_least(0)] = 0
    """Decisions played after the first success before the episode is cut, at least 0; not in evaluation."""


@dataclass(frozen=True)
class AdvantageConfig(Checked, place="agent.advantage"):
    """How returns of a group become advantages."""

    scale: Annotated[str, ("group", "task", "none")] = "group"
    """What centred returns are divided by: the deviation of their group (GRPO), that of all groups of the
    task in the round, or nothing (Dr. GRPO)."""
    floor: Annotated[float, at_least(0)] = 0.1
    """Smallest divisor, at least 0: a group that differs by a time bonus alone counts little."""
    baseline: Annotated[str, ("episode", "step")] = "episode"
    """"episode": every decision gets its episode's return less the group's mean. "step": its return to go
    less the mean over the group's episodes that are still under way (GPG, arXiv 2510.03679)."""
    normalise_tasks: bool = False
    """Standardise over all decisions of a task in the round (AgentRL, arXiv 2510.04206)."""


@dataclass(frozen=True)
class SamplerConfig(Checked, place="agent.sampler"):
    """Which groups a round consists of."""

    kind: Annotated[str, ("uniform", "weights", "frames")] = "uniform"
    """"uniform": as many groups of each task. "weights": in the proportions of the task weights (MT-GRPO).
    "frames": of the tasks that are furthest behind their share of environment steps."""
    filter: bool = False
    """Whether groups without a gradient are replaced by others (DAPO's dynamic sampling). Of success, those
    in which all or none succeed; of rewards, those with nearly equal returns."""
    oversampling: Annotated[float, at_least(1)] = 1.0
    """Groups collected at first per group needed, at least 1 (MT-GRPO: 3)."""
    acceptance_aware: bool = False
    """Whether tasks whose groups are often filtered are collected more often: 1 / (1 - share filtered), at
    most `largest_factor` (MT-GRPO)."""
    largest_factor: Annotated[float, at_least(1)] = 5.0
    """M_acc, at least 1 (MT-GRPO: 5)."""
    refills: Annotated[int, at_least(0)] = 3
    """Further collections for groups that are missing after the filter, at least 0 (MT-GRPO: 10 and 2)."""
    equal_returns: Annotated[float, at_least(0)] = 0.01
    """Of rewards: a group whose returns deviate by less than this share of the task's usual deviation counts
    as equal, at least 0."""
    frames: tuple[float, ...] = ()
    """Shares of environment steps by task, for kind "frames"; empty for equal ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(share <= 0 for share in self.frames):
            raise OutOfRangeError("agent.sampler.frames", self.frames, "positive shares")
        if self.oversampling > 1 and not self.filter:
            raise ConfigError(
                f"agent.sampler.oversampling={self.oversampling:g} collects groups that nothing would drop; "
                "set agent.sampler.filter=true, or oversampling=1"
            )


@dataclass(frozen=True)
class WeightConfig(Checked, place="agent.weights"):
    """Task weights of MT-GRPO (arXiv 2602.05547, section 4.1), for `sampler.kind=weights`."""

    tradeoff: Annotated[float, at_least(0)] = 0.2
    """lambda, at least 0: how much a task's success counts beside its improvement (paper: 0.1 to 1.2)."""
    learning_rate: Annotated[float, POSITIVE] = 0.025
    """Step size of the logits per round, above 0 (paper: 0.025)."""
    optimiser: Annotated[str, ("adam", "sgd")] = "adam"
    """"adam" as the paper, or "sgd"."""
    weight_decay: Annotated[float, at_least(0)] = 1e-5
    """Decoupled decay of the logits, at least 0 (paper: 1e-5, 1e-4 for nine tasks)."""
    improvement: Annotated[float, at_least(0)] = 0.05
    """c, at least 0: improvement of the objective in a minibatch that is as large as usual counts so much."""
    improvement_limit: Annotated[float, POSITIVE] = 0.1
    """Largest size of an improvement, above 0 (paper: 0.1)."""
    floor: Annotated[float, BELOW_ONE] = 0.1
    """Smallest weight, as a share of 1 / K, in [0, 1) (paper: 0)."""
    memory: Annotated[float, BELOW_ONE] = 0.5
    """Share of the old success rate that a round keeps, in [0, 1) (its program: 0.5)."""


@dataclass(frozen=True)
class RegularisationConfig(Checked, place="agent.regularisation"):
    """What is added to the clipped objective."""

    kl: Annotated[float, at_least(0, "none")] = 0.0
    """Coefficient of the divergence from the reference, at least 0 (DAPO: 0). The reference is the policy of
    `reference=RUN`, otherwise that of the beginning."""
    entropy: Annotated[float, at_least(0, "none")] = 0.0
    """Coefficient of the entropy, at least 0."""
    smoothing: Annotated[float, at_least(0, "none")] = 0.0
    """Coefficient of EPO's penalty on entropies outside the band (arXiv 2509.22576), at least 0. It is c_ent
    alpha there, whose alpha is 0.05 to 0.1."""
    band: tuple[float, float] = (0.8, 1.2)
    """Lowest and highest entropy, as multiples of the mean over earlier rounds at that time of an episode."""
    time_bins: Annotated[int, at_least(1)] = 16
    """Parts of an episode with an entropy of their own, at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.band[0] <= 1 <= self.band[1]:
            raise OutOfRangeError("agent.regularisation.band", self.band, "a band around 1")


@dataclass(frozen=True)
class PoolConfig(Checked, place="agent.pool"):
    """Cross-policy sampling (AgentRL): some actions are those of earlier policies."""

    size: Annotated[int, between(0, 16, "none")] = 0
    """Earlier policies kept, 0 to 16."""
    share: Annotated[float, UNIT] = 0.25
    """Share of actions that they draw, 0 to 1."""
    every: Annotated[int, at_least(1)] = 5
    """Rounds between policies that are kept, at least 1."""


@dataclass(frozen=True)
class CloningConfig(Checked, place="agent.cloning"):
    """Behaviour cloning before the first round; the default needs no demonstrations."""

    updates: Annotated[int, at_least(0, "none")] = 0
    """Updates on demonstrations, at least 0."""
    batch_size: Annotated[int, at_least(1)] = 256
    """Decisions of all tasks per update, at least 1."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Step size, above 0."""

    def offline(self, tasks: TaskSet) -> Offline | None:
        """The demonstrations that are cloned; None without any. Raises UnsupportedError for tasks with
        pixels or discrete actions.
        """
        if not self.updates:
            return None
        require_continuous_states(tasks, "cloning before the first round (agent.cloning.updates)")
        return Offline(updates=self.updates)


@dataclass(frozen=True)
class GRPOConfig(Checked, place="agent"):
    """Multi-task GRPO for control."""

    network: PolicyConfig = field(default_factory=PolicyConfig)
    """The policy network, and the noise of its actions."""
    cloning: CloningConfig = field(default_factory=CloningConfig)
    """Behaviour cloning at first."""
    returns: ReturnConfig = field(default_factory=ReturnConfig)
    """What an episode is worth."""
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    """From returns to advantages."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    """The groups of a round."""
    weights: WeightConfig = field(default_factory=WeightConfig)
    """Task weights of MT-GRPO."""
    regularisation: RegularisationConfig = field(default_factory=RegularisationConfig)
    """Entropy, divergence."""
    pool: PoolConfig = field(default_factory=PoolConfig)
    """Earlier policies that act too."""
    groups: Annotated[int, at_least(1)] = 8
    """Groups of a round, of all tasks and ranks together, at least 1."""
    group_size: int = 8
    """Episodes of a group, at least 2 (arXiv 2511.03527: 8 is best of 8 to 128)."""
    epochs: Annotated[int, at_least(1)] = 4
    """Passes over a round, at least 1."""
    minibatches: Annotated[int, at_least(1)] = 4
    """Parts of a pass with an optimiser step each, at least 1; on each of several ranks."""
    clip_low: Annotated[float, POSITIVE] = 0.2
    """The ratio is clipped to at least 1 less this, above 0 (DAPO: 0.2)."""
    clip_high: Annotated[float, POSITIVE] = 0.28
    """The ratio is clipped to at most 1 plus this, above 0 (DAPO: 0.28)."""
    learning_rate: Annotated[float, POSITIVE] = 1e-4
    """Step size of Adam, above 0."""
    std_learning_rate: Annotated[float, at_least(0, "fixed")] = 1e-3
    """Step size of the logarithms of deviations, at least 0."""
    gradient_clip: Annotated[float, at_least(0, "none")] = 0.5
    """Largest gradient norm, at least 0."""
    gradients: SurgeryConfig = field(default_factory=SurgeryConfig)
    """How the gradients of the tasks are combined."""
    idle_rounds: Annotated[int, at_least(1)] = 10
    """Rounds without a gradient after which a task is named in a warning, at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size < 2:
            raise OutOfRangeError(
                "agent.group_size",
                self.group_size,
                "at least 2: an advantage compares the episodes of a group with each other",
            )
        if self.pool.size and self.network.correlation:
            raise ConfigError(
                "agent.pool.size and agent.network.correlation exclude each other: correlated noise is "
                "measured from the mean of one policy; set one of them to 0"
            )
