"""Define what a row of the table of options is: an option, a flag, a mode, a setting."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Generic, Literal, TypeVar, overload

import pytest

Value = TypeVar("Value")
Found = TypeVar("Found")
_NAMED: Final = re.compile(r"(?<![\w./-])(--manifest[a-z-]*|manifest_[a-z_]+)")


def refusal(written: str, message: str) -> pytest.UsageError:
    """Make the error that repeats what was ``written``, says what to write instead, and names the
    place of the reference where the option is described."""
    return pytest.UsageError(with_place(f"{written}: {message}"))


def with_place(message: str) -> str:
    """Return it with the place of the reference where its first option or setting is described."""
    named = _NAMED.search(message)
    if named is None:
        return message
    page = "commands" if named[0].startswith("-") else "configuration"
    return f"{message} (reference/{page}.html#{named[0]})"


def other_arguments(config: pytest.Config) -> Mapping[str, Sequence[str]]:
    """Map each place that pytest takes options from besides its command line -> those options."""
    found = {"PYTEST_ADDOPTS": shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))}
    with suppress(ValueError, AttributeError):  # the plugin was loaded before the file was read
        file = f" of {config.inipath.name}" if config.inipath else ""
        found[f"addopts{file}"] = [str(one) for one in config.getini("addopts")]
    return found


@contextmanager
def naming_sources(config: pytest.Config) -> Iterator[None]:
    """Have a refusal say which of its options nobody has typed, and where they stand."""
    try:
        yield
    except pytest.UsageError as error:
        flags = {one.partition("=")[0] for one in config.invocation_params.args}
        named = set(_NAMED.findall(str(error))) - flags
        said = [
            f"; {flag} is in {place}"
            for place, arguments in other_arguments(config).items()
            for flag in dict.fromkeys(one.partition("=")[0] for one in arguments)
            if flag in named
        ]
        raise pytest.UsageError(f"{error}{''.join(said)}") from error


@dataclass(frozen=True)
class Given:
    """Hold an option's text, where it was written, and the folder to which its path is relative."""

    text: str
    written: str
    folder: Path
    config: pytest.Config

    @property
    def path(self) -> Path:
        """Return the text as an absolute path."""
        return self.beside(self.text)

    def beside(self, name: str) -> Path:
        """Return a path, that is a part of the text, as an absolute one."""
        return (self.folder / name).resolve()

    def refused(self, message: str) -> pytest.UsageError:
        """Make the error that repeats what was written and says what to write instead."""
        return refusal(self.written, message)

    def need(self, found: Found | None, message: str) -> Found:
        """Return what was found; raise the error that says what to write where that is nothing."""
        if not found:
            raise self.refused(message)
        return found

    @contextmanager
    def refusing(self, kind: type[Exception]) -> Iterator[None]:
        """Raise errors of this kind as one that repeats what was written."""
        try:
            yield
        except kind as error:
            raise self.refused(str(error)) from error


_ATTENDED: Final = ("canary", "max_failed", "budget", "key_limit", "report")
"""Settings that do not apply with ``--manifest-dispatch-only``, as pytest does not see to them."""


@dataclass(eq=False)
class Option(Generic[Value]):
    """Define one option of the command line, and with ``ini`` of the configuration file as well.

    ``about`` is what pytest's help says of it; all else is in the reference.
    """

    ini_type: ClassVar[Literal["bool"] | None] = None
    is_typed: ClassVar[bool] = True
    """Whether it is one of the command line."""

    parse: Callable[..., Value]
    default: Value
    metavar: str
    about: str
    _: KW_ONLY
    name: str | None = None
    ini: bool = False
    ini_default: str | bool = ""

    def __post_init__(self) -> None:
        self.keywords: dict[str, object] = {"metavar": self.metavar}

    def __set_name__(self, owner: type, attribute: str) -> None:
        """Take the option's name from the attribute, where it has none of its own."""
        name = attribute if self.name is None else self.name
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
        if self.is_typed:
            about = self.about.replace("%", "%%")
            group.addoption(self.flag, dest=self.dest, help=about, **self.keywords)
        if self.ini:
            parser.addini(self.dest, self.about, type=self.ini_type, default=self.ini_default)

    def read(self, config: pytest.Config) -> Value:
        """Return the value of the command line, else of the configuration file, else the default.

        Raises pytest.UsageError where the text is not valid. Where any text is, an empty one counts
        as not given, but for a broker: jobs would go to another than the one that was meant. In
        the file an empty folder is pytest's root folder.
        """
        given = getattr(config.option, self.dest) if self.is_typed else None
        if given is not None and (given or self.parse is not text):
            written = f"{self.flag}{' ' if self.ini else '='}{given}"
            return self.parse(Given(given, written, config.invocation_params.dir, config))
        found = self._in_file(config)
        if not found and self.parse is not project_path:
            return self.default
        return self.parse(Given(found, f"{self.dest} = {found}", config.rootpath, config))

    def _in_file(self, config: pytest.Config) -> str:
        attended = self.dest.removeprefix("manifest_") in _ATTENDED
        is_left_out = attended and config.option.manifest_dispatch_only
        return "" if is_left_out or not self.ini else str(config.getini(self.dest))


