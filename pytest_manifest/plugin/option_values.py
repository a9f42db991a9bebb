"""Define a row of the table of options, and turn an option's text into its value.

Each parsing function takes an option as the user gave it, and raises pytest.UsageError that repeats
what the user wrote and says what to write instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeVar, overload

import pytest

from pytest_manifest.files import MODE_HINT, parsed_mode

if TYPE_CHECKING:
    from pytest_manifest.manifest import GroupRule

Value = TypeVar("Value")
Word = TypeVar("Word", bound=str)
_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_HUNDRED_YEARS: Final = 36525 * 86400.0
"""In seconds, as ``MOST_SECONDS`` of manifests, whose module would load pydantic here."""

LOOKING_ONLY: Final = (
    "collectonly",
    "setuponly",
    "setupplan",
    "showfixtures",
    "show_fixtures_per_test",
    "help",
    "markers",
    "cacheshow",
)
"""Options with which no test runs; missing where pytest's plugin for one is switched off."""


class Given:
    """Hold an option's text, where it was written, and the folder to which its path is relative."""

    def __init__(self, text: str, written: str, folder: Path, config: pytest.Config) -> None:
        self.text = text
        self.written = written
        self.config = config
        self._folder = folder

    @property
    def path(self) -> Path:
        """Return the text as an absolute path."""
        return self.beside(self.text)

    def beside(self, name: str) -> Path:
        """Return a path, that is a part of the text, as an absolute one."""
        return (self._folder / name).resolve()

    def refused(self, message: str) -> pytest.UsageError:
        """Make the error that repeats what was written and says what to write instead."""
        return pytest.UsageError(f"{self.written}: {message}")


class Option(Generic[Value]):
    """Define one option of the command line, of the configuration file, or of both.

    ``help`` and ``ini`` are what pytest's help says of it on the command line and in the file;
    empty where it does not exist there. ``attended``: in the file it does not apply with
    ``--manifest-dispatch-only``, since pytest does not stay to see to it.
    """

    def __init__(
        self,
        parse: Callable[[Given], Value],
        default: Value,
        help: str = "",  # noqa: A002 - as argparse calls it
        *,
        name: str | None = None,
        metavar: str | None = None,
        choices: Sequence[str] | None = None,
        ini: str = "",
        ini_default: str = "",
        attended: bool = False,
    ) -> None:
        self._parse = parse
        self._default = default
        self._name = name
        self._ini_default = ini_default
        self._attended = attended
        self.help = help
        self.ini = ini
        self.keywords: dict[str, object] = {"choices": choices} if choices else {"metavar": metavar}

    def __set_name__(self, owner: type, attribute: str) -> None:
        """Take the option's name from the attribute, where it has none of its own."""
        name = attribute if self._name is None else self._name
        self.dest = f"manifest_{name}" if name else "manifest"
        self.flag = f"--{self.dest.replace('_', '-')}"

    @overload
    def __get__(self, options: None, owner: type) -> Option[Value]: ...
    @overload
    def __get__(self, options: object, owner: type) -> Value: ...
    def __get__(self, options: object | None, owner: type) -> Option[Value] | Value:
        """Return the row itself: an object that was read has the value in its own namespace."""
        return self

    def declare(self, parser: pytest.Parser, group: pytest.OptionGroup) -> None:
        """Declare the option to pytest, for the command line and the configuration file."""
        if self.help:
            group.addoption(self.flag, help=self.help, **self.keywords)
        if self.ini:
            parser.addini(self.dest, self.ini, default=self._ini_default)

    def read(self, config: pytest.Config) -> Value:
        """Return the value of the command line, else of the configuration file, else the default.

        Raises pytest.UsageError where the text is not valid. Where any text is, an empty one counts
        as not given, but for a broker: jobs would go to another than the one that was meant. In
        the file an empty folder is pytest's root folder.
        """
        given = getattr(config.option, self.dest) if self.help else None
        if given is not None and (given or self._parse not in (text, upper)):
            written = f"{self.flag}{' ' if self.ini else '='}{given}"
            return self._parse(Given(given, written, config.invocation_params.dir, config))
        found = str(config.getini(self.dest)) if self.ini else ""
        is_given = bool(found) or self._parse is project_path
        if not is_given or (self._attended and config.option.manifest_dispatch_only):
            return self._default
        return self._parse(Given(found, f"{self.dest} = {found}", config.rootpath, config))


