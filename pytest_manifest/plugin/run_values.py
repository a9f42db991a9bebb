"""Turn the text of an option that names an earlier run, or a part of a manifest, into its value.

Each function does as those of ``option_values`` do.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest

from pytest_manifest.plugin.option_values import Given, Option, Repeated, grace

if TYPE_CHECKING:
    from pytest_manifest.manifest import Balance, Shard


def shard(given: Given) -> Shard:
    """Return this session's part of the manifests; ``2/8@RUN``: balanced by that run's times."""
    from pytest_manifest.manifest import Shard

    part, at, run = given.text.partition("@")
    try:
        found = Shard.parse(part)
    except ValueError as error:
        raise given.refused(str(error)) from error
    if not at:
        return found
    from pytest_manifest.plugin.coordination import joined

    controller = joined(given.config)
    balance = _balance(given, run.strip()) if controller is None else controller.balance()
    return replace(found, balance=balance)


def _balance(given: Given, run: str) -> Balance:
    """Read the times of a run, given by its id or its ledger's file."""
    from pytest_manifest.errors import LedgerError
    from pytest_manifest.ledger import Ledger
    from pytest_manifest.manifest import Balance

    path = _ledger_of(given, run)
    if path is None:
        raise given.refused(
            f"there is no run {run!r}, and no such file; after the @ give the id of an earlier run "
            "(not 'last', which each shard is when it ends), or the file of its ledger"
        )
    try:
        with Ledger.open(path) as ledger:
            seconds = dict(ledger.queries.runtimes())
            return Balance.of(ledger.info.read().run, seconds)
    except LedgerError as error:
        raise given.refused(str(error)) from error


def _ledger_of(given: Given, run: str) -> Path | None:
    """Return the ledger of a run, given as a file or by its id; None where there is none."""
    from pytest_manifest.errors import LedgerError
    from pytest_manifest.ledger.run_files import find_ledger

    if given.beside(run).is_file():
        return given.beside(run)
    try:
        runs = given.config.rootpath / given.config.getini("manifest_dir") / "runs"
        return find_ledger(runs.resolve(), run)
    except LedgerError as error:
        raise given.refused(str(error)) from error


def run_name(given: Given) -> str:
    """Return the id of a run: it is looked for in the ledgers' folder, and nowhere else."""
    from pytest_manifest.schema import RULE, is_identifier

    if not is_identifier(given.text):
        raise given.refused(f"{RULE}; name a run by its id")
    return given.text


def compared(given: Given) -> Path | Literal["last"]:
    """Return the ledger of the run to compare with; ``last`` is looked up by each run."""
    return "last" if given.text == "last" else _readable_ledger(given, "last")


def reused(given: Given) -> Path | Literal["all"]:
    """Return the ledger of the run whose passes count; ``all``: of all runs in the folder."""
    return "all" if given.text == "all" else _readable_ledger(given, "all")


def _readable_ledger(given: Given, word: str) -> Path:
    """Return the ledger that is named; ``word``: what may be given instead."""
    from pytest_manifest.errors import LedgerError
    from pytest_manifest.ledger import Ledger

    found = _ledger_of(given, given.text)
    if found is None:
        raise given.refused(
            "there is no such run, and no such file; give a run's id, the file of its ledger, or "
            f"{word}"
        )
    try:
        Ledger.open(found).close()
    except LedgerError as error:
        raise given.refused(str(error)) from error
    return found


def plan_options(pairs: list[str]) -> dict[str, str]:
    """Return the options of a plan by their names; raise pytest.UsageError."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise pytest.UsageError(f"--manifest-plan-opt {pair}: write it as NAME=VALUE")
        if name in found:
            raise pytest.UsageError(f"--manifest-plan-opt {name} was given twice")
        found[name] = value
    return found


def settings_file(given: argparse.Namespace) -> tuple[str, ...]:
    """Return the arguments by which a command line names the file of pytest's settings."""
    return ("-c", str(given.inifilename)) if given.inifilename else ()


