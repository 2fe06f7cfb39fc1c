"""Exact tests of two policies on the same starts; both look only at starts that one of them alone solved.

If neither policy is better, each such start is a fair coin. `exact_mcnemar` tests that once, for a number
of starts fixed in advance (McNemar 1947, in its exact form). `sequential_test` may be read after every
start and stopped as soon as it decides: it is a test martingale, so it errs with probability at most alpha
however often one looks (Ville 1939; Ramdas et al. 2023, "Game-theoretic statistics and safe anytime-valid
inference").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import scipy

from mtrl.errors import ConfigError, OutOfRangeError


@dataclass(frozen=True)
class SequentialTest:
    """What a paired sequential test says after the starts seen so far."""

    e_value: float
    """Evidence against "no difference" after the last start; 20 means as unlikely as 1 in 20."""
    p_value: float
    """1 / the greatest evidence so far, at most 1; valid at every moment."""
    decided_after: int | None
    """Starts after which the evidence first reached 1 / alpha; None while undecided."""


def exact_mcnemar(gained: int, lost: int) -> float:
    """Two-sided p-value of a fair coin that fell `gained` times on one side and `lost` times on the other.

    min(1, 2 P(X <= min(gained, lost))) with X ~ Binomial(gained + lost, 1/2); 1 without any of either.

    Raises:
        OutOfRangeError: a negative count.
    """
    if min(gained, lost) < 0:
        raise OutOfRangeError("gained, lost", (gained, lost), "counts of at least 0")
    if gained + lost == 0:
        return 1.0
    return min(1.0, 2.0 * float(scipy.special.bdtr(min(gained, lost), gained + lost, 0.5)))


def evidence(gained: int, lost: int) -> float:
    """The e-value 2^n B(gained + 1, lost + 1), n = gained + lost.

    It is the likelihood ratio of a coin whose bias is uniform on (0, 1) to a fair one. Beyond e^700, where
    floating point ends, it stays there.
    """
    logarithm = (gained + lost) * math.log(2.0) + float(scipy.special.betaln(gained + 1, lost + 1))
    return math.exp(min(logarithm, 700.0))


def sequential_test(first: Sequence[bool], second: Sequence[bool], alpha: float = 0.05) -> SequentialTest:
    """Tests whether two policies differ; outcome i of both is on the same start, in the order played.

    Raises:
        ConfigError: sequences of different lengths.
        OutOfRangeError: an alpha outside (0, 1).
    """
    if len(first) != len(second):
        raise ConfigError(f"pairing needs the same starts; got {len(first)} and {len(second)} outcomes")
    if not 0.0 < alpha < 1.0:
        raise OutOfRangeError("alpha", alpha, "between 0 and 1, for example 0.05")
    gained = lost = 0
    value = greatest = 1.0
    decided: int | None = None
    for seen, (ours, theirs) in enumerate(zip(first, second, strict=True), start=1):
        gained += ours and not theirs
        lost += theirs and not ours
        value = evidence(gained, lost)
        greatest = max(greatest, value)
        if decided is None and value >= 1.0 / alpha:
            decided = seen
    return SequentialTest(e_value=value, p_value=1.0 / greatest, decided_after=decided)