@dataclass(eq=False)
class Setting(Option[Value]):
    """Define a setting that is one of the configuration file alone."""

    is_typed = False

    metavar: str = field(init=False, default="")
    ini: bool = True


class Flag(Option[bool]):
    """Define an option without a value; in the configuration file it is true or false."""

    ini_type = "bool"

    def __init__(self, about: str, *, name: str | None = None, ini: bool = False) -> None:
        super().__init__(lambda _: True, False, "", about, name=name, ini=ini, ini_default=False)
        self.keywords = {"action": "store_true"}

    def read(self, config: pytest.Config) -> bool:
        """Return whether the option is given, or true in the configuration file."""
        if self.is_typed and getattr(config.option, self.dest):
            return True
        try:
            return self.ini and bool(config.getini(self.dest))
        except (pytest.UsageError, TypeError, ValueError) as error:  # by pytest's version
            raise refusal(self.dest, f"{error}; write true or false") from error


class Switch(Flag):
    """Define a setting that is true or false."""

    is_typed = False

    def __init__(self, about: str) -> None:
        super().__init__(about, ini=True)


ALONE: Final = "alone"


class Mode(Option[str]):
    """Define an option that is given alone, or with one of a few words: ``--x`` or ``--x=word``.

    Its value is "" where it is not given, ``ALONE`` without a word.
    """

    def __init__(self, *words: str, about: str) -> None:
        super().__init__(lambda given: given.text, "", "", about)
        self.words = words

    def declare(self, parser: pytest.Parser, group: pytest.OptionGroup) -> None:  # noqa: ARG002
        """Declare it to pytest, and each word as a flag of its own.

        A value that may be left out would be taken from what follows, as from a test's file.
        """
        for word in (ALONE, *self.words):
            flag, about = self.flag, self.about
            if word != ALONE:
                flag, about = f"{flag}={word}", argparse.SUPPRESS
            group.addoption(flag, dest=self.dest, action="store_const", const=word, help=about)

    def refuse_others(self, arguments: Sequence[str]) -> None:
        """Raise pytest.UsageError where another word is given; argparse would not name these."""
        for one in arguments:
            if one.startswith(f"{self.flag}=") and one.partition("=")[2] not in self.words:
                words = " or ".join(f"{self.flag}={word}" for word in self.words)
                raise refusal(one, f"write {self.flag} alone, or {words}")


@dataclass(eq=False)
class Several(Option[Value]):
    """Define an option that may be given several times; the file has its values side by side.

    ``parse`` is given all of them, in their order.
    """

    default: Value = field(init=False)

    def __post_init__(self) -> None:
        self.default = self.parse([])
        self.keywords = {"action": "append", "metavar": self.metavar}

    def read(self, config: pytest.Config) -> Value:
        """Return what all texts of the command line amount to, else those of the file."""
        texts: list[str] = getattr(config.option, self.dest) or []
        start, folder = f"{self.flag}=", config.invocation_params.dir
        if not texts:
            start, folder = f"{self.dest} = ", config.rootpath
            texts = shlex.split(self._in_file(config).replace(",", " "))
        return self.parse([Given(one, start + one, folder, config) for one in texts])


def text(given: Given) -> str:
    """Return the text as it is."""
    return given.text


def project_path(given: Given) -> Path:
    """Return a path below pytest's root folder, its symbolic links left as they are."""
    return given.config.rootpath / given.text
