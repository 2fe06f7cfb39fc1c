"""The rules, one function each: a source file in, the lines that break it out."""

import ast
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from posixpath import commonpath

from .source import PACKAGES, Source, component_of

LONGEST_FILE = 400
LONGEST_FUNCTION = 70
FULLEST_FOLDER = 20
UNLIMITED_FOLDERS = {"mtrl/gradients/weightings"}
"""One method a file, however many there are."""


@dataclass(frozen=True)
class Violation:
    """A line that breaks a rule."""

    path: str
    line: int
    rule: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: [{self.rule}] {self.detail}"


Rule = Callable[[Source], Iterator[tuple[int, str]]]

_REACH: dict[str, tuple[str, ...]] = {
    "mtrl.envs": ("mtrl.envs",),
    "mtrl.agents": ("mtrl.agents",),
    "mtrl.configs": ("mtrl.configs",),
    "mtrl.launch": ("mtrl.launch", "mtrl.configs"),
}
"""Component outside the library -> the components outside the library that it may import."""

_UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
_UNSAFE_BUILTINS = {"eval", "exec"}
_UNSAFE_NAMES = {"torch.load", "os.system", "os.popen"}
_UNSAFE_FLAGS = {"shell", "allow_pickle"}


def one_way(source: Source) -> Iterator[tuple[int, str]]:
    """mtrl <- envs, agents <- launch; launch reaches suites and agents through the registry only."""
    allowed = _REACH.get(source.component, ())
    for item in source.imports:
        target = component_of(item.target)
        if target in PACKAGES.values() and target not in allowed:
            launch = source.component == "mtrl.launch"
            hint = "reach it through mtrl.registry" if launch else "imports go one way"
            yield item.line, f"{source.component} imports {target}: {hint}"


def bare_names(source: Source) -> Iterator[tuple[int, str]]:
    """`import envs` finds whatever folder of that name comes first, often a user's."""
    for item in source.imports:
        first = item.target.split(".")[0]
        if first in PACKAGES and not item.relative:
            yield item.line, f"imports {first}: write {PACKAGES[first]}"


def import_style(source: Source) -> Iterator[tuple[int, str]]:
    """Relative inside a component, absolute between components."""
    for item in source.imports:
        if item.dynamic or not item.target.startswith("mtrl."):
            continue
        component = source.component
        inside = component_of(item.target) == component and component != "mtrl"
        if inside and not item.relative:
            yield item.line, f"imports {item.target} absolutely from within {component}: write it relative"
        if not inside and item.relative:
            yield item.line, f"imports {item.target} relatively from {component}: write it absolute"


def ray_in_one_package(source: Source) -> Iterator[tuple[int, str]]:
    """Code that does not import mtrl.distributed must not need Ray; RLlib's baseline is Ray."""
    if source.component == "mtrl.distributed" or source.path.startswith("agents/rllib/"):
        return
    for item in source.imports:
        if item.target.split(".")[0] == "ray" and not item.relative:
            yield item.line, f"{source.component} imports ray: only mtrl.distributed may"


def no_utils(source: Source) -> Iterator[tuple[int, str]]:
    """A package named after no idea collects everything, and imports run in circles through it."""
    named = [
        part for part in source.path.removesuffix(".py").split("/") if part.strip("_") in ("utils", "util")
    ]
    if named:
        yield 1, f"a module or folder is named {named[0]}: name it after what it does"


def launch_file_names(source: Source) -> Iterator[tuple[int, str]]:
    """A script in launch/ puts that folder first on sys.path: such a file would stand in for the library."""
    parts = source.path.removesuffix(".py").split("/")
    if parts[0] == "launch" and set(parts[1:]) & {"ray", "hydra", "wandb"}:
        yield 1, "a file in launch/ bears the name of a library that it would shadow"


