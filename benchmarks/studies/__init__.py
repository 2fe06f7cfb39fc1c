"""Studies: several seeds and variants of a training, kept in committed JSON that pages are drawn from."""

from .record import Finished, Study, StudyError, TaskOutcome, read_finished, write_finished
from .runner import run_studies
from .table import draw

__all__ = [
    "Finished",
    "Study",
    "StudyError",
    "TaskOutcome",
    "draw",
    "read_finished",
    "run_studies",
    "write_finished",
]
