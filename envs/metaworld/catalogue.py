"""Regenerates catalogue.json from the installed package: `python -m mtrl.envs.metaworld.catalogue`."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from gymnasium.spaces import flatdim
from metaworld.env_dict import ALL_V3_ENVIRONMENTS, MT10_V3, MT25_V3, MT50_V3
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from mtrl.tasks.catalogue import catalogue_text

from .suite import MetaworldEntry


def entry(simulator: SawyerXYZEnv) -> MetaworldEntry:
    """The catalogue's entry of an official simulator."""
    return MetaworldEntry(
        state=flatdim(simulator.sawyer_observation_space), action=flatdim(simulator.action_space)
    )


def generate() -> str:
    """The text of catalogue.json; builds every task once, about 15 s."""
    tasks = {short_name: entry(build()) for short_name, build in ALL_V3_ENVIRONMENTS.items()}
    sets = {"mt10": tuple(MT10_V3), "mt25": tuple(MT25_V3), "mt50": tuple(MT50_V3)}
    return catalogue_text("metaworld", f"metaworld {version('metaworld')}", tasks, sets)


if __name__ == "__main__":
    Path(__file__).with_name("catalogue.json").write_text(generate(), encoding="utf-8")
