"""``manifest init``: a first batch in any project."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pytest_manifest.cli.init import _EARLY_PATHS, PLAN_OPTIONS, _pytest_version, find_apps
from pytest_manifest.cli.main import app
from pytest_manifest.ini import (
    batch_setting,
    batch_settings,
    import_folders,
    pytest_settings,
)

PYTEST = "pytest" if _pytest_version() >= _EARLY_PATHS else "python -m pytest"


def init(folder: Path, *options: str) -> dict[str, object]:
    done = CliRunner().invoke(app, ["init", str(folder), "--json", *options])
    assert done.exit_code == 0, done.output
    document: dict[str, object] = json.loads(done.stdout)
    return document


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def test_an_empty_folder_gets_all_of_it(tmp_path: Path) -> None:
    """With an app; a second call changes nothing."""
    made = init(tmp_path / "new")
    files = sorted(path for path in (tmp_path / "new").rglob("*") if path.is_file())
    assert sorted(made["created"]) == sorted(  # type: ignore[call-overload]  # JSON
        str(path.relative_to(tmp_path / "new")) for path in files
    )
    assert made["app"] == "jobs:app"
    assert made["next"] == "pytest --manifest-plan=first --manifest-plan-run"
    before = [path.read_bytes() for path in files]
    again = init(tmp_path / "new")
    assert (again["created"], again["next"]) == ([], made["next"])
    assert [path.read_bytes() for path in files] == before


def test_an_app_that_is_there_is_used(tmp_path: Path) -> None:
    """Nothing of it is imported or changed, and none of its tasks is sent."""
    broken = "raise SystemExit('imported')\nfrom celery import Celery\nqueue = Celery('shop')\n"
    others = {"shop/other.py": "", "tests/app.py": "app = Celery()\n"}
    write(tmp_path, {"shop/celery.py": broken} | others)
    made = init(tmp_path)
    assert made["app"] == "shop.celery:queue"
    assert batch_setting(tmp_path, "manifest_app") == "shop.celery:queue"
    assert not (tmp_path / "jobs.py").exists()
    assert "celery.accumulate" in (tmp_path / "workflows/first/plan.py").read_text("utf-8")
    assert (tmp_path / "shop/celery.py").read_text("utf-8") == broken


def test_jobs_stay_on_the_private_stack_until_a_line_is_taken_out(tmp_path: Path) -> None:
    """Also of an app that names a broker, which others use; and it is said."""
    write(tmp_path, {"shop.py": "app = Celery(broker='amqp://production.example')\n"})
    made = init(tmp_path)
    assert made["next"] == "pytest --manifest-plan=first --manifest-plan-run"
    assert made["private_by"] == "pytest.ini"
    assert batch_setting(tmp_path, "manifest_broker") == "private"
    said = CliRunner().invoke(app, ["init", str(tmp_path)]).stdout
    assert "until manifest_broker = private is out of pytest.ini" in said


@pytest.mark.parametrize(
    "files",
    [
        {"pyproject.toml": "[tool.pytest.ini_options]\naddopts = ['--cov']\n"},
        {"conftest.py": "# mine\n"},
        {"tests/conftest.py": "# mine\n"},
        {"shop/tests/test_one.py": ""},
        {"shop/test_one.py": ""},
    ],
    ids=lambda files: next(iter(files)),
)
def test_a_project_with_tests_gets_an_ini_of_the_batchs_own(
    files: dict[str, str], tmp_path: Path
) -> None:
    """What is there stays as it is, a second call changes nothing, and commands find the file."""
    write(tmp_path, {**files, "shop/celery.py": "app = Celery()\n"})
    made = init(tmp_path)
    assert made["next"] == f"{PYTEST} -c batch.ini --manifest-plan=first --manifest-plan-run"
    assert (made["private_by"], made["todo"]) == ("batch.ini", [])
    assert not (tmp_path / "pytest.ini").exists()
    assert {name: (tmp_path / name).read_text("utf-8") for name in files} == files
    assert batch_settings(tmp_path)[0] == tmp_path / "batch.ini"
    assert pytest_settings(tmp_path)[0] in (None, tmp_path / "pyproject.toml")
    again = init(tmp_path)
    assert (again["created"], again["next"]) == ([], made["next"])
    assert init(tmp_path, "--app=other:app")["next"] == (
        f"{PYTEST} -c batch.ini --manifest-app=other:app --manifest-plan=first --manifest-plan-run"
    )


def test_another_app_gets_what_its_own_tasks_need(tmp_path: Path) -> None:
    """What was made for an app of ours is no plan for it, and the line that names it is changed."""
    write(tmp_path, {"conftest.py": "# mine\n"})
    assert init(tmp_path)["app"] == "jobs:app"
    todo = init(tmp_path, "--app=shop:app")["todo"]
    assert isinstance(todo, list)
    other, changed = todo
    assert other == (
        "remove workflows/first/plan.py and workflows/first/verify.py, made for jobs:app, and call "
        "'manifest init --app=shop:app' again, which makes them for shop:app"
    )
    assert changed == (
        "change manifest_app in pytest's section of batch.ini to 'manifest_app = shop:app'; until "
        "then: --manifest-app=shop:app"
    )
    for name in ("plan", "verify"):
        (tmp_path / f"workflows/first/{name}.py").unlink()
    assert init(tmp_path, "--app=shop:app")["todo"] == [changed]
    assert "celery.accumulate" in (tmp_path / "workflows/first/plan.py").read_text("utf-8")


def test_batches_import_from_where_the_tests_do(tmp_path: Path) -> None:
    """The folders of pytest's own ``pythonpath`` are among those of the batch's own ini."""
    settings = "[tool.pytest.ini_options]\npythonpath = ['backend', 'more libs', 'src']\n"
    write(tmp_path, {"pyproject.toml": settings, "src/shop/celery.py": "app = Celery()\n"})
    init(tmp_path)
    assert import_folders(batch_settings(tmp_path)[1]) == [".", "src", "backend", "more libs"]


def test_a_project_whose_settings_name_the_app_gets_its_own_ini_too(tmp_path: Path) -> None:
    """With that app; the settings for tests stay as they are."""
    text = "[pytest]\nmanifest_app = shop:app\ntestpaths = tests\n"
    write(tmp_path, {"pytest.ini": text})
    assert init(tmp_path)["private_by"] == "batch.ini"
    assert batch_setting(tmp_path, "manifest_app") == "shop:app"
    assert (tmp_path / "pytest.ini").read_text("utf-8") == text


def test_a_package_in_src_has_to_be_installed(tmp_path: Path) -> None:
    """Workers import it as pytest does; one that is installed is left alone."""
    app = "from celery import Celery\napp = Celery()\n"
    write(tmp_path / "a", {"src/not_there/celery.py": app, "src/not_there/__init__.py": ""})
    made = init(tmp_path / "a")
    private = "pytest --manifest-plan=first --manifest-plan-run"
    assert made["next"] == f"PYTHONPATH=src {private}"
    assert "pip install -e ." in str(made["todo"])
    write(tmp_path / "b", {"src/pytest/celery.py": app, "src/pytest/__init__.py": ""})
    assert init(tmp_path / "b")["next"] == private


def test_a_module_in_the_way_is_refused(tmp_path: Path) -> None:
    """A jobs.py without an app is somebody's."""
    write(tmp_path, {"jobs.py": "print('mine')\n"})
    done = CliRunner().invoke(app, ["init", str(tmp_path)])
    assert done.exit_code == 1  # the exception itself: main() makes a sentence of it
    assert "no Celery app was found" in str(done.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs.py"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("shop/__init__.py", "def create_app():\n    return Celery('shop')\n"),
        ("app.py", "apps = [celery.Celery()]\n"),
    ],
)
def test_an_app_without_a_name_has_to_be_named(file: str, text: str, tmp_path: Path) -> None:
    """A factory's app is the project's own: a second one beside it would know none of its tasks."""
    write(tmp_path, {file: text})
    done = CliRunner().invoke(app, ["init", str(tmp_path)])
    assert done.exit_code == 1
    assert f"{file}: makes a Celery app" in str(done.exception)
    assert "manifest init --app=MODULE:ATTRIBUTE" in str(done.exception)
    assert not (tmp_path / "workflows").exists()
    assert init(tmp_path, "--app=shop.worker:app")["app"] == "shop.worker:app"


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"proj/celery.py": "app = Celery('p')", "proj/__init__.py": ""}, "proj.celery:app"),
        ({"proj/celery.py": "app = Celery('p')"}, "proj.celery:app"),
        ({"flat.py": "import celery\nx: celery.Celery = celery.Celery()"}, "flat:x"),
        ({"src/p/celery.py": "app = Celery()", "src/p/__init__.py": ""}, "p.celery:app"),
        ({"proj/__init__.py": "app = Celery()"}, "proj:app"),
        ({"a.py": "class Own(celery.Celery): ...\nclass App(Own): ...\nx = App()"}, "a:x"),
        ({"base.py": "class Own(Celery): ...", "z.py": "app = Own()  # our Celery"}, "z:app"),
        ({"proj/celery.py": "def make():\n    app = Celery()\n"}, None),
        ({"proj/celery.py": "app = Celery("}, None),
        ({"venv/celery.py": "app = Celery()", "venv/pyvenv.cfg": ""}, None),
        ({"back/p/celery.py": "app = Celery()", "back/p/__init__.py": ""}, None),
    ],
)
def test_apps_are_found_where_they_can_be_imported(
    files: dict[str, str], name: str | None, tmp_path: Path
) -> None:
    """Of a package, of a module, of ``src``; not those of functions, tests and environments."""
    write(tmp_path, files)
    assert [found.name for found in find_apps(tmp_path)] == ([] if name is None else [name])


