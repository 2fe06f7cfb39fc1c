"""Overrides: what they set, and what is said when they are wrong."""

import dataclasses
import types
from pathlib import Path

import pytest

from mtrl import registry
from mtrl.errors import ConfigError, MtrlError, OutOfRangeError, UnknownNameError, UnsupportedError
from mtrl.launch.compose import compose
from mtrl.pipeline import agent_of, task_set_of
from mtrl.structured import plain


def test_overrides_change_what_they_name() -> None:
    config = compose(["seed=5", "agent.network.width=64", "training.updates=7", "runtime=ray"])
    assert (config.seed, config.training.updates, config.runtime.kind) == (5, 7, "ray")
    assert agent_of(config)[2].network.width == 64


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("mt10", ("mt10",)),
        ("point/obstacle", ("point/obstacle",)),
        ("[point/obstacle,metaworld/reach-v3]", ("point/obstacle", "metaworld/reach-v3")),
        ("point/obstacle,mt10", ("point/obstacle", "mt10")),
    ],
)
def test_tasks_are_a_file_a_set_a_task_or_a_list(value: str, names: tuple[str, ...]) -> None:
    assert compose([f"tasks={value}"]).tasks.names == names


def test_short_keys_mean_what_the_command_is_about() -> None:
    assert compose(["episodes=3"], command="collect").demonstrations.episodes == 3
    assert compose(["episodes=3"], command="evaluate").evaluation.episodes == 3


def test_an_experiment_sets_and_a_later_word_overrides_it() -> None:
    assert compose(["experiment=quickstart"]).demonstrations.episodes == 40
    assert compose(["experiment=quickstart", "demonstrations.episodes=2"]).demonstrations.episodes == 2


def test_own_groups_come_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 99\n")
    assert compose(["experiment=mine"], config_dir=tmp_path).seed == 99


def test_an_agent_of_a_plug_in_needs_no_file_of_ours() -> None:
    @dataclasses.dataclass(frozen=True)
    class Settings:
        rank: int = 4

    plugged = types.SimpleNamespace(
        name="plugged", config_class=Settings, metrics=(),
        **dict.fromkeys(("needs", "extras", "build", "policy"), lambda *_: None),
    )  # fmt: skip
    registry.register("agent", "plugged", plugged)
    try:
        config = compose(["agent=plugged", "agent.rank=7"])
        assert dict(config.agent) == {"name": "plugged", "rank": 7}
        assert agent_of(config)[2] == Settings(rank=7)
        with pytest.raises(UnknownNameError, match=r"did you mean 'agent\.rank'"):
            compose(["agent=plugged", "agent.rnak=7"])
    finally:
        registry.unregister("agent", "plugged")


def test_a_users_folders_do_not_replace_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "config.yaml").write_text("seed: 12345\n")
    monkeypatch.chdir(tmp_path)
    assert compose([]).seed == 1


@pytest.mark.parametrize(
    ("word", "kind", "message"),
    [
        ("sed=3", UnknownNameError, "did you mean 'seed'"),
        ("agent.netwrk.width=3", UnknownNameError, "agent.network.width"),
        ("agent=difusion", UnknownNameError, "did you mean 'diffusion'"),
        ("experiment=quikstart", UnknownNameError, "did you mean 'quickstart'"),
        ("runtime=rya", UnknownNameError, "did you mean 'ray'"),
        ("training.updates=many", ConfigError, "expected a whole number"),
        ("training.updates=0", OutOfRangeError, "training.updates=0 is out of range; expected at least 1"),
        ("demonstrations.noise.low=0.9", OutOfRangeError, "noise.low=0.9"),
        ("stages=[collect,trian]", UnknownNameError, "did you mean 'train'"),
        ("seed", ConfigError, "key=value"),
        ("seed=-1", ConfigError, "expected 0 to 4294967295"),
    ],
)
def test_wrong_words_are_answered(word: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message.replace("[", r"\[")):
        compose([word])


@pytest.mark.parametrize(
    ("tasks", "near"),
    [("mt11", "mt10"), ("metaworld/reech-v3", "metaworld/reach-v3"), ("metwrld/reach-v3", "metaworld")],
)
def test_unknown_tasks_are_answered_with_the_nearest(tasks: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=near):
        task_set_of(compose([f"tasks={tasks}"]))


