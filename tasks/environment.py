"""Read settings from the environment, and say which variable has a value that cannot serve."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from pytest_manifest.errors import ManifestToolError

Read = TypeVar("Read", bound=BaseSettings)


class SettingsError(ManifestToolError):
    """An environment variable has a value that cannot serve."""


def from_environment(kind: type[Read]) -> Read:
    """Read settings of a kind; raise SettingsError that names the first variable at fault."""
    try:
        return kind()
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise SettingsError(
            f"{first['loc'][0]}: {first['msg']}; correct it, or leave it unset"
        ) from None
