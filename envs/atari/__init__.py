"""Atari 2600: the 57 games with published human and random scores, stacked grey pixels or RAM."""

from .suite import SUITE

__all__ = ["SUITE"]
