"""Build plans: check entries as they are added, freeze them into a manifest file, preview it.

A planning function declares its name, the fixtures it asks for, and its options.
"""

from __future__ import annotations

import inspect
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

from pydantic import JsonValue, TypeAdapter, ValidationError

from pytest_manifest.errors import PlanError, no_access
from pytest_manifest.manifest import Manifest, dump_entry, read_manifest
from pytest_manifest.manifest.jsonl import MARK, placeholder_faults
from pytest_manifest.manifest.writer import Draft, write_draft
from pytest_manifest.schema import Entry, Header, cost_text, exact
from pytest_manifest.schema.fields import LONGEST, is_identifier
from pytest_manifest.schema.problems import problems
from pytest_manifest.text import plural

_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class PlanSpec:
    """A planning function as declared: its name, what it asks for, and its options.

    ``fixtures`` are the pytest fixtures it wants, in the order of its parameters after the builder;
    ``options`` map an option's name to its parameter. ``is_default``: the workflow's name alone
    means this mode.
    """

    workflow: str
    mode: str
    function: Callable[..., None]
    rerun: bool
    fixtures: tuple[str, ...]
    options: Mapping[str, inspect.Parameter]
    is_default: bool = False

    @property
    def name(self) -> str:
        return f"{self.workflow}:{self.mode}"

    @property
    def summary(self) -> str:
        """Return the first line of the planning function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


def plan_spec(
    name: str, function: Callable[..., None], *, rerun: bool = True, default: bool = False
) -> PlanSpec:
    """Read a planning function's signature.

    ``name`` is ``WORKFLOW:MODE``. Raises PlanError where name or signature cannot serve.
    """
    workflow, _, mode = name.partition(":")
    if not all(_NAME.fullmatch(part) and is_identifier(part) for part in (workflow, mode)):
        raise PlanError(
            f"planning fixture {name!r}: name it WORKFLOW:MODE with letters, digits, '_', '-' "
            f"and '.', each of them at most {LONGEST} characters and no dot at its beginning, for "
            "example 'system_test:crud'"
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
    fixtures = tuple(positional[1:])
    return PlanSpec(workflow, mode, function, rerun, fixtures, options, default)


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
    hints = _hints(spec)
    values: dict[str, object] = {}
    for name, parameter in spec.options.items():
        if name in given:
            values[name] = _convert(spec, name, hints.get(name, str), given[name])
        elif parameter.default is inspect.Parameter.empty:
            raise PlanError(
                f"plan {spec.name}: option {name!r} is required; add --manifest-plan-opt "
                f"{name}=VALUE"
            )
        else:
            values[name] = parameter.default
    return values


def _hints(spec: PlanSpec) -> dict[str, object]:
    """Resolve the types of the options alone; a fixture's may be imported for type checkers only.

    Raises PlanError for a type that is not known at run time.
    """
    function = inspect.unwrap(spec.function)
    written = {
        name: parameter.annotation
        for name, parameter in spec.options.items()
        if parameter.annotation is not inspect.Parameter.empty
    }
    options = SimpleNamespace(__annotations__=written)
    names: dict[str, object] = getattr(function, "__globals__", {})
    try:
        return get_type_hints(options, globalns=names, include_extras=True)
    except NameError as error:
        raise PlanError(
            f"plan {spec.name}: the type of an option is not known when it runs ({error}); import "
            "it outside of 'if TYPE_CHECKING'"
        ) from None


def _convert(spec: PlanSpec, name: str, hint: object, value: JsonValue) -> object:
    is_none = isinstance(value, str) and value.lower() in {"none", "null"}
    if is_none and type(None) in getattr(hint, "__args__", ()):
        value = None
    adapter: TypeAdapter[object] = TypeAdapter(hint)  # type: ignore[arg-type]  # a type known at run time
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise PlanError(
            f"plan {spec.name}: option {name}={value!r} is not valid: {reason}"
        ) from None


class PlanBuilder:
    """Collect the entries of a plan, each checked as it is added, and freeze them into a file.

    The entries wait in a nameless temporary file, which is deleted with the builder.
    """

    def __init__(self, spec: PlanSpec, params: Mapping[str, object]) -> None:
        self.spec = spec
        self.params = dict(params)
        self.notes: list[str] = []
        """What the planner wants said beside the preview."""
        self._draft = Draft()
        self._cost = Decimal(0)
        self._unpriced = 0
        self._no_budget: str | None = None

    def __len__(self) -> int:
        return len(self._draft)

    def note(self, line: str) -> None:
        """Add a line to the plan's preview, which is shown even if the plan stays empty.

        The manifest file does not contain it.
        """
        self.notes += line.splitlines()

    def refuse_budget(self, reason: str) -> None:
        """Refuse ``--manifest-budget`` for this plan, for what it costs cannot be known.

        ``reason`` is a clause that says why.
        """
        self._no_budget = reason

    def add(self, task: str, *, id: str, **fields: object) -> None:  # noqa: A002 - the format's own word
        """Add one job: ``task`` by its registered name, ``id`` unique within the plan.

        ``fields`` are those of a manifest entry: args, kwargs, queue, timeout, expect and so on.
        Raises PlanError that names the entry and the field.
        """
        try:
            entry = Entry.model_validate({**fields, "id": id, "task": task})
        except ValidationError as error:
            found = "; ".join(problems(error, Entry))
            raise PlanError(f"plan {self.spec.name}, entry {id!r}: {found}") from None
        if entry.id in self._draft:
            raise PlanError(
                f"plan {self.spec.name}: entry id {id!r} was added twice; "
                "ids must be unique within a manifest"
            )
        line = dump_entry(entry)
        if MARK in line and (left := "; ".join(placeholder_faults(json.loads(line)))):
            raise PlanError(f"plan {self.spec.name}: {left}")
        try:
            self._draft.add_entry(line, entry)
        except OSError as error:
            raise self._no_room(error) from error
        if entry.cost is None:
            self._unpriced += 1
        else:
            self._cost += exact(entry.cost)

    def check_cost(self, budget: float | None) -> None:
        """Raise PlanError where the entries' estimated costs add up to more than ``budget``.

        So it does where the planner has refused a budget, unless there is nothing to be bought.
        """
        if budget is None:
            return
        if self._no_budget is not None and len(self):
            raise PlanError(
                f"plan {self.spec.name}: --manifest-budget is {cost_text(budget)}, and "
                f"{self._no_budget}, so nothing would keep to it, and no manifest was written; "
                "have the cost known, or leave --manifest-budget out"
            )
        if self._unpriced:
            self.note(
                f"{self._unpriced} of {plural(len(self), 'entry')} have no estimated cost, so "
                "--manifest-budget cannot foresee what they cost"
            )
        if self._cost <= exact(budget):
            return
        limit = "--manifest-plan-opt limit=N" if "limit" in self.spec.options else "fewer entries"
        raise PlanError(
            f"plan {self.spec.name}: {plural(len(self), 'entry')} are estimated to cost "
            f"{cost_text(self._cost)}, and --manifest-budget is {cost_text(budget)}, so no "
            f"manifest was written; plan less ({limit}), or allow more with a larger "
            "--manifest-budget"
        )

    def freeze(self, target: Path | None, folder: Path, *, force: bool = False) -> Manifest | None:
        """Write the plan, and return the manifest; None where the plan is empty.

        With ``target`` it goes there, over a different manifest only with ``force``. Without, it
        goes into ``folder`` as ``WORKFLOW_MODE_NN.jsonl`` with the next free number. A file that
        holds the same plan already is kept as it is.
        """
        if not len(self):
            return None
        try:
            self._draft.flush()
        except OSError as error:
            raise self._no_room(error) from error
        place = target or folder / f"{self.spec.workflow}_{self.spec.mode}_01.jsonl"
        with self._scratch(place.parent) as scratch:
            header = Header(
                workflow=self.spec.workflow,
                mode=self.spec.mode,
                params={name: _plain(value) for name, value in sorted(self.params.items())},
                planned_at=datetime.now(timezone.utc).replace(microsecond=0),
                rerun=self.spec.rerun,
            )
            fresh = write_draft(Path(scratch) / place.name, header, self._draft)
            if target is None:
                return self._numbered(fresh, folder)
            return self._at(fresh, target, force=force)

    @contextmanager
    def _scratch(self, folder: Path) -> Iterator[str]:
        """Make a folder in ``folder``, which is made too, until the manifest is in its place."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".plan-", dir=folder) as scratch:
                yield scratch
        except PermissionError as error:
            raise PlanError(
                f"plan {self.spec.name}: {no_access(folder, error)}; have it belong to this "
                "one, or name a file elsewhere with --manifest=FILE"
            ) from error
        except OSError as error:
            raise PlanError(
                f"plan {self.spec.name}: its manifest cannot be written to {folder} "
                f"({error.strerror}); free some space, or name a file elsewhere with "
                "--manifest=FILE"
            ) from error

    def _no_room(self, error: OSError) -> PlanError:
        return PlanError(
            f"plan {self.spec.name}: its entries cannot be kept in {tempfile.gettempdir()} "
            f"({error.strerror}); free some space there, or name another folder with TMPDIR"
        )

    def close(self) -> None:
        """Give up what was added."""
        self._draft.close()

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
                "remove it, or replace it and send what is planned with --manifest-plan-run=force"
            )
        fresh.path.replace(target)
        return fresh.moved(target)

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
                return fresh.moved(path)


