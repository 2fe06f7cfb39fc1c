"""Atari 2600: every game of ale-py that one player can play, as stacked grey images or memory."""

from .suite import SUITE

__all__ = ["SUITE"]
