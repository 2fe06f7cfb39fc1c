"""What an env runner of RLlib steps: all tasks of a set, each for equally many steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import gymnasium

from mtrl.rollout import EpisodeSummary, SharedEnvironment, SharedObservation, SharedSpace
from mtrl.tasks import TaskSet

SUMMARIES = "mtrl_summaries"
"""Name of the episodes' summaries in RLlib's own metrics."""


class TaskSchedule:
    """The simulators of one env runner, and which task's episode an environment begins next.

    It is the task with the fewest steps so far, of those the one that the fewest environments play, of those
    the first. So whatever the lengths of episodes, tasks differ by about one episode per environment; and
    while episodes are equally long, each environment stays with its task. A simulator is built when it is
    first needed: as a rule one per environment, at most one per environment and task.
    """

    def __init__(
        self, space: SharedSpace, *, first_copy: int, copies: int, seed: int, begun: Sequence[int]
    ) -> None:
        """`first_copy` and `copies`: this runner's simulators of a task among those of all runners; `begun`
        [K]: episodes of each task that every copy skips.
        """
        self.space = space
        self.steps = [0] * len(space.tasks)
        """Environment steps of each task, all environments together."""
        self._playing = [0] * len(space.tasks)
        self._free: list[list[SharedEnvironment]] = [[] for _ in space.tasks.tasks]
        self._built = [0] * len(space.tasks)
        self._first_copy, self._copies, self._seed, self._begun = first_copy, copies, seed, list(begun)

    def take(self) -> SharedEnvironment:
        """A simulator of the task that is next."""
        k = min(range(len(self.steps)), key=lambda k: (self.steps[k], self._playing[k], k))
        self._playing[k] += 1
        if self._free[k]:
            return self._free[k].pop()
        copy = self._first_copy + self._built[k]
        self._built[k] += 1
        return SharedEnvironment(
            self.space, k, copy=copy, copies=self._copies, seed=self._seed, begun=self._begun[k]
        )

    def release(self, environment: SharedEnvironment) -> None:
        """Frees a simulator for the next episode of its task."""
        self._playing[environment.task_index] -= 1
        self._free[environment.task_index].append(environment)

    def close(self) -> None:
        """Frees the memory of all simulators that are not in use."""
        for free in self._free:
            for environment in free:
                environment.close()


class RunnerEnvironment(gymnasium.Env[SharedObservation, Any]):
    """One environment of a runner, which RLlib builds: every episode may be one of another task.

    `info` is that of `SharedEnvironment`, "summary" at the end of an episode among it. Seeds given to `reset`
    are not used: the run's seed decides which start comes next.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(self, context: Any) -> None:  # noqa: ANN401 - RLlib's EnvContext, a dict with attributes
        """`context` holds `tasks`, `seed`, `begun` [K], `environments` of a runner, `copies` of all.

        All environments of a runner are given the same context object, which then holds their `schedule`.
        """
        if context.get("schedule") is None:
            tasks: TaskSet = context["tasks"]
            context["schedule"] = TaskSchedule(
                SharedSpace(tasks),
                # runner 0 is in the learner's process and steps environments only where there are no others
                first_copy=max(0, context.worker_index - 1) * context["environments"],
                copies=context["copies"],
                seed=context["seed"],
                begun=context["begun"],
            )
        self._schedule: TaskSchedule = context["schedule"]
        space = self._schedule.space
        self.observation_space, self.action_space = space.observation_space, space.action_space
        self._playing: SharedEnvironment | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[SharedObservation, dict[str, Any]]:
        """Begins an episode of the task that is next."""
        self._release()
        self._playing = self._schedule.take()
        return self._playing.reset()

    def step(self, action: Any) -> tuple[SharedObservation, float, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Steps the simulator; raises what `SharedEnvironment.step` raises."""
        if self._playing is None:
            raise gymnasium.error.ResetNeeded("reset the environment before its first step")
        self._schedule.steps[self._playing.task_index] += 1
        return self._playing.step(action)

    def close(self) -> None:
        """Closes the simulators that are not in use."""
        self._release()
        self._schedule.close()

    def _release(self) -> None:
        if self._playing is not None:
            self._schedule.release(self._playing)
            self._playing = None


def log_summary(*, episode: Any, metrics_logger: Any, **_: object) -> None:  # noqa: ANN401 - objects of RLlib
    """RLlib's callback at the end of every episode: its summary joins RLlib's metrics."""
    summary: EpisodeSummary = episode.get_infos(-1)["summary"]
    metrics_logger.log_value(SUMMARIES, asdict(summary), reduce="item_series")


def summaries_of(results: Mapping[str, Any]) -> Iterator[EpisodeSummary]:
    """The episodes that ended in an iteration, from its results."""
    found = results.get("env_runners", {}).get(SUMMARIES, [])
    # RLlib gives a series of one as its only item
    for fields in [found] if isinstance(found, Mapping) else found:
        yield EpisodeSummary(**fields)
