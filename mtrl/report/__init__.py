"""The HTML report of a run, and its table of what was learned."""

from typing import TYPE_CHECKING

from mtrl.lazy import lazy_names

if TYPE_CHECKING:
    from .learning import learning_table
    from .page import write_report

__all__ = ["learning_table", "write_report"]

__getattr__, __dir__ = lazy_names(__name__)
