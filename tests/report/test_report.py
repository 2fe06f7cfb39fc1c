"""The report: its numbers are those of the files, it is safe, self-contained and says what is missing."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from mtrl.errors import ConfigError, IntegrityError
from mtrl.evaluation import compare, read_result, write_result
from mtrl.report import embedded_videos, write_report
from mtrl.report.page import tile
from mtrl.tasks import TaskSet

from ..evaluation.samples import REACH, SWING, deployment_report, evaluation, latency, task, video
from .pages import Page, bar_widths

LOADS = {"src", "srcset", "data", "action", "poster", "background", "xlink:href", "formaction", "ping"}
SOLVED = TaskSet([task(REACH), task(SWING)])
"""Two tasks measured by success."""
HOSTILE = 'evil/<script>alert("1")</script><img src=x onerror=alert(2)>'


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with every part."""
    root = tmp_path / "quickstart"
    write_result(root / "evaluations/bc.json", evaluation("BC", "bc", reach=(False,) * 4, tasks=SOLVED))
    student = evaluation("student", "student", swing=(False, False), tasks=SOLVED)
    write_result(root / "evaluations/student.json", student)
    write_result(root / "evaluations/teacher.json", evaluation(tasks=SOLVED))
    summary = {"teacher_success": 0.625, "student_latency_us_p99": 57.25, "wall_seconds": 527.0, "another": 3}
    (root / "summary.json").write_text(json.dumps(summary, sort_keys=True))
    (root / "config.yaml").write_text("experiment: quickstart\nagent:\n  width: 256\ntasks: [a, b]\n")
    for name in ("teacher", "student"):
        (root / name).mkdir()
        (root / name / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.125}\n')
    content = latency([30.0, 31.0, 57.25]).as_json()
    (root / "latency.json").write_text(json.dumps({**content, "calls": 3, "repeats": 3}))
    (root / "deployments").mkdir()
    for name, success in ((REACH, True), (SWING, False)):
        path = root / "deployments" / (name.replace("/", "-") + ".json")
        path.write_text(json.dumps(deployment_report(name, 40, 1, success).as_json()))
    routes = [[[-1, 0], [0, 0.5], [1, 0]], [[-1, 0], [0, -0.5], [1, 0]]]
    obstacle = {"x": 0, "y": 0, "radius": 0.25}
    (root / "point_paths.json").write_text(
        json.dumps([{"policy": "student", "paths": routes, "obstacle": obstacle}])
    )
    for label in ("bc", "teacher", "student"):
        video(root, label, REACH, 2)
    video(root, "teacher", REACH, 5, success=False)
    return root


def test_results_on_the_page_are_those_of_the_files(run: Path) -> None:
    page = Page(write_report(run))
    results = [read_result(run / f"evaluations/{name}.json") for name in ("teacher", "student", "bc")]
    expected = []
    for result in results:
        mean = result.mean
        assert mean.success_any is not None and mean.success_end is not None and mean.score is not None
        rates = [x for r in (mean.success_any, mean.success_end) for x in (r.rate, r.low, r.high)]
        expected.append([*rates, mean.score])
    for name in (REACH, SWING):
        for result in results:
            one = result.task(name)
            assert one is not None
            rates = [x for r in (one.success_any, one.success_end) for x in (r.rate, r.low, r.high)]
            known = [] if one.mean_first_success is None else [one.mean_first_success]
            expected.append([*rates, one.mean_score, one.mean_return, one.mean_length, *known])
    rows = page.of_table("results")[1:]
    assert [values for _, values in rows] == expected
    labels = [cells[-8] for cells, _ in rows]
    assert labels == ["teacher", "student", "BC"] * 3
    assert rows[0][0][0] == "mean"
    assert rows[3][0][0] == REACH
    assert rows[3][0][3] == "75.0% [30.1, 95.4]"


def test_paired_differences_are_shown(run: Path) -> None:
    page = Page(write_report(run))
    teacher, student = (read_result(run / f"evaluations/{name}.json") for name in ("teacher", "student"))
    found = compare(student, teacher)
    cells, values = page.of_table("success")[1]
    assert cells[:3] == ["student", "teacher", "−25.0"]
    assert found.success is not None and values == [found.success.value]
    assert cells[4:] == ["0", "1"]


