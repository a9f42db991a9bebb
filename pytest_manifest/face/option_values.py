"""Values of single options, from the texts of the command line and of the configuration file.

Each raises pytest.UsageError that repeats what the user wrote, and says what to write instead.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from pytest_manifest.manifest import GroupRule, Shard

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def ini_text(config: pytest.Config, name: str) -> str | None:
    """What the configuration file says, None where it says nothing."""
    value = config.getini(name)
    return str(value) if value else None


def _setting(config: pytest.Config, name: str) -> tuple[str | None, str]:
    """A setting's text, and how the user wrote it; the command line goes before the file."""
    given = getattr(config.option, name)
    if given is not None:
        return str(given), f"--{name.replace('_', '-')} {given}"
    text = ini_text(config, name)
    return text, f"{name} = {text}"


def applies(config: pytest.Config, name: str) -> bool:
    """Whether a gate applies: one of the configuration file does not where nobody stays."""
    return getattr(config.option, name) is not None or not config.option.manifest_dispatch_only


def positive(config: pytest.Config, name: str, default: int) -> int:
    """A whole number from 1."""
    text, written = _setting(config, name)
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise pytest.UsageError(f"{written}: give a whole number from 1")
    return number


def duration(config: pytest.Config, name: str, default: float, *, zero: bool = False) -> float:
    """Seconds from ``90``, ``90s``, ``30m``, ``6h`` or ``2d``."""
    text, written = _setting(config, name)
    if text is None:
        return default
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if match is None or (float(match.group(1)) <= 0 and not zero):
        raise pytest.UsageError(f"{written}: write it like 90s, 30m or 6h")
    return float(match.group(1)) * _UNITS[match.group(2)]


def amount(config: pytest.Config, name: str) -> float | None:
    """A cost: a number from 0."""
    text, written = _setting(config, name)
    if text is None:
        return None
    number = float(text) if re.fullmatch(r"\s*\d+(\.\d+)?(e[+-]?\d+)?\s*", text) else math.inf
    if not math.isfinite(number):
        raise pytest.UsageError(f"{written}: give a number from 0, like 5 or 2.50")
    return number


def refuse_name(path: Path) -> None:
    """Refuse a file whose name is no text: pytest's cache and reports could not write it down."""
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = name.encode("utf-8", "backslashreplace").decode()
        raise pytest.UsageError(
            f"{shown}: the file's name is not UTF-8, which pytest cannot write down; rename it"
        ) from error


def aggregate(config: pytest.Config) -> GroupRule | None:
    """How entries are put together into one test; None: each has its own."""
    text = config.option.manifest_aggregate
    if text is None:
        return None
    from pytest_manifest.manifest import GroupRule

    match = re.fullmatch(r"task|chunk:([0-9]{1,9})", text)
    if match is None or (match[1] is not None and int(match[1]) < 1):
        raise pytest.UsageError(
            f"--manifest-aggregate={text}: write task, or chunk:1000 for so many entries each"
        )
    return GroupRule(None if match[1] is None else int(match[1]))


def shard(config: pytest.Config) -> Shard | None:
    """The part of the manifests that this session is for, None for all of them."""
    text: str | None = config.option.manifest_shard
    if text is None:
        return None
    from pytest_manifest.manifest import Shard

    try:
        return Shard.parse(text)
    except ValueError as error:
        raise pytest.UsageError(f"--manifest-shard={text}: {error}") from error


def run_name(config: pytest.Config) -> str | None:
    """The run that is named: it is looked for in the ledgers' folder, and nowhere else."""
    name: str | None = config.option.manifest_run
    if name is None:
        return None
    from pytest_manifest.schema import RULE, is_identifier

    if not is_identifier(name):
        raise pytest.UsageError(f"--manifest-run={name}: {RULE}; name a run by its id")
    return name


def path_of(config: pytest.Config, name: str | None) -> Path | None:
    """A path as it was given where pytest was started."""
    return None if name is None else (config.invocation_params.dir / name).resolve()


def report_file(config: pytest.Config) -> Path | None:
    """Where the run page is to be: as given on the command line, or below the root."""
    given, text = config.option.manifest_report, ini_text(config, "manifest_report")
    if given == "":
        raise pytest.UsageError("--manifest-report is empty; name a file, like run.html")
    if given and config.option.manifest_dispatch_only:
        raise pytest.UsageError(
            "--manifest-report is of a run that is over; leave it out with "
            "--manifest-dispatch-only, and give it to --manifest-audit --manifest-wait"
        )
    if config.option.manifest_dispatch_only or not (given or text):
        return None
    path = path_of(config, given) if given else (config.rootpath / str(text)).resolve()
    if path is not None and path.is_dir():
        raise pytest.UsageError(f"{path}: is a folder; name the page's file in it, like run.html")
    return _made_by_us(path, "--manifest-report", ".html")


def output_file(config: pytest.Config, name: str, suffix: str) -> Path | None:
    """Where a document of the run is to be written besides, as the option ``name`` says."""
    given = getattr(config.option, name)
    option = f"--{name.replace('_', '-')}"
    if given is None:
        return None
    path = path_of(config, given)
    if path is not None and path.is_dir():
        raise pytest.UsageError(f"{path}: is a folder; name a file in it with {option}")
    return _made_by_us(path, option, suffix)


def _made_by_us(path: Path | None, option: str, suffix: str) -> Path | None:
    """The path, if its suffix is that of what will be written: so no manifest or source file is
    written over by a slip of the hand."""
    if path is not None and path.suffix.lower() != suffix:
        raise pytest.UsageError(
            f"{option}={path.name}: the file is written over, so its name must end in {suffix}"
        )
    return path


def failure_limit(config: pytest.Config) -> int | float | None:
    """A number of entries from ``20``, a share of them from ``5%``."""
    text, written = _setting(config, "manifest_max_failed")
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", text.strip())
    if match is None or float(match.group(2) or 0) > 100:
        raise pytest.UsageError(f"{written}: write it like 20 or 5%")
    return int(match.group(1)) if match.group(1) else float(match.group(2)) / 100


def issue_link(config: pytest.Config) -> str | None:
    """The address of an issue, with ``{}`` in place of its name."""
    text = ini_text(config, "manifest_issue_link")
    if text is not None and "{}" not in text:
        raise pytest.UsageError(
            f"manifest_issue_link = {text}: write {{}} where an issue's name belongs, like "
            "https://tracker.example.com/browse/{}"
        )
    return text


def progress(config: pytest.Config) -> Literal["auto", "line", "log", "off"]:
    """How far a run is, and how that is shown."""
    match config.option.manifest_progress or ini_text(config, "manifest_progress") or "auto":
        case "auto" | "line" | "log" | "off" as known:
            return known
        case other:
            raise pytest.UsageError(f"manifest_progress = {other}: write auto, line, log or off")


def on_interrupt(config: pytest.Config) -> Literal["revoke", "detach"] | None:
    """What becomes of sent jobs on Ctrl-C, None where nothing is said."""
    match config.option.manifest_on_interrupt or ini_text(config, "manifest_on_interrupt"):
        case None:
            return None
        case "revoke":
            return "revoke"
        case "detach":
            return "detach"
        case other:
            raise pytest.UsageError(f"manifest_on_interrupt = {other}: write revoke or detach")
