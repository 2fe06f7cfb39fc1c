"""Settings of distillation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from mtrl.errors import ConfigError
from mtrl.nn import ChunkShape, PixelEncoderConfig
from mtrl.rollout import Execution
from mtrl.structured import BELOW_ONE, POSITIVE, Checked, at_least


@dataclass(frozen=True)
class DistillationConfig(Checked, place="distillation"):
    """How a student learns what its teacher does."""

    method: str = "auto"
    """Name of a distiller, an entry point of the group mtrl.distillers. "same_noise": the teacher's chunks in
    demonstrated states. "consistency": the path of a diffusion policy, level by level. "dagger": any policy's
    decisions, continuous and discrete, in the states that the student comes to. "auto": same_noise where the
    agent learns from demonstrations of state vectors, dagger where not."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of that distiller: `levels` of consistency; same_noise and dagger take none."""
    network: ChunkShape = field(default_factory=ChunkShape)
    """Sizes of the student. With same_noise it begins from every weight of the teacher's that has its name
    and shape: with the teacher's width and fewer blocks, from the first blocks. With dagger it decides one
    action from one observation, whatever `history` and `chunk` say."""
    pixels: PixelEncoderConfig = field(default_factory=PixelEncoderConfig)
    """Sizes of the student's encoder of images, where tasks have some; with dagger."""
    execution: Execution = field(default_factory=Execution)
    """How the student carries out its chunks; with dagger a chunk is one action."""
    steps: Annotated[int, at_least(1)] = 20_000
    """Environment steps of dagger, all tasks together, at least 1; the updates are spread over them."""
    teacher_share: Annotated[float, BELOW_ONE] = 0.2
    """Share of the steps that the teacher plays before the student does, with dagger, in [0, 1)."""
    round: Annotated[int, at_least(1)] = 64
    """Decisions of each copy between two rounds of dagger's updates, at least 1; copies as in collection."""
    updates: Annotated[int, at_least(1)] = 2000
    """Updates, at least 1."""
    batch_size: Annotated[int, at_least(1)] = 256
    """Samples per update, at least 1."""
    reuse: Annotated[int, at_least(1)] = 4
    """Updates per batch that the teacher labels, at least 1, with same_noise; labels are most of its cost."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Peak step size of AdamW, above 0; cosine decay to 0."""
    ema_decay: Annotated[float, BELOW_ONE] = 0.99
    """Decay of the weights' moving average that becomes the student, in [0, 1)."""
    jitter: Annotated[float, at_least(0)] = 0.02
    """Standard deviation of noise that same_noise adds to demonstrated states, in their own standard
    deviations, so that the student also imitates near the demonstrations; at least 0."""

    RENAMED: ClassVar[Mapping[str, str]] = {"average_decay": "ema_decay"}
    """Key of older files -> field."""
    ADDED: ClassVar[tuple[str, ...]] = ("method", "settings", "steps", "teacher_share", "round", "pixels")
    """Fields that older files lack."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.execution.require_within(self.network.chunk, "distillation.")
        if self.network.backbone != "mlp":
            raise ConfigError(
                f"distillation.network.backbone={self.network.backbone}: a student is an MLP, which runs in "
                "microseconds; its teacher may be a transformer"
            )
