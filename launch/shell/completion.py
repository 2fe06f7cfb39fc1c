"""`mtrl completion`: the code by which bash or zsh completes commands, options, settings and their values."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import argcomplete
from argcomplete.shell_integration import shellcode

from mtrl import registry
from mtrl.structured import known_keys

EXAMPLES = (
    'eval "$(mtrl completion bash)"                   in this shell; for every one, a line of ~/.bashrc',
    'eval "$(mtrl completion zsh)"                    a line of ~/.zshrc',
    "mtrl completion bash > ~/.mtrl-completion.bash   for a start of the shell without Python",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell that reads the code")


def run(arguments: argparse.Namespace) -> int:
    """Prints the code; it asks `mtrl` itself at every Tab, so that installed plug-ins are completed too."""
    print(shellcode(["mtrl"], True, arguments.shell))
    return 0


def complete(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Answers the shell and ends the process; `words` are those before the cursor, the command first."""
    for verb in _verbs(parser):
        for action in verb._actions:
            if action.dest == "overrides":
                action.completer = lambda prefix, **_: list(settings(words, prefix))  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options="long")


def _verbs(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def settings(words: Sequence[str], prefix: str) -> Iterator[str]:
    """The settings that begin with `prefix`: keys with their equals sign, and behind it the values."""
    # imported here: to complete commands and options takes none of it
    from ..compose import GROUPS, SHORT_KEYS
    from ..words import value_at

    command = words[0] if words else ""
    key, equals, value = prefix.partition("=")
    if equals:
        yield from (f"{key}={found}" for found in values(key, value) if found.startswith(value))
        return
    keys = [*GROUPS, *SHORT_KEYS.get(command, {})]
    if "." in key:
        from mtrl.pipeline import Config

        given = dict(word.split("=", 1) for word in words if "=" in word)
        name = given.get("agent") or value_at({"agent": Config().agent}, "agent.name")
        agent = registry.load("agent", name).config_class if name in registry.names("agent") else None
        keys = [*known_keys(Config), *(known_keys(agent, "agent") if agent else ())]
    yield from (f"{found}=" for found in keys if found.startswith(key))
    if "." not in key:
        yield from sorted({f"{found.split('.')[0]}." for found in _sections() if found.startswith(key)})


def _sections() -> list[str]:
    from mtrl.pipeline import Config

    return [key for key in known_keys(Config) if "." in key]


def values(key: str, value: str) -> list[str]:
    """The values of a group, such as agents or tasks; none of other settings."""
    from ..compose import GROUPS, PLUGINS, members

    if key in ("tasks", "task"):
        # a list is completed at its last name
        head = value[: max(value.rfind(mark) for mark in "[,") + 1]
        suites = [f"{name}/" for name in registry.names("suite")]
        begun = value.removeprefix(head)
        names = registry.suite(begun.split("/")[0]).names() if begun.split("/")[0] + "/" in suites else suites
        return [head + name for name in [*names, *([] if "/" in begun else registry.named_sets())]]
    if key not in GROUPS:
        return []
    return sorted({*members(key), *(registry.names(PLUGINS[key][0]) if key in PLUGINS else ())})
