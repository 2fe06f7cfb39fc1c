"""The source tree as rules see it: every file parsed once, and every import resolved to a full name."""

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = {"envs": "mtrl.envs", "agents": "mtrl.agents", "configs": "mtrl.configs", "launch": "mtrl.launch"}
"""Top-level folder -> the package it is imported as."""

FOLDERS = ("mtrl", *PACKAGES)


@dataclass(frozen=True)
class Import:
    """One name that a file imports."""

    line: int
    target: str
    """Full dotted name. For `from a import b` this is `a.b`, whether b is a module or an object in one."""
    relative: bool
    dynamic: bool = False
    """Whether it is the constant argument of `importlib.import_module` or `__import__`."""


@dataclass(frozen=True)
class Source:
    """One parsed file."""

    path: str
    """Relative to the checkout, with forward slashes."""
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        """The name it is imported by, such as `mtrl.envs.dmc.suite`."""
        folder, *rest = self.path.removesuffix(".py").split("/")
        parts = [PACKAGES.get(folder, folder), *rest]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def package(self) -> str:
        """The package that its relative imports start from."""
        return self.module if self.path.endswith("/__init__.py") else self.module.rpartition(".")[0]

    @property
    def node(self) -> str:
        """The module's name, that of an `__init__.py` spelled out."""
        return f"{self.module}.__init__" if self.path.endswith("/__init__.py") else self.module

    @property
    def component(self) -> str:
        return component_of(self.module)

    @property
    def imports(self) -> Iterator[Import]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(node.lineno, alias.name, relative=False)
            elif isinstance(node, ast.ImportFrom):
                origin = self._origin(node)
                for alias in node.names:
                    yield Import(node.lineno, f"{origin}.{alias.name}", relative=node.level > 0)
            elif isinstance(node, ast.Call) and _dynamic_target(node):
                yield Import(node.lineno, _dynamic_target(node), relative=False, dynamic=True)

    def _origin(self, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        parts = self.package.split(".")
        kept = parts[: max(len(parts) - node.level + 1, 0)]
        return ".".join([*kept, node.module] if node.module else kept)


def _dynamic_target(node: ast.Call) -> str:
    """The constant name that a call imports, or nothing."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name not in ("import_module", "__import__") or not node.args:
        return ""
    first = node.args[0]
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def component_of(module: str) -> str:
    """`mtrl.tasks.starts` belongs to `mtrl.tasks`; `mtrl/errors.py` is a component of its own."""
    return ".".join(module.split(".")[:2])


def parse(path: str, text: str) -> Source:
    """A file as a rule sees it. Raises SyntaxError, which names the file and the line."""
    return Source(path, text, ast.parse(text, filename=path))


def files(root: Path = ROOT, folders: tuple[str, ...] = FOLDERS, suffix: str = "") -> list[Path]:
    """Files below the given folders, byte code and hidden files left out."""
    return sorted(
        path
        for folder in folders
        for path in (root / folder).rglob(f"*{suffix}")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    )


@cache
def read_tree(root: Path = ROOT) -> tuple[Source, ...]:
    """Every source file of the checkout."""
    return tuple(
        parse(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
        for path in files(root, suffix=".py")
    )


def read_project(root: Path = ROOT) -> dict:
    """pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
