"""The agent contract: what an agent declares before it is built, and how it learns, on one rank or many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from mtrl.errors import UnsupportedError
from mtrl.panels import Panel
from mtrl.rollout import EpisodeGroup, Fragment, GroupRequest, Policy, PolicySnapshot
from mtrl.tasks import TaskSet

if TYPE_CHECKING:
    import torch

    from mtrl.data import MappedStorage, Replay, Trajectories
    from mtrl.evaluation import EvaluationResult
    from mtrl.reducer import Reducer

Use = Literal["collect", "evaluate", "export"]
"""Purpose of a snapshot: collection may explore or plan with more than is evaluated or exported."""

State = Mapping[str, Any]
"""Nested mappings and lists of tensors, arrays and JSON values; see `mtrl.training.codec`."""

PARENTS = ("init_from", "reference", "teacher", "student")
"""Policies that a run may start from, by the configuration's keys."""


@dataclass(frozen=True)
class Datasets:
    """Demonstrations by task: what `ingest` takes before anything else where `Needs.offline` is set."""

    trajectories: Mapping[int, Trajectories]
    """Task index -> demonstrations; of several ranks each holds its share of the episodes."""


@dataclass(frozen=True)
class Offline:
    """Demonstrations are ingested before anything else."""

    rewards: bool = False
    """Whether rewards are used, so that they must be those of the task."""
    failures: bool = False
    """Whether episodes without success are used too."""
    updates: int = 0
    """Updates on demonstrations alone before the first step online; the budget itself where nothing is
    online."""


@dataclass(frozen=True)
class Stream:
    """Fragments of continuous collection."""

    warmup: int = 0
    """Environment steps of random play, all tasks and ranks together, before the agent's own policy acts; the
    run takes the larger of this and `online.warmup`. Of a distiller the teacher plays them."""
    sequence: int = 0
    """Consecutive steps that a sample holds, 0 for single transitions."""


@dataclass(frozen=True)
class Groups:
    """Groups of whole episodes from one start, requested each round by `RequestsGroups`."""

    size: int
    """Episodes of a group, at least 2."""
    success_tail: int | None = None
    """Decisions played after the first success; None plays to the end."""


@dataclass(frozen=True)
class Needs:
    """Data that an agent needs: demonstrations, an online source, or both."""

    offline: Offline | None = None
    online: Stream | Groups | None = None
    """None for an agent that learns from demonstrations alone."""
    parents: tuple[str, ...] = ()
    """Keys of `PARENTS` that the agent takes; the configuration may name these and no others."""

    @property
    def stream(self) -> Stream | None:
        """The stream, where that is what it needs online."""
        return self.online if isinstance(self.online, Stream) else None

    @property
    def counts_steps(self) -> bool:
        """Whether budgets are environment steps; updates where nothing is collected while learning."""
        return self.online is not None


@dataclass(frozen=True)
class External(Needs):
    """Nothing of ours: a library with a loop of its own collects and learns; see `Baseline`."""

    @property
    def counts_steps(self) -> bool:
        """The library collects."""
        return True


def require_one_rank(name: str, ranks: int) -> None:
    """Raises UnsupportedError for a learner that cannot be one of several ranks."""
    if ranks > 1:
        raise UnsupportedError(f"agent {name!r} keeps a loop of its own and learns as one rank; got {ranks}")


