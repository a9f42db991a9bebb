"""``--manifest-live`` and ``manifest watch``: a page beside the run, by a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from http.cookiejar import CookieJar
from urllib.error import HTTPError

import psutil
import pytest

from pytest_manifest.ledger import Ledger
from tests.interrupting import is_alive
from tests.plugin.conftest import Project
from tests.plugin.outside import pytest_beside
from tests.processes import talking
from tests.support import eventually

pytestmark = pytest.mark.live
LATER = pytest.mark.ring(2)
BROKER = "--manifest-broker=memory://"
MANIFEST = "--manifest=m.jsonl"
QUICK = ("-p", "no:cacheprovider", BROKER, MANIFEST)
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}")


def opener(address: str) -> urllib.request.OpenerDirector:
    """A reader that has followed the address, and keeps its cookie."""
    made = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    with closing(made.open(address, timeout=30)) as answer:
        assert answer.status == 200
    return made


def snapshots(address: str) -> Generator[dict[str, object], None, None]:
    """The figures, as the page's stream has them; the reader leaves with the generator."""
    base = address.partition("?")[0]
    with closing(opener(address).open(f"{base}events", timeout=30)) as stream:
        for line in stream:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])


def servers(pid: int) -> list[psutil.Process]:
    """The processes of live pages that this one has started."""
    some = psutil.Process(pid).children(recursive=True)
    return [one for one in some if "serve_for_pytest" in " ".join(one.cmdline())]


def gone(processes: list[psutil.Process]) -> None:
    eventually(lambda: not any(map(is_alive, processes)), within=30, what="the page's end")


def held(project: Project) -> None:
    """A manifest of which one job runs on until its file is removed."""
    rows: list[dict[str, object]] = [
        {"id": "a", "task": "jobs.double", "kwargs": {"n": 1}, "expect": {"result": {"n": 3}}},
        {"id": "held", "task": "jobs.hold", "kwargs": {"key": "h"}},
    ]
    project.manifest("m.jsonl", rows)


def release(project: Project) -> None:
    """Have the job that is held end."""
    (project.path / "hold-h").unlink(missing_ok=True)


