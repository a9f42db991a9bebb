"""What the command line and the configuration file add up to, and what is refused."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from pathlib import Path

import pytest

from pytest_manifest import signing
from pytest_manifest.errors import SigningError
from pytest_manifest.manifest import read_manifest
from pytest_manifest.plugin import option_kinds, option_values
from pytest_manifest.plugin.options import ROWS, Options, any_given
from pytest_manifest.plugin.run_options import (
    check_work_order,
    read_options,
    receipt_keys,
    refuse_unwritable,
)
from pytest_manifest.run.settings import Rate
from pytest_manifest.schema.fields import MOST_SECONDS
from pytest_manifest.signing import sign_order


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    for name in list(os.environ):
        if name.startswith(("CELERY_", "MANIFEST_", "PYTEST_")):
            monkeypatch.delenv(name)
    (pytester.path / "m.jsonl").write_text('{"id": "a", "task": "t"}\n', "utf-8")
    (pytester.path / "n.jsonl").write_text('{"id": "a", "task": "t"}\n', "utf-8")
    (pytester.path / "r.jsonl").touch()
    (pytester.path / "folder").mkdir()


CALL = " -p no:cacheprovider"


def read(pytester: pytest.Pytester, *arguments: str, ini: str = "") -> Options:
    """The options of such a call in a folder with m.jsonl, n.jsonl, r.jsonl and a folder."""
    (pytester.path / "pytest.ini").write_text(f"[pytest]\n{ini}\n", "utf-8")
    return read_options(pytester.parseconfig("-p", "no:cacheprovider", *arguments))


def test_every_option_of_ours_makes_a_session_ours(pytester: pytest.Pytester) -> None:
    """Where none is given the session stays idle; any one of them has its values checked."""
    with_us = vars(pytester.parseconfig().option)
    without = vars(pytester.parseconfig("-p", "no:manifest").option)
    ours = with_us.keys() - without.keys()

    assert "manifest" in ours
    assert not any_given(Namespace(**with_us))
    for name in ours:
        for value in ("", "x", ["x"], 0, True):
            assert any_given(Namespace(**with_us | {name: value})), name


def test_help_has_the_options_by_subject(pytester: pytest.Pytester) -> None:
    """In the order in which a batch is made, judged, limited and reported."""
    text = pytester.runpytest_subprocess("--help").stdout.str()
    heading = r"^batches of Celery jobs .*\(pytest-celery-manifest\): (.*):$"
    _, *parts = re.split(heading, text, flags=re.MULTILINE)
    assert parts[::2] == ["send", "resume and judge", "limits", "reports", "security"]
    listed = [re.findall(r"^  (--manifest[a-z-]*)", part, re.MULTILINE) for part in parts[1::2]]
    found = [flag for flags in listed for flag in flags]
    assert sorted(found) == sorted({one.flag for one in ROWS.values() if one.is_typed})
    assert listed[2][0] == "--manifest-window"


M = "--manifest=m.jsonl"
RECEIPTS = "--manifest-receipts=r.jsonl"

CONFLICTS = [
    (["--manifest-plan="], "--manifest-plan=: it is empty; write --manifest-plan=WORKFLOW:MODE"),
    ([M, "--manifest-plan-run"], "--manifest-plan-run needs --manifest-plan=WORKFLOW:MODE"),
    ([M, "--manifest-plan-opt", "a=1"], "--manifest-plan-opt needs --manifest-plan=WORKFLOW:MODE"),
    (["--manifest-plan=x", "--manifest-plan-opt", "a"], "=a: write it as NAME=VALUE"),
    (
        ["--manifest-plan=x", "--manifest-plan-opt", "a=1", "--manifest-plan-opt", "a=2"],
        "a was given twice",
    ),
    (["--manifest-plan=x", "--manifest-reuse=all"], "leave out --manifest-reuse"),
    ([M, "--manifest-resume", "--manifest-reuse=all"], "leave out --manifest-reuse"),
    ([M, "--manifest-audit", "--manifest-reuse=all"], "leave out --manifest-reuse"),
    ([M, "--manifest-reuse=nowhere"], "there is no such run, and no such file; give a run's id"),
    ([M, "--manifest-reuse=nowhere"], "its ledger, or last, or all (reference/commands.html#--m"),
    (["--manifest-plan=x", "--manifest-resume"], "leave out --manifest-resume"),
    (["--manifest-plan=x", "--manifest-audit"], "only plans; give the other option"),
    (["--manifest-plan=x", "--manifest-dispatch-only"], "leave out --manifest-dispatch-only"),
    (["--manifest-plan=x", M, "--manifest=n.jsonl"], "is of one manifest; give --manifest=FILE"),
    (["--manifest-plan=x", "--manifest-aggregate=task"], "leave out --manifest-aggregate"),
    *(
        ([M, f"--manifest-aggregate={text}"], f"={text}: write task, or chunk:1000")
        for text in ("", "tasks", "chunk", "chunk:0", "chunk:-1", "chunk:1e3", "chunk:9999999999")
    ),
    (["--manifest-audit"], "needs --manifest=FILE"),
    (["--manifest-resume"], "needs --manifest=FILE"),
    (["--manifest-dispatch-only"], "needs --manifest=FILE"),
    ([M, "--manifest-stack", "--manifest-broker=redis://x"], "leave out --manifest-broker"),
    ([M, "--manifest-run=r"], "needs --manifest-audit or --manifest-resume"),
    (
        [M, "--manifest-backend=redis://x", "--manifest-broker=private"],
        "a private stack keeps its results itself",
    ),
    ([M, "--manifest-broker="], "--manifest-broker : it is empty"),
    ([M, "--manifest-broker=privat"], "--manifest-broker privat: give a URL like"),
    (
        [M, "--manifest-audit", "--manifest-dispatch-only"],
        "sends nothing; leave out --manifest-dispatch-only",
    ),
    ([M, RECEIPTS], "--manifest-receipts needs --manifest-audit"),
    ([M, "--manifest-audit=wait", RECEIPTS], "leave out --manifest-audit=wait"),
    ([M, "--manifest-audit", RECEIPTS, "--manifest-run=r"], "leave out --manifest-run"),
    (
        [M, "--manifest=n.jsonl", "--manifest-audit", RECEIPTS],
        "is of one manifest; give --manifest=FILE once",
    ),
    (
        [M, "--manifest-audit", "--manifest-receipts=no.jsonl"],
        "no.jsonl: there is no such file",
    ),
    (
        [M, "--manifest-shard=0/8"],
        "--manifest-shard=0/8: the parts are counted from 1; write 1/8 to",
    ),
    (
        [M, "--manifest-shard=9/8"],
        "--manifest-shard=9/8: the parts are counted from 1; write 1/8 to",
    ),
    ([M, "--manifest-shard=2/0"], "--manifest-shard=2/0: a manifest has at least one part"),
    ([M, "--manifest-shard=x"], "--manifest-shard=x: write it as K/N, like 2/8"),
    ([M, "--manifest-shard="], "--manifest-shard=: write it as K/N, like 2/8"),
    (["--manifest-plan=x", "--manifest-shard=1/2"], "leave out --manifest-shard"),
    ([M, "--manifest-audit", RECEIPTS, "--manifest-shard=1/2"], "leave out --manifest-shard"),
    ([M, "--manifest-audit", "--manifest-resume"], "leave out --manifest-resume"),
    ([M, "--manifest-resume", "--manifest-rerun"], "goes on with a run"),
    ([M, "--manifest-dispatch-only", "--manifest-canary=3"], "before the jobs do; leave out"),
    ([M, "--manifest-dispatch-only", "--manifest-max-failed=0"], "before the jobs do; leave out"),
    ([M, "--manifest-dispatch-only", "--manifest-budget=5"], "leave out --manifest-budget"),
    (["--manifest=folder"], "folder: it is a folder; name a manifest in it"),
    (["--manifest=/dev/null"], "/dev/null: it is no regular file; name a manifest"),
    ([M, "--manifest-audit", "--manifest-receipts=."], "it is a folder; name a file in it"),
    (
        [M, "--manifest-broker=memory://", "--manifest-backend=foo"],
        "a stack in memory keeps its results itself; leave out --manifest-backend",
    ),
    (["--manifest=none.jsonl"], "none.jsonl: there is no such manifest; correct its name"),
    ([M, "--manifest-gate=bogus"], "--manifest-gate=bogus: write no-new ("),
    ([M, "--manifest-canary=0"], "--manifest-canary 0: give a whole number from 1"),
    ([M, "--manifest-canary=few"], "--manifest-canary few: give a whole number from 1"),
    ([M, "--override-ini=manifest_kills=-1"], "manifest_kills = -1: give a whole number from 1"),
    ([M, "--manifest-report=m.jsonl"], "--manifest-report=m.jsonl: the file is written over, so"),
    ([M, "--manifest-report="], "--manifest-report=: it is empty; name a file, like run.html"),
    ([M, "--manifest-report=jobs.py"], "--manifest-report=jobs.py: the file is written over"),
    (
        [M, "--manifest-report=m.jsonl"],
        "its name must end in one of .html, .md, .json, .csv, ",
    ),
    ([M, "--manifest-report=."], "it is a folder; name a file in it, like run.html"),
    (
        [M, "--manifest-report=a.md", "--manifest-report=b.md"],
        "--manifest-report=b.md: another .md is named as well; keep one",
    ),
    ([M, "--manifest-window=0"], "--manifest-window 0: give a whole number from 1"),
    ([M, "--manifest-workers=0"], "--manifest-workers 0: give a whole number from 1"),
    ([M, "--manifest-max-failed=x"], "--manifest-max-failed x: write it like 20 or 5%"),
    ([M, "--manifest-max-failed=-1"], "--manifest-max-failed -1: write it like 20 or 5%"),
    ([M, "--manifest-max-failed=101%"], "--manifest-max-failed 101%: write it like 20 or 5%"),
    ([M, "--manifest-max-failed="], "--manifest-max-failed : write it like 20 or 5%"),
    ([M, "--manifest-budget=-1"], "--manifest-budget -1: give a number from 0, like 5 or 2.50"),
    ([M, "--manifest-budget=nan"], "--manifest-budget nan: give a number from 0"),
    ([M, "--manifest-budget=1e999"], "--manifest-budget 1e999: give a number from 0"),
    ([M, "--manifest-budget=$5"], "--manifest-budget $5: give a number from 0"),
    ([M, "--manifest-budget="], "--manifest-budget : give a number from 0"),
    (
        [M, "--manifest-key-limit=tenant"],
        "--manifest-key-limit=tenant: write it as NAME=N, like tenant=5",
    ),
    ([M, "--manifest-key-limit=a b=5"], "--manifest-key-limit=a b=5: write it as NAME=N"),
    ([M, "--manifest-key-limit="], "--manifest-key-limit=: write it as NAME=N"),
    (
        [M, "--manifest-key-limit=a=0"],
        "--manifest-key-limit=a=0: give a whole number from 1, like a=5",
    ),
    ([M, "--manifest-key-limit=a=-1"], "--manifest-key-limit=a=-1: give a whole number from 1"),
    ([M, "--manifest-key-limit=a=1.5"], "--manifest-key-limit=a=1.5: give a whole number from 1"),
    ([M, "--manifest-key-limit=a=many"], "--manifest-key-limit=a=many: give a whole number from 1"),
    ([M, "--manifest-key-limit=a=1", "--manifest-key-limit=a=2"], "the key 'a' was limited twice"),
    ([M, "--manifest-rate=fast"], "--manifest-rate=fast: write it as N/s, N/m or N/h, like 200/s"),
    ([M, "--manifest-rate="], "--manifest-rate=: write it as N/s, N/m or N/h"),
    ([M, "--manifest-rate=0/s"], "--manifest-rate=0/s: write it as N/s, N/m or N/h"),
    ([M, "--manifest-rate=-1/s"], "--manifest-rate=-1/s: write it as N/s"),
    ([M, "--manifest-rate=5/d"], "--manifest-rate=5/d: write it as N/s"),
    ([M, "--manifest-rate=tenant=acme"], "--manifest-rate=tenant=acme: write it as N/s"),
    ([M, "--manifest-rate=a b:5/s"], "--manifest-rate=a b:5/s: write it as N/s"),
    ([M, "--manifest-rate=1/s", "--manifest-rate=2/m"], "the rate of the run was given twice"),
    ([M, "--manifest-rate=a:1/s", "--manifest-rate=a:2/m"], "the rate of the key 'a' was given"),
    ([M, "--manifest-queue-depth=0"], "--manifest-queue-depth 0: give a whole number from 1"),
    ([M, "--manifest-dispatch-only", "--manifest-key-limit=a=1"], "leave out --manifest-key-limit"),
    ([M, "--manifest-deadline=0"], "--manifest-deadline 0: write it like 90s, 30m or 6h"),
    ([M, "--manifest-deadline=1w"], "--manifest-deadline 1w: write it like 90s, 30m or 6h"),
    ([M, f"--manifest-deadline={'9' * 400}"], "it is more than a hundred years; write it like"),
    ([M, "--manifest-deadline=36526d"], "--manifest-deadline 36526d: it is more than a hundred"),
    ([M, "--override-ini=manifest_grace=36526d"], "manifest_grace = 36526d: it is more"),
    ([M, "--override-ini=manifest_grace=soon"], "manifest_grace = soon: write it like"),
    *(
        (
            [M, f"--override-ini=manifest_report_mode={text}"],
            f"mode = {text}: give the",
        )
        for text in ("755", "400", "rw", "0o600")
    ),
]


@pytest.mark.parametrize(
    ("target", "ini"),
    [
        ("--manifest-report=notes/run.html", ""),
        ("--manifest-report=notes/run.json", ""),
        ("--manifest-report=notes/run.md", ""),
        ("--junitxml=notes/run.xml", ""),
        ("manifest_report=", "manifest_report = notes/run.html"),
        ("--manifest-report=", "addopts = --manifest-report=notes/run.html"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused(
    pytester: pytest.Pytester, target: str, ini: str
) -> None:
    """What is named a folder is a file."""
    (pytester.path / "notes").touch()
    (pytester.path / "pytest.ini").write_text(f"[pytest]\n{ini}\n", "utf-8")
    config = pytester.parseconfig("-p", "no:cacheprovider", M, *([] if ini else [target]))
    with pytest.raises(pytest.UsageError) as caught:
        refuse_unwritable(config, read_options(config))
    assert str(caught.value).startswith(target.partition("=")[0] + "=")
    assert "/notes/run." in str(caught.value)
    assert "cannot be written (" in str(caught.value)
    is_named = "; --manifest-report is in addopts of pytest.ini" in str(caught.value)
    assert is_named == ini.startswith("addopts")


def test_reports_that_can_be_written_leave_no_trace(pytester: pytest.Pytester) -> None:
    """But the folder; what was there stays as it is."""
    (pytester.path / "run.md").write_text("mine", "utf-8")
    reports = ("--manifest-report=new/deep/run.html", "--manifest-report=run.md")
    config = pytester.parseconfig("-p", "no:cacheprovider", M, *reports)
    refuse_unwritable(config, read_options(config))
    assert list((pytester.path / "new" / "deep").iterdir()) == []
    assert (pytester.path / "run.md").read_text("utf-8") == "mine"


def test_an_issues_address_needs_a_place_for_its_name(pytester: pytest.Pytester) -> None:
    address = "https://tracker.example.com/"
    with pytest.raises(pytest.UsageError, match=r"write \{\} where an issue's name belongs"):
        read(pytester, M, ini=f"manifest_issue_link = {address}")
    link = f"{address}{{}}"
    assert read(pytester, M, ini=f"manifest_issue_link = {link}").issue_link == link


@pytest.mark.parametrize("more", [(), ("--manifest-plan=x",)], ids=["dispatch", "plan"])
def test_a_name_that_is_no_text_is_refused(
    pytester: pytest.Pytester, more: tuple[str, ...]
) -> None:
    """pytest's cache and reports could not write it down."""
    with pytest.raises(pytest.UsageError, match=r"b\\udcff\.jsonl: the file's name is not UTF-8"):
        read(pytester, "--manifest=b\udcff.jsonl", *more)


