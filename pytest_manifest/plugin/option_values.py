"""Turn the text of an option into its value.

Each parsing function takes an option as the user gave it, and raises pytest.UsageError that repeats
what the user wrote and says what to write instead.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from pytest_manifest.errors import LedgerError
from pytest_manifest.files import MODE_HINT, parsed_mode
from pytest_manifest.plugin.option_kinds import Given, Option, Setting

if TYPE_CHECKING:
    import pytest

    from pytest_manifest.manifest import Shard
    from pytest_manifest.manifest.partition import Balance, GroupRule
    from pytest_manifest.run.settings import Rate

Word = TypeVar("Word", bound=str)
_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_HUNDRED_YEARS: Final = 36525 * 86400.0
"""In seconds, as ``MOST_SECONDS`` of manifests, whose module would load pydantic here."""

LOOKING_ONLY: Final = (
    "collectonly setuponly setupplan showfixtures show_fixtures_per_test help markers cacheshow"
)
"""Options with which no test runs; missing where pytest's plugin for one is switched off."""


def broker(given: Given) -> str:
    """Return a broker's URL, or the word ``app`` or ``private``.

    Anything else would be taken for the name of a host, so it is refused.
    """
    empty = "it is empty, like a variable that is not set; give a URL, app or private"
    is_one = "://" in given.need(given.text, empty) or given.text in ("app", "private")
    given.need(is_one, "give a URL like redis://localhost:6379/0, or write app or private")
    return given.text


def file_mode(given: Given) -> int:
    """Return the mode of a file that its owner can read and write, and nobody can execute."""
    return given.need(parsed_mode(given.text), MODE_HINT)


def plan_name(given: Given) -> str:
    """Return the name of a plan."""
    return given.need(given.text, "it is empty; write --manifest-plan=WORKFLOW:MODE")


def path(given: Given) -> Path:
    """Return a path below the folder that it was written for."""
    return given.path


def positive(given: Given) -> int:
    """Return a whole number from 1."""
    try:
        number = int(given.text)
    except ValueError:
        number = 0
    return given.need(max(number, 0), "give a whole number from 1")


def task_patterns(given: Given) -> tuple[str, ...]:
    """Return names of tasks, or patterns of them, that blanks or commas are between."""
    return given.need(_words(given), "it names no task; write names or patterns, like 'shop.*'")


EVENTS: Final = ("first_failure", "stalled", "late", "recovered", "finished")
"""As of ``schema.run_event``, whose module would load pydantic here."""


def words(given: Given) -> tuple[str, ...]:
    """Return what blanks are between."""
    return tuple(given.text.split())


def events(given: Given) -> tuple[str, ...]:
    """Return names of what may happen to a run."""
    given.need(set(_words(given)) <= set(EVENTS), f"give some of {', '.join(EVENTS)}")
    return _words(given)


def _words(given: Given) -> tuple[str, ...]:
    return tuple(given.text.replace(",", " ").split())


