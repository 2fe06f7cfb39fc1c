"""Looking into the library's loop: its own figures, finished episodes, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from mtrl.errors import DivergenceError
from mtrl.training import BaselineRun

from .metrics import METRICS

LATEST = ("train/n_updates", "rollout/exploration_rate")
"""Figures of which the latest value is kept, not the mean."""


class Figures(Logger):
    """Keeps what the library records until it is taken, and writes nothing itself."""

    def __init__(self, learner: str) -> None:
        """`learner` is what a loss that is not finite is blamed on."""
        super().__init__(folder=None, output_formats=[])
        self._learner = learner
        self._seen: dict[str, list[float]] = {}
        self._updates = 0

    def record(self, key: str, value: Any, exclude: str | tuple[str, ...] | None = None) -> None:  # noqa: ANN401
        """Keeps a documented figure; raises DivergenceError for a loss that is not finite.

        A figure that is no number for a good reason, such as the explained variance of equal returns, is
        left out.
        """
        if key not in METRICS or value is None:
            return
        number = float(value)
        if key == "train/n_updates":
            self._updates = int(number)
        if math.isfinite(number):
            self._seen.setdefault(key, []).append(number)
        elif key.endswith("loss"):
            raise DivergenceError(self._learner, self._updates, f"{key} is {number}")

    def dump(self, step: int = 0) -> None:
        """Does nothing: figures are taken when the run asks for a record."""

    def take(self) -> Mapping[str, float]:
        """Means since they were last taken; of `LATEST` the last value."""
        found = {
            key: values[-1] if key in LATEST else float(np.mean(values)) for key, values in self._seen.items()
        }
        self._seen = {}
        return found


class Watching(BaseCallback):
    """Reports every step of the library's loop to a `BaselineRun`."""

    def __init__(self, run: BaselineRun, figures: Figures) -> None:
        """Ends the loop with the budget's last step, in the middle of a rollout if need be."""
        super().__init__()
        self._run, self._figures = run, figures
        self._before = 0

    def _on_training_start(self) -> None:
        self._before = self.num_timesteps

    def _on_step(self) -> bool:
        """Called after each step of all environments; False ends the loop."""
        run, step = self._run, self.num_timesteps
        for info in self.locals["infos"]:
            if "summary" in info:
                run.add(info["summary"])
        if step // run.log_every > self._before // run.log_every and step < run.budget:
            run.log(step, self._figures.take())
        self._before = step
        run.advance(step)
        return step < run.budget and not run.stop()
