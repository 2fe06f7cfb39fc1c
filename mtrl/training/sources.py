"""Sources of an agent's data: demonstrations, continuous collection, groups of episodes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError, MtrlWarning, ResourceError, UnsupportedError
from mtrl.rollout import (
    EpisodeGroup,
    Fragment,
    Fragments,
    LocalFragments,
    PolicySnapshot,
    Rollouts,
    Staleness,
    Version,
)

from .agent import Agent, Datasets, LivePolicy, RequestsGroups, State

if TYPE_CHECKING:
    from mtrl.data import Replay, Trajectories
    from mtrl.reducer import Reducer

Data = Fragment | EpisodeGroup | Datasets

RANDOM = PolicySnapshot("random")
"""Random play."""


class Source:
    """Provides data for an agent; one per rank. The defaults suit one that collects
    nothing and holds nothing.
    """

    def take(self, agent: Agent, reducer: Reducer) -> Sequence[Data]:
        """The next data, at least one piece unless nothing is collected online. Demonstrations come
        alone, and first. Collective only where the agent requests groups.
        """
        return []

    def publish(self, agent: Agent, steps: int) -> None:
        """Sets the acting policy to the agent's current one; `steps` are those of all ranks so far."""

    def set_shares(self, shares: npt.NDArray[np.float64]) -> bool:
        """Sets how often each task is stepped from the next fragment on: [K], sums to 1. Returns False where
        a source gives every task equal steps.
        """
        return False

    def state(self) -> State | None:
        """All that the next `take` depends on except the policy; None where the source cannot be resumed."""
        return {}

    def restore(self, state: State | None, agent: Agent, steps: int, incarnation: int) -> bool:
        """Restores `state` before the first `take` of a resumed run; False where lanes are opened again.
        `incarnation` counts the sessions before this one.
        """
        return True

    def metrics(self) -> dict[str, float]:
        """Figures of the data taken since the last call, for the next record."""
        return {}

    @property
    def counted(self) -> int:
        """Environment steps whose data this rank holds, where they outlive its process and may be ahead of a
        checkpoint; 0 elsewhere.
        """
        return 0

    def close(self) -> None:
        """Frees workers and simulators."""


class DatasetSource(Source):
    """Demonstrations, once in every session since they are stored with the run, then an online source."""

    def __init__(self, load: Callable[[], Mapping[int, Trajectories]], online: Source | None = None) -> None:
        """`load` is called at the first `take`. Closes `online`; without one nothing follows."""
        self._load: Callable[[], Mapping[int, Trajectories]] | None = load
        self._online = online or Source()

    def take(self, agent: Agent, reducer: Reducer) -> Sequence[Data]:
        """This rank's share of the episodes, every `reducer.size`-th of each task; then the online data."""
        if self._load is None:
            return self._online.take(agent, reducer)
        found, self._load = self._load(), None
        return [Datasets({k: _share(part, reducer.rank, reducer.size) for k, part in found.items()})]

    def publish(self, agent: Agent, steps: int) -> None:
        """Publishes to the online source."""
        self._online.publish(agent, steps)

    def set_shares(self, shares: npt.NDArray[np.float64]) -> bool:
        """Sets the shares of the online source."""
        return self._online.set_shares(shares)

    def state(self) -> State | None:
        """The state of the online source."""
        return self._online.state()

    def restore(self, state: State | None, agent: Agent, steps: int, incarnation: int) -> bool:
        """Restores the source that collects."""
        return self._online.restore(state, agent, steps, incarnation)

    def metrics(self) -> dict[str, float]:
        """Those of the online source."""
        return self._online.metrics()

    @property
    def counted(self) -> int:
        """Those of the online source."""
        return self._online.counted

    def close(self) -> None:
        """Closes the source that collects."""
        self._online.close()


class StreamSource(Source):
    """Fragments of continuous collection, by random play or another policy until the warm-up is over."""

    def __init__(
        self,
        open_fragments: Callable[[PolicySnapshot, int], Fragments],
        names: Sequence[str],
        warmup: int = 0,
        first: PolicySnapshot = RANDOM,
    ) -> None:
        """`open_fragments` makes the source from the policy that acts first and the environment steps done
        so far; it is called when the first fragment is needed. `names` of the tasks by index. `first` acts
        until the warm-up is over.
        """
        self._open, self._names, self._warmup, self._first = open_fragments, tuple(names), warmup, first
        self._fragments: Fragments | None = None
        self._stream: Iterator[Fragment] | None = None
        self._shares: npt.NDArray[np.float64] | None = None
        self._steps = self._incarnation = 0
        self._staleness = Staleness()

    def take(self, agent: Agent, reducer: Reducer) -> Sequence[Data]:
        """The next fragment; raises ResourceError when every task is in quarantine."""
        fragments = self._fragments if self._fragments is not None else self._begin(agent)
        if self._stream is None:
            self._stream = fragments.stream()
        fragment = next(self._stream, None)
        if fragment is None:
            faults = "; ".join(f"{self._names[k]}: {why}" for k, why in fragments.quarantined.items())
            raise ResourceError(f"every task is in quarantine after {self._steps} steps: {faults}")
        if fragments.by_arrival:
            self._staleness.add(fragment.policy_version)
        return [fragment]

    def publish(self, agent: Agent, steps: int) -> None:
        """As of Source. Lanes in this process act with the learner's own weights, which are not updated while
        a fragment is collected.
        """
        self._steps = steps
        fragments = self._fragments
        if fragments is None:
            return
        warm = steps >= self._warmup
        if warm and isinstance(fragments, LocalFragments) and isinstance(agent, LivePolicy):
            fragments.use(agent.policy(), self._incarnation)
        else:
            self._staleness.publish(fragments.publish(self._acting(agent)))

    def set_shares(self, shares: npt.NDArray[np.float64]) -> bool:
        """As of Source; lanes that are not open yet get the shares when they open."""
        self._shares = shares
        if self._fragments is not None:
            self._fragments.set_shares(shares)
        return True

    def metrics(self) -> dict[str, float]:
        """How old the policies of the fragments were, where these come by arrival."""
        return self._staleness.metrics()

    def state(self) -> State | None:
        """The state of the lanes; None where they are opened again on resuming."""
        try:
            return None if self._fragments is None else self._fragments.state_dict()
        except UnsupportedError:
            return None

    def restore(self, state: State | None, agent: Agent, steps: int, incarnation: int) -> bool:
        """Rebuilds the lanes where they were, or opens new ones when the first fragment is needed."""
        self._steps, self._incarnation = steps, incarnation
        if state is None:
            return False
        try:
            self._begin(agent).load_state_dict(state)
        except UnsupportedError as error:
            warnings.warn(f"lanes are opened again: {error}", MtrlWarning, stacklevel=2)
            return False
        return True

    def close(self) -> None:
        """Frees workers and simulators; another `take` opens new ones."""
        if self._fragments is not None:
            self._fragments.close()
            self._fragments = self._stream = None

    def _begin(self, agent: Agent) -> Fragments:
        acting = self._acting(agent)
        self._staleness.publish(Version(acting.incarnation, acting.version))
        self._fragments = fragments = self._open(acting, self._steps)
        if self._shares is not None:
            fragments.set_shares(self._shares)
        return fragments

    def _acting(self, agent: Agent) -> PolicySnapshot:
        if self._steps < self._warmup:
            return replace(self._first, incarnation=self._incarnation)
        return replace(agent.snapshot("collect"), incarnation=self._incarnation)


