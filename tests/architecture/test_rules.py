"""The checkout keeps every rule, and each rule catches the mistake it was written for."""

import pytest

from .rules import FULLEST_FOLDER, LONGEST_FILE, LONGEST_FUNCTION, RULES, check
from .source import Source, parse, read_tree

BAD: list[tuple[str, str, str]] = [
    ("one-way", "mtrl/tasks/a.py", "from mtrl.envs.dmc import SUITE"),
    ("one-way", "mtrl/tasks/a.py", "import mtrl.agents"),
    ("one-way", "mtrl/tasks/a.py", "def f():\n    from mtrl import envs"),
    ("one-way", "mtrl/training/a.py", "from mtrl.launch.main import main"),
    ("one-way", "mtrl/registry.py", "import importlib\nimportlib.import_module('mtrl.envs.dmc')"),
    ("one-way", "envs/dmc.py", "from mtrl.agents.diffusion import AGENT"),
    ("one-way", "agents/diffusion/agent.py", "from mtrl.envs.dmc import SUITE"),
    ("one-way", "agents/diffusion/agent.py", "import mtrl.launch.main"),
    ("one-way", "launch/train.py", "from mtrl.agents.diffusion import AGENT"),
    ("one-way", "envs/dmc.py", "from ..agents import diffusion"),
    ("bare-name", "launch/train.py", "import envs"),
    ("bare-name", "mtrl/tasks/a.py", "from agents.diffusion import AGENT"),
    ("bare-name", "launch/train.py", "import importlib\nimportlib.import_module('configs')"),
    ("import-style", "mtrl/tasks/a.py", "from mtrl.tasks.starts import Start"),
    ("import-style", "mtrl/tasks/a.py", "import mtrl.tasks.starts"),
    ("import-style", "mtrl/tasks/a.py", "from ..errors import MtrlError"),
    ("import-style", "mtrl/registry.py", "from .errors import MtrlError"),
    ("import-style", "agents/diffusion/agent.py", "from mtrl.agents.diffusion.config import Config"),
    ("ray", "mtrl/rollout/a.py", "import ray"),
    ("ray", "mtrl/rollout/a.py", "def f():\n    from ray.train.torch import TorchTrainer"),
    ("ray", "agents/sac/agent.py", "from ray.rllib.algorithms.sac import SACConfig"),
    ("utils", "mtrl/tasks/utils.py", ""),
    ("utils", "agents/diffusion/utils/shapes.py", ""),
    ("utils", "mtrl/tasks/_util.py", ""),
    ("launch-name", "launch/hydra.py", ""),
    ("launch-name", "launch/ray/__init__.py", ""),
    ("launch-name", "launch/wandb.py", ""),
    ("swallowed-error", "mtrl/a.py", "try:\n    f()\nexcept:\n    raise"),
    ("swallowed-error", "mtrl/a.py", "try:\n    f()\nexcept Exception:\n    pass"),
    ("swallowed-error", "mtrl/a.py", "try:\n    f()\nexcept (OSError, BaseException) as error:\n    ..."),
    (
        "swallowed-error",
        "mtrl/a.py",
        "for _ in x:\n    try:\n        f()\n    except Exception:\n        continue",
    ),
    ("runs-data", "mtrl/a.py", "import pickle"),
    ("runs-data", "mtrl/a.py", "from cloudpickle import dumps"),
    ("runs-data", "mtrl/a.py", "import importlib\nimportlib.import_module('dill')"),
    ("runs-data", "mtrl/a.py", "import torch\ntorch.load('x', weights_only=True)"),
    ("runs-data", "mtrl/a.py", "from torch import load"),
    ("runs-data", "mtrl/a.py", "eval('1')"),
    ("runs-data", "mtrl/a.py", "run = exec"),
    ("runs-data", "mtrl/a.py", "import subprocess\nsubprocess.run('ls', shell=True)"),
    ("runs-data", "mtrl/a.py", "import subprocess\nsubprocess.run('ls', shell=flag)"),
    ("runs-data", "mtrl/a.py", "import numpy as np\nnp.load('x', allow_pickle=True)"),
    ("runs-data", "mtrl/a.py", "import os\nos.system('ls')"),
    ("long-file", "mtrl/a.py", "x = 1\n" * (LONGEST_FILE + 1)),
    ("long-function", "mtrl/a.py", "def f():\n" + "    x = 1\n" * LONGEST_FUNCTION),
    ("long-function", "mtrl/a.py", "class A:\n    async def f():\n" + "        x = 1\n" * LONGEST_FUNCTION),
    (
        "long-function",
        "mtrl/a.py",
        "def f():\n    def g():\n" + "        x = 1\n" * LONGEST_FUNCTION + "    return g",
    ),
]

