"""Django: planned from the ORM, run by workers on their database, verified in the right one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.frameworks.projects import Stranger

PLAN = """
from catalogue.models import Film
from django.utils.text import slugify
from pytest_manifest import planning_fixture

@planning_fixture("films:slugs")
def slugs(plan, django_db_blocker):
    with django_db_blocker.unblock():
        for film in Film.objects.filter(slug=""):
            plan.add("catalogue.tasks.make_slug", id=f"film-{film.pk}", args=[film.pk],
                     expect={"result": slugify(film.title)})
"""
VERIFY = """
import pytest
from catalogue.models import Film

@pytest.mark.django_db
def test_the_slug_is_stored(entry, receipt):
    film = Film.objects.filter(pk=entry.args[0]).first()
    assert film is not None, "no such film here"
    assert film.slug == receipt.result
"""
NO_TEST_DATABASE = """
import pytest

@pytest.fixture(scope="session")
def django_db_setup():
    pass
"""
PLAN_AND_RUN = ("pytest", "--manifest-plan=films:slugs", "--manifest-plan-run")
APP = "--manifest-app=shop.celery:app"


@pytest.fixture
def shop(tmp_path: Path) -> Stranger:
    """The Django project, with a workflow that asks and looks at its database."""
    project = Stranger("django_results", tmp_path)
    files = {
        "conftest.py": 'pytest_plugins = ["workflows.films.plan"]\n',
        "workflows/__init__.py": "",
        "workflows/films/__init__.py": "",
        "workflows/films/plan.py": PLAN,
        "workflows/films/verify.py": VERIFY,
    }
    for name, text in files.items():
        path = project.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return project


@pytest.fixture
def worker(shop: Stranger, valkey: str) -> Iterator[None]:
    """A stock worker of the project, which keeps results in Django's database."""
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
    shop.use(valkey)
    with shop.worker():
        yield


def broker(shop: Stranger) -> str:
    """The option for the worker's broker."""
    return f"--manifest-broker={shop.environment['BROKER']}"


@pytest.mark.live
@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("xdist", ["0", "2"])
def test_results_are_read_where_workers_keep_them(shop: Stranger, xdist: str) -> None:
    """While a test has the test database open, verdicts come; and that test is warned, once."""
    done = shop.run(*PLAN_AND_RUN, APP, broker(shop), "-n", xdist)
    assert shop.verdicts() == {"film-1": "passed", "film-2": "passed"}
    assert done.status == pytest.ExitCode.TESTS_FAILED
    assert done.text.count("AssertionError: no such film here") >= 2
    warning = "PytestWarning: this test looks at Django's test database"
    assert warning in done.text, done.text
    assert " 1 warning" in done.lines[-1] or xdist == "2"  # one of each process
    assert f"the jobs wrote to '{shop.folder}/db.sqlite3'" in done.text


@pytest.mark.live
@pytest.mark.usefixtures("worker")
def test_a_verification_sees_what_the_job_wrote(shop: Stranger) -> None:
    """With the one fixture that the how-to names."""
    (shop.folder / "workflows" / "conftest.py").write_text(NO_TEST_DATABASE, "utf-8")
    done = shop.run(*PLAN_AND_RUN, APP, broker(shop))
    assert done.status == pytest.ExitCode.OK, done.text
    assert "2 passed" in done.lines[-1]
    assert "test database" not in done.text


@pytest.mark.live
def test_a_plan_that_may_not_read_the_database_is_told_how(shop: Stranger) -> None:
    """pytest-django's own advice is for tests, and a planning fixture is none."""
    plan = shop.folder / "workflows" / "films" / "plan.py"
    plan.write_text(PLAN.replace("with django_db_blocker.unblock()", "if True"), "utf-8")
    done = shop.run("pytest", "--manifest-plan=films:slugs", APP)
    assert done.status == pytest.ExitCode.TESTS_FAILED
    beginning = "plan films:slugs reads Django's database"
    (said,) = [line for line in done.lines if line.startswith(beginning)]
    assert "django_db_blocker.unblock()" in said


@pytest.mark.live
@pytest.mark.usefixtures("worker")
def test_no_verification_empties_the_database_of_the_jobs(shop: Stranger) -> None:
    """Django empties the tables after a test without a transaction, whosever they are."""
    (shop.folder / "workflows" / "conftest.py").write_text(NO_TEST_DATABASE, "utf-8")
    verify = VERIFY.replace("django_db", "django_db(transaction=True)")
    (shop.folder / "workflows" / "films" / "verify.py").write_text(verify, "utf-8")
    done = shop.run(*PLAN_AND_RUN, APP, broker(shop))
    assert done.status == pytest.ExitCode.TESTS_FAILED
    assert "refused: Django empties all tables of" in done.text, done.text
    with sqlite3.connect(shop.folder / "db.sqlite3") as database:
        assert database.execute("SELECT count(*) FROM catalogue_film").fetchone() == (2,)


@pytest.mark.live
def test_settings_of_the_session_are_those_of_private_workers(shop: Stranger) -> None:
    """``--ds`` names others: jobs leave the usual database alone."""
    (shop.folder / "shop" / "settings_batch.py").write_text(
        "from shop.settings import *\n"
        "DATABASES['default']['NAME'] = BASE_DIR / 'batch.sqlite3'\n"
        "INSTALLED_APPS = INSTALLED_APPS\n",
        "utf-8",
    )
    (shop.folder / "db.sqlite3").rename(shop.folder / "batch.sqlite3")
    done = shop.dispatch("--manifest-workers=1", "--ds=shop.settings_batch", *PRIVATE)
    assert shop.verdicts() == shop.expected(), done.text
    assert not (shop.folder / "db.sqlite3").exists()


@pytest.mark.live
def test_django_is_set_up_where_nobody_else_does_it(shop: Stranger, valkey: str) -> None:
    """Without pytest-django, too, results are read from a store that is one of its models."""
    shop.use(valkey)
    (shop.folder / "conftest.py").unlink()
    with shop.worker():
        shop.dispatch("-p", "no:django", "-o", "python_files=none.py", broker(shop))
    assert shop.verdicts() == shop.expected()


@pytest.mark.live
def test_what_keeps_django_from_starting_is_said(shop: Stranger, valkey: str) -> None:
    """In one sentence, with the settings' name."""
    shop.use(valkey)
    (shop.folder / "conftest.py").unlink()
    shop.environment = {**shop.environment, "DJANGO_SETTINGS_MODULE": "shop.settings"}
    settings = shop.folder / "shop" / "settings.py"
    broken = settings.read_text("utf-8").replace('"catalogue",', '"catalog",')
    settings.write_text(broken, "utf-8")
    done = shop.dispatch("-p", "no:django", broker(shop))
    assert done.status == pytest.ExitCode.USAGE_ERROR
    (said,) = [line for line in done.lines if "cannot be set up" in line]
    assert "No module named 'catalog'" in said
    assert "shop.settings" in said


PRIVATE = ("--manifest-broker=private",)
