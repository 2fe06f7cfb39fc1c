"""What every test run has: rendering without a display, one thread, and an account of what was skipped.

A skip says what is missing and, after `mend:`, the command that brings it, for example
`pytest.skip("needs OSMesa; mend: apt-get install libosmesa6")`. With MTRL_NO_SKIPS=1 a skip is a failure.
"""

import ctypes.util
import datetime
import os
import re
import signal
import sys
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# mujoco and dm_control choose their renderer when imported, so this stands before any test is collected;
# naming OSMesa where it is missing would make even `import mujoco` fail.
if not os.environ.get("DISPLAY") and ctypes.util.find_library("OSMesa"):
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    os.environ.setdefault("PYOPENGL_PLATFORM", "osmesa")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# which part of a sweep runs; set once, so that all processes of a run agree at midnight too
os.environ.setdefault("MTRL_TEST_DAY", str(datetime.datetime.now(datetime.UTC).toordinal()))
# a shell without job control starts what runs in its background with Ctrl-C ignored, and children inherit it
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

NO_SKIPS = os.environ.get("MTRL_NO_SKIPS", "") not in ("", "0")
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# the gate tests a change: it draws the same examples each time, other runs draw new ones
settings.load_profile("ci" if NO_SKIPS else "untimed")
_MEND = re.compile(r"[;,.]?\s*mend:\s*(?P<command>.+)", re.DOTALL)
_MISSING_MODULE = re.compile(r"No module named '(?P<module>\w+)")


def pytest_report_header() -> str:
    """Name the day whose samples of the sweeps run."""
    return f"sweeps: MTRL_TEST_DAY={os.environ['MTRL_TEST_DAY']}"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Keep torch to one thread: tests are small, and idle threads that spin slow everything else."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Spread over processes, tests of one file stay together and share its fixtures; those of
    tests/distributed share a cluster, and the machine is too small for two.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return "tests/distributed" if file.startswith("tests/distributed/") else file

    return ByFile(config, log)


def _reason(longrepr: object) -> str:
    """The words of the skip, whether pytest kept them as a triple or as text."""
    text = str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)
    return text.removeprefix("Skipped: ")


def _split(reason: str) -> tuple[str, str]:
    """What is missing, and the command that would mend it."""
    stated = _MEND.search(reason)
    if stated:
        return reason[: stated.start()], stated["command"].strip()
    missing = _MISSING_MODULE.search(reason)
    if missing:
        return reason, f".venv/bin/pip install -c constraints.txt {missing['module']}"
    return reason, "(the skip names none: end its reason with `mend: <command>`)"


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure where none is allowed; an expected failure is no skip."""
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        missing, command = _split(_reason(report.longrepr))
        report.outcome = "failed"
        report.longrepr = f"skipped, and MTRL_NO_SKIPS allows none: {missing}\nmend: {command}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse(report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List each skip with the command that would mend it."""
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    terminalreporter.section("skipped, and how to mend it")
    for report in skipped:
        missing, command = _split(_reason(report.longrepr))
        terminalreporter.write_line(f"{report.nodeid}: {missing}")
        terminalreporter.write_line(f"    {command}")
