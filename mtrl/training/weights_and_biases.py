"""Metrics on Weights & Biases: recorded by a thread of its own, so that no network slows training."""

from __future__ import annotations

import json
import os
import queue
import secrets
import string
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtrl.atomic import write_text
from mtrl.errors import ConfigError, MtrlWarning
from mtrl.reading import MEGABYTE, parse_json, read_bytes, reading

if TYPE_CHECKING:
    from wandb import Run

MODES = ("online", "offline", "disabled")

WAITING_RECORDS = 10_000
"""Records that may wait while W&B starts; more are refused, which `Trackers` counts as lost."""

INIT_SECONDS = 20.0
"""Longest wait for the server at the beginning; beyond it the run is recorded offline."""

FINISH_SECONDS = 15.0
"""Longest wait for uploads at the end; what is left stays on disk."""

CLOSE_SECONDS = INIT_SECONDS + FINISH_SECONDS + 10.0
"""Longest that `close` waits altogether."""


@dataclass(frozen=True)
class WandbConfig:
    """Settings of a run's record on Weights & Biases."""

    mode: str = "disabled"
    """"online": streamed to the server, from a thread. "offline": written below the run only, to be sent
    with `wandb sync`. "disabled": not at all. WANDB_MODE in the environment may take "online" back to
    "offline" or "disabled", never the other way."""
    project: str = "mtrl"
    """Project on the server."""
    entity: str = ""
    """User or team that owns the project; empty takes the account's default."""
    group: str = ""
    """Group of the run; empty takes the run's name, so that a teacher and its student stand together."""
    tags: tuple[str, ...] = ()
    """Tags of the run."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"tracking.wandb.mode is one of {', '.join(MODES)}; got {self.mode!r}")
        if not self.project:
            raise ConfigError("tracking.wandb.project is empty; give the project a name")

    @property
    def effective_mode(self) -> str:
        """The mode, with WANDB_MODE taken into account."""
        given = os.environ.get("WANDB_MODE", "").lower()
        mode = {"dryrun": "offline"}.get(given, given)
        stricter = mode in MODES and MODES.index(mode) > MODES.index(self.mode)
        return mode if stricter else self.mode


@dataclass(frozen=True)
class _Record:
    stream: str
    step: int
    values: dict[str, float]


class WandbTracker:
    """Sends metrics as they are and wall-clock measurements as `timing/...`, over a metric "step".

    The run's id and how far each stream has come are kept in `wandb/mtrl.json` below the run's directory;
    a later session goes on in the same run on the server, and leaves out the steps that are there
    already, since a resumed run repeats them with the same values. The server cannot forget a step.

    `log` and `timing` put a record into a queue and return. Without a network, an API key or an answer
    within INIT_SECONDS the run is recorded offline, with one warning; nothing ever prompts for a login.
    Console output, git state and code are not sent.
    """

    name = "wandb"

    def __init__(
        self,
        run_directory: Path,
        config: WandbConfig,
        *,
        run_name: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """`run_name` is what the run is called on the server, `settings` its configuration, shown there.

        Raises ConfigError for the mode "disabled", which needs no tracker. Nothing is started or written
        before something is logged.
        """
        self._mode = config.effective_mode
        if self._mode == "disabled":
            raise ConfigError("a W&B tracker was made although W&B is disabled; leave it out")
        self._directory, self._config = run_directory, config
        self._run_name, self._settings = run_name or run_directory.name, dict(settings or {})
        self._records: queue.Queue[_Record | None] = queue.Queue(WAITING_RECORDS)
        self._notices: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._memory = _Memory(run_directory / "wandb" / "mtrl.json")
        self._last_step = -1
        self._exit_code = 0
        self._failed = False

    @property
    def run_id(self) -> str:
        """The id on the server; kept with the run."""
        return self._memory.run_id

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Queues deterministic values; raises queue.Full when W&B does not keep up."""
        self._put("metrics", step, metrics, "")

    def timing(self, step: int, values: Mapping[str, float]) -> None:
        """Queues wall-clock measurements; raises queue.Full when W&B does not keep up."""
        self._put("timing", step, values, "timing/")

    def close(self) -> None:
        """Waits for what is queued, at most CLOSE_SECONDS; what was not sent by then stays on disk."""
        if self._thread is None:
            return
        # Called while an error is on its way, the run is marked as failed.
        self._exit_code = int(sys.exc_info()[0] is not None)
        deadline = time.monotonic() + CLOSE_SECONDS
        try:
            self._records.put(None, timeout=CLOSE_SECONDS)
            self._thread.join(max(0.0, deadline - time.monotonic()))
            still_busy = self._thread.is_alive()
        except queue.Full:
            still_busy = True
        self._thread = None
        self._tell()
        if still_busy:
            _warn(
                f"W&B did not finish within {CLOSE_SECONDS:.0f} s; send what is left with: "
                f"wandb sync {self._directory / 'wandb'}/*run-*"
            )

    def state_dict(self) -> dict[str, Any]:
        """The last step that was logged."""
        return {"last_step": self._last_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on after the state's last step; steps that the server has are not sent twice."""
        self._last_step = int(state.get("last_step", -1))

    def _put(self, stream: str, step: int, values: Mapping[str, float], group: str) -> None:
        self._tell()
        self._last_step = max(self._last_step, step)
        if self._failed or step <= self._memory.reached_before[stream]:
            return
        record = _Record(stream, step, {group + key: float(value) for key, value in values.items()})
        self._records.put_nowait(record)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mtrl-wandb", daemon=True)
            self._thread.start()

    def _tell(self) -> None:
        while not self._notices.empty():
            _warn(self._notices.get())

    def _work(self) -> None:
        """The thread: starts W&B, passes records on until the end, finishes."""
        try:
            run = self._begin()
            while (record := self._records.get()) is not None:
                run.log({**record.values, "step": record.step})
                self._memory.reached(record.stream, record.step)
            run.finish(exit_code=self._exit_code)
        except Exception as error:  # noqa: BLE001 - whatever W&B raises, training goes on
            self._failed = True
            self._notices.put(f"W&B failed and records no more ({type(error).__name__}: {error})")

    def _begin(self) -> Run:
        # W&B reports on itself too, even offline, and waits for that when the process ends.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        mode = self._mode
        if mode == "online" and not _has_key():
            mode = "offline"
            self._notices.put(f"W&B is not logged in (`wandb login` does that); {self._offline_advice()}")
        if mode == "online":
            try:
                return self._start("online")
            except (wandb.Error, TimeoutError, OSError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                self._notices.put(f"W&B cannot be reached ({reason}); {self._offline_advice()}")
                if wandb.run is None:
                    # Its service still holds the id for the attempt that failed.
                    wandb.teardown()
        return self._start("offline")

    def _start(self, mode: str) -> Run:
        import wandb

        # The id is kept before anything is known under it on the server.
        self._memory.keep()
        run = wandb.init(
            mode="online" if mode == "online" else "offline",
            dir=str(self._directory),
            project=self._config.project,
            entity=self._config.entity or None,
            group=self._config.group or None,
            tags=list(self._config.tags),
            name=self._run_name,
            id=self._memory.run_id,
            resume="allow",
            # A notebook may have a W&B run of its own.
            reinit="create_new",
            config=self._settings,
            settings=wandb.Settings(
                init_timeout=INIT_SECONDS,
                finish_timeout=FINISH_SECONDS,
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                save_code=False,
                disable_job_creation=True,
                x_disable_stats=mode == "offline",
            ),
        )
        run.define_metric("step", hidden=True)
        # Steps of a resumed run may come in any order; W&B's own counter may not go back.
        run.define_metric("*", step_metric="step")
        return run

    def _offline_advice(self) -> str:
        return (
            "training goes on and the run is recorded offline; send it later with: "
            f"wandb sync {self._directory / 'wandb'}/offline-run-*"
        )


class _Memory:
    """The run's id and the last step of each stream that was passed on, in one small file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reached_before = {"metrics": -1, "timing": -1}
        letters = string.ascii_lowercase + string.digits
        self.run_id = "".join(secrets.choice(letters) for _ in range(8))
        if path.is_file():
            advice = "restore it, or remove it to record the rest as a new run"
            with reading(path, "the memory of a W&B run", advice):
                known: Any = parse_json(read_bytes(path, MEGABYTE))
                self.run_id = str(known["id"])
                self.reached_before = {key: int(known["reached"][key]) for key in self.reached_before}
        self._reached = dict(self.reached_before)

    def reached(self, stream: str, step: int) -> None:
        """Notes that a record was passed on."""
        self._reached[stream] = max(self._reached[stream], step)
        self.keep()

    def keep(self) -> None:
        """Writes the file."""
        content = json.dumps({"id": self.run_id, "reached": self._reached}) + "\n"
        write_text(self.path, content, overwrite=True)


def _has_key() -> bool:
    """Whether credentials are configured; prompts for nothing and writes nothing."""
    import wandb

    # With a run of the notebook's own W&B is logged in, and asking again only prints a warning.
    return wandb.run is not None or bool(wandb.login(prompt=False, verify=False))


def _warn(message: str) -> None:
    warnings.warn(message, MtrlWarning, stacklevel=4)
