"""What is kept of a run that an error ended, and how it can go on."""

from __future__ import annotations

from mtrl.errors import DivergenceError, MtrlError
from mtrl.training import Checkpoints

from .console import say
from .session import Session, resume_command


def say_what_is_kept(session: Session, error: MtrlError) -> None:
    """Names the newest checkpoint of every policy in training and the command that goes on from there."""
    run = session.run.path
    places = {"teacher": run, "bc": run / "bc", "student": run / "student"}
    kept = {label: Checkpoints(place).steps() for label, place in places.items()}
    found = [f"{label} at step {steps[-1]:,}" for label, steps in kept.items() if steps]
    if not found:
        say(session.console, f"{run} has no checkpoint yet; begin it anew with --overwrite")
        return
    say(
        session.console,
        f"kept in {run}, newest checkpoint of: {', '.join(found)}. "
        f"Once the cause is mended, go on from there with:\n  {resume_command()}",
    )
    if isinstance(error, DivergenceError) and "on_non_finite" in session.config.agent:
        skipping = resume_command({"agent.on_non_finite": "skip"})
        say(session.console, f"or leave out the updates that are not finite:\n  {skipping}")