class Flag(Option[bool]):
    """Define an option without a value."""

    def __init__(
        self,
        help: str,  # noqa: A002 - as argparse calls it
        *,
        name: str | None = None,
        ini: str = "",
    ) -> None:
        super().__init__(lambda _: True, False, help, name=name, ini=ini)
        self.keywords = {"action": "store_true"}

    def declare(self, parser: pytest.Parser, group: pytest.OptionGroup) -> None:
        """Declare the option to pytest; in the configuration file it is true or false."""
        group.addoption(self.flag, help=self.help, **self.keywords)
        if self.ini:
            parser.addini(self.dest, self.ini, type="bool", default=False)

    def read(self, config: pytest.Config) -> bool:
        """Return whether the option is given, or true in the configuration file."""
        if getattr(config.option, self.dest):
            return True
        try:
            return bool(self.ini) and bool(config.getini(self.dest))
        except (pytest.UsageError, TypeError, ValueError) as error:  # by pytest's version
            raise pytest.UsageError(f"{self.dest}: {error}; write true or false") from error


class Repeated(Option[list[str]]):
    """Define an option that may be given several times."""

    def __init__(
        self,
        help: str,  # noqa: A002 - as argparse calls it
        *,
        metavar: str,
        name: str,
    ) -> None:
        super().__init__(lambda given: [given.text], [], help, name=name)
        self.keywords = {"action": "append", "default": [], "metavar": metavar}

    def read(self, config: pytest.Config) -> list[str]:
        """Return all texts that are given, in their order."""
        texts: list[str] = getattr(config.option, self.dest)
        return texts


def text(given: Given) -> str:
    """Return the text as it is."""
    return given.text


def upper(given: Given) -> str:
    """Return the text in capital letters."""
    return given.text.upper()


def broker(given: Given) -> str:
    """Return a broker's URL, or the word ``app`` or ``private``.

    Anything else would be taken for the name of a host, so it is refused.
    """
    if "://" in given.text or given.text in ("app", "private"):
        return given.text
    if not given.text:
        raise given.refused(
            "it is empty, like a variable that is not set; give a URL, app or private"
        )
    raise given.refused("give a URL like redis://localhost:6379/0, or write app or private")


def file_mode(given: Given) -> int:
    """Return the mode of a file that its owner can read and write, and nobody can execute."""
    mode = parsed_mode(given.text)
    if mode is None:
        raise given.refused(MODE_HINT)
    return mode


def stack_word(broker: str | None) -> Literal["private", "app"] | None:
    """Return the word that stands in place of a broker's URL, if one does."""
    if broker == "private":
        return "private"
    return "app" if broker == "app" else None


def verbatim(given: Given) -> str:
    """Return the text as it is, also an empty one."""
    return given.text


def path(given: Given) -> Path:
    """Return a path below the folder that it was written for."""
    return given.path


def project_path(given: Given) -> Path:
    """Return a path below pytest's root folder, its symbolic links left as they are."""
    return given.config.rootpath / given.text


def positive(given: Given) -> int:
    """Return a whole number from 1."""
    try:
        number = int(given.text)
    except ValueError:
        number = 0
    if number < 1:
        raise given.refused("give a whole number from 1")
    return number


def task_patterns(given: Given) -> tuple[str, ...]:
    """Return names of tasks, or patterns of them, that blanks or commas are between."""
    patterns = tuple(given.text.replace(",", " ").split())
    if not patterns:
        raise given.refused("it names no task; write names or patterns, like 'shop.*'")
    return patterns


