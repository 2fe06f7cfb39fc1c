"""Whether a site's `robot.yaml` fits its tasks and artefact, found out from files alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtrl.errors import ConfigError, GuardError
from mtrl.tasks import Task

from ..guard.limits import RobotConfig
from .joint_environment import Limits
from .site import Site, read_site
from .terms import action_terms, observation_terms

if TYPE_CHECKING:
    from .kinematics import Kinematics


def require_fit(path: Path, config: RobotConfig, tasks: Sequence[Task], artefact: str) -> None:
    """Refuses what the file at `path` does not fit, before anything is connected or commanded.

    `artefact`: its id. Raises IntegrityError for a file that is none, GuardError for an artefact that the
    site does not take, ConfigError or UnknownNameError for a task that it cannot carry out.
    """
    site = read_site(path)
    if not artefact.startswith(site.artefact):
        raise GuardError(
            f"{path} takes the artefact {site.artefact} only; this one is {artefact}. If it is "
            "meant to fly, write its id there"
        )
    for task in tasks:
        _require_fit(site, path.parent, task, config)
    kinematics_of(site, path)


def require_pinned(path: Path, artefact: str) -> None:
    """Refuses to move a robot whose file at `path` names no artefact; raises GuardError with what to write.

    Whether it names this one is found out by `require_fit`.
    """
    if not read_site(path).artefact:
        raise GuardError(
            f"{path} names no artefact that may move this robot. After mtrl inspect and a --shadow and a "
            f"--dry-run of it, write there: artefact: {artefact[:12]}"
        )


def kinematics_of(site: Site, path: Path) -> Kinematics | None:
    """The kinematics of the site's model; None where it has none. `path`: that of `robot.yaml`."""
    if not site.model:
        return None
    from .kinematics import Kinematics

    limits = Limits(site)
    names = [joint.name for joint in site.joints]
    return Kinematics(path.parent / site.model, site.tool, names, limits.low, limits.high)


def _require_fit(site: Site, folder: Path, task: Task, config: RobotConfig) -> None:
    """Refuses a task that the site's file does not fit, before anything is connected.

    Raises ConfigError or UnknownNameError with the reason. `folder`: that of `robot.yaml`.
    """
    if task.action.is_discrete:
        raise ConfigError(
            f"{task.name} is a choice among actions, which no term of robot.yaml moves a joint by"
        )
    binding = site.binding(task.name)
    names = [joint.name for joint in site.joints]
    observation = observation_terms(binding.observation, names, site.topics.perception_size)
    action = action_terms(binding.action, names)
    if len(observation) != task.observation.state or len(action) != task.action.continuous:
        raise ConfigError(
            f"robot.yaml gives {task.name} {len(observation)} observations and {len(action)} actions; "
            f"the task has {task.observation.state} and {task.action.continuous}"
        )
    success = binding.success
    if success is not None and max(*success.of, *success.to, 0) >= len(observation):
        raise ConfigError(f"robot.yaml: success of {task.name} names an entry that no observation has")
    kept = config.kept_dimensions(task.suite)
    for dimension, term in enumerate(action):
        if (term.kind == "position") != (dimension in kept):
            verb = "must" if term.kind == "position" else "must not"
            raise ConfigError(
                f"dimension {dimension} of {task.name} is {term.kind}.{term.name}, so robot.hold_last {verb} "
                f"hold {task.suite}:{dimension}: held at zero, a position moves; kept, a shift goes on"
            )
    moves = any(term.kind == "tool" for term in action)
    if (moves or any(term.kind == "tool" for term in observation)) and not site.model:
        raise ConfigError(f"robot.yaml: {task.name} names the tool, so it needs `model`, an MJCF file")
    if moves and site.workspace is None:
        raise ConfigError(f"robot.yaml: {task.name} moves the tool, so it needs `workspace`")
    if site.model and not (folder / site.model).is_file():
        raise ConfigError(f"robot.yaml: there is no model {folder / site.model}")