@pytest.mark.parametrize(
    "source",
    [
        "\ufeffapp = Celery()".encode(),
        "# coding: latin-1\nname = 'Zoë'\napp = Celery()".encode("latin-1"),
        b"digits = '\\d'\napp = Celery()",
    ],
    ids=["BOM", "its own encoding", "a warning of Python"],
)
def test_apps_are_found_in_whatever_python_reads(source: bytes, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_bytes(source)
    assert [found.name for found in find_apps(tmp_path)] == ["shop:app"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pytest.ini", "[pytest]\nmanifest_app = a:b\n"),
        ("tox.ini", "[tox]\n[pytest]\nmanifest_app = a:b\n"),
        ("setup.cfg", "[tool:pytest]\nmanifest_app = a:b\n"),
        ("pyproject.toml", "[tool.pytest.ini_options]\nmanifest_app = 'a:b'\n"),
        ("pyproject.toml", "[tool.pytest]\nmanifest_app = 'a:b'\n"),
        ("pytest.toml", "[pytest]\nmanifest_app = 'a:b'\n"),
        (".pytest.toml", "[pytest]\nmanifest_app = 'a:b'\n"),
        ("pytest.ini", "\ufeff[pytest]\nmanifest_app = a:b\n"),
    ],
)
def test_settings_are_read_as_pytest_does(file: str, text: str, tmp_path: Path) -> None:
    """From each file that pytest may be configured by; others are not pytest's."""
    (tmp_path / "setup.cfg").write_text("[metadata]\n", "utf-8")
    assert pytest_settings(tmp_path) == (None, {})
    (tmp_path / file).write_text(text, "utf-8")
    assert batch_setting(tmp_path, "manifest_app") == "a:b"
    assert pytest_settings(tmp_path)[0] == tmp_path / file


