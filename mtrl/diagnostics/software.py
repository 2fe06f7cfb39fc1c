"""Python, the packages and the optional extras, against the versions that were tested together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .finding import Finding, broken, good, optional, warning

PYTHON = (3, 11)
DISTRIBUTION = "mtrl-platform"

OFFERS = {
    "envpool": "faster stepping of Meta-World, DMC and Atari",
    "ros2": "robots that speak DDS, and reading their bags",
    "oracles": "diffusers, with which tests compare",
    "dev": "pytest, ruff, mypy",
}
"""Extra -> what it brings."""


@dataclass(frozen=True)
class Requirement:
    """One line of the dependencies."""

    name: str
    exact: str = ""
    """The one version that is allowed; "" where a range is."""
    extra: str = ""
    """The extra that it belongs to; "" for what everybody needs."""


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
    """What everybody needs. `tested` and `installed` map normalised names to versions.

    A missing package, or another version than the only one allowed, is broken; a version within its
    range that was not tested is a warning.
    """
    base = [item for item in needed if not item.extra]
    missing = [item.name for item in base if item.name not in installed]
    wrong = [
        f"{item.name} {installed[item.name]}, needed {item.exact}"
        for item in base
        if item.exact and item.name in installed and _release(installed[item.name]) != item.exact
    ]
    named = {text.split()[0] for text in wrong}
    untested = [
        f"{item.name} {installed[item.name]}, tested {tested[item.name]}"
        for item in base
        if item.name in installed and item.name in tested and item.name not in named
        if _release(installed[item.name]) != tested[item.name]
    ]
    how = "pip install -c constraints.txt " if tested else "pip install "
    found = []
    if missing:
        found.append(broken("packages", f"not installed: {', '.join(missing)}", how + " ".join(missing)))
    if wrong:
        exact = " ".join(f"{i.name}=={i.exact}" for i in base if i.name in named)
        found.append(broken("packages", "; ".join(wrong), how + exact))
    if untested:
        names = " ".join(f"{text.split()[0]}=={tested[text.split()[0]]}" for text in untested)
        found.append(warning("packages", "; ".join(untested), "pip install " + names))
    if not found:
        against = (
            "the tested versions" if tested else "all there; constraints.txt is not, to compare versions"
        )
        found.append(good("packages", f"{len(base)} required packages: {against}"))
    return found


def check_extras(needed: Iterable[Requirement], installed: Mapping[str, str]) -> list[Finding]:
    """One finding per optional extra."""
    members: dict[str, list[str]] = {}
    for item in needed:
        if item.extra:
            members.setdefault(item.extra, []).append(item.name)
    found = []
    for extra, names in members.items():
        offer = OFFERS.get(extra, "optional packages")
        missing = [name for name in names if name not in installed]
        if not missing:
            versions = ", ".join(f"{name} {installed[name]}" for name in names)
            found.append(good(f"extra {extra}", versions))
        else:
            command = f"pip install '{DISTRIBUTION}[{extra}]'"
            found.append(optional(f"extra {extra}", f"without {', '.join(missing)}: {offer}", command))
    return found


def check_wandb(mode: str, has_key: bool) -> Finding:
    """Weights & Biases: `mode` is WANDB_MODE, `has_key` whether a login is stored or in WANDB_API_KEY."""
    if mode in ("offline", "disabled"):
        return good("wandb", f"WANDB_MODE={mode}: nothing is sent")
    if has_key:
        return good("wandb", "logged in")
    return optional("wandb", "not logged in: runs stay on this machine", "wandb login")


def wandb_has_key(environment: Mapping[str, str], home: Path) -> bool:
    """Whether a login is there; reads no secret, only that there is one. Asks nothing of the network."""
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
    """What the checkout at `root` declares, or else the installed distribution; empty where neither tells."""
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
    """The version without the build it is of, such as +cpu."""
    return version.split("+")[0]
