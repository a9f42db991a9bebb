"""Read the settings of broker, result store and database from the environment."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from pydantic import AliasChoices, Field, NonNegativeInt, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT = Path(__file__).resolve().parent.parent

# In the project's folder and not below the working directory, so that workers and the verifying
# process share one file wherever each was started.
LOCAL_DATABASE = f"sqlite:///{PROJECT / '.manifest' / 'system_test.sqlite3'}"


class Settings(BaseSettings):
    """Read once a process; times in seconds. URLs may hold passwords, so ``repr`` leaves them out.

    An empty variable counts as not set. There is no broker unless the environment names one, by its
    URL or as ``REDIS_ADDRESS`` (``HOST:PORT``) and ``REDIS_PASSWORD``: a batch then runs on a
    private stack.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    given_broker: str | None = Field(None, validation_alias="CELERY_BROKER_URL", repr=False)
    redis_address: str | None = Field(None, validation_alias="REDIS_ADDRESS")
    redis_password: SecretStr = Field(SecretStr(""), validation_alias="REDIS_PASSWORD")
    result_backend: str | None = Field(None, validation_alias="CELERY_RESULT_BACKEND", repr=False)
    task_time_limit: PositiveInt = Field(3600, validation_alias="CELERY_TASK_TIME_LIMIT")
    result_expires: PositiveInt = Field(86_400, validation_alias="CELERY_RESULT_EXPIRES")

    database_url: str = Field(
        LOCAL_DATABASE,
        validation_alias=AliasChoices("MANIFEST_DATABASE_URL", "DATABASE_URL"),
        repr=False,
    )
    pool_size: PositiveInt = Field(5, validation_alias="MANIFEST_DATABASE_POOL_SIZE")
    pool_overflow: NonNegativeInt = Field(5, validation_alias="MANIFEST_DATABASE_POOL_OVERFLOW")
    pool_timeout: PositiveFloat = Field(30.0, validation_alias="MANIFEST_DATABASE_POOL_TIMEOUT")
    lock_timeout: PositiveFloat = Field(30.0, validation_alias="MANIFEST_DATABASE_LOCK_TIMEOUT")

    run_counter: str | None = Field(None, validation_alias="MANIFEST_RUN_COUNTER")

    @property
    def broker_url(self) -> str | None:
        """Return the URL of the broker: as given, else the first database of the Redis."""
        return self.given_broker or self._redis_url(0)

    @property
    def results_url(self) -> str | None:
        """Return the URL of the result store; unless set, a Redis broker keeps the results too."""
        if self.result_backend is not None or self.broker_url is None:
            return self.result_backend
        if self.given_broker is None:
            return self._redis_url(1)
        return self.broker_url if is_redis(self.broker_url) else "rpc://"

    def _redis_url(self, database: int) -> str | None:
        """Return the URL of a database of the Redis; its password may hold any character."""
        if self.redis_address is None:
            return None
        password = quote(self.redis_password.get_secret_value(), safe="")
        account = f":{password}@" if password else ""
        return f"redis://{account}{self.redis_address}/{database}"


def is_redis(url: str) -> bool:
    """Return whether the URL names a Redis or Valkey server."""
    return url.startswith(("redis://", "rediss://", "redis+socket://"))
