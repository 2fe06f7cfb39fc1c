"""`mtrl submit`: another command of mtrl as a job of a Ray cluster."""

from __future__ import annotations

import argparse
import datetime
import importlib
import logging
import os
import shlex
import sys
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtrl.errors import ConfigError, OutOfRangeError, UnknownNameError
from mtrl.evaluation.provenance import program
from mtrl.faults import UserInterrupt

from .arguments import add_json, emit
from .compose import compose
from .main import COMMANDS, build_verb

if TYPE_CHECKING:
    from mtrl.distributed.jobs import Job, JobServer

EXAMPLES = (
    "mtrl submit --address http://head:8265 -- train tasks=mt10 runtime=ray output=/shared/runs",
    "mtrl submit --list                 the jobs of the cluster, with what they run",
    "mtrl submit --follow JOB           its output from the beginning; Ctrl-C leaves the job alone",
    "mtrl submit --stop JOB             lets it save a checkpoint, then prints how it goes on",
)

TAKES_COMMAND = True
"""What stands behind `--` is a command of mtrl."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
DRAWING = ("MUJOCO_GL", "PYOPENGL_PLATFORM")
"""Variables that go along from here, since they stand before the first import."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The server, the job, and what to do with it."""
    parser.add_argument(
        "--address", default="", help="the dashboard, such as http://head:8265 (this machine's)"
    )
    parser.add_argument("--name", default="", help="name of the job (the command and the time)")
    parser.add_argument("--working-dir", type=Path, default=Path(), help="folder that travels (this one)")
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave out, as in .gitignore; repeatable",
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="KEY=VALUE", help="variable of the job; repeatable"
    )
    parser.add_argument(
        "--python", default="", help="interpreter on the cluster (python; this one on this machine)"
    )
    parser.add_argument("--grace", type=int, default=60, help="seconds that a stop leaves for saving (60)")
    parser.add_argument("--detach", action="store_true", help="return once it is submitted")
    add_json(parser, "what is known of every job")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--list", action="store_true", help="list the cluster's jobs")
    which.add_argument("--status", metavar="JOB", help="print what a job is doing")
    which.add_argument("--follow", metavar="JOB", help="print a job's output until it ends")
    which.add_argument("--stop", metavar="JOB", help="let a job save and end")


def run(arguments: argparse.Namespace) -> int:
    """The exit status of the command where it was followed to its end, 130 where it was stopped or left."""
    named = arguments.follow or arguments.stop or arguments.status
    if bool(arguments.command_words) == bool(named or arguments.list):
        raise ConfigError(
            "give a command behind --, as in `mtrl submit -- train tasks=mt10 output=/shared/runs`, or "
            "one of --list, --status JOB, --follow JOB, --stop JOB"
        )
    if arguments.command_words:
        return _submit(arguments)
    server = _server(arguments)
    if named:
        server.job(named)
    if arguments.list or arguments.status:
        _show([server.job(arguments.status)] if arguments.status else server.jobs(), arguments)
        return 0
    return _follow(server, named, arguments, stop=bool(arguments.stop))


def checked(words: Sequence[str]) -> list[str]:
    """The command, refused here for what it would be refused for there; on Ray it joins the job's cluster."""
    verb, *rest = words
    known = {name: text for name, text in COMMANDS.items() if name != "submit"}
    if verb not in known:
        raise UnknownNameError("command", verb, known)
    module = importlib.import_module(f"mtrl.launch.{verb}")
    parsed = build_verb(verb, module).parse_intermixed_args(rest)
    places = {"the run": parsed.run} if isinstance(getattr(parsed, "run", None), Path) else {}
    added = []
    if verb == "tune":
        places["output"] = Path(module.compose_space(parsed)[2].output)
        added = [] if parsed.address else ["--address", "auto"]
    if verb in ("train", "collect"):
        config = compose(parsed.overrides, command=verb, config_dir=parsed.config_dir)
        if verb == "train":
            places["output"] = Path(config.output)
        if config.runtime.kind == "ray" and not config.runtime.address:
            added = ["runtime.address=auto"]
    for what, place in places.items():
        if not place.is_absolute():
            raise ConfigError(
                f"{what} {place} would lie in the job's own folder, which the cluster removes; give a path "
                "from the root that outlives the job, best on storage that all nodes share: "
                + ("output=/shared/runs" if what == "output" else f"/shared/{place}")
            )
    return [*words, *added]