class Agent(Protocol):
    """Learns one policy for all tasks of a set.

    The same agent runs in this process and data-parallel. `due` and `update` are called on every rank in the
    same order, and everything on which ranks must agree goes through the reducer; `ingest` never does.
    """

    updates: int
    """Updates so far, equal on all ranks."""

    def ingest(self, data: Fragment | EpisodeGroup | Datasets) -> None:
        """Takes what this rank collected; never collective."""

    def due(self, steps: int, reducer: Reducer) -> int:
        """Updates that are due at `steps` and not made yet; collective.

        `steps` are environment steps of all ranks together, or updates granted where nothing is online. 0
        before there is enough to learn from.
        """

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        """One update on the data of all ranks; returns metrics, equal on all ranks.

        Raises DivergenceError on every rank for a number that is not finite on any.
        """

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The current policy as data."""

    def on_evaluation(self, step: int, result: EvaluationResult) -> None:
        """Takes the outcome of an evaluation while learning; most agents ignore it."""

    def shared_state(self) -> State:
        """State that is equal on all ranks: weights, optimisers, surgery, shared draws; saved once."""

    def local_state(self) -> State:
        """State of this rank alone: replay, own draws; saved per rank."""

    def restore(self, shared: State, local: State | None) -> None:
        """Restores both; `local` is None where the number of ranks has changed."""


@runtime_checkable
class LivePolicy(Protocol):
    """An agent whose policy can act in its own process with the weights that learn, without a copy."""

    def policy(self) -> Policy:
        """The current policy."""


@runtime_checkable
class RequestsGroups(Protocol):
    """An agent that chooses the groups to collect next."""

    def request(self, reducer: Reducer) -> Sequence[GroupRequest]:
        """A whole round for all ranks together, equal on each; empty when the round is full. Collective."""


@runtime_checkable
class MeasuresConflict(Protocol):
    """An agent that compares the gradients of its tasks."""

    def task_cosines(self) -> Mapping[str, npt.NDArray[np.float64]]:
        """Part ("critic", "actor") -> [K, K], cosines between task gradients, averaged since the last call;
        NaN for pairs that were not measured. Empty when nothing was measured.
        """


@runtime_checkable
class TakesShares(Protocol):
    """An agent whose updates may prefer some tasks."""

    def set_task_shares(self, shares: npt.NDArray[np.float64]) -> None:
        """[K], sums to 1: how much each task counts in the updates from now on."""


@runtime_checkable
class OffersController(Protocol):
    """A factory whose policies are one forward pass already, so that they are exported without a student."""

    def controller(self, snapshot: PolicySnapshot, tasks: TaskSet) -> torch.nn.Module:
        """The deterministic policy: state [N, D_max] float32, neither normalised nor clipped, padded with
        zeros, and task [N] int64 -> action [N, A_max] float32 in [-1, 1]. It computes what `policy` does
        without exploration, with operations that the ONNX exporter supports, none of which mixes rows.
        """


@runtime_checkable
class ServesMore(Protocol):
    """A factory whose controllers serve more than state vectors and continuous actions."""

    controller_serves: tuple[str, ...]
    """Of "pixels" and "discrete". The controller takes a tensor for every bucket of the layout, in its order,
    then the task; pixels are uint8 [N, C, H, W]. Behind the continuous actions its answer has a column for
    every choice, which holds its probability. What is of other tasks is 0.
    """


@runtime_checkable
class OffersTwin(Protocol):
    """A factory whose agent can be trained by plain regression too, for comparison."""

    def twin(self, config: Any) -> Any:  # noqa: ANN401 - its own dataclass
        """The settings of the behaviour-cloning counterpart of the same size."""


@runtime_checkable
class AdoptsTasks(Protocol):
    """A factory whose policies can begin those of other tasks (`init_from`)."""

    def adopted(self, snapshot: PolicySnapshot, theirs: TaskSet, ours: TaskSet) -> PolicySnapshot:
        """The parent, a policy of `theirs` and of this agent, as one of `ours`, which `build` takes; raises
        ConfigError where the tasks do not fit it.
        """


@runtime_checkable
class Synthesises(Protocol):
    """A factory that can draw new transitions like those of demonstrations (`mtrl collect
    source=synthesised`).
    """

    def synthesised(
        self,
        config: Any,  # noqa: ANN401 - its own dataclass
        tasks: TaskSet,
        data: Mapping[int, Trajectories],
        count: int,
        updates: int,
        seed: int,
        on_update: Callable[[int], None],
    ) -> dict[int, Trajectories]:
        """Task -> `count` transitions as episodes of one decision, of a model trained so many updates."""


@runtime_checkable
class MapsReplay(Protocol):
    """An agent whose replay may lie in files that outlive its process."""

    def map_replay(self, storage: MappedStorage | None) -> Replay:
        """Keeps the replay there from now on, in memory for None, and returns it; called before anything is
        ingested or restored.
        A replay that was reopened is newer than a checkpoint's, so `restore` leaves it as it is.
        """


@runtime_checkable
class FollowsBudget(Protocol):
    """A factory whose schedules end with the run."""

    def with_budget(self, config: Any, updates: int) -> Any:  # noqa: ANN401
        """The settings with every schedule that is left to the run's budget of updates filled in."""


@runtime_checkable
class DrawsPanels(Protocol):
    """A factory whose metrics have pictures of their own in the report."""

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The pictures, in the order in which they are shown."""


@runtime_checkable
class KeepsReplay(Protocol):
    """A factory whose learner holds experience in memory."""

    def replay_bytes(self, config: Any, tasks: TaskSet) -> int:  # noqa: ANN401
        """Memory of the full replay; 0 where the settings keep none."""

    def saves_replay(self, config: Any) -> bool:  # noqa: ANN401
        """Whether checkpoints hold it."""
