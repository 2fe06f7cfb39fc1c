"""`mtrl.envs` is ours in a wheel, a bare clone, an uploaded folder, and beside a user's own folders."""

import shutil
from pathlib import Path

import pytest

from .conftest import Installed, run
from .source import PACKAGES, files, read_project

PRINT_HOMES = "import mtrl, mtrl.envs, mtrl.agents, mtrl.configs, mtrl.launch; " + "; ".join(
    f"print({package}.__file__)" for package in ("mtrl", *PACKAGES.values())
)
LIST_PACKAGES = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """A project with packages of its own under the very names of our folders, and a config named as ours."""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(
            f"raise RuntimeError('the user\\'s {name} was imported')\n"
        )
    for name in ("metaworld", "dmc", "diffusion", "main"):
        for folder in PACKAGES:
            (tmp_path / folder / f"{name}.py").write_text("raise RuntimeError('a module of the user')\n")
    (tmp_path / "configs" / "train.yaml").write_text("agent: the user's\n")
    return tmp_path


def homes(output: str) -> list[Path]:
    return [Path(line).resolve() for line in output.splitlines()]


def test_the_wheel_holds_every_file_of_the_tree(bare_clone: Path, wheel_names: set[str]) -> None:
    expected = set()
    for path in files(bare_clone):
        folder, *rest = path.relative_to(bare_clone).parts
        expected.add("/".join([*PACKAGES.get(folder, folder).split("."), *rest]))
    packed = {name for name in wheel_names if ".dist-info/" not in name}
    assert packed == expected, "edit tool.setuptools.package-data in pyproject.toml"
    assert "mtrl/py.typed" in packed


def test_the_wheel_puts_nothing_beside_mtrl(wheel_names: set[str]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in wheel_names} == {"mtrl", "mtrl_platform"}


def test_the_command_works_beside_a_users_own_folders(installed: Installed, users_folder: Path) -> None:
    listed = run(installed.command, "tasks", cwd=users_folder)
    assert "dmc/cartpole-swingup" in listed
    assert "the user" not in listed


def test_the_module_works_beside_a_users_own_folders(installed: Installed, users_folder: Path) -> None:
    """With -m the user's folder comes first on sys.path, before the wheel."""
    assert run(installed.python, "-m", "mtrl.launch.main", "tasks", cwd=users_folder) == run(
        installed.command, "tasks", cwd=users_folder
    )


def test_imports_find_the_wheel_beside_a_users_own_folders(installed: Installed, users_folder: Path) -> None:
    found = homes(run(installed.python, "-c", PRINT_HOMES, cwd=users_folder))
    assert found == [
        (installed.site_packages / package.replace(".", "/") / "__init__.py").resolve()
        for package in ("mtrl", *PACKAGES.values())
    ]


def test_every_package_of_the_wheel_imports(installed: Installed, tmp_path: Path) -> None:
    run(
        installed.python, "-c", LIST_PACKAGES, *read_project()["tool"]["setuptools"]["packages"], cwd=tmp_path
    )


def test_a_wheel_used_from_the_checkouts_root_reads_the_checkout(
    installed: Installed, bare_clone: Path
) -> None:
    assert homes(run(installed.python, "-c", PRINT_HOMES, cwd=bare_clone)) == checkout_homes(bare_clone)


def test_a_bare_clone_works(bare_python: Path, bare_clone: Path) -> None:
    assert homes(run(bare_python, "-c", PRINT_HOMES, cwd=bare_clone)) == checkout_homes(bare_clone)


def test_a_bare_clone_lists_its_tasks(bare_python: Path, bare_clone: Path) -> None:
    assert "dmc/cartpole-swingup" in run(bare_python, "-m", "mtrl.launch.main", "tasks", cwd=bare_clone)


def test_an_uploaded_working_dir_works(bare_python: Path, bare_clone: Path, tmp_path: Path) -> None:
    """Ray unpacks an uploaded working_dir under a name of its own and puts it on the path of its workers."""
    uploaded = shutil.copytree(bare_clone, tmp_path / "_ray_pkg_0123456789abcdef")
    (tmp_path / "elsewhere").mkdir()
    found = homes(run(bare_python, "-c", PRINT_HOMES, cwd=tmp_path / "elsewhere", path=uploaded))
    assert found == checkout_homes(uploaded)


def test_a_bare_python_has_no_mtrl(bare_python: Path, tmp_path: Path) -> None:
    """Otherwise the tests above would prove nothing."""
    code = "import importlib.util; print(importlib.util.find_spec('mtrl'))"
    assert run(bare_python, "-c", code, cwd=tmp_path).strip() == "None"


def checkout_homes(root: Path) -> list[Path]:
    return [(root / folder / "__init__.py").resolve() for folder in ("mtrl", *PACKAGES)]
