"""The bench as an installed plug-in, for this process and for those it starts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtrl import registry

from .bench_suite import SUITE, BenchSuite

ENTRY_POINTS = "[mtrl.suites]\nbench = tests.deployment.bench_suite:SUITE\n"
METADATA = "Metadata-Version: 2.1\nName: bench-plugin\nVersion: 0.0\n"


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[BenchSuite]:
    """Suite "bench", found by child processes through a real entry point."""
    plugins = tmp_path_factory.mktemp("plugins")
    described = plugins / "bench_plugin-0.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(METADATA)
    (described / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.setattr(sys, "path", [*sys.path, str(plugins), str(Path(__file__).parents[2])])
    # this process may have read its entry points before the bench was among them, or after
    registry.register("suite", "bench", SUITE, replace=True)
    yield SUITE
    registry.unregister("suite", "bench")
