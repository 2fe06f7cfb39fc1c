"""A copy of the checkout without what git ignores, and a clean environment with the wheel built from it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from .source import FOLDERS, ROOT

FILES = ("pyproject.toml", "README.md", "LICENSE")


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """The standard output of a command that PYTHONPATH leads to no mtrl but the one given."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def see_libraries(environment: Path) -> None:
    """Let an environment import this one's libraries, but no editable install of this checkout.

    A path in a .pth file does it: the .pth files in the folder that it names stay unread.
    """
    (site_packages,) = environment.glob("lib/python3*/site-packages")
    paths = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (site_packages / "libraries.pth").write_text("".join(f"{path}\n" for path in paths))


@dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel."""

    python: Path
    command: Path
    site_packages: Path


@pytest.fixture(scope="session")
def bare_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout as a stranger has it: no build outputs, nothing installed."""
    clone = tmp_path_factory.mktemp("clone") / "checkout"
    clone.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, clone)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, clone / folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return clone


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the libraries and without mtrl."""
    environment = tmp_path_factory.mktemp("bare") / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    see_libraries(environment)
    return environment / "bin" / "python"


@pytest.fixture(scope="session")
def wheel(bare_clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a second copy so that the clone stays bare."""
    folder = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(bare_clone, folder / "source")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, source, cwd=folder)
    (built,) = folder.glob("mtrl_platform-*.whl")
    return built


@pytest.fixture(scope="session")
def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A clean environment with the wheel and this one's libraries."""
    environment = tmp_path_factory.mktemp("clean") / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, cwd=wheel.parent)
    see_libraries(environment)
    (site_packages,) = environment.glob("lib/python3*/site-packages")
    return Installed(python, environment / "bin" / "mtrl", site_packages)
