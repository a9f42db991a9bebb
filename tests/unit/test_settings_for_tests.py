"""Which settings for tests are said to act on a batch."""

from __future__ import annotations

import pytest

from pytest_manifest.plugin.lifecycle import settings_notice

ENV = "def pytest_addoption(parser):\n    parser.addini('env', 'variables', type='linelist')\n"


def notice(pytester: pytest.Pytester, *arguments: str, ini: str = "", name: str = "pytest") -> str:
    """What is said of such a call with such a file; the file is named where it is no pytest.ini."""
    (pytester.path / f"{name}.ini").write_text(f"[pytest]\n{ini}\n", "utf-8")
    named = () if name == "pytest" else ("-c", f"{name}.ini")
    return settings_notice(pytester.parseconfig(*named, *arguments)) or ""


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTEST_ADDOPTS", "DJANGO_SETTINGS_MODULE"):
        monkeypatch.delenv(name, raising=False)


def test_what_addopts_starts_is_named_and_what_the_command_starts_is_meant(
    pytester: pytest.Pytester,
) -> None:
    assert notice(pytester, "-n1") == ""
    said = notice(pytester, ini="addopts = -n1")
    assert said == (
        "settings for tests act on this batch, too: pytest-xdist (-n in addopts); 'manifest init' "
        "writes a batch.ini without them, for pytest -c batch.ini"
    )
    assert "pytest-xdist (--numprocesses in addopts)" in notice(
        pytester, ini="addopts = --numprocesses=1"
    )
    assert notice(pytester, ini="addopts = -n1", name="batch") == "", "it is named, so it is meant"


def test_the_variables_of_pytest_env_are_named(pytester: pytest.Pytester) -> None:
    """Not their values; those of pyproject.toml act on a file of the batch's own, too."""
    pytester.syspathinsert()
    (pytester.path / "env.py").write_text(ENV, "utf-8")
    variables = "env =\n  SHOP_KEY=of tests\n  D:SHOP_URL=memory://\n"
    said = notice(pytester, "-p", "env", ini=variables)
    assert "pytest-env (sets SHOP_KEY, SHOP_URL);" in said
    assert "memory://" not in said
    assert notice(pytester, "-p", "env", name="batch") == ""
    (pytester.path / "pyproject.toml").write_text("[tool.pytest_env]\nSHOP_KEY = 'x'\n", "utf-8")
    said = notice(pytester, "-p", "env", name="batch")
    assert "pytest-env (sets those of [tool.pytest_env])" in said