def test_headline_latency_and_deployments_are_those_of_the_files(run: Path) -> None:
    page = Page(write_report(run))
    p99 = json.loads((run / "latency.json").read_text())["p99"]
    # teacher 5 of 8, student 3 of 8; then what the controller takes, real time, and the summary below
    assert page.values["headline"] == [0.625, 0.375, p99, 1.0, 0.025, 527.0, 0.625, 57.25, 527.0, 3.0]
    said = " ".join(page.texts["headline"].split())
    for tile_of in (
        "mean success, teacher, %62.5 [",
        "mean success, student, %37.5 [",
        "real-time episodes that succeeded1 of 2",
        "deadlines missed2.50%",
        "the whole run took8 min 47 s",
    ):
        assert tile_of in said
    assert said.count("mean success,") == 2, "six figures open the page"
    assert "Teacher mean success62.5%" in said
    measured = json.loads((run / "latency.json").read_text())
    assert page.values["realtime"][:4] == [3.0, measured["p50"], measured["p99"], measured["max"]]
    rows = page.of_table("deployment")[1:]
    flown = [deployment_report(name, 40, 1, name == REACH) for name in (SWING, REACH)]
    for (cells, values), report in zip(rows[:2], flown, strict=True):
        assert cells[0] == report.task
        assert cells[2] == ("yes" if report.success else "no")
        inference, command = report.inference, report.observation_to_command
        assert values == [report.deadline_miss_fraction, inference.p50, inference.p99, command.p99]
    assert rows[2][0][:6] == ["all", "", "1 of 2", "80", "2", "2.50%"]
    assert "Warning: normal priority." in page.texts["realtime"]


def test_curves_paths_and_origin_are_shown(run: Path) -> None:
    page = Page(write_report(run))
    assert page.values["learning"] == [0.125, 0.125]
    for source in ("teacher/metrics.jsonl", "student/metrics.jsonl"):
        assert source in page.texts["learning"]
    assert "1 left · 1 right · 0 did not pass" in page.texts["paths"]
    origin = page.texts["repeat"]
    for fact in (
        "mtrl evaluate runs/sample episodes=4",
        "0123abcd" * 5,
        "numpy 2.4.6",
        "test starts 2 to 11",
    ):
        assert fact in origin
    assert "Policy seeds7" in origin.replace("\n", "").replace("  ", "")
    assert "agent.width" in origin
    assert "256" in origin


def test_bars_have_the_lengths_of_the_rates(run: Path) -> None:
    # mean, reach, swing; teacher, student, BC in each
    assert bar_widths(write_report(run)) == [
        "62.50%", "37.50%", "25.00%", "75.00%", "75.00%", "0.00%", "50.00%", "0.00%", "50.00%",
    ]  # fmt: skip


def test_the_page_asks_nothing_of_anyone(run: Path) -> None:
    page = Page(write_report(run))
    assert not page.open
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "image", "use"}
    for tag, attributes in page.elements:
        if tag == "video":
            assert (attributes["src"] or "").startswith("data:video/mp4;base64,")
            assert (attributes["poster"] or "").startswith("data:image/jpeg;base64,")
            continue
        assert not LOADS & attributes.keys() - ({"data"} if tag == "data" else set())
        assert not any(name.startswith("on") for name in attributes)
        target = attributes.get("href")
        assert target is None or target.startswith("#")
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "@import" not in text
    assert "url(" not in text
    assert "https:" not in text
    # the one address is the name of the SVG name space, which is never fetched
    assert text.replace("http://www.w3.org/2000/svg", "").count("http:") == 0


def test_links_within_the_page_lead_somewhere(run: Path) -> None:
    page = Page(write_report(run))
    identities = {attributes.get("id") for _, attributes in page.elements}
    targets = {attributes["href"] for tag, attributes in page.elements if tag == "a"}
    assert targets
    assert {str(target)[1:] for target in targets} <= identities


def test_every_figure_is_described(run: Path) -> None:
    page = Page(write_report(run))
    described = [a for tag, a in page.elements if tag == "svg" and a.get("role") == "img"]
    assert described
    assert all(attributes.get("aria-label") for attributes in described)