@pytest.mark.parametrize("file", ["pytest.toml", ".pytest.toml"])
def test_pytest_reads_no_other_file_beside_its_own(file: str, tmp_path: Path) -> None:
    """Also where it has nothing in it: a ``pytest.ini`` made beside it would not be read."""
    write(tmp_path, {file: "", "pytest.ini": "[pytest]\nmanifest_app = a:b\n"})
    assert pytest_settings(tmp_path) == (tmp_path / file, {})


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"workflows.py": "", "shop.py": "from celery import Celery\napp = Celery()\n"}, "hide it"),
        ({"jobs/__init__.py": "", "jobs/run.py": "x = 1\n"}, "would hide the module 'jobs'"),
    ],
)
def test_no_module_of_a_project_is_hidden(
    files: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    """Nor one that would be made."""
    write(tmp_path, files)
    done = CliRunner().invoke(app, ["init", str(tmp_path)])
    assert sentence in str(done.exception)
    assert {path.name for path in tmp_path.iterdir()} == {name.split("/")[0] for name in files}


def test_an_app_that_is_made_is_said_to_be(tmp_path: Path) -> None:
    """In a project that has its own, made by other means, it is not the one to use."""
    write(tmp_path, {"shop/tasks.py": "from company.queues import app\n"})
    told = CliRunner().invoke(app, ["init", str(tmp_path)]).stdout
    assert told.startswith("no Celery app was found, so jobs.py is made; yours is named by --app")


@pytest.mark.parametrize(
    ("above", "text"), [("pyproject.toml", "[tool.pytest.ini_options]\n"), ("conftest.py", "")]
)
def test_the_tests_of_a_folder_above_still_run(above: str, text: str, tmp_path: Path) -> None:
    """pytest ends there where a conftest.py below names plugins; the batch's ini names the plan."""
    write(tmp_path, {above: text, "test_one.py": "def test_one(): ...\n"})
    made = init(tmp_path / "svc")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    following = shlex.split(str(made["next"]))
    assert following == [*PYTEST.split(), "-c", "batch.ini", *PLAN_OPTIONS.split()]
    plan = [*command, "-c", "batch.ini", "--manifest-plan=first"]
    done = subprocess.run(plan, cwd=tmp_path / "svc", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert (
        "to dispatch it: pytest --manifest=manifests/first_all_01.jsonl -c batch.ini" in done.stdout
    )
    again = init(tmp_path / "svc")
    assert (again["created"], again["next"]) == ([], made["next"])


def test_nothing_is_made_where_not_all_can_be(tmp_path: Path) -> None:
    """A file in the way of the last folder leaves the first file unwritten."""
    (tmp_path / "workflows").touch()
    done = CliRunner().invoke(app, ["init", str(tmp_path)])
    assert str(done.exception) == (
        f"{tmp_path / 'workflows'}: is no folder; rename it, or name another folder"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["workflows"]