GOOD: list[tuple[str, str]] = [
    ("mtrl/tasks/a.py", "from mtrl.errors import MtrlError\nfrom .starts import Start\nfrom . import starts"),
    ("mtrl/registry.py", "import mtrl\nfrom mtrl.errors import MtrlError"),
    ("mtrl/__init__.py", "from pathlib import Path"),
    ("envs/__init__.py", "if __name__ == 'envs':\n    raise ImportError('no')"),
    (
        "envs/dmc/suite.py",
        "from mtrl.tasks import Task\nfrom .catalogue import read\nfrom ..rendering import x",
    ),
    ("agents/diffusion/agent.py", "from mtrl.nn import MLP\nfrom .config import Config"),
    (
        "launch/train.py",
        "from mtrl.registry import suites\nfrom mtrl.training import train\nfrom .plan import plan",
    ),
    ("mtrl/distributed/actors.py", "import ray\nfrom ray.util import placement_group"),
    ("agents/rllib/algorithms.py", "from ray.rllib.algorithms.sac import SACConfig"),
    ("mtrl/data/rays.py", "from . import ray"),
    ("mtrl/nn/a.py", "import torch\ntorch.nn.Linear(1, 1).eval()\nfrom safetensors.torch import load"),
    ("mtrl/a.py", "try:\n    f()\nexcept ValueError:\n    pass"),
    ("mtrl/a.py", "try:\n    f()\nexcept Exception as error:\n    raise KeyError from error"),
    ("mtrl/a.py", "import numpy as np\nnp.load('x', allow_pickle=False)"),
    ("mtrl/a.py", "x = 1\n" * LONGEST_FILE),
    ("mtrl/a.py", "@cache\ndef f():\n" + "    x = 1\n" * (LONGEST_FUNCTION - 1)),
    ("mtrl/a.py", "class A:\n" + "    x = 1\n" * (LONGEST_FUNCTION + 1)),
]


def test_the_checkout_keeps_every_rule() -> None:
    broken = check(read_tree())
    assert not broken, "\n" + "\n".join(str(violation) for violation in broken)


def test_the_tree_is_read_at_all() -> None:
    modules = {source.module for source in read_tree()}
    assert {"mtrl", "mtrl.errors", "mtrl.envs", "mtrl.agents", "mtrl.configs"} <= modules


@pytest.mark.parametrize(("rule", "path", "text"), BAD)
def test_a_rule_catches_its_mistake(rule: str, path: str, text: str) -> None:
    found = check([parse(path, text)])
    assert rule in {violation.rule for violation in found}


def test_every_rule_has_a_bad_example() -> None:
    assert {rule for rule, _, _ in BAD} == set(RULES)


@pytest.mark.parametrize(("path", "text"), GOOD)
def test_what_is_right_passes(path: str, text: str) -> None:
    assert check([parse(path, text)]) == []


def test_a_violation_names_file_line_and_rule() -> None:
    (found,) = check([parse("mtrl/nn/a.py", "import torch\n\nimport ray\n")])
    assert str(found) == "mtrl/nn/a.py:3: [ray] mtrl.nn imports ray: only mtrl.distributed may"


