"""The list of what leads an app to a broker or store of its own, held against Celery's own."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import celery
import kombu
import pytest
from celery.app.defaults import DEFAULTS
from celery.app.utils import Settings
from kombu.transport import redis as redis_transport

from pytest_manifest.broker.celery_settings import (
    HARMLESS_OPTIONS,
    OPTIONS,
    PARTS,
    URLS,
    VARIABLES,
    environment,
    harmless,
    is_overridden,
)
from pytest_manifest.stack.client import own_pythonpath
from pytest_manifest.stack.private import URL_VARIABLE, leads_elsewhere

PLACES: Final = re.compile(
    r"(^|_)(broker|backend|url|uri|dburi|redis|database|cache|servers?|host|port|sentinel|user|"
    r"username|password|vhost|endpoint|bucket|db|dsn|state|pool|provider|transport|cassandra|s3|"
    r"azureblockblob|gcs|couchbase|couchdb|mongodb|arangodb|cosmosdbsql|elasticsearch|dynamodb|"
    r"memcached|path|store)(_|$)"
)
"""What the name of a setting holds that may lead somewhere."""


def may_lead_somewhere(name: str) -> bool:
    return PLACES.search(name.lower()) is not None


HARMLESS: Final = {
    "how often something is tried, and how long it may take": (
        "broker_connection_timeout broker_connection_retry broker_connection_retry_on_startup "
        "broker_connection_max_retries broker_channel_error_retry broker_heartbeat "
        "broker_heartbeat_checkrate broker_pool_limit broker_pool_acquire_timeout "
        "redis_max_connections redis_socket_timeout redis_socket_connect_timeout "
        "redis_retry_on_timeout redis_socket_keepalive result_cache_max "
        "result_backend_max_sleep_between_retries_ms result_backend_max_retries "
        "result_backend_base_sleep_between_retries_ms result_backend_always_retry "
    ),
    "of RabbitMQ's queues only": "broker_native_delayed_delivery_queue_type",
    "how to keep what in a store that is of no use without its name": (
        "cassandra_entry_ttl cassandra_keyspace cassandra_port cassandra_read_consistency "
        "cassandra_table cassandra_write_consistency cassandra_auth_provider "
        "cassandra_auth_kwargs cassandra_options s3_access_key_id s3_secret_access_key "
        "s3_base_path s3_region azureblockblob_container_name "
        "azureblockblob_retry_initial_backoff_sec azureblockblob_retry_increment_base "
        "azureblockblob_retry_max_attempts azureblockblob_base_path "
        "azureblockblob_connection_timeout azureblockblob_read_timeout gcs_project gcs_base_path "
        "gcs_ttl cosmosdbsql_database_name cosmosdbsql_collection_name "
        "cosmosdbsql_consistency_level cosmosdbsql_max_retry_attempts "
        "cosmosdbsql_max_retry_wait_time elasticsearch_retry_on_timeout "
        "elasticsearch_max_retries elasticsearch_timeout elasticsearch_save_meta_as_text "
        "database_engine_options database_engine_callback database_short_lived_sessions "
        "database_table_schemas database_table_names database_create_tables_at_setup"
    ),
    "how a worker's processes are made": (
        "worker_pool_putlocks worker_pool_restarts worker_pool_start_method"
    ),
    "no place of jobs or results": (
        "security_cert_store security_key_password task_store_errors_even_if_ignored "
        "task_store_eager_result"
    ),
}


def test_every_setting_that_may_lead_elsewhere_is_known() -> None:
    """A new Celery with another name for a broker or store ends here, not at somebody's broker."""
    known = set(" ".join(HARMLESS.values()).split())
    suspects = {name for name in DEFAULTS if may_lead_somewhere(name)}

    assert {name for name in suspects if not is_overridden(name)} == known & DEFAULTS.keys()
    without = {name for name in (*URLS, *PARTS, *OPTIONS) if name not in DEFAULTS}
    # Celery reads them, and has no defaults for them.
    ours = {
        "redis_backend_credential_provider",
        "cassandra_secure_bundle_path",
        "dynamodb_endpoint_url",
    }
    assert without >= ours
    assert celery.VERSION < (5, 7) or (without == ours and known <= DEFAULTS.keys())


def test_every_setting_that_is_asked_for_by_name_is_known() -> None:
    """Also what Celery's stores read without having a default for it."""
    names: set[str] = set()
    for path in Path(celery.__file__).parent.joinpath("backends").glob("*.py"):
        names |= set(re.findall(r"(?:conf\.get|_get)\(\s*'(\w+)'", path.read_text("utf-8")))
    asked = {name for name in names - DEFAULTS.keys() if may_lead_somewhere(name)}

    assert {name for name in asked if not is_overridden(name)} <= {
        "redis_backend_health_check_interval",
        "redis_client_name",
        "result_backend_thread_safe",
        "gcs_threadpool_maxsize",
    }


