"""Run a session with the secrets, and look for them in all that it leaves, prints and starts."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Final
from urllib.request import HTTPCookieProcessor, build_opener

from tests.canary import planted, project
from tests.receivers import receiver

MAY_HOLD: Final = ("*.sqlite", "*.receipts.jsonl", "*.manifest-*.jsonl", "*.manifest.jsonl")
"""Files of the runs' folder that have to hold what was sent and received; their mode is 0600."""
_SECRET: Final = "whsec_c2VjcmV0IG9mIGEgdGVzdA=="
_SESSION_SECONDS: Final = 280
_POLL_SECONDS: Final = 0.2
_PAGE_SECONDS: Final = 60
_DEFAULT: Final = ("--manifest=m.jsonl", "-vv", "-rA", "--showlocals")


@dataclass
class Finding:
    """What was looked at: names of files and outputs, and for each secret where it was seen."""

    looked_at: list[str] = field(default_factory=list)
    receiver: str = ""
    """The host and port of who is told of the runs."""
    held: dict[str, int] = field(default_factory=dict)
    """Files that may hold secrets, with their modes."""
    seen: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def look(self, name: str, text: str) -> None:
        """Look for all secrets in a text."""
        self.looked_at.append(name)
        for place in planted.PLACES:
            for kind in planted.KINDS:
                if any(mark in text for mark in planted.marks(kind, place)):
                    self.seen.setdefault((kind, place), []).append(name)


def run(folder: Path, *more: str) -> Finding:
    """Run the session and the commands about it in an empty folder."""
    project.write(folder)
    with receiver() as told:
        found = Finding(receiver=told.host)
        _run(folder, found, *more)
        assert len(told.posts) > 6  # by each of the three ways
        for number, post in enumerate(told.posts):
            found.look(f"post {number} to {post.path}", f"{post.path} {post.headers} {post.body}")
    return found


def _run(folder: Path, found: Finding, *more: str) -> None:
    reports = [
        "--junitxml=reports/junit.xml",
        "--alluredir=reports/allure",
        "--manifest-report=reports/run.html",
        "--manifest-report=reports/summary.md",
        "--manifest-report=reports/summary.json",
    ]
    _call(folder, found, "pytest", *_DEFAULT, *reports, *more)
    again = ["test_user.py", "--manifest-audit", "-n2"]
    again += ["--junitxml=reports/user.xml", "--alluredir=reports/allure-of-user"]
    _call(folder, found, "pytest", *_DEFAULT, *again, *more)
    _call(folder, found, "pytest", *_DEFAULT, f"--manifest-broker={planted.broker_url()}")
    for command in (
        ("show", "last", "--limit=0"),
        ("show", "last", "--limit=0", "--json"),
        ("show", "m.jsonl", "--limit=0"),
        ("show", "m.jsonl", "--limit=0", "--json"),
        ("show", "last", "--tree=13-00"),
        ("show", "last", "--diff=last", "--all"),
        ("status", "last"),
        ("doctor", "last"),
        ("lint", "m.jsonl", "--app=jobs:app"),
        ("export", "last", "--format=csv"),
        ("export", "last", "--format=ctrf"),
        ("export", "last", "--format=openlineage"),
        ("export", "last", "--format=otlp"),
        ("export", "last", "--format=prometheus"),
        ("export", "last", "--format=page"),
        ("export", "last", "--format=markdown"),
        ("show", "m.jsonl", "--runs"),
        ("history", "m.jsonl", "-o", "reports/history.html"),
        ("history", "m.jsonl", "--json"),
        ("triage", "--json"),
        ("check", "last"),
    ):
        _call(folder, found, "pytest_manifest", *command)
    _look_at_page(folder, found)
    _look_at_files(folder, found)


