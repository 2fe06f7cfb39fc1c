"""How old collected data are: publications between the policy that acted and the newest."""

from __future__ import annotations

import sys
from collections import Counter, deque

from .policy import Version

STALENESS_BOUNDS = {"0": 0, "1": 1, "2": 2, "3-7": 7, "8+": sys.maxsize}
"""Parts of the histogram of staleness, with the largest value of each."""


class Staleness:
    """How many publications behind the newest policy fragments were."""

    def __init__(self) -> None:
        """Nothing was published."""
        self._published: deque[Version] = deque(maxlen=256)
        self._behind: Counter[int] = Counter()

    def publish(self, version: Version) -> None:
        """A policy that fragments may use from now on."""
        if not self._published or self._published[-1] != version:
            self._published.append(version)

    def add(self, version: Version) -> None:
        """The policy of a fragment that was taken; one older than 256 publications counts as that old."""
        self._behind[sum(published > version for published in self._published)] += 1

    def metrics(self) -> dict[str, float]:
        """Shares by part and the largest value, since the last call; empty without a fragment."""
        behind, self._behind = self._behind, Counter()
        if not behind:
            return {}
        found, lower = {"staleness_max": float(max(behind))}, 0
        for part, bound in STALENESS_BOUNDS.items():
            count = sum(n for value, n in behind.items() if lower <= value <= bound)
            found[f"staleness/{part}"], lower = count / behind.total(), bound + 1
        return found
