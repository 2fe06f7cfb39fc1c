"""On which device, in which number format, and by which compiler networks are computed."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch._functorch import config as _autograd_settings

from mtrl.errors import ConfigError, MtrlWarning, ResourceError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def device_of(device: str) -> torch.device:
    """The device of the setting `agent.device`; "auto" is the first GPU, else the CPU.

    Raises ConfigError for another word, ResourceError for a GPU that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ConfigError(f"agent.device is 'cpu', 'cuda', 'cuda:N' or 'auto'; got {device!r}")
    chosen = torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ResourceError(
            f"agent.device={device} is not there: torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} GPUs; choose agent.device=cpu"
        )
    return chosen


def has_bf16(device: torch.device) -> bool:
    """Whether the device itself multiplies in bf16 (on an x86 CPU AVX512-BF16 or AMX), instead of emulating
    it many times slower than fp32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether the setting `agent.precision` means bf16; "auto" where the device has it. Warns, once a
    process, of "bf16" on a device without.
    """
    native = has_bf16(device)
    if precision == "bf16" and not native:
        warnings.warn(
            f"agent.precision=bf16: this {'GPU' if device.type == 'cuda' else 'processor'} has no bf16 "
            "instructions and emulates them, many times slower than fp32; agent.precision=auto takes fp32 "
            "here",
            MtrlWarning,
            stacklevel=2,
        )
    return native if precision == "auto" else precision == "bf16"


def compiled(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The function by `torch.compile`, when it is called first, and once more for other shapes; its gradient
    may be taken several times, as surgery does. Raises ResourceError where there is no compiler of C++.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ResourceError(
            f"agent.compile=true needs a compiler of C++, and {compiler} is not there; install it "
            "(apt-get install g++), name another by the variable CXX, or set agent.compile=false"
        )
    _autograd_settings.donated_buffer = False
    found: Callable[Parameters, Result] = torch.compile(function)
    return found
