"""Settings of the world model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated, ClassVar

from mtrl.data import ReplayConfig
from mtrl.errors import ConfigError, OutOfRangeError, UnknownNameError
from mtrl.gradients import SurgeryConfig
from mtrl.nn import EXPERT_BALANCES, PixelEncoderConfig, RoutedExpertsConfig
from mtrl.structured import BELOW_ONE, POSITIVE, SHARE, UNIT, Checked, Range, at_least

MODES = ("policy", "plan", "mixed")


@dataclass(frozen=True)
class Sizes:
    """Widths of one size of the model."""

    latent: int
    """Length of the latent, a multiple of 8 (the groups of SimNorm)."""
    encoder: int
    """Hidden units of the state encoder."""
    hidden: int
    """Hidden units of Q functions and policy."""
    embedding: int
    """Length of the task embedding."""
    q_functions: int
    """Members of the value ensemble."""
    experts: RoutedExpertsConfig
    """Experts of the dynamics."""


SIZES = {
    "nano": Sizes(128, 128, 128, 24, 2, RoutedExpertsConfig()),
    "S": Sizes(384, 256, 384, 96, 3, RoutedExpertsConfig(routed=8, width=256)),
    "L": Sizes(512, 1024, 1024, 96, 5, RoutedExpertsConfig(routed=16, width=512)),
}
"""nano for one CPU thread, S for one GPU, L for several."""


@dataclass(frozen=True)
class ExpertsConfig(Checked, place="agent.experts"):
    """The mixture of experts of the dynamics."""

    dense: bool = False
    """One network of as many active parameters in place of the mixture, for comparison."""
    routed: Annotated[int, at_least(0, "of the size")] = 0
    """Experts that the gate chooses from; 0 takes the size's own number."""
    chosen: Annotated[int, at_least(1)] = 2
    """Experts of a task, 2 or more: one alone would have the constant weight 1."""
    state_gate: bool = False
    """Whether the gate sees the latent too."""
    noise: Annotated[float, at_least(0)] = 0.5
    """Noise on the gate's logits at the beginning."""
    noise_updates: Annotated[int, at_least(1)] = 2000
    """Updates over which it falls to 0."""
    balance: Annotated[str, EXPERT_BALANCES] = "loss"
    """"loss", "bias" (without an auxiliary loss) or "none"."""
    balance_rate: Annotated[float, at_least(0)] = 0.01
    """Factor of the loss, or step of the bias."""

    def of(self, sizes: Sizes) -> RoutedExpertsConfig:
        """The layer's own settings."""
        return replace(
            sizes.experts,
            routed=self.routed or sizes.experts.routed,
            chosen=self.chosen,
            state_gate=self.state_gate,
            noise=self.noise,
            noise_updates=self.noise_updates,
            balance=self.balance,
            balance_rate=self.balance_rate,
        )