def grace(given: Given) -> float:
    """Return seconds, up to a hundred years, from ``90``, ``90s``, ``30m``, ``6h`` or ``2d``."""
    match = given.need(re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", given.text.strip()), _LIKE)
    seconds = float(match[1]) * _UNITS[match[2]]
    given.need(seconds <= _HUNDRED_YEARS, f"it is more than a hundred years; {_LIKE}")
    return seconds


_LIKE: Final = "write it like 90s, 30m or 6h"


def deadline(given: Given) -> float:
    """Return seconds as :func:`grace` does, but more than 0."""
    return given.need(grace(given), _LIKE)


def amount(given: Given) -> float:
    """Return a cost: a number from 0."""
    valid = re.fullmatch(r"\s*\d+(\.\d+)?(e[+-]?\d+)?\s*", given.text)
    number = float(given.text) if valid else math.inf
    given.need(math.isfinite(number), "give a number from 0, like 5 or 2.50")
    return number


def failure_limit(given: Given) -> tuple[int | float, bool]:
    """Return a number of entries from ``20``, a share of them, 0.0 to 1.0, from ``5%``; and
    whether what is sent is taken back then, from ``5%:revoke``."""
    match = re.fullmatch(r"(?:(\d+)|(\d+(?:\.\d+)?)%)(:revoke)?", given.text.strip())
    if match is None or float(match.group(2) or 0) > 100:
        raise given.refused("write it like 20 or 5%, or like 5%:revoke to take back what is sent")
    most = int(match.group(1)) if match.group(1) else float(match.group(2)) / 100
    return most, bool(match.group(3))


def aggregate(given: Given) -> GroupRule:
    """Return how entries are put together into one test."""
    from pytest_manifest.manifest.partition import GroupRule

    match = re.fullmatch(r"task|chunk:(?=0*[1-9])([0-9]{1,9})", given.text)
    size = given.need(match, "write task, or chunk:1000 for so many entries each")[1]
    return GroupRule(None if size is None else int(size))


def endpoint(given: Given) -> str | None:
    """Return the address of a collector of OpenTelemetry; ``env``: that of the environment."""
    text = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "") if given.text == "env" else given.text
    if given.text == "env" and not text:
        return None
    valid = re.fullmatch(r"https?://[^/\s]+(/\S*)?", text)
    return given.need(valid, "give a URL like http://localhost:4318, or write env")[0]


def report_files(given: Sequence[Given]) -> Mapping[str, Path]:
    """Return files of reports, which are written over, by their endings, one of each kind.

    Raises pytest.UsageError where an ending is none of a report's, so that a typing error
    overwrites no manifest and no source file.
    """
    found: dict[str, Path] = {}
    if not given:
        return found
    from pytest_manifest.reporting.formats import FORMATS, format_of

    own = (PAGE, MARKDOWN, SUMMARY)
    endings = ", ".join((*own, *(one.ending for one in FORMATS)))
    for one in given:
        one.need(one.text, "it is empty; name a file, like run.html")
        path, other = one.path, format_of(one.path)
        suffix = path.suffix.lower() if other is None else other.ending
        one.need(not path.is_dir(), "it is a folder; name a file in it, like run.html")
        is_report = other is not None or suffix in own
        one.need(is_report, f"the file is written over, so its name must end in one of {endings}")
        lacking = "" if other is None else other.lacking()
        one.need(not lacking, lacking)
        is_first = found.setdefault(suffix, path) == path
        one.need(is_first, f"another {suffix} is named as well; keep one")
    return found


def history_page(given: Given) -> Path:
    """Return the file of a page of many runs, which is written over."""
    given.need(given.text, "it is empty; name a file, like history.html")
    is_page = given.path.suffix.lower() == PAGE and not given.path.is_dir()
    given.need(is_page, f"the file is written over, so its name must end in {PAGE}")
    return given.path


PAGE: Final = ".html"
MARKDOWN: Final = ".md"
SUMMARY: Final = ".json"


def issue_link(given: Given) -> str:
    """Return the address of an issue, with ``{}`` in place of its name."""
    like = "write {} where an issue's name belongs, like https://tracker.example.com/browse/{}"
    given.need("{}" in given.text, like)
    return given.text


def one_of(*words: Word) -> Callable[[Given], Word]:
    """Make the function that returns which of the words is given."""

    def chosen(given: Given) -> Word:
        found = next((word for word in words if word == given.text), None)
        others = f"{', '.join(words[:-1])} or " if words[1:] else ""
        return given.need(found, f"write {others}{words[-1]}")

    return chosen


_LEVELS: Final = ("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL")


