"""A folder in which the commands of the documents find the runs and datasets that they name, made small."""

from __future__ import annotations

import re
import shlex
from itertools import count
from pathlib import Path

from mtrl.launch.compose import compose
from mtrl.launch.main import main
from mtrl.pipeline import agent_of

from ..deployment.running import PATIENT
from .pages import BLOCKS

FEW = "[metaworld/reach-v3,metaworld/push-v3,metaworld/button-press-topdown-v3]"
"""What takes the place of ten or fifty tasks."""

DEBUG = (
    "demonstrations.episodes=1", "demonstrations.job_episodes=1", "demonstrations.attempts_factor=50",
    "tracking=files", "evaluation.episodes=1", "evaluation.copies=1", "evaluation.random=false",
    "evaluation.constant=false", "training.threads=1",
)  # fmt: skip
BUDGETS = {
    "sac": "online.warmup=200 online.steps=300",
    "world_model": "online.warmup=200 online.steps=300 evaluation.plan=false",
    "diffusion": "training.updates=3 distillation.updates=3",
    "sb3": "online.steps=600 agent.ppo.n_steps=25 agent.ppo.batch_size=25 agent.dqn.learning_starts=100 "
    "agent.sac.learning_starts=100",
    "rllib": "online.steps=600 agent.ppo.train_batch_size_per_learner=128 agent.ppo.minibatch_size=64",
}
"""Agent -> its debug budget; of others, few steps."""

MADE = {
    "runs/first": "train agent=sac tasks=[gym/CartPole-v1] name=first",
    "runs/second": "train agent=sac tasks=[gym/CartPole-v1] name=second seed=2",
    **{
        f"runs/{method}{seed}": f"train agent=sac tasks=[gym/CartPole-v1] name={method}{seed} seed={seed}"
        for method in "ab"
        for seed in (1, 2, 3)
    },
    "runs/mine": "train agent=sac tasks=[gym/my_task:Reach-v0] name=mine",
    **{
        f"runs/three-seed{n}": f"train agent=sac tasks=[gym/my_task:Reach-v0] name=three-seed{n} seed={n}"
        for n in (1, 2)
    },
    "runs/mine/artefact": "export runs/mine --allow-import my_task",
    "runs/diffusion-mt10-seed1": "train tasks=mt10 name=diffusion-mt10-seed1 "
    "stages=[collect,train,distill,evaluate]",
    "runs/diffusion-mt10-seed1/artefact": "export runs/diffusion-mt10-seed1",
    "runs/diffusion_mt10": "train tasks=mt10 name=diffusion_mt10 stages=[collect,train]",
    "runs/quickstart": "train tasks=[metaworld/reach-v3,point/obstacle] name=quickstart "
    "stages=[collect,train,distill]",
    "runs/quickstart/artefact": "export runs/quickstart",
    "runs/world_model_mixed": "train agent=world_model tasks=[dmc/cartpole-swingup,gym/CartPole-v1] "
    "name=world_model_mixed stages=[train,distill] distillation.steps=80 distillation.updates=3",
    "runs/world_model_mixed/artefact": "export runs/world_model_mixed",
    "runs/parent": "train agent=grpo tasks=[point/obstacle] name=parent agent.cloning.updates=3 "
    "stages=[collect,train]",
    "runs/reach": "train tasks=[metaworld/reach-v3] name=reach stages=[collect,train,distill]",
    "datasets": "collect tasks=mt10",
    "few": "collect tasks=mt10 --out few",
    "made": "collect source=synthesised data=few tasks=mt10 updates=3 --out made",
    "both": "data merge few made tasks=mt10 --out both",
    "pushed": "collect tasks=[metaworld/push-v3] --out pushed",
    "more": "collect tasks=[metaworld/push-v3] seed=2 --out more",
    "all": "data merge pushed more tasks=[metaworld/push-v3] --out all",
    "pushed-lerobot": "data convert pushed tasks=[metaworld/push-v3] --to lerobot --out pushed-lerobot",
    "deployments/metaworld-reach-v3.mcap": "deploy runs/diffusion-mt10-seed1/artefact robot=sim "
    "--task metaworld/reach-v3",
}
"""What commands name -> the command that makes it."""


