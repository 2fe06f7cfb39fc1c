"""Packages whose names are imported when they are first used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mtrl

ROOT = Path(mtrl.__file__).parents[1]

LIGHT = """
import sys
from mtrl import registry
import mtrl.launch.train, mtrl.launch.evaluate, mtrl.launch.collect, mtrl.launch.tune, mtrl.launch.watch
from mtrl.launch.compose import compose
for agent in registry.names("agent"):
    compose([f"agent={agent}", "robot=sim"])
for suite in registry.names("suite"):
    registry.suite(suite).names()
heavy = sorted({"torch", "ray", "mujoco", "stable_baselines3", "onnx", "pandas"} & set(sys.modules))
assert not heavy, f"a mistyped setting waits for {heavy}"
"""


def test_settings_of_every_agent_are_composed_without_heavy_libraries() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def package(folder: Path, monkeypatch: pytest.MonkeyPatch, imports: str) -> None:
    (folder / "lazy_sample").mkdir()
    (folder / "lazy_sample" / "__init__.py").write_text(
        "from typing import TYPE_CHECKING\nfrom mtrl.lazy import lazy_names\n"
        f"if TYPE_CHECKING:\n    {imports}\n__getattr__, __dir__ = lazy_names(__name__)\n"
    )
    (folder / "lazy_sample" / "shapes.py").write_text("class Square: ...\nshapes = 1\n")
    monkeypatch.syspath_prepend(folder)
    for name in ("lazy_sample", "lazy_sample.shapes"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_name_imports_its_module_when_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, monkeypatch, "from .shapes import Square as Shape")
    import lazy_sample  # type: ignore[import-not-found]

    assert "Shape" in dir(lazy_sample) and "lazy_sample.shapes" not in sys.modules
    assert lazy_sample.Shape is sys.modules["lazy_sample.shapes"].Square
    with pytest.raises(AttributeError, match="lazy_sample"):
        lazy_sample.Circle  # noqa: B018


def test_a_name_that_a_module_has_too_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, monkeypatch, "from .shapes import shapes")
    with pytest.raises(ImportError, match="rename the module"):
        import lazy_sample  # noqa: F401
