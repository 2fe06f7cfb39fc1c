"""A cluster's Jobs server: submitting commands, following their output, stopping them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from ray.job_submission import JobDetails, JobSubmissionClient

from mtrl.errors import ConfigError, ExistsError

from ..head import ANSWER_SECONDS, require_versions, token_error
from ..ray_start import own_token
from .upload import Upload

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
LOST_SECONDS = 60.0
"""How long a server that stopped answering is asked again."""
AGENT_SECONDS = 30.0
"""How long a server that has just started is asked to begin a job."""
_WORDS, _OPTIONS, _GRACE = "mtrl_words", "mtrl_options", "mtrl_grace_seconds"


@dataclass(frozen=True)
class Job:
    """A job as its server describes it."""

    name: str
    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    message: str
    exit_code: int | None
    """Of the command; None until it ends by itself."""
    words: tuple[str, ...]
    """The command of mtrl; empty for a job that `JobServer.submit` did not make."""
    options: tuple[str, ...]
    """Options of `mtrl submit` with which it was submitted."""
    grace_seconds: float

    @property
    def over(self) -> bool:
        """Whether it ended, one way or another."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


class JobServer:
    """The Jobs server of one cluster."""

    def __init__(self, address: str = "") -> None:
        """Asks the server who it is. `address` is that of the dashboard; empty takes
        RAY_API_SERVER_ADDRESS, and then this machine's.

        Raises ConfigError within seconds where none answers, or its token or Ray are not ours.
        """
        given = address or os.environ.get("RAY_API_SERVER_ADDRESS", "") or DEFAULT_ADDRESS
        if "://" not in given:
            given = DEFAULT_ADDRESS if given == "auto" else f"http://{given}"
        if not given.startswith(("http://", "https://")):
            raise ConfigError(
                f"--address {given}: jobs are submitted over HTTP; give the dashboard's address, such as "
                "http://HEAD:8265"
            )
        self.address = given.rstrip("/")
        found, headers = _version(self.address)
        require_versions(self.address, str(found.get("ray_version")))
        # Ray lets these variables stand before what it is told
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address
        with _answers(self.address):
            self._client = JobSubmissionClient(self.address, headers=headers)

    def submit(
        self,
        name: str,
        words: Sequence[str],
        upload: Upload,
        *,
        python: str,
        grace_seconds: int,
        variables: Mapping[str, str],
        options: Sequence[str] = (),
    ) -> None:
        """Sends the folder and starts `mtrl WORDS` in it. Every word arrives as it is: nothing of it is read
        by the shell that Ray starts commands with. A stop gives the command `grace_seconds` to save.

        Raises ExistsError for a name that a job of this cluster has.
        """
        if self._find(name) is not None:
            raise ExistsError(f"the cluster at {self.address} has a job {name!r}; choose another --name")
        with _answers(self.address):
            self._submit(
                # without exec the shell would stand between the stop's signal and the command's exit
                entrypoint=f"exec {shlex.join([python, '-m', 'mtrl.launch.main', *words])}",
                submission_id=name,
                metadata={
                    _WORDS: json.dumps(list(words)),
                    _OPTIONS: json.dumps(list(options)),
                    _GRACE: str(grace_seconds),
                },
                runtime_env={
                    "working_dir": str(upload.folder),
                    "excludes": list(upload.excludes),
                    "env_vars": {
                        **variables,
                        "RAY_JOB_STOP_SIGNAL": "SIGINT",
                        "RAY_JOB_STOP_WAIT_TIME_S": str(grace_seconds),
                    },
                },
            )

    def _submit(self, **job: Any) -> None:  # noqa: ANN401 - as of Ray's own
        """A head that has just started has nobody yet who starts a job, and asks to try again."""
        deadline = time.monotonic() + AGENT_SECONDS
        while True:
            try:
                self._client.submit_job(**job)
                return
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def job(self, name: str) -> Job:
        """The job of that name; raises ConfigError where there is none."""
        found = self._find(name)
        if found is None:
            known = ", ".join(job.name for job in self.jobs()[-5:]) or "none"
            raise ConfigError(f"the cluster at {self.address} has no job {name!r}; its newest: {known}")
        return found

    def jobs(self) -> list[Job]:
        """Every job that was submitted, the oldest first."""
        with _answers(self.address):
            found = [item for item in self._client.list_jobs() if item.submission_id]
        return [_job(item) for item in sorted(found, key=lambda item: item.start_time or 0)]

    def stop(self, name: str) -> None:
        """Sends the job the signal to save and end; returns at once."""
        with _answers(self.address):
            self._client.stop_job(name)

    def output_length(self, name: str) -> int:
        """Characters that the job has written so far."""
        with _answers(self.address):
            return len(self._client.get_job_logs(name))

    def follow(self, name: str, write: Callable[[str], object], skip: int = 0) -> Job:
        """Writes the job's output as it comes, without the first `skip` characters, until the job is over.

        A connection that is lost is made again. Raises ConfigError once the server has not answered for
        `LOST_SECONDS`; the job goes on.
        """
        shown, lost = skip, 0.0
        while True:
            try:
                shown = asyncio.run(self._tail(name, shown, write))
                found, lost = self.job(name), 0.0
                if found.over:
                    return found
            except (aiohttp.ClientError, RuntimeError, ConfigError) as error:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > LOST_SECONDS:
                    raise ConfigError(
                        f"{self.address} has not answered for {LOST_SECONDS:.0f} s ({error}); the job "
                        f"{name!r} goes on where its cluster does"
                    ) from error
            time.sleep(1.0)

    async def _tail(self, name: str, skip: int, write: Callable[[str], object]) -> int:
        position = 0
        async for text in self._client.tail_job_logs(name):
            fresh = text[max(0, skip - position) :]
            position += len(text)
            if fresh:
                write(fresh)
        return max(skip, position)

    def _find(self, name: str) -> Job | None:
        return next((job for job in self.jobs() if job.name == name), None)


def _job(found: JobDetails) -> Job:
    metadata = found.metadata or {}
    return Job(
        found.submission_id or "",
        str(found.status.value),
        found.message or "",
        found.driver_exit_code,
        tuple(json.loads(metadata.get(_WORDS, "[]"))),
        tuple(json.loads(metadata.get(_OPTIONS, "[]"))),
        float(metadata.get(_GRACE, 3)),
    )


def _version(address: str) -> tuple[dict[str, object], dict[str, str]]:
    """What the server says of itself, and the headers that it asks for."""
    token = own_token()
    for headers in ({}, {"Authorization": f"Bearer {token}"})[: 1 + bool(token)]:
        request = urllib.request.Request(f"{address}/api/version", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as reply:
                found = json.load(reply)
            if isinstance(found, dict) and "ray_version" in found:
                return found, headers
            raise ValueError("its answer is not Ray's")
        except urllib.error.HTTPError as error:
            if error.code not in (401, 403):
                raise _no_server(address, error) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _no_server(address, error) from error
    raise token_error(address)


def _no_server(address: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"no Jobs server answers at {address} within {ANSWER_SECONDS:.0f} s ({error}). Give the dashboard's "
        "address (port 8265 by default, not the cluster's 6379), as `ray start --head` printed it; from "
        "another machine reach it through: ssh -L 8265:127.0.0.1:8265 HEAD"
    )


@contextlib.contextmanager
def _answers(address: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError) as error:  # OSError: of requests, too
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"the Jobs server at {address} answers: {text[0]} ... {text[-1]}") from error
