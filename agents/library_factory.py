"""The factory of learners that own their loop; importing it loads no library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from mtrl.rollout import LOG_PROBABILITY, Extra, Policy
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet
from mtrl.training import External, require_one_rank

if TYPE_CHECKING:
    from mtrl.training import Baseline

Config = TypeVar("Config")
Learner = TypeVar("Learner", bound="Baseline")


class LibraryFactory(ABC, Generic[Config, Learner]):
    """Builds learners that own their loop; the rest of the `AgentFactory` is a subclass's own."""

    name: str

    def needs(self, config: Config, tasks: TaskSet) -> External:
        """The library collects in its own loop."""
        return External()

    def extras(self, config: Config, layout: Layout) -> tuple[Extra, ...]:
        """The log-probability of an action."""
        return (LOG_PROBABILITY,)

    def build(
        self,
        config: Config,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parents: Mapping[str, Policy] | None = None,
    ) -> Learner:
        """A new learner; raises UnsupportedError for more than one rank or tasks that it cannot serve,
        ConfigError for settings that the library refuses.
        """
        require_one_rank(self.name, ranks)
        return self.learner(config, tasks, seed)

    @abstractmethod
    def learner(self, config: Config, tasks: TaskSet, seed: int) -> Learner:
        """A new learner, as the one rank."""
