"""The DeepMind Control suite: names, protocols and constructors; imports no simulator."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtrl.errors import UnknownNameError
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Catalogue, CatalogueSuite, Option, OptionRule, Score, Task, require_vector_backend

from ..envpool import EXTRAS
from ..offscreen import drawing_errors

if TYPE_CHECKING:
    from .environment import ControlEnvironment
    from .pool import ControlPool

USUAL_CAMERA = "usual"
"""The option `camera` that lets the domain decide."""

OPTIONS = {
    # control steps that one action is held for; 2 is usual in recent model-based work
    "action_repeat": OptionRule(1, low=1, high=16),
    # dm_control's own numbers, its images, or both
    "observation": OptionRule("state", choices=("state", "pixels", "both")),
    # height and width of an image; 84 as for Atari, 64 in Dreamer and TD-MPC2
    "pixel_size": OptionRule(84, low=16, high=480),
    # images of the last decisions that an observation holds
    "frame_stack": OptionRule(3, low=1, high=16),
    # three channels an image or one; 4 grey images of 84 x 84 fit into one set with Atari
    "colour": OptionRule("rgb", choices=("rgb", "grey")),
    # name of a camera of the model
    "camera": OptionRule(USUAL_CAMERA),
}

SIDE_CAMERAS = {"quadruped": "y", "dog": "y-axis"}
"""Usual cameras that are not the model's first: the quadruped's first one stands still, and the first of
the dog that fetches sits on the ball. For the quadruped this is also what DrQ and TD-MPC2 look through."""

OTHER_PROBLEMS = frozenset(
    {
        # the second and third hinge begin ten times closer to upright
        "cartpole-three_poles",
        "cartpole-two_poles",
        # motors without limits, and masses and springs of its own
        "lqr-lqr_2_1",
        "lqr-lqr_6_2",
        # a terrain of noise, where dm_control's is smooth
        "quadruped-escape",
    }
)
"""Tasks "domain-task" that EnvPool has under dm_control's name and that are other problems there."""

RETURNS = {"dmc/lqr-lqr_2_1": (498.0, 849.0), "dmc/lqr-lqr_6_2": (495.0, 763.0)}
"""Returns that score 0 and 1 where 0 and 1000 would be untrue. LQR's reward is 1 minus a quadratic cost: a
controller that does nothing collects half of 1000, and no controller can collect 1000. Measured: the mean
over the first 100 test starts without force, and with the optimal linear controller of dm_control's
`lqr_solver`."""

LARGE_MEGABYTES = {"dog": 130.0}
"""Resident memory of one simulator of the domains that take far more than the others, measured."""
PIXELS_MEGABYTES = 60.0
"""Resident memory that drawing adds (OSMesa, 84 x 84), measured; mostly shadows and textures."""


@dataclass(frozen=True)
class ControlEntry:
    """Data from which a DeepMind Control task is listed."""

    domain: str
    """First argument of dm_control's `suite.load`."""
    task: str
    """Second argument of dm_control's `suite.load`."""
    state: int
    """Length of all observations concatenated in dm_control's order."""
    action: int
    """Number of actuators."""
    control_timestep: float
    """Seconds of simulation per control step."""
    step_limit: int
    """Control steps per episode."""
    cameras: Sequence[str]
    """Names of the model's cameras, in the model's order."""


class ControlSuite(CatalogueSuite[ControlEntry]):
    """DeepMind Control (Tassa et al. 2018): every task of dm_control's suite, the benchmark's 28 first.

    A control step's reward lies in [0, 1] and a return in [0, 1000], but for LQR: see `RETURNS`. Sets:
    `dmc18`, `dmc28` (dm_control's BENCHMARKING) and `dmc-all`.
    """

    name = "dmc"
    catalogue = Catalogue.read(Path(__file__).with_name("catalogue.json"), ControlEntry)
    options = OPTIONS
    environment_megabytes = 20.0
    backend_extras = EXTRAS

    def task(self, name: str, options: Mapping[str, Option] | None = None) -> Task:
        """One task; options: `action_repeat` (1 to 16 control steps per decision), `observation`,
        `pixel_size`, `frame_stack`, `colour` and `camera`.
        """
        entry, resolved = self.described(name, options)
        camera = str(resolved["camera"])
        if camera not in (USUAL_CAMERA, *entry.cameras):
            raise UnknownNameError(f"camera of {name}", camera, (USUAL_CAMERA, *entry.cameras))
        repeat = int(resolved["action_repeat"])
        observed = resolved["observation"]
        size = int(resolved["pixel_size"])
        channels = int(resolved["frame_stack"]) * (3 if resolved["colour"] == "rgb" else 1)
        low, high = RETURNS.get(name, (0.0, 1000.0))
        return Task(
            name=name,
            observation=ObservationSpec(
                state=entry.state if observed in ("state", "both") else None,
                pixels=(channels, size, size) if observed in ("pixels", "both") else None,
            ),
            action=ActionSpec(continuous=entry.action),
            simulator_rate_hz=1.0 / entry.control_timestep,
            action_repeat=repeat,
            horizon_decisions=math.ceil(entry.step_limit / repeat),
            score=Score("return", low=low, high=high),
            reward_version="dm_control-1",
            options=tuple(resolved.items()),
        )

    def environment(self, task: Task) -> ControlEnvironment:
        """A new simulator of the task; raises UnsupportedError for pixels without off-screen OpenGL."""
        entry = self.entry(task.name)
        # An environment draws in the thread that steps it. dm_control would draw with OSMesa in a thread of
        # its own, which Python stops before the contexts are freed: a traceback for each at every exit.
        os.environ.setdefault("DISABLE_RENDER_THREAD_OFFLOADING", "1")
        with _importing():
            from .environment import ControlEnvironment
        camera = str(task.option("camera", USUAL_CAMERA))
        if camera == USUAL_CAMERA:
            camera = SIDE_CAMERAS.get(entry.domain, entry.cameras[0])
        return ControlEnvironment(task, entry.domain, entry.task, camera)

    def vector_backends(self, task: Task) -> tuple[str, ...]:
        """EnvPool steps all but a handful of the tasks; states alone."""
        other = task.short_name in OTHER_PROBLEMS
        return () if other or task.observation.pixels is not None else ("envpool",)

    def vector_environment(self, task: Task, copies: int, backend: str, seed: int) -> ControlPool:
        """A pool of the task; raises MissingExtraError where EnvPool is not installed."""
        hint = "EnvPool shows states alone, and some of its tasks are other problems than dm_control's"
        require_vector_backend(self, task, backend, hint)
        with _importing():
            from .pool import ControlPool
        entry = self.entry(task.name)
        return ControlPool(task, entry.domain, entry.task, copies, seed, step_limit=entry.step_limit)

    def task_megabytes(self, task: Task) -> float:
        """Resident memory of one environment of this task, in megabytes, measured."""
        domain = self.entry(task.name).domain
        simulator = LARGE_MEGABYTES.get(domain, self.environment_megabytes)
        return simulator + (PIXELS_MEGABYTES if task.observation.pixels is not None else 0.0)


@contextmanager
def _importing() -> Iterator[None]:
    """Around imports of dm_control, which looks for a display then and warns where there is none."""
    with warnings.catch_warnings(), drawing_errors("dmc"):
        warnings.simplefilter("ignore")
        yield


SUITE = ControlSuite()
