"""Budgets and bookkeeping of training, in updates or in environment steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from mtrl.structured import Checked, at_least, between


@dataclass(frozen=True)
class TrainingConfig(Checked, place="training"):
    """Budget and bookkeeping of agents that learn from demonstrations; minutes and threads are everyone's."""

    updates: Annotated[int, at_least(1)] = 5000
    """Updates in all, at least 1."""
    log_every: Annotated[int, at_least(1)] = 50
    """Updates between logged metrics, at least 1; logged values are means over that interval."""
    checkpoint_every: Annotated[int, at_least(1)] = 1000
    """Updates between checkpoints, at least 1; one is always written at the end and on Ctrl-C."""
    threads: Annotated[int, between(0, 1024, "automatic")] = 0
    """Torch threads of the learner, at most 1024; 0 takes every processor that no actor uses."""
    minutes: Annotated[float, at_least(0, "none")] = 0.0
    """Largest number of minutes that training a policy takes, all sessions of the run together; 0 for none. A
    run that reaches it saves a checkpoint and continues with the policy as it is; resumed with a larger
    number, it trains further."""


@dataclass(frozen=True)
class OnlineConfig(Checked, place="online"):
    """Budget and bookkeeping of agents that collect while they learn. An environment step is one decision of
    one copy, action repeat inside; the steps of all tasks are counted together.
    """

    steps: Annotated[int, at_least(1)] = 200_000
    """Environment steps in all, at least 1."""
    warmup: Annotated[int, at_least(0)] = 5_000
    """Steps of random play before the first update, at least 0."""
    log_every: Annotated[int, at_least(1)] = 1_000
    """Steps between logged metrics, at least 1; logged values are means over that interval."""
    checkpoint_every: Annotated[int, at_least(1)] = 50_000
    """Steps between checkpoints, at least 1; one is always written at the end and on Ctrl-C."""
    evaluate_every: Annotated[int, at_least(0)] = 0
    """Steps between evaluations on fixed starts while learning; 0 for none."""


@dataclass(frozen=True)
class Clock:
    """Unit and budget of a run, and the intervals of its logs, checkpoints and evaluations."""

    unit: str
    """"updates" where nothing is collected while learning, otherwise "steps" of the environments."""
    budget: int
    """Units in all."""
    log_every: int
    checkpoint_every: int
    evaluate_every: int = 0
    """0 for never."""
    warmup: int = 0
    """Steps of random play before the first update."""

    @staticmethod
    def of_updates(config: TrainingConfig) -> Clock:
        """The clock of an agent that learns from demonstrations alone."""
        return Clock("updates", config.updates, config.log_every, config.checkpoint_every)

    @staticmethod
    def of_steps(config: OnlineConfig, warmup: int) -> Clock:
        """The clock of an agent that collects, after `warmup` steps of random play."""
        return Clock(
            "steps",
            config.steps,
            config.log_every,
            config.checkpoint_every,
            config.evaluate_every,
            warmup,
        )

    def crosses(self, every: int, before: int, now: int) -> bool:
        """Whether a multiple of `every`, or the end, lies in (before, now]; never where `every` is 0."""
        return every > 0 and now > before and (now // every > before // every or now >= self.budget)