@contextmanager
def going_on(project: Project, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A session in the middle of its run, and the address that its header has."""
    held(project)
    flag = project.hold("h")
    with pytest_beside(project, *QUICK, *(more or ("--manifest-live",))) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        address = next(found[0] for one in lines if (found := ADDRESS.search(one)))
        try:
            yield process, address
        finally:
            flag.unlink(missing_ok=True)


def figures(address: str, state: str = "running") -> dict[str, object]:
    """The first figures of this state."""
    with closing(snapshots(address)) as some:
        return next(one for one in some if one.get("state") == state and one.get("done"))


def test_the_header_has_the_address_and_the_page_follows_the_run(project: Project) -> None:
    """While a job is held; at the end nobody reads it, and its process ends with pytest."""
    with going_on(project) as (process, address):
        found = figures(address)
        assert (found["total"], found["done"], found["control"]) == (2, 1, False)
        pages = servers(process.pid)
        assert len(pages) == 1
        command = " ".join(pages[0].cmdline())
        assert address.partition("token=")[2] not in command
        release(project)
        text, _ = process.communicate(timeout=100)
    assert process.returncode == pytest.ExitCode.TESTS_FAILED
    gone(pages)
    with Ledger.open(project.ledgers()[0]) as ledger:
        assert ledger.info.status == "finished"
    assert "INTERNALERROR" not in text


def test_a_page_that_is_read_outlives_pytest_until_its_reader_leaves(project: Project) -> None:
    """That is said; the last figures are those of the end, and the run page is there."""
    with going_on(project, "--manifest-live=control") as (process, address):
        some = snapshots(address)
        first = next(one for one in some if one.get("done"))
        assert first["control"] is True
        pages = servers(process.pid)
        release(project)
        last = next(one for one in some if one["is_over"])
        assert last["done"] == 2
        text, _ = process.communicate(timeout=100)
        assert f"ends with its last reader: {address}" in " ".join(text.split())
        with closing(opener(address).open(address, timeout=60)) as page:
            assert b'id="data"' in page.read()
        assert all(map(is_alive, pages))
        some.close()
    gone(pages)


@LATER
def test_kill_9_of_pytest_leaves_no_page(project: Project) -> None:
    """Nobody reads it, so it ends; it needs no word of pytest for that."""
    with going_on(project) as (process, address):
        figures(address)
        pages = servers(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        gone(pages)


@LATER
def test_a_page_goes_on_for_its_reader_when_pytest_is_killed(project: Project) -> None:
    """And says that pytest is gone."""
    with going_on(project) as (process, address):
        some = snapshots(address)
        next(one for one in some if one.get("done"))
        pages = servers(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        left = next(one for one in some if one["state"] == "left")
        assert left["is_over"] is False
        some.close()
        gone(pages)


@LATER
def test_a_session_that_collects_nothing_leaves_no_page(project: Project) -> None:
    held(project)
    done = project.run_process(*QUICK, "--manifest-live", "-k", "nothing")
    assert "live: http://127.0.0.1:" in done.stdout.str()
    assert servers(os.getpid()) == []


@LATER
def test_each_manifest_has_its_page(project: Project) -> None:
    """Each with its own address and token."""
    held(project)
    project.manifest("n.jsonl", [{"id": "b", "task": "jobs.double", "kwargs": {"n": 2}}])
    done = project.run_process(*QUICK, "--manifest=n.jsonl", "--manifest-live")
    lines = [one for one in done.outlines if one.startswith("live: ")]
    assert [one.rpartition(" ")[2] for one in lines] == ["(m.jsonl)", "(n.jsonl)"]
    assert len({one.partition("token=")[2] for one in lines}) == 2


# manifest watch


@contextmanager
def watching(project: Project, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with talking("-m", "pytest_manifest", "watch", *arguments, cwd=project.path) as process:
        yield process


@LATER
def test_manifest_watch_follows_a_run_of_another_process(project: Project) -> None:
    """It says its address; Ctrl-C ends it, with status 0, and the run goes on."""
    with held_run(project) as process:
        with watching(project, "last", "--port=0") as watch:
            assert watch.stdout is not None
            found = ADDRESS.search(watch.stdout.readline())
            assert found is not None
            assert figures(found[0])["total"] == 2
            watch.send_signal(signal.SIGINT)
            assert watch.wait(30) == 0
        assert process.poll() is None
        release(project)
        process.communicate(timeout=100)
    assert process.returncode == pytest.ExitCode.TESTS_FAILED


@contextmanager
def held_run(project: Project) -> Iterator[subprocess.Popen[str]]:
    """A session in the middle of its run, which has no page."""
    held(project)
    flag = project.hold("h")
    with pytest_beside(project, *QUICK) as process:
        eventually(lambda: project.ledgers() and "1" in project.ran(), within=60, what="a job ran")
        yield process
        flag.unlink(missing_ok=True)


@LATER
def test_manifest_watch_shows_a_run_that_is_over_as_its_run_page(project: Project) -> None:
    """``--json`` has the address for programs; without its token there is nothing to be seen."""
    project.manifest("m.jsonl", [{"id": "b", "task": "jobs.double", "kwargs": {"n": 2}}])
    project.run_process(*QUICK)
    with watching(project, "--json", "--control") as watch:
        assert watch.stdout is not None
        text = "".join(iter(watch.stdout.readline, "}\n"))
        about = json.loads(f"{text}}}")
        assert about.keys() == {"run", "address", "control"}
        assert about["control"] is True
        with closing(opener(about["address"]).open(about["address"], timeout=60)) as page:
            assert b'id="data"' in page.read()
        with pytest.raises(HTTPError, match="403"):
            urllib.request.urlopen(about["address"].partition("?")[0], timeout=30)


@LATER
def test_manifest_watch_refuses_a_port_that_is_taken(project: Project) -> None:
    project.manifest("m.jsonl", [{"id": "b", "task": "jobs.double", "kwargs": {"n": 2}}])
    project.run_process(*QUICK)
    with watching(project, "--json") as watch:
        assert watch.stdout is not None
        address = json.loads("".join(iter(watch.stdout.readline, "}\n")) + "}")["address"]
        port = address.partition("/?")[0].rpartition(":")[2]
        done = subprocess.run(
            [sys.executable, "-m", "pytest_manifest", "watch", f"--port={port}"],
            cwd=project.path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert f"--port={port}: Address already in use; name another, or none" in done.stderr
