"""Recording episodes for a command or a stage: the renderer, the policies, a progress bar."""

from __future__ import annotations

import contextlib
import ctypes.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mtrl import registry
from mtrl.errors import MissingExtraError, UnsupportedError
from mtrl.evaluation import EvaluationResult, PolicyReference
from mtrl.rollout import PolicySnapshot
from mtrl.tasks import MultimodalSuite, Split, TaskSet, split_of, start_id
from mtrl.training import progress
from mtrl.videos import Frame, Recorder, Subject, Video, read_videos, video_name

from .console import log
from .policies import load_policy
from .session import Session

FrameViewer = Callable[[Frame, int, float], None]
"""Receives each picture, how many frames it lasts, and the frames per second."""


def choose_renderer() -> None:
    """Names OSMesa to the simulators where nothing else can draw: no display, MUJOCO_GL unset, library there.

    They choose when they are imported, so this comes before any of them. Games drawn by SDL get its dummy
    drivers where there is no display, or they complain of the sound card and the screen that are missing.
    """
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        for driver in ("SDL_AUDIODRIVER", "SDL_VIDEODRIVER"):
            os.environ.setdefault(driver, "dummy")
    silent = not os.environ.get("MUJOCO_GL") and not os.environ.get("DISPLAY")
    if silent and "mujoco" not in sys.modules and ctypes.util.find_library("OSMesa"):
        os.environ["MUJOCO_GL"] = "osmesa"
        os.environ.setdefault("PYOPENGL_PLATFORM", "osmesa")


def record_all(
    recorder: Recorder,
    subjects: Sequence[Subject],
    chosen: Sequence[int],
    indices: Sequence[int],
    place: Callable[[str], Path],
    *,
    frames: int | None = None,
    on_decision: Callable[[], None] | None = None,
    on_frame: FrameViewer | None = None,
) -> list[Video]:
    """Records every subject on the chosen tasks and start indices; `place` maps a file's name to its path."""
    split = Split[recorder.protocol.split.upper()]
    videos: list[Video] = []
    for k in chosen:
        task = recorder.tasks[k]
        with progress(f"video {task.name}", len(subjects) * len(indices) * task.horizon_decisions) as bar:

            def advance() -> None:
                bar.advance()
                if on_decision is not None:
                    on_decision()

            for subject in subjects:
                for index in indices:
                    path = place(video_name(subject.reference.label, task.name, start_id(split, index)))
                    videos.append(
                        recorder.record(
                            subject, k, index, path, frames=frames, on_decision=advance, on_frame=on_frame
                        )
                    )
    return videos


def print_videos(videos: Sequence[Video], tasks: TaskSet, console: Console) -> None:
    """Prints a line for each video: its start, outcome and length."""
    for video in videos:
        length = f"{video.decisions} decisions" + ("" if video.whole else ", cut short")
        split, index = split_of(video.start).name.lower(), video.start // len(Split)
        log(
            console,
            f"{video.path}: start {video.start}, {split} start {index}: {outcome_of(video, tasks)}, {length}",
        )


def outcome_of(video: Video, tasks: TaskSet) -> str:
    """Success and return; the normalised score instead where the task has no success rule."""
    score, reached = tasks[tasks.index(video.task)].score, f"return {video.episode_return:.2f}"
    if video.success is not None:
        return f"{'success' if video.success else 'no success'}, {reached}"
    # a part of a return has no score, and a return without a range none either
    if not video.whole or not score.is_normalised:
        return reached
    return f"score {100 * score.normalise(video.episode_return, False):.1f}%, {reached}"


@dataclass(frozen=True)
class EvaluationVideos:
    """The videos that `mtrl evaluate --video` makes with its results."""

    folder: Path
    count: int
    """Starts per task and policy, the first ones of the split; 0: no videos."""

    def require_images(self, session: Session) -> None:
        """Raises UnsupportedError, before anything is evaluated, for a task that cannot be drawn."""
        if not self.count:
            return
        choose_renderer()
        recorder, reasons = Recorder(session.tasks, session.config.evaluation), {}
        for k, task in enumerate(session.tasks):
            try:
                recorder.require_images([k])
            except (MissingExtraError, UnsupportedError) as error:
                reasons[task.name] = str(error)
        if reasons:
            causes = "; ".join(dict.fromkeys(reasons.values()))
            raise UnsupportedError(f"{causes}. Leave out --video, or these tasks: {', '.join(reasons)}")

    def make(
        self, session: Session, results: Sequence[EvaluationResult], snapshots: Sequence[PolicySnapshot]
    ) -> None:
        """Records every evaluated policy; prints a note where a video differs from its result."""
        if not self.count:
            return
        # Workers on Ray would keep the processors from the encoder.
        session.close_rollouts()
        subjects = [Subject(*pair) for pair in zip((r.policy for r in results), snapshots, strict=True)]
        chosen, count = range(len(session.tasks)), min(self.count, session.config.evaluation.episodes)
        videos = _record(session, subjects, chosen, range(count), self.folder)
        print_videos(videos, session.tasks, session.console)
        evaluated = {
            (result.policy, episode.task, episode.start): (episode.episode_return, episode.length)
            for result in results
            for episode in result.episodes
        }
        for video in videos:
            # an episode that broke when it was evaluated has no outcome
            outcome = (video.episode_return, video.decisions)
            if evaluated.get((video.policy, video.task, video.start), outcome) != outcome:
                session.note(
                    f"{video.path.name} shows another episode than was evaluated: rounding differs between "
                    "this machine and the one that evaluated, or evaluation.copies did"
                )


def record_drawn_tasks(session: Session, labels: Sequence[str]) -> None:
    """One video per policy of the tasks whose paths the report draws, which need no graphics library.

    Videos that are there already of these very policies are not made again.
    """
    tasks = session.tasks
    chosen = [k for k, task in enumerate(tasks) if isinstance(registry.suite(task.suite), MultimodalSuite)]
    there = {(video.policy, video.task, video.protocol_hash) for video in read_videos(session.run.videos)}
    for label in labels if chosen else ():
        subject = load_subject(session.run.policies / label, label, session.tasks)
        missing = [
            k for k in chosen if (subject.reference, tasks[k].name, tasks[k].protocol_hash) not in there
        ]
        _record(session, [subject], missing, (0,), session.run.videos)


def _record(
    session: Session, subjects: Sequence[Subject], chosen: Sequence[int], indices: Sequence[int], folder: Path
) -> list[Video]:
    with contextlib.closing(Recorder(session.tasks, session.config.evaluation)) as recorder:
        recorder.require_images(chosen)
        return record_all(
            recorder,
            subjects,
            chosen,
            indices,
            lambda name: folder / name,
            on_decision=lambda: session.stop_if_requested("recording"),
        )


def load_subject(place: Path, label: str, tasks: TaskSet) -> Subject:
    """A kept policy of a run, `place` being its folder."""
    snapshot, identity = load_policy(place, tasks)
    return Subject(PolicyReference(label, label, identity, snapshot.version), snapshot)
