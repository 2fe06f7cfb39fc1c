"""The stages of a run: one table, what they need before anything starts, and the loop over them."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from mtrl.distributed import require_processors
from mtrl.errors import DivergenceError, MtrlError, UnsupportedError
from mtrl.evaluation import OWN, PolicyReference, read_json, summarise, write_record
from mtrl.gradients import SurgeryConfig
from mtrl.training import POLICIES, Checkpoints, Needs, require_disk

from .config import Config
from .console import Interrupted, log, log_continuation, resume_command
from .evaluation_stages import check_deploy, deploy_stage, evaluate_stage, report_stage
from .export_stage import check_export, export_stage
from .parents import require_parents
from .requirements import Plan
from .session import Session
from .training_stages import (
    check_clone,
    check_distill,
    check_train,
    clone_stage,
    collect_stage,
    distill_stage,
    train_stage,
)

ELAPSED = "elapsed_seconds.json"
"""File of the seconds that all sessions of a run took together, so that resuming does not shorten them."""

MEGABYTE = 1_000_000


def _nothing(plan: Plan) -> int:
    return 0


@dataclass(frozen=True)
class Stage:
    """A step of `mtrl train`."""

    name: str
    run: Callable[[Session], object]
    """Does the work, or recognises that it is done."""
    requires: Callable[[Plan], int] = _nothing
    """Raises MtrlError for settings with which the stage would fail; returns the bytes of disk it fills."""
    uses_demonstrations: bool = False
    """Whether it takes the demonstrations, where the agent or a student learns from some."""
    parents: Callable[[Needs], tuple[str, ...]] = lambda needs: ()
    """Policies of elsewhere that it may start from, as keys of the configuration."""
    reads_summary: bool = False
    """Whether it comes after the run's summary is written and printed."""


STAGES = (
    Stage("collect", collect_stage, uses_demonstrations=True),
    Stage(
        "train",
        train_stage,
        check_train,
        uses_demonstrations=True,
        parents=lambda needs: needs.parents,
    ),
    Stage("clone", clone_stage, check_clone, uses_demonstrations=True),
    Stage(
        "distill",
        distill_stage,
        check_distill,
        uses_demonstrations=True,
        parents=lambda _: ("teacher",),
    ),
    Stage("evaluate", evaluate_stage),
    Stage("export", export_stage, check_export),
    Stage("deploy", deploy_stage, check_deploy),
    Stage("report", report_stage, reads_summary=True),
)
"""Every stage, in the order in which a run takes them: that of the names in the configuration."""


def stages_of(names: Sequence[str]) -> list[Stage]:
    """The stages of these names in their order."""
    return [stage for stage in STAGES if stage.name in names]


def require_resources(config: Config) -> None:
    """Prints steps and disk; raises MtrlError when the settings do not fit each other, the disk or the
    processors of the machine or cluster, or when demonstrations are missing that cannot be collected.

    Memory is checked when the rollout workers start, which measure what one environment holds.
    """
    plan, stages = Plan.of(config), stages_of(config.stages)
    if plan.needs.stream is None and not config.sampling.is_uniform:
        raise UnsupportedError(
            f"sampling.kind={config.sampling.kind} is for agents that collect while they learn; "
            f"agent {plan.name!r} does not. Use sampling.kind=uniform with sampling.solved_share=1, or "
            "agent=sac"
        )
    # a run that continues may be at stages that take no parent any more
    taking = STAGES if plan.run.exists() else stages
    require_parents(config, plan.name, [key for stage in taking for key in stage.parents(plan.needs)])
    if any(stage.uses_demonstrations for stage in stages):
        # before what builds the agent and so imports torch
        plan.require_demonstrations()
    disk = sum(stage.requires(plan) for stage in stages) + plan.demonstration_bytes + 50 * MEGABYTE
    require_disk(plan.run, disk)
    require_processors(plan.tasks, config.runtime)
    console = Console(emoji=False, file=sys.stderr)
    log(console, f"{plan.run}: {_size_of(plan)}, about {disk / MEGABYTE:.0f} MB of disk")
    surgery = getattr(plan.settings, "gradients", None)
    if isinstance(surgery, SurgeryConfig) and not surgery.plain and len(plan.tasks) == 1:
        log(
            console,
            f"gradients={surgery.method}: one task has nothing to be weighed against, so its gradient is "
            "taken as it is",
        )


