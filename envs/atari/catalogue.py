"""Regenerates catalogue.json from the installed package: `python -m mtrl.envs.atari.catalogue`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from ale_py import ALEInterface, LoggerMode, roms

from mtrl.tasks.catalogue import catalogue_text

from .console import rom_path
from .suite import AtariEntry

SCORES = {
    "Alien": (227.8, 7127.7),
    "Amidar": (5.8, 1719.5),
    "Assault": (222.4, 742.0),
    "Asterix": (210.0, 8503.3),
    "Asteroids": (719.1, 47388.7),
    "Atlantis": (12850.0, 29028.1),
    "BankHeist": (14.2, 753.1),
    "BattleZone": (2360.0, 37187.5),
    "BeamRider": (363.9, 16926.5),
    "Berzerk": (123.7, 2630.4),
    "Bowling": (23.1, 160.7),
    "Boxing": (0.1, 12.1),
    "Breakout": (1.7, 30.5),
    "Centipede": (2090.9, 12017.0),
    "ChopperCommand": (811.0, 7387.8),
    "CrazyClimber": (10780.5, 35829.4),
    "Defender": (2874.5, 18688.9),
    "DemonAttack": (152.1, 1971.0),
    "DoubleDunk": (-18.6, -16.4),
    "Enduro": (0.0, 860.5),
    "FishingDerby": (-91.7, -38.7),
    "Freeway": (0.0, 29.6),
    "Frostbite": (65.2, 4334.7),
    "Gopher": (257.6, 2412.5),
    "Gravitar": (173.0, 3351.4),
    "Hero": (1027.0, 30826.4),
    "IceHockey": (-11.2, 0.9),
    "Jamesbond": (29.0, 302.8),
    "Kangaroo": (52.0, 3035.0),
    "Krull": (1598.0, 2665.5),
    "KungFuMaster": (258.5, 22736.3),
    "MontezumaRevenge": (0.0, 4753.3),
    "MsPacman": (307.3, 6951.6),
    "NameThisGame": (2292.3, 8049.0),
    "Phoenix": (761.4, 7242.6),
    "Pitfall": (-229.4, 6463.7),
    "Pong": (-20.7, 14.6),
    "PrivateEye": (24.9, 69571.3),
    "Qbert": (163.9, 13455.0),
    "Riverraid": (1338.5, 17118.0),
    "RoadRunner": (11.5, 7845.0),
    "Robotank": (2.2, 11.9),
    "Seaquest": (68.4, 42054.7),
    "Skiing": (-17098.1, -4336.9),
    "Solaris": (1236.3, 12326.7),
    "SpaceInvaders": (148.0, 1668.7),
    "StarGunner": (664.0, 10250.0),
    "Surround": (-10.0, 6.5),
    "Tennis": (-23.8, -8.3),
    "TimePilot": (3568.0, 5229.2),
    "Tutankham": (11.4, 167.6),
    "UpNDown": (533.4, 11693.2),
    "Venture": (0.0, 1187.5),
    "VideoPinball": (16256.9, 17667.9),
    "WizardOfWor": (563.5, 4756.5),
    "YarsRevenge": (3092.9, 54576.9),
    "Zaxxon": (32.5, 9173.3),
}
"""Game -> (random return, human return): means over games begun with 1 to 30 no-ops and cut at 108,000
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
