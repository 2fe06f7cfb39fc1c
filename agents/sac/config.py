"""Settings of the multi-task soft actor-critic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, ClassVar

from mtrl.data import ReplayConfig
from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.gradients import SurgeryConfig
from mtrl.nn import PixelEncoderConfig, TorsoConfig
from mtrl.structured import BELOW_ONE, POSITIVE, SHARE, UNIT, Checked, at_least, between


@dataclass(frozen=True)
class NetworkConfig(Checked, place="agent.network"):
    """Sizes of actor and critics; both have the same torso."""

    torso: TorsoConfig = field(
        default_factory=lambda: TorsoConfig(width=256, depth=2, layer_norm=True, norm_affine=False)
    )
    """What turns features into hidden features: kind, width, depth, LayerNorm, task embedding, experts
    (MTMHSAC: width 400, depth 3, no LayerNorm). Actor and critics have one each."""
    critic_width: Annotated[int, at_least(0, "as wide")] = 0
    """Width of the critics' torsos; 0 takes the torso's own (BRC: 4096)."""
    critic: Annotated[str, ("categorical", "scalar")] = "scalar"
    """"scalar": one number, squared error (MTMHSAC). "categorical": a two-hot distribution over `bins` values
    in [-value_range, value_range] (BRC)."""
    bins: Annotated[int, at_least(2)] = 64
    """Values of the categorical critic, at least 2; multiples of 32 are the fastest (BRC: 101)."""
    value_range: Annotated[float, POSITIVE] = 10.0
    """Largest value of the categorical critic, and the size to which `normalisation.returns` scales the
    largest return of a task, with either critic; above 0 (BRC: 10)."""
    pixels: PixelEncoderConfig = field(default_factory=lambda: PixelEncoderConfig("drq"))
    """The convolutional encoder of an image stack; actor and critics have one each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.torso.embedding.kind == "given":
            raise ConfigError("agent.network.torso.embedding.kind is 'one_hot' or 'learned'; got 'given'")


@dataclass(frozen=True)
class ExplorationConfig(Checked, place="agent.exploration"):
    """Spread and temperature of the policy."""

    initial_temperature: Annotated[float, POSITIVE] = 0.1
    """Temperature of every task at the beginning, above 0 (MTMHSAC: 1; BRC: 0.1)."""
    temperature_floor: Annotated[float, at_least(0)] = 0.01
    """Temperatures never fall below this, at least 0; a task that is not solved yet keeps exploring."""
    temperature_rate: Annotated[float, at_least(0)] = 1e-3
    """Step size of the log temperatures, at least 0; 0 fixes them (MTMHSAC: 3e-4)."""
    target_entropy: float = -0.5
    """Target entropy of continuous tasks, per action dimension, in nats (MTMHSAC: -1)."""
    discrete_target_entropy: Annotated[float, UNIT] = 0.3
    """Target entropy of discrete tasks, as a share of ln(number of actions), 0 to 1 (Christodoulou 2019:
    0.98)."""
    hold: Annotated[int, between(1, 64)] = 1
    """Decisions for which exploration of discrete tasks holds a draw on average, 1 to 64: in each episode a
    power of two up to this. Above 1, a policy that prefers no action yet takes one several times in a row, as
    `gym/Acrobot-v1` asks for; each action keeps the policy's probability. 1 draws each independently."""
    log_std_low: float = -5.0
    """Smallest log standard deviation before the tanh (MTMHSAC: -20)."""
    log_std_high: float = 1.0
    """Largest log standard deviation, above the smallest; a new policy begins halfway (MTMHSAC: 2)."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "log_deviation_low": "log_std_low",
        "log_deviation_high": "log_std_high",
    }
    """Key of older files -> field."""
    ADDED: ClassVar[tuple[str, ...]] = ("hold",)
    """Fields that older files lack."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.log_std_low >= self.log_std_high:
            raise OutOfRangeError(
                "agent.exploration.log_std_low",
                self.log_std_low,
                f"below log_std_high={self.log_std_high}",
            )


