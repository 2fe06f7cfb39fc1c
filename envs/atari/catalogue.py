"""Regenerates catalogue.json from the installed package: `python -m mtrl.envs.atari.catalogue`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from ale_py import ALEInterface, LoggerMode, roms

from mtrl.tasks.catalogue import catalogue_text

from .rom import rom_path
from .scores import ATARI_100K, SCORES
from .suite import AtariEntry

LEFT_OUT = {
    "combat": "two players",
    "joust": "two players",
    "maze_craze": "two players",
    "warlords": "two to four players",
}
"""ROMs that ale-py ships without a game for one player, and why: the single-player emulator knows no rewards
for them, and ends the whole process when it is asked to load one."""


def offered_roms() -> tuple[str, ...]:
    """Names of the ROMs that one player can play, in alphabetical order."""
    return tuple(sorted(rom for rom in roms.get_all_rom_ids() if rom not in LEFT_OUT))


def game_name(rom: str) -> str:
    """The game's name as in gymnasium's "ALE/<name>-v5": "UpNDown" for "up_n_down"."""
    return rom.title().replace("_", "")


def entries(games: Iterable[str]) -> dict[str, AtariEntry]:
    """Loads each game of these ROMs once, about 0.2 s apiece."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    found = {}
    for rom in games:
        console = ALEInterface()
        console.loadROM(rom_path(rom))
        name = game_name(rom)
        random_return, human_return = SCORES.get(name, (None, None))
        found[name] = AtariEntry(
            rom=rom,
            full_actions=len(console.getLegalActionSet()),
            minimal_actions=len(console.getMinimalActionSet()),
            random_return=random_return,
            human_return=human_return,
        )
    return found


def generate() -> str:
    """The text of catalogue.json."""
    sets = {"atari57": tuple(SCORES), "atari26": ATARI_100K, "atari100k": ATARI_100K}
    return catalogue_text("atari", f"ale-py {version('ale-py')}", entries(offered_roms()), sets)


if __name__ == "__main__":
    Path(__file__).with_name("catalogue.json").write_text(generate(), encoding="utf-8")