@pytest.mark.parametrize(
    ("arguments", "sentence"), CONFLICTS, ids=[" ".join(arguments) for arguments, _ in CONFLICTS]
)
def test_what_does_not_go_together_is_refused(
    pytester: pytest.Pytester, arguments: list[str], sentence: str
) -> None:
    """One sentence says what is wrong, what to write instead, and where the option is described."""
    with pytest.raises(pytest.UsageError) as caught:
        read(pytester, *arguments)
    assert sentence in str(caught.value)
    place = re.search(r"\(reference/(\w+)\.html#([\w-]+)\)$", str(caught.value))
    assert place is not None, str(caught.value)
    names = (name for row in ROWS.values() for name in (row.flag, row.dest))
    assert place[2] in names


@pytest.mark.parametrize(
    "arguments",
    [
        [M],
        [M, "--manifest=n.jsonl", "--manifest-audit=wait"],
        [M, "--manifest-audit", RECEIPTS],
        [M, "--manifest-audit", "--manifest-run=r"],
        [M, "--manifest-resume", "--manifest-run=r"],
        [M, "--manifest-resume=unsafe", "--manifest-canary=2"],
        [M, "--manifest-dispatch-only", "--manifest-broker=redis://x"],
        [M, "--manifest-reuse=all", "--manifest-rerun"],
        [M, "--manifest-reuse=last"],
        [M, "--manifest-stack", "--manifest-backend=redis://x"],
        ["--manifest-plan=x", M, "--manifest-plan-run", "--manifest-dispatch-only"],
        ["--manifest-plan=x", "--manifest=not-yet.jsonl", "--manifest-plan-opt", "a=b=c"],
    ],
    ids=" ".join,
)
def test_what_goes_together_is_accepted(pytester: pytest.Pytester, arguments: list[str]) -> None:
    """Combinations that mean something are read without a word."""
    assert read(pytester, *arguments).active


