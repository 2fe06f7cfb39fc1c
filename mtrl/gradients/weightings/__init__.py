"""Weightings of task gradients by name, one method a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mtrl.errors import ConfigError, UnknownNameError
from mtrl.structured import build

from .aligned_mtl import AlignedMTL
from .base import GramianWeighting, Weighting, WeightingInputs
from .cagrad import CAGrad
from .config_method import ConFIG
from .dualproj import DualProj
from .dwa import DWA
from .fairgrad import FairGrad
from .famo import FAMO
from .gcond import GCond
from .graddrop import GradDrop
from .gradnorm import GradNorm
from .gradvac import GradVac
from .imtl_g import IMTLG
from .mgda import MGDA
from .nash_mtl import NashMTL
from .pcgrad import PCGrad
from .sum import Sum
from .uncertainty import Uncertainty
from .upgrad import UPGrad

METHODS: dict[str, type[Weighting[Any]]] = {
    "sum": Sum,
    "pcgrad": PCGrad,
    "gradvac": GradVac,
    "cagrad": CAGrad,
    "mgda": MGDA,
    "upgrad": UPGrad,
    "dualproj": DualProj,
    "nash_mtl": NashMTL,
    "fairgrad": FairGrad,
    "imtl_g": IMTLG,
    "aligned_mtl": AlignedMTL,
    "config": ConFIG,
    "gradnorm": GradNorm,
    "gcond": GCond,
    "graddrop": GradDrop,
    "famo": FAMO,
    "uncertainty": Uncertainty,
    "dwa": DWA,
}
"""Name -> method, as in `gradients=NAME`."""


def method_config(name: str, options: Mapping[str, object] | None = None) -> object:
    """The settings of the method of that name, a frozen dataclass of its own, from `options`.

    Raises UnknownNameError for a method or setting that does not exist, ConfigError and OutOfRangeError for
    values that do not fit.
    """
    if name not in METHODS:
        raise UnknownNameError("gradient method", name, METHODS)
    kind = METHODS[name].config_class
    known = [item.name for item in fields(kind)]
    for key in options or {}:
        if key not in known:
            raise UnknownNameError(f"setting of gradient method {name!r}", key, known)
    return build(kind, options or {}, "gradients.options")


def make_weighting(
    name: str, tasks: int, seed: int = 0, options: Mapping[str, object] | None = None
) -> Weighting[Any]:
    """The weighting of that name for K tasks; `options` are fields of its config."""
    settings = method_config(name, options)
    if tasks < 1:
        raise ConfigError(f"a weighting of {tasks} tasks; expected at least 1")
    return METHODS[name](settings, tasks, seed)


__all__ = ["METHODS", "GramianWeighting", "Weighting", "WeightingInputs", "make_weighting", "method_config"]
