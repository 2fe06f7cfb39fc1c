"""Whether a site's `robot.yaml` fits its tasks and artefact, found out from files alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtrl.errors import ConfigError, GuardError
from mtrl.tasks import Task

from ..artefact.joints import Quantity, tighter_joints
from ..artefact.manifest import Manifest, TaskEntry
from ..guard.limits import RobotConfig
from .joint_guard import Limits
from .site import Site, read_site
from .terms import action_terms, observation_terms, quantities

if TYPE_CHECKING:
    from .kinematics import Kinematics


def require_fit(
    path: Path,
    config: RobotConfig,
    tasks: Sequence[Task],
    artefact: str,
    manifest: Manifest | None = None,
) -> None:
    """Refuses what the file at `path` does not fit, before anything is connected or commanded.

    `artefact`: its id, and `manifest` what it says. Raises IntegrityError for a file that is none, GuardError
    for an artefact that the site does not take, ConfigError or UnknownNameError for a task that it cannot
    carry out, and for joints, entries or units that are not those that the artefact names.
    """
    site = effective_site(path, manifest)
    if not artefact.startswith(site.artefact):
        raise GuardError(
            f"{path} takes the artefact {site.artefact} only; this one is {artefact}. If it is "
            "meant to fly, write its id there"
        )
    for task in tasks:
        _require_fit(site, path.parent, task, config)
        if manifest is not None:
            _require_names(site, task, manifest)
    kinematics = kinematics_of(site, path)
    if site.clearance_mm and (kinematics is None or not kinematics.pairs):
        raise ConfigError(
            "robot.yaml: clearance_mm needs `model`, an MJCF file with capsules or spheres of parts that are "
            "no neighbours"
        )


def effective_site(path: Path, manifest: Manifest | None) -> Site:
    """The site's file at `path`, each joint with the tighter limits of the file and the artefact.

    Raises IntegrityError for a file that is none, ConfigError for other joints than the artefact names.
    """
    site = read_site(path)
    asked = manifest.joints if manifest is not None else ()
    return replace(site, joints=tighter_joints(site.joints, asked, "the artefact"))


def named_entries(site: Site, task: str) -> tuple[tuple[Quantity, ...], tuple[Quantity, ...]]:
    """Observation and action of a task as the site's file has them: what an artefact is exported with."""
    binding = site.binding(task)
    names = [joint.name for joint in site.joints]
    observation = observation_terms(binding.observation, names, site.topics.perception_size)
    return quantities(observation, site.joints), quantities(action_terms(binding.action, names), site.joints)


def require_pinned(path: Path, artefact: str) -> None:
    """Refuses to move a robot whose file at `path` names no artefact; raises GuardError with what to write.

    Whether it names this one is found out by `require_fit`.
    """
    if not read_site(path).artefact:
        raise GuardError(
            f"{path} names no artefact that may move this robot. After mtrl inspect and a --shadow and a "
            f"--dry-run of it, write there: artefact: {artefact[:12]}"
        )


def kinematics_of(site: Site, path: Path, text: str = "") -> Kinematics | None:
    """The kinematics of the site's model; None where it has none. `path`: that of `robot.yaml`; `text`: the
    model itself, where it is read already.
    """
    if not site.model:
        return None
    from .kinematics import Kinematics

    limits = Limits(site)
    names = [joint.name for joint in site.joints]
    return Kinematics(path.parent / site.model, site.tool, names, limits.low, limits.high, text)


def named_for(entry: TaskEntry, site: Site) -> TaskEntry:
    """The entry of a task with what its observation and action are on the site's robot."""
    observation, action = named_entries(site, entry.name)
    return replace(entry, observation=observation, action=action)


def _require_names(site: Site, task: Task, manifest: Manifest) -> None:
    """Refuses an observation or action that the artefact names otherwise, or in another order or unit."""
    entry = manifest.task(task.name)
    for what, stated, found in zip(
        ("observation", "action"),
        (entry.observation, entry.action),
        named_entries(site, task.name),
        strict=True,
    ):
        for index, (theirs, ours) in enumerate(zip(stated, found, strict=False)):
            if theirs != ours:
                raise ConfigError(
                    f"entry {index} of the {what} of {task.name} is `{theirs.term}` [{theirs.unit}] in the "
                    f"artefact and `{ours.term}` [{ours.unit}] in robot.yaml; write there what the policy "
                    "was exported for, or export it for this robot"
                )


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
