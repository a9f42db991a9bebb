"""Each command has ``--json``, and a JSON Schema that says what it prints."""

from __future__ import annotations

from collections.abc import Iterator

import typer
import typer.main

from pytest_manifest.cli.main import app
from tests.unit.answers import OWN, key_of, known, path_of


def commands(app: typer.Typer, *path: str) -> Iterator[tuple[tuple[str, ...], typer.Typer]]:
    """Yield the commands that do something, by their path, each alone in an app."""
    for one in app.registered_commands:
        assert one.callback is not None
        alone = typer.Typer()
        alone.command()(one.callback)
        yield (*path, one.name or one.callback.__name__), alone
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance, *path, str(group.name))


def test_each_command_has_json_and_a_schema() -> None:
    """A new one needs its document in schema/answers.py, or a format of its own in OWN."""
    found = dict(commands(app))
    assert len(found) > 20
    assert {
        " ".join(path)
        for path, one in found.items()
        if not any("--json" in part.opts for part in typer.main.get_command(one).params)
    } == set()
    described = {*known(), *OWN}
    assert {" ".join(path) for path in found if key_of(path) not in described} == set()


def test_each_format_of_a_command_is_published() -> None:
    assert [name for name in OWN.values() if not path_of(name).is_file()] == []
