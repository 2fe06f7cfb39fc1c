"""Packages whose names are imported from their modules when they are first used."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module


def lazy_names(package: str) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package, from what its `__init__` imports under TYPE_CHECKING.

    Such a package is read in a millisecond, and a name of it costs the imports of its own module alone: a
    mistyped setting is refused without PyTorch. Type checkers see plain imports. Raises ImportError for
    a name that a module of the package has too: whichever of the two came first would win.
    """
    origins = _origins(package)
    for name in origins:
        if any(module == f".{name}" for module, _ in origins.values()):
            raise ImportError(f"{package}.{name} would be a module or what it holds; rename the module")

    def __getattr__(name: str) -> object:  # noqa: N807 - PEP 562
        if name not in origins:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = origins[name]
        value = getattr(import_module(module, package), attribute)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:  # noqa: N807 - PEP 562
        return sorted({*vars(sys.modules[package]), *origins})

    return __getattr__, __dir__


def _origins(package: str) -> dict[str, tuple[str, str]]:
    """Name -> module, relative or absolute, and the attribute there."""
    spec = sys.modules[package].__spec__
    source = spec.loader.get_source(package) if spec and spec.loader else None  # type: ignore[attr-defined]
    guarded = [
        statement
        for node in ast.parse(source or "").body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        if isinstance(statement, ast.ImportFrom)
    ]
    return {
        alias.asname or alias.name: ("." * node.level + (node.module or ""), alias.name)
        for node in guarded
        for alias in node.names
    }
