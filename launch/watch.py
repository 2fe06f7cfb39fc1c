"""`mtrl watch`: a policy at work, as a video or in a window."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mtrl import registry
from mtrl.deployment import artefact_snapshot, read_manifest, verify
from mtrl.errors import ConfigError, ExistsError
from mtrl.evaluation import EvaluationConfig, PolicyReference
from mtrl.integrity import MANIFEST
from mtrl.pipeline.evaluation_stages import chosen_policies
from mtrl.pipeline.requirements import require_writable
from mtrl.pipeline.session import task_set_of
from mtrl.pipeline.videos import WATCHED, choose_renderer, film_all, load_subject, print_videos
from mtrl.rollout import PolicySnapshot, require_experts
from mtrl.tasks import Split, TaskSet, start_id
from mtrl.training import RunDirectory
from mtrl.videos import Recorder, Subject, open_window, video_name

from .compose import compose

EXAMPLES = (
    "mtrl watch runs/quickstart task=metaworld/reach-v3   into its watched/",
    "mtrl watch runs/quickstart/artefact task=point/obstacle episodes=3 start=10",
    "mtrl watch expert task=metaworld/drawer-open-v3 --frames 60 --out drawer.mp4",
    "mtrl watch random task=atari/Boxing --window",
)

SCRIPTED = ("expert", "random")


@dataclass(frozen=True)
class _Cast:
    """Who plays what, known before any policy is loaded."""

    tasks: TaskSet
    protocol: EvaluationConfig
    subjects: Callable[[], list[Subject]]
    """Loads the policies."""
    watched: Path
    """Where their films go: never among the videos of an evaluation, so that they replace none of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whom to watch, on what, and where the film goes."""
    parser.add_argument("what", type=Path, help="a run's folder, an artefact's folder, or expert or random")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="task=NAME, start=INDEX (0), episodes=N (1), and settings such as evaluation.split=validation",
    )
    parser.add_argument("--policy", action="append", help="label within the run; may be given several times")
    parser.add_argument("--frames", type=int, metavar="N", help="end each film after N pictures")
    parser.add_argument("--out", type=Path, help="a file ending in .mp4, or a folder (watched/ of the run)")
    parser.add_argument("--overwrite", action="store_true", help="replace films that are there under --out")
    parser.add_argument("--window", action="store_true", help="show it in a window too, while it is made")


def run(arguments: argparse.Namespace) -> int:
    """Films; says first, before any policy is loaded, when the task cannot be drawn."""
    console = Console()
    words = {key: value for key, _, value in (word.partition("=") for word in arguments.overrides)}
    first, count = _number(words, "start", 0, 0), _number(words, "episodes", 1, 1)
    overrides = [
        word for word in arguments.overrides if word.partition("=")[0] not in ("task", "start", "episodes")
    ]
    cast = _cast(arguments, overrides, words.get("task"))
    k = _chosen(cast.tasks, words.get("task"))
    if arguments.out is not None:
        require_writable(arguments.out.parent if arguments.out.suffix == ".mp4" else arguments.out)
    choose_renderer()
    with contextlib.closing(Recorder(cast.tasks, cast.protocol)) as recorder:
        recorder.require_images([k])
        subjects = cast.subjects()
        split = Split[cast.protocol.split.upper()]
        names = [
            video_name(subject.reference.label, cast.tasks[k].name, start_id(split, index))
            for subject in subjects
            for index in range(first, first + count)
        ]
        place = _place(cast.watched, names, arguments)
        window = open_window(console) if arguments.window else None
        with contextlib.closing(window) if window is not None else contextlib.nullcontext():
            videos = film_all(
                recorder,
                subjects,
                [k],
                range(first, first + count),
                place,
                frames=arguments.frames,
                on_frame=None if window is None else window.show,
            )
    print_videos(videos, cast.tasks, console)
    return 0


def _cast(arguments: argparse.Namespace, overrides: Sequence[str], task: str | None) -> _Cast:
    what: Path = arguments.what
    if str(what) in SCRIPTED and not what.exists():
        return _scripted(str(what), overrides, task)
    if (what / MANIFEST).exists():
        return _artefact(what, overrides)
    return _run(what, overrides, arguments.policy)


def _scripted(kind: str, overrides: Sequence[str], task: str | None) -> _Cast:
    chosen = list(overrides) if task is None else [f"tasks=[{task}]", *overrides]
    if task is None and not any(word.startswith("tasks=") for word in overrides):
        raise ConfigError(f"{kind} plays any task; name one, such as task=metaworld/reach-v3")
    config = compose(chosen, command="evaluate")
    tasks = task_set_of(config)
    if kind == "expert":
        require_experts([tasks[_chosen(tasks, task)]])
    # Scripted play does not depend on what is played beside it, so one copy shows the same episode.
    return _Cast(
        tasks,
        dataclasses.replace(config.evaluation, copies=1),
        lambda: [Subject(PolicyReference(kind, kind, kind, 0), PolicySnapshot(kind))],
        Path(config.output) / WATCHED,
    )


def _artefact(what: Path, overrides: Sequence[str]) -> _Cast:
    manifest = read_manifest(what)
    tasks = TaskSet([registry.task(entry.name, dict(entry.options)) for entry in manifest.tasks])
    config = compose(overrides, command="evaluate")

    def load() -> list[Subject]:
        identity = verify(what).artefact
        reference = PolicyReference(f"artefact-{identity[:12]}", "artefact", identity, 0)
        return [Subject(reference, artefact_snapshot(what))]

    return _Cast(tasks, config.evaluation, load, Path(config.output) / WATCHED)


def _run(what: Path, overrides: Sequence[str], labels: Sequence[str] | None) -> _Cast:
    run = RunDirectory.open(what)
    config = compose(overrides, command="evaluate", base=run.read_config())
    # The last label is what the run was made for: the student where there is one.
    chosen = chosen_policies(what, labels)
    wanted = chosen if labels else chosen[-1:]
    return _Cast(
        task_set_of(config),
        config.evaluation,
        lambda: [load_subject(run.policies / label, label) for label in wanted],
        run.path / WATCHED,
    )


def _chosen(tasks: TaskSet, name: str | None) -> int:
    """Index of the task to watch."""
    if name is not None and name not in tasks.names and "/" not in name:
        members = registry.named_sets()
        if name in members:
            raise ConfigError(
                f"{name} is a set of tasks, and a film shows one; choose task=NAME among "
                f"{', '.join(members[name].names)}"
            )
    if name is not None:
        return tasks.index(name)
    if len(tasks) > 1:
        raise ConfigError(f"there are {len(tasks)} tasks; name one with task=NAME: {', '.join(tasks.names)}")
    return 0


def _number(words: dict[str, str], key: str, default: int, least: int) -> int:
    text = words.get(key, str(default))
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise ConfigError(f"{key} is a whole number of at least {least}; got {text!r}")
    return int(text)


def _place(watched: Path, names: Sequence[str], arguments: argparse.Namespace) -> Callable[[str], Path]:
    """Maps a film's usual name to its path; what is there under --out is replaced only when asked.

    The films in `watched` are all of this command's making, and give way to newer ones.
    """
    out: Path | None = arguments.out
    if out is None:
        return lambda name: watched / name
    single = out.suffix == ".mp4"
    if single and len(names) > 1:
        raise ConfigError(f"{len(names)} films do not fit into one file {out}; give --out a folder")
    there = [path for path in ([out] if single else [out / name for name in names]) if path.exists()]
    if there and not arguments.overwrite:
        found = f"{', '.join(map(str, there))} {'is' if len(there) == 1 else 'are'}"
        raise ExistsError(
            f"{found} already there; pass --overwrite to replace, or choose another place with --out"
        )
    return lambda name: out if single else out / name