def test_a_cycle_between_components_is_caught_through_a_third() -> None:
    found = check(
        [
            parse("mtrl/tasks/a.py", "from mtrl.spaces import Layout"),
            parse("mtrl/spaces/a.py", "import numpy\nfrom mtrl.data import Replay"),
            parse("mtrl/data/a.py", "def f():\n    from mtrl import tasks"),
            parse("mtrl/nn/a.py", "from mtrl.tasks import Task"),
        ]
    )
    assert {(item.path, item.line, item.rule) for item in found} == {
        ("mtrl/tasks/a.py", 1, "cycle"),
        ("mtrl/spaces/a.py", 2, "cycle"),
        ("mtrl/data/a.py", 2, "cycle"),
    }
    assert "mtrl.tasks -> mtrl.spaces -> mtrl.data -> mtrl.tasks" in {item.detail for item in found}


FOLDER_CYCLES = {
    "between modules": {"mtrl/nn/a.py": "from .b import x", "mtrl/nn/b.py": "from .a import y"},
    "deferred": {"mtrl/nn/a.py": "from .b import x", "mtrl/nn/b.py": "def f():\n    from .a import y"},
    "by modules themselves": {"launch/a.py": "from . import b", "launch/b.py": "from . import a"},
    "between packages": {
        "envs/dmc/suite.py": "from ..pool.physics import x",
        "envs/pool/__init__.py": "",
        "envs/pool/physics.py": "",
        "envs/pool/control.py": "from ..dmc import SUITE",
        "envs/dmc/__init__.py": "",
    },
    "with the package itself": {
        "mtrl/nn/__init__.py": "from .torsos import Torso",
        "mtrl/nn/torsos/__init__.py": "",
        "mtrl/nn/torsos/plain.py": "from .. import Layer",
    },
}


@pytest.mark.parametrize("name", FOLDER_CYCLES)
def test_a_cycle_inside_a_folder_is_caught(name: str) -> None:
    found = check([parse(path, text) for path, text in FOLDER_CYCLES[name].items()])
    assert [item.rule for item in found] == ["folder-cycle", "folder-cycle"]


def test_a_cycle_inside_a_folder_names_its_modules() -> None:
    _, found = check(
        [
            parse("mtrl/nn/torsos/a.py", "from .b import x"),
            parse("mtrl/nn/torsos/b.py", "import torch\nfrom .a import y"),
        ]
    )
    expected = "mtrl.nn.torsos.b -> mtrl.nn.torsos.a -> mtrl.nn.torsos.b"
    assert str(found) == f"mtrl/nn/torsos/b.py:2: [folder-cycle] {expected}"


def test_imports_down_a_folder_are_no_cycle() -> None:
    sources = {
        "mtrl/nn/__init__.py": "from .layers import Layer\nfrom .torsos import Torso",
        "mtrl/nn/layers.py": "",
        "mtrl/nn/torsos/__init__.py": "from .plain import Torso",
        "mtrl/nn/torsos/plain.py": "from ..layers import Layer\nfrom mtrl.errors import MtrlError",
    }
    assert check([parse(path, text) for path, text in sources.items()]) == []


def test_a_full_folder_is_caught_but_for_weightings() -> None:
    def folder(name: str, count: int) -> list[Source]:
        return [parse(f"{name}/module_{n}.py", "") for n in range(count)]

    assert check(folder("mtrl/nn", FULLEST_FOLDER) + folder("mtrl/nn/torsos", FULLEST_FOLDER)) == []
    assert check(folder("mtrl/gradients/weightings", FULLEST_FOLDER + 5)) == []
    (found,) = check(folder("mtrl/nn", FULLEST_FOLDER + 1))
    assert str(found) == "mtrl/nn:1: [full-folder] 21 source files; 20 are the most"
