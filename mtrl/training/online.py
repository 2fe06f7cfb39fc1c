"""The training loop for agents that collect while they learn, on one screen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtrl.errors import OutOfRangeError, ResourceError, UnsupportedError
from mtrl.rollout import Fragments, InProcessFragments, PolicySnapshot, ResumableFragments
from mtrl.tasks import TaskSampler

from .agent import OnlineAgent
from .checkpoint import Checkpoints
from .episode_books import EpisodeBooks
from .metrics import Metric, Metrics
from .task_shares import SHARE_METRICS, TaskShares
from .trackers import Tracker

ONLINE_TIMINGS: Metrics = {
    "steps_per_second": Metric(
        "environment steps since the last record / seconds since then, updates and checkpoints included",
        "1/s",
        "mtrl.training.online:train_online",
    ),
    "updates_per_second": Metric(
        "updates since the last record / seconds since then, collection and checkpoints included",
        "1/s",
        "mtrl.training.online:train_online",
    ),
}
"""What the online loop itself writes to timing.jsonl."""

ONLINE_METRICS: Metrics = {
    "updates": Metric("updates applied so far", "updates", "mtrl.training.online:train_online"),
    **SHARE_METRICS,
}
"""What the online loop itself writes to metrics.jsonl, beside the episodes."""


@dataclass(frozen=True)
class OnlineConfig:
    """Budget and bookkeeping of learning while collecting. A step is one decision of one environment;
    the steps of all tasks are counted together.
    """

    steps: int = 200_000
    """Environment steps in all, at least 1."""
    warmup: int = 5_000
    """Steps of random play before the first update, at least 0."""
    log_every: int = 1_000
    """Steps between logged metrics, at least 1; logged values are means over that interval."""
    checkpoint_every: int = 50_000
    """Steps between checkpoints, at least 1; one is always written at the end and on Ctrl-C."""
    evaluate_every: int = 0
    """Steps between evaluations on fixed starts while learning; 0 for none."""

    def __post_init__(self) -> None:
        lowest = {"steps": 1, "warmup": 0, "log_every": 1, "checkpoint_every": 1, "evaluate_every": 0}
        for key, low in lowest.items():
            if getattr(self, key) < low:
                raise OutOfRangeError(f"online.{key}", getattr(self, key), f"at least {low}")


OpenFragments = Callable[[PolicySnapshot, int], Fragments]
"""(first policy, environment steps done so far) -> a source of fragments, which the loop closes."""


def train_online(
    agent: OnlineAgent,
    open_fragments: OpenFragments,
    config: OnlineConfig,
    tracker: Tracker,
    checkpoints: Checkpoints | None,
    task_names: Sequence[str],
    *,
    skip_episodes_below: int = 0,
    sampler: TaskSampler | None = None,
    minutes: float = 0.0,
    stop: Callable[[], bool] = lambda: False,
    evaluate: Callable[[int, PolicySnapshot], Mapping[str, float]] | None = None,
    on_fragment: Callable[[int, EpisodeBooks], None] | None = None,
) -> bool:
    """Collects and learns until the steps are spent; True when they are, False when stopped before.

    Updates follow the steps at the agent's replay ratio: a fragment is taken only when its predecessors'
    updates are done, and bounded queues hold the workers back, so neither side runs ahead. Resumes from the
    newest checkpoint; where the source is resumable and the replay was saved, what is logged from then on
    equals an uninterrupted run. `sampler` says what each task gets, equal shares without one. `evaluate`
    receives step and policy. `on_fragment` receives the step and what episodes returned so far. Without
    `checkpoints` nothing is kept. Raises ResourceError when every task is in quarantine.
    """
    shares, window = TaskShares(sampler, agent, task_names), _Means()
    books = EpisodeBooks(task_names, skip_episodes_below, shares.observe)
    progress = _Progress(fill_until=config.warmup)
    saved = None if checkpoints is None else checkpoints.latest()
    if saved is None:
        tracker.load_state_dict({})
    else:
        agent.load_state_dict(saved[1]["learner"])
        tracker.load_state_dict(saved[1]["tracker"])
        books.load_state_dict(saved[1]["books"])
        window.load_state_dict(saved[1]["window"])
        shares.load_state_dict(saved[1].get("shares"))
        progress = _Progress(**saved[1]["progress"])
        if progress.learning_since >= 0 and not agent.ready:
            # the replay was not saved: it fills again, under the policy learned so far
            progress = _Progress(progress.steps, fill_until=progress.steps + config.warmup)
    began = marked_at = time.monotonic()
    mark = (progress.steps, agent.updates)
    source = open_fragments(_acting(agent, progress, config), progress.steps)
    try:
        if saved is not None:
            _resume(source, saved[1]["source"], books)
        shares.attach(source)
        if progress.steps >= config.steps:
            return True
        for fragment in source.stream():
            agent.ingest(fragment)
            books.add(fragment)
            shares.spread()
            before, progress.steps = progress.steps, progress.steps + fragment.steps
            for _ in range(_due(agent, progress)):
                window.add(agent.update())
            _publish(source, agent, progress, config)
            step, ending = progress.steps, progress.steps >= config.steps

            def crosses(every: int, before: int = before, step: int = step, ending: bool = ending) -> bool:
                return every > 0 and (step // every > before // every or ending)

            judged = evaluate(step, agent.snapshot()) if evaluate and crosses(config.evaluate_every) else {}
            if crosses(config.log_every) or judged:
                counted = {**books.metrics(), **shares.metrics(), "updates": agent.updates}
                tracker.log(step, {**window.take(), **judged, **counted})
                now = time.monotonic()
                seconds = max(now - marked_at, 1e-9)
                rates = {"steps_per_second": step - mark[0], "updates_per_second": agent.updates - mark[1]}
                tracker.timing(step, {name: count / seconds for name, count in rates.items()})
                mark, marked_at = (step, agent.updates), now
            overtime = minutes > 0 and time.monotonic() - began > 60 * minutes
            stopping = ending or overtime or stop()
            if checkpoints is not None and (stopping or crosses(config.checkpoint_every)):
                state = {
                    "learner": agent.state_dict(),
                    "tracker": tracker.state_dict(),
                    "books": books.state_dict(),
                    "window": window.state_dict(),
                    "shares": shares.state_dict(),
                    "progress": vars(progress).copy(),
                    "source": _state_of(source),
                }
                checkpoints.save(step, state)
            if on_fragment is not None:
                on_fragment(step, books)
            if stopping:
                return ending
        faults = "; ".join(f"{task_names[k]}: {fault}" for k, fault in source.quarantined.items())
        raise ResourceError(f"every task is in quarantine after {progress.steps} steps: {faults}")
    finally:
        source.close()


@dataclass
class _Progress:
    """How far the run is, and from where on updates are due."""

    steps: int = 0
    learning_since: int = -1
    """Step at which updates began, or began again without a saved replay; -1 before."""
    updates_before: int = 0
    """Updates applied by then."""
    fill_until: int = 0
    """Step before which the replay only fills."""


def _due(agent: OnlineAgent, progress: _Progress) -> int:
    """Updates that the steps so far have earned and that are not done yet."""
    if progress.learning_since < 0:
        if progress.steps < progress.fill_until or not agent.ready:
            return 0
        progress.learning_since, progress.updates_before = progress.steps, agent.updates
    earned = agent.needs.replay_ratio * (progress.steps - progress.learning_since)
    return max(0, int(earned) - (agent.updates - progress.updates_before))


def _acting(agent: OnlineAgent, progress: _Progress, config: OnlineConfig) -> PolicySnapshot:
    return PolicySnapshot("random") if progress.steps < config.warmup else agent.snapshot()


def _publish(source: Fragments, agent: OnlineAgent, progress: _Progress, config: OnlineConfig) -> None:
    """New weights for the source; one in this process acts with the learner's own, which rest meanwhile."""
    if isinstance(source, InProcessFragments) and progress.steps >= config.warmup:
        source.use(agent.policy())
    else:
        source.publish(_acting(agent, progress, config))


def _state_of(source: Fragments) -> dict[str, Any] | None:
    """The lanes' state; None where they begin afresh on resuming."""
    if not isinstance(source, ResumableFragments):
        return None
    try:
        return source.state_dict()
    except UnsupportedError:
        return None


def _resume(source: Fragments, state: Mapping[str, Any] | None, books: EpisodeBooks) -> None:
    if state is not None and isinstance(source, ResumableFragments):
        # UnsupportedError: the run goes on in another runtime, whose lanes start with new episodes
        with contextlib.suppress(UnsupportedError):
            source.load_state_dict(state)
            return
    books.forget_open()


class _Means:
    """Means of named values since they were last taken."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            entry = self._sums.setdefault(name, [0.0, 0.0])
            entry[0] += value
            entry[1] += 1.0

    def take(self) -> dict[str, float]:
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means

    def state_dict(self) -> dict[str, list[float]]:
        return {name: list(entry) for name, entry in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, list[float]]) -> None:
        self._sums = {name: list(entry) for name, entry in state.items()}
