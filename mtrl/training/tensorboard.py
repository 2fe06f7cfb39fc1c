"""Metrics as event files for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtrl.ownership import require_ownership

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardTracker:
    """Writes scalars under `events/`; wall-clock measurements are grouped as `timing/...`."""

    name = "tensorboard"

    def __init__(self, run_directory: Path) -> None:
        """The first event file is opened when something is logged."""
        self._directory = run_directory / "events"
        self._last_step = -1
        self._purge_step: int | None = None
        self._writer: SummaryWriter | None = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records deterministic values at a step."""
        self._add(step, metrics, "")

    def timing(self, step: int, values: Mapping[str, float]) -> None:
        """Records wall-clock measurements at a step."""
        self._add(step, values, "timing/")

    def close(self) -> None:
        """Writes out and closes the event file."""
        if self._writer is not None:
            require_ownership()
            self._writer.close()
            self._writer = None

    def state_dict(self) -> dict[str, Any]:
        """The last step recorded."""
        if self._writer is not None:
            self._writer.flush()
        return {"last_step": self._last_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """A new event file makes TensorBoard hide every event after the state's last step."""
        self.close()
        self._last_step = int(state.get("last_step", -1))
        self._purge_step = self._last_step + 1

    def _add(self, step: int, values: Mapping[str, float], group: str) -> None:
        require_ownership()
        if self._writer is None:
            # TensorBoard takes a second to import, which a run without it should not pay.
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._directory), purge_step=self._purge_step)
        for key, value in values.items():
            self._writer.add_scalar(group + key, float(value), global_step=step)
        self._last_step = max(self._last_step, step)
