"""The manifest of an artefact: everything a robot needs about a policy, as schema-versioned JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from mtrl.errors import IntegrityError, SpaceError, UnknownNameError
from mtrl.reading import JSON_BYTES, parse_json, read_bytes, reading
from mtrl.structured import POSITIVE, SHARE, UNIT, Checked, Range, at_least, between, build
from mtrl.tasks import Option, Task

from .joints import Joint, Quantity

MANIFEST_FILE = "manifest.json"
LARGEST_IMAGE = 2**22
"""Most numbers of an image."""
SCHEMA_VERSION = 3
"""Version of the manifest's layout that this code writes; newer ones are refused."""


@dataclass(frozen=True)
class Limits(Checked, place="limits"):
    """The policy's own limits; of each, the tighter of this and the robot's is in force. Those of a command
    do not apply to choices.
    """

    action: Annotated[float, POSITIVE] = 1.0
    """Largest magnitude of a command dimension, in the task's units of [-1, 1]."""
    rate: Annotated[float, POSITIVE] = 2.0
    """Largest change of a command dimension per decision; 2 is the whole range."""
    observation: Annotated[float, POSITIVE] = 1000.0
    """Largest magnitude of an observation entry that the policy is meant for."""


@dataclass(frozen=True)
class TaskEntry(Checked):
    """One task of the policy."""

    name: str
    """Full name "suite/task"."""
    index: int
    """The value of the graph's `task` input."""
    state_size: Annotated[int, at_least(0)]
    """Native length D_task of the state; the graph's input is zero-padded to D_max. 0 without a state."""
    action_size: Annotated[int, at_least(1)]
    """Numbers of a command A_task: native action dimensions, or 1 where it is the index of a choice."""
    rate_hz: Annotated[float, POSITIVE]
    """Decisions per second, in Hz."""
    protocol_hash: str
    """Hash of the task the policy was trained on; a robot with another is refused."""
    options: tuple[tuple[str, Option], ...] = ()
    """Suite-specific settings from which the task is built again."""
    limits: Limits = field(default_factory=Limits)
    """Limits that the policy was trained for; a robot's own tighter limits win."""
    choices: Annotated[int, at_least(0)] = 0
    """Number of choices of a discrete task, of which the policy takes one; 0 for a continuous task."""
    observation: tuple[Quantity, ...] = ()
    """What each entry of the state is on the robot that the policy was exported for; empty: not said."""
    pixels: bool = False
    """Whether the task shows an image, of the shape that the manifest states."""
    action: tuple[Quantity, ...] = ()
    """What each dimension of the action moves there; empty: not said."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.choices and self.action_size != 1:
            raise SpaceError(f"a choice is one number; got action_size={self.action_size}")
        if not self.state_size and not self.pixels:
            raise SpaceError(f"{self.name} shows neither a state nor an image")
        for what, entries, size in (
            ("observation", self.observation, self.state_size),
            ("action", self.action, self.action_size),
        ):
            if len(entries) not in (0, size):
                raise SpaceError(f"{self.name} has {size} entries of its {what}; {len(entries)} are named")

    @property
    def suite(self) -> str:
        """Name of the suite, the part before the first slash."""
        return self.name.split("/", 1)[0]

    @staticmethod
    def of(task: Task, index: int, limits: Limits | None = None) -> TaskEntry:
        """The entry of a task."""
        return TaskEntry(
            name=task.name,
            index=index,
            state_size=task.observation.state or 0,
            pixels=task.observation.pixels is not None,
            action_size=task.action.continuous or 1,
            rate_hz=task.rate_hz,
            protocol_hash=task.protocol_hash,
            options=task.options,
            limits=limits or Limits(),
            choices=task.action.discrete,
        )


@dataclass(frozen=True)
class TrainingProvenance(Checked, place="provenance"):
    """Origin of the policy: run, commit, seed and evaluated success."""

    run: str = ""
    """Name of the run."""
    commit: str = ""
    """Commit of the code that trained it."""
    seed: int = 0
    """Seed of the run."""
    success: Annotated[float | None, UNIT] = None
    """Mean success in evaluation, 0 to 1; None when it was not evaluated."""
    success_interval: Annotated[tuple[float, float] | None, UNIT] = None
    """95% interval of `success`."""


@dataclass(frozen=True)
class Manifest(Checked):
    """Observations, actions, tasks, limits and provenance of an exported policy."""

    tasks: tuple[TaskEntry, ...]
    """In index order."""
    state_size: int
    """Padded state length D_max of the graph's `state` input; 0 where it has none."""
    action_size: int
    """Columns A_max of the graph's `chunk` output: padded action dimensions, then `choices`."""
    history: int = 1
    """Newest observations that the policy sees, h; before the episode's h-th, the first one is repeated."""
    chunk: int = 1
    """Decisions H that one inference plans."""
    execute: int = 1
    """Decisions E <= H executed before planning again."""
    noise_size: int = 0
    """Length Z of the standard normal input `z`; 0 when the graph has none."""
    noise: str = "chunk"
    """Source of `z`: "chunk" draws for every plan, "episode" once per episode, "zero" never."""
    choices: Annotated[int, at_least(0)] = 0
    """Columns of `chunk` that score the choices of discrete tasks, the last ones; 0 without such a task."""
    action_low: Annotated[float, Range(-1, 0, includes_high=False)] = -1.0
    """Smallest value of an action dimension."""
    action_high: Annotated[float, SHARE] = 1.0
    """Largest value of an action dimension."""
    pixels: tuple[int, ...] = ()
    """Channels, height and width of the graph's `pixels` input, uint8; empty where it has none."""
    joints: tuple[Joint, ...] = ()
    """Joints of the robot that the policy was exported for, with the limits that it asks for; of each pair,
    the tighter of these and the site's is in force. Empty: the site's alone are."""
    opset: Annotated[int, at_least(1)] = 17
    """ONNX operator set of the graph."""
    minimum_onnxruntime: str = "1.16"
    """Oldest ONNX Runtime that may run the graph."""
    provenance: TrainingProvenance = field(default_factory=TrainingProvenance)
    """Origin of the policy: run, commit, seed and evaluated success."""
    schema: Annotated[int, between(1, SCHEMA_VERSION)] = SCHEMA_VERSION
    """Version of this layout."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.execute <= self.chunk or self.history < 1 or self.noise_size < 0:
            raise SpaceError(
                "a manifest needs 1 <= execute <= chunk, history >= 1 and noise_size >= 0; got "
                f"execute={self.execute}, chunk={self.chunk}, history={self.history}, z={self.noise_size}"
            )
        if self.noise not in ("chunk", "episode", "zero"):
            raise SpaceError(f"noise is 'chunk', 'episode' or 'zero'; got {self.noise!r}")
        if not self.tasks or [entry.index for entry in self.tasks] != list(range(len(self.tasks))):
            raise SpaceError("a manifest lists its tasks in index order from 0, at least one")
        if len({entry.name for entry in self.tasks}) < len(self.tasks):
            raise SpaceError("a manifest lists a task once")
        if max(entry.state_size for entry in self.tasks) > self.state_size:
            raise SpaceError(f"a task's state is longer than the padded state_size={self.state_size}")
        dimensions = max(0 if entry.choices else entry.action_size for entry in self.tasks)
        if dimensions > self.action_size - self.choices:
            raise SpaceError(f"a task's action is wider than the padded action_size={self.action_size}")
        self._require_image()
        if len({joint.name for joint in self.joints}) < len(self.joints):
            raise SpaceError("a manifest lists a joint once")
        if max(entry.choices for entry in self.tasks) > self.choices:
            raise SpaceError(f"a task has more choices than the padded choices={self.choices}")

    def _require_image(self) -> None:
        sizes = self.pixels
        fits = len(sizes) == 3 and min(sizes) > 0 and math.prod(sizes) <= LARGEST_IMAGE and self.history == 1
        if sizes and not fits:
            raise SpaceError(
                f"an image is channels x height x width, at most {LARGEST_IMAGE:,} numbers, seen without a "
                f"history; got {sizes}, history={self.history}"
            )
        if any(entry.pixels for entry in self.tasks) != bool(sizes):
            raise SpaceError("a manifest states the shape of an image where a task shows one, and only there")

    def task(self, name: str) -> TaskEntry:
        """The entry of a task by name; raises UnknownNameError with the nearest names."""
        for entry in self.tasks:
            if entry.name == name:
                return entry
        raise UnknownNameError("task of this artefact", name, [entry.name for entry in self.tasks])

    def columns(self, entry: TaskEntry) -> slice:
        """The columns of `chunk` that belong to a task: its action dimensions, or a score of each choice."""
        first = self.action_size - self.choices if entry.choices else 0
        return slice(first, first + (entry.choices or entry.action_size))

    def to_json(self) -> str:
        """Indented JSON with sorted keys."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str | bytes, source: str = MANIFEST_FILE) -> Manifest:
        """Reads what `to_json` wrote; raises IntegrityError naming `source` for anything else."""
        with reading(Path(source), "a manifest that mtrl wrote", "export the artefact again"):
            fields: Any = parse_json(text.encode() if isinstance(text, str) else text)
            schema = int(fields["schema"])
            if schema > SCHEMA_VERSION:
                raise IntegrityError(
                    f"{source} has schema {schema}, newer than {SCHEMA_VERSION}, the newest that this "
                    "mtrl reads; upgrade mtrl or export the artefact again"
                )
            return _manifest(fields)


def read_manifest(directory: Path) -> Manifest:
    """The manifest alone, without hashing anything; raises IntegrityError when there is none to read."""
    path = directory / MANIFEST_FILE
    with reading(path, "a manifest", f"is {directory} an artefact?"):
        content = read_bytes(path, JSON_BYTES)
    return Manifest.from_json(content, str(path))


def _manifest(fields: Mapping[str, Any]) -> Manifest:
    tasks = tuple(_entry(entry) for entry in fields["tasks"])
    return build(Manifest, {**fields, "tasks": tasks})


def _entry(fields: Mapping[str, Any]) -> TaskEntry:
    options = tuple((key, value) for key, value in fields["options"])
    return replace(build(TaskEntry, {**fields, "options": ()}), options=options)
