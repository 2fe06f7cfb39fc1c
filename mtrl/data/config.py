"""Settings of demonstrations and of the replay; importing them loads no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from mtrl.errors import OutOfRangeError
from mtrl.rollout import NoiseConfig
from mtrl.structured import BELOW_ONE, UNIT, Checked, at_least, between


@dataclass(frozen=True)
class MixtureConfig(Checked, place="mixture"):
    """Episodes of worse quality among the demonstrations, whose labels are what was executed: with returns an
    agent learns to tell them apart.
    """

    noisy: Annotated[float, UNIT] = 0.0
    """Share of `episodes` that an expert with much noise plays, kept whether it succeeds or not, 0 to 1."""
    failing: Annotated[float, UNIT] = 0.0
    """Share of `episodes` of random play that does not succeed, 0 to 1."""
    low: Annotated[float, at_least(0)] = 0.5
    """Smallest standard deviation of the noise, in units of the action range's half-width; at least 0."""
    high: Annotated[float, at_least(0)] = 1.5
    """Largest standard deviation of the noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noisy + self.failing > 1.0:
            raise OutOfRangeError("mixture.failing", self.failing, f"at most 1 - noisy={1 - self.noisy:g}")
        if not self.low <= self.high:
            raise OutOfRangeError("mixture.low", self.low, f"0 to mixture.high={self.high}")


@dataclass(frozen=True)
class DemonstrationConfig(Checked, place="demonstrations"):
    """Settings of the collection from scripted experts, or of the synthesis from demonstrations."""

    source: Annotated[str, ("expert", "synthesised")] = "expert"
    """"expert": the suites' scripted experts play. "synthesised": transitions drawn from a model that is
    trained on the demonstrations in `data`, `training.updates` long; `episodes` says how many."""
    episodes: Annotated[int, at_least(1)] = 50
    """Episodes to keep per task, at least 1."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """Noise on what is executed; labels stay clean."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    """Episodes of worse quality; none by default."""
    tries: Annotated[int, between(1, 100)] = 1
    """Attempts at a start, with other noise each, before it is given up, 1 to 100: with more, what an
    expert often fails at is not missing from the demonstrations (Ha et al. 2023, arXiv 2307.14535)."""
    success_tail: Annotated[int, at_least(0)] = 15
    """Decisions kept after the first success, at least 0."""
    keep_failures: bool = False
    """Keep unsuccessful episodes too, for learners that use rewards."""
    job_episodes: Annotated[int, at_least(1)] = 10
    """Attempts per job, at least 1; part of the protocol only for memory and progress, and where `tries` is
    above 1 for the order of attempts."""
    copies: Annotated[int, at_least(1)] = 1
    """Environments stepped side by side per job, at least 1."""
    attempts_factor: Annotated[float, at_least(1)] = 4.0
    """Give up on a task after this many times `episodes` attempts, at least 1."""

    ADDED: ClassVar[tuple[str, ...]] = ("source", "mixture", "tries")
    """Fields that older files lack."""


@dataclass(frozen=True)
class ReplayConfig(Checked, place="replay"):
    """Capacity of the replay, and the share of demonstrations in a batch."""

    capacity: Annotated[int, at_least(2)] = 100_000
    """Observations kept of every task, at least 2; the oldest go first."""
    save: bool = True
    """Write the replay into checkpoints. Without it a resumed run collects again before it learns."""
    demonstrations: Annotated[float, BELOW_ONE] = 0.0
    """Share of each batch that comes from demonstrations, 0 (none are needed) to below 1; 0.5 is RLPD (Ball
    et al. 2023). A task without demonstrations fills its share with its own transitions."""
