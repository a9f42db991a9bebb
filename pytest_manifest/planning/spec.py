"""Read a planning function's declaration: its name, the fixtures it asks for, and its options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import SimpleNamespace
from typing import Annotated, get_type_hints

from pydantic import BeforeValidator, JsonValue, TypeAdapter, ValidationError

from pytest_manifest.errors import PlanError
from pytest_manifest.schema.fields import LONGEST, is_identifier

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
