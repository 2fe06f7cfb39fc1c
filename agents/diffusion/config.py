"""Settings of the diffusion agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.gradients import SurgeryConfig
from mtrl.nn import ChunkShape
from mtrl.rollout import Execution
from mtrl.structured import BELOW_ONE, POSITIVE, UNIT, Checked, Range, at_least, between


@dataclass(frozen=True)
class NoiseLevels(Checked, place="noise"):
    """Noise levels of training and sampling, in units of the action range's half-width."""

    data_deviation: Annotated[float, POSITIVE] = 0.5
    """sigma_data: assumed standard deviation of actions, above 0 (Karras et al. 2022: 0.5)."""
    minimum: Annotated[float, POSITIVE] = 0.02
    """Smallest sampled sigma, above 0 (Karras: 0.002 for images)."""
    maximum: Annotated[float, POSITIVE] = 20.0
    """Largest sampled sigma, above `minimum` (Karras: 80 for images)."""
    rho: Annotated[float, at_least(1)] = 7.0
    """Exponent of the sampling grid, at least 1 (Karras: 7)."""
    train_mean: float = -1.0
    """Mean of ln sigma in training (Karras: -1.2)."""
    train_deviation: Annotated[float, POSITIVE] = 1.4
    """Standard deviation of ln sigma in training, above 0 (Karras: 1.2)."""

    RENAMED: ClassVar[Mapping[str, str]] = {"curvature": "rho"}
    """Key of older files -> field."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.minimum < self.maximum:
            raise OutOfRangeError("noise.minimum", self.minimum, f"between 0 and maximum={self.maximum}")


@dataclass(frozen=True)
class FlowTimes(Checked, place="flow"):
    """Distribution of time in training, from noise at 0 to the chunk at 1: logit(t) is normal."""

    mean: float = 0.0
    """Mean of ln(t / (1 - t)) (Esser et al. 2024: 0)."""
    deviation: Annotated[float, POSITIVE] = 1.0
    """Its standard deviation, above 0 (Esser et al. 2024: 1)."""


@dataclass(frozen=True)
class PlanSettings(Checked, place="plan"):
    """Future states that are planned together with the actions (He et al. 2023, arXiv 2305.18459)."""

    stride: Annotated[int, at_least(0)] = 0
    """Decisions from one planned state to the next; as many states as actions, so that with 4 a chunk of 8
    looks 32 decisions ahead. 0 plans actions alone."""
    weight: Annotated[float, at_least(0)] = 0.5
    """Weight of the states' error beside that of the actions, at least 0."""
    inverse: bool = False
    """Whether what is carried out is inferred from the planned states, by a head that learns which actions
    led from a state to that of `stride` decisions later (Ajay et al. 2023, arXiv 2211.15657); its squared
    error is added to the loss. Without it the actions that are planned beside the states are."""

    ADDED: ClassVar[tuple[str, ...]] = ("inverse",)
    """Fields that older files lack."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inverse and not (self.stride and self.weight):
            raise ConfigError(
                f"plan.inverse infers actions from planned states, and plan.stride={self.stride} "
                f"plan.weight={self.weight:g} learns none; both have to be above 0"
            )


@dataclass(frozen=True)
class ReturnSettings(Checked, place="returns"):
    """Conditioning on how good an episode is: the rank of its return among those of its task."""

    dropout: Annotated[float, BELOW_ONE] = 0.0
    """Share of samples whose rank is hidden, in [0, 1), so that the policy can do without (He et al. 2023:
    0.2). 0 reads no return and learns from successes alone; above 0 it learns from failures too."""
    target: Annotated[float, UNIT] = 0.9
    """Rank that is asked for when acting, 0 the worst episode of the task, 1 the best."""
    guidance: Annotated[float, at_least(0)] = 1.2
    """Weight w of classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598), D = D(hidden) + w
    (D(target) - D(hidden)) (He et al. 2023: 1.2). 1 costs nothing; another doubles the work of a plan."""
    discount: Annotated[float, UNIT] = 0.99
    """Discount of the returns, 0 to 1 (He et al. 2023: 0.99)."""


@dataclass(frozen=True)
class DiffusionConfig(Checked, place="agent"):
    """A policy of action chunks; one key says by which objective its network is trained."""

    objective: Annotated[str, ("diffusion", "flow", "mip", "regression")] = "diffusion"
    """How the network learns action chunks. "diffusion": EDM denoising. "flow": rectified flow with
    logit-normal time. "mip": the minimal iterative policy, regression and a second pass that corrects it.
    "regression": behaviour cloning by squared error."""
    network: ChunkShape = field(default_factory=ChunkShape)
    """Sizes of the network."""
    noise: NoiseLevels = field(default_factory=NoiseLevels)
    """Noise levels of the objective "diffusion"."""
    flow: FlowTimes = field(default_factory=FlowTimes)
    """Times of the objective "flow"."""
    mip_time: Annotated[float, Range(0, 1, includes_low=False, includes_high=False)] = 0.9
    """Time t of the second pass of the objective "mip", above 0, below 1 (Pan et al. 2025: 0.9)."""
    sampler_steps: Annotated[int, between(1, 1000)] = 10
    """Steps per plan of "diffusion" and "flow", 1 to 1000."""
    guidance: Annotated[float, at_least(0)] = 0.0
    """Weight of self-guidance, which goes on along what the last state changed in the plan; 0 for none (So et
    al. 2025: 0.6 to 4.4 by task). Costs twice the work of a plan."""
    warm_start: Annotated[float, at_least(0)] = 0.0
    """Noise level from which a plan of "diffusion" begins, around what is left of the plan before, in units
    of the action range's half-width; 0 begins every plan with noise alone. At 0.5 of the default levels four
    of ten steps are left."""
    plan: PlanSettings = field(default_factory=PlanSettings)
    """Future states beside the actions."""
    returns: ReturnSettings = field(default_factory=ReturnSettings)
    """Conditioning on returns."""
    execution: Execution = field(default_factory=Execution)
    """How planned chunks are carried out."""
    batch_size: Annotated[int, at_least(1)] = 256
    """Samples per update, shared evenly by the tasks; at least one per task."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Peak step size of AdamW, above 0."""
    weight_decay: Annotated[float, at_least(0)] = 1e-4
    """Decoupled weight decay, at least 0."""
    warmup: Annotated[int, at_least(0)] = 200
    """Updates of linear warm-up before the cosine decay, at least 0."""
    decay_updates: Annotated[int, at_least(0, "the run's budget")] = 0
    """Updates after which the cosine decay reaches zero; 0 takes the run's budget of updates."""
    ema_decay: Annotated[float, BELOW_ONE] = 0.995
    """Decay of the weights' moving average that acts, in [0, 1)."""
    gradient_clip: Annotated[float, POSITIVE] = 1.0
    """Largest global gradient norm, above 0."""
    gradients: SurgeryConfig = field(default_factory=SurgeryConfig)
    """How the gradients of the tasks are combined; "sum" costs nothing."""

    RENAMED: ClassVar[Mapping[str, str]] = {"average_decay": "ema_decay"}
    """Key of older files -> field."""
    ADDED: ClassVar[tuple[str, ...]] = ("flow", "mip_time", "guidance", "warm_start", "plan", "returns")
    """Fields that older files lack."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.execution.require_within(self.network.chunk, "agent.")
        if self.warm_start and self.objective != "diffusion":
            raise ConfigError(
                f"agent.warm_start={self.warm_start:g} begins at a noise level, which only "
                f"agent.objective=diffusion has; this is {self.objective}"
            )
