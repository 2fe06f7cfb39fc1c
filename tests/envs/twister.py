"""The random numbers of EnvPool's C++ simulators, drawn again in Python.

EnvPool tells nobody what it drew at a reset. But its copies draw from `std::mt19937` by the rules of the GNU
C++ library, and both are known: so an official simulator that draws from this stream, in the same order,
begins in the same state.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Drawn = float | npt.NDArray[np.float64]
Size = int | Sequence[int] | None


class TwisterStream:
    """Stands in for numpy's RandomState or Generator; made of the seed of one copy."""

    def __init__(self, seed: int) -> None:
        self._words = np.random.MT19937()
        self._words._legacy_seeding(seed)

    def uniform(self, low: npt.ArrayLike = 0.0, high: npt.ArrayLike = 1.0, size: Size = None) -> Drawn:
        """std::uniform_real_distribution; bounds may be arrays, of the size asked for."""
        lows, highs = np.broadcast_arrays(np.asarray(low, dtype=float), np.asarray(high, dtype=float))
        if size is None and lows.shape == ():
            return self._canonical() * float(highs - lows) + float(lows)
        shape = lows.shape if size is None else tuple(np.atleast_1d(size))
        widths, lows = np.broadcast_to(highs - lows, shape), np.broadcast_to(lows, shape)
        drawn = [
            self._canonical() * width + least for width, least in zip(widths.flat, lows.flat, strict=True)
        ]
        return np.array(drawn).reshape(shape)

    def rand(self, *shape: int) -> Drawn:
        return self._several(shape, self._canonical)

    def randn(self, *shape: int) -> Drawn:
        return self._several(shape, self._normal)

    def randint(self, high: int) -> int:
        """std::uniform_int_distribution below a power of two: the highest bits of one word."""
        assert high & (high - 1) == 0
        return int(self._words.random_raw()) * high >> 32

    def choice(self, options: Sequence[str], p: Sequence[float]) -> str:
        """How the manipulator's object begins: EnvPool asks for the target before it asks for the hand."""
        chances = dict(zip(options, p, strict=True))
        drawn, total = self._canonical(), 0.0
        for option in ("in_target", "in_hand"):
            total += chances[option]
            if drawn <= total:
                return option
        return "uniform"

    def _canonical(self) -> float:
        """std::generate_canonical<double, 53>: two words, the first the less significant."""
        low, high = (int(word) for word in self._words.random_raw(2))
        return min((low + high * 2.0**32) / 2.0**64, float(np.nextafter(1.0, 0.0)))

    def _normal(self) -> float:
        """std::normal_distribution, made anew each time: Marsaglia's polar method, one number of the two."""
        while True:
            x, y = 2.0 * self._canonical() - 1.0, 2.0 * self._canonical() - 1.0
            square = x * x + y * y
            if 0.0 < square <= 1.0:
                return y * float(np.sqrt(-2.0 * np.log(square) / square))

    def _several(self, shape: Sequence[int], draw: Callable[[], float]) -> Drawn:
        if not shape:
            return draw()
        return np.array([draw() for _ in range(int(np.prod(shape)))]).reshape(shape)