def test_every_variable_is_known() -> None:
    """What Celery's settings look for in the environment."""
    source = inspect.getsource(Settings)

    assert set(re.findall(r"environ\.get\('(\w+)'\)", source)) == set(VARIABLES)


def test_every_option_of_the_transport_is_known() -> None:
    """Those of kombu's Redis transport: Sentinel's lead elsewhere, the others do not."""
    plain = set(redis_transport.Channel.from_transport_options)
    sentinel = set(redis_transport.SentinelChannel.from_transport_options)

    assert plain <= HARMLESS_OPTIONS
    assert not (sentinel - plain) & HARMLESS_OPTIONS
    assert kombu.__version__  # whose options these are


def test_only_harmless_options_are_left() -> None:
    """A prefix of keys stays, as clients of the app have it too; no server's name does."""
    options = {"global_keyprefix": "shop:", "master_name": "main", "visibility_timeout": 5}

    assert harmless(options) == {"global_keyprefix": "shop:", "visibility_timeout": 5}
    assert harmless(None) == {}


def test_the_environment_leads_to_the_stack() -> None:
    """All variables, and those that the program would prefer to them, if they are there."""
    assert environment("u", {}) == dict.fromkeys(VARIABLES, "u")
    assert environment("u", {"BROKER_URL": "x"})["BROKER_URL"] == "u"


PROBE = """
import os, sys
from pytest_manifest.stack.private import prepare
prepare()
from celery import Celery
from celery.app.defaults import DEFAULTS
old = sys.argv[1:] == ["old"]
if old:
    app = Celery("a")
    app.config_from_object({"BROKER_URL": "redis://prod/1", "CELERY_RESULT_BACKEND": "redis://prod",
        "BROKER_TRANSPORT_OPTIONS": {"master_name": "m", "global_keyprefix": "k"}})
else:
    app = Celery("a", namespace="SHOP")
    class Source: pass
    for name in DEFAULTS:
        if name.startswith(("broker", "redis")):
            setattr(Source, "SHOP_" + name.upper(), {"master_name": "m"})
    app.config_from_object(Source, namespace="SHOP")
os.environ["CELERY_BROKER_READ_URL"] = "redis://prod"
conf = app.conf
print([conf.broker_url, conf.broker_read_url, conf["broker_write_url"], conf.result_backend])
print([conf.broker_user, conf.redis_host, conf.BROKER_USE_SSL, conf.broker_transport_options])
print([conf.get("SHOP_BROKER_URL"), conf.get("BROKER_URL"), conf.get("CELERY_RESULT_BACKEND")])
table = conf.table(with_defaults=True, censored=False)
print([table["BROKER_URL" if old else "broker_url"], conf.task_serializer])
conf["broker_transport"] = "shop.transport:Transport"
print(conf.broker_transport)
"""


@pytest.mark.parametrize("names", ["old", "new"])
def test_an_app_reads_the_stacks_settings_by_every_name(names: str) -> None:
    """Old names, names with a prefix, attributes, items, the whole table: one answer."""
    url = "redis://127.0.0.1:1/0"
    env = os.environ | own_pythonpath() | {URL_VARIABLE: url}
    shown = subprocess.run(
        [sys.executable, "-c", PROBE, names], env=env, capture_output=True, text=True, check=True
    )
    urls, parts, others, table, transport = shown.stdout.splitlines()

    assert urls == str([url] * 4)
    kept = {"global_keyprefix": "k"} if names == "old" else {}
    assert parts == str([None, None, False, kept])
    assert others == str([url if names == "new" else None, url, url])
    assert table == str([url, "json"])
    assert transport == "None"


def test_an_app_with_connections_of_its_own_is_refused() -> None:
    """A class that goes elsewhere in its own way cannot be led away, so it is not run."""
    url = "redis://127.0.0.1:1/0"

    class Elsewhere(celery.Celery):  # type: ignore[misc]  # Celery ships no types
        def connection_for_read(self, url: object = None, **more: object) -> object:
            return super().connection_for_read("redis://production/0", **more)

    class Keeping(celery.Celery):  # type: ignore[misc]  # as above
        backend = object()

    def refusal(kind: type) -> str:
        with kind(broker=url, backend=url, set_as_current=False) as app:
            return leads_elsewhere(app, url)

    assert refusal(celery.Celery) == ""
    assert "read from a broker of its own" in refusal(Elsewhere)
    assert "results in a store of its own" in refusal(Keeping)
