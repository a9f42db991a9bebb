"""Plans: collect entries, freeze them into a manifest file, and preview what the file would run."""

from __future__ import annotations

import inspect
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, get_type_hints

from pydantic import BeforeValidator, JsonValue, TypeAdapter, ValidationError

from pytest_manifest.errors import PlanError
from pytest_manifest.manifest import Manifest, read_manifest, write_manifest
from pytest_manifest.schema import Entry, Header
from pytest_manifest.schema.problems import problems

_NAME = re.compile(r"^[A-Za-z0-9_.-]+$")


@dataclass(frozen=True)
class PlanSpec:
    """A planning function as declared: its name, what it asks for, and its options.

    ``fixtures`` are the pytest fixtures it wants, in the order of its parameters after the builder;
    ``options`` map an option's name to its parameter.
    """

    workflow: str
    mode: str
    function: Callable[..., None]
    rerun: bool
    fixtures: tuple[str, ...]
    options: Mapping[str, inspect.Parameter]

    @property
    def name(self) -> str:
        return f"{self.workflow}:{self.mode}"

    @property
    def summary(self) -> str:
        """The first line of the planning function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


def plan_spec(name: str, function: Callable[..., None], *, rerun: bool = True) -> PlanSpec:
    """Read a planning function's signature.

    ``name`` is ``WORKFLOW:MODE``. Raises PlanError where name or signature cannot serve.
    """
    workflow, _, mode = name.partition(":")
    if not (_NAME.match(workflow) and _NAME.match(mode)):
        raise PlanError(
            f"planning fixture {name!r}: name it WORKFLOW:MODE with letters, digits, '_', '-' "
            "and '.', for example 'system_test:crud'"
        )
    positional: list[str] = []
    options: dict[str, inspect.Parameter] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            options[parameter.name] = parameter
        elif parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            positional.append(parameter.name)
        else:
            raise PlanError(f"planning fixture {name!r}: *args and **kwargs cannot be options")
    if not positional:
        raise PlanError(f"planning fixture {name!r}: its first parameter must be the plan builder")
    return PlanSpec(workflow, mode, function, rerun, tuple(positional[1:]), options)


def convert_options(spec: PlanSpec, given: Mapping[str, JsonValue]) -> dict[str, object]:
    """Convert and validate plan options by the annotations of the planning function.

    Values may be text, as from a command line, or Python values. Options that are not given take
    their defaults. Raises PlanError that names the option and lists the known ones.
    """
    known = ", ".join(sorted(spec.options)) or "none"
    for name in given:
        if name not in spec.options:
            near = get_close_matches(name, spec.options, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise PlanError(
                f"plan {spec.name}: unknown option {name!r}; {hint}known options: {known}"
            )
    hints = get_type_hints(spec.function, include_extras=True)
    values: dict[str, object] = {}
    for name, parameter in spec.options.items():
        if name in given:
            values[name] = _convert(spec, name, hints.get(name, str), given[name])
        elif parameter.default is inspect.Parameter.empty:
            raise PlanError(
                f"plan {spec.name}: option {name!r} is required; add --plan-opt {name}=VALUE"
            )
        else:
            values[name] = parameter.default
    return values


def _convert(spec: PlanSpec, name: str, hint: object, value: JsonValue) -> object:
    def unquote(raw: object) -> object:
        return None if isinstance(raw, str) and raw.lower() in {"none", "null"} else raw

    annotated = Annotated[hint, BeforeValidator(unquote)] if _allows_none(hint) else hint
    adapter: TypeAdapter[object] = TypeAdapter(annotated)  # type: ignore[arg-type]  # a type known at run time
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise PlanError(
            f"plan {spec.name}: option {name}={value!r} is not valid: {reason}"
        ) from None


def _allows_none(hint: object) -> bool:
    return type(None) in getattr(hint, "__args__", ())


class PlanBuilder:
    """Collects the entries of a plan, each checked as it is added, and freezes them into a file."""

    def __init__(self, spec: PlanSpec, params: Mapping[str, object]) -> None:
        self.spec = spec
        self.params = dict(params)
        self._entries: list[Entry] = []
        self._ids: set[str] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, task: str, *, id: str, **fields: object) -> None:  # noqa: A002 - the format's own word
        """Add one job: ``task`` by its registered name, ``id`` unique within the plan.

        ``fields`` are those of a manifest entry: args, kwargs, queue, timeout, expect and so on.
        Raises PlanError that names the entry and the field.
        """
        try:
            entry = Entry.model_validate({"id": id, "task": task, **fields})
        except ValidationError as error:
            found = "; ".join(problems(error, Entry))
            raise PlanError(f"plan {self.spec.name}, entry {id!r}: {found}") from None
        if entry.id in self._ids:
            raise PlanError(
                f"plan {self.spec.name}: entry id {id!r} was added twice; "
                "ids must be unique within a manifest"
            )
        self._ids.add(entry.id)
        self._entries.append(entry)

    def freeze(self, target: Path | None, folder: Path, *, force: bool = False) -> Manifest | None:
        """Write the plan, and return the manifest; None where the plan is empty.

        With ``target`` it goes there, over a different manifest only with ``force``. Without, it
        goes into ``folder`` as ``WORKFLOW_MODE_NN.jsonl`` with the next free number. A file that
        holds the same plan already is kept as it is.
        """
        if not self._entries:
            return None
        place = target or folder / f"{self.spec.workflow}_{self.spec.mode}_01.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".plan-", dir=place.parent) as scratch:
            fresh = write_manifest(Path(scratch) / place.name, self._header(), self._entries)
            if target is None:
                return self._numbered(fresh, folder)
            return self._at(fresh, target, force=force)

    def _header(self) -> Header:
        return Header(
            workflow=self.spec.workflow,
            mode=self.spec.mode,
            params={name: _plain(value) for name, value in sorted(self.params.items())},
            planned_at=datetime.now(UTC).replace(microsecond=0),
            rerun=self.spec.rerun,
        )

    def _at(self, fresh: Manifest, target: Path, *, force: bool) -> Manifest:
        if target.is_dir():
            raise PlanError(f"{target}: is a folder; name the file to write")
        if target.exists() and _same_plan(target, fresh):
            return read_manifest(target)
        if target.exists() and force and not _looks_like_manifest(target):
            raise PlanError(f"{target}: is no manifest, and is not overwritten; move it away first")
        if target.exists() and not force:
            raise PlanError(
                f"{target}: holds a different manifest; plan into another file, "
                "or replace it with --plan-force"
            )
        fresh.path.replace(target)
        return read_manifest(target)

    def _numbered(self, fresh: Manifest, folder: Path) -> Manifest:
        stem = f"{self.spec.workflow}_{self.spec.mode}_"
        pattern = re.compile(re.escape(stem) + r"(\d+)\.jsonl$")
        taken = {
            int(match.group(1)): path
            for path in folder.iterdir()
            if (match := pattern.match(path.name))
        }
        for _, path in sorted(taken.items()):
            if _same_plan(path, fresh):
                return read_manifest(path)
        number = max(taken, default=0) + 1
        while True:
            path = folder / f"{stem}{number:02d}.jsonl"
            try:
                path.hardlink_to(fresh.path)  # unlike a rename it never replaces another's file
            except FileExistsError:
                number += 1
            else:
                return read_manifest(path)


def _same_plan(path: Path, fresh: Manifest) -> bool:
    """Whether the file holds these very entries and parameters; a broken file holds neither."""
    with path.open("rb") as file:
        first = file.readline(1_000_000)
    try:
        header = Header.model_validate_json(first)
    except ValidationError:
        return False
    return (
        header.sha256 == fresh.sha256
        and header.params == fresh.header.params
        and header.rerun == fresh.header.rerun
        and header.entries == len(fresh)
    )


def _looks_like_manifest(path: Path) -> bool:
    """Whether a file is empty or begins with a line of JSON, as every manifest does."""
    with path.open("rb") as file:
        first = file.readline(1_000_000)
    try:
        return not first or isinstance(json.loads(first), dict)
    except ValueError:
        return False


def _plain(value: object) -> JsonValue:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)


@dataclass
class Preview:
    """What a manifest would run; ``longest_timeout`` in seconds, ``cost`` in the entries' unit."""

    path: Path
    name: str
    entries: int = 0
    tasks: Counter[tuple[str, str]] = field(default_factory=Counter)
    longest_timeout: float = 0.0
    cost: float | None = None

    def lines(self) -> Iterator[str]:
        """The preview as plain text."""
        yield f"plan {self.name}: {self.entries} entries in {self.path}"
        width = max((len(task) for task, _ in self.tasks), default=0)
        for (task, queue), count in sorted(self.tasks.items()):
            yield f"  {count:>7}  {task:<{width}}  queue {queue}"
        yield f"  longest timeout {self.longest_timeout:g} s"
        if self.cost is not None:
            yield f"  estimated cost {self.cost:,.4g}"


def preview(manifest: Manifest) -> Preview:
    """Count a manifest's entries by task and queue."""
    header = manifest.header
    name = f"{header.workflow}:{header.mode}" if header.workflow else manifest.path.name
    result = Preview(manifest.path, name)
    for entry in manifest:
        result.entries += 1
        result.tasks[entry.task, entry.queue or "default"] += 1
        result.longest_timeout = max(result.longest_timeout, entry.timeout)
        if entry.cost is not None:
            result.cost = (result.cost or 0.0) + entry.cost
    return result
