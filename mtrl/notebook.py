"""For notebooks and scripts: make tasks, act in one, evaluate on all, train or load in a few lines.

Everything here is reached as `mtrl.make_tasks`, `mtrl.make`, `mtrl.evaluate`, `mtrl.demonstrate`,
`mtrl.train`, `mtrl.load` and `mtrl.register`, and is imported when first used. All of it runs in this
process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np
from rich.console import Console

from mtrl import registry
from mtrl.errors import ConfigError
from mtrl.evaluation import EvaluationConfig
from mtrl.registry import register
from mtrl.results import Results
from mtrl.rollout import PolicySnapshot, require_experts
from mtrl.run_directory import split_label
from mtrl.structured import build
from mtrl.tasks import Option, Task, TaskSet
from mtrl.trained_policy import TrainedPolicy

if TYPE_CHECKING:
    from mtrl.data import Trajectories
    from mtrl.pipeline import Session
    from mtrl.rollout import GymnasiumView
    from mtrl.training import Agent, Needs

__all__ = ["Results", "demonstrate", "evaluate", "load", "make", "make_tasks", "register", "train"]

Config = TypeVar("Config")
STEPS_PER_ROUND = 10
"""Decisions collected in a task before those of the next task, for an agent that learns online."""

Tasks = TaskSet | str | Sequence[str]
"""A task set, the name of a set or of a task, or a list of such names."""


class HasSnapshot(Protocol):
    """An agent, or anything else that has its policy as data."""

    def snapshot(self) -> PolicySnapshot:
        """The policy now."""


Playable = str | Path | PolicySnapshot | HasSnapshot
""""expert", "random", whatever `load` takes or returns, a snapshot, or an agent."""


def make_tasks(tasks: Tasks, options: Mapping[str, Mapping[str, Option]] | None = None) -> TaskSet:
    """Tasks from a set's name ("mixed"), a task's name or a list of both; see `mtrl.registry.task_set`.

    `options` maps the name of a suite or of one of the tasks to settings. Imports no simulator.
    """
    return tasks if isinstance(tasks, TaskSet) else registry.task_set(tasks, options)


def make(task: Task | str, render_mode: str | None = None) -> GymnasiumView:
    """One task as an ordinary `gymnasium.Env`; `reset(seed=...)` names a training start."""
    from mtrl.rollout import GymnasiumView

    if not isinstance(task, Task | str):
        raise ConfigError(f"make takes one task or its name; got {type(task).__name__}")
    return GymnasiumView(task, render_mode)


def load(where: str | Path, *, allow_import: Sequence[str] = ()) -> TrainedPolicy:
    """The policy of a run, LABEL@RUN or an exported artefact, which acts and which `evaluate` takes.

    Of a run with several policies it is the trained one; LABEL@RUN names another, such as student@runs/mine.
    `allow_import` names the modules that its tasks may import. Raises ConfigError for what holds no policy,
    IntegrityError for damage, UntrustedCodeError for tasks that import a module which was not named.
    """
    from mtrl.pipeline import find_policy

    if not isinstance(where, str | Path):
        raise ConfigError(f"load takes the folder of a run or an artefact; got {type(where).__name__}")
    registry.allow_imports([allow_import] if isinstance(allow_import, str) else allow_import)
    found = find_policy(str(where))
    tasks = found.task_set()
    snapshot, identity = found.load(tasks)
    return TrainedPolicy(snapshot, tasks, identity)


def evaluate(
    policies: Playable | Mapping[str, Playable],
    tasks: Tasks | None = None,
    *,
    episodes: int = 50,
    split: str = "test",
    seed: int = 0,
    copies: int = 10,
) -> Results:
    """Plays `episodes` starts of every task with every policy, the same starts for all.

    `policies` is one policy, or label -> policy to put several side by side. `tasks` may be left out where
    the first is one of `load` or `train`: its own then. `split`, `seed` and `copies`
    are those of `EvaluationConfig`. Raises ConfigError for a policy that cannot be played, UnsupportedError
    for the expert where tasks have none.
    """
    chosen = {"episodes": episodes, "split": split, "seed": seed, "copies": copies}
    config = _settings(EvaluationConfig, chosen, "evaluation")
    labelled = policies if isinstance(policies, Mapping) else {_label_of(policies): policies}
    if not labelled:
        raise ConfigError("there is no policy to evaluate; give one, or a mapping of label to policy")
    if tasks is None:
        tasks = _tasks_of(next(iter(labelled.values())))
    tasks = make_tasks(tasks)
    snapshots = {label: _snapshot_of(policy, tasks) for label, policy in labelled.items()}
    if any(snapshot.kind == "expert" for snapshot, _ in snapshots.values()):
        require_experts(tasks)
    with _session(tasks, evaluation=config) as session:
        found = [
            session.evaluate(snapshot, label, identity or label, kind=snapshot.kind)
            for label, (snapshot, identity) in snapshots.items()
        ]
    return Results(tuple(found))


def demonstrate(tasks: Tasks, *, episodes: int = 50, seed: int = 1) -> dict[int, Trajectories]:
    """Task index -> demonstrations of the tasks' scripted experts, for agents that learn from a dataset.

    Raises UnsupportedError before anything is played when tasks have no expert, ConfigError when one
    cannot produce enough.
    """
    from mtrl.data import DemonstrationConfig, collect_demonstrations

    tasks = make_tasks(tasks)
    require_experts(tasks)
    config = _settings(DemonstrationConfig, {"episodes": episodes}, "demonstrations")
    _require_whole(seed=seed)
    with _session(tasks) as session:
        collected = collect_demonstrations(session.rollouts, tasks, config, seed)
    return {k: part.trajectories for k, part in collected.items()}


def train(
    agent: str,
    tasks: Tasks,
    data: Mapping[int, Trajectories] | None = None,
    *,
    updates: int | None = None,
    steps: int | None = None,
    random_steps: int = 1000,
    seed: int = 1,
    **settings: Any,  # noqa: ANN401 - the agent's config checks them
) -> TrainedPolicy:
    """The policy of a new agent, trained; `settings` are fields of its config.

    One that learns from demonstrations takes `data` and makes `updates` updates. One that learns from its
    own play takes `steps` decisions, all tasks together and rounded up to ten, of which the first
    `random_steps` are random::

        policy = mtrl.train("sac", "gym/CartPole-v1", steps=6000, random_steps=500)

    The learner itself is its `agent`. Writes nothing; `mtrl train` keeps checkpoints, metrics and policies.
    Raises UnknownNameError for a setting that the agent does not have, ConfigError for one of the wrong type,
    for data or a budget that the agent cannot use, and for a library's own loop (sb3, rllib).
    """
    from mtrl.rollout import CollectionConfig
    from mtrl.training import External, OnlineConfig, TrainingConfig

    if not isinstance(agent, str):
        raise ConfigError(f"an agent is given by its name, such as 'diffusion'; got {type(agent).__name__}")
    _require_demonstrations(data)
    numbers = {"updates": updates, "steps": steps, "random_steps": random_steps, "seed": seed}
    _require_whole(**{name: value for name, value in numbers.items() if value is not None})
    tasks, factory = make_tasks(tasks), registry.load("agent", agent)
    config = _settings(factory.config_class, settings, "agent")
    needs = factory.needs(config, tasks)
    if isinstance(needs, External):
        raise ConfigError(
            f"agent {agent!r} is a library's own loop; train it with `mtrl train agent={agent}`, and play "
            "what it learned with `evaluate`"
        )
    if needs.online is None:
        if data is None or updates is None or steps is not None:
            raise ConfigError(
                f"agent {agent!r} learns from demonstrations: give it data, as `demonstrate` returns, and "
                "updates instead of steps"
            )
        learner = factory.build(config, tasks, seed)
        if updates:
            training = TrainingConfig(updates=updates, log_every=updates)
            _fit(learner, tasks, needs, data, seed=seed, training=training)
        return _trained(learner, tasks, agent)
    if needs.stream is None:
        raise ConfigError(f"agent {agent!r} requests groups; train it with `mtrl train agent={agent}`")
    if not steps or updates is not None:
        raise ConfigError(f"agent {agent!r} learns from its own play: give it steps instead of updates")
    if (data is not None) != (needs.offline is not None):
        raise ConfigError(
            f"agent {agent!r} takes demonstrations as data exactly where its settings mix them in "
            "(sac: replay={'demonstrations': 0.5})"
        )
    learner = factory.build(config, tasks, seed)
    online = OnlineConfig(steps=steps, warmup=random_steps, log_every=steps)
    collection = CollectionConfig(copies=1, steps=STEPS_PER_ROUND, stagger=False)
    _fit(learner, tasks, needs, data, seed=seed, online=online, collection=collection)
    if not learner.updates:
        raise ConfigError(
            f"the agent learned nothing in {steps} steps: no task came to a batch of transitions, or those "
            f"after random_steps={random_steps} are too few for an update at its replay ratio; raise steps"
        )
    return _trained(learner, tasks, agent)


def _trained(learner: object, tasks: TaskSet, name: str) -> TrainedPolicy:
    agent = cast("Agent", learner)
    return TrainedPolicy(agent.snapshot("evaluate"), tasks, name, agent=agent)


def _require_demonstrations(data: object) -> None:
    if data is not None and not isinstance(data, Mapping):
        raise ConfigError(
            "data maps a task's index to its demonstrations, as `demonstrate` returns; "
            f"got {type(data).__name__}"
        )


@contextlib.contextmanager
def _session(tasks: TaskSet, **sections: Any) -> Iterator[Session]:  # noqa: ANN401 - fields of Config
    """A session of `mtrl train` in this process that keeps nothing."""
    from mtrl.pipeline import Config as RunConfig
    from mtrl.pipeline import Session
    from mtrl.training import Interruptible, RunDirectory

    session = Session(
        RunConfig(**sections), tasks, RunDirectory(Path()), Console(emoji=False), Interruptible()
    )
    try:
        yield session
    finally:
        session.close_rollouts()


def _fit(
    learner: Agent,
    tasks: TaskSet,
    needs: Needs,
    data: Mapping[int, Trajectories] | None,
    **sections: Any,  # noqa: ANN401 - fields of Config
) -> None:
    """The loop of `mtrl train` without trackers and checkpoints."""
    from mtrl.pipeline import clock_of, fit
    from mtrl.training import Trackers

    with _session(tasks, **sections) as session:
        clock = clock_of(needs, session.config.training, session.config.online)
        fit(session, learner, needs, clock, lambda: data or {}, name="train", tracker=Trackers([]))


def _settings(kind: type[Config], values: Mapping[str, Any], place: str) -> Config:
    """A config of checked settings; NumPy's numbers are taken for Python's."""
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}
    return build(kind, plain, place)


def _require_whole(**numbers: object) -> None:
    for name, value in numbers.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
            raise ConfigError(f"{name} is a whole number, 0 or more; got {value!r}")


def _label_of(policy: Playable) -> str:
    if isinstance(policy, str | Path):
        return str(policy)
    return policy.kind if isinstance(policy, PolicySnapshot) else _of_agent(policy).kind


def _tasks_of(policy: Playable) -> TaskSet:
    """The tasks that a policy brings."""
    from mtrl.pipeline import is_scripted

    if isinstance(policy, TrainedPolicy):
        return policy.tasks
    if isinstance(policy, str | Path) and not is_scripted(Path(policy)):
        return load(policy).tasks
    raise ConfigError("this policy brings no tasks; name them, as in evaluate(policy, 'mt10')")


def _snapshot_of(policy: Playable, tasks: TaskSet) -> tuple[PolicySnapshot, str]:
    """The policy as data, and its hash where it has one."""
    if isinstance(policy, PolicySnapshot):
        return policy, ""
    if isinstance(policy, TrainedPolicy):
        return policy.snapshot(), policy.identity
    if not isinstance(policy, str | Path):
        return _of_agent(policy), ""
    from mtrl.pipeline import find_policy, is_scripted

    if is_scripted(Path(policy)):
        return PolicySnapshot(str(policy)), ""
    if not split_label(str(policy))[1].is_dir():
        raise ConfigError(
            f"policy {str(policy)!r} is neither 'expert' nor 'random' nor the folder of a run or an artefact"
        )
    return find_policy(str(policy)).load(tasks)


def _of_agent(policy: HasSnapshot) -> PolicySnapshot:
    if not callable(getattr(policy, "snapshot", None)):
        raise ConfigError(
            "a policy is 'expert', 'random', the folder of a run or an artefact, what mtrl.load returns, a "
            f"PolicySnapshot or an agent; got {type(policy).__name__}. mtrl.register('policy', name, ...) "
            "makes a policy of your own playable as PolicySnapshot(name)"
        )
    return policy.snapshot()