def _server(arguments: argparse.Namespace) -> JobServer:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # what Ray's client says of itself goes between the lines of the job
    logging.disable(logging.INFO)
    from mtrl.distributed.jobs import JobServer

    return JobServer(arguments.address)


def _submit(arguments: argparse.Namespace) -> int:
    words = checked(arguments.command_words)
    if arguments.grace < 1:
        raise OutOfRangeError("--grace", arguments.grace, "at least 1 second")
    variables = {
        **dict.fromkeys(THREADS, "1"),
        "OMP_WAIT_POLICY": "PASSIVE",
        **{name: os.environ[name] for name in DRAWING if name in os.environ},
        **dict(_variable(text) for text in arguments.env),
    }
    server = _server(arguments)
    from mtrl.distributed.jobs import upload_of

    upload = upload_of(arguments.working_dir, arguments.exclude)
    here = urllib.parse.urlsplit(server.address).hostname in ("127.0.0.1", "localhost", "::1")
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    name = arguments.name or f"{words[0]}-{now}-{os.getpid()}"
    print(f"{upload} to {server.address}", file=sys.stderr)
    server.submit(
        name,
        words,
        upload,
        python=arguments.python or (sys.executable if here else "python"),
        grace_seconds=arguments.grace,
        variables=variables,
        options=_options(arguments),
    )
    print(f"job {name}: mtrl {shlex.join(words)}", file=sys.stderr)
    if arguments.detach:
        print(_ways(server, name), file=sys.stderr)
        emit(arguments, [_record(server.job(name))])
        print(name)
        return 0
    return _follow(server, name, arguments)


def _follow(server: JobServer, name: str, arguments: argparse.Namespace, *, stop: bool = False) -> int:
    """Prints the job's output to its end; stops it first where that is asked."""
    skip = 0

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        if stop:
            skip = server.output_length(name)
            server.stop(name)
        job = server.follow(name, write, skip)
    except UserInterrupt:
        print(f"\nleft; the job {name} goes on. {_ways(server, name)}", file=sys.stderr)
        return 130
    emit(arguments, [_record(job)])
    print(f"job {name}: {job.status}. {job.message}", file=sys.stderr)
    if job.status == "STOPPED":
        print(f"go on with:\n  {_again(server, job)}", file=sys.stderr)
    if stop:
        return 0
    return 0 if job.status == "SUCCEEDED" else 130 if job.status == "STOPPED" else job.exit_code or 1


def _ways(server: JobServer, name: str) -> str:
    base = shlex.join([*program(), "submit", "--address", server.address])
    word = shlex.quote(name)
    return f"follow it with:\n  {base} --follow {word}\nstop it with:\n  {base} --stop {word}"


def _again(server: JobServer, job: Job) -> str:
    words = [word for word in job.words if word != "--overwrite"]
    if job.words[:1] in (("train",), ("tune",), ("distill",)) and "auto" not in job.words:
        words += ["--resume", "auto"]
    return shlex.join([*program(), "submit", "--address", server.address, *job.options, "--", *words])


def _options(arguments: argparse.Namespace) -> list[str]:
    """What the same job needs when it is submitted again; a folder by its path from the root."""
    found = ["--working-dir", str(arguments.working_dir.absolute()), "--grace", str(arguments.grace)]
    if arguments.python:
        found += ["--python", arguments.python]
    for flag, values in (("--exclude", arguments.exclude), ("--env", arguments.env)):
        for value in values:
            found += [flag, value]
    return found


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name):
        raise ConfigError(f"--env {text!r} is not understood; variables are written KEY=VALUE")
    return name, value


def _record(job: Job) -> dict[str, Any]:
    return {**vars(job), "words": list(job.words)}


def _show(jobs: Sequence[Job], arguments: argparse.Namespace) -> None:
    emit(arguments, [_record(job) for job in jobs])
    for job in jobs:
        print(f"{job.status:<10} {job.name}  {shlex.join(('mtrl', *job.words)) if job.words else '-'}")