def log_level(given: Given) -> str:
    """Return the level in capital letters."""
    given.need(given.text.upper() in _LEVELS, "write DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return given.text.upper()


interruption: Final[Callable[[Given], Literal["revoke", "detach"]]] = one_of("revoke", "detach")


def public_keys(whose: str, variable: str) -> Option[Path | None]:
    """Return the setting that names a file of public keys; the variable does it as well."""
    return Setting[Path | None](path, None, f"file of the public keys of {whose} (${variable})")


def shard(given: Given) -> Shard:
    """Return this session's part of the manifests; ``2/8@RUN``: balanced by that run's times."""
    from pytest_manifest.manifest import Shard

    part, at, run = given.text.partition("@")
    with given.refusing(ValueError):
        found = Shard.parse(part)
    if not at:
        return found
    from pytest_manifest.plugin.coordination import joined

    controller = joined(given.config)
    balance = _balance(given, run.strip()) if controller is None else controller.balance()
    return replace(found, balance=balance)


def _balance(given: Given, run: str) -> Balance:
    """Read the times of a run, given by its id or its ledger's file."""
    from pytest_manifest.ledger import Ledger
    from pytest_manifest.manifest.partition import Balance

    path = given.need(
        _ledger_of(given, run),
        f"there is no run {run!r}, and no such file; after the @ give the id of an earlier run "
        "(not 'last'), or the file of its ledger",
    )
    with given.refusing(LedgerError), Ledger.open(path) as ledger:
        seconds = dict(ledger.queries.runtimes())
        return Balance.of(ledger.info.read().run, seconds)


def _ledger_of(given: Given, run: str) -> Path | None:
    """Return the ledger of a run, given as a file or by its id; None where there is none."""
    from pytest_manifest.ledger.files import find_ledger

    if given.beside(run).is_file():
        return given.beside(run)
    runs = given.config.rootpath / given.config.getini("manifest_dir") / "runs"
    with given.refusing(LedgerError):
        return find_ledger(runs.resolve(), run)


def run_name(given: Given) -> str:
    """Return the id of a run: it is looked for in the ledgers' folder, and nowhere else."""
    from pytest_manifest.schema.fields import RULE, is_identifier

    given.need(is_identifier(given.text), f"{RULE}; name a run by its id")
    return given.text


def compared(given: Given) -> Path | Literal["last"]:
    """Return the ledger of the run to compare with; ``last`` is looked up by each run."""
    return "last" if given.text == "last" else _readable_ledger(given, "last")


def reused(given: Given) -> Path | Literal["last", "all"]:
    """Return the ledger of the run whose passes count; ``last``: that of the same manifest before,
    ``all``: of all runs in the folder."""
    if given.text == "last":
        return "last"
    return "all" if given.text == "all" else _readable_ledger(given, "last, or all")


def _readable_ledger(given: Given, words: str) -> Path:
    """Return the ledger that is named; ``words``: what may be given instead."""
    from pytest_manifest.ledger import Ledger

    found = given.need(
        _ledger_of(given, given.text),
        "there is no such run, and no such file; give a run's id, the file of its ledger, or "
        f"{words}",
    )
    with given.refusing(LedgerError):
        Ledger.open(found).close()
    return found


def texts(given: Sequence[Given]) -> Sequence[str]:
    """Return the texts as they are, in their order."""
    return [one.text for one in given]


def plan_options(given: Sequence[Given]) -> Mapping[str, str]:
    """Return the options of a plan by their names."""
    found: dict[str, str] = {}
    for one in given:
        name, equals, value = one.text.partition("=")
        one.need(name and equals, "write it as NAME=VALUE")
        one.need(name not in found, f"{name} was given twice")
        found[name] = value
    return found


_OF_CONFTESTS: Final = ("--confcutdir", "--import-mode")


def settings_arguments(config: pytest.Config) -> tuple[str, ...]:
    """Return the arguments by which a command line has its settings of pytest, without passwords.

    A command that goes on with a run needs them all: ``-o manifest_dir=`` says where the run is,
    ``-p`` and ``--noconftest`` what the app is imported beside. How strict pytest is with a project
    is no part of that, and most projects' ``addopts`` say it.
    """
    given = config.option
    own = ["-c", str(given.inifilename)] if given.inifilename else []
    own += ["--rootdir", str(given.rootdir)] if given.rootdir else []
    words = iter(config.invocation_params.args)
    for one in words:  # as pytest itself reads them; those of ``addopts`` are there again
        name, equals, _ = one.partition("=")
        if one.startswith("-p"):
            own += ["-p", one[2:] or next(words, "")]
        elif one == "--noconftest" or (name in _OF_CONFTESTS and equals):
            own.append(one)
        elif name in _OF_CONFTESTS:
            own.append(f"{name}={next(words, '')}")
    pairs = (one.partition("=") for one in given.override_ini or ())
    shown = (
        ("-o", f"{name}{equals}{_without_password(value)}")
        for name, equals, value in pairs
        if not name.startswith("strict")
    )
    return (*own, *chain.from_iterable(shown))


def _without_password(value: str) -> str:
    if "://" not in value:
        return value
    from pytest_manifest.redaction.texts import redact_url

    return redact_url(value)


def stack_arguments(config: pytest.Config, rows: Mapping[str, Option[Any]]) -> Iterator[str]:
    """Yield the options of a command line that name pytest's settings, the app and the stack.

    They are without passwords. A command that goes on with the run needs them, too.
    """
    given = config.option
    yield from (f" {shlex.quote(one)}" for one in settings_arguments(config))
    for name in ("app", "broker", "backend"):
        if value := getattr(given, rows[name].dest):
            yield f" {rows[name].flag}={shlex.quote(_without_password(value))}"
    if getattr(given, rows["use_running_stack"].dest):
        yield f" {rows['use_running_stack'].flag}"


def from_anywhere(arguments: str, folder: Path) -> tuple[str, ...]:
    """Return the words of :func:`stack_arguments`, for whoever stands in another folder."""
    return tuple(
        str(folder / word) if before in ("-c", "--rootdir") else word
        for before, word in pairwise(("", *shlex.split(arguments)))
    )


def secret_names(given: Given) -> tuple[str, ...]:
    """Return names, and names with an exclamation mark, that blanks or commas are between."""
    from pytest_manifest.redaction.names import parse_names

    with given.refusing(ValueError):
        parse_names(_words(given))
    return _words(given)


def risks(given: Given) -> tuple[str, ...]:
    """Return the risks with which a run is sent all the same."""
    for word in _words(given):
        is_one = word == "redelivery"
        given.need(is_one, f"{word!r} is no risk that can be accepted; write redelivery")
    return _words(given)


# As ``KEY_NAME`` of manifests, whose module would load pydantic here.
_LIMIT: Final = re.compile(r"([A-Za-z0-9_.-]{1,60})=(.*)", re.ASCII | re.DOTALL)
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


def key_limits(given: Sequence[Given]) -> Mapping[str, int]:
    """Return the limits of keys by their names."""
    found: dict[str, int] = {}
    for one in given:
        name, number = one.need(
            _LIMIT.fullmatch(one.text.strip()),
            "write it as NAME=N, like tenant=5: of each value of the entries' key 'tenant' at most "
            "five jobs are in flight",
        ).groups()
        one.need(_NUMBER.fullmatch(number), f"give a whole number from 1, like {name}=5")
        one.need(name not in found, f"the key {name!r} was limited twice; keep one")
        found[name] = int(number)
    return found


def rates(given: Sequence[Given]) -> Mapping[str, Rate]:
    """Return the rates by what they are of: ``NAME=VALUE`` or NAME of a key, "" all together."""
    found: dict[str, Rate] = {}
    for one in given:
        from pytest_manifest.run.settings import Rate  # in a session that has one

        key, rate = one.need(
            Rate.parse_keyed(one.text.strip()),
            "write it as N/s, N/m or N/h, like 200/s; for each value of a key as NAME:N/s, like "
            "tenant:10/s; for one value as NAME=VALUE:N/s",
        )
        of = f"the key {key!r}" if key else "the run"
        one.need(key not in found, f"the rate of {of} was given twice; keep one")
        found[key] = rate
    return found
