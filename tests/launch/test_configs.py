"""The YAML mirrors the dataclasses: every key is a field, every default agrees, every group composes."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtrl import registry
from mtrl.deployment import RobotConfig
from mtrl.gradients import METHODS, SurgeryConfig
from mtrl.launch.compose import CONFIG_ROOT, GROUPS, SECTIONS, compose, members
from mtrl.nn import TorsoConfig
from mtrl.pipeline.config import Config, TrackingConfig, agent_of
from mtrl.rollout import RuntimeConfig
from mtrl.structured import build, known_keys, plain


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def test_the_primary_config_is_the_dataclass_with_its_defaults() -> None:
    written = read(CONFIG_ROOT / "config.yaml")
    defaults = written.pop("defaults")
    chosen = {key for entry in defaults if isinstance(entry, dict) for key in entry}
    assert chosen == set(GROUPS)
    expected = plain(Config())
    for group in ("tasks", "agent", "runtime", "tracking", "robot"):
        expected.pop(group)
    assert written == expected


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("runtime/local", RuntimeConfig),
        ("tracking/tensorboard", TrackingConfig),
        ("robot/sim", RobotConfig),
    ],
)
def test_default_members_spell_out_every_default(file: str, kind: type) -> None:
    assert read(CONFIG_ROOT / f"{file}.yaml") == plain(kind())


def test_every_agent_file_spells_out_its_agents_defaults() -> None:
    for name in members("agent"):
        written = read(CONFIG_ROOT / "agent" / f"{name}.yaml")
        factory = registry.load("agent", written.pop("name"))
        assert written == plain(factory.config_class()), name


def test_there_is_a_gradients_file_for_every_method_with_its_defaults() -> None:
    assert set(members("gradients")) == {*METHODS, "samo"}
    for name in members("gradients"):
        path = CONFIG_ROOT / "gradients" / f"{name}.yaml"
        assert path.read_text().startswith(f"# @package {SECTIONS['gradients']}\n# "), name
        method = "sum" if name == "samo" else name
        options = plain(METHODS[method].config_class())
        expected = plain(SurgeryConfig(method, options, perturbation=0.003 if name == "samo" else 0.0))
        assert read(path) == expected, name


def test_every_torso_file_fills_the_torso() -> None:
    for name in members("torso"):
        path = CONFIG_ROOT / "torso" / f"{name}.yaml"
        assert path.read_text().startswith(f"# @package {SECTIONS['torso']}\n"), name
        build(TorsoConfig, read(path))


def test_every_experiment_and_set_composes_into_valid_settings() -> None:
    for name in members("experiment"):
        config = compose([f"experiment={name}"])
        agent_of(config)
        assert registry.task_set(list(config.tasks.names), config.tasks.options)
    for name in members("tasks"):
        assert len(registry.task_set(list(compose([f"tasks={name}"]).tasks.names)))


def test_every_field_has_a_docstring() -> None:
    import ast
    import inspect

    kinds = [Config, RuntimeConfig, RobotConfig, TrackingConfig, SurgeryConfig, *nested(Config)]
    for kind in {*kinds, *(registry.load("agent", name).config_class for name in registry.names("agent"))}:
        body = ast.parse(inspect.getsource(kind)).body[0].body
        for place, statement in enumerate(body):
            if isinstance(statement, ast.AnnAssign):
                hint = ast.unparse(statement.annotation)
                follower = body[place + 1] if place + 1 < len(body) else None
                documented = isinstance(follower, ast.Expr) and isinstance(follower.value, ast.Constant)
                # A nested section is documented by its own class.
                assert documented or hint.endswith("Config"), f"{kind.__name__}.{statement.target.id}"


def nested(kind: type) -> list[type]:
    import typing

    found = []
    for hint in typing.get_type_hints(kind).values():
        if dataclasses.is_dataclass(hint):
            found += [hint, *nested(hint)]
    return found


def test_a_configuration_survives_its_own_file() -> None:
    config = compose(["experiment=quickstart", "seed=7"])
    assert build(Config, plain(config)) == config


def test_known_keys_reach_into_sections() -> None:
    assert {"seed", "training.updates", "distillation.network.width"} <= set(known_keys(Config))
