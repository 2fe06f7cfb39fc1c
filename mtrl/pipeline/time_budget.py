"""The minutes that training may take: how many are left, and whether a finished policy may train further."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from mtrl.evaluation import read_saved, write_record
from mtrl.training import Checkpoints

from .console import resume_command
from .session import Session

RECORD = "training_time.json"
"""File next to a policy's metrics: the seconds that its training took in all sessions of the run together,
and the budget in minutes that ended it, 0 for none."""

AT_ONCE = 1e-9
"""Minutes that are over with the first update or fragment."""


class TimeBudget:
    """`training.minutes` for one policy of a run, over all its sessions."""

    def __init__(self, session: Session, place: Path) -> None:
        """`place` is where the policy's metrics and checkpoints are."""
        self._minutes, self._record = session.config.training.minutes, place / RECORD
        known = read_saved(self._record)
        self._seconds, self._ended_at = (float(known.get(key, 0)) for key in ("seconds", "ceiling"))
        self._began = 0.0

    @property
    def raised(self) -> bool:
        """Whether an earlier session ended by its budget and this one has a larger one; still true after a
        session in between that was stopped, so that what it has learned is not lost to the older policy.
        """
        return self._ended_at > 0 and (self._minutes == 0 or self._minutes > self._ended_at)

    def raised_beyond(self, budget: int) -> bool:
        """Whether a finished policy trains further: as in `raised`, or because its newest checkpoint is
        before `budget`, in units of its clock, and no minutes ended it.
        """
        reached = Checkpoints(self._record.parent).steps()
        return self.raised or (self._ended_at == 0 and bool(reached) and reached[-1] < budget)

    @property
    def left(self) -> float:
        """Minutes for the loop, 0 for no end. A budget that is used up already still leaves one step."""
        return max(AT_ONCE, self._minutes - self._seconds / 60) if self._minutes > 0 else 0.0

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Counts the time spent in the block, however it ends."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds += time.monotonic() - began
            self._write()

    def log_end(self, session: Session, what: str) -> None:
        """Records and prints that the budget ended the training; `what` is how far it came."""
        self._ended_at = self._minutes
        self._write()
        session.log(
            f"{what}: the budget of {self._minutes:g} minutes was used up and a checkpoint saved; the run "
            "goes on with the policy as it is. Train further with a larger budget:\n"
            f"  {resume_command({'training.minutes': f'{2 * self._minutes:g}'})}",
        )

    def forget(self) -> None:
        """Records that the training reached its own end: the kept policy is not trained further."""
        self._ended_at = 0.0
        self._write()

    def _write(self) -> None:
        write_record(self._record, {"seconds": self._seconds, "ceiling": self._ended_at}, overwrite=True)
