"""What a decision of each task costs, measured by the actors that will pay for it."""

from __future__ import annotations

from collections import deque

from mtrl.rollout import completed

from .crew import Crew, Finished, Lost


def measure(crew: Crew, count: int) -> list[float]:
    """Seconds of one decision of one copy of each of `count` tasks, [K].

    A task that fails, or whose actor dies, is taken for a usual one.
    """
    waiting = deque(range(count))
    costs: dict[int, float] = {}
    failed: set[int] = set()
    while len(costs) + len(failed) < count:
        for place in crew.idle_places(1):
            if waiting:
                k = waiting.popleft()
                crew.submit(place, k, "measure", k)
        for event in crew.wait():
            if isinstance(event, Lost):
                failed |= {key for key in (event.running, *event.waiting) if key is not None}
            elif isinstance(event, Finished) and event.reply.mistake is not None:
                raise event.reply.mistake.error()
            elif isinstance(event, Finished) and event.reply.value is not None:
                costs[event.key] = event.reply.value
            elif isinstance(event, Finished):
                failed.add(event.key)
    return completed(costs, count)
