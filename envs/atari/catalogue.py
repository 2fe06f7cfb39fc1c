"""Regenerates catalogue.json from the installed package: `python -m mtrl.envs.atari.catalogue`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from ale_py import roms

from mtrl.tasks.catalogue import catalogue_text

from .console import load_console
from .suite import AtariEntry

SCORES: dict[str, list[float]] = json.loads(
    Path(__file__).with_name("published_returns.json").read_text(encoding="utf-8")
)
"""Game -> [random return, human return]: means over games begun with 1 to 30 no-ops and cut at 108,000
frames, without sticky actions, as listed by DeepMind's DQN Zoo (and Wang et al. 2016, table 2). A few
papers take 0 for random Video Pinball."""

ATARI_100K = (
    "Alien", "Amidar", "Assault", "Asterix", "BankHeist", "BattleZone", "Boxing", "Breakout",
    "ChopperCommand", "CrazyClimber", "DemonAttack", "Freeway", "Frostbite", "Gopher", "Hero", "Jamesbond",
    "Kangaroo", "Krull", "KungFuMaster", "MsPacman", "Pong", "PrivateEye", "Qbert", "RoadRunner", "Seaquest",
    "UpNDown",
)  # fmt: skip
"""The 26 games of the 100,000-step benchmark (Kaiser et al. 2020)."""

LEFT_OUT = {
    "combat": "two players",
    "joust": "two players",
    "maze_craze": "two players",
    "warlords": "two to four players",
}
"""ROMs that ale-py ships without a game for one player, and why: the single-player emulator has no rewards
for them, and ends the whole process when it loads one."""


def offered_roms() -> tuple[str, ...]:
    """Names of the ROMs that one player can play, in alphabetical order."""
    return tuple(sorted(rom for rom in roms.get_all_rom_ids() if rom not in LEFT_OUT))


def game_name(rom: str) -> str:
    """The game's name as in gymnasium's "ALE/<name>-v5": "UpNDown" for "up_n_down"."""
    return rom.title().replace("_", "")


def entries(games: Iterable[str]) -> dict[str, AtariEntry]:
    """Loads each game of these ROMs once, about 0.2 s apiece."""
    found = {}
    for rom in games:
        console = load_console(rom)
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
