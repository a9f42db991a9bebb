"""Arguments that the tasks of an app accept: their signatures, and the pydantic models in these."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from pytest_manifest.errors import PlanError
from pytest_manifest.ini import put_on_path
from pytest_manifest.manifest.jsonl import placeholder
from pytest_manifest.schema import Entry
from pytest_manifest.schema.problems import is_model
from pytest_manifest.text import listed

_EMPTY: Final = inspect.Parameter.empty
_DEEPEST: Final = 5
"""Levels of models within models that placeholders are made for."""
_SHOWN: Final = 10


class TaskSignatures:
    """The tasks of an app, by name."""

    def __init__(self, app: str) -> None:
        """Import the app and its tasks. Raises StackError where that fails."""
        from pytest_manifest.broker.client import load_tasks

        put_on_path(Path.cwd())
        self.app = app
        self._tasks = load_tasks(app)
        self._known: dict[str, TaskSignature] = {}

    def of(self, name: str) -> TaskSignature:
        """Return a task's signature. Raises PlanError with names like it where there is none."""
        if name not in self._tasks:
            raise PlanError(f"{self.app} has no task {name!r}; {self._hint(name)}")
        if name not in self._known:
            self._known[name] = TaskSignature.of(name, self._tasks[name])
        return self._known[name]

    def _hint(self, name: str) -> str:
        own = sorted(known for known in self._tasks if not known.startswith("celery."))
        near = get_close_matches(name, own, n=1)
        if near:
            return f"did you mean {near[0]!r}?"
        return f"it has: {listed(own, _SHOWN)}" if own else "it has none of its own"

    def problems(self, entry: Entry) -> Iterator[str]:
        """Yield what does not fit: an unknown task, arguments that it does not accept."""
        try:
            signature = self.of(entry.task)
        except PlanError as error:
            yield str(error)
        else:
            yield from signature.problems(entry.args, entry.kwargs)


@dataclass(frozen=True)
class TaskSignature:
    """The parameters of a task, as its callers see them; ``hints``: their types, by name."""

    task: str
    signature: inspect.Signature
    hints: Mapping[str, object]

    @classmethod
    def of(cls, name: str, task: Any) -> TaskSignature:  # Celery ships no types
        """Read the signature and types of a task of Celery's, which ships no types.

        A type that is not known is left out.
        """
        run = getattr(task, "run", task)
        function = inspect.unwrap(getattr(run, "__func__", run))
        try:
            hints = get_type_hints(function, include_extras=True)
        except Exception:  # a name that is imported for type checkers only, or anything else
            hints = {}
        return cls(name, inspect.signature(run), hints)

    @cached_property
    def parameters(self) -> Sequence[inspect.Parameter]:
        """Return the parameters that have a value each."""
        several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return [one for one in self.signature.parameters.values() if one.kind not in several]

    @cached_property
    def takes_any_name(self) -> bool:
        """Return whether it has ``**kwargs``."""
        kinds = [one.kind for one in self.signature.parameters.values()]
        return inspect.Parameter.VAR_KEYWORD in kinds

    def hint(self, name: str) -> object:
        """Return a parameter's type; Any where it has none."""
        return self.hints.get(name, Any)

    @cached_property
    def _adapters(self) -> Mapping[str, TypeAdapter[object] | None]:
        """Return the converter of each parameter; None where its type says nothing.

        Made once: making one takes many times as long as using it.
        """
        return {one.name: _adapter(self.hint(one.name)) for one in self.parameters}

    def problems(self, args: Sequence[object], kwargs: Mapping[str, object]) -> Iterator[str]:
        """Yield why the task cannot be called like this; types are checked where they are models.

        A plain annotation binds nobody in Python, a model is what the task works with.
        """
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            yield f"{self.task}{self._shown}: {error}"
            return
        for name, value in bound.arguments.items():
            model = _model_of(self.hint(name))
            if model is not None and isinstance(value, dict):
                yield from _model_problems(name, model, value)

    @property
    def _shown(self) -> str:
        return f"({', '.join(self.signature.parameters)})"

    def arguments(self) -> dict[str, JsonValue]:
        """Return an argument for each parameter: its default, or a placeholder.

        A default that JSON does not have is left to the task, which would be given another value.
        """
        found: dict[str, JsonValue] = {}
        by_position = True
        for one in self.parameters:
            if one.default is _EMPTY:
                found[one.name] = _placeholder(self.hint(one.name), 0)
            elif one.kind is inspect.Parameter.POSITIONAL_ONLY and not by_position:
                continue
            elif _is_json(one.default):
                found[one.name] = one.default
            else:
                by_position = False
        return found

    def call(self, values: Mapping[str, JsonValue]) -> tuple[list[JsonValue], dict[str, JsonValue]]:
        """Return values by name as ``args``, where the task takes them by position, and ``kwargs``.

        Raises ValueError where one by position follows one that is left out.
        """
        args: list[JsonValue] = []
        kwargs = dict(values)
        left_out: str | None = None
        for one in self.parameters:
            if one.kind is not inspect.Parameter.POSITIONAL_ONLY:
                continue
            if one.name not in kwargs:
                left_out = left_out or one.name
            elif left_out:
                raise ValueError(f"{one.name} has a value, so {left_out} before it needs one, too")
            else:
                args.append(kwargs.pop(one.name))
        return args, kwargs

    def convert(self, name: str, text: str) -> JsonValue:
        """Convert a text by the parameter's type to JSON. Raises ValueError where it is none.

        It is read as JSON where a model, an object or a list is wanted; an empty one is null where
        that may be.
        """
        adapter = self._adapters.get(name)
        if adapter is None:
            return text
        try:
            return _dumped(adapter, adapter.validate_python(text))
        except ValidationError as error:
            refused = error
        if not text or text.startswith(("{", "[")):
            try:
                return _dumped(adapter, adapter.validate_json(text or "null"))
            except ValidationError as error:
                refused = error if text else refused
        raise ValueError(_first(refused)) from None


