"""The episodes that several results have in common: what broke for one is left out for all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mtrl.errors import ConfigError

from .broken import BrokenEpisode, UnmeasuredTask
from .results import EvaluationResult, TaskResult


def common_episodes(results: Sequence[EvaluationResult]) -> tuple[EvaluationResult, ...]:
    """Comparable results on the starts that each of them played to its end, as they are where nothing broke.

    `broken` of each lists what broke for any of them.

    Raises:
        ConfigError: no start of any task is left.
    """
    broken = {(episode.task, episode.start): episode for result in results for episode in result.broken}
    return tuple(_without(result, broken) for result in results) if broken else tuple(results)


def left_out(broken: Iterable[BrokenEpisode]) -> str:
    """Which starts of which tasks broke, in words, such as "gym/A start 2, 5; gym/B start 8"."""
    by_task: dict[str, list[int]] = {}
    for episode in broken:
        by_task.setdefault(episode.task, []).append(episode.start)
    return "; ".join(f"{task} start {_some(starts)}" for task, starts in by_task.items())


def _some(starts: Sequence[int]) -> str:
    more = f" and {len(starts) - 5} more" if len(starts) > 5 else ""
    return ", ".join(map(str, starts[:5])) + more


def _without(result: EvaluationResult, broken: Mapping[tuple[str, int], BrokenEpisode]) -> EvaluationResult:
    kept = tuple(episode for episode in result.episodes if (episode.task, episode.start) not in broken)
    if not kept:
        raise ConfigError(
            f"result {result.policy.shown!r} has no start that every compared policy played to its end; "
            f"broken: {left_out(broken.values())}"
        )
    tasks, unmeasured = list[TaskResult](), list(result.unmeasured)
    for task in result.tasks:
        own = [episode for episode in kept if episode.task == task.name]
        identity = (task.name, task.protocol_hash, task.score)
        if len(own) == task.episodes:
            tasks.append(task)
        elif own:
            tasks.append(TaskResult.summarise(*identity, own, result.confidence, task.protocol))
        else:
            unmeasured.append(UnmeasuredTask(*identity, task.protocol))
    order = [*(task.name for task in tasks), *(task.name for task in unmeasured)]
    listed = sorted(broken.values(), key=lambda episode: (order.index(episode.task), episode.start))
    return replace(
        result, tasks=tuple(tasks), episodes=kept, broken=tuple(listed), unmeasured=tuple(unmeasured)
    )