def stack_arguments(given: argparse.Namespace, rows: Mapping[str, Option[Any]]) -> Iterator[str]:
    """Yield the options of a command line that name pytest's settings, the app and the stack.

    They are without passwords. A command that goes on with the run needs them, too.
    """
    yield from (f" {shlex.quote(one)}" for one in settings_file(given))
    for name in ("app", "broker", "backend"):
        if value := getattr(given, rows[name].dest):
            from pytest_manifest.redaction import redact_url

            shown = redact_url(value) if "://" in value else value
            yield f" {rows[name].flag}={shlex.quote(shown)}"
    if getattr(given, rows["use_running_stack"].dest):
        yield f" {rows['use_running_stack'].flag}"


NO_NAMES: Final[tuple[str, ...]] = ()


def secret_names(given: Given) -> tuple[str, ...]:
    """Return names, and names with an exclamation mark, that blanks or commas are between."""
    from pytest_manifest.redaction import parse_names

    words = tuple(given.text.replace(",", " ").split())
    try:
        parse_names(words)
    except ValueError as error:
        raise given.refused(str(error)) from error
    return words


_RISKS: Final = ("redelivery",)


def manifests() -> Repeated:
    """Return the option that names manifests."""
    about = "dispatch this manifest and verify every receipt; may be given several times"
    return Repeated(about, name="", metavar="FILE")


def accepted_risks() -> Option[tuple[str, ...]]:
    """Return the option that names risks with which a run is sent all the same."""
    about = "risks with which a run is sent all the same: redelivery"
    return Option(_risks, NO_NAMES, ini=about)


def time_without_workers() -> Option[float]:
    """Return the option that says for how long a run waits where no worker is, in seconds."""
    about = "time without any worker after which a run ends, like 2m; 0: it waits for its deadline"
    return Option(grace, 120.0, ini=about, ini_default="2m")


def own_apply_async() -> Option[bool]:
    """Return the option that has tasks which override ``apply_async`` make their messages by it."""
    about = "have tasks with an apply_async of their own make their messages by it: true or false"
    return Option(_truth, False, ini=about, ini_default="false")


def _truth(given: Given) -> bool:
    if given.text.lower() not in ("true", "false"):
        raise given.refused("write true or false")
    return given.text.lower() == "true"


def _risks(given: Given) -> tuple[str, ...]:
    words = tuple(given.text.replace(",", " ").split())
    if unknown := [word for word in words if word not in _RISKS]:
        raise given.refused(f"{unknown[0]!r} is no risk that can be accepted; write {_RISKS[0]}")
    return words


# As ``KEY_NAME`` of manifests, whose module would load pydantic here.
_LIMIT: Final = re.compile(r"([A-Za-z0-9_.-]{1,60})=(.*)", re.ASCII | re.DOTALL)
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


class KeyLimitOption(Option[Mapping[str, int]]):
    """Define the option that limits keys: given several times, or words in the file."""

    def __init__(self) -> None:
        super().__init__(
            lambda _: {},
            {},
            "of each value of the entries' key NAME at most N jobs in flight, like tenant=5; may "
            "be given several times",
            name="limit",
            ini="jobs in flight at most of each value of an entry's key, like tenant=5 host=2",
            attended=True,
        )
        self.keywords = {"action": "append", "metavar": "NAME=N"}

    def read(self, config: pytest.Config) -> Mapping[str, int]:
        """Return the limits by the names of the keys: of the command line, else of the file."""
        texts: list[str] = getattr(config.option, self.dest) or []
        folder = config.invocation_params.dir
        given = [Given(one.strip(), f"{self.flag} {one}", folder, config) for one in texts]
        if not given and not config.option.manifest_dispatch_only:
            words = str(config.getini(self.dest)).replace(",", " ").split()
            root = config.rootpath
            given = [Given(one, f"{self.dest} = {one}", root, config) for one in words]
        found: dict[str, int] = {}
        for one in given:
            name, most = _limit(one)
            if name in found:
                raise one.refused(f"the key {name!r} was limited twice; keep one")
            found[name] = most
        return found


def _limit(given: Given) -> tuple[str, int]:
    match = _LIMIT.fullmatch(given.text)
    if match is None:
        raise given.refused(
            "write it as NAME=N, like tenant=5: of each value of the entries' key 'tenant' at most "
            "five jobs are in flight"
        )
    name, number = match[1], match[2]
    if not _NUMBER.fullmatch(number):
        raise given.refused(f"give a whole number from 1, like {name}=5")
    return name, int(number)
