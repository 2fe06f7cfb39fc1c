"""The order of lanes: one after another, or in proportion to shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError


class RoundRobin:
    """Turns among K, one after another or in proportion to shares. Deterministic.

    With shares this is smooth weighted round robin: every turn adds each one's share to its credit, the
    largest credit has the turn and pays 1 for it. After n turns, one with share p has had n p turns, give
    or take less than one for two of them and little more for many.
    """

    def __init__(self, count: int) -> None:
        """In order, beginning with the first."""
        self._next = 0
        self._shares: npt.NDArray[np.float64] | None = None
        self._credit = np.zeros(count)

    def set_shares(self, shares: npt.NDArray[np.float64]) -> None:
        """[K], at least 0, sums to 1. Credits stay as they are."""
        if shares.shape != self._credit.shape or not np.isfinite(shares).all() or (shares < 0).any():
            raise ConfigError(f"shares are {len(self._credit)} numbers of at least 0; got {shares}")
        self._shares = shares.astype(np.float64)

    def take(self, without: Sequence[int]) -> int:
        """The next one of those that are not in `without`; one of them must be left."""
        left = np.ones(len(self._credit), dtype=bool)
        left[list(without)] = False
        assert left.any(), "at least one index must be outside `without`"
        if self._shares is None:
            while not left[self._next]:
                self._next = (self._next + 1) % len(left)
            turn, self._next = self._next, (self._next + 1) % len(left)
            return turn
        shares = np.where(left, self._shares, 0.0)
        if shares.sum() <= 0:
            shares = left.astype(np.float64)
        self._credit = np.where(left, self._credit + shares / shares.sum(), 0.0)
        # rounded, so that equals that differ by the last digit of a sum have the turn in order
        turn = int(np.where(left, np.round(self._credit, 9), -np.inf).argmax())
        self._credit[turn] -= 1.0
        return turn

    def state_dict(self) -> dict[str, Any]:
        """The next turn, and, where there are shares, these and their credit."""
        shares = None if self._shares is None else self._shares.tolist()
        return {"turn": self._next, "shares": shares, "credit": self._credit.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`."""
        self._next = int(state["turn"])
        self._shares = None
        if state["shares"] is not None:
            self._shares = np.array(state["shares"], dtype=np.float64)
            self._credit[:] = state["credit"]
