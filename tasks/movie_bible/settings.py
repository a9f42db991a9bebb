"""Read the settings of the movie bible's database from the environment."""

from __future__ import annotations

from pydantic import (
    AliasChoices,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.movie_bible.errors import BibleError
from tasks.settings import PROJECT

LOCAL_BIBLE = f"sqlite:///{PROJECT / '.manifest' / 'movie_bible.sqlite3'}"


class BibleSettings(BaseSettings):
    """Times in seconds. The URL may hold a password, so ``repr`` leaves it out.

    An empty variable counts as not set.
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    url: str = Field(
        LOCAL_BIBLE,
        validation_alias=AliasChoices(
            "GAP_FILL_DATABASE_URL", "MANIFEST_DATABASE_URL", "DATABASE_URL"
        ),
        repr=False,
    )
    pool_size: PositiveInt = Field(5, validation_alias="MANIFEST_DATABASE_POOL_SIZE")
    pool_overflow: NonNegativeInt = Field(5, validation_alias="MANIFEST_DATABASE_POOL_OVERFLOW")
    pool_timeout: PositiveFloat = Field(30.0, validation_alias="MANIFEST_DATABASE_POOL_TIMEOUT")
    lock_timeout: PositiveFloat = Field(30.0, validation_alias="MANIFEST_DATABASE_LOCK_TIMEOUT")


def bible_settings(url: str | None = None) -> BibleSettings:
    """Read the environment's settings, with another URL if given.

    Raises BibleError that names the variable.
    """
    try:
        settings = BibleSettings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise BibleError(
            f"the environment variable {name} cannot be used ({first['msg']}); correct it or "
            "leave it out"
        ) from None
    return settings if url is None else settings.model_copy(update={"url": url})