@pytest.mark.parametrize("mode", ["check", "plan-run", "audit", "resume"])
def test_a_mode_takes_no_word_from_what_follows(pytester: pytest.Pytester, mode: str) -> None:
    """But that behind its equals sign; any other word is refused, and the option named."""
    attribute = mode.replace("-", "_")
    plan = ["--manifest-plan=x"] if mode == "plan-run" else []
    alone = pytester.parseconfig(M, *plan, f"--manifest-{mode}", "m.jsonl")
    assert alone.args == ["m.jsonl"]
    assert getattr(read_options(alone), attribute) == option_kinds.ALONE
    row = ROWS[attribute]
    assert isinstance(row, option_kinds.Mode)
    for word in row.words:
        assert getattr(read(pytester, M, *plan, f"--manifest-{mode}={word}"), attribute) == word
    flag = f"--manifest-{mode}"
    refused = f"^{flag}=other: write {flag} alone, or {flag}={row.words[0]} .*#{flag}"
    with pytest.raises(pytest.UsageError, match=refused):
        pytester.parseconfig(M, *plan, f"--manifest-{mode}=other")


def test_without_any_option_there_are_defaults_and_nothing_to_do(pytester: pytest.Pytester) -> None:
    """An ordinary session: inactive, and every setting has its documented default."""
    options = read(pytester)
    assert not options.active
    assert not options.resume
    assert (options.canary, options.max_failed, options.reports) == (0, None, {})
    assert (options.kills, options.grace, options.on_interrupt) == (3, 10.0, None)
    assert (options.window, options.deadline) == (None, 6 * 3600.0)
    assert options.ledgers == pytester.path / ".manifest" / "runs"
    assert options.may_dispatch


