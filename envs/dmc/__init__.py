"""DeepMind Control: the 28 benchmarking tasks of `dm_control.suite`, state observations."""

from .suite import SUITE

__all__ = ["SUITE"]
