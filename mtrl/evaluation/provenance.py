"""Where a result comes from: package versions, the commit, the machine, the command, the moment."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import mtrl
from mtrl.tasks import allowed_processors

REPORTED_PACKAGES = (
    "numpy",
    "torch",
    "scipy",
    "gymnasium",
    "mujoco",
    "metaworld",
    "dm-control",
    "ale-py",
    "onnxruntime",
    "ray",
)
"""Distributions whose versions can change a result; those that are not installed are left out."""


@dataclass(frozen=True)
class Provenance:
    """What someone needs to repeat a measurement."""

    command: str
    """The command line that made the result, quoted for a shell."""
    created: str
    """Moment of writing, UTC, ISO 8601 to the second, for example "2031-05-04T12:00:00Z"."""
    hardware: str
    """Processor model, processors available and operating system."""
    commit: str | None = None
    """Commit of the checkout that mtrl ran from, with "-dirty" for uncommitted changes; None outside one."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Distribution name -> version, "python" and "mtrl" among them."""

    @staticmethod
    def collect(command: str | None = None) -> Provenance:
        """The provenance of something made now, by `command` or else by this process's own command line."""
        return Provenance(
            command=command if command is not None else own_command(),
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            hardware=hardware(),
            commit=checkout_commit(Path(mtrl.__file__).resolve().parent.parent),
            packages=package_versions(),
        )


def own_command() -> str:
    """This process's command line, quoted for a shell."""
    return shlex.join([*program(), *sys.argv[1:]])


def program() -> list[str]:
    """The words that start this program again, by bare names so that no path of the machine is kept."""
    name = Path(sys.argv[0]).name
    return ["python", "-m", "mtrl.launch.main"] if name.endswith(".py") else [name or "python"]


def package_versions() -> dict[str, str]:
    """Versions of Python, mtrl and the installed packages of REPORTED_PACKAGES."""
    versions = {"python": platform.python_version(), "mtrl": mtrl.__version__}
    for name in REPORTED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def hardware() -> str:
    """Processor model, the number of processors this process may use, and the operating system."""
    available = allowed_processors()
    plural = "" if available == 1 else "s"
    return f"{_processor_model()}, {available} processor{plural}, {platform.system()} {platform.machine()}"


def checkout_commit(root: Path) -> str | None:
    """The commit that the git checkout at `root` stands on; None when `root` is none or git is absent."""
    # without this, an installed wheel inside a user's own repository would report that repository's commit
    if not (root / ".git").exists():
        return None
    head = _git(root, "rev-parse", "--verify", "HEAD")
    if head is None:
        return None
    return f"{head}-dirty" if _git(root, "status", "--porcelain") else head


def _git(root: Path, *arguments: str) -> str | None:
    try:
        finished = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return finished.stdout.strip()


def _processor_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown processor"
