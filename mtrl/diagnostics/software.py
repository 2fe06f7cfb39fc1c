"""Python, packages and optional extras, against the versions that were tested together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from . import Finding, broken, good, optional, warning

PYTHON = (3, 11)
DISTRIBUTION = "mtrl-platform"

OFFERS = {
    "envpool": "faster stepping of Meta-World, DMC and Atari",
    "ros2": "robots that speak ROS 2",
    "oracles": "diffusers, with which tests compare",
    "dev": "pytest, ruff, mypy",
}
"""Extra -> its use."""


@dataclass(frozen=True)
class Requirement:
    """One line of the dependencies."""

    name: str
    exact: str = ""
    """The only version allowed, or "" for a range."""
    extra: str = ""
    """The extra that it belongs to, or "" for a required package."""


def check_python(version: tuple[int, ...]) -> Finding:
    """`version` is (major, minor, micro)."""
    shown = ".".join(map(str, version[:3]))
    if version[:2] == PYTHON:
        return good("Python", shown)
    return broken(
        "Python",
        f"{shown}; the packages are tested together on 3.11 alone",
        "install Python 3.11, then: make PYTHON=/path/to/python3.11 install",
    )


def check_packages(
    needed: Iterable[Requirement], tested: Mapping[str, str], installed: Mapping[str, str]
) -> list[Finding]:
    """Required packages. `tested` and `installed` map normalised names to versions.

    A missing package, or another version than the only one allowed, is broken; a version within its
    range that was not tested is a warning.
    """
    exact = {item.name: item.exact for item in needed if not item.extra}
    versions = {name: _release(installed[name]) for name in exact if name in installed}
    missing = [name for name in exact if name not in installed]
    wrong = [name for name, version in versions.items() if exact[name] not in ("", version)]
    untested = [
        name
        for name, version in versions.items()
        if name not in wrong and tested.get(name, version) != version
    ]
    how = "pip install -c constraints.txt " if tested else "pip install "
    found = []
    if missing:
        found.append(broken("packages", f"not installed: {', '.join(missing)}", how + " ".join(missing)))
    if wrong:
        text = "; ".join(f"{name} {installed[name]}, needed {exact[name]}" for name in wrong)
        found.append(broken("packages", text, how + " ".join(f"{name}=={exact[name]}" for name in wrong)))
    if untested:
        text = "; ".join(f"{name} {installed[name]}, tested {tested[name]}" for name in untested)
        pins = " ".join(f"{name}=={tested[name]}" for name in untested)
        found.append(warning("packages", text, f"pip install {pins}"))
    if not found:
        compared = (
            "the tested versions" if tested else "all there; constraints.txt is not, to compare versions"
        )
        found.append(good("packages", f"{len(exact)} required packages: {compared}"))
    return found


def check_extras(needed: Iterable[Requirement], installed: Mapping[str, str]) -> list[Finding]:
    """One finding per optional extra."""
    members: dict[str, list[str]] = {}
    for item in needed:
        if item.extra:
            members.setdefault(item.extra, []).append(item.name)
    found = []
    for extra, names in members.items():
        if missing := [name for name in names if name not in installed]:
            text = f"without {', '.join(missing)}: {OFFERS.get(extra, 'optional packages')}"
            found.append(optional(f"extra {extra}", text, f"pip install '{DISTRIBUTION}[{extra}]'"))
        else:
            versions = ", ".join(f"{name} {installed[name]}" for name in names)
            found.append(good(f"extra {extra}", versions))
    return found


def check_wandb(mode: str, has_key: bool) -> Finding:
    """Weights & Biases: `mode` is WANDB_MODE, `has_key` whether a login is stored or in WANDB_API_KEY."""
    if mode in ("offline", "disabled"):
        return good("wandb", f"WANDB_MODE={mode}: nothing is sent")
    if has_key:
        return good("wandb", "logged in")
    return optional("wandb", "not logged in: runs stay on this machine", "wandb login")


def wandb_has_key(environment: Mapping[str, str], home: Path) -> bool:
    """Whether a login is stored; keeps no secret and uses no network."""
    netrc = Path(environment.get("NETRC") or home / ".netrc")
    try:
        stored = "api.wandb.ai" in netrc.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        stored = False
    return stored or bool(environment.get("WANDB_API_KEY"))


def requirements(lines: Iterable[str]) -> list[Requirement]:
    """Requirements as a distribution's metadata spells them, `name[extra]==1.0; extra == "dev"`."""
    found = []
    for line in lines:
        text, _, marker = line.partition(";")
        name = re.match(r"\s*([A-Za-z0-9._-]+)", text)
        if name is None:
            continue
        exact = re.search(r"==\s*([A-Za-z0-9.]+)", text)
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
        found.append(Requirement(normalised(name[1]), exact[1] if exact else "", extra[1] if extra else ""))
    return found


def declared_requirements(root: Path) -> list[Requirement]:
    """The requirements of the checkout at `root`, or else of the installed distribution, or none."""
    project = root / "pyproject.toml"
    if project.is_file():
        import tomllib

        content = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
        if content.get("name") == DISTRIBUTION:
            lines = list(content.get("dependencies", []))
            for extra, members in content.get("optional-dependencies", {}).items():
                lines += [f'{member}; extra == "{extra}"' for member in members]
            return requirements(lines)
    try:
        return requirements(metadata.requires(DISTRIBUTION) or [])
    except metadata.PackageNotFoundError:
        return []


def known_good_versions(root: Path) -> dict[str, str]:
    """The pins of `constraints.txt` in the checkout at `root`; empty outside one."""
    try:
        text = (root / "constraints.txt").read_text(encoding="utf-8")
    except OSError:
        return {}
    pins = (line.split("==") for line in text.splitlines() if "==" in line and not line.startswith("#"))
    return {normalised(name): version.strip() for name, version in pins}


def installed_versions() -> dict[str, str]:
    """Every installed distribution by its normalised name."""
    return {normalised(str(item.name)): item.version for item in metadata.distributions() if item.name}


def normalised(name: str) -> str:
    """A distribution's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _release(version: str) -> str:
    """The version without its build, such as +cpu."""
    return version.split("+")[0]