def _adapter(hint: object) -> TypeAdapter[object] | None:
    if hint is Any:
        return None
    try:
        return TypeAdapter(hint)  # type: ignore[arg-type]  # a type known at run time
    except PydanticUserError:  # a class that pydantic does not know
        return None


def _is_json(value: object) -> bool:
    """Return whether a task is given this very value where it is sent as JSON."""
    if type(value) is list:
        return all(map(_is_json, value))
    if type(value) is dict:
        return all(type(name) is str and _is_json(one) for name, one in value.items())
    if type(value) is float:
        return isfinite(value)
    return value is None or type(value) in (str, int, bool)


def _dumped(adapter: TypeAdapter[object], value: object) -> JsonValue:
    found: JsonValue = adapter.dump_python(value, mode="json", by_alias=True)
    return found


def _model_of(hint: object) -> type[BaseModel] | None:
    """Return the model that a type is, or is if it is not None."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    parts = hint, *get_args(hint)
    return next((one for one in parts if is_model(one, BaseModel)), None)


def _model_problems(name: str, model: type[BaseModel], value: object) -> Iterator[str]:
    try:
        model.model_validate(value)
    except ValidationError as error:
        for one in error.errors():
            place = ".".join([name, *map(str, one["loc"])])
            yield f"argument {place}: {one['msg']} ({model.__name__})"


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def _placeholder(hint: object, depth: int) -> JsonValue:
    """Return what stands for a value: of a model its fields, else a text that names the type."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if depth < _DEEPEST and is_model(hint, BaseModel):
        return dict(_fields(hint, depth + 1))
    return placeholder(_type_name(hint))


def _fields(model: type[BaseModel], depth: int) -> Iterator[tuple[str, JsonValue]]:
    """Yield a model's fields; those whose default JSON does not have, or is made, are left out."""
    for name, field in model.model_fields.items():
        shown = field.alias or name
        if field.is_required():
            yield shown, _placeholder(field.annotation, depth)
        elif field.default_factory in (list, dict):
            yield shown, field.default_factory()
        elif field.default_factory is None and _is_json(field.default):
            yield shown, field.default


def _type_name(hint: object) -> str:
    if hint is Any:
        return "any value"
    if get_origin(hint) is Literal:
        return " or ".join(repr(one) for one in get_args(hint))
    if isinstance(hint, type) and get_origin(hint) is None:
        return hint.__name__
    return str(hint).replace("typing.", "")
