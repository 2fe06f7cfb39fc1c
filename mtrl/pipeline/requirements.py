"""What a run will need and whether its settings fit each other, said before it starts."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from mtrl import registry
from mtrl.diagnostics.machine import inspect_folder
from mtrl.errors import ConfigError, ResourceError, UnsupportedError
from mtrl.gradients import SurgeryConfig
from mtrl.rollout import PolicySnapshot, policy_from
from mtrl.tasks import TaskSet
from mtrl.training import KeepsReplay, Needs, OffersTwin, require_disk

from .config import Config, agent_of, distiller_of
from .console import say
from .demonstrations import require_demonstrable
from .export_stage import require_exportable
from .parents import parents_of, require_parents
from .session import run_name, task_set_of

LEARNING = ("collect", "train", "clone", "distill")
"""Stages that need demonstrations."""

MEGABYTE = 1_000_000

DEMONSTRATION_BYTES = 60_000
"""Disk of one kept demonstration, a generous mean."""

KEPT_CHECKPOINTS = 4
"""Checkpoints on disk at once, the one being written included."""


def require_resources(config: Config) -> None:
    """Prints steps and disk; raises MtrlError when the settings do not fit each other or the disk, or when
    demonstrations are missing that cannot be collected.

    Memory is checked when the rollout workers start, which know what one environment holds.
    """
    tasks = task_set_of(config)
    name, factory, settings = agent_of(config)
    needs = factory.needs(settings, tasks)
    _require_samplable(config, needs)
    place = Path(config.output) / run_name(config)
    # a run that continues may be at stages that take no parent any more
    begun = place.exists()
    taken = needs.parents if begun or "train" in config.stages else ()
    require_parents(config, name, (*taken, *(("teacher",) if begun or "distill" in config.stages else ())))
    disk = _learner_bytes(config, tasks, needs) + 50 * MEGABYTE
    if needs.stream and "train" in config.stages:
        _require_updates(config, max(config.online.warmup, needs.stream.warmup))
    demonstrated = "distill" in config.stages or needs.offline is not None
    if not config.data and demonstrated:
        disk += DEMONSTRATION_BYTES * config.demonstrations.episodes * len(tasks)
    if demonstrated and any(stage in config.stages for stage in LEARNING):
        require_demonstrable(config, tasks, place)
    require_exportable(config, tasks, place)
    require_disk(place, disk)
    if "train" not in config.stages:
        steps = "no training"
    elif needs.counts_steps:
        steps = f"{config.online.steps:,} environment steps"
    else:
        steps = f"{config.training.updates:,} updates"
    replay = factory.replay_bytes(settings, tasks) if isinstance(factory, KeepsReplay) else 0
    memory = f", a replay of up to {replay / MEGABYTE:,.0f} MB in memory" if replay else ""
    say(
        Console(file=sys.stderr),
        f"{place}: {len(tasks)} {'task' if len(tasks) == 1 else 'tasks'}, {steps}{memory}, "
        f"about {disk / MEGABYTE:.0f} MB of disk",
    )
    surgery = getattr(settings, "gradients", None)
    if isinstance(surgery, SurgeryConfig) and not surgery.plain and len(tasks) == 1:
        say(
            Console(file=sys.stderr),
            f"gradients={surgery.method}: one task has nothing to be weighed against, so its gradient is "
            "taken as it is",
        )


def _require_updates(config: Config, warmup: int) -> None:
    """Raises ConfigError when random play alone would use up the steps."""
    if config.online.steps <= warmup:
        raise ConfigError(
            f"online.steps={config.online.steps} is not above online.warmup={warmup}, the random play before "
            "the first update, so that nothing would be learned; raise steps or lower online.warmup"
        )


def require_writable(folder: Path) -> None:
    """Raises ResourceError when nothing can be written to `folder`, which need not exist yet."""
    place = inspect_folder(folder)
    if place.error:
        raise ResourceError(
            f"cannot write to {folder}: {place.error}; check the path, or choose another place"
        )


def _require_samplable(config: Config, needs: Needs) -> None:
    """Raises UnsupportedError when tasks are to have unequal shares of what nobody collects here."""
    if needs.stream is None and not config.sampling.is_uniform:
        raise UnsupportedError(
            f"sampling.kind={config.sampling.kind} is for agents that collect while they learn; "
            f"agent {config.agent['name']!r} does not. Use sampling.kind=uniform with "
            "sampling.solved_share=1, or agent=sac"
        )


def _learner_bytes(config: Config, tasks: TaskSet, needs: Needs) -> int:
    """Disk of checkpoints: weights, average and two optimiser moments of every learner, and the replay.

    Builds the learners once, so that a setting they refuse is refused before anything is collected.
    """
    name, factory, settings = agent_of(config)
    if "deploy" in config.stages:
        registry.load("robot", config.robot.name)
    learners = [stage for stage in ("train", "clone", "distill") if stage in config.stages]
    if not learners:
        return 0
    if "clone" in config.stages and not isinstance(factory, OffersTwin):
        raise UnsupportedError(f"agent {name!r} has no cloned twin; leave the stage 'clone' out")
    parents = parents_of(config, tasks, needs.parents)
    learner = factory.build(settings, tasks, config.seed, parents=parents)
    snapshot = learner.snapshot("export")
    if "distill" in config.stages:
        _require_distillable(config, tasks, snapshot)
    weights = sum(tensor.nbytes for tensor in snapshot.tensors.values())
    replay = 0
    if "train" in config.stages and isinstance(factory, KeepsReplay) and factory.saves_replay(settings):
        replay = factory.replay_bytes(settings, tasks)
    return KEPT_CHECKPOINTS * (4 * weights * len(learners) + replay)


def _require_distillable(config: Config, tasks: TaskSet, snapshot: PolicySnapshot) -> None:
    """Raises what the distiller raises for a teacher that it cannot learn from."""
    parents = parents_of(config, tasks, ("teacher",))
    teacher = parents.get("teacher") or policy_from(snapshot, tasks)
    distiller_of(config).build(config.distillation, tasks, config.seed, parents={"teacher": teacher})
