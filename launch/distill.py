"""`mtrl distill`: from a run's teacher to a one-forward student."""

from __future__ import annotations

import argparse

from rich.console import Console

from mtrl.errors import ConfigError, ExistsError
from mtrl.integrity import remove_directory, verify_manifest
from mtrl.pipeline.console import say
from mtrl.pipeline.parents import parents_of
from mtrl.pipeline.session import Interrupted, Session, say_how_to_resume
from mtrl.pipeline.training_stages import distill_stage
from mtrl.pipeline.videos import WATCHED

from .reopen import add_run_argument, reopen

EXAMPLES = (
    "mtrl distill runs/diffusion-mt10                    with the run's own settings",
    "mtrl distill runs/diffusion-mt10 updates=5000       longer",
    "mtrl distill runs/quickstart distillation.network.width=128 --overwrite",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, settings, and what to do with an older student."""
    add_run_argument(parser)
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the run's student and remove what was measured and exported of it",
    )
    parser.add_argument(
        "--resume", choices=("auto", "never"), default="never", help="auto: go on with a stopped distillation"
    )


def run(arguments: argparse.Namespace) -> int:
    """Distils and keeps the student in the run."""
    console, resume = Console(), arguments.resume == "auto"
    if arguments.overwrite and resume:
        raise ConfigError("--overwrite and --resume auto contradict each other; give one of them")
    with reopen(arguments.run, arguments.overrides, "distill", console) as session:
        kept, progress = session.policy_place("student"), session.run.path / "student"
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
            say_how_to_resume(console, stopped)
            return 130
        if before is not None and verify_manifest(kept) != before:
            _forget_old_student(session)
    return 0


def _forget_old_student(session: Session) -> None:
    """Removes what speaks of the replaced student, so that no figure of the old one stands for the new."""
    run = session.run
    files = [*run.evaluations.glob("student-*.json"), run.path / "modes" / "student.json"]
    files += [*run.videos.glob("student-*"), *(run.path / WATCHED).glob("student-*")]
    files += [run.path / name for name in ("point_paths.json", "latency.json", "summary.json")]
    for file in files:
        file.unlink(missing_ok=True)
    if run.artefact.exists():
        remove_directory(run.artefact)
    say(
        session.console,
        "the old student's evaluations, films and artefact are removed; "
        "make them anew with mtrl evaluate and mtrl export",
    )