class Workshop:
    """Runs commands in one folder; what they need is made on first need and kept."""

    def __init__(self, folder: Path) -> None:
        """An empty workshop in `folder`, which is the working directory."""
        self.folder = folder
        self._numbers = count()
        (module,) = (block.text for block in BLOCKS if "class Reach" in block.text)
        (folder / "my_task.py").write_text(module, encoding="utf-8")

    def run(self, text: str) -> None:
        """Runs a command with a debug budget; raises AssertionError unless it returns 0."""
        words = shlex.split(text.replace(" RUN", " runs/diffusion-mt10-seed1"))
        out = _value(words, "--out")
        needed = {name for word in words for name in _named(word)}
        if words[0] == "deploy":
            needed |= {f"{name}/artefact" for name in needed if f"{name}/artefact" in MADE}
        self.provide(needed - {out})
        name = next((word[5:] for word in words if word.startswith("name=")), "")
        if words[0] == "train" and (not name or list((self.folder / "runs").glob(f"{name}*"))):
            words = [word for word in words if not word.startswith("name=")]
            words.append(f"name=tried{next(self._numbers)}")
        if out is not None and (self.folder / out).exists():
            words[words.index("--out") + 1] = f"again{next(self._numbers)}"
        words = small(words)
        assert main(words) == 0, shlex.join(["mtrl", *words])

    def provide(self, names: set[str]) -> None:
        """Makes what is not there yet."""
        for name in sorted(names):
            if not (self.folder / name).exists():
                self.run(MADE[name])


def _named(word: str) -> set[str]:
    """Runs, artefacts, datasets and logs of a word, in the order in which they are made."""
    places = re.split(r"[,=@]", word)
    found = {place for place in places if place in MADE}
    return found | {place.removesuffix("/artefact") for place in found}


def _value(words: list[str], option: str) -> str | None:
    return words[words.index(option) + 1] if option in words else None


def small(words: list[str]) -> list[str]:
    """The words of a command with as little work as shows that it works."""
    words = [re.sub(r"^tasks=mt(10|50)$", f"tasks={FEW}", word) for word in words]
    verb = words[0]
    mixed = any(word.startswith("demonstrations.mixture") for word in words)
    debug = [*DEBUG, "demonstrations.episodes=10"] if mixed else DEBUG
    if verb == "train":
        return [*words, *debug, *budget(words)]
    if verb == "tune":
        return [*words, *DEBUG, *BUDGETS["sac"].split(), "--trials", "2"]
    episodes = 2 if verb == "evaluate" else 1
    words = [re.sub(r"^episodes=\d+$", f"episodes={episodes}", word) for word in words]
    if verb == "collect":
        words += [setting for setting in debug if setting.startswith("demonstrations.")]
        words = [re.sub(r"^updates=\d+$", "updates=3", word) for word in words]
    if verb == "distill":
        words += ["updates=3", "--overwrite"]
        words += ["steps=80"] if "world_model" in words[1] else []
    if verb == "evaluate" and f"episodes={episodes}" not in words:
        words.append(f"episodes={episodes}")
    if verb == "deploy":
        words += PATIENT
    if verb in ("evaluate", "export", "deploy", "watch", "collect"):
        words.append("--overwrite")
    return words


def budget(words: list[str]) -> list[str]:
    """Few steps or updates, of a training's agent."""
    name, _, settings = agent_of(
        compose([w for w in words[1:] if "=" in w and not w.startswith(("-", "seeds="))], command="train")
    )
    found = BUDGETS.get(name, "online.steps=600").split()
    if getattr(settings, "cloning", None) is not None and settings.cloning.updates:
        found.append("agent.cloning.updates=3")
    if not any(word.startswith("stages=") for word in words):
        collects = not any(word.startswith("data=") for word in words)
        found.append(f"stages=[{'collect,' if collects else ''}train,evaluate]")
    return found