def test_hostile_text_is_only_text(run: Path) -> None:
    tasks = TaskSet([task(HOSTILE)])
    write_result(run / "evaluations/hostile.json", evaluation(HOSTILE, "other", tasks=tasks))
    (run / "summary.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    (run / "config.yaml").write_text(json.dumps({HOSTILE: HOSTILE}))
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, HOSTILE: 1.0}) + "\n")
    (run / "deployments/hostile.json").write_text(json.dumps(deployment_report(HOSTILE, 4, 0).as_json()))
    routes = [[[-1, 0], [0, 0.5], [1, 0]]]
    hostile = {"policy": HOSTILE, "paths": routes, "obstacle": {"x": 0, "y": 0, "radius": 0.25}}
    (run / "point_paths.json").write_text(json.dumps([hostile]))
    video(run, HOSTILE, HOSTILE, 2)
    page = Page(write_report(run))
    tags = {tag for tag, _ in page.elements}
    assert "script" not in tags
    assert "img" not in tags
    assert not any("onerror" in attributes for _, attributes in page.elements)
    for section in ("headline", "success", "paths", "videos", "realtime", "learning", "repeat"):
        assert HOSTILE in page.texts[section], section


def test_missing_parts_are_said_with_their_command(tmp_path: Path) -> None:
    run = tmp_path / "fresh"
    run.mkdir()
    page = Page(write_report(run))
    assert f"No evaluation yet: run mtrl evaluate {run}" in page.texts["success"]
    assert "summary.json" in page.texts["headline"]
    assert "paths" not in page.texts, "nothing that would bring it can be advised"
    assert f"run mtrl evaluate {run} --video" in page.texts["videos"]
    assert "once it is exported, run mtrl deploy" in page.texts["realtime"]
    assert f"run mtrl export {run}; a policy that cannot" in page.texts["realtime"]
    assert f"mtrl distill {run}" in page.texts["realtime"]
    assert "metrics.jsonl" in page.texts["learning"]
    assert "No config.yaml" in page.texts["repeat"]


def test_results_of_another_protocol_stand_apart(run: Path) -> None:
    longer = TaskSet([task(REACH, horizon=400)])
    write_result(run / "evaluations/other.json", evaluation("other", "other", tasks=longer))
    page = Page(write_report(run))
    assert "Measured apart" in page.texts["success"]
    assert "'teacher' and 'other' cannot be compared" in page.texts["success"]
    # two tables: three policies on two tasks and their mean, one policy on one task and its mean
    assert len(page.of_table("results")) == (1 + 9) + (1 + 2)


def test_bars_show_the_newest_version_and_a_curve_all(run: Path) -> None:
    old = evaluation(reach=(False,) * 4, tasks=SOLVED)
    write_result(run / "evaluations/zz-old.json", old, overwrite=True)
    write_result(run / "evaluations/teacher.json", evaluation(version=100, tasks=SOLVED), overwrite=True)
    page = Page(write_report(run))
    assert "Over the versions of a policy" in page.texts["success"]
    rows = page.of_table("results")[1:]
    assert len(rows) == 9
    assert rows[3][1][0] == 0.75


def videos_of(page: Page) -> list[dict[str, str | None]]:
    return [attributes for tag, attributes in page.elements if tag == "video"]


def test_videos_of_one_start_stand_side_by_side(run: Path) -> None:
    page = Page(write_report(run))
    shown = [attributes["aria-label"] for attributes in videos_of(page)]
    assert shown == [
        f"{label} on {REACH}, start {start}"
        for label, start in (("teacher", 2), ("student", 2), ("bc", 2), ("teacher", 5))
    ]
    assert all("controls" in attributes for attributes in videos_of(page))
    assert page.texts["videos"].count("no success · return 12.5 · 4 decisions · 0.2\xa0s") == 1
    assert page.values["videos"] == [12.5] * 4


def test_a_video_in_the_page_is_the_file(run: Path) -> None:
    name = "videos/teacher-metaworld-reach-v3-2"
    shown = videos_of(Page(write_report(run)))[0]
    for kind, ending in (("src", ".mp4"), ("poster", ".jpg")):
        coded = (shown[kind] or "").partition(";base64,")[2]
        assert base64.b64decode(coded) == (run / f"{name}{ending}").read_bytes()


