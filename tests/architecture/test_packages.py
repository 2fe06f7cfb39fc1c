"""pyproject.toml, constraints.txt and the tree agree."""

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .source import FOLDERS, PACKAGES, ROOT, files, read_project, read_tree


def packages_of(root: Path) -> set[str]:
    """Every folder below the source folders that holds an `__init__.py`, by the name it is imported as."""
    found = set()
    for path in files(root, suffix="__init__.py"):
        folder, *rest = path.parent.relative_to(root).parts
        found.add(".".join([PACKAGES.get(folder, folder), *rest]))
    return found


def lock() -> dict[str, str]:
    """Distribution -> the one version that constraints.txt names."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def requirements(*extras: str) -> list[Requirement]:
    project = read_project()["project"]
    optional = project["optional-dependencies"]
    return [Requirement(text) for text in sum((optional[extra] for extra in extras), project["dependencies"])]


def test_the_package_list_equals_the_tree() -> None:
    listed = read_project()["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(packages_of(ROOT)), "edit tool.setuptools.packages in pyproject.toml"


def test_a_forgotten_package_would_be_seen(tmp_path: Path) -> None:
    for folder in ("mtrl", "mtrl/tasks", "envs", "agents/diffusion"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "configs" / "agent").mkdir(parents=True)
    assert packages_of(tmp_path) == {"mtrl", "mtrl.tasks", "mtrl.envs", "mtrl.agents.diffusion"}


def test_code_lies_in_packages_only() -> None:
    strays = [
        path.relative_to(ROOT).as_posix()
        for path in files(suffix=".py")
        if path.name != "__init__.py" and not (path.parent / "__init__.py").is_file()
    ]
    assert not strays, f"no __init__.py beside {strays}: the wheel would leave them out"


def test_each_top_level_folder_is_mapped() -> None:
    mapping = read_project()["tool"]["setuptools"]["package-dir"]
    assert mapping == {"mtrl": "mtrl", **{package: folder for folder, package in PACKAGES.items()}}


@pytest.mark.parametrize("group", ["mtrl.suites", "mtrl.agents", "mtrl.robots"])
def test_entry_points_name_what_exists(group: str) -> None:
    modules = {source.module: source.tree for source in read_tree()}
    for name, value in read_project()["project"]["entry-points"][group].items():
        module, _, attribute = value.partition(":")
        assert module in modules, f"{group}: {name} points to {module}, which is not in the tree"
        assert attribute in top_level_names(modules[module]), f"{group}: {module} has no {attribute}"


def test_the_command_exists() -> None:
    module, _, attribute = read_project()["project"]["scripts"]["mtrl"].partition(":")
    modules = {source.module: source.tree for source in read_tree()}
    assert module in modules
    assert attribute in top_level_names(modules[module])


def top_level_names(tree: ast.Module) -> set[str]:
    """What a module defines or imports at its top level."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
    return names


def test_the_version_is_said_once() -> None:
    (version,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "mtrl/__init__.py").read_text(), re.MULTILINE)
    assert read_project()["project"]["version"] == version


def test_the_lock_holds_what_the_ranges_allow() -> None:
    pins = lock()
    for requirement in requirements("dev", "envpool", "gym", "oracles", "ros2"):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pins[name], prereleases=True), (
            f"{requirement} but {name}=={pins[name]}"
        )


def test_the_lock_is_complete() -> None:
    """Everything that the locked distributions need is locked too, followed from our own dependencies."""
    pins = lock()
    waiting = [
        (canonicalize_name(item.name), extra)
        for item in requirements("dev", "envpool", "gym", "oracles", "ros2")
        for extra in ("", *item.extras)
    ]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        assert name in pins, f"{name} is not in constraints.txt"
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                following = {(canonicalize_name(needed.name), item) for item in ("", *needed.extras)}
                waiting.extend(following - seen)
                seen |= following
    assert set(pins) - {name for name, _ in seen} <= {"pip"}, "constraints.txt holds what nothing needs"


def test_the_lock_names_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line


def test_every_bound_carries_its_reason() -> None:
    """Each line of a dependency list ends in a comment."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    quoted = [line for line in text.splitlines() if re.match(r'    "[\w.\[\],-]+[<>=]=?[^"]*",', line)]
    optional = read_project()["project"]["optional-dependencies"]
    assert len(quoted) == len(read_project()["project"]["dependencies"]) + sum(map(len, optional.values()))
    assert [line for line in quoted if "  # " not in line] == []


def test_every_imported_library_is_declared() -> None:
    """What the source imports is among our own dependencies, not there only because another brings it."""
    declared = {canonicalize_name(item.name) for item in requirements("envpool", "ros2")}
    distributions = importlib.metadata.packages_distributions()
    own = {"mtrl", *FOLDERS, *sys.stdlib_module_names, "__future__"}
    missing = set()
    for source in read_tree():
        for item in source.imports:
            first = item.target.split(".")[0]
            names = {canonicalize_name(name) for name in distributions.get(first, [first])}
            if not item.relative and first not in own and not names & declared:
                missing.add(f"{source.path}:{item.line}: {first}")
    assert not missing, "\n" + "\n".join(sorted(missing))