@pytest.mark.parametrize(
    ("text", "limit"),
    [("0", 0), ("20", 20), ("5%", 0.05), ("2.5%", 0.025), ("100%", 1.0), ("20:revoke", 20)],
)
def test_a_failure_threshold_is_a_number_or_a_share(
    pytester: pytest.Pytester, text: str, limit: float
) -> None:
    """A whole number counts entries; with a percent sign it is a share of them. A word behind it
    has what is sent taken back."""
    found = read(pytester, M, f"--manifest-max-failed={text}").max_failed
    assert found is not None
    most, revokes = found
    assert most == pytest.approx(limit)
    assert isinstance(most, float) == text.endswith("%")
    assert revokes == text.endswith(":revoke")


@pytest.mark.parametrize(
    ("text", "cost"), [("0", 0.0), ("5", 5.0), ("2.50", 2.5), (" 1e-3 ", 0.001)]
)
def test_a_budget_is_a_number(pytester: pytest.Pytester, text: str, cost: float) -> None:
    """In the entries' unit; without one there is no limit."""
    assert read(pytester, M, f"--manifest-budget={text}").budget == cost
    assert read(pytester, M).budget is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("90s", 90.0), ("1.5m", 90.0), ("6h", 21600.0), ("2d", 172800.0)],
)
def test_times_have_units(pytester: pytest.Pytester, text: str, seconds: float) -> None:
    """Seconds where no unit is given."""
    assert read(pytester, M, f"--manifest-deadline={text}").deadline == seconds