def _look_at_page(folder: Path, found: Finding) -> None:
    """Look at the live page: the page itself, its figures, its lists, and each entry."""
    command = [sys.executable, "-m", "pytest_manifest", "watch", "--json", "--control"]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | planted.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            told = "".join(iter(process.stdout.readline, "}\n"))
            address = json.loads(f"{told}}}")["address"]
            base = address.partition("?")[0]
            reader = build_opener(HTTPCookieProcessor(CookieJar()))
            with reader.open(address, timeout=_PAGE_SECONDS) as page:
                found.look("page of manifest watch", page.read().decode())
            with reader.open(f"{base}events", timeout=_PAGE_SECONDS) as stream:
                found.look("figures of manifest watch", stream.readline().decode())
            for start in range(0, len(planted.entries()), 200):
                with reader.open(f"{base}entries?after={start}", timeout=_PAGE_SECONDS) as answer:
                    found.look(f"list of manifest watch, {start}", answer.read().decode())
            for entry in planted.entries():
                with reader.open(f"{base}entry?id={entry['id']}", timeout=_PAGE_SECONDS) as answer:
                    found.look(f"entry {entry['id']} of manifest watch", answer.read().decode())
        finally:
            process.kill()


def _call(folder: Path, found: Finding, module: str, *arguments: str) -> None:
    """Run a module, look at its output, and while it runs at all processes of the project."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CELERY_", "MANIFEST_", "PYTEST_", "GITHUB_"))
    }
    env |= planted.environment()
    env |= {"CANARY_HOST": found.receiver, "MANIFEST_WEBHOOK_SECRET": _SECRET}
    env |= {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(folder / "step.md")}
    name = f"{module} {' '.join(arguments)}"[:60]
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(folder, found, name, ended), daemon=True)
    watch.start()
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SESSION_SECONDS,
            check=False,
        )
    finally:
        ended.set()
        watch.join()
    (folder / "outputs").mkdir(exist_ok=True)
    number = len(found.looked_at)
    (folder / "outputs" / f"{number:03}.txt").write_text(f"{name}\n{done.stdout}\n{done.stderr}")
    found.look(f"output of {name} ({done.returncode})", f"{done.stdout}\n{done.stderr}")
    if module == "pytest_manifest":  # what is no command of it would have nothing to show
        assert done.returncode in (0, 1), f"{name}: {done.stderr}"


def _watch(folder: Path, found: Finding, name: str, ended: threading.Event) -> None:
    """Look at the command lines and environments of the project's processes until it has ended."""
    lines: set[str] = set()
    environments: set[str] = set()
    while not ended.wait(_POLL_SECONDS):
        for process in _processes(folder):
            arguments = _text(process / "cmdline").replace("\0", " ")
            if "--manifest-broker=redis" not in arguments:  # the user has written it there
                lines.add(arguments)
            own = dict(
                row.partition("=")[::2] for row in _text(process / "environ").split("\0") if row
            )
            added = own.keys() - planted.environment().keys()
            environments.add("\n".join(own[key] for key in sorted(added)))
    found.look(f"command lines of {name}", "\n".join(sorted(lines)))
    found.look(f"variables added by {name}", "\n".join(sorted(environments)))


def _processes(folder: Path) -> Iterator[Path]:
    """Yield the processes that work in the project's folder, or below it."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                if (process / "cwd").resolve().is_relative_to(folder):
                    yield process
            except OSError:
                continue


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _look_at_files(folder: Path, found: Finding) -> None:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        mine = str(name) in project.INPUTS or "__pycache__" in name.parts
        if mine or name.parts[0] == "outputs" or not path.is_file():
            continue
        if name.parts[0] == ".manifest" and any(path.match(one) for one in MAY_HOLD):
            found.held[str(name)] = stat.S_IMODE(path.stat().st_mode)
            continue
        found.look(str(name), path.read_bytes().decode("utf-8", "replace"))


def table(seen: Mapping[tuple[str, str], Sequence[str]]) -> str:
    """Return how often each kind of secret was seen of each place, as a Markdown table."""
    kinds = list(planted.KINDS)
    lines = [f"| place | {' | '.join(kinds)} |", f"| --- |{' --- |' * len(kinds)}"]
    for place in planted.PLACES:
        cells = [str(len(seen.get((kind, place), ()))) for kind in kinds]
        lines.append(f"| {place} | {' | '.join(cells)} |")
    return "\n".join(lines)
