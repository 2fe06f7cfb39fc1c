"""A folder of ours imported under its bare name says what to write instead."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mtrl

from .source import PACKAGES, ROOT


@pytest.mark.parametrize("name", ["envs", "agents", "configs"])
def test_a_bare_name_is_refused(name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, ROOT / name / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=rf"write `import mtrl\.{name}`"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_ruff_says_the_same(name: str) -> None:
    for line in (f"import {name}", f"from {name}.x import y"):
        command = [sys.executable, "-m", "ruff", "check", "--output-format", "json", "--select", "TID251"]
        done = subprocess.run(
            [*command, "--stdin-filename", "mtrl/example.py", "-"],
            input=line + "\n",
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        found = json.loads(done.stdout)
        assert [item["code"] for item in found] == ["TID251"], line
        assert f"mtrl.{name}" in found[0]["message"]


def test_the_checkout_is_on_the_path_of_mtrl() -> None:
    assert str(ROOT) in list(mtrl.__path__)


def test_importing_mtrl_imports_no_library() -> None:
    code = "import sys, mtrl; print(*sorted(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "ray", "gymnasium", "mujoco", "metaworld", "hydra", "omegaconf"}
    assert not heavy & set(done.stdout.split())


def test_installed_without_a_checkout_the_path_stays_as_it_is(tmp_path: Path) -> None:
    """agents/ without pyproject.toml beside mtrl/ is a site-packages with some other agents/, no checkout."""
    (tmp_path / "mtrl").mkdir()
    (tmp_path / "mtrl" / "__init__.py").write_bytes((ROOT / "mtrl" / "__init__.py").read_bytes())
    (tmp_path / "agents").mkdir()
    code = "import mtrl; print(*mtrl.__path__, sep='\\n')"
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(tmp_path / "mtrl")]
