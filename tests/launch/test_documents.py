"""Documents show commands that compose and links that lead somewhere."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mtrl.launch.compose import compose
from mtrl.launch.main import FOLDERS, build_verb, main
from mtrl.pipeline import agent_of, task_set_of

from ..sweeps import sampled

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("agents/*/README.md"))]
COMMANDS = sorted(
    {
        line
        for page in PAGES
        for block in re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        for line in re.findall(r"^(mtrl \w+ .+)$", block, re.MULTILINE)
        if "my_task" not in line  # a module that the reader writes
    }
)
"""Every line of a block that is a command with arguments."""
COMPOSED = {"train", "collect", "tune", "doctor", "data"}
"""Commands whose settings stand alone; those of the others change a run's."""


@pytest.mark.parametrize("text", COMMANDS)
def test_a_command_composes(text: str) -> None:
    _, verb, *words = shlex.split(text, comments=True)
    own = words[: words.index("--")] if verb == "submit" and "--" in words else words
    module = importlib.import_module(f"mtrl.launch.{FOLDERS.get(verb, '')}{verb}")
    parsed = build_verb(verb, module).parse_intermixed_args(own)
    if verb not in COMPOSED:
        return
    given = [word for word in own if re.match(r"[\w.]+=(?!(choice|log|uniform)\()", word)]
    given = [word for word in given if not word.startswith("seeds=")]
    config = compose(given, command=verb if verb in ("train", "collect") else "train")
    assert parsed is not None and task_set_of(config)
    if verb == "train":
        agent_of(config)


TRAININGS = sorted(
    {
        shlex.join(shlex.split(text, comments=True))
        for text in COMMANDS
        if text.startswith("mtrl train ") and not re.search(r"data=|init_from=|runtime=ray|seeds=", text)
    }
)
"""Trainings that stand alone: nothing has to be there before them."""
BUDGETS = {
    "sac": "online.warmup=200 online.steps=300",
    "world_model": "online.warmup=200 online.steps=300 evaluation.plan=false",
    "diffusion": "training.updates=3",
    "sb3": "online.steps=600 agent.ppo.n_steps=25 agent.ppo.batch_size=25 agent.dqn.learning_starts=100 "
    "agent.sac.learning_starts=100",
    "rllib": "online.steps=600 agent.ppo.train_batch_size_per_learner=128 agent.ppo.minibatch_size=64",
}
"""Agent -> its debug budget; of others, few steps."""
DEBUG = [
    "demonstrations.episodes=1",
    "demonstrations.job_episodes=1",
    "demonstrations.attempts_factor=50",
    "tracking=files",
    "evaluation.episodes=1",
    "evaluation.copies=1",
    "training.threads=1",
    "stages=[collect,train,evaluate]",
]


@pytest.mark.parametrize("text", sampled(TRAININGS, share=len(TRAININGS)))
def test_a_training_runs_with_a_debug_budget(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(text, comments=True)[1:]
    name, _, settings = agent_of(compose(words[1:], command="train"))
    budget = BUDGETS.get(name, "online.steps=600").split()
    if getattr(settings, "cloning", None) is not None and settings.cloning.updates:
        budget = [*budget, "agent.cloning.updates=3"]
    assert main([*words, *DEBUG, *budget, "name=tried"]) == 0
    assert (tmp_path / "runs" / "tried" / "summary.json").is_file()


FOLLOWING = sorted(
    {
        shlex.join(shlex.split(text, comments=True))
        for text in COMMANDS
        if "runs/first" in text and not text.startswith("mtrl train ")
    }
)
"""Commands on the run that the first training leaves."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_on_a_finished_run_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["train", "agent=sac", "tasks=[gym/CartPole-v1]", *DEBUG, *BUDGETS["sac"].split()]
    for seed, name in enumerate(("first", "second")):
        assert main([*small, f"seed={seed}", f"name={name}"]) == 0
    for text in FOLLOWING:
        words = [re.sub(r"^episodes=\d+$", "episodes=2", word) for word in shlex.split(text)[1:]]
        assert main([*words, "--overwrite"] if words[0] == "evaluate" else words) == 0, text


BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    )
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_python_block_is_python(block: str) -> None:
    compile(block, "block", "exec")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_python_blocks_run_as_a_reader_types_them(tmp_path: Path) -> None:
    script = "\n".join(str(block.values[0]) for block in BLOCKS)
    # the run that the page on Python reads
    first = [
        "train",
        "agent=sac",
        "tasks=[gym/CartPole-v1]",
        "online.warmup=200",
        "steps=300",
        "name=sac-CartPole-v1",
    ]
    for command in ([sys.executable, "-m", "mtrl.launch.main", *first], [sys.executable, "-c", script]):
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page}: {target}"


def test_the_readme_is_short() -> None:
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 150
