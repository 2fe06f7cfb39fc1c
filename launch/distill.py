"""`mtrl distill`: from a run's teacher to a one-forward student."""

from __future__ import annotations

import argparse

from rich.console import Console

from mtrl.atomic import remove_directory
from mtrl.errors import ExistsError, ResourceError
from mtrl.integrity import verify_manifest
from mtrl.ownership import require_ownership
from mtrl.pipeline import (
    WATCHED,
    Interrupted,
    Session,
    distill_stage,
    load_policy,
    log_continuation,
    log_interruption,
    parents_of,
)

from .arguments import add_continuing, add_json, add_run, emit, resumes
from .reopen import reopen

EXAMPLES = (
    "mtrl distill runs/diffusion-mt10-seed1              with the run's own settings",
    "mtrl distill runs/diffusion-mt10-seed1 updates=5000 longer",
    "mtrl distill runs/world_model steps=50000           asked in more states that the student comes to",
    "mtrl distill runs/quickstart distillation.network.width=128 --overwrite",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, settings, and what to do with an older student."""
    add_run(parser)
    add_continuing(
        parser,
        "replace the run's student and remove what was measured and exported of it",
        "go on with a stopped distillation",
    )
    add_json(parser, "the student's place, hash and updates")


def run(arguments: argparse.Namespace) -> int:
    """Distils and keeps the student in the run."""
    console, resume = Console(emoji=False), resumes(arguments)
    with reopen(arguments.run, arguments.overrides, "distill", console) as session:
        kept, progress = session.run.policies / "student", session.run.training("student")
        if (kept.exists() or progress.exists()) and not arguments.overwrite and not resume:
            found = "a student" if kept.exists() else "an unfinished distillation"
            raise ExistsError(
                f"{session.run.path} has {found}; pass --overwrite to replace it, "
                "or --resume auto to go on with its last checkpoint"
            )
        before = verify_manifest(kept) if kept.exists() else None
        # a teacher that is refused leaves the old student's training as it was
        parents_of(session.config, session.tasks, ("teacher",))
        if progress.exists() and not resume:
            remove_directory(progress)
        try:
            distill_stage(session, again=True)
        except Interrupted as stopped:
            return log_interruption(console, stopped)
        except ResourceError:
            log_continuation(console, "once the cause is mended,")
            raise
        if before is not None and verify_manifest(kept) != before:
            _forget_old_student(session)
        snapshot, identity = load_policy(kept)
    emit(arguments, {"policy": kept, "identity": identity, "updates": snapshot.version})
    return 0


def _forget_old_student(session: Session) -> None:
    """Removes the replaced student's figures, so that none of them passes for the new one's."""
    require_ownership()
    run = session.run
    files = [*run.evaluations.glob("student-*.json"), run.path / "modes" / "student.json"]
    files += [*run.videos.glob("student-*"), *(run.path / WATCHED).glob("student-*")]
    files += [run.path / name for name in ("point_paths.json", "latency.json", "summary.json")]
    for file in files:
        file.unlink(missing_ok=True)
    if run.artefact.exists():
        remove_directory(run.artefact)
    session.log(
        "the old student's evaluations, videos and artefact are removed; "
        "make them again with mtrl evaluate and mtrl export",
    )