def grace(given: Given) -> float:
    """Return seconds, up to a hundred years, from ``90``, ``90s``, ``30m``, ``6h`` or ``2d``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", given.text.strip())
    if match is None:
        raise given.refused("write it like 90s, 30m or 6h")
    seconds = float(match.group(1)) * _UNITS[match.group(2)]
    if seconds > _HUNDRED_YEARS:
        raise given.refused("it is more than a hundred years; write it like 90s, 30m or 6h")
    return seconds


def deadline(given: Given) -> float:
    """Return seconds as :func:`grace` does, but more than 0."""
    seconds = grace(given)
    if seconds <= 0:
        raise given.refused("write it like 90s, 30m or 6h")
    return seconds


def amount(given: Given) -> float:
    """Return a cost: a number from 0."""
    valid = re.fullmatch(r"\s*\d+(\.\d+)?(e[+-]?\d+)?\s*", given.text)
    number = float(given.text) if valid else math.inf
    if not math.isfinite(number):
        raise given.refused("give a number from 0, like 5 or 2.50")
    return number


def failure_limit(given: Given) -> int | float:
    """Return a number of entries from ``20``, a share of them, 0.0 to 1.0, from ``5%``."""
    match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", given.text.strip())
    if match is None or float(match.group(2) or 0) > 100:
        raise given.refused("write it like 20 or 5%")
    return int(match.group(1)) if match.group(1) else float(match.group(2)) / 100


def aggregate(given: Given) -> GroupRule:
    """Return how entries are put together into one test."""
    from pytest_manifest.manifest import GroupRule

    match = re.fullmatch(r"task|chunk:([0-9]{1,9})", given.text)
    if match is None or (match[1] is not None and int(match[1]) < 1):
        raise given.refused("write task, or chunk:1000 for so many entries each")
    return GroupRule(None if match[1] is None else int(match[1]))


def report_file(given: Given) -> Path:
    """Return where the page about the run is written."""
    option = "--manifest-report"
    if not given.text:
        raise pytest.UsageError(f"{option} is empty; name a file, like run.html")
    return _overwritten(given, option, ".html", "name the page's file in it, like run.html")


def summary_file(given: Given) -> Path:
    """Return where a second copy of the run's summary is written."""
    return _output_file(given, "--manifest-summary", ".json")


def markdown_file(given: Given) -> Path:
    """Return where the run's summary is written in Markdown."""
    return _output_file(given, "--manifest-markdown", ".md")


def _output_file(given: Given, option: str, suffix: str) -> Path:
    return _overwritten(given, option, suffix, f"name a file in it with {option}")


def _overwritten(given: Given, option: str, suffix: str, hint: str) -> Path:
    """Return the path of a file that is written over.

    Raises pytest.UsageError where its suffix is another one, so that a typing error overwrites no
    manifest and no source file.
    """
    if given.path.is_dir():
        raise pytest.UsageError(f"{given.path}: is a folder; {hint}")
    if given.path.suffix.lower() != suffix:
        raise pytest.UsageError(
            f"{option}={given.path.name}: the file is written over, so its name must end in "
            f"{suffix}"
        )
    return given.path


def issue_link(given: Given) -> str:
    """Return the address of an issue, with ``{}`` in place of its name."""
    if "{}" not in given.text:
        raise given.refused(
            "write {} where an issue's name belongs, like https://tracker.example.com/browse/{}"
        )
    return given.text


def one_of(*words: Word) -> Callable[[Given], Word]:
    """Make the function that returns which of the words is given."""

    def chosen(given: Given) -> Word:
        for word in words:
            if given.text == word:
                return word
        raise given.refused(f"write {', '.join(words[:-1])} or {words[-1]}")

    return chosen


interruption: Final[Callable[[Given], Literal["revoke", "detach"]]] = one_of("revoke", "detach")
"""Return what becomes of sent jobs on Ctrl-C."""


def public_keys(whose: str, variable: str) -> Option[Path | None]:
    """Return the option that names a file of public keys; the variable does it as well."""
    about = f"the public keys of {whose}"
    return Option[Path | None](
        path, None, f"{about} (${variable})", metavar="FILE", ini=f"file of {about}"
    )
