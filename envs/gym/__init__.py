"""Any environment of Gymnasium whose spaces are Box or Discrete: built-in, of a package, or your own."""

from .adding import add_environment
from .suite import SUITE

__all__ = ["SUITE", "add_environment"]
