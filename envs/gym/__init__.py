"""Any environment of Gymnasium whose spaces are Box or Discrete: built-in, of a package, or your own."""

from .suite import SUITE, add_environment

__all__ = ["SUITE", "add_environment"]