def test_no_grace_at_all_may_be_wanted(pytester: pytest.Pytester) -> None:
    """It waits for nothing that runs, where a deadline of 0 is a mistake."""
    assert read(pytester, M, "--override-ini=manifest_grace=0").grace == 0.0


INI = """
manifest_app = proj.celery:app
manifest_broker = redis://broker/0
manifest_backend = redis://store/1
manifest_workers = 3
manifest_window = 50
manifest_deadline = 1h
manifest_dir = kept
manifest_canary = 7
manifest_max_failed = 5%
manifest_budget = 12.5
manifest_key_limit = tenant=5, host=2
manifest_rate = 200/s, tenant:10/m 'tenant=a b':0.5/h
manifest_queue_depth = 5000
manifest_on_interrupt = detach
manifest_kills = 2
manifest_grace = 1m
manifest_log_format = json
manifest_log_level = debug
"""
FROM_INI = {
    "app": "proj.celery:app",
    "broker": "redis://broker/0",
    "backend": "redis://store/1",
    "workers": 3,
    "window": 50,
    "deadline": 3600.0,
    "canary": 7,
    "max_failed": (0.05, False),
    "budget": 12.5,
    "key_limits": {"tenant": 5, "host": 2},
    "rates": {"": Rate(200), "tenant": Rate(10, "m"), "tenant=a b": Rate(0.5, "h")},
    "queue_depth": 5000,
    "on_interrupt": "detach",
    "kills": 2,
    "grace": 60.0,
    "log_format": "json",
    "log_level": "DEBUG",
}


def test_the_configuration_file_sets_what_is_not_given(pytester: pytest.Pytester) -> None:
    """Every ini option arrives; paths are below the configuration's folder."""
    options = read(pytester, ini=INI)
    assert {name: getattr(options, name) for name in FROM_INI} == FROM_INI
    assert options.ledgers == pytester.path / "kept" / "runs"
    assert not options.broker_given


