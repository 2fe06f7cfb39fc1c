"""What EnvPool calls the suites' tasks, and which of them it cannot stand in for; imports no simulator."""

from __future__ import annotations

from collections.abc import Mapping

EXTRAS: Mapping[str, str] = {"envpool": "envpool"}
"""What the suites say of the backend: its package, and the extra that installs it."""

OTHER_SCREENS = frozenset(
    {
        "adventure",
        "air_raid",
        "carnival",
        "journey_escape",
        "keystone_kapers",
        "king_kong",
        "klax",
        "laser_gates",
        "mr_do",
        "pacman",
        "pooyan",
        "sir_lancelot",
        "space_war",
    }
)
"""ROMs whose screen is not 210 lines high, which EnvPool takes for granted: its pictures are other ones."""

OTHER_PROBLEMS = frozenset(
    {
        # the second and third hinge begin ten times closer to upright
        "cartpole-three_poles",
        "cartpole-two_poles",
        # motors without limits, and masses and springs of its own
        "lqr-lqr_2_1",
        "lqr-lqr_6_2",
        # a terrain of noise, where dm_control's is smooth
        "quadruped-escape",
    }
)
"""Tasks "domain-task" that EnvPool has under dm_control's name and that are other problems there."""


def metaworld_identifier(short_name: str) -> str:
    """EnvPool's name: "MetaWorld/PickPlace-v3" for "pick-place-v3"."""
    *words, version = short_name.split("-")
    return f"MetaWorld/{''.join(word.capitalize() for word in words)}-{version}"


def control_identifier(domain: str, task: str) -> str:
    """EnvPool's name: "BallInCupCatch-v1" for "ball_in_cup" and "catch"."""
    words = [*domain.split("_"), *task.split("_")]
    return "".join(word[:1].upper() + word[1:] for word in words) + "-v1"


def atari_identifier(rom: str) -> str:
    """EnvPool's name: "UpNDown-v5" for "up_n_down"."""
    return "".join(word.capitalize() for word in rom.split("_")) + "-v5"
