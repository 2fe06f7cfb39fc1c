"""What ranks do in test_reducer."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mtrl.errors import DivergenceError
from mtrl.reducer import Reducer

from .ranks import main

LIKE = {
    "whole": ((3, 1000), torch.float32),
    "fine": ((5,), torch.float64),
    "half": ((4,), torch.bfloat16),
    "number": ((), torch.float32),
    "count": ((2,), torch.int64),
}


def drawn(rank: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rank)
    return {
        "whole": torch.randn(3, 1000, generator=generator),
        "fine": torch.randn(5, generator=generator, dtype=torch.float64),
        "half": torch.randn(4, generator=generator).bfloat16(),
        "number": torch.tensor(float(rank)),
        "count": torch.tensor([rank, 10]),
    }


def every_call(reducer: Reducer) -> Mapping[str, Any]:
    made = drawn(reducer.rank)
    sums = reducer.sums(lambda: made, LIKE)
    # one rank has no rows of `whole`, and none has anything for an empty call
    partial = reducer.sums(lambda: made if reducer.rank else {"count": made["count"]}, LIKE)
    reducer.sums(dict, {})
    rows = torch.arange(4.0 * reducer.rank).view(-1, 2) + 100 * reducer.rank
    return {
        **{name: value.float() if value.dtype == torch.bfloat16 else value for name, value in sums.items()},
        "kinds": [str(value.dtype) for value in sums.values()],
        "partial": partial["whole"],
        "rows": reducer.gather(rows),
        "flags": reducer.gather(torch.tensor([reducer.rank == 1, True])),
        "agreed": [
            reducer.agree(float(reducer.rank + 1), "min"),
            reducer.agree(float(reducer.rank + 1), "max"),
            reducer.agree(0.1, "sum"),
            reducer.agree(float(reducer.rank == 1), "any"),
            reducer.agree(0.0, "any"),
        ],
        "received": reducer.broadcast({"from": reducer.rank, "text": "ü", "list": [1, None, 2.5]}),
        "failures": failures(reducer),
    }


def refused(reducer: Reducer, *errors: Exception | None) -> dict[str, str]:
    """What `sums` raises where `errors[rank]` is raised within."""

    def make() -> dict[str, torch.Tensor]:
        error = errors[reducer.rank]
        if error is not None:
            raise error
        return drawn(reducer.rank)

    try:
        reducer.sums(make, LIKE)
    except Exception as error:  # noqa: BLE001
        return {"error": type(error).__name__, "message": str(error)}
    return {}


def failures(reducer: Reducer) -> Mapping[str, Any]:
    broken = DivergenceError("a task loss", 3, "task 1: nan")
    fine = [None] * (reducer.size - 2)
    return {
        "other": refused(reducer, None, ValueError("of no use\nsecond line"), *fine),
        "diverged": refused(reducer, broken, None, *fine),
        "both": refused(reducer, broken, ValueError("of no use"), *fine),
        "still": reducer.agree(1.0, "sum"),
    }


def killed(reducer: Reducer) -> Mapping[str, Any]:
    reducer.agree(1.0, "sum")
    if reducer.rank == 1:
        os._exit(9)
    return refused(reducer, *[None] * reducer.size)


def stay_away(case: str) -> None:
    """Calls nothing until rank 0 has ended, or longer than it may wait."""
    ended, until = Path(sys.argv[5], f"{case}-0.json"), time.monotonic() + 8.0
    while not ended.exists() and time.monotonic() < until:
        time.sleep(0.05)


def silent(reducer: Reducer) -> Mapping[str, Any]:
    if reducer.rank == 1:
        stay_away("silent")
        return {}
    began = time.monotonic()
    return refused(reducer, *[None] * reducer.size) | {"seconds": time.monotonic() - began}


def withdrawn(reducer: Reducer) -> Mapping[str, Any]:
    if reducer.rank == 1:
        reducer.withdraw(OSError("no space left"))
        stay_away("withdrawn")  # a clean-up that takes its time
        return {}
    began = time.monotonic()
    try:
        reducer.meet()
    except Exception as error:  # noqa: BLE001
        return {"error": type(error).__name__, "message": str(error), "seconds": time.monotonic() - began}
    return {}


if __name__ == "__main__":
    main(
        {"every_call": every_call, "killed": killed, "silent": silent, "withdrawn": withdrawn},
        timeout=5.0,
    )
