"""The checkpoints of a run: `checkpoints/<step>/`, written whole, the newest few kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtrl.atomic import remove_directory, sweep_partials
from mtrl.errors import IntegrityError, OutOfRangeError


class Checkpoints:
    """Saves and finds the states of one run.

    Example:
        checkpoints = Checkpoints(run.path, keep=3)
        newest = checkpoints.latest()
        step, state = newest if newest is not None else (0, None)
    """

    def __init__(self, run_directory: Path, keep: int = 3) -> None:
        """`keep` is how many of the newest checkpoints stay on disk, at least 1."""
        if keep < 1:
            raise OutOfRangeError("keep", keep, "at least 1 checkpoint")
        self.directory = run_directory / "checkpoints"
        self.keep = keep

    def save(self, step: int, state: object) -> Path:
        """Writes the checkpoint of `step`, replacing one of the same step, then drops the oldest.

        Raises ResourceError when the disk is full; the earlier checkpoints are untouched then.
        """
        from .codec import save_state

        self.directory.mkdir(parents=True, exist_ok=True)
        sweep_partials(self.directory)
        target = self.directory / str(step)
        save_state(target, state, overwrite=True)
        for old in self.steps()[: -self.keep]:
            if old != step:
                remove_directory(self.directory / str(old))
        return target

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        if not self.directory.is_dir():
            return []
        return sorted(
            int(path.name) for path in self.directory.iterdir() if path.is_dir() and path.name.isdecimal()
        )

    def load(self, step: int) -> Any:  # noqa: ANN401 - a state is whatever was saved
        """The state saved at `step`; raises IntegrityError when it is missing or damaged."""
        from .codec import load_state

        return load_state(self.directory / str(step))

    def latest(self) -> tuple[int, Any] | None:
        """Step and state of the newest checkpoint, None when there is none.

        A damaged newest checkpoint raises IntegrityError naming the file. It is not skipped: going back
        in a run is for a person to decide, by removing that checkpoint.
        """
        steps = self.steps()
        if not steps:
            return None
        try:
            return steps[-1], self.load(steps[-1])
        except IntegrityError as error:
            if len(steps) == 1:
                raise
            raise IntegrityError(
                f"{error}, or remove {self.directory / str(steps[-1])} to go on from step {steps[-2]}"
            ) from error
