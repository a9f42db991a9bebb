"""Make a first batch in a project: ``manifest init``.

Find the Celery apps of a project by reading its files: nothing of it is imported. The files that
are made, a plan, a verification, and a failure to read, are in ``scaffold/``.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from string import Template
from typing import Annotated, Final
from warnings import catch_warnings, simplefilter

import typer
from pydantic import JsonValue

from pytest_manifest.cli import arguments
from pytest_manifest.cli.output import answer
from pytest_manifest.errors import PlanError, StackError
from pytest_manifest.ini import BATCH_INI, batch_settings, import_folders, pytest_settings

_APP_OPTION: Final = "--app=MODULE:ATTRIBUTE"
OWN_APP: Final = "jobs:app"
"""The app of a folder that has none."""

CONFTEST: Final = 'pytest_plugins = ["workflows.first.plan"]\n'
_TEMPLATES: Final = Path(__file__).with_name("scaffold")

MOST_FILES: Final = 5_000
"""Python files that are looked at; a project's app is not behind so many."""
MOST_BYTES: Final = 1_000_000
_OTHERS: Final = frozenset({"node_modules", "site-packages", "build", "dist", "tests", "test"})
"""Folders whose apps are not the project's own."""
SOURCES: Final = "src"
"""The folder that packages may be in without being part of their names."""


@dataclass(frozen=True, slots=True)
class FoundApp:
    """A Celery app in a file; ``name``: like ``proj.celery:app``."""

    name: str
    path: Path
    below_sources: bool


def find_apps(folder: Path) -> list[FoundApp]:
    """Return the Celery apps that modules of this folder define, the likeliest first.

    An app that a function makes is not found; see ``unnamed_app``.
    """
    sources = _sources(folder)
    found = [
        FoundApp(f"{module[0]}:{name}", path, module[1])
        for path, tree in sources.trees.items()
        if (module := _module(folder, path)) is not None
        for name in sources.assigned_apps(tree)
    ]
    return sorted(found, key=_likelihood)


def unnamed_app(folder: Path) -> Path | None:
    """Return the first file that makes a Celery app somewhere, be it in a function; else None."""
    sources = _sources(folder)
    for path, tree in sources.trees.items():
        if any(map(sources.is_app, ast.walk(tree))):
            return path
    return None


def _likelihood(app: FoundApp) -> tuple[bool, bool, int, str]:
    """Return a key that sorts packages' apps first, then those nearer to the folder."""
    is_package = (app.path.parent / "__init__.py").exists()
    return app.path.stem != "celery", not is_package, app.name.count("."), app.name


def _python_files(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith((".", "__"))
            and name not in _OTHERS
            and not (here / name / "pyvenv.cfg").exists()
        )
        yield from (here / name for name in sorted(files) if name.endswith(".py"))


def _module(folder: Path, path: Path) -> tuple[str, bool] | None:
    """Return a file's module name and whether it is in ``src``; None: not importable from here."""
    top = path.parent
    while top != folder and (top / "__init__.py").exists():
        top = top.parent
    below_sources = path.is_relative_to(folder / SOURCES) and top != folder
    root = folder / SOURCES if below_sources else folder
    if top not in (root, path.parent):  # a package within another project of this one
        return None
    parts = path.relative_to(root).with_suffix("").parts
    names = parts[:-1] if parts[-1] == "__init__" else parts
    if not names or not all(name.isidentifier() for name in names):
        return None
    return ".".join(names), below_sources


@dataclass(frozen=True, slots=True)
class _Sources:
    """The files that name ``Celery``, parsed, and the classes of apps: it, and those made of it."""

    trees: Mapping[Path, ast.Module]
    kinds: Collection[str]

    def assigned_apps(self, tree: ast.Module) -> Iterator[str]:
        """Yield the names of a module that a new app is assigned to."""
        for one in tree.body:
            if isinstance(one, ast.Assign | ast.AnnAssign) and self.is_app(one.value):
                targets = one.targets if isinstance(one, ast.Assign) else [one.target]
                yield from (target.id for target in targets if isinstance(target, ast.Name))

    def is_app(self, node: ast.AST | None) -> bool:
        return isinstance(node, ast.Call) and _last_name(node.func) in self.kinds


def _sources(folder: Path) -> _Sources:
    paths = islice(_python_files(folder), MOST_FILES)
    trees = {path: tree for path in paths if (tree := _parsed(path)).body}
    kinds = {"Celery"}
    for tree in trees.values():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not kinds.isdisjoint(map(_last_name, node.bases)):
                kinds.add(node.name)
    return _Sources(trees, kinds)


def _last_name(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]


def _parsed(path: Path) -> ast.Module:
    """Return a file's syntax tree: an empty one where it names no ``Celery``, or is no Python.

    Its bytes are parsed, as Python itself does: a file may begin with a BOM or name its encoding.
    """
    with suppress(OSError, ValueError, SyntaxError, RecursionError, MemoryError), catch_warnings():
        simplefilter("ignore")  # not ours to complain of, nor are what is suppressed above
        if path.stat().st_size <= MOST_BYTES and b"Celery" in (source := path.read_bytes()):
            return ast.parse(source)
    return ast.Module([], [])


