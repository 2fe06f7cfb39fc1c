"""Collective operations of data-parallel ranks: `Reducer` for one process, `Gloo` for several."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist

from mtrl.errors import DivergenceError, RankError

How = Literal["min", "max", "sum", "any"]
Json = Any
"""What JSON can hold."""
Sums = Mapping[str, torch.Tensor]
Like = Mapping[str, tuple[Sequence[int], torch.dtype]]
"""Name -> shape and dtype of a tensor that every rank contributes."""

TIMEOUT = 45.0
"""Seconds that a rank waits for the others."""
_CONNECTION_REPORT_SECONDS = 3.0
"""Seconds in which every running rank writes into the store that it lost the connection too."""
_HALF = (torch.bfloat16, torch.float16)


class Reducer:
    """The collective operations of a run, here those of one process, without a copy.

    Every rank makes the same calls in the same order. Raises RankError, never hangs, where another rank
    failed, ended or did not answer in time.
    """

    rank: int = 0
    """0 to size - 1."""
    size: int = 1
    """Ranks, at least 1."""

    def sums(self, make: Callable[[], Sums], like: Like) -> Sums:
        """The tensors of `make()`, added over ranks; bit-equal on all of them.

        `like` is what every rank contributes; what a rank's mapping lacks counts as zeros there. An
        exception in `make` is raised on its own rank, and on the others as a DivergenceError if it is one,
        else as a RankError that names rank and message.
        """
        return make()

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows [n, ...] of all ranks in their order, [sum of n, ...]; n may differ."""
        return rows

    def agree(self, value: float, how: How) -> float:
        """One number from every rank's; "any" is 1.0 where one of them is not 0."""
        return float(bool(value)) if how == "any" else value

    def broadcast(self, value: Json) -> Json:
        """Rank 0's value; that of others is ignored."""
        return value

    def meet(self) -> None:
        """Waits until every rank has made this call, however long one evaluates, saves or collects. The other
        calls give up on a rank that keeps them waiting; this one only on a rank that has ended or withdrawn.
        """

    def withdraw(self, error: BaseException) -> None:
        """Announces, before this rank cleans up, that it makes no more calls: no rank waits for it."""


ALONE = Reducer()
"""The reducer of a run in one process."""


