"""The HTML report of a run, and its table of what was learned."""

from .learning import learning_table
from .page import write_report

__all__ = ["learning_table", "write_report"]