FURTHER = {
    "manifest_no_worker = 15m": ("no_worker", 900.0),
    "manifest_strict = true": ("strict", True),
    "manifest_allow = shop.* tasks.resize": ("allow", ("shop.*", "tasks.resize")),
    "manifest_accept = redelivery": ("accept", ("redelivery",)),
    "manifest_apply_async = true": ("apply_async", True),
    "manifest_require_signature = true": ("require_signature", True),
    "manifest_public_key = keys/people.pub": ("public_key", "keys/people.pub"),
    "manifest_require_signed_receipts = true": ("require_signed_receipts", True),
    "manifest_receipt_key = keys/workers.pub": ("receipt_key", "keys/workers.pub"),
    "manifest_redact = no": ("redact", "no"),
    "manifest_redact_names = pin !token": ("redact_names", ("pin", "!token")),
    "manifest_plans = orders": ("plans", "orders"),
    "manifest_workflows = flows": ("workflows", "flows"),
    "manifest_progress = log": ("progress", "log"),
    "manifest_report = build/run.html": ("report", "build/run.html"),
    "manifest_report_mode = 640": ("report_mode", 0o640),
    "manifest_notify = slack://$A/#b mailto://x": ("notify", ("slack://$A/#b", "mailto://x")),
    "manifest_notify_on = late finished": ("notify_on", ("late", "finished")),
    "manifest_webhook = https://x.example/y": ("webhook", ("https://x.example/y",)),
    "manifest_ping = https://x.example/1": ("ping", ("https://x.example/1",)),
    "manifest_otlp = http://localhost:4318": ("otlp", "http://localhost:4318"),
    "manifest_issue_link = https://x.example/{}": ("issue_link", "https://x.example/{}"),
}
PATHS = {"public_key", "receipt_key", "plans", "workflows", "report"}


@pytest.mark.parametrize("line", FURTHER)
def test_each_further_setting_of_the_configuration_file_arrives(
    pytester: pytest.Pytester, line: str
) -> None:
    """As what its kind is; files and folders are below the configuration's own."""
    attribute, value = FURTHER[line]
    expected = pytester.path / str(value) if attribute in PATHS else value
    assert getattr(read(pytester, M, ini=line), attribute) == expected
    assert getattr(read(pytester, M), attribute) != expected


def test_no_setting_of_the_configuration_file_is_left_out() -> None:
    """Each is set above to something that it is not by itself."""
    lines = [*INI.strip().splitlines(), *FURTHER]
    names = [line.partition(" = ")[0] for line in lines]
    assert sorted(names) == sorted(row.dest for row in ROWS.values() if row.ini)


