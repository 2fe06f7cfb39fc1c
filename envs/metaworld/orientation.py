"""Quaternions of rotation matrices, as SciPy computes them, without its checks of whole arrays."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

_SKEW = 1e-13
"""Off-diagonal entries of M M^T up to which M counts as orthogonal; SciPy takes 1e-12."""
_STRETCH = 1e-6
"""Deviation of the diagonal of M M^T from 1; SciPy takes 1e-5."""


class FasterRotation:
    """Replaces SciPy's `Rotation` where a simulator computes the quaternion of one of its bodies.

    A matrix within the tolerances above takes Markley's formula (2008, "Unit quaternion from rotation
    matrix") in plain floats, in the order in which SciPy evaluates it, so that the result is bit-equal; any
    other is converted by SciPy.
    """

    def __init__(self, quaternion: npt.NDArray[np.float64]) -> None:
        self._quaternion = quaternion

    @staticmethod
    def from_matrix(matrix: npt.NDArray[np.float64]) -> FasterRotation:
        """`matrix`: [3, 3]."""
        if matrix.shape != (3, 3):
            return FasterRotation(Rotation.from_matrix(matrix).as_quat())
        (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
        if not (
            abs(a * d + b * e + c * f) < _SKEW
            and abs(a * g + b * h + c * i) < _SKEW
            and abs(d * g + e * h + f * i) < _SKEW
            and abs(a * a + b * b + c * c - 1.0) < _STRETCH
            and abs(d * d + e * e + f * f - 1.0) < _STRETCH
            and abs(g * g + h * h + i * i - 1.0) < _STRETCH
            and a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) > 0.5
        ):
            return FasterRotation(Rotation.from_matrix(matrix).as_quat())
        trace = a + e + i
        largest = max(a, e, i, trace)
        if largest == a:
            x, y, z, w = 1.0 - trace + 2.0 * a, d + b, g + c, h - f
        elif largest == e:
            x, y, z, w = b + d, 1.0 - trace + 2.0 * e, h + f, c - g
        elif largest == i:
            x, y, z, w = c + g, f + h, 1.0 - trace + 2.0 * i, d - b
        else:
            x, y, z, w = h - f, c - g, d - b, 1.0 + trace
        norm = math.sqrt(x * x + y * y + z * z + w * w)
        return FasterRotation(np.array((x / norm, y / norm, z / norm, w / norm)))

    def as_quat(self) -> npt.NDArray[np.float64]:
        """[4], x, y, z, w."""
        return self._quaternion
