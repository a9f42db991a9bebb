"""Read our settings from pytest's configuration file, for commands that do not start pytest."""

from __future__ import annotations

import configparser
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from pytest_manifest.errors import StackError

BATCH_INI: Final = "batch.ini"
"""Settings of batches alone, which pytest reads with ``-c batch.ini``."""
_SECTIONS: Final = {
    BATCH_INI: "pytest",
    "pytest.ini": "pytest",
    ".pytest.ini": "pytest",
    "tox.ini": "pytest",
    "setup.cfg": "tool:pytest",
}
"""The files in the INI format that pytest reads, and their section for pytest."""
_OWN_FILES: Final = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini")
"""Files for pytest alone: one that is there is the one, also where it has nothing in it."""
_FILES: Final = (*_OWN_FILES, "pyproject.toml", "tox.ini", "setup.cfg")
"""In the order in which pytest looks for them; before pytest 9 it knew none of the first two."""


def batch_settings(folder: Path) -> tuple[Path | None, dict[str, object]]:
    """Return the file with the settings of batches in a folder and these, by name.

    It is ``batch.ini`` where there is one, else pytest's own. Raises StackError where a file cannot
    be read.
    """
    return pytest_settings(folder, (BATCH_INI, *_FILES))


def pytest_settings(
    folder: Path, names: Iterable[str] = _FILES
) -> tuple[Path | None, dict[str, object]]:
    """Return pytest's configuration file in a folder and its settings, by name.

    The file is the first that pytest itself would choose there; None where none of them is for
    pytest. Raises StackError where a file cannot be read.
    """
    for name in names:
        path = folder / name
        if path.is_file():
            settings = _of_toml(path) if path.suffix == ".toml" else _of_ini(path)
            if settings is not None:
                return path, settings
    return None, {}


def batch_setting(folder: Path, name: str) -> str | None:
    """Return a setting of batches in a folder that is a text; None: it has none."""
    value = batch_settings(folder)[1].get(name)
    return value if isinstance(value, str) and value else None


def put_on_path(folder: Path) -> None:
    """Have modules found where pytest, started in this folder, finds them by its ``pythonpath``.

    Its configuration file is the one of the folder, or of the nearest above it. Raises StackError
    where a file cannot be read.
    """
    for place in (folder, *folder.parents):
        path, settings = batch_settings(place)
        if path is not None:
            found = [str((place / one).absolute()) for one in import_folders(settings)]
            sys.path[:0] = [one for one in found if one not in sys.path]
            return


def import_folders(settings: Mapping[str, object]) -> list[str]:
    """Return the folders of pytest's ``pythonpath``, as its settings name them."""
    given = settings.get("pythonpath") or []
    names = shlex.split(given) if isinstance(given, str) else given
    return [str(one) for one in names] if isinstance(names, list) else []


def _of_toml(path: Path) -> dict[str, object] | None:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        if path.name in _OWN_FILES:
            return dict(document.get("pytest", {}))
        section = document.get("tool", {}).get("pytest")
        return None if section is None else dict(section.get("ini_options", section))
    except (OSError, ValueError, AttributeError, TypeError) as error:  # or what is no table
        raise StackError(f"{path} cannot be read: {error}; correct it there") from error


def _of_ini(path: Path) -> dict[str, object] | None:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, ValueError, configparser.Error) as error:
        raise StackError(f"{path} cannot be read: {error}; correct it there") from error
    section = _SECTIONS[path.name]
    if parser.has_section(section):
        return dict(parser.items(section))
    return {} if path.name in _OWN_FILES else None