PLAN_OPTIONS: Final = "--manifest-plan=first --manifest-plan-run"
PRIVATE_STACK: Final = "--manifest-broker=private"
PLUGIN: Final = "workflows.first.plan"
_OWN_TESTS: Final = ("test_*.py", "*_test.py", "tests", "test", "conftest.py")
"""Files and folders of a project with tests of its own, here or one or two folders below."""
_EARLY_PATHS: Final = (8, 4)
"""Since this version pytest imports a plugin of ``-p`` from the folders of ``pythonpath``."""


@dataclass
class _Scaffold:
    """The files made in ``folder``, those that were there already, and what is left to the user."""

    folder: Path
    app: str
    settings: str | None = None
    """The file by which the batch keeps to the private stack."""
    created: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=lambda: ["pytest"])

    def make(self, name: str, content: str) -> bool:
        """Write a file unless there is one of its name; return whether it is as it was made."""
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(content)
        except FileExistsError:
            self.kept.append(name)
            return path.is_file() and path.read_bytes() == content.encode()
        except OSError as error:
            raise PlanError(
                f"{path}: cannot be written ({error.strerror}); name a folder that is writable"
            ) from error
        self.created.append(name)
        return True


def _template(name: str, **values: str) -> str:
    """Return a file of the scaffold, with these values in it."""
    return Template((_TEMPLATES / f"{name}.txt").read_text("utf-8")).substitute(values)


def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", show_default=False)] = Path(),
    app: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:ATTRIBUTE", help="your Celery app; default: the one that is found"
        ),
    ] = None,
    json: arguments.Json = False,
) -> None:
    """Make a first plan, and a first red test.

    For the Celery app that is found, else for one that is made; no file is ever overwritten.
    """
    folder = folder.absolute()
    config, settings = batch_settings(folder)
    configured = settings.get("manifest_app")
    found = [] if app or configured else find_apps(folder)
    chosen = app or (configured if isinstance(configured, str) and configured else None)
    below_sources = False
    if chosen is None and not found and (path := unnamed_app(folder)) is not None:
        raise PlanError(
            f"{path.relative_to(folder)}: makes a Celery app, in a function or under a name that "
            "cannot be read from the file; name the app as `celery -A` has it: "
            "manifest init --app=MODULE:ATTRIBUTE"
        )
    if chosen is None and found:
        chosen, below_sources = found[0].name, found[0].below_sources
    made = _Scaffold(folder, chosen or OWN_APP)
    apart = _has_own_tests(folder, config, settings)
    _make_files(made, own=chosen is None or (chosen == OWN_APP and _is_ours(folder / "jobs.py")))
    if apart:
        _make_batch_ini(made)
    else:
        made.make("conftest.py", CONFTEST)
        _name_app(made, config, configured)
    if below_sources:
        _check_installed(made)
    _check_server(made)
    if made.settings is None and made.app != OWN_APP:
        made.command.append(PRIVATE_STACK)  # the app may name a broker that others use, too
    made.command += shlex.split(PLAN_OPTIONS)
    answer(_document(made, found), _lines(made, found), json=json)


def _check_names(folder: Path, *, own: bool) -> None:
    """Raise PlanError where a module of the project would hide ours, or ours would hide it."""
    if (folder / "workflows.py").exists():
        raise PlanError(
            f"{folder / 'workflows.py'}: the package 'workflows' that is made here would hide it; "
            "rename it, or name another folder"
        )
    if own and (folder / "jobs" / "__init__.py").exists():
        raise PlanError(
            f"no Celery app was found, and the package {folder / 'jobs'} would hide the module "
            "'jobs' of one made here; name yours with --app=MODULE:ATTRIBUTE"
        )


def _check_places(folder: Path) -> None:
    """Raise PlanError where a folder of ours cannot be made, before a first file is."""
    place = folder / "workflows" / "first"
    while not (place.exists() or place.is_symlink()):
        place = place.parent
    if not place.is_dir():
        raise PlanError(f"{place}: is no folder; rename it, or name another folder")
    if not os.access(place, os.W_OK):
        raise PlanError(f"{place}: cannot be written to; name a folder that is writable")


def _make_files(made: _Scaffold, *, own: bool) -> None:
    _check_names(made.folder, own=own)
    _check_places(made.folder)
    if own and not made.make("jobs.py", _template("jobs.py")):
        raise PlanError(
            f"{made.folder / 'jobs.py'}: is there already, and no Celery app was found in it or "
            "elsewhere; name yours with --app=MODULE:ATTRIBUTE"
        )
    for package in ("workflows", "workflows/first"):
        made.make(f"{package}/__init__.py", "")
    others = []
    for name in ("plan", "verify"):
        file, template = f"workflows/first/{name}.py", f"{name}.py" if own else f"{name}_for_app.py"
        if not made.make(file, _template(template)) and not own and _is_ours(made.folder / file):
            others.append(file)
    if others:
        made.todo.append(
            f"remove {' and '.join(others)}, made for {OWN_APP}, and call 'manifest init "
            f"--app={made.app}' again, which makes them for {made.app}"
        )


