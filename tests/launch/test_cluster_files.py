"""Files and pages by which mtrl comes to a cluster: they fit the tree, the lock and the command line."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from mtrl.launch import train
from mtrl.launch.compose import compose
from mtrl.launch.main import build_parser, build_verb
from mtrl.launch.submit import checked

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
COMMANDS = sorted(
    {*re.findall(r"^(mtrl .+)$", PAGE, re.MULTILINE), *re.findall(r"\| `(mtrl train .+?)` \|", PAGE)}
)
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / "deploy" / name).read_text(encoding="utf-8"))


def pinned(name: str) -> str:
    lock = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^{name}==(\S+)$", lock, re.MULTILINE)
    return str(found)


def test_the_cluster_s_file_is_one_by_ray_s_own_schema() -> None:
    validate_config(prepare_config(read("cluster.yaml")))
    with pytest.raises(ValidationError, match="max_wrkers"):
        validate_config(prepare_config({**read("cluster.yaml"), "max_wrkers": 3}))


def test_the_kubernetes_job_trains_what_there_is_and_keeps_it() -> None:
    spec = read("rayjob.yaml")["spec"]
    program, verb, *words = shlex.split(spec["entrypoint"])
    assert program == "mtrl"
    assert checked([verb, *words]) == [verb, *words]
    config = compose(build_verb("train", train).parse_intermixed_args(words).overrides)
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == pinned("ray")
    assert cluster["authOptions"]["mode"] == "token"
    (group,) = cluster["workerGroupSpecs"]
    cpus = group["replicas"] * int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert config.runtime.actors <= cpus, "actors have room on the workers"
    for pod in (cluster["headGroupSpec"]["template"]["spec"], group["template"]["spec"]):
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert container["image"] == read("cluster.yaml")["docker"]["image"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert config.output.startswith(mounts["runs"] + "/")
        assert set(mounts) == {volume["name"] for volume in pod["volumes"]}


def test_the_image_holds_the_tree_the_lock_and_no_root() -> None:
    copied = {
        word for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    }
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    folders = set(re.findall(r'^"mtrl[.\w]*" = "(\w+)"$', project, re.MULTILINE))
    assert all((ROOT / name).exists() for name in copied)
    assert copied == folders | {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    assert "pip install --no-cache-dir -r constraints.txt" in DOCKERFILE
    assert re.findall(r"^FROM python:3\.11\.\d+-slim", DOCKERFILE, re.MULTILINE)
    assert DOCKERFILE.rindex("USER 1000") > DOCKERFILE.rindex("RUN "), "nothing runs as root"
    assert "libosmesa6" in DOCKERFILE and "MUJOCO_GL=osmesa" in DOCKERFILE


@pytest.mark.parametrize("text", COMMANDS)
def test_a_command_of_the_page_composes(text: str) -> None:
    _, verb, *words = shlex.split(text, comments=True)
    own, inner = words, []
    if "--" in words:
        own, inner = words[: words.index("--")], words[words.index("--") + 1 :]
    assert verb in build_parser().format_help()
    module = importlib.import_module(f"mtrl.launch.{verb}")
    parsed = build_verb(verb, module).parse_intermixed_args(own)
    if inner:
        checked(inner)
    if verb == "train":
        compose(parsed.overrides)
    if verb == "tune":
        module.compose_space(parsed)


def test_the_page_shows_every_way_to_submit() -> None:
    assert {"--detach", "--list", "--follow", "--stop"} <= set(" ".join(COMMANDS).split())
