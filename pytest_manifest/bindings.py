"""The entry, group or manifest that a test verifies, as its parameter carries it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from typing_extensions import Self


BUILTIN_ENTRY = "manifest_builtin_entry"
"""The fixture of the built-in verification; a name that no project uses."""
BUILTIN_GROUP = "manifest_builtin_group"
"""That of the built-in verification of a group of entries."""
OF_VERDICT = "manifest_of_verdict"
"""The attribute of a test's report that failed by its entry's verdict alone: the manifest."""
NO_ENTRY = "no-entry"
OUR_ARGUMENTS = (BUILTIN_ENTRY, "entry", BUILTIN_GROUP, "manifest")
"""The fixtures that we may parametrize a test by, an entry's before the manifest's."""
BESIDE_GROUPS = "beside-groups"
"""The parameter of a test of single entries, where entries are put together."""


class Binding(NamedTuple):
    """The subject of a test item: an entry of a manifest, a ``group`` of entries, or (both None)
    the manifest itself.

    ``whole_run``: it must wait until every selected entry of the manifest has its verdict.
    ``builtin``: it is a test of ours, which holds a receipt against the entry's expectations alone.
    """

    manifest: Path
    entry: str | None
    whole_run: bool = False
    group: str | None = None
    builtin: bool = False

    @property
    def subject(self) -> str | None:
        """Return the entry's id or the group's name; a session has tests of one kind only."""
        return self.entry if self.group is None else self.group


class Subject(str):
    """The id of an entry, or the name of a group or a manifest, as a test's parameter; it also
    knows what a test of it verifies, and the entry's tags.

    A plain string to everyone else: Allure's history is a hash over the parameters.
    """

    __slots__ = ("binding", "tags")
    binding: Binding
    tags: Sequence[str]

    def __new__(cls, name: str, binding: Binding, tags: Sequence[str] = ()) -> Self:
        self = super().__new__(cls, name)
        self.binding, self.tags = binding, tags
        return self


class RawId:
    """A parameter id that pytest shows as it is.

    pytest escapes strings outside ASCII and then does not find them as typed; of any other object
    it takes ``__name__`` unchanged.
    """

    __slots__ = ("__name__",)

    def __init__(self, text: str) -> None:
        self.__name__ = text


def params_of(item: object) -> dict[str, Any]:  # a parameter can be anything
    """Return the parameters of a test."""
    callspec = getattr(item, "callspec", None)
    return {} if callspec is None else callspec.params


def subject_of(item: pytest.Item) -> Subject | None:
    """Return the parameter by which a test is bound to a manifest, or None for any other test."""
    params = params_of(item)
    for name in OUR_ARGUMENTS if params else ():
        if isinstance(value := params.get(name), Subject):
            return value
    return None


def binding_of(item: pytest.Item) -> Binding | None:
    """Return the binding of a collected item, or None for a test that is bound to no manifest."""
    subject = subject_of(item)
    return None if subject is None else subject.binding


def bindings_of(items: Iterable[pytest.Item]) -> list[Binding]:
    """Return the bindings of the items that have one."""
    return [binding for _, binding in tests_of(items)]


def tests_of(items: Iterable[pytest.Item]) -> Iterator[tuple[str, Binding]]:
    """Yield the ids of the items that have a binding, and these."""
    for item in items:
        if (binding := binding_of(item)) is not None:
            yield item.nodeid, binding


def tags_of(item: pytest.Item) -> Sequence[str]:
    """Return the tags of the entry that a test verifies."""
    subject = subject_of(item)
    return () if subject is None else subject.tags


def is_builtin(item: pytest.Item) -> bool:
    """Return whether the item is a test of the built-in verification."""
    return isinstance(params_of(item).get(BUILTIN_ENTRY), Subject)
