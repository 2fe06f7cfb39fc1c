"""`mtrl train`: from a configuration to a trained, evaluated and, if configured, deployed policy."""

from __future__ import annotations

import argparse

from rich.console import Console

from mtrl.errors import DivergenceError, ResourceError
from mtrl.pipeline import (
    Interrupted,
    log_interruption,
    log_what_is_kept,
    open_session,
    require_resources,
    run_stages,
)

from .arguments import add_continuing, add_json, add_overrides, emit
from .compose import compose

EXAMPLES = (
    "mtrl train experiment=quickstart            demonstrations to robot controller in minutes",
    "mtrl train tasks=mt10 runtime=ray seed=2    a diffusion policy on ten tasks, rollouts on Ray",
    "mtrl train experiment=debug --overwrite     something small, from scratch",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Settings, and what to do with a run of that name."""
    add_overrides(parser, "settings, such as tasks=mt10 seed=2", config_dir=True)
    add_continuing(parser, "remove a run of that name first", "go on with a run of that name")
    add_json(parser, "the summary")


def run(arguments: argparse.Namespace) -> int:
    """Runs the configured stages in order."""
    config = compose(arguments.overrides, command="train", config_dir=arguments.config_dir)
    console = Console(emoji=False)
    require_resources(config)
    with open_session(
        config, overwrite=arguments.overwrite, resume=arguments.resume == "auto", console=console
    ) as session:
        try:
            summary = run_stages(session)
        except Interrupted as stopped:
            return log_interruption(console, stopped)
        except (DivergenceError, ResourceError) as error:
            log_what_is_kept(session, error)
            raise
    emit(arguments, {"run": session.run.path, **summary})
    return 0