class Gloo(Reducer):
    """Ranks that communicate by `torch.distributed`, which must be initialised; see `open_gloo`.

    After a RankError from a lost connection the group is of no more use: end the process.
    """

    def __init__(
        self, *, timeout: float = TIMEOUT, backend: str = "gloo", device: torch.device | str = "cpu"
    ) -> None:
        """Makes a group of its own, so every rank does this at once. `timeout` in seconds. `device` is where
        buffers lie: a GPU for the backend "nccl".
        """
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.timeout = timeout
        self._device = torch.device(device)
        self._group = dist.new_group(backend=backend, timeout=timedelta(seconds=timeout))
        self._store = self._group.get_group_store()
        self._meetings = 0
        self._closed = threading.Event()
        threading.Thread(target=self._beat, daemon=True, name="mtrl-rank").start()

    def sums(self, make: Callable[[], Sums], like: Like) -> Sums:
        """One flat buffer per kind of number (half precision is added in float32); the first holds a flag
        that is raised where `make` failed.
        """
        error: Exception | None = None
        made: Sums = {}
        try:
            made = make()
            _require_like(made, like)
        except Exception as raised:  # noqa: BLE001 - sent to all ranks, and raised below
            error, made = raised, {}
        kinds: dict[torch.dtype, list[str]] = {}
        for name, (_, kind) in like.items():
            kinds.setdefault(torch.float32 if kind in _HALF else kind, []).append(name)
        found: dict[str, torch.Tensor] = {}
        failed = False
        for number, (kind, names) in enumerate((kinds or {torch.float32: []}).items()):
            flag = [torch.full((1,), float(error is not None), device=self._device).to(kind)]
            parts = [
                made[name].detach().reshape(-1).to(self._device, kind)
                if name in made
                else torch.zeros(math.prod(like[name][0]), dtype=kind, device=self._device)
                for name in names
            ]
            whole = torch.cat((flag if number == 0 else []) + parts)
            self._run(partial(dist.all_reduce, whole, group=self._group))
            pieces = list(whole.split([len(part) for part in (flag if number == 0 else []) + parts]))
            if number == 0:
                failed = bool(pieces.pop(0).item() != 0)
            for name, piece in zip(names, pieces, strict=True):
                shape, own = like[name]
                place = made[name].device if name in made else self._device
                found[name] = piece.view(tuple(shape)).to(place, own)
        if failed:
            self._raise_failure(error)
        return {name: found[name] for name in like}

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """Pads to the longest; the rows' other sizes and dtype are equal on all ranks."""
        count = torch.tensor([len(rows)], dtype=torch.int64, device=self._device)
        counts = [torch.zeros_like(count) for _ in range(self.size)]
        self._run(lambda: dist.all_gather(counts, count, group=self._group))
        sizes = [int(each.item()) for each in counts]
        padded = torch.zeros((max(sizes), *rows.shape[1:]), dtype=rows.dtype, device=self._device)
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        if padded.numel():
            self._run(lambda: dist.all_gather(parts, padded, group=self._group))
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]).to(rows.device)

    def agree(self, value: float, how: How) -> float:
        """As Reducer, computed in float64."""
        kinds = {"min": dist.ReduceOp.MIN, "max": dist.ReduceOp.MAX, "sum": dist.ReduceOp.SUM}
        number = float(bool(value)) if how == "any" else float(value)
        found = torch.tensor([number], dtype=torch.float64, device=self._device)
        self._run(lambda: dist.all_reduce(found, op=kinds.get(how, dist.ReduceOp.MAX), group=self._group))
        return float(found.item())

    def broadcast(self, value: Json) -> Json:
        """As the bytes of JSON."""
        text = json.dumps(value).encode() if self.rank == 0 else b""
        size = torch.tensor([len(text)], dtype=torch.int64, device=self._device)
        self._run(lambda: dist.broadcast(size, group_src=0, group=self._group))
        sent = torch.zeros(int(size.item()), dtype=torch.uint8, device=self._device)
        if self.rank == 0:
            sent = _bytes(text).to(self._device)
        self._run(lambda: dist.broadcast(sent, group_src=0, group=self._group))
        return json.loads(bytes(sent.tolist()))

    def meet(self) -> None:
        """Counts in the store how often ranks have arrived, and watches that the others are alive."""
        self._meetings += 1
        try:
            self._await("met", self.size * self._meetings)
            # the store is on rank 0, which leaves when all others have seen that every rank arrived
            if self.rank:
                self._store.add("met/known", 1)
            else:
                self._await("met/known", (self.size - 1) * self._meetings, arrive=0)
        except RuntimeError as error:
            raise RankError(
                "rank 0 ended. Its own output has the reason; start the run again with --resume auto"
            ) from error

    def _await(self, place: str, count: int, arrive: int = 1) -> None:
        """Waits until a number in the store has reached `count`; raises RankError for a rank that is gone."""
        now, pause = time.monotonic(), 0.0005
        seen = {rank: (-1, now) for rank in range(self.size) if rank != self.rank}
        while self._store.add(place, arrive) < count:
            arrive, now = 0, time.monotonic()
            if self._store.add("withdrawn", 0):
                raise RankError(
                    f"{self._store.get('withdrawn/why').decode()}. Its own output has the traceback"
                )
            for rank in seen:
                beats = self._store.add(f"alive/{rank}", 0)
                seen[rank] = (beats, now) if beats != seen[rank][0] else seen[rank]
            silent = [rank for rank, (_, since) in seen.items() if now - since > self.timeout]
            if silent:
                raise RankError(
                    f"rank {silent[0]} has not updated its heartbeat for {self.timeout:g} s. Its own "
                    "output has the reason; start the run again with --resume auto"
                )
            time.sleep(pause)
            pause = min(2 * pause, 0.02)

    def withdraw(self, error: BaseException) -> None:
        """Writes the reason into the store and stops the heartbeat."""
        self._closed.set()
        with contextlib.suppress(RuntimeError):
            self._store.set("withdrawn/why", f"rank {self.rank} failed with {type(error).__name__}: {error}")
            self._store.add("withdrawn", 1)

    def close(self) -> None:
        """Leaves the group; no rank need wait for another."""
        self._closed.set()
        dist.destroy_process_group()

    def _beat(self) -> None:
        """Updates this rank's heartbeat in the store, from a thread of its own."""
        with contextlib.suppress(RuntimeError):
            while not self._closed.is_set():
                self._store.add(f"alive/{self.rank}", 1)
                self._closed.wait(self.timeout / 10)

    def _raise_failure(self, own: Exception | None) -> None:
        """Sends all ranks what went wrong where, as JSON, and raises on each."""
        failure: list[Any] = []
        if own is not None:
            failure = [self.rank, isinstance(own, DivergenceError), f"{type(own).__name__}: {own}"]
        text = _bytes(json.dumps(failure).encode() + b"\n" if failure else b"")
        lines = bytes(self.gather(text).tolist()).decode().splitlines()
        failures = [json.loads(line) for line in lines]
        # what would end the run comes before what an agent may leave out
        rank, diverged, message = min(failures, key=lambda each: (each[1], each[0]))
        if own is not None and isinstance(own, DivergenceError) == diverged:
            raise own
        if diverged:
            raise DivergenceError.on_rank(rank, message.partition(": ")[2]) from own
        raise RankError(f"rank {rank} failed with {message}. Its own output has the traceback") from own

    def _run(self, call: Callable[[], object]) -> None:
        """A call of torch.distributed; a lost connection and a silence become a RankError."""
        began = time.monotonic()
        try:
            call()
        except RuntimeError as error:
            waited = time.monotonic() - began
            missing = self._missing()
            who = " and ".join(f"rank {rank}" for rank in missing) or "another rank"
            if waited >= 0.9 * self.timeout:
                what = f"did not answer within {self.timeout:g} s"
            else:
                what = f"ended: the connection was lost after {waited:.1f} s"
            (reason, *_) = str(error).splitlines() or [""]
            raise RankError(
                f"{who} {what}. Its own output has the reason; start the run again with --resume auto "
                f"({reason})"
            ) from error

    def _missing(self) -> list[int]:
        """Ranks that do not report in the store that they lost the connection too."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        if self.size == 2:
            return others
        try:
            store = self._store
            store.set(f"lost/{self.rank}", b"1")
            deadline = time.monotonic() + _CONNECTION_REPORT_SECONDS
            while time.monotonic() < deadline and len(others) > 1:
                others = [rank for rank in others if not store.check([f"lost/{rank}"])]
                time.sleep(0.05)
        except RuntimeError:  # the store is on rank 0
            return [0]
        return others


def open_gloo(
    rank: int,
    size: int,
    address: str = "127.0.0.1",
    port: int = 29400,
    *,
    timeout: float = TIMEOUT,
    backend: str = "gloo",
    device: torch.device | str = "cpu",
) -> Reducer:
    """The reducer of rank `rank` of `size`, which meet at `address`:`port`, where rank 0 listens.

    Waits for the other ranks. Raises RankError when they do not come within `timeout` seconds.
    """
    if size == 1:
        return ALONE
    limit = timedelta(seconds=timeout)
    try:
        where = f"tcp://{address}:{port}"
        dist.init_process_group(backend, init_method=where, rank=rank, world_size=size, timeout=limit)
        return Gloo(timeout=timeout, backend=backend, device=device)
    except RuntimeError as error:
        (reason, *_) = str(error).splitlines() or [""]
        raise RankError(
            f"rank {rank} met no group of {size} ranks at {address}:{port} within {timeout:g} s. Start all "
            f"ranks together, with one address that all can reach ({reason})"
        ) from error


def _require_like(made: Sums, like: Like) -> None:
    """An assertion on our own code: a tensor of another shape would be added to what it does not match."""
    for name, value in made.items():
        assert name in like, f"`like` must name every made tensor; it lacks {name!r}"
        shape = tuple(like[name][0])
        assert tuple(value.shape) == shape, f"{name!r} must have shape {shape}; got {tuple(value.shape)}"


def _bytes(text: bytes) -> torch.Tensor:
    return torch.tensor(list(text), dtype=torch.uint8)