class NumberedFragments(Fragments, Protocol):
    """Fragments of a server that outlives its consumer, and hands out one again until it was acknowledged."""

    taken: int
    """Number of the last fragment that came. Asking for the next acknowledges it."""


class StoredStream(StreamSource):
    """A stream into a replay that lies in files. What a killed learner had stored is there again, and
    what it had not is delivered once more.
    """

    def __init__(
        self,
        fragments: NumberedFragments,
        names: Sequence[str],
        warmup: int = 0,
        first: PolicySnapshot = RANDOM,
        *,
        replay: Replay,
        counts: bool = True,
    ) -> None:
        """`replay` is the agent's, in files. `counts` the steps of a restored run, which one rank does."""
        super().__init__(self._published, names, warmup, first)
        self._server, self._replay, self._counts = fragments, replay, counts
        record = replay.record
        assert record is not None, "the replay must lie in files"
        fragments.taken = record.number
        self._stored = record.steps
        self._pending = 0

    @property
    def counted(self) -> int:
        """Steps of the fragments in the replay, and of the run before these files."""
        return self._stored

    def take(self, agent: Agent, reducer: Reducer) -> Sequence[Data]:
        """The next fragment; those before it are committed."""
        self._commit()
        found = super().take(agent, reducer)
        self._pending = sum(data.steps for data in found if isinstance(data, Fragment))
        return found

    def publish(self, agent: Agent, steps: int) -> None:
        """As of Source; what was taken is in the replay by now, and before a checkpoint is saved."""
        self._commit()
        super().publish(agent, steps)

    def restore(self, state: State | None, agent: Agent, steps: int, incarnation: int) -> bool:
        """Goes on with the lanes as they are; the steps before these files are those of the checkpoint."""
        if not self._replay.reopened and self._counts:
            self._stored = steps
        return super().restore(None, agent, steps, incarnation)

    def state(self) -> State | None:
        """None: the lanes are not this process's."""
        return None

    def _published(self, snapshot: PolicySnapshot, steps: int) -> Fragments:
        self._server.publish(snapshot)
        return self._server

    def _commit(self) -> None:
        if self._pending:
            self._stored += self._pending
            self._replay.commit(self._server.taken, self._stored)
            self._pending = 0


class GroupSource(Source):
    """Groups of whole episodes, those that the agent requests; each rank runs its slice of a round,
    with the newest policy. It has no state: episodes are whole, and the agent decides what is requested next.
    """

    def __init__(self, rollouts: Callable[[], Rollouts]) -> None:
        """`rollouts` returns what runs the episodes; this source does not close it."""
        self._rollouts = rollouts
        self._incarnation = 0

    def take(self, agent: Agent, reducer: Reducer) -> Sequence[Data]:
        """A round, in the order of its requests; collective. Raises ResourceError when no task is left."""
        if not isinstance(agent, RequestsGroups):
            raise ConfigError(f"{type(agent).__name__} needs groups but requests none: it lacks request()")
        mine = list(agent.request(reducer))[reducer.rank :: reducer.size]
        rollouts = self._rollouts()
        snapshot = replace(agent.snapshot("collect"), incarnation=self._incarnation)
        found = [EpisodeGroup.of(result) for result in rollouts.run([r.job() for r in mine], snapshot)]
        if mine and not found:
            faults = "; ".join(rollouts.quarantined.values())
            raise ResourceError(f"no task of the round could be run: {faults}")
        return found

    def restore(self, state: State | None, agent: Agent, steps: int, incarnation: int) -> bool:
        """Keeps `incarnation` for later snapshots; there is no other state."""
        self._incarnation = incarnation
        return True


def _share(data: Trajectories, rank: int, ranks: int) -> Trajectories:
    return data if ranks == 1 else data.select(np.arange(rank, data.episode_count, ranks))
