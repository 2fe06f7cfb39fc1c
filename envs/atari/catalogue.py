"""Regenerates catalogue.json from the installed package: `python -m mtrl.envs.atari.catalogue`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from ale_py import ALEInterface, LoggerMode

from mtrl.tasks.catalogue import catalogue_text

from .rom import rom_path
from .scores import ATARI_100K, SCORES
from .suite import AtariEntry


def entries(games: Iterable[str]) -> dict[str, AtariEntry]:
    """Loads each game once, about 0.2 s apiece."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    found = {}
    for game in games:
        rom = re.sub(r"(?<!^)(?=[A-Z])", "_", game).lower()
        console = ALEInterface()
        console.loadROM(rom_path(rom))
        random_return, human_return = SCORES[game]
        found[game] = AtariEntry(
            rom=rom,
            full_actions=len(console.getLegalActionSet()),
            minimal_actions=len(console.getMinimalActionSet()),
            random_return=random_return,
            human_return=human_return,
        )
    return found


def generate() -> str:
    """The text of catalogue.json."""
    sets = {"atari57": tuple(SCORES), "atari100k": ATARI_100K}
    return catalogue_text("atari", f"ale-py {version('ale-py')}", entries(SCORES), sets)


if __name__ == "__main__":
    Path(__file__).with_name("catalogue.json").write_text(generate(), encoding="utf-8")