@pytest.mark.parametrize("word", ["stages={a: 1}", "distillation=[1]", "tasks.options=[1]"])
def test_a_list_for_a_section_and_a_section_for_a_list_name_their_key(word: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{word.partition('=')[0]}=.* has the wrong type"):
        compose([word])


def test_a_wrong_agent_value_names_its_key() -> None:
    with pytest.raises(MtrlError, match="width=0 is out of range; expected 8 to 4096"):
        agent_of(compose(["agent.network.width=0"]))


@pytest.mark.parametrize(
    "words", [["runtime.backends={atari: native}"], ["runtime.backends.atari=native", "runtime=local"]]
)
def test_a_mapping_takes_names_of_suites_as_keys(words: list[str]) -> None:
    assert compose(words).runtime.backends == {"atari": "native"}


def test_backends_that_tasks_do_not_have_are_refused_with_the_tasks() -> None:
    with pytest.raises(UnsupportedError, match="has no backend 'warp'; it has python, envpool"):
        task_set_of(compose(["tasks=metaworld/reach-v3", "runtime.backends.metaworld=warp"]))
    with pytest.raises(UnknownNameError, match="did you mean 'metaworld'"):
        task_set_of(compose(["tasks=metaworld/reach-v3", "runtime.backends.metawrld=envpool"]))


def test_a_word_stands_before_an_old_key_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    mine = "# @package _global_\ndistillation:\n  average_decay: 0.9\nagent:\n  average_decay: 0.8\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(mine)
    words = ["experiment=mine", "distillation.ema_decay=0.5", "agent.ema_decay=0.4"]
    config = compose(words, config_dir=tmp_path)
    assert (config.distillation.ema_decay, agent_of(config)[2].ema_decay) == (0.5, 0.4)
    assert "average_decay" not in config.agent  # the run's config.yaml names it once
    twice = ["distillation.average_decay=0.5", "distillation.ema_decay=0.3"]
    assert compose(twice).distillation.ema_decay == 0.3
    assert compose(twice[::-1]).distillation.ema_decay == 0.5


def test_a_word_stands_before_an_old_key_of_a_run() -> None:
    base = plain(compose([]))
    base["distillation"]["average_decay"] = base["distillation"].pop("ema_decay")
    for key in ("ema_decay", "average_decay"):
        changed = compose([f"distillation.{key}=0.5"], command="distill", base=base)
        assert changed.distillation.ema_decay == 0.5


def test_keys_of_the_agent_that_an_experiment_chooses_are_known(tmp_path: Path) -> None:
    config = compose(["experiment=sac_mixed", "agent.batch_size=32"])
    assert (config.agent["name"], config.agent["batch_size"]) == ("sac", 32)
    with pytest.raises(UnknownNameError, match=r"did you mean 'agent\.batch_size'"):
        compose(["agent.batch_sise=32", "experiment=sac_mixed"])
    said = r"agent 'sac' has no setting agent\.sampler_steps; agents that do: diffusion"
    with pytest.raises(UnsupportedError, match=said):
        compose(["experiment=sac_mixed", "agent.sampler_steps=3"])
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /agent: sac\n"
    )
    assert compose(["experiment=mine", "agent.batch_size=8"], config_dir=tmp_path).agent["batch_size"] == 8


@pytest.mark.parametrize("place", ["gradients", "agent.gradients"])
def test_gradients_fill_their_section_and_single_keys_change_it(place: str) -> None:
    words = ["agent=sac", "gradients=cagrad", f"{place}.every=4", f"{place}.options.radius=0.9"]
    for order in (words, words[::-1]):
        settings = agent_of(compose(order))[2].gradients
        assert (settings.method, settings.every, settings.part) == ("cagrad", 4, "critic")
        assert settings.options == {"radius": 0.9, "rescale": False}


def test_gradients_replace_what_an_experiment_says(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /agent: sac\n  - override /gradients: cagrad\n"
        "agent: {gradients: {options: {radius: 0.9}, every: 3}}\n"
    )
    kept = agent_of(compose(["experiment=mine"], config_dir=tmp_path))[2].gradients
    assert (kept.method, kept.options["radius"], kept.every) == ("cagrad", 0.9, 3)
    for words in (["experiment=mine", "gradients=pcgrad"], ["gradients=pcgrad", "experiment=mine"]):
        changed = agent_of(compose(words, config_dir=tmp_path))[2].gradients
        assert (changed.method, changed.options, changed.every) == ("pcgrad", {"mean": False}, 1)


def test_own_gradients_may_build_on_ours(tmp_path: Path) -> None:
    (tmp_path / "gradients").mkdir()
    (tmp_path / "gradients" / "mine.yaml").write_text(
        "# @package agent.gradients\ndefaults: [cagrad, _self_]\noptions: {radius: 0.1}\n"
    )
    settings = agent_of(compose(["agent=sac", "gradients=mine"], config_dir=tmp_path))[2].gradients
    assert (settings.method, settings.options) == ("cagrad", {"radius": 0.1, "rescale": False})


def test_a_file_that_forgets_its_section_is_told(tmp_path: Path) -> None:
    (tmp_path / "gradients").mkdir()
    (tmp_path / "gradients" / "mine.yaml").write_text("method: pcgrad\n")
    with pytest.raises(ConfigError, match=r"first line of its file must be '# @package agent\.gradients'"):
        compose(["agent=sac", "gradients=mine"], config_dir=tmp_path)


def test_gradients_are_refused_where_the_agent_has_none_and_where_they_are_wrong() -> None:
    @dataclasses.dataclass(frozen=True)
    class Settings:
        rank: int = 4

    plugged = types.SimpleNamespace(
        name="plugged", config_class=Settings, metrics=(),
        **dict.fromkeys(("needs", "extras", "build", "policy"), lambda *_: None),
    )  # fmt: skip
    registry.register("agent", "plugged", plugged)
    try:
        with pytest.raises(
            UnsupportedError,
            match=r"gradients=pcgrad: agent 'plugged' has no settings agent\.gradients.*that do: .*sac",
        ):
            compose(["agent=plugged", "gradients=pcgrad"])
    finally:
        registry.unregister("agent", "plugged")
    with pytest.raises(UnknownNameError, match="unknown gradients 'pcgard'; did you mean 'pcgrad'"):
        compose(["gradients=pcgard"])
    with pytest.raises(UnknownNameError, match=r"did you mean 'agent\.gradients\.every'"):
        compose(["gradients.evry=2"])
    with pytest.raises(UnknownNameError, match="setting of gradient method 'cagrad' 'radios'"):
        agent_of(compose(["gradients=cagrad", "gradients.options.radios=1"]))
    with pytest.raises(ConfigError, match=r"fills agent\.gradients already; set single keys"):
        compose(["gradients=cagrad", "agent.gradients={every: 2}"])
