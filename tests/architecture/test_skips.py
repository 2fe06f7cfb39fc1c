"""A skip is listed with the command that mends it, and is a failure where none is allowed."""

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from .source import ROOT

TESTS = """
import pytest

def test_stated():
    pytest.skip("needs OSMesa; mend: apt-get install libosmesa6")

@pytest.mark.skip(reason="somehow")
def test_unstated():
    pass

def test_missing_library():
    pytest.importorskip("no_such_library")

@pytest.mark.xfail(reason="known", strict=True)
def test_expected_failure():
    assert False

def test_sound():
    pass
"""
WHOLE_MODULE = 'import pytest\npytest.skip("needs ROS 2; mend: pip install x", allow_module_level=True)\n'


def run_pytest(folder: Path, *, no_skips: bool) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    environment = {name: value for name, value in os.environ.items() if name != "MTRL_NO_SKIPS"}
    if no_skips:
        environment["MTRL_NO_SKIPS"] = "1"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no"]
    command.append("--continue-on-collection-errors")
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_each_skip_is_listed_with_its_command(tmp_path: Path) -> None:
    (tmp_path / "test_example.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text(WHOLE_MODULE)
    done = run_pytest(tmp_path, no_skips=False)
    assert done.returncode == 0, done.stdout
    lines = [line.strip() for line in done.stdout.splitlines()]
    after = dict(pairwise(lines))
    assert after["test_example.py::test_stated: needs OSMesa"] == "apt-get install libosmesa6"
    assert after["test_module.py: needs ROS 2"] == "pip install x"
    assert after["test_example.py::test_unstated: somehow"].startswith("(the skip names none")
    (library,) = [line for line in lines if line.startswith("test_example.py::test_missing_library:")]
    assert after[library] == ".venv/bin/pip install -c constraints.txt no_such_library"
    assert "1 passed, 4 skipped, 1 xfailed" in lines[-1]


def test_a_skip_fails_where_none_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "test_example.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text(WHOLE_MODULE)
    done = run_pytest(tmp_path, no_skips=True)
    assert done.returncode == 1
    # to pytest it is an error, not a failure, where a mark skips before the test or a module while collected
    assert "2 failed, 1 passed, 1 xfailed, 2 errors" in done.stdout.splitlines()[-1]
    assert "MTRL_NO_SKIPS allows none: needs OSMesa\nmend: apt-get install libosmesa6" in done.stdout
    assert "MTRL_NO_SKIPS allows none: needs ROS 2\nmend: pip install x" in done.stdout


def test_slow_tests_are_deselected_unless_asked_for(pytestconfig: pytest.Config) -> None:
    addopts = pytestconfig.getini("addopts")
    assert addopts[addopts.index("-m") + 1] == "not slow and not cuda"
    assert any(line.startswith("slow:") for line in pytestconfig.getini("markers"))
