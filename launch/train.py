"""`mtrl train`: from a configuration to a trained, evaluated and, if configured, deployed policy."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console

# a settings mistake is refused before the stages are imported
from mtrl import pipeline
from mtrl.errors import DivergenceError, ResourceError
from mtrl.evaluation import EvaluationResult, Json, write_record
from mtrl.pipeline import RESUME, Config, Interrupted, log_interruption, resume_command, run_stem

from .arguments import add_continuing, add_json, add_overrides, emit, resumes
from .compose import compose
from .several.seeds import compare_seeds, configs_of, seed_line, seeds_of

EXAMPLES = (
    "mtrl train experiment=quickstart            demonstrations to robot controller in minutes",
    "mtrl train tasks=mt10 runtime=ray seed=2    a diffusion policy on ten tasks, rollouts on Ray",
    "mtrl train experiment=debug --overwrite     something small, from scratch",
    "mtrl train agent=sac seeds=1,2,3            a run for each seed, and one table of all",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Settings, and what to do with a run of that name."""
    add_overrides(parser, "settings, such as tasks=mt10 seed=2", config_dir=True)
    add_continuing(parser, "remove a run of that name first", "go on with a run of that name")
    add_json(parser, "the summary")


def run(arguments: argparse.Namespace) -> int:
    """Runs the configured stages in order, for every seed in turn where several are given."""
    resume, console = resumes(arguments), Console(emoji=False)
    seeds, words = seeds_of(arguments.overrides)
    if not seeds:
        config = compose(words, command="train", config_dir=arguments.config_dir)
        summary, _ = _train(config, arguments.overwrite, resume, console)
        emit(arguments, summary)
        return 0 if summary else 130
    configs = configs_of(words, seeds, arguments.config_dir, may_exist=resume or arguments.overwrite)
    summaries, results = [], []
    for config in configs:
        summary, found = _train(config, arguments.overwrite, resume, console, brief=True)
        if not summary:
            return 130
        pipeline.log(console, seed_line(summary["run"], found))
        summaries.append(summary)
        results.append(found)
    name = run_stem(compose(words, command="train", config_dir=arguments.config_dir))
    emit(arguments, {"runs": summaries, "comparison": compare_seeds(name, results, console)})
    return 0


def _train(
    config: Config, overwrite: bool, resume: bool, console: Console, *, brief: bool = False
) -> tuple[dict[str, Any], list[EvaluationResult]]:
    """Summary and evaluations of one run; nothing after Ctrl-C."""
    pipeline.require_resources(config)
    with pipeline.open_session(config, overwrite=overwrite, resume=resume, console=console) as session:
        session.brief = brief
        how: dict[str, Json] = {"command": resume_command(), "finished": False}
        write_record(session.run.path / RESUME, how, overwrite=True)
        try:
            summary = pipeline.run_stages(session)
        except Interrupted as stopped:
            log_interruption(console, stopped)
            return {}, []
        except (DivergenceError, ResourceError) as error:
            pipeline.log_what_is_kept(session, error)
            raise
        write_record(session.run.path / RESUME, how | {"finished": True}, overwrite=True)
        return {"run": session.run.path, **summary}, session.results
