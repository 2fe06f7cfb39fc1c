"""Meta-World v3: 50 robot-arm tasks of the official `metaworld` package, goal visible."""

from .suite import SUITE

__all__ = ["SUITE"]
