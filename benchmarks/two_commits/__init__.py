"""Two commits of this repository side by side: how fast each is, and whether both train the same."""

from .metrics import RUNS, Outcome, compare_metrics
from .speed import SCRIPTS, compare_speed
from .trees import CommitError, Side, sides_of, write_json

__all__ = [
    "RUNS",
    "SCRIPTS",
    "CommitError",
    "Outcome",
    "Side",
    "compare_metrics",
    "compare_speed",
    "sides_of",
    "write_json",
]