def no_swallowed_errors(source: Source) -> Iterator[tuple[int, str]]:
    """No bare except, and no handler of every exception that does nothing."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        if node.type is None:
            yield node.lineno, "bare `except:`; name the exceptions"
        elif _catches_all(node.type) and all(_does_nothing(statement) for statement in node.body):
            yield node.lineno, "every exception is caught and forgotten"


def _catches_all(caught: ast.expr) -> bool:
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(isinstance(name, ast.Name) and name.id in ("Exception", "BaseException") for name in names)


def _does_nothing(statement: ast.stmt) -> bool:
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, ast.Pass | ast.Continue)


def nothing_runs_data(source: Source) -> Iterator[tuple[int, str]]:
    """Files and configuration are data: nothing unpickles, evaluates or hands them to a shell."""
    for item in source.imports:
        if item.target.split(".")[0] in _UNSAFE_MODULES and not item.relative:
            yield item.line, f"imports {item.target.split('.')[0]}, which runs what it reads"
        if item.target in _UNSAFE_NAMES:
            yield item.line, f"imports {item.target}"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and f"{_dotted(node.value)}.{node.attr}" in _UNSAFE_NAMES:
            yield node.lineno, f"uses {_dotted(node.value)}.{node.attr}"
        if isinstance(node, ast.Name) and node.id in _UNSAFE_BUILTINS:
            yield node.lineno, f"uses {node.id}"
        if isinstance(node, ast.keyword) and node.arg in _UNSAFE_FLAGS and not _is_false(node.value):
            yield node.value.lineno, f"passes {node.arg}=True, or a value that may be"


def _dotted(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def short_files(source: Source) -> Iterator[tuple[int, str]]:
    """A file is one idea."""
    lines = len(source.text.splitlines())
    if lines > LONGEST_FILE:
        yield lines, f"{lines} lines; {LONGEST_FILE} are the most"


def short_functions(source: Source) -> Iterator[tuple[int, str]]:
    """A function fits on a screen; decorators do not count, functions inside do."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield node.lineno, f"{node.name} has {lines} lines; {LONGEST_FUNCTION} are the most"


RULES: dict[str, Rule] = {
    "one-way": one_way,
    "bare-name": bare_names,
    "import-style": import_style,
    "ray": ray_in_one_package,
    "utils": no_utils,
    "launch-name": launch_file_names,
    "swallowed-error": no_swallowed_errors,
    "runs-data": nothing_runs_data,
    "long-file": short_files,
    "long-function": short_functions,
}
"""Name -> rule of a single file."""


def check(sources: Iterable[Source]) -> list[Violation]:
    """Every line of every file that breaks a rule, those of the whole tree included."""
    sources = list(sources)
    found = [
        Violation(source.path, line, name, detail)
        for source in sources
        for name, rule in RULES.items()
        for line, detail in rule(source)
    ]
    return [*found, *full_folders(sources), *cycles(sources), *folder_cycles(sources)]


def full_folders(sources: Iterable[Source]) -> Iterator[Violation]:
    """More files in a folder than a reader takes in at once."""
    counts = Counter(source.path.rpartition("/")[0] for source in sources)
    for folder, count in counts.items():
        if count > FULLEST_FOLDER and folder not in UNLIMITED_FOLDERS:
            detail = f"{count} source files; {FULLEST_FOLDER} are the most"
            yield Violation(folder, 1, "full-folder", detail)


Edges = dict[str, dict[str, tuple[str, int]]]
"""Importing node -> imported node -> file and line of the first such import."""


def cycles(sources: Iterable[Source]) -> Iterator[Violation]:
    """Imports between components that lie on a circle; those under TYPE_CHECKING and in functions count."""
    edges: Edges = {}
    for source in sources:
        for item in source.imports:
            target = component_of(item.target)
            if target.startswith("mtrl.") and target != source.component:
                edges.setdefault(source.component, {}).setdefault(target, (source.path, item.line))
    yield from _circles(edges, "cycle")


def folder_cycles(sources: Iterable[Source]) -> Iterator[Violation]:
    """The same between the modules and packages of one folder, its `__init__` among them."""
    sources = list(sources)
    nodes = {source.module: source.node for source in sources}
    folders: dict[str, Edges] = {}
    for source in sources:
        for item in source.imports:
            target = nodes.get(item.target) or nodes.get(item.target.rpartition(".")[0])
            if target is None or target == source.node or component_of(target) != source.component:
                continue
            folder = commonpath([source.node.replace(".", "/"), target.replace(".", "/")])
            depth = folder.count("/") + 2
            start, end = (".".join(node.split(".")[:depth]) for node in (source.node, target))
            folders.setdefault(folder, {}).setdefault(start, {}).setdefault(end, (source.path, item.line))
    for folder in sorted(folders):
        yield from _circles(folders[folder], "folder-cycle")


def _circles(edges: Edges, rule: str) -> Iterator[Violation]:
    for start in sorted(edges):
        for target, (path, line) in sorted(edges[start].items()):
            back = _path(edges, target, start)
            if back:
                yield Violation(path, line, rule, " -> ".join([start, *back]))


def _path(edges: Edges, start: str, goal: str) -> list[str]:
    """Nodes from start to goal, both included, or nothing where no import leads there."""
    paths = [[start]]
    seen = {start}
    while paths:
        path = paths.pop(0)
        if path[-1] == goal:
            return path
        for following in sorted(set(edges.get(path[-1], ())) - seen):
            seen.add(following)
            paths.append([*path, following])
    return []
