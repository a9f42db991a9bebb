"""Runs a document's blocks, in order, in one folder, as its reader would."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Container, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from tests.docs.blocks import Block, blocks, missing_line, steps
from tests.services import valkey_server
from tests.support import lean

COMMAND_SECONDS = 120
BROKER = "redis://broker.example.com:6379/0"
"""What documents call the user's own broker; a private server stands in for it."""
# With the key of a language model, following a document would cost money.
OF_LANGUAGE_MODELS = ("GAP_FILL", "TEXT_MODEL", "GEMINI", "GOOGLE", "OPENAI")
NOT_INHERITED = (
    *("PYTEST", "CELERY", "MANIFEST", "COV_", "DATABASE", "VIRTUAL_ENV", "PYTHON", "CI", "GITHUB"),
    *OF_LANGUAGE_MODELS,
)
COPIED = (
    "pytest_manifest",
    "tasks",
    "workflows",
    "manifests",
    "scripts",
    "requirements",
    "conftest.py",
    "pyproject.toml",
    "Makefile",
    "compose.yaml",
    ".env.example",
    # The contract of a language model, which is a reader's, too.
    "tests/__init__.py",
    "tests/workflows/__init__.py",
    "tests/workflows/gemini_server",
    "tests/workflows/openai_server",
    "tests/processes.py",
    "tests/support.py",
    "tests/workflows/text_models",
    "tests/workflows/text_requests.py",
)


NEEDS_INDEX = "needs a package index"
"""Why tests do not run an installation; .ci/check_wheel.py does, in a new environment."""
PIP_ALONE = {"Two minutes", "In your project"}
"""README's sections for who has only pip: they are followed in an empty folder."""


class Reader:
    """Someone who follows a document in ``folder``, with ``python``. Use it as a context manager.

    ``settings`` come on top of its environment; ``installs``: do what needs a package index, too.
    """

    def __init__(
        self,
        folder: Path,
        *,
        python: Path = Path(sys.executable),
        settings: Mapping[str, str] = MappingProxyType({}),
        installs: bool = False,
    ) -> None:
        self.folder = folder
        self.python = python
        self.installs = installs
        self.home = Path(tempfile.mkdtemp(prefix="manifest-docs-"))
        self.background: list[subprocess.Popen[str]] = []
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(NOT_INHERITED)}
        self.environment = inherited | {
            "PATH": f"{python.parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home),
            "TMPDIR": str(self.home),
            "COLUMNS": "100",
            "PYTHONWARNINGS": "default",
            "PYTEST_ADDOPTS": lean(),  # a reader has no such plugins
            **settings,
        }
        self.broker: str | None = None
        self._server = valkey_server()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        stack = self.home / "pytest-celery-manifest"
        try:
            if stack.exists():
                self._bash("manifest stack down")
            for process in self.background:
                self._end(process)
            if self.broker is not None:
                self._server.__exit__(None, None, None)
        finally:
            shutil.rmtree(self.home, ignore_errors=True)

    def follow(self, path: Path, *, sections: Container[str] | None = None) -> int:
        """Do what the document, or only its ``sections``, says; return how many blocks ran."""
        todo = [block for block in blocks(path) if sections is None or block.section in sections]
        todo = [block for block in todo if self._can_do(block)]
        for block in todo:
            self.do(block)
        return len(todo)

    def _can_do(self, block: Block) -> bool:
        reason = block.options.get("skip")
        return reason is None or (self.installs and reason == NEEDS_INDEX)

    def do(self, block: Block) -> None:
        """One block. Raises AssertionError with its place where it does not do what it says."""
        if "title" in block.options:
            self._write(block)
        elif block.language == "console":
            self._console(block)
        elif block.language == "python":
            self._script(block)
        elif block.language in ("json", "jsonl"):
            for line in [block.body] if block.language == "json" else block.body.splitlines():
                json.loads(line)
        else:
            raise AssertionError(
                f'{block.place}: {block.language or chr(39) * 2} cannot be run; give skip="why"'
            )

    def _write(self, block: Block) -> None:
        target = self.folder / block.options["title"]
        assert target.resolve().is_relative_to(self.folder.resolve()), block.place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(block.body, "utf-8")

    def _script(self, block: Block) -> None:
        done = subprocess.run(
            [self.python, "-c", block.body],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{block.place}:\n{done.stdout}{done.stderr}"

    def _console(self, block: Block) -> None:
        todo = steps(block)
        for number, step in enumerate(todo, 1):
            place = f"{block.place}: $ {step.command}"
            command = self._with_broker(step.command)
            if self._changes_environment(command):
                continue
            if command.endswith(" &"):
                self._start(command.removesuffix(" &"))
                continue
            done = self._bash(command)
            expected = int(block.options.get("exit", 0)) if number == len(todo) else 0
            assert done.returncode == expected, (
                f"{place}\nended with {done.returncode}, not {expected}:\n{done.stdout}"
            )
            absent = missing_line(
                step.output, done.stdout, ordered=block.options.get("order") != "any"
            )
            assert absent is None, f"{place}\ndid not print\n    {absent}\nbut\n{done.stdout}"

    def _changes_environment(self, command: str) -> bool:
        """Do what would last in the shell of a reader, but each command here has its own."""
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self.environment[name] = value
            return True
        if command.startswith(". ") and command.endswith("/bin/activate"):
            self.python = self.folder / command[2:].removesuffix("activate") / "python"
            assert self.python.exists(), f"{self.python} is not there to be activated"
            self.environment["PATH"] = f"{self.python.parent}:{self.environment['PATH']}"
            return True
        return False

    def _with_broker(self, command: str) -> str:
        if BROKER not in command:
            return command
        if self.broker is None:
            self.broker = self._server.__enter__()
        return command.replace(BROKER, self.broker)

    def _bash(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command; whatever it started and left in its process group ends with it."""
        process = self._popen(command, subprocess.PIPE)
        try:
            output, _ = process.communicate(timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            self._end(process)
            raise
        return subprocess.CompletedProcess(command, process.returncode, output)

    def _start(self, command: str) -> None:
        self.background.append(self._popen(command, subprocess.DEVNULL))

    def _popen(self, command: str, output: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


def copy_project(root: Path, folder: Path) -> None:
    """A clone of the project, its environment already installed: the one that runs the tests."""
    for name in COPIED:
        source = root / name
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, folder / name)  # with what is compiled, which is as fresh
        elif source.exists():
            shutil.copy(source, folder / name)
    tools = folder / ".tools"
    tools.mkdir()
    python = f'#!/bin/sh\\nexec "{sys.executable}" "$@"\\n'
    (tools / "uv").write_text(
        '#!/bin/sh\n[ "$1" = venv ] || exit 0\nmkdir -p .venv/bin\n'
        f"printf '{python}' >.venv/bin/python\nchmod +x .venv/bin/python\n"
    )
    (tools / "uv").chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
    subprocess.run(["sh", "scripts/venv"], cwd=folder, env=environment, check=True)
    shutil.rmtree(tools)
