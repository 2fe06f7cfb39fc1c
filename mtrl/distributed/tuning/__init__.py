"""Searching settings by whole runs: a space, a ledger of trials, and the search on Ray Tune.

Importing this package imports no Ray; `mtrl.distributed.tuning.search` does.
"""

from __future__ import annotations

from .ledger import Ledger, TrialRecord
from .space import Dimension, dimension_of

__all__ = ["Dimension", "Ledger", "TrialRecord", "dimension_of"]