def test_the_environment_names_keys_where_nothing_else_does(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of who may sign manifests, and of the workers; the option and the file go before it."""
    private, public = signing.generate()
    other = signing.generate()[1]
    (pytester.path / "people.pub").write_text(public, "utf-8")
    (pytester.path / "other.pub").write_text(other, "utf-8")
    order = read_manifest(pytester.path / "m.jsonl")
    signer = signing.read_signer(private.decode(), "--key")
    sign_order(order.path, len(order), order.sha256, signer)
    arguments = (M, "--override-ini=manifest_require_signature=true")
    signed = (M, "--override-ini=manifest_require_signed_receipts=true")
    with pytest.raises(SigningError, match="set manifest_public_key or MANIFEST_PUBLIC_KEY"):
        check_work_order(order, read(pytester, *arguments))
    with pytest.raises(SigningError, match="set manifest_receipt_key or MANIFEST_RECEIPT_KEY"):
        receipt_keys(read(pytester, *signed), None)
    assert receipt_keys(read(pytester, *signed, "--manifest-audit"), None) == ""

    monkeypatch.setenv("MANIFEST_PUBLIC_KEY", str(pytester.path / "people.pub"))
    monkeypatch.setenv("MANIFEST_RECEIPT_KEY", public)
    check_work_order(order, read(pytester, *arguments))
    assert receipt_keys(read(pytester, *signed), None) == public
    with pytest.raises(SigningError, match="none of its signatures is of a key that is trusted"):
        check_work_order(
            order, read(pytester, *arguments, "--override-ini=manifest_public_key=other.pub")
        )
    by_file = read(pytester, *signed, ini="manifest_receipt_key = other.pub")
    assert receipt_keys(by_file, None) == other


@pytest.mark.parametrize(
    ("arguments", "ini", "strict"),
    [
        ([], "", False),
        (["--manifest-strict"], "", True),
        ([], "manifest_strict = true", True),
        ([], "manifest_strict = 0", False),
        (["--manifest-strict"], "manifest_strict = false", True),
        (["-o", "manifest_strict=no"], "manifest_strict = true", False),
    ],
)
def test_a_flag_may_stand_in_the_configuration_file(
    pytester: pytest.Pytester, arguments: list[str], ini: str, strict: bool
) -> None:
    """There it is true or false, and the command line can only add it, or override the file."""
    assert read(pytester, M, *arguments, ini=ini).strict is strict


def test_a_flag_that_is_neither_true_nor_false_is_refused(pytester: pytest.Pytester) -> None:
    with pytest.raises(
        pytest.UsageError, match=r"^manifest_strict: .*maybe.*; write true or false"
    ):
        read(pytester, M, ini="manifest_strict = maybe")


def test_the_command_line_wins_over_the_configuration_file(pytester: pytest.Pytester) -> None:
    """What is given on the command line counts."""
    options = read(
        pytester,
        "--manifest-app=b:app",
        "--manifest-broker=redis://other",
        "--manifest-workers=1",
        "--manifest-window=2",
        "--manifest-deadline=5s",
        "--manifest-canary=1",
        "--manifest-max-failed=9",
        "--manifest-budget=3",
        "--manifest-key-limit=api.key=1",
        "--manifest-key-limit",
        "tenant=3",
        "--manifest-rate=api=key:v:1.5/s",
        "--manifest-queue-depth=7",
        "--override-ini=manifest_on_interrupt=revoke",
        "--override-ini=manifest_kills=4",
        "--override-ini=manifest_grace=0",
        "--override-ini=manifest_log_format=text",
        "--override-ini=manifest_log_level=error",
        ini=INI,
    )
    found = {name: getattr(options, name) for name in FROM_INI}
    assert found == FROM_INI | {
        "app": "b:app",
        "broker": "redis://other",
        "workers": 1,
        "window": 2,
        "deadline": 5.0,
        "canary": 1,
        "max_failed": (9, False),
        "budget": 3.0,
        "key_limits": {"api.key": 1, "tenant": 3},
        "rates": {"api=key:v": Rate(1.5)},
        "queue_depth": 7,
        "on_interrupt": "revoke",
        "kills": 4,
        "grace": 0.0,
        "log_format": "text",
        "log_level": "ERROR",
    }


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("manifest_canary = lots", "manifest_canary = lots: give a whole number from 1"),
        ("manifest_kills = 0", "manifest_kills = 0: give a whole number from 1"),
        ("manifest_max_failed = half", "manifest_max_failed = half: write it like 20 or 5%"),
        ("manifest_budget = lots", "manifest_budget = lots: give a number from 0"),
        (
            "manifest_key_limit = tenant",
            "manifest_key_limit = tenant: write it as NAME=N, like tenant=5",
        ),
        ("manifest_grace = soon", "manifest_grace = soon: write it like 90s, 30m or 6h"),
        ("manifest_deadline = 0", "manifest_deadline = 0: write it like 90s, 30m or 6h"),
        ("manifest_on_interrupt = ask", "manifest_on_interrupt = ask: write revoke or detach"),
        ("manifest_log_level = loud", "manifest_log_level = loud: write DEBUG, INFO, WARNING"),
        ("manifest_progress = bar", "manifest_progress = bar: write auto, line, log or off"),
    ],
)
def test_a_mistake_in_the_configuration_file_is_named_as_it_stands_there(
    pytester: pytest.Pytester, line: str, sentence: str
) -> None:
    """The sentence repeats the line of the file, not an option that nobody gave."""
    with pytest.raises(pytest.UsageError) as caught:
        read(pytester, ini=line)
    assert sentence in str(caught.value)


def test_a_command_that_goes_on_names_app_and_stack_again(pytester: pytest.Pytester) -> None:
    """As the command line did, without a password; what the file says need not be said again."""
    given = ("--manifest-app=b:app", "--manifest-broker=redis://:secret@h/1", "--manifest-resume")
    assert read(pytester, M, *given, ini=INI).stack_arguments == (
        f"{CALL} --manifest-app=b:app --manifest-broker='redis://:***@h/1'"
    )
    settings = ("-o", "manifest_dir=its own", "-o", "manifest_broker=redis://:secret@h/2")
    assert read(pytester, M, *settings).stack_arguments == (
        f"{CALL} -o 'manifest_dir=its own' -o 'manifest_broker=redis://:***@h/2'"
    )
    strict = "--strict-markers", "--strict-config"
    assert read(pytester, M, *strict, *settings[:2]).stack_arguments == (
        f"{CALL} -o 'manifest_dir=its own'"
    )
    conftest = "--noconftest", "--confcutdir", ".", "--import-mode=importlib"
    assert read(pytester, M, *conftest, "--tb=short").stack_arguments == (
        f"{CALL} --noconftest --confcutdir=. --import-mode=importlib"
    )
    assert read(pytester, M, "--manifest-stack").stack_arguments == f"{CALL} --manifest-stack"
    assert read(pytester, M, ini=INI).stack_arguments == CALL


def test_what_a_run_keeps_of_its_call_holds_in_any_folder(pytester: pytest.Pytester) -> None:
    """As the command that goes on says it, with whole paths; no password is kept."""
    (pytester.path / "own.ini").write_text("[pytest]\n", "utf-8")
    stack = "--manifest-broker=redis://:secret@h/1"
    options = read(pytester, M, "-c", "own.ini", "--rootdir", ".", stack)
    shown = "--manifest-broker='redis://:***@h/1'"
    assert options.stack_arguments == f" -c own.ini --rootdir .{CALL} {shown}"
    assert options.arguments == (
        *("-c", str(pytester.path / "own.ini"), "--rootdir", str(pytester.path)),
        *("-p", "no:cacheprovider", shown.replace("'", "")),
    )


@pytest.mark.parametrize("how", [("-p", "no:nose"), ("-pno:nose",)])
def test_a_command_that_goes_on_names_plugins_again(
    how: tuple[str, ...], pytester: pytest.Pytester
) -> None:
    """Where the command line did: without it the app may not even be imported."""
    assert read(pytester, M, *how, ini="addopts = -p no:doctest").stack_arguments == (
        f"{CALL} -p no:nose"
    )


@pytest.mark.parametrize(
    ("ini", "variable", "given", "said"),
    [
        ("--manifest-rerun", "", ["--manifest-resume"], "; --manifest-rerun is in addopts of %"),
        ("", "--manifest-rerun", ["--manifest-resume"], "; --manifest-rerun is in PYTEST_ADDOPTS"),
        ("--manifest-canary=few", "", [], "; --manifest-canary is in addopts of %"),
        ("--manifest-resume", "", ["--manifest-resume", "--manifest-rerun"], "--manifest-resume)"),
        ("", "", ["--manifest-resume", "--manifest-rerun"], "--manifest-resume)"),
    ],
)  # fmt: skip
def test_a_refusal_says_where_an_option_stands_that_nobody_typed(
    ini: str,
    variable: str,
    given: list[str],
    said: str,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else its reader looks for it in vain."""
    monkeypatch.setenv("PYTEST_ADDOPTS", variable)
    with pytest.raises(pytest.UsageError) as caught:
        read(pytester, M, *given, ini=f"addopts = {ini}")
    assert str(caught.value).endswith(said.replace("%", "pytest.ini"))


@pytest.mark.parametrize(
    ("ini", "variable", "place"),
    [
        ("addopts = --manifest-audit=now", "", "addopts of pytest.ini"),
        ("", "--manifest-audit=now", "PYTEST_ADDOPTS"),
    ],
)
def test_a_mode_of_the_settings_has_its_words_too(
    ini: str, variable: str, place: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word that is none is named with those that are, and with its place."""
    monkeypatch.setenv("PYTEST_ADDOPTS", variable)
    (pytester.path / "pytest.ini").write_text(f"[pytest]\n{ini}\n", "utf-8")
    result = pytester.runpytest_subprocess(M)
    result.stderr.fnmatch_lines(
        [f"*--manifest-audit=now: write --manifest-audit alone, or *is in {place}*"]
    )


def test_the_environment_names_a_stack_where_nothing_else_does(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its result store goes with its broker only."""
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://env/0")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://env/1")
    options = read(pytester, M)
    assert (options.broker, options.backend) == ("redis://env/0", "redis://env/1")
    assert not options.broker_given
    options = read(pytester, M, "--manifest-broker=redis://given")
    assert (options.broker, options.backend) == ("redis://given", None)


def test_a_word_instead_of_a_url_is_no_broker(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``private`` wins over the environment; ``app`` leaves it, as Celery takes it first."""
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://env/0")
    private = read(pytester, M, "--manifest-broker=private")
    assert (private.broker, private.stack_word, private.broker_named) == (None, "private", False)
    by_file = read(pytester, M, ini="manifest_broker = app")
    assert (by_file.broker, by_file.stack_word) == ("redis://env/0", "app")


def test_gates_of_the_configuration_file_do_not_forbid_only_sending(
    pytester: pytest.Pytester,
) -> None:
    """With --manifest-dispatch-only pytest does not stay to judge: its gates do not apply."""
    options = read(pytester, M, "--manifest-dispatch-only", ini=INI)
    assert (options.canary, options.max_failed, options.budget) == (0, None, None)
    assert options.key_limits == {}


@pytest.mark.parametrize(
    "option", ["--collect-only", "--setup-plan", "--setup-only", "--fixtures", "--markers"]
)
def test_options_that_only_look_send_nothing(pytester: pytest.Pytester, option: str) -> None:
    """pytest's own options that run no test must not dispatch either."""
    assert not read(pytester, M, option).may_dispatch


@pytest.mark.parametrize("name", ["plans", "workflows"])
def test_an_empty_folder_is_the_root_folder(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """From wherever pytest is started."""
    pytester.mkdir("elsewhere")
    monkeypatch.chdir(pytester.path / "elsewhere")
    options = read(pytester, f"--rootdir={pytester.path}", "-o", f"manifest_{name}=")
    assert getattr(options, name) == pytester.path


def test_paths_are_absolute(pytester: pytest.Pytester) -> None:
    """Manifests and receipts are taken from where pytest was started."""
    options = read(pytester, M, "--manifest-audit", RECEIPTS)
    assert options.files == (pytester.path / "m.jsonl",)
    assert options.receipts == pytester.path / "r.jsonl"
    assert all(path.is_absolute() for path in vars(options).values() if isinstance(path, Path))


def test_a_hundred_years_are_the_same_in_options_and_manifests() -> None:
    """Options may not load the module of the other; both refuse what is longer."""
    assert option_values._HUNDRED_YEARS == MOST_SECONDS