@dataclass(frozen=True)
class NormalisationConfig(Checked, place="agent.normalisation"):
    """Scales of observations and rewards, one of each per task."""

    observations: bool = True
    """Standardise state vectors by the mean and deviation of what the task has shown (MTMHSAC: no)."""
    clip: Annotated[float, POSITIVE] = 5.0
    """Largest size of a standardised entry, above 0."""
    refresh_at: tuple[int, ...] = (500, 1000, 2000, 4000, 8000)
    """Environment steps of a task at which its statistics are computed again, ascending. Until the first they
    follow every fragment; after the last they change only when a dimension deviates 16 times as much as they
    say, such as one that was constant."""
    returns: bool = True
    """Divide rewards so that the largest discounted sum seen in the task becomes `network.value_range`;
    applied at sampling, so that old rewards follow the statistics (MTMHSAC: no)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        ascending = all(a < b for a, b in pairwise(self.refresh_at))
        if not ascending or any(at < 1 for at in self.refresh_at):
            raise OutOfRangeError("agent.normalisation.refresh_at", self.refresh_at, "ascending, from 1")


@dataclass(frozen=True)
class SACConfig(Checked, place="agent"):
    """Multi-task SAC for continuous and discrete tasks in one run."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    """Sizes of the networks."""
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    """Spread and temperature of the policy."""
    normalisation: NormalisationConfig = field(default_factory=NormalisationConfig)
    """Scales of observations and rewards."""
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    """Replay by task."""
    batch_size: Annotated[int, at_least(1)] = 64
    """Transitions of each task per update, at least 1 (MTMHSAC: 128)."""
    replay_ratio: Annotated[float, POSITIVE] = 0.2
    """Updates per environment step of all tasks together, above 0 (MTMHSAC on MT10: 0.1)."""
    discount: Annotated[float, BELOW_ONE] = 0.99
    """Discount per decision, in [0, 1)."""
    target_rate: Annotated[float, SHARE] = 0.01
    """Share of the critics that goes into their targets per update, in (0, 1] (MTMHSAC: 0.005)."""
    learning_rate: Annotated[float, POSITIVE] = 7e-4
    """Step size of actor and critics, above 0 (MTMHSAC: 3e-4)."""
    adam_epsilon: Annotated[float, POSITIVE] = 1e-8
    """Adam's epsilon, above 0 (MTMHSAC: 1e-5)."""
    gradient_clip: Annotated[float, at_least(0, "none")] = 10.0
    """Largest gradient norm, of actor and critics each; 0 for none (MTMHSAC: 1)."""
    actor_every: Annotated[int, at_least(1)] = 2
    """Updates of the critics per update of actor and temperatures, at least 1 (MTMHSAC: 1)."""
    entropy_in_target: bool = False
    """Whether the critics' target holds the entropy bonus (MTMHSAC: yes)."""
    bootstrap_truncated: bool = True
    """Whether targets bootstrap through the time limit. The state of metaworld-algorithms around the
    Meta-World+ paper did not; false repeats that."""
    value_clip: Annotated[float, at_least(0, "none")] = 0.0
    """Largest size of predicted and target values of the scalar critic; 0 for none. 5000 repeats the
    metaworld-algorithms of the Meta-World+ paper."""
    gradients: SurgeryConfig = field(default_factory=SurgeryConfig)
    """How the gradients of the tasks are combined; "sum" costs nothing."""
    explicit: bool = True
    """Use derivatives that are written out instead of autograd's where there are such (plain perceptrons on
    the CPU, states, no surgery; see `explicit.py`): the same up to rounding, and faster."""
    diagnostics_every: Annotated[int, at_least(0, "none")] = 1000
    """Updates between diagnostics of the torsos (dormant units, experts' loads), at least 0; 0 for none."""
    device: str = "cpu"
    """Device of the networks: "cpu", "cuda", "cuda:1", or "auto", the first GPU where there is one."""
    precision: Annotated[str, ("fp32", "bf16", "auto")] = "fp32"
    """"fp32", "bf16" (losses and gradients come from bf16 copies of the networks; weights and optimiser stay
    fp32), or "auto": bf16 where the CPU or GPU has it."""
    on_non_finite: Annotated[str, ("stop", "skip")] = "stop"
    """"stop" ends the run, "skip" leaves out the update; for a NaN or infinity in a loss or gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replay.capacity < self.batch_size:
            raise ConfigError(
                f"agent.replay.capacity={self.replay.capacity} is below agent.batch_size={self.batch_size}; "
                "keep at least one batch per task, better a hundred"
            )
        if self.value_clip and self.network.critic == "categorical":
            raise ConfigError(
                "agent.value_clip is for the scalar critic; the categorical one is bounded by value_range"
            )
