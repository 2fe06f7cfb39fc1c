"""What the machine underneath did while a loop ran."""

from __future__ import annotations

import os
from pathlib import Path

_STEAL = 8
"""Field of a `cpu` line of /proc/stat that counts stolen clock ticks (proc(5)), after the label."""


def stolen_seconds(source: Path = Path("/proc/stat")) -> float:
    """Processor time that a hypervisor has given to others since boot, in seconds summed over processors.

    0 where the system does not tell. No priority inside a virtual machine protects from it.
    """
    try:
        fields = source.read_text(encoding="ascii").split("\n", 1)[0].split()
        return int(fields[_STEAL]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0
