"""A session: one configuration run in one run directory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from mtrl.deployment import DeploymentReport
from mtrl.distributed import preflight, processors, rollouts_for
from mtrl.errors import ConfigError, EnvironmentFault
from mtrl.evaluation import EvaluationResult, PolicyReference, Provenance, evaluate
from mtrl.reading import reading
from mtrl.rollout import FaultText, JobResult, PolicySnapshot, Rollouts
from mtrl.structured import plain
from mtrl.tasks import TaskSet
from mtrl.training import Checkpoints, Interruptible, RunDirectory, own_run, progress

from .config import Config, canonical_settings, run_name, task_set_of
from .console import Interrupted, log

BUDGETS = (("online", "steps"), ("training", "updates"))
"""Settings of a run's length, which may grow on resuming."""

CHANGEABLE_ON_RESUMING = (*BUDGETS, ("training", "minutes"), ("agent", "on_non_finite"))
"""Settings that may change on resuming: how long, and whether past a number that is not finite."""

FREE_ON_RESUMING = frozenset({"runtime", "tracking", "stages", "robot", "output", "name"})
"""Settings of a run's folder, machine and output, which may change on resuming and are not recorded."""


@dataclass
class Session:
    """Shared state of all stages of a run. Use as `with open_session(...) as session`."""

    config: Config
    tasks: TaskSet
    run: RunDirectory
    console: Console
    interrupt: Interruptible
    results: list[EvaluationResult] = field(default_factory=list)
    """Results of the stage "evaluate"."""
    deployment: DeploymentReport | None = None
    """Report of the stage "deploy"; None where its results existed already."""
    brief: bool = False
    """Whether tables of results are left to whoever opened the session."""
    exits: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)
    """Closed at the end of the session."""
    _rollouts: Rollouts | None = field(default=None, repr=False)
    _fault_text: FaultText = field(default_factory=FaultText, repr=False)

    @property
    def rollouts(self) -> Rollouts:
        """The run's workers, started when first needed and shared by all stages."""
        if self._rollouts is None:
            if self.config.runtime.kind == "ray":
                copies = max(self.config.evaluation.copies, self.config.demonstrations.copies)
                plan = preflight(self.tasks, self.config.runtime, copies=copies, torch=True)
                self.console.print(f"[dim]{plan}[/dim]", highlight=False)
            self._rollouts = rollouts_for(self.tasks, self.config.runtime, self.show_fault)
        return self._rollouts

    def close_rollouts(self) -> None:
        """Frees the workers and their memory."""
        if self._rollouts is not None:
            self._rollouts.close()
            self._rollouts = None

    def stop_if_requested(self, doing: str) -> None:
        """Raises Interrupted after Ctrl-C; for work that is short enough to be done again."""
        if self.interrupt.requested:
            raise Interrupted(f"stopped while {doing}")

    @contextlib.contextmanager
    def stopping_at_once(self, doing: str) -> Iterator[None]:
        """Turns Ctrl-C into Interrupted in the middle of work that saves nothing before its end."""
        self.stop_if_requested(doing)
        try:
            with self.interrupt.at_once():
                yield
        except KeyboardInterrupt:
            if not self.interrupt.requested:
                raise
            raise Interrupted(f"stopped while {doing}") from None

    def evaluate(
        self,
        snapshot: PolicySnapshot,
        label: str,
        identity: str,
        *,
        kind: str = "",
        record: Collection[int] = (),
        on_result: Callable[[JobResult], None] = lambda result: None,
    ) -> EvaluationResult:
        """A policy on the configured starts, with a bar; Ctrl-C ends it at once. See `evaluate`.

        `kind` is the label unless given.
        """
        tasks, protocol = self.tasks, self.config.evaluation
        with (
            self.stopping_at_once(f"evaluating {self.called(label)}"),
            progress(f"evaluate {self.called(label)}", len(tasks) * protocol.episodes) as bar,
        ):

            def advance(result: JobResult) -> None:
                bar.advance(len(result.job.starts), task=tasks[result.job.task_index].name)
                self.show_broken(result)
                on_result(result)

            return evaluate(
                self.rollouts,
                tasks,
                snapshot,
                protocol,
                PolicyReference(
                    label, kind=kind or label, identity=identity, version=snapshot.version
                ).by_agent(self.config.agent),
                Provenance.collect(),
                record=record,
                on_result=advance,
            )

    def called(self, label: str) -> str:
        """What people read for the label of a policy."""
        return PolicyReference(label, label, "", 0).by_agent(self.config.agent).shown

    def set_threads(self) -> None:
        """Gives the learner its threads; the workers are idle while it learns."""
        import torch

        torch.set_num_threads(self.config.training.threads or processors())

    def log(self, text: str) -> None:
        """Prints text as it is; see `console.log`."""
        log(self.console, text)

    def warn(self, text: str) -> None:
        """Prints text as it is, in yellow."""
        self.console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Prints text as it is after a yellow "note:"."""
        self.console.print("[yellow]note:[/yellow] ", end="")
        self.log(text)

    def show_broken(self, result: JobResult) -> None:
        """Prints what broke episodes of a job: each reason once, with its traceback."""
        for one in result.broken:
            fault = one.fault(self.tasks[result.job.task_index].name)
            text = self._fault_text.of(fault)
            if text != fault.summary:
                self.console.print("[red]an episode broke, the others go on:[/red] ", end="")
                self.console.print(text, markup=False, highlight=False)

    def show_fault(self, fault: EnvironmentFault, quarantined: bool) -> None:
        """Prints an environment's fault, and whether its task is quarantined or tried again."""
        fate = "the task is quarantined" if quarantined else "trying again"
        self.console.print(f"[red]{fate}:[/red] ", end="")
        self.console.print(self._fault_text.of(fault), markup=False, highlight=False)


