"""What a run adds to a baseline's own loop: records, checkpoints, evaluations, and an end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from mtrl.rollout import PolicySnapshot

from .agent import Baseline, BaselineWatch
from .checkpoint import Checkpoints
from .episode_books import EpisodeBooks
from .metrics import Metric, Metrics
from .online import OnlineConfig
from .trackers import Tracker

BASELINE_TIMINGS: Metrics = {
    "steps_per_second": Metric(
        "environment steps since the last record / seconds since then, updates and checkpoints included",
        "1/s",
        "mtrl.training.baseline_loop:train_baseline",
    ),
}
"""What a run of a baseline writes to timing.jsonl."""


def train_baseline(
    baseline: Baseline,
    config: OnlineConfig,
    tracker: Tracker,
    checkpoints: Checkpoints,
    task_names: Sequence[str],
    *,
    minutes: float = 0.0,
    stop: Callable[[], bool] = lambda: False,
    evaluate: Callable[[int, PolicySnapshot], Mapping[str, float]] | None = None,
    on_step: Callable[[int, EpisodeBooks], None] | None = None,
) -> bool:
    """Lets a baseline train until `config.steps` are spent; True when they are, False when stopped before.

    Resumes from the newest checkpoint with fresh experience: what is logged from then on is not that of an
    uninterrupted run. `config.warmup` is not used, a baseline has settings of its own for it. `evaluate`
    receives step and policy, `on_step` the step and what episodes returned so far.
    """
    books = EpisodeBooks(task_names)
    saved = checkpoints.latest()
    if saved is None:
        tracker.load_state_dict({})
    else:
        baseline.load_state_dict(saved[1]["learner"])
        tracker.load_state_dict(saved[1]["tracker"])
        books.load_state_dict(saved[1]["books"])
    if baseline.steps >= config.steps:
        return True
    began = marked_at = time.monotonic()
    mark = before = kept = baseline.steps

    def save(step: int) -> None:
        nonlocal kept
        kept = step
        state = {
            "learner": baseline.state_dict(),
            "tracker": tracker.state_dict(),
            "books": books.state_dict(),
        }
        checkpoints.save(step, state)

    def log(step: int, metrics: Mapping[str, float]) -> None:
        nonlocal mark, marked_at
        tracker.log(step, {**metrics, **books.metrics()})
        now = time.monotonic()
        tracker.timing(step, {"steps_per_second": (step - mark) / max(now - marked_at, 1e-9)})
        mark, marked_at = step, now

    def advance(step: int) -> None:
        nonlocal before
        earlier, before = before, step
        if on_step is not None:
            on_step(step, books)
        if evaluate is not None and _crosses(config.evaluate_every, earlier, step):
            tracker.log(step, evaluate(step, baseline.snapshot()))
        if _crosses(config.checkpoint_every, earlier, step) and step < config.steps:
            save(step)

    finished = baseline.run(
        BaselineWatch(
            budget=config.steps,
            log_every=config.log_every,
            log=log,
            add=books.add_summary,
            advance=advance,
            stop=lambda: stop() or (minutes > 0 and time.monotonic() - began > 60 * minutes),
        )
    )
    if baseline.steps > kept or finished:
        save(baseline.steps)
    return finished


def _crosses(every: int, before: int, step: int) -> bool:
    return every > 0 and step // every > before // every
