"""What the contract needs of a model: how it is opened, and a service that does as it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from pydantic import JsonValue

from tasks.text_model.settings import TextModelSettings

NOTHING: Mapping[str, str] = MappingProxyType({})


class Received(Protocol):
    """One request that the service got, what it answered as, at which tier, and what it billed."""

    @property
    def answered(self) -> str: ...
    @property
    def tier(self) -> str: ...
    @property
    def tokens_in(self) -> int: ...
    @property
    def tokens_out(self) -> int: ...
    @property
    def cached(self) -> int: ...


class Service(Protocol):
    """A local server that speaks the model's wire format.

    It fills each field that a request's schema has, for each key that the schema allows.
    """

    @property
    def url(self) -> str: ...
    @property
    def calls(self) -> Sequence[Received]:
        """Return the requests since the last ``use``."""

    def use(self, script: Mapping[str, JsonValue]) -> None:
        """Do as the script says, and forget the requests so far.

        ``faults``: the next calls, each a key of ``CLASSES``, ``other_model``, ``unnamed`` or
        ``ok``, or a mapping with that as ``kind`` and the seconds of a pause as ``retry``
        (``"37s"``); then all go well. ``cached``: the share of a prompt that is billed as such;
        ``thoughts``: tokens that are billed as output of every call.
        """


@dataclass(frozen=True)
class Rig:
    """A model under the contract.

    ``settings`` are TextModelSettings, by their names; the address is ``serve``'s. ``secret`` is
    the key that the service accepts, and that must be shown nowhere. ``environment`` is what
    ``settings`` do not hold. ``names`` are models that take different parameters. ``cannot`` are
    the faults that the service, or the package that calls it, has no form for.
    """

    settings: Mapping[str, object]
    serve: Callable[[], AbstractContextManager[Service]] | None = None
    secret: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    names: tuple[str, ...] = ()
    cannot: frozenset[str] = frozenset()

    def settings_at(self, url: str | None, **more: object) -> TextModelSettings:
        """Return the settings with this address."""
        return TextModelSettings.model_validate({**self.settings, "base_url": url, **more})
