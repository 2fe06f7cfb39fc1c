"""The pictures that an agent asks for of its own metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtrl.errors import ConfigError, IntegrityError
from mtrl.panels import PANELS, Panel, read_panels, write_panels
from mtrl.report import write_report
from mtrl.report.agent_panels import heat_panel, panel_curves, profile_panel
from mtrl.report.chart import COLOURS
from mtrl.report.curves import read_curves
from mtrl.report.task_curves import grouped

from .pages import Page, shapes

HEAT = Panel("heat", "Use", "weight of an expert", ("expert_{layer}_use/{task}",), unit_range=True)
PROFILE = Panel("profile", "Error", "by steps", ("error_{layer}/{task}",))
LINES = Panel("lines", "Entropy", "of the gate", ("entropy/{task}", "entropy_mean"), True, level=0.5)
ABSENT = Panel("lines", "Never logged", "nothing", ("absent/{task}",))
ALL = (HEAT, PROFILE, LINES, ABSENT)


def written(run: Path, tasks: int = 2, panels: tuple[Panel, ...] = ALL) -> Path:
    """Two records of tasks made/0, made/1 and so on."""
    lines = []
    for step in (1, 2):
        line: dict[str, float] = {"step": step, "entropy_mean": 0.9, "loss": 1.0}
        for k in range(tasks):
            line |= {f"return/made/{k}": k, f"entropy/made/{k}": k / tasks, f"critic_loss/made/{k}": k}
            line |= {f"expert_{i}_use/made/{k}": float(i == k % 3) for i in range(3)}
            line |= {f"error_{i}/made/{k}": i * (k + 1.0) / step for i in (1, 2, 10)}
        lines.append(json.dumps(line) + "\n")
    run.mkdir(exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(lines))
    write_panels(run, panels)
    return run


def test_panels_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_panels(tmp_path) == ()
    write_panels(tmp_path, ALL)
    assert read_panels(tmp_path) == ALL
    with pytest.raises(ConfigError, match="'lines', 'heat' or 'profile'"):
        Panel("pie", "", "", ())
    twice = json.dumps([{"kind": "heat", "title": "", "meaning": "", "metrics": ["{task}/{task}"]}])
    for broken in (twice, "{", "{}", "[1]", '[{"kind": "pie"}]', '[{"kind": "heat", "title": "x"}]'):
        (tmp_path / PANELS).write_text(broken)
        with pytest.raises(IntegrityError, match=PANELS):
            read_panels(tmp_path)


def test_what_a_panel_shows_stands_nowhere_else(tmp_path: Path) -> None:
    found = grouped(read_curves(written(tmp_path) / "metrics.jsonl", "metrics.jsonl"))
    assert [one.panel.title for one in found.panels] == ["Use", "Error", "Entropy"]
    assert [group.name for group in found.by_task] == ["critic_loss"]
    assert [curve.name for curve in found.plain] == ["loss"]


def test_tasks_are_in_the_order_of_the_page(tmp_path: Path) -> None:
    curves = read_curves(written(tmp_path) / "metrics.jsonl", "")
    heat, profile, _ = panel_curves(curves, ["made/1", "made/0"])
    assert list(heat.by_task()) == list(profile.by_task()) == ["made/1", "made/0"]
    assert list(profile.by_task()["made/0"]) == [1, 2, 10]


def test_a_heat_map_has_a_box_for_each_task_and_layer(tmp_path: Path) -> None:
    (heat, *_) = panel_curves(read_curves(written(tmp_path) / "metrics.jsonl", ""))
    drawn = heat_panel(heat)
    boxes = shapes(drawn, "path", fill="var(--s1)")
    assert [box.title for box in boxes][:4] == [
        "made/0, 0: 100%", "made/0, 1: 0%", "made/0, 2: 0%", "made/1, 0: 0%",
    ]  # fmt: skip
    assert [one.text for one in shapes(drawn, "text")][:2] == ["made/0", "made/1"]


def test_a_profile_goes_over_the_layers_from_the_first_record_to_the_last(tmp_path: Path) -> None:
    _, profile, _ = panel_curves(read_curves(written(tmp_path) / "metrics.jsonl", ""))
    titles = [one.title for one in shapes(profile_panel(profile, {"made/0": "s1"}), "path") if one.title]
    assert titles == [
        "made/0: first record", "made/0: 0.5, 1, 5", "made/1: first record", "made/1: 1, 2, 10",
    ]  # fmt: skip


@pytest.mark.parametrize("tasks", [1, 2, COLOURS + 1])
def test_the_page_shows_the_panels_under_learning(tasks: int, tmp_path: Path) -> None:
    page = Page(write_report(written(tmp_path / "run", tasks)))
    text = page.texts["learning"]
    assert "Inside the agent" in text and "Never logged" not in text
    assert text.index("Use") < text.index("Error") < text.index("Entropy") < text.index("entropy mean")


def test_a_layer_too_large_for_a_number_is_none(tmp_path: Path) -> None:
    run = written(tmp_path)
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, f"error_{'9' * 5000}/made/0": 1.0}) + "\n")
    assert panel_curves(read_curves(run / "metrics.jsonl", "")) == ()


def test_without_panels_every_metric_is_in_its_old_place(tmp_path: Path) -> None:
    run = written(tmp_path / "run")
    (run / PANELS).unlink()
    page = Page(write_report(run))
    assert "Inside the agent" not in page.texts["learning"]
    assert "expert 0 use" in page.texts["learning"]


@pytest.mark.parametrize("kind", ["heat", "profile"])
def test_a_box_shows_one_metric(kind: str) -> None:
    with pytest.raises(ConfigError, match="one metric of each task"):
        Panel(kind, "", "", ("a/{task}", "b/{task}"))
    assert Panel(kind, "", "", ("a/{task}", "mean")).metrics == ("a/{task}", "mean")
