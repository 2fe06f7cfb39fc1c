"""Named task sets that mix suites, or that change a suite's settings."""

from __future__ import annotations

from mtrl.tasks import NamedSet

from .atari import SUITE as ATARI

MIXED = NamedSet(
    (
        "metaworld/reach-v3",
        "metaworld/drawer-close-v3",
        "dmc/cartpole-swingup",
        "gym/CartPole-v1",
        "maze2d/umaze",
        "atari/Pong",
    )
)
"""States and images, continuous and discrete actions in one set: two arms, a cart of each kind of action, a
ball in a maze, and a game on the screen."""

ATARI_RAM = NamedSet(ATARI.sets()["atari100k"], {"atari": {"observation": "ram"}})
"""The 26 games of Atari 100k (Kaiser et al. 2020), observed through the console's 128 bytes of memory."""
