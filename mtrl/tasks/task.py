"""A task: one named control problem with a fixed protocol."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from mtrl.errors import ConfigError
from mtrl.spaces import ActionSpec, ObservationSpec

Option = str | int | float | bool

ProtocolValue = None | bool | int | float | str | list["ProtocolValue"] | dict[str, "ProtocolValue"]
"""A field of a protocol as JSON has it."""


def hash_of_protocol(fields: Mapping[str, ProtocolValue]) -> str:
    """First 16 hex digits of the SHA-256 of a protocol's fields, in whatever order they stand."""
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Score:
    """Rule that maps an episode to a comparable number."""

    kind: str
    """"success": 1 if the success signal was ever on. "return": the undiscounted return, normalised."""
    low: float | None = None
    """Return that maps to 0 (random play for Atari, 0 for DeepMind Control); 0 if `high` alone is given."""
    high: float | None = None
    """Return that maps to 1 (human play for Atari, 1000 for DeepMind Control); 1 if `low` alone is given.
    A return with neither is raw: of unknown scale, and part of no mean over tasks."""

    def __post_init__(self) -> None:
        if self.kind not in ("success", "return"):
            raise ConfigError(f"a score is 'success' or 'return'; got {self.kind!r}")
        if self.low is None and self.high is None:
            return
        # 0 and 0.0 are equal but spelled apart in the protocol hash
        low = 0.0 if self.low is None else float(self.low)
        high = 1.0 if self.high is None else float(self.high)
        if high == low:
            raise ConfigError(f"score range is empty: low = high = {low}")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @property
    def is_normalised(self) -> bool:
        """Whether it is on the scale that tasks share: a success, or a return with a range of its own."""
        return self.kind == "success" or self.low is not None

    @property
    def span(self) -> float:
        """Width of the range; 1 without one."""
        return 1.0 if self.low is None or self.high is None else self.high - self.low

    def normalise(self, episode_return: float, success: bool) -> float:
        """Success as 0 or 1, or (return - low) / (high - low), unclipped; a raw return as it is."""
        if self.kind == "success":
            return float(success)
        if self.low is None or self.high is None:
            return episode_return
        return (episode_return - self.low) / (self.high - self.low)

    def record(self) -> dict[str, ProtocolValue]:
        """As protocols and files have it: without a range low is 0 and high 1, and a return with a range of
        exactly these says so.
        """
        low, high = (0.0, 1.0) if self.low is None else (self.low, self.high)
        found: dict[str, ProtocolValue] = {"kind": self.kind, "low": low, "high": high}
        if self.kind == "return" and (self.low, self.high) == (0.0, 1.0):
            found["is_normalised"] = True
        return found

    @staticmethod
    def from_record(kind: str, low: float, high: float, is_normalised: bool = False) -> Score:
        """The inverse of `record`."""
        return Score(kind) if (low, high) == (0.0, 1.0) and not is_normalised else Score(kind, low, high)


@dataclass(frozen=True)
class Task:
    """One control problem and everything that makes its results comparable.

    Two results may be compared only when the hashes of their tasks are equal.
    """

    name: str
    """Suite and task, for example "metaworld/reach-v3". A variant at the end, as in "atari/Pong@pixels",
    tells uses of one task apart that differ in their options."""
    observation: ObservationSpec
    action: ActionSpec
    simulator_rate_hz: float
    """Control steps per simulated second before action repeat, in Hz."""
    action_repeat: int
    """Control steps that one decision lasts."""
    horizon_decisions: int
    """Decisions after which an episode is truncated."""
    score: Score
    reward_version: str
    """Version of the reward function, for example "metaworld-v2"."""
    end_on_success: bool = False
    """Terminate a training episode at the first success. Evaluation never ends on success, so this
    is not part of the protocol hash."""
    options: tuple[tuple[str, Option], ...] = ()
    """Suite-specific settings that change the problem (sticky actions, frame stack), sorted by name."""

    def __post_init__(self) -> None:
        if self.name.count("/") < 1:
            raise ConfigError(f"a task is named 'suite/task'; got {self.name!r}")
        _, at, variant = self.name.partition("@")
        if at and not re.fullmatch(r"[\w-]+", variant):
            raise ConfigError(
                "the variant of a task's name is one word of letters, digits, _ and -, such as "
                f"atari/Pong@pixels; got {self.name!r}"
            )
        if self.action_repeat < 1 or self.horizon_decisions < 1 or self.simulator_rate_hz <= 0:
            raise ConfigError(
                f"task {self.name}: action_repeat and horizon_decisions are at least 1 and the rate is "
                f"positive; got {self.action_repeat}, {self.horizon_decisions}, {self.simulator_rate_hz}"
            )
        keys = [key for key, _ in self.options]
        if len(set(keys)) < len(keys):
            raise ConfigError(f"task {self.name}: an option may be given once; got {', '.join(sorted(keys))}")
        object.__setattr__(self, "options", tuple(sorted(self.options)))
        # 80 and 80.0 are equal but spelled apart in the protocol hash
        object.__setattr__(self, "simulator_rate_hz", float(self.simulator_rate_hz))

    @property
    def suite(self) -> str:
        """Name of the suite, the part before the first slash."""
        return self.name.split("/", 1)[0]

    @property
    def short_name(self) -> str:
        """The name without the suite."""
        return self.name.split("/", 1)[1]

    @property
    def listed(self) -> Task:
        """The task under the name that its suite lists, without a variant: what a suite is given."""
        return replace(self, name=self.name.partition("@")[0])

    @property
    def rate_hz(self) -> float:
        """Decisions per simulated second, in Hz."""
        return self.simulator_rate_hz / self.action_repeat

    def option(self, key: str, default: Option) -> Option:
        """Value of one suite-specific option."""
        return dict(self.options).get(key, default)

    @property
    def protocol(self) -> dict[str, ProtocolValue]:
        """Every field that changes what a result means, as JSON has it: lists where the task has tuples. A
        variant of the name is not among them.
        """
        fields = asdict(self.listed) | {"score": self.score.record()}
        del fields["end_on_success"]
        plain: dict[str, ProtocolValue] = json.loads(json.dumps(fields))
        return plain

    @property
    def protocol_hash(self) -> str:
        """The hash of `protocol`, which names it in files."""
        return hash_of_protocol(self.protocol)
