"""How planned chunks of actions are carried out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.structured import UNIT, Checked, at_least, build

from .policy import PolicySnapshot

NOISE, BLENDS = ("chunk", "episode", "zero"), ("soft", "none")


@dataclass(frozen=True)
class Execution(Checked, place="execution"):
    """Settings of the execution of planned chunks."""

    steps: Annotated[int, at_least(1)] = 4
    """Actions executed before the next plan, 1 to the chunk's length."""
    noise: Annotated[str, NOISE] = "chunk"
    """Source of z: "chunk" draws for every plan, "episode" once per episode, "zero" never."""
    adaptive: Annotated[float, UNIT] = 0.0
    """Adaptive chunking (So et al. 2025, arXiv 2510.12392): plan at every decision, and leave the plan before
    only where the cosine between its next action and the new one is below this, 0 to 1 (there: 0.97); 0 for
    none. `steps` says nothing then."""
    delay: Annotated[int, at_least(0)] = 0
    """Decisions that pass until a plan is there, for planners slower than the task's rate: the plan before
    goes on meanwhile. At most `steps`, and with it at most the chunk's length. The first plan of an episode
    is waited for."""
    blend: Annotated[str, BLENDS] = "soft"
    """With a delay, whether a plan is bound to the one that is being carried out ("soft": real-time chunking,
    Black et al. 2025, arXiv 2506.07339) or replaces it as it is ("none")."""

    ADDED: ClassVar[tuple[str, ...]] = ("adaptive", "delay", "blend")
    """Fields that older files lack."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adaptive and self.delay:
            raise ConfigError(
                f"execution.adaptive={self.adaptive:g} needs a plan at every decision, and "
                f"execution.delay={self.delay} has it later; set one of them to 0"
            )
        if self.delay > self.steps:
            raise OutOfRangeError("execution.delay", self.delay, f"at most steps={self.steps}")

    def require_within(self, chunk: int, place: str = "") -> None:
        """Raises OutOfRangeError where more than a chunk is executed; `place` is the key around both."""
        if self.steps + self.delay > chunk:
            allowed = f"1 to the chunk's length, {place}network.chunk={chunk}"
            if self.delay:
                allowed += f", less delay={self.delay}"
            raise OutOfRangeError(f"{place}execution.steps", self.steps, allowed)

    def pull(self, chunk: int) -> npt.NDArray[np.float32]:
        """How much each action of a plan is bound to those of the plan before, [H] (Black et al. 2025,
        equation 5): 1 for those that pass before the plan is there, then falling to 0 where the plan before
        ends.
        """
        place, last = np.arange(chunk), chunk - self.steps
        left = (self.delay - 1 - place) / (last - self.delay + 1) + 1
        falling = left * np.expm1(left) / np.expm1(1.0)
        found = np.where(place < self.delay, 1.0, np.where(place < last, falling, 0.0))
        return found.astype(np.float32)


@dataclass(frozen=True)
class ExecutionChanges(Checked, place="execution"):
    """What an evaluation changes in how a policy carries out its chunks; null leaves it as it was trained."""

    steps: Annotated[int | None, at_least(1)] = None
    """As `Execution.steps`."""
    noise: Annotated[str | None, NOISE] = None
    """As `Execution.noise`."""
    adaptive: Annotated[float | None, UNIT] = None
    """As `Execution.adaptive`."""
    delay: Annotated[int | None, at_least(0)] = None
    """As `Execution.delay`."""
    blend: Annotated[str | None, BLENDS] = None
    """As `Execution.blend`."""

    @property
    def values(self) -> dict[str, object]:
        """What is changed, by the names of `Execution`."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def applied(self, label: str, snapshot: PolicySnapshot) -> tuple[str, PolicySnapshot]:
        """The policy that carries out its chunks so, and a label that says it; both as they are without a
        change. Raises ConfigError for a policy that plans no chunks, and what `Execution` refuses.
        """
        if not self.values:
            return label, snapshot
        if not isinstance(snapshot.config.get("execution"), Mapping):
            raise ConfigError(
                f"{label} plans no chunks of actions, so evaluation.execution says nothing to it; evaluate a "
                "diffusion policy or its student, with --policy"
            )
        build(Execution, {**snapshot.config["execution"], **self.values}, "evaluation.execution")
        changed = {**snapshot.config["execution"], **self.values}
        says = "".join(f"-{name}{value}" for name, value in self.values.items())
        return label + says, replace(snapshot, config={**snapshot.config, "execution": changed})