@dataclass(frozen=True)
class PlanningConfig(Checked, place="agent.planning"):
    """Model-predictive path integral control (continuous) and the cross-entropy method (discrete)."""

    collect: Annotated[str, MODES] = "policy"
    """How actions are chosen while learning: "policy", "plan", or "mixed": each decision is planned with
    probability `share`. Nothing else decides it."""
    evaluate: Annotated[str, MODES] = "plan"
    """The same in evaluation, where `evaluation.plan=false` asks for the policy alone."""
    share: Annotated[float, UNIT] = 0.25
    """Share of planned decisions in "mixed", 0 to 1."""
    horizon: Annotated[int, at_least(1)] = 3
    """Steps of a plan, at least 1 (TD-MPC2: 3)."""
    samples: Annotated[int, at_least(2)] = 64
    """Action sequences per iteration, at least 2 (TD-MPC2: 512)."""
    policy_samples: Annotated[int, at_least(0)] = 16
    """Of these, sequences of the policy, 0 to `samples` (TD-MPC2: 24)."""
    elites: Annotated[int, at_least(1)] = 8
    """Best sequences that the next distribution is fitted to, 1 to `samples` (TD-MPC2: 64)."""
    iterations: Annotated[int, at_least(1)] = 3
    """Times that the distribution is fitted, at least 1 (TD-MPC2: 6)."""
    temperature: Annotated[float, POSITIVE] = 0.5
    """Of the softmax that weights elites, in units of the task's Q scale, above 0."""
    std_low: Annotated[float, POSITIVE] = 0.05
    """Smallest standard deviation of a planned action, above 0."""
    spread: Annotated[float, POSITIVE] = 0.3
    """Standard deviation around the prior's plan that a search begins with, above `std_low` (TD-MPC2: 2,
    around the plan before). Where the prior collects the data, values of actions far from its own are
    guesses, and a wide search finds those that are guessed too high."""

    ADDED: ClassVar[tuple[str, ...]] = ("spread",)
    REMOVED: ClassVar[Mapping[str, object]] = {"std_high": 2.0}
    """Searches began around the plan before, this wide."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("policy_samples", "elites"):
            if getattr(self, key) > self.samples:
                raise OutOfRangeError(
                    f"agent.planning.{key}", getattr(self, key), f"at most samples={self.samples}"
                )
        if not self.std_low < self.spread:
            raise OutOfRangeError("agent.planning.std_low", self.std_low, f"below spread={self.spread}")


@dataclass(frozen=True)
class LossConfig(Checked, place="agent.losses"):
    """Coefficients of the losses."""

    consistency: Annotated[float, at_least(0)] = 20.0
    """Of the next latent's squared error (TD-MPC2: 20)."""
    reward: Annotated[float, at_least(0)] = 0.1
    """Of the reward's cross-entropy (TD-MPC2: 0.1)."""
    value: Annotated[float, at_least(0)] = 0.1
    """Of the Q functions' cross-entropy (TD-MPC2: 0.1)."""
    termination: Annotated[float, at_least(0)] = 1.0
    """Of the termination's binary cross-entropy (TD-MPC2: 1)."""
    cloning: Annotated[float, at_least(0)] = 0.0
    """Of the policy's imitation of planned actions, weighted by softmax(Q) within a task; needs planning
    while learning."""
    rho: Annotated[float, SHARE] = 0.5
    """Weight of step t of a sequence is rho^t, above 0, at most 1 (TD-MPC2: 0.5)."""


@dataclass(frozen=True)
class ExplorationConfig(Checked, place="agent.exploration"):
    """Spread and temperature of the policy prior."""

    initial_temperature: Annotated[float, POSITIVE] = 0.03
    """Temperature of every task at the beginning, above 0."""
    temperature_floor: Annotated[float, POSITIVE] = 0.001
    """Temperatures never fall below this, above 0."""
    temperature_rate: Annotated[float, at_least(0)] = 1e-3
    """Step size of the log temperatures, at least 0; 0 fixes them."""
    target_entropy: Annotated[float, Range(high=math.log(2.0), includes_high=False)] = -0.75
    """Target entropy of continuous tasks, per action dimension, after the squash, in nats."""
    discrete_target_entropy: Annotated[float, BELOW_ONE] = 0.3
    """Target entropy of discrete tasks, as a share of ln(number of actions), 0 to 1."""
    log_std_low: float = -5.0
    """Smallest log standard deviation before the tanh."""
    log_std_high: Annotated[float, POSITIVE] = 1.0
    """Largest log standard deviation, above the smallest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.log_std_low < self.log_std_high:
            raise OutOfRangeError("agent.exploration.log_std_low", self.log_std_low, "below log_std_high")


@dataclass(frozen=True)
class NormalisationConfig(Checked, place="agent.normalisation"):
    """Scales of observations and rewards, one of each per task."""

    observations: bool = True
    """Standardise state vectors by the mean and deviation of what the task has shown."""
    clip: Annotated[float, POSITIVE] = 5.0
    """Largest size of a standardised entry, above 0."""
    refresh_at: Annotated[tuple[int, ...], at_least(1)] = (500, 1000, 2000, 4000, 8000)
    """Environment steps of a task at which its statistics are computed again, ascending. Until the first they
    follow every fragment; after the last they change only when a dimension deviates 16 times as much as they
    say, such as one that was constant."""
    return_range: Annotated[float, POSITIVE] = 20.0
    """Rewards are divided so that the largest discounted return seen in the task becomes this, above 0, at
    most what `value_range` can represent: no reward is ever clipped."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(a >= b for a, b in pairwise(self.refresh_at)):
            raise OutOfRangeError("agent.normalisation.refresh_at", self.refresh_at, "ascending")


