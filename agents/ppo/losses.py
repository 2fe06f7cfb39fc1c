"""Generalised advantage estimation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float64]


def generalised_advantages(
    reward: Rows,
    value: Rows,
    next_value: Rows,
    final: npt.NDArray[np.bool_],
    ended: npt.NDArray[np.bool_],
    discount: float,
    decay: float,
) -> Rows:
    """[T, N] of [T, N] each (Schulman et al. 2016, arXiv 1506.02438, equation 16).

    `next_value` is that of the true successor. `final` steps do not bootstrap, `ended` ones are the last of
    an episode, terminated or truncated.
    """
    # delta_t = r_t + gamma V(s_{t+1}) (1 - final_t) - V(s_t)
    delta = reward + discount * next_value * ~final - value
    found, running = np.empty_like(delta), np.zeros(delta.shape[1])
    for t in range(len(delta) - 1, -1, -1):
        # A_t = delta_t + gamma lambda (1 - ended_t) A_{t+1}
        running = delta[t] + discount * decay * running * ~ended[t]
        found[t] = running
    return found
