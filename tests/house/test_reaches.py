"""Private parts of other packages are used in ``pytest_manifest/compat/`` alone.

What is found in the source's tree is a reach: an attribute, a keyword or a literal name with a
leading underscore that this project does not define; an import of a private module or name; an
attribute of another package's class, module or object that is replaced; a subclass of a class that
its package does not document; a public name that only its package's own modules use.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from tests.house.conftest import ROOT

MOST_KINDS: Final = 20
OWN: Final = ("pytest_manifest", "tasks", "workflows", "tests", "benchmarks")
COMPAT: Final = "pytest_manifest/compat/"
RUN: Final = "pytest_manifest/run/"

DOCUMENTED: Final = frozenset(
    {
        # The standard library's, a parameter of redis-py's, a function that pytest lets override,
        # the name of Hypothesis' plugin.
        "_replace",
        "_asdict",
        "_exit",
        "_type",
        "_getobj",
        "_hypothesis_pytestplugin",
        # Streams of the standard library.
        "write",
        # Hooks of xdist's name these types, and its own package of schedulers is for their makers.
        "xdist.remote.Producer",
        "xdist.scheduler.LoadScheduling",
        "xdist.scheduler.Scheduling",
        "xdist.workermanage.WorkerController",
    }
)
"""Names that look private, or stand in a module that is, and are documented."""

BASES: Final = frozenset(
    {
        "pytest.File",
        "redis.ConnectionPool",
        "pytest.Function",
        "pytest.Item",
        "pytest.Module",
        "celery.backends.base.Backend",
        "celery.backends.base.KeyValueStoreBackend",
        "celery.concurrency.base.BasePool",
        "celery.worker.WorkController",
        "google.auth.api_key.Credentials",
        "sqlalchemy.TypeDecorator",
        "sqlalchemy.orm.DeclarativeBase",
        "tenacity.wait.wait_random_exponential",
        "throttled.store.RedisStore",
        "tornado.web.RequestHandler",
    }
)
"""Classes that their packages document, and that may be subclassed; pydantic's all are."""

INTERNAL: Final = frozenset({"remove_mods", "notify_inproc", "node2collection", "node2pending"})
"""Names without an underscore that only their packages' own modules use."""

METADATA: Final = frozenset(
    {"__doc__", "__module__", "__name__", "__qualname__", "__signature__", "__test__"}
)
"""What every function may be given."""

PRIVATE: Final = re.compile(r"_[a-zA-Z]\w*")


class Reach(NamedTuple):
    path: str
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name}"


class Source(NamedTuple):
    """A module of this project, and what it defines and imports."""

    path: str
    nodes: Sequence[ast.AST]
    own: frozenset[str]
    """Names that it, or a module of ours that it imports, defines: functions, classes, parameters,
    variables, attributes of self."""
    foreign: dict[str, str]
    """What its names from other packages are, in full."""


def is_private(name: str) -> bool:
    return PRIVATE.fullmatch(name) is not None and name not in DOCUMENTED


def foreign_top(module: str) -> bool:
    top = module.partition(".")[0]
    return top not in OWN and top not in sys.stdlib_module_names


def imports(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str, str]]:
    """Line, name here, and full name of what is imported from other packages."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and foreign_top(node.module):
            for one in node.names:
                yield node.lineno, one.asname or one.name, f"{node.module}.{one.name}"
        elif isinstance(node, ast.Import):
            for one in node.names:
                if foreign_top(one.name):
                    yield (
                        node.lineno,
                        one.asname or one.name.partition(".")[0],
                        one.name if one.asname else one.name.partition(".")[0],
                    )


def definitions(tree: ast.AST, *, methods: bool) -> Iterator[str]:
    """Names that a module defines, those of methods if ``methods``.

    What stands under TYPE_CHECKING describes what others define.
    """
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.ClassDef) and not methods:
            waiting = [one for one in waiting if one not in node.body]
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if is_self(node.value):
                yield node.attr
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.rpartition(".")[2]


def is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def is_super(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    )


@cache
def sources() -> dict[str, Source]:
    folders = ("pytest_manifest", "tasks", "workflows")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    trees = {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8"))
        for path in [*paths, ROOT / "conftest.py"]
    }
    found = {}
    walked = {path: list(ast.walk(tree)) for path, tree in trees.items()}
    foreign = {
        path: {here: full for _, here, full in imports(nodes)} for path, nodes in walked.items()
    }
    defined = {
        path: {*definitions(tree, methods=not path.startswith(COMPAT))} - foreign[path].keys()
        for path, tree in trees.items()
    }
    for path, nodes in walked.items():
        near = [defined[one] for one in own_imports(nodes) if one in defined]
        # The classes of a run are spread over their folder, each building on the next.
        near += [names for one, names in defined.items() if one.startswith(RUN) and RUN in path]
        found[path] = Source(path, nodes, frozenset(defined[path].union(*near)), foreign[path])
    return found


def own_imports(nodes: Sequence[ast.AST]) -> Iterator[str]:
    """The modules of ours that a module imports from."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.replace(".", "/") + ".py"
            yield from (f"{node.module}.{one.name}".replace(".", "/") + ".py" for one in node.names)