@dataclass(frozen=True)
class WorldModelConfig(Checked, place="agent"):
    """A latent world model with a mixture of experts, for continuous and discrete tasks in one run."""

    size: str = "nano"
    """"nano" (one CPU thread), "S" (one GPU) or "L"."""
    experts: ExpertsConfig = field(default_factory=ExpertsConfig)
    """The mixture of experts of dynamics and reward."""
    pixels: PixelEncoderConfig = field(default_factory=lambda: PixelEncoderConfig("nature"))
    """The convolutional encoder of an image stack."""
    planning: PlanningConfig = field(default_factory=PlanningConfig)
    """How actions are planned, and when."""
    losses: LossConfig = field(default_factory=LossConfig)
    """Coefficients of the losses."""
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    """Spread and temperature of the policy prior."""
    normalisation: NormalisationConfig = field(default_factory=NormalisationConfig)
    """Scales of observations and rewards."""
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    """Replay by task."""
    bins: Annotated[int, at_least(3)] = 101
    """Values of the categorical reward and Q, at least 3 (TD-MPC2: 101)."""
    value_range: Annotated[float, POSITIVE] = 5.0
    """Largest reward and Q, in symlog units, above 0 (TD-MPC2: 10)."""
    sequence: Annotated[int, at_least(1)] = 3
    """Steps that the model is unrolled over, at least 1 (TD-MPC2: 3)."""
    batch_size: Annotated[int, at_least(1)] = 40
    """Sequences of each task per update, at least 1."""
    replay_ratio: Annotated[float, POSITIVE] = 0.05
    """Updates per environment step of all tasks together, above 0."""
    discount: Annotated[float, BELOW_ONE] = 0.0
    """Discount per decision, in [0, 1); 0 takes clip((T/5 - 1) / (T/5), 0.95, 0.995) of the task's horizon T
    (TD-MPC2)."""
    target_rate: Annotated[float, SHARE] = 0.02
    """Share of the Q functions that goes into their targets per update, in (0, 1] (TD-MPC2: 0.01)."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Step size of model and policy, above 0 (TD-MPC2: 3e-4)."""
    gradient_clip: Annotated[float, at_least(0, "none")] = 20.0
    """Largest gradient norm, of model and policy each; 0 for none (TD-MPC2: 20)."""
    gradients: SurgeryConfig = field(default_factory=SurgeryConfig)
    """How the gradients of the tasks are combined: those of the model, which is the part "critic"."""
    diagnostics_every: Annotated[int, at_least(0, "none")] = 1000
    """Updates between measurements inside the model, at least 0; 0 for none."""
    device: str = "cpu"
    """Where the networks learn: "cpu", "cuda", "cuda:1", or "auto"."""
    precision: Annotated[str, ("fp32", "bf16", "auto")] = "fp32"
    """Number format of products while learning: "bf16", or "auto" for bf16 where the device has it. Weights,
    latents, values and losses stay in fp32."""
    compile: bool = False
    """Whether `torch.compile` compiles the losses, which takes a minute or two at the first update. Where the
    number of usable tasks grew after that, a resumed run has the same metrics up to rounding alone."""

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise UnknownNameError("agent.size", self.size, SIZES)
        super().__post_init__()
        largest = math.expm1(self.value_range) / 2.0
        if self.normalisation.return_range > largest:
            raise OutOfRangeError(
                "agent.normalisation.return_range",
                self.normalisation.return_range,
                f"at most {largest:g}, half of what agent.value_range={self.value_range:g} in symlog units "
                "represents: one reward can be as large as two such returns",
            )
        if self.gradients.part != "critic" or self.gradients.perturbation > 0:
            raise ConfigError(
                "gradient surgery combines the tasks' gradients of the model (gradients.part=critic) and "
                f"takes no perturbation; got gradients.part={self.gradients.part}, "
                f"gradients.perturbation={self.gradients.perturbation:g}"
            )
        self.experts.of(SIZES[self.size])
        if self.experts.state_gate and self.experts.balance == "bias":
            raise ConfigError(
                "agent.experts.balance=bias moves the choice of whole tasks, and agent.experts.state_gate "
                "lets every sample choose; set balance to loss or none"
            )
        if self.experts.chosen < 2 and not self.experts.dense:
            raise ConfigError(
                "agent.experts.chosen=1 gives the gate no gradient: a single chosen expert has the constant "
                "weight 1. Choose 2 or more, or agent.experts.dense=true"
            )
        if self.losses.cloning > 0 and self.planning.collect == "policy":
            raise ConfigError(
                "agent.losses.cloning imitates planned actions, and agent.planning.collect=policy plans "
                "none; set collect to plan or mixed, or cloning to 0"
            )
        if self.replay.capacity < self.batch_size:
            raise ConfigError(
                f"agent.replay.capacity={self.replay.capacity} is below agent.batch_size={self.batch_size}"
            )

    @property
    def sizes(self) -> Sizes:
        """The widths of `size`."""
        return SIZES[self.size]
