"""Names and paths on a command line mean themselves, and a printed command means what it was printed for."""

import argparse
import shlex
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtrl.errors import ConfigError
from mtrl.launch import train
from mtrl.launch.compose import compose
from mtrl.launch.words import set_words, split_word
from mtrl.pipeline import resume_command
from mtrl.run_directory import RunDirectory
from mtrl.structured import plain

NASTY = (
    "nänö a=b c,d 12 -1 null ~ ??? true 1e3 ${seed} \\${x} \\\\${x} $HOME {a:1} [x] a'b a\"b a\\ #! *;|&`("
)
TEXTS = st.one_of(
    st.sampled_from(["", " ", "\\", "/a b/c,d", "runs/a=b", *NASTY.split(" ")]),
    st.text(st.sampled_from(string.punctuation + " a1äß語"), max_size=12),
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=12),
)
BASE = plain(compose(["tasks=debug"]))


def test_names_and_paths_of_a_new_run_are_literal() -> None:
    words = {"name": "nänö", "output": "runs/a=b", "data": "/a b/c,d", "teacher": "/${seed}\\${x}'\"{[#"}
    config = compose([f"{key}={value}" for key, value in words.items()])
    assert {key: getattr(config, key) for key in words} == words
    assert compose(["name=12"]).name == "12"
    assert compose(["tracking.wandb.project=007"]).tracking.wandb.project == "007"


@given(TEXTS)
def test_commands_on_a_finished_run_take_text_alike(text: str) -> None:
    base = {**BASE, "tracking": {**BASE["tracking"], "wandb": {**BASE["tracking"]["wandb"], "group": text}}}
    changed = compose([f"tracking.wandb.entity={text}"], command="distill", base=base).tracking.wandb
    assert (changed.entity, changed.group) == (text, text)


@given(TEXTS)
@settings(max_examples=25)
def test_hydra_hands_text_through(text: str) -> None:
    # one that OmegaConf reads as "missing" is answered so
    if text == "???":
        with pytest.raises(ConfigError, match="Missing mandatory value: tracking"):
            compose([f"tracking.wandb.entity={text}"])
    else:
        assert compose([f"tracking.wandb.entity={text}"]).tracking.wandb.entity == text


@pytest.mark.parametrize(
    "name", ["a,b", "a=b", "#a", "it's", "ümlaut", '"q"', "a b", "a\\", "${seed}", "a\\'"]
)
def test_a_folder_of_groups_may_have_any_name(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "ü,=.yaml").write_text("# @package _global_\nseed: 99\n")
    assert compose(["experiment=ü,="], config_dir=folder).seed == 99


@given(st.lists(TEXTS, min_size=2, max_size=2), TEXTS.filter(lambda text: not text.startswith("-")))
def test_a_printed_command_is_pasted_into_a_shell(texts: list[str], folder: str) -> None:
    argv = ["mtrl", "train", f"name={texts[0]}", f"data={texts[1]}", "--overwrite", f"--config-dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", argv)
        program, verb, *words = shlex.split(resume_command({"training.minutes": "4"}))
    parser = argparse.ArgumentParser(allow_abbrev=False)
    train.add_arguments(parser)
    parsed = parser.parse_intermixed_args(words)
    assert (program, verb, parsed.resume, parsed.overwrite) == ("mtrl", "train", "auto", False)
    assert parsed.config_dir == Path(folder)
    assert _values(parsed.overrides) == {"name": texts[0], "data": texts[1], "training": {"minutes": 4}}


@given(TEXTS)
def test_a_recorded_name_is_read_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    place = tmp_path_factory.mktemp("run") / "run"
    run = RunDirectory.create(place, overwrite=False, resume=False, config={"name": text})
    assert run.read_config()["name"] == text


@pytest.mark.parametrize("command", ["train", "distill"])
def test_other_values_have_one_grammar(command: str) -> None:
    base = None if command == "train" else BASE
    words = ["distillation.settings={a: [1, 'x y'], b: null}", "distillation.learning_rate=1e-4"]
    found = compose(words, command=command, base=base).distillation
    assert (found.settings, found.learning_rate) == ({"a": [1, "x y"], "b": None}, 1e-4)
    with pytest.raises(ConfigError, match=r"a list is written distillation\.updates=\[1,2\]"):
        compose(["distillation.updates=1,2"], command=command, base=base)
    with pytest.raises(ConfigError, match="text with other characters stands in quotes"):
        compose(["distillation.settings={a"], command=command, base=base)


@pytest.mark.parametrize("sign", ["\udcff", "\n", "\x1b", "\x85", "\u2028"])
def test_what_a_line_cannot_hold_is_refused(sign: str) -> None:
    with pytest.raises(ConfigError, match="holds a control character, or a byte that is not UTF-8"):
        compose([f"name=a{sign}b"])


def _values(words: list[str]) -> dict[str, object]:
    tree: dict[str, object] = {}
    set_words(tree, [split_word(word) for word in words], ["name", "data"])
    return tree