def _same_plan(path: Path, fresh: Manifest) -> bool:
    """Return whether the file holds the same entries and parameters; False for a broken file."""
    try:
        header = Header.model_validate_json(_first_line(path))
    except ValidationError:
        return False
    return (
        header.sha256 == fresh.sha256
        and header.params == fresh.header.params
        and header.rerun == fresh.header.rerun
        and header.entries == len(fresh)
    )


def _looks_like_manifest(path: Path) -> bool:
    """Return whether a file is empty or begins with a line of JSON, as every manifest does."""
    first = _first_line(path)
    try:
        return not first or isinstance(json.loads(first), dict)
    except ValueError:
        return False


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(1_000_000)


def _plain(value: object) -> JsonValue:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)


def preview(
    manifest: Manifest,
    queues: Callable[[Set[str]], Mapping[str, str]],
    limits: Mapping[str, int],
) -> Iterator[str]:
    """Yield what a manifest's jobs are, counted, as lines of plain text.

    ``queues``: returns the queue of each of the tasks whose entries name none, where the app is at
    hand; ``limits``: how many may be in flight of each value of a key.
    """
    header, tasks = manifest.header, Counter[tuple[str, str | None]]()
    longest_timeout, cost = 0.0, None
    for entry in manifest:
        tasks[entry.task, entry.queue] += 1
        longest_timeout = max(longest_timeout, entry.timeout)
        if entry.cost is not None:
            cost = exact(entry.cost) + (cost or 0)
    name = f"{header.workflow}:{header.mode}" if header.workflow else manifest.path.name
    yield f"plan {name}: {len(manifest)} entries in {manifest.path}"
    routed = queues({task for task, queue in tasks if queue is None})
    width = max((len(task) for task, _ in tasks), default=0)
    rows = [
        (task, f"queue {where}" if where else "queue by the app's routes", count)
        for (task, queue), count in tasks.items()
        for where in [queue or routed.get(task)]
    ]
    for task, where, count in sorted(rows):
        yield f"  {count:>7}  {task:<{width}}  {where}"
    yield f"  longest timeout {longest_timeout:g} s"
    if cost is not None:
        yield f"  estimated cost {float(cost):,.4g}"
    keys = manifest.key_counts()
    for name, values in sorted(keys.items()):
        most = f", at most {limits[name]} in flight of each" if name in limits else ""
        entries = plural(values.total(), "entry")
        yield f"  key {name}: {plural(len(values), 'value')} in {entries}{most}"
    for name in sorted(limits.keys() - keys.keys()):
        yield f"  key {name}: no entry has one, so a limit of {limits[name]} holds nothing back"


__all__ = ["PlanBuilder", "PlanSpec", "convert_options", "plan_spec", "preview"]
