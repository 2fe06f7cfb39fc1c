"""Settings of gradient surgery, as an agent's field `gradients` holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from mtrl.structured import BELOW_ONE, POSITIVE, SHARE, UNIT, Checked, at_least

from .weightings import method_config

PARTS = ("critic", "actor", "both")
"""What `SurgeryConfig.part` may name."""

METRICS = {
    "cosine_mean": "mean cosine between the gradients of two tasks",
    "cosine_min": "smallest cosine between the gradients of two tasks",
    "conflict_share": "share of task pairs whose gradients point against each other, 0 to 1",
    "weight_min": "smallest weight of a task",
    "weight_max": "largest weight of a task",
    "deficient": "1 where gradients leave the update open: too low a rank, or weighted they cancel, else 0",
}
"""Name -> meaning; the first three only at steps that solve for weights."""


@dataclass(frozen=True)
class SurgeryConfig(Checked, place="gradients"):
    """How task gradients are combined; configs/gradients/<method>.yaml names a method."""

    method: str = "sum"
    """Name of a weighting: sum, pcgrad, cagrad, mgda, upgrad, nash_mtl, famo, ..."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of that method, by the names of its config."""
    part: Annotated[str, PARTS] = "critic"
    """Whose gradients: "critic", "actor" or "both"; an agent with one network reads each as that one."""
    every: Annotated[int, at_least(1)] = 1
    """Steps from one solution for weights to the next, at least 1; others cost one plain backward pass."""
    smoothing: Annotated[float, BELOW_ONE] = 0.0
    """Share of the old weights that is kept, in [0, 1): CR-MOGM (Zhou et al. 2022) takes 0.9."""
    weigh_owned: bool = False
    """Whether task-specific parameters, such as heads, take their task's weight too rather than 1."""
    perturbation: Annotated[float, at_least(0, "none")] = 0.0
    """Length of SAMO's perturbation of the weights before a task's gradient is taken, at least 0 (none).
    Costs a pass per task. Ban et al. 2025 begin with 0.003."""
    perturbation_local: Annotated[float, UNIT] = 0.1
    """Share of the task's own gradient in that perturbation, 0 to 1; the rest is the mean over tasks (0.1
    there too)."""
    trained_share: Annotated[float, SHARE] = 1.0
    """Share of every weight matrix that is trained at all, in (0, 1]: sparse training."""
    memory_mb: Annotated[float, POSITIVE] = 1024.0
    """Largest K x P matrix of rows that is kept; beyond it the Gramian is streamed and a second pass
    follows."""
    row_method: Annotated[str, ("auto", "backward", "loop")] = "auto"
    """How task gradients are computed: "backward" (one joint backward pass), "loop" (one pass per task), or
    "auto": the faster of the two, measured in the first steps."""

    RENAMED: ClassVar[Mapping[str, str]] = {"way": "row_method"}
    """Key of older files -> field."""

    def __post_init__(self) -> None:
        method_config(self.method, self.options)
        if self.row_method == "measure":
            object.__setattr__(self, "row_method", "auto")
        super().__post_init__()

    def covers(self, part: str) -> bool:
        """Whether `part` ("critic" or "actor") is combined by the method; the other takes the plain sum."""
        return self.part in (part, "both")

    @property
    def plain(self) -> bool:
        """Whether the settings amount to the plain gradient of the summed losses."""
        whole = self.trained_share == 1 and self.perturbation == 0
        return whole and self.method == "sum" and not self.options.get("mean", False)