@contextlib.contextmanager
def open_session(
    config: Config, *, overwrite: bool, resume: bool, console: Console | None = None
) -> Iterator[Session]:
    """Creates or reopens the run directory, locked until the end, when the workers are freed too."""
    tasks, path = task_set_of(config), Path(config.output) / run_name(config)
    with own_run(path):
        run = RunDirectory.create(path, overwrite=overwrite, resume=resume, config=plain(config))
        if run.resumed:
            _require_extension(run, config)
            run.resume_config(plain(config), CHANGEABLE_ON_RESUMING, FREE_ON_RESUMING, canonical_settings)
        with session_in(run, config, tasks, console or Console(emoji=False)) as session:
            yield session


def _require_extension(run: RunDirectory, config: Config) -> None:
    """Raises ConfigError for a budget below the run's, or above it where no checkpoint is left."""
    given, saved = plain(config), run.read_config()
    for section, key in BUDGETS:
        with reading(run.config_file, "the configuration of a run"):
            # runs of older versions may lack the section; `resume_config` compares it then
            was, now = int(saved.get(section, {}).get(key, given[section][key])), int(given[section][key])
        if now < was:
            raise ConfigError(
                f"{section}.{key}={now} is below the {was} that this run has; a run can be made longer, not "
                f"shorter. Keep {section}.{key}={was} or name a larger one, or give a new run another name"
            )
        kept = (run.policies / "teacher").exists()
        if now > was and kept and not Checkpoints(run.training("teacher")).steps():
            raise ConfigError(
                f"{section}.{key}={now} is above the {was} that this run has, and {run.path} has no "
                f"checkpoint to go on from; begin a new run from its policy with init_from={run.path}"
            )


@contextlib.contextmanager
def session_in(run: RunDirectory, config: Config, tasks: TaskSet, console: Console) -> Iterator[Session]:
    """A session in an existing folder; frees the workers at the end."""
    with Interruptible() as interrupt:
        session = Session(config, tasks, run, console, interrupt)
        try:
            yield session
        finally:
            session.close_rollouts()
            session.exits.close()
