"""The official scripted policies as experts."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from metaworld.policies import ENV_POLICY_MAP
from metaworld.policies.policy import Policy

from mtrl.tasks import Buffers


class MetaworldExpert:
    """One of metaworld's scripted policies: a function of the observation, the same in every episode."""

    def __init__(self, short_name: str) -> None:
        """`short_name` is metaworld's own, such as "reach-v3"."""
        # these policies are proportional controllers whose commands may exceed the range; `act` clips them
        warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high")
        policy_class: Callable[[], Policy] = ENV_POLICY_MAP[short_name]
        self._policy = policy_class()

    def reset(self, generator: np.random.Generator) -> None:
        """Nothing to draw: the policy is deterministic and keeps no state."""

    def act(self, observation: Buffers) -> npt.NDArray[np.float32]:
        """The clean action [4], clipped to [-1, 1]."""
        action = self._policy.get_action(observation["state"].astype(np.float64))
        return np.clip(action, -1.0, 1.0).astype(np.float32)