def _size_of(plan: Plan) -> str:
    count, config = len(plan.tasks), plan.config
    if "train" not in config.stages:
        steps = "no training"
    elif plan.needs.counts_steps:
        steps = f"{config.online.steps:,} environment steps"
    else:
        steps = f"{config.training.updates:,} updates"
    replay = plan.replay_bytes
    memory = f", a replay of up to {replay / MEGABYTE:,.0f} MB in memory" if replay else ""
    return f"{count} {'task' if count == 1 else 'tasks'}, {steps}{memory}"


def run_stages(session: Session) -> dict[str, object]:
    """Every configured stage in order; finished ones are recognised and not repeated. Returns the summary."""
    began, record = time.monotonic(), session.run.path / ELAPSED
    recorded = read_json(record) if record.exists() else 0.0
    before = float(recorded) if isinstance(recorded, int | float) else 0.0
    stages = stages_of(session.config.stages)
    seconds: dict[str, float] = {}
    try:
        for stage in (stage for stage in stages if not stage.reads_summary):
            mark = time.monotonic()
            stage.run(session)
            seconds[stage.name] = time.monotonic() - mark
            if session.interrupt.requested:
                raise Interrupted(f"stopped after the stage {stage.name!r}")
        wall = before + time.monotonic() - began
        summary = summarise(session.run.path, session.results, session.deployment, wall)
        if not session.brief:
            _print_summary(session.console, summary, seconds, session.config.agent)
        last = [stage for stage in stages if stage.reads_summary]
        for stage in last:
            stage.run(session)
        if not last and not session.brief:
            command = shlex.join(["mtrl", "report", str(session.run.path)])
            session.log(f"all of it is in {session.run.path}; a page of it: {command}")
    finally:
        write_record(record, before + time.monotonic() - began, overwrite=True)
    return summary


def log_what_is_kept(session: Session, error: MtrlError) -> None:
    """After an error: the newest checkpoint of every policy in training, and the command that continues."""
    run = session.run
    kept = {policy.label: Checkpoints(run.training(policy.label)).steps() for policy in POLICIES}
    found = [f"{session.called(label)} at step {steps[-1]:,}" for label, steps in kept.items() if steps]
    if not found and isinstance(error, DivergenceError):
        session.log(f"{run.path} has no checkpoint yet; begin it again with --overwrite")
        return
    if not found:
        log_continuation(session.console, f"{run.path} has no checkpoint yet. Once the cause is mended,")
        return
    session.log(
        f"kept in {run.path}, newest checkpoint of: {', '.join(found)}. "
        f"Once the cause is mended, go on from there with:\n  {resume_command()}"
    )
    if isinstance(error, DivergenceError) and "on_non_finite" in session.config.agent:
        skipping = resume_command({"agent.on_non_finite": "skip"})
        session.log(f"or leave out the updates that are not finite:\n  {skipping}")


def _print_summary(
    console: Console, summary: dict[str, object], seconds: dict[str, float], settings: object
) -> None:
    own = PolicyReference(OWN, OWN, "", 0).by_agent(settings).shown.replace(" ", "_")
    table = Table(title="summary", header_style="bold")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for key, value in sorted(summary.items()):
        table.add_row(key.replace(OWN, own), f"{value:.3f}" if isinstance(value, float) else str(value))
    console.print(table)
    spent = ", ".join(f"{stage} {value:.0f} s" for stage, value in seconds.items())
    console.print(f"[dim]{spent}[/dim]", highlight=False)
