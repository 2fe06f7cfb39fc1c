"""Every number of every setting has bounds, which hold before a run is made."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import math
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtrl import registry
from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.gradients import weighting_named
from mtrl.launch.main import main
from mtrl.pipeline import Config, agent_of
from mtrl.structured import build, defaults, plain

from ..sweeps import sampled

AGENTS = {
    name: kind
    for name in registry.names("agent")
    if (kind := registry.load("agent", name).config_class).__module__.startswith("mtrl.agents.")
}
"""Every agent of ours -> its settings."""
NEGATIVE = {
    "agent.noise.train_mean",
    "agent.flow.mean",
    "agent.exploration.target_entropy",
    "agent.exploration.log_std_low",
    "agent.exploration.log_std_high",
    "agent.sac.target_entropy",
    "agent.sac.gradient_steps",
    "agent.dqn.gradient_steps",
    *(f"agent.gradients.options.{name}" for name in ("initial", "critical", "main", "weak")),
}
"""Settings that may be negative: logarithms, entropies, cosines, and -1 for "as many as were taken"."""


def numbers(kind: type, place: str) -> Iterator[str]:
    """The dotted key of every numeric leaf, those of tuples as their first entry."""
    for name, hint in typing.get_type_hints(kind).items():
        if name not in {field.name for field in dataclasses.fields(kind)}:
            continue
        key = f"{place}.{name}" if place else name
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from numbers(hint, key)
        elif {int, float} & {hint, *typing.get_args(hint)}:
            yield key


def changed(tree: dict[str, Any], key: str, value: float) -> dict[str, Any]:
    tree = copy.deepcopy(tree)
    *sections, name = key.split(".")
    place = tree
    for section in sections:
        place = place[section]
    place[name] = [value] if isinstance(place[name], list) else value
    return tree


def cases() -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    base = defaults(Config)
    yield "run", base, [key for key in numbers(Config, "") if not key.startswith("tasks.")]
    for agent, kind in AGENTS.items():
        yield agent, {**base, "agent": {"name": agent, **defaults(kind)}}, list(numbers(kind, "agent"))
    diffusion = defaults(AGENTS["diffusion"])
    for method in registry.names("weighting"):
        weighting = weighting_named(method)
        surgery = {**diffusion["gradients"], "method": method, "options": defaults(weighting.config_class)}
        tree = {**base, "agent": {"name": "diffusion", **diffusion, "gradients": surgery}}
        yield method, tree, list(numbers(weighting.config_class, "agent.gradients.options"))


CASES = {name: (tree, keys) for name, tree, keys in cases()}


def test_every_agent_is_walked() -> None:
    assert AGENTS.keys() >= {"diffusion", "grpo", "ppo", "rllib", "sac", "sb3", "world_model"}
    assert sum(len(keys) for _, keys in CASES.values()) > 200


OUT_OF_BOUNDS = [math.nan, math.inf, -math.inf, 2**63, 10**400, -1]


@pytest.mark.parametrize(("name", "value"), sampled(itertools.product(CASES, OUT_OF_BOUNDS), share=5))
def test_numbers_out_of_bounds_are_refused_by_their_full_key(name: str, value: float) -> None:
    tree, keys = CASES[name]
    for key in keys:
        if value == -1 and key in NEGATIVE:
            with contextlib.suppress(ConfigError):
                agent_of(build(Config, changed(tree, key, value)))
            continue
        with pytest.raises(ConfigError) as refusal:
            agent_of(build(Config, changed(tree, key, value)))
        assert key in str(refusal.value), str(refusal.value)


@pytest.mark.parametrize(
    "word",
    [
        "seed=9223372036854775808",
        "seed=4294967296",
        "evaluation.seed=-1",
        "agent.replay_ratio=inf",
        "agent.exploration.target_entropy=nan",
        "gradients.every=1e400",
        "tasks.options.atari.sticky=nan",
    ],
)
def test_nothing_is_made_of_a_refused_number(
    word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["agent=sac", "tasks=atari/Pong", f"output={tmp_path}", "stages=[train]", word]
    assert main(["train", *words]) == 2
    assert word.partition("=")[0].removeprefix("gradients.") in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_largest_seed_is_taken_and_settings_without_annotations_are_checked() -> None:
    assert build(Config, {"seed": 2**32 - 1}).seed == 2**32 - 1
    with pytest.raises(OutOfRangeError, match=r"expected -9223372036854775808 to 9223372036854775807"):
        build(Config, {"distillation": {"settings": {"a": [1, {"b": 2**63}]}}})
    with pytest.raises(OutOfRangeError, match=r"^distillation\.settings\.a\[0\]=nan"):
        build(Config, {"distillation": {"settings": {"a": [math.nan]}}})


def test_a_section_names_the_whole_key_of_a_rule_between_fields() -> None:
    base = plain(defaults(Config))
    for key, value in (("noise.minimum", 30.0), ("network.noise_features", 3)):
        place, name = key.split(".")
        settings = {"name": "diffusion", place: {name: value}}
        with pytest.raises(OutOfRangeError, match=rf"^agent\.{key}={value} is out of range"):
            agent_of(build(Config, {**base, "agent": settings}))
    torso = {"output": "composed", "kind": "mlp"}
    config = build(Config, {**base, "agent": {"name": "sac", "network": {"torso": torso}}})
    with pytest.raises(ConfigError, match=r"^agent\.network\.torso: output=composed"):
        agent_of(config)