def reaches(source: Source) -> set[Reach]:
    found = {*imported(source), *attributes(source), *subclassed(source), *replaced(source)}
    return {Reach(source.path, line, name) for line, name in found}


def imported(source: Source) -> Iterator[tuple[int, str]]:
    for line, _, full in imports(source.nodes):
        hidden = full.startswith("xdist.") or any(map(is_private, full.split(".")))
        if hidden and full not in DOCUMENTED:
            yield line, full


def attributes(source: Source) -> Iterator[tuple[int, str]]:
    """Private names that are no names of this module."""
    docstrings = {id(node.value) for node in source.nodes if isinstance(node, ast.Expr)}
    for node in source.nodes:
        name, own = "", source.own
        if isinstance(node, ast.Attribute):
            name = node.attr
            if source.foreign and is_super(node.value):
                own = frozenset()  # what a base class of another package has
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = "" if id(node) in docstrings or not node.value.islower() else node.value
        elif isinstance(node, ast.keyword):
            name = node.arg or ""
        if name in INTERNAL or (is_private(name) and name not in own):
            yield getattr(node, "lineno", 0), name


def subclassed(source: Source) -> Iterator[tuple[int, str]]:
    """Classes that their package does not document, and private methods of theirs."""
    for node in source.nodes:
        if not isinstance(node, ast.ClassDef):
            continue
        for base in node.bases:
            first, _, rest = ast.unparse(base).partition("[")[0].partition(".")
            if first not in source.foreign:
                continue
            full = source.foreign[first] + (f".{rest}" if rest else "")
            if full not in BASES and not full.startswith("pydantic"):
                yield node.lineno, full
            theirs = resolved(full)
            for member in node.body:
                if (
                    isinstance(member, ast.FunctionDef)
                    and is_private(member.name)
                    and hasattr(theirs, member.name)
                ):
                    yield member.lineno, member.name


def resolved(full: str) -> object:
    parts = full.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise ImportError(full)


def replaced(source: Source) -> Iterator[tuple[int, str]]:
    """Attributes of others' classes, modules and objects that are given another value."""
    functions = {node.name for node in source.nodes if isinstance(node, ast.FunctionDef)}
    for node in source.nodes:
        for target, name, value in assignments(node):
            if is_self(target) or name in METADATA | DOCUMENTED:
                continue
            root = ast.unparse(target).partition(".")[0]
            if root in source.foreign or exchanges(target, name, value, functions):
                yield getattr(node, "lineno", 0), name


def assignments(node: ast.AST) -> Iterator[tuple[ast.expr, str, ast.expr | None]]:
    """Object, attribute and value (None: deleted) of each attribute that a statement changes."""
    pairs: list[tuple[ast.expr, ast.expr | None]] = []
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs += zip(target.elts, node.value.elts, strict=True)
            else:
                pairs.append((target, node.value))
    elif isinstance(node, ast.Delete):
        pairs += [(target, None) for target in node.targets]
    for target, value in pairs:
        if isinstance(target, ast.Attribute):
            yield target.value, target.attr, value
        elif isinstance(target, ast.Subscript) and ast.unparse(target.value).endswith(".__dict__"):
            owner = target.value
            if isinstance(owner, ast.Attribute) and isinstance(target.slice, ast.Constant):
                yield owner.value, str(target.slice.value), value
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("setattr", "delattr")
    ):
        name = node.args[1]
        called = str(name.value) if isinstance(name, ast.Constant) else node.func.id
        yield node.args[0], called, node.args[2] if len(node.args) > 2 else None


def exchanges(target: ast.expr, name: str, value: ast.expr | None, functions: set[str]) -> bool:
    """Whether a method, or a class, is exchanged of an object that is not this project's."""
    if re.fullmatch(r"__\w+__", name) or value is None:
        return True
    if name in attributes_of_ours():
        return False
    now = f"{ast.unparse(target)}.{name}"
    return (
        isinstance(value, ast.Lambda)
        or (isinstance(value, ast.Name) and value.id in functions)
        or (isinstance(value, ast.Call) and now in map(ast.unparse, value.args))
    )


@cache
def attributes_of_ours() -> frozenset[str]:
    """Attributes that a class of this project gives itself."""
    found: set[str] = set()
    for source in sources().values():
        for node in source.nodes:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found |= {node.attr} if is_self(node.value) else set()
    return frozenset(found)


@cache
def everywhere() -> list[Reach]:
    return sorted(reach for source in sources().values() for reach in reaches(source))


def kinds() -> set[tuple[str, str]]:
    """Package and name of what compat/ uses: its modules are called as the packages are."""
    return {
        (Path(reach.path).stem, reach.name)
        for reach in everywhere()
        if reach.path.startswith(COMPAT)
    }


def test_private_parts_of_others_are_used_in_compat_alone() -> None:
    elsewhere = [reach for reach in everywhere() if not reach.path.startswith(COMPAT)]
    print(f"{len(kinds())} kinds of reach in {COMPAT}, {len(elsewhere)} reaches elsewhere")
    assert [str(reach) for reach in elsewhere] == []


def test_there_are_few_of_them() -> None:
    assert len(kinds()) <= MOST_KINDS, sorted(kinds())
