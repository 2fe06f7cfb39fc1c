"""The Atari suite: names, protocols and constructors; imports no emulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import (
    Catalogue,
    CatalogueSuite,
    Option,
    OptionRule,
    Score,
    Task,
    VectorEnvironment,
    require_vector_backend,
)

from ..envpool import EXTRAS
from .console import FRAME_LIMIT, PIXEL_SIZE, RAM_SIZE
from .pool import OTHER_SCREENS, AtariPool

if TYPE_CHECKING:
    from .environment import AtariEnvironment

OPTIONS = {
    # emulated frames that a decision lasts
    "frame_skip": OptionRule(4, low=1, high=16),
    # probability that a frame repeats the action of the frame before (Machado et al. 2018: 0.25)
    "sticky": OptionRule(0.25, low=0.0, high=1.0),
    # an episode begins with 1 to this many frames without action, their number drawn by the start
    "noop_max": OptionRule(30, low=1, high=60),
    # images of the last decisions that an observation holds
    "frame_stack": OptionRule(4, low=1, high=16),
    # the console's whole joystick, the same for nearly all games, or the actions that the game distinguishes
    "action_set": OptionRule("full", choices=("full", "minimal")),
    # the grey images, the 128 bytes of memory scaled to [0, 1], or both
    "observation": OptionRule("pixels", choices=("pixels", "ram", "both")),
}


@dataclass(frozen=True)
class AtariEntry:
    """Data from which a game is listed."""

    rom: str
    """Name of the ROM in ale-py."""
    full_actions: int
    """Actions of the whole joystick: 18, but 9 in Skiing and Lost Luggage."""
    minimal_actions: int
    """Actions that the game distinguishes."""
    random_return: float | None = None
    """Published return of random play; None where none is."""
    human_return: float | None = None
    """Published return of human play; None where none is."""

    @property
    def score(self) -> Score:
        """Human-normalised where the two returns are published; otherwise the raw return, unnormalised."""
        if self.random_return is None or self.human_return is None:
            return Score("return")
        return Score("return", low=self.random_return, high=self.human_return)


class AtariSuite(CatalogueSuite[AtariEntry]):
    """The Arcade Learning Environment (Bellemare et al. 2013; sticky actions, Machado et al. 2018).

    The return is the game's own score, unclipped. An episode terminates at game over, not at a lost life.
    Only the 57 games of `atari57` have published returns of random and human play to normalise by; the
    score of any other game is its raw return.
    """

    name = "atari"
    catalogue = Catalogue.read(Path(__file__).with_name("catalogue.json"), AtariEntry)
    options = OPTIONS
    backend_extras = EXTRAS
    environment_megabytes = 1.0

    def task(self, name: str, options: Mapping[str, Option] | None = None) -> Task:
        """One game; options: `frame_skip`, `sticky`, `noop_max`, `frame_stack`, `action_set` and
        `observation`.
        """
        entry, resolved = self.described(name, options)
        frame_skip = int(resolved["frame_skip"])
        observed = resolved["observation"]
        pixels = (int(resolved["frame_stack"]), PIXEL_SIZE, PIXEL_SIZE)
        actions = entry.full_actions if resolved["action_set"] == "full" else entry.minimal_actions
        return Task(
            name=name,
            observation=ObservationSpec(
                state=RAM_SIZE if observed in ("ram", "both") else None,
                pixels=pixels if observed in ("pixels", "both") else None,
            ),
            action=ActionSpec(discrete=actions),
            simulator_rate_hz=60.0,
            action_repeat=frame_skip,
            horizon_decisions=FRAME_LIMIT // frame_skip,
            score=entry.score,
            reward_version="game-score",
            options=tuple(resolved.items()),
        )

    def environment(self, task: Task) -> AtariEnvironment:
        """A new console with the game in it; takes about 0.2 s."""
        from .environment import AtariEnvironment

        return AtariEnvironment(task, self.entry(task.name).rom)

    def vector_backends(self, task: Task) -> tuple[str, ...]:
        """`native`, ale-py's own vector interface, shows images alone; `envpool` shows the memory too, and
        no images of games whose screen has an unusual height.
        """
        memory, images = task.observation.state is not None, task.observation.pixels is not None
        unseen = images and self.entry(task.name).rom in OTHER_SCREENS
        offered = {"native": not memory, "envpool": not unseen}
        return tuple(name for name in offered if offered[name])

    def vector_environment(self, task: Task, copies: int, backend: str, seed: int) -> VectorEnvironment:
        """`copies` consoles with the game in them; see `VectorSuite`. `native` can reset to a given start and
        does not use the seed.
        """
        hint = "'native' shows images alone, and EnvPool no images of screens of an unusual height"
        require_vector_backend(self, task, backend, hint)
        rom = self.entry(task.name).rom
        if backend == "native":
            from .native import NativeAtari

            return NativeAtari(task, rom, copies)
        return AtariPool(task, rom, copies, seed)


SUITE = AtariSuite()