def test_a_large_video_is_played_from_beside_the_page(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = (run / "videos/student-metaworld-reach-v3-2.mp4").stat().st_size
    monkeypatch.setattr(embedded_videos, "EMBEDDED_BYTES", large - 1)
    sources = [attributes["src"] or "" for attributes in videos_of(Page(write_report(run)))]
    assert sources[1] == "videos/student-metaworld-reach-v3-2.mp4"
    monkeypatch.setattr(embedded_videos, "EMBEDDED_BYTES", 10**6)
    monkeypatch.setattr(embedded_videos, "EMBEDDED_TOTAL", 2 * large + 100)
    sources = [attributes["src"] or "" for attributes in videos_of(Page(write_report(run)))]
    assert [source.startswith("data:") for source in sources] == [True, True, False, False]


def test_videos_may_lie_on_another_disk(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "videos").rename(tmp_path / "roomy")
    (run / "videos").symlink_to(tmp_path / "roomy")
    monkeypatch.setattr(embedded_videos, "EMBEDDED_BYTES", 0)
    sources = {attributes["src"] or "" for attributes in videos_of(Page(write_report(run)))}
    assert "videos/student-metaworld-reach-v3-2.mp4" in sources


def test_videos_under_another_protocol_stand_apart(run: Path) -> None:
    record = run / "videos/student-metaworld-reach-v3-2.json"
    record.write_text(record.read_text().replace('"protocol_hash": "1', '"protocol_hash": "2'))
    page = write_report(run).read_text(encoding="utf-8")
    assert page.count('<span class="range">start 2</span>') == 2


def test_equal_files_give_an_equal_page_that_replaces_the_old(run: Path) -> None:
    first = write_report(run)
    content = first.read_bytes()
    assert write_report(run) == first == run / "report.html"
    assert first.read_bytes() == content


def test_a_broken_metrics_line_is_reported_and_not_fatal(run: Path) -> None:
    (run / "teacher/metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    page = Page(write_report(run))
    assert "1 line could not be read" in page.texts["learning"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("evaluations/teacher.json", "{"),
        ("summary.json", "[1]"),
        ("latency.json", "{}"),
        ("point_paths.json", "{}"),
        ("videos/teacher-metaworld-reach-v3-2.json", "{}"),
        ("config.yaml", "a: [1"),
        ("config.yaml", "- 1"),
    ],
)
def test_a_damaged_file_is_refused_by_name(run: Path, name: str, content: str) -> None:
    (run / name).write_text(content)
    with pytest.raises(IntegrityError, match=Path(name).name):
        write_report(run)
    assert not (run / "report.html").exists()


def test_an_absent_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run directory"):
        write_report(tmp_path / "absent")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("teacher_success", 0.9833, ("Teacher mean success", "98.3%")),
        ("bc_success", 1.0, ("BC mean success", "100%")),
        ("bc_score", 0.534, ("BC mean score", "53.4%")),
        ("sac_score", -0.21, ("Sac mean score", "−21.0%")),
        ("bc_success_tasks", "2 of 3", ("BC success tasks", "2 of 3")),
        ("point_bc_success", 0.5, ("Point BC success", "50.0%")),
        ("point_modes_kept", True, ("Point modes kept", "yes")),
        ("point_modes_kept.left", 0.46, ("Point modes kept left", "46.0%")),
        ("student_latency_us_p50", 1032.71, ("Student latency p50", "1,032.7 µs")),
        ("deadline_miss_fraction", 0.0012, ("Deadline miss fraction", "0.12%")),
        ("wall_seconds", 59.2, ("Wall time", "59.2 s")),
        ("wall_seconds", 605.0, ("Wall time", "10 min 05 s")),
        ("episodes", 350, ("Episodes", "350")),
        ("realtime_success", 1, ("Realtime success", "1")),
        ("realtime_success", None, ("Realtime success", "not measured")),
    ],
)
def test_headline_numbers_carry_their_units(key: str, value: object, expected: tuple[str, str]) -> None:
    assert tile(key, value)[:2] == expected  # type: ignore[arg-type]
