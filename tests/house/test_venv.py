"""scripts/venv: installs once, again when something changed, and minds its own environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FAKE_UV = """#!/bin/sh
echo "uv $* [$VIRTUAL_ENV]" >>"$CALLS"
[ "$1" = venv ] && mkdir -p .venv/bin && ln -sf "$(command -v cat)" .venv/bin/python
exit 0
"""
FAKE_PYTHON = """#!/bin/sh
case "$1" in
    -c) exit "${OLD:-0}" ;;
    -V) echo "Python 3.9.1" ;;
    *) echo "python $* [$VIRTUAL_ENV]" >>"$CALLS" ;;
esac
if [ "$2" = venv ]; then
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
fi
exit 0
"""


SYSTEM = ("cat", "cksum", "cp", "dirname", "head", "ln", "mkdir", "rm", "sh")
"""What the script and the stand-ins above need of the system."""


class Checkout:
    """A folder with the script and what it reads, and a path with no program but those given."""

    def __init__(self, folder: Path, root: Path, tools: Path) -> None:
        self.folder, self.tools = folder, tools
        self.calls = tools / "calls"
        tools.mkdir()
        for name in SYSTEM:
            found = shutil.which(name)
            assert found, name
            (tools / name).symlink_to(found)
        (folder / "scripts").mkdir(parents=True)
        (folder / "requirements").mkdir()
        for name in ("scripts/venv", "pyproject.toml", "requirements/dev.txt"):
            shutil.copy(root / name, folder / name)

    def tool(self, name: str, text: str) -> None:
        """Put a program on the path."""
        (self.tools / name).write_text(text)
        (self.tools / name).chmod(0o755)

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script with an empty HOME inside somebody else's environment."""
        return subprocess.run(
            [self.tools / "sh", "scripts/venv"],
            cwd=self.folder,
            env={
                "PATH": str(self.tools),
                "HOME": "/nonexistent",
                "VIRTUAL_ENV": "/somebody/elses",
                "CALLS": str(self.calls),
            }
            | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def called(self) -> list[str]:
        """What was called since the last time this was asked."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return lines


@pytest.fixture
def checkout(tmp_path: Path, root: Path) -> Checkout:
    """A checkout in a folder with a space in its name."""
    made = Checkout(tmp_path / "a check out", root, tmp_path / "tools")
    made.tool("python3", FAKE_PYTHON)
    return made


def test_uv_installs_once(checkout: Checkout) -> None:
    """With uv on the path: environment, locked versions with hashes, the project; then nothing."""
    checkout.tool("uv", FAKE_UV)
    done = checkout.run()
    assert done.returncode == 0, done.stderr
    first = checkout.called()
    assert [line.split(" --")[0] for line in first] == ["uv venv", "uv pip sync", "uv pip install"]
    assert "--require-hashes" in first[1]
    assert "--compile-bytecode" in first[1], "each of thousands of processes would compile it"
    assert all(line.endswith("[]") for line in first), "the active environment is not handed on"
    assert checkout.run().returncode == 0
    assert checkout.called() == []


def test_pip_installs_once(checkout: Checkout) -> None:
    """Without uv: venv, pip with hashes, the project alone; a second call does nothing."""
    done = checkout.run()
    assert done.returncode == 0, done.stderr
    called = checkout.called()
    assert called[0].startswith("python -m venv .venv")
    assert "--require-hashes" in called[-2]
    assert "--no-deps --editable ." in called[-1]
    assert checkout.run().returncode == 0
    assert checkout.called() == []


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements/dev.txt"])
def test_a_change_installs_again(checkout: Checkout, name: str) -> None:
    """Another dependency or another pin brings the environment up to date, without a new one."""
    checkout.tool("uv", FAKE_UV)
    checkout.run()
    checkout.called()
    with (checkout.folder / name).open("a") as file:
        file.write("# changed\n")
    assert checkout.run().returncode == 0
    assert [line.split(" --")[0] for line in checkout.called()] == ["uv pip sync", "uv pip install"]


def test_a_moved_environment_is_made_again(checkout: Checkout) -> None:
    """Its scripts hold the old path, so installing over it would not do."""
    checkout.tool("uv", FAKE_UV)
    checkout.run()
    checkout.called()
    checkout.folder = checkout.folder.rename(checkout.folder.with_name("moved"))
    assert checkout.run().returncode == 0
    assert checkout.called()[0].startswith("uv venv")


def test_a_failed_installation_is_tried_again(checkout: Checkout) -> None:
    """What did not succeed leaves no mark of success."""
    checkout.tool("uv", FAKE_UV.replace("exit 0", '[ "$2" != sync ]'))
    assert checkout.run().returncode != 0
    checkout.tool("uv", FAKE_UV)
    checkout.called()
    assert checkout.run().returncode == 0
    assert any("uv pip sync" in line for line in checkout.called())


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"PYTHON": "python-nowhere"}, "There is no 'python-nowhere' here"),
        ({"OLD": "1"}, "Python 3.9.1, and 3.11 is the oldest that works"),
    ],
)
def test_an_unfit_python_is_one_sentence(
    checkout: Checkout, environment: dict[str, str], words: str
) -> None:
    """Neither a traceback nor an environment is left, only what to do."""
    done = checkout.run(**environment)
    assert done.returncode == 1
    assert words in done.stderr
    assert "make PYTHON=" in done.stderr
    assert not (checkout.folder / ".venv").exists()


def test_the_scripts_can_be_run(root: Path) -> None:
    """They are executable, as make and CI call them."""
    for name in ("scripts/venv", ".ci/run"):
        assert os.access(root / name, os.X_OK), name