def _has_own_tests(folder: Path, config: Path | None, settings: Mapping[str, object]) -> bool:
    """Return whether the project has tests, or settings for them, here or above.

    So it has where an earlier call has made settings for batches alone.
    """
    ours_alone = bool(settings) and all(name.startswith("manifest_") for name in settings)
    if config is not None and not ours_alone:
        return True
    if (folder / BATCH_INI).is_file() or any(
        (one / "conftest.py").is_file() or pytest_settings(one)[0] is not None
        for one in folder.parents
    ):
        return True
    ours = folder / "conftest.py"
    return any(
        found != ours or found.read_bytes() != CONFTEST.encode()
        for name in _OWN_TESTS
        for place in ("", "[!.]*/", "[!.]*/[!.]*/")
        for found in folder.glob(place + name)
    )


def _make_batch_ini(made: _Scaffold) -> None:
    """Make the settings of batches alone: those of the tests would act on jobs, too.

    Modules are imported from where the tests import them.
    """
    folders = [".", *([SOURCES] if (made.folder / SOURCES).is_dir() else [])]
    known = import_folders(pytest_settings(made.folder)[1])
    paths = shlex.join(dict.fromkeys([*folders, *known]))
    made.make(BATCH_INI, _template(BATCH_INI, app=made.app, plugin=PLUGIN, paths=paths))
    made.command = ["pytest", "-c", BATCH_INI]
    if _pytest_version() < _EARLY_PATHS:
        made.command[:1] = ["python", "-m", "pytest"]
    config, settings = batch_settings(made.folder)
    _name_app(made, config, settings.get("manifest_app"))


def _pytest_version() -> tuple[int, ...]:
    return tuple(int(part) for part in version("pytest").split(".")[:2])


def _is_ours(path: Path) -> bool:
    """Return whether a file is the one that an earlier call has made for an app of ours."""
    return path.is_file() and path.read_bytes() == _template(path.name).encode()


def _name_app(made: _Scaffold, config: Path | None, configured: object) -> None:
    """Have pytest know the app: by a new pytest.ini, else say what to write where."""
    if config is not None and batch_settings(made.folder)[1].get("manifest_broker") == "private":
        made.settings = config.name
    if configured == made.app:
        return
    if config is None:
        made.make("pytest.ini", _template("pytest.ini", app=made.app))
        made.settings = "pytest.ini"
        return
    value = f'"{made.app}"' if config.suffix == ".toml" else made.app
    line, where = f"'manifest_app = {value}'", f"pytest's section of {config.name}"
    do = f"change manifest_app in {where} to {line}" if configured else f"add {line} to {where}"
    made.todo.append(f"{do}; until then: --manifest-app={made.app}")
    made.command.append(f"--manifest-app={made.app}")


def _check_installed(made: _Scaffold) -> None:
    """Note where a package of ``src`` is not installed: pytest and workers have to import it."""
    if importlib.util.find_spec(made.app.partition(":")[0].partition(".")[0]) is None:
        made.todo.append(
            f"install your project (pip install -e .), as workers import it, too; until then: "
            f"PYTHONPATH={SOURCES}"
        )
        made.command.insert(0, f"PYTHONPATH={SOURCES}")


def _check_server(made: _Scaffold) -> None:
    """Note what the private stack lacks here."""
    from pytest_manifest.stack.valkey import server_binary

    try:
        server_binary()
    except StackError as error:
        made.todo.append(str(error))


def _document(made: _Scaffold, found: Sequence[FoundApp]) -> dict[str, JsonValue]:
    return {
        "folder": str(made.folder),
        "app": made.app,
        "apps_found": [one.name for one in found],
        "created": [*made.created],
        "kept": [*made.kept],
        "todo": [*made.todo],
        "private_by": made.settings,
        "next": shlex.join(made.command),
    }


def _lines(made: _Scaffold, found: Sequence[FoundApp]) -> Iterator[str]:
    if app := next((one for one in found if one.name == made.app), None):
        yield f"Celery app {made.app}, found in {app.path.relative_to(made.folder)}"
        if others := ", ".join(one.name for one in found if one.name != made.app):
            yield f"  others: {others}; name one by --app"
    if "jobs.py" in made.created:
        yield f"no Celery app was found, so jobs.py is made; yours is named by {_APP_OPTION}"
    yield from (f"created  {name}" for name in made.created)
    yield from (f"kept     {name}  (it was there)" for name in made.kept)
    yield from (f"to do    {line}" for line in made.todo)
    yield ""
    if made.settings is not None:
        taken_out = f"until manifest_broker = private is out of {made.settings}"
        yield f"Jobs stay on a private stack of this machine {taken_out}."
    yield "Next: run the first batch. One of its tests fails, on purpose:"
    if made.folder != Path(os.path.realpath(Path.cwd())):
        yield f"  cd {shlex.quote(os.path.relpath(made.folder))}"
    yield f"  {shlex.join(made.command)}"
