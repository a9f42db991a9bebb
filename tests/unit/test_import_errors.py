"""What is said where a Celery app cannot be imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_manifest.broker.client import load_app, tasks_failure
from pytest_manifest.errors import StackError
from pytest_manifest.urls import StackAddress


def failure(name: str) -> str:
    """What the user reads."""
    with pytest.raises(StackError) as caught:
        load_app(StackAddress("", "", name, is_private=False))
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_a_missing_module_is_named_with_the_line_that_imports_it(folder: Path) -> None:
    """The app's own module is there; what it imports is not."""
    (folder / "shop_a").mkdir()
    (folder / "shop_a" / "celery.py").write_text("from shop_a import tasks\n")
    (folder / "shop_a" / "tasks.py").write_text("\nimport no_such_library.part\n")
    said = failure("shop_a.celery:app")
    assert "there is no module 'no_such_library', which shop_a/tasks.py:2 imports" in said
    assert "install what has it" in said
    assert "module:attribute" not in said


def test_an_app_without_a_module_is_named_wrongly(folder: Path) -> None:
    """Neither the module nor its package is there."""
    said = failure("no_such_shop.celery:app")
    assert "there is no module 'no_such_shop' for the Celery app 'no_such_shop.celery:app'" in said
    assert f"({folder})" in said


def test_a_module_without_the_app_is_not_called_missing(folder: Path) -> None:
    """Celery looks for a module of the whole name then, whose absence says nothing."""
    (folder / "shop_b.py").write_text("celery = None\n")
    assert "the module 'shop_b' has no 'app'" in failure("shop_b:app")


def test_what_is_no_app_is_told_with_what_to_name_instead(folder: Path) -> None:
    """The function that makes it; a file in place of its module."""
    (folder / "shop_f.py").write_text("def create_app(): ...\n\nnumber = 3\n")
    assert "let a module of yours say 'app = create_app()'" in failure("shop_f:create_app")
    assert "is a int, not a Celery app; name it as module:attribute" in failure("shop_f:number")
    web = "from celery import Celery\nclass Web:\n    def __call__(self): ...\napp = Web()\n"
    (folder / "shop_g.py").write_text(f"{web}queue = Celery()\n")
    assert "a Web, not a Celery app; name it as module:attribute, here shop_g:queue" in failure(
        "shop_g:app"
    )
    assert "name its module: shop_f:app" in failure("shop_f.py")
    assert "name its module: shops.one:celery" in failure("shops/one.py:celery")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "\nraise RuntimeError('redis://:hunter2@x')\n",
            "RuntimeError: redis://:***@x",
        ),
        ("\nimport os\nos.no_such_name\n", "AttributeError: "),
        ("\n\nx = = 1\n", "SyntaxError: invalid syntax"),
    ],
    ids=["raises", "attribute", "syntax"],
)
def test_what_a_module_raises_is_told_with_its_line(folder: Path, text: str, reason: str) -> None:
    """Where to look, and no password."""
    (folder / "shop_c.py").write_text(text)
    said = failure("shop_c:app")
    assert reason in said
    assert f" at shop_c.py:{2 if 'raise' in text else 3}" in said


def test_a_module_that_ends_the_program_is_told(folder: Path) -> None:
    """pytest would end with the module's own status, and a check with 0."""
    (folder / "shop_d.py").write_text("import sys\nsys.exit('SECRET_KEY is not set')\n")
    assert failure("shop_d:app") == (
        "the Celery app 'shop_d:app' cannot be imported: it ends the program while it is imported "
        "at shop_d.py:2 (SECRET_KEY is not set); move that out of the import"
    )


def test_settings_that_are_missing_are_not_put_down_to_python(folder: Path) -> None:
    """They are read when they are first asked for, by way of the standard library."""
    (folder / "shop_e.py").write_text(
        "from celery import Celery\napp = Celery(set_as_current=False)\n"
        "app.config_from_object('no_such_settings')\n"
        "app.conf.timezone\n"
    )
    assert "no module 'no_such_settings', which shop_e.py:4 imports" in failure("shop_e:app")


def test_a_database_that_pytest_django_blocks_is_no_fault_of_a_module() -> None:
    """Celery has Django check itself while it loads the tasks, and a check may read its tables."""
    error = RuntimeError('Database access not allowed, use the "django_db" mark, or ...')
    said = tasks_failure("shop", error)
    assert "Django's database is read as the tasks of shop are loaded" in said
    assert "-p no:django" in said
    assert "cannot be imported" in tasks_failure("shop", RuntimeError("no"))
