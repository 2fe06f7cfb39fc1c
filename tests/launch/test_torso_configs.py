"""The torso files select a torso at its defaults, and compose."""

from __future__ import annotations

import pytest
import yaml

from mtrl import registry
from mtrl.launch.compose import CONFIG_ROOT, compose, members
from mtrl.nn import TorsoConfig
from mtrl.pipeline import agent_of

from ..sweeps import sampled


def test_there_is_a_file_for_every_kind() -> None:
    assert set(members("torso")) == set(registry.names("torso"))


@pytest.mark.parametrize("kind", sampled(registry.names("torso"), share=4))
def test_a_file_is_the_torso_of_its_kind_at_its_defaults(kind: str) -> None:
    written = yaml.safe_load((CONFIG_ROOT / "torso" / f"{kind}.yaml").read_text())
    assert written["kind"] == kind
    settings = agent_of(compose(["agent=sac", f"torso={kind}"]))[2]
    assert settings.network.torso == TorsoConfig(kind=kind)


def test_a_file_becomes_the_agents_torso_and_single_keys_change_it() -> None:
    config = compose(["agent=sac", "torso=moore", "torso.moore.experts=6"])
    settings = agent_of(config)[2]
    assert (settings.network.torso.kind, settings.network.torso.moore.experts) == ("moore", 6)
    assert settings.network.torso.width == 400
