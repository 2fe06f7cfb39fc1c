"""Defaults stand in the dataclasses, the YAML holds differences, and every group composes."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtrl import registry
from mtrl.deployment import RobotConfig
from mtrl.gradients import SurgeryConfig, weighting_named
from mtrl.launch.compose import CONFIG_ROOT, GROUPS, SECTIONS, compose, members
from mtrl.nn import TorsoConfig
from mtrl.pipeline import Config, TrackingConfig, agent_of
from mtrl.rollout import RuntimeConfig
from mtrl.structured import build, known_keys, plain

from ..sweeps import sampled


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def test_the_primary_config_chooses_groups_and_nothing_else() -> None:
    written = read(CONFIG_ROOT / "config.yaml")
    chosen = {key for entry in written.pop("defaults") if isinstance(entry, dict) for key in entry}
    assert chosen == set(GROUPS)
    assert not written


def test_what_no_word_sets_has_the_defaults_of_the_dataclasses() -> None:
    config = compose([])
    assert config == dataclasses.replace(Config(), agent=config.agent)
    for name in members("agent"):
        name, factory, settings = agent_of(compose([f"agent={name}"]))
        assert settings == factory.config_class(), name
        assert plain(settings) == {
            key: value for key, value in compose([f"agent={name}"]).agent.items() if key != "name"
        }


def test_files_hold_only_what_differs_from_the_defaults() -> None:
    sections = {"runtime": RuntimeConfig(), "tracking": TrackingConfig(), "robot": RobotConfig()}
    sections |= {"gradients": SurgeryConfig(), "torso": TorsoConfig()}
    for group, default in sections.items():
        for name in members(group):
            written = read(CONFIG_ROOT / group / f"{name}.yaml")
            # one key names the member; what stands beside it differs
            same = [key for key, value in written.items() if plain(default)[key] == value]
            assert len(same) <= 1, (group, name, same)
    for name in members("agent"):
        assert set(read(CONFIG_ROOT / "agent" / f"{name}.yaml")) == {"name"}


def test_there_is_a_gradients_file_for_every_method() -> None:
    assert set(members("gradients")) == {*registry.names("weighting"), "samo"}


@pytest.mark.parametrize(("group", "then"), [("gradients", "# "), ("torso", "")])
def test_every_file_of_a_section_says_which_it_fills(group: str, then: str) -> None:
    for name in members(group):
        text = (CONFIG_ROOT / group / f"{name}.yaml").read_text()
        assert text.startswith(f"# @package {SECTIONS[group]}\n{then}"), name


@pytest.mark.parametrize("name", sampled(members("gradients"), share=4))
def test_a_gradients_file_has_the_defaults_of_its_method(name: str) -> None:
    method = "sum" if name == "samo" else name
    options = plain(weighting_named(method).config_class())
    expected = SurgeryConfig(method, options, perturbation=0.003 if name == "samo" else 0.0)
    assert agent_of(compose(["agent=sac", f"gradients={name}"]))[2].gradients == expected


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
