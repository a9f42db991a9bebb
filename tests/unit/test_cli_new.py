"""``manifest new`` and ``manifest lint``: entries of a task's signature, and what is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu.utils.json import dumps, loads

from pytest_manifest.manifest import manifest_digest, read_manifest
from tests.unit.cli_support import as_json, make_run, manifest, refusal, write_manifest

APP = """
from __future__ import annotations

import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from celery import Celery
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from nowhere import Nothing

app = Celery("shop", set_as_current=False)
task = partial(app.task, shared=False)


class Size(BaseModel):
    width: int
    unit: Literal["px", "mm"] = "px"


class Picture(BaseModel):
    name: str
    size: Size
    labels: list[str] = Field(default_factory=list)


@task(bind=True)
def resize(self, picture: Picture, times: int = 2, *, until: datetime.date | None = None): ...


@task(name="shop.price")
def price(item: str, count: int, note: str | None, ratio: float = 0.5) -> None: ...


@task(name="shop.any")
def anything(first, **others) -> None: ...


@task(name="shop.odd")
def odd(
    first: int, second: int = 2, third=len, /, *rest, when=datetime.date.min, raw=b"\\xff", n=1
) -> None: ...


class Made(BaseModel):
    at: datetime.datetime = Field(default_factory=datetime.datetime.now)
    day: datetime.date = datetime.date.min
    size: Size


@task(name="shop.made", pydantic=True)
def made(what: Made) -> None: ...


@task(name="shop.untold")
def untold(what: Nothing) -> None: ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an app ``cli_shop:app``, in which commands run."""
    (tmp_path / "cli_shop.py").write_text(APP, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmanifest_app = cli_shop:app\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("MANIFEST_APP", raising=False)
    yield tmp_path
    sys.modules.pop("cli_shop", None)


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def faults(*arguments: str) -> list[str]:
    """The faults that ``lint`` finds, each with its line."""
    document = as_json("lint", *arguments, status=1)
    found = document["files"]
    assert isinstance(found, list)
    [file] = found
    assert isinstance(file, dict)
    rows = file["faults"]
    assert isinstance(rows, list)
    assert document["faults"] == len(rows)
    return [f"{row['line']}: {row['message']}" for row in rows if isinstance(row, dict)]


def test_an_entry_has_the_tasks_arguments(folder: Path) -> None:
    """With their defaults, and placeholders for the others, in models, too; lint refuses these."""
    told = as_json("new", "--from-task=cli_shop.resize", "-o", "new.jsonl")
    assert told == {"file": "new.jsonl", "entries": 1, "next": "manifest lint new.jsonl"}
    [entry] = lines(Path("new.jsonl").read_text("utf-8"))
    picture = {
        "name": "<fill in: str>",
        "size": {"width": "<fill in: int>", "unit": "px"},
        "labels": [],
    }
    assert entry == {
        "id": "resize-1",
        "task": "cli_shop.resize",
        "kwargs": {"picture": picture, "times": 2, "until": None},
    }
    assert faults("new.jsonl") == [
        "1: entry 'resize-1': kwargs.picture.name is still '<fill in: str>'; write its value",
        "1: entry 'resize-1': kwargs.picture.size.width is still '<fill in: int>'; write its value",
    ]
    filled = Path("new.jsonl").read_text("utf-8")
    filled = filled.replace('"<fill in: str>"', '"x.png"').replace('"<fill in: int>"', "4")
    Path("new.jsonl").write_text(filled, "utf-8")
    assert manifest("lint", "new.jsonl", "--app=cli_shop:app") == "new.jsonl: 1 entry, no fault\n"


def test_types_that_are_not_known_are_any_value(folder: Path) -> None:
    """Of no annotation, and of what is imported for type checkers alone."""
    for task, name in {"shop.any": "first", "shop.untold": "what"}.items():
        [entry] = lines(manifest("new", f"--from-task={task}"))
        assert entry["kwargs"] == {name: "<fill in: any value>"}


def test_a_default_that_json_does_not_have_is_left_to_the_task(folder: Path) -> None:
    """It would be given a text instead; nor is a value that a model makes anew each time fixed."""
    [entry] = lines(manifest("new", "--from-task=shop.odd"))
    assert (entry["args"], entry["kwargs"]) == (["<fill in: int>", 2], {"n": 1})
    [entry] = lines(manifest("new", "--from-task=shop.made"))
    size = {"width": "<fill in: int>", "unit": "px"}
    assert entry["kwargs"] == {"what": {"size": size}}


def test_columns_are_arguments_by_position_where_a_task_wants_it(folder: Path) -> None:
    """As many as have a value; none is taken for another."""
    Path("p.csv").write_text("n,third,second,first\n4,,,1\n,x,2,1\n", "utf-8")
    manifest("new", "--from-task=shop.odd", "--csv=p.csv", "-o", "p.jsonl")
    rows = lines(Path("p.jsonl").read_text("utf-8"))
    assert [row["args"] for row in rows] == [[1], [1, 2, "x"]]
    assert [row.get("kwargs") for row in rows] == [{"n": "4"}, None]
    assert manifest("lint", "p.jsonl", "--app=cli_shop:app") == "p.jsonl: 2 entries, no fault\n"


def test_rows_of_a_csv_file_are_entries(folder: Path) -> None:
    """Values by the task's types; an empty cell is the default, null, or the empty text."""
    text = '\ufeffno,item,count,note,ratio\n1,茶,2,,\n2,"a ""b"", c",3,x,1e-1\n'
    Path("o.csv").write_text(text, "utf-8")
    rows = lines(manifest("new", "--from-task=shop.price", "--csv=o.csv", "--id=no"))
    assert [row["id"] for row in rows] == ["1", "2"]
    assert rows[0]["kwargs"] == {"item": "茶", "count": 2, "note": ""}
    assert rows[1]["kwargs"] == {"item": 'a "b", c', "count": 3, "note": "x", "ratio": 0.1}
    Path("r.csv").write_text('picture,until\n"{""name"": ""p"", ""size"": {""width"": 3}}",\n')
    [row] = lines(manifest("new", "--from-task=cli_shop.resize", "--csv=r.csv"))
    picture = {"name": "p", "size": {"width": 3, "unit": "px"}, "labels": []}
    assert (row["id"], row["kwargs"]) == ("resize-1", {"picture": picture})
    [row] = lines(manifest("new", "--from-task=shop.price", "--csv=o.csv", "--meta=no"))[1:]
    assert (row["id"], row["meta"]) == ("price-2", {"no": "2"})
    Path("a.csv").write_text("first,second\n1,\n")
    [row] = lines(manifest("new", "--from-task=shop.any", "--csv=a.csv"))
    assert row["kwargs"] == {"first": "1", "second": ""}


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("item,count,note\nx,y,z\nx,2.5,\n", [], "o.csv:2: count='y': Input should be a valid"),
        ("item,count,note\nx,y,z\nx,2.5,\n", [], "o.csv:3: count='2.5'"),
        ("item,count,note\nx,1,z\nx,2,\n", ["--id=item"], "o.csv:3: id 'x' is that of row 2, too"),
        ("item,count,note\n\u202e,1,z\n", ["--id=item"], "o.csv:2: 'id'"),
        ("item,note\nx,z\n", [], "there is no column for 'count' of shop.price"),
        ("item,count,note,x\n", [], "shop.price has no argument 'x'; rename the column"),
        ("item,count,note\n", ["--id=no"], "there is no column 'no', but item, count, note"),
        ("item,count,note\n1,2\n", [], "o.csv:2: the row has not as many values"),
        ("item,count,note, x\n", [], "shop.price has no argument ' x'; rename the column"),
        ("item,count,note, x\n", [], "with --meta=' x'"),
        ("item,first\n", ["--from-task=shop.odd"], "shop.odd has no argument 'item'"),
        ("first,second,third\n1,,x\n", ["--from-task=shop.odd"], "o.csv:2: third has a value, so"),
        ("item;count;note\n", [], "o.csv:1: the columns seem to be separated by ';'; save it with"),
        ("item,item\n", [], "column 'item' is there twice"),
        ("", [], "o.csv:1: there is no row with the columns' names"),
        ('item,count,note\n"x', [], "o.csv: it is no CSV file"),
        ("item,count,note\n", [], "there is no row, so out.jsonl was not written"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    text: str, options: list[str], sentence: str, folder: Path
) -> None:
    """With its line, and without a file of entries."""
    Path("o.csv").write_text(text, "utf-8")
    command = ["new", "--from-task=shop.price", "--csv=o.csv", "-o", "out.jsonl", *options]
    assert sentence in refusal(*command)
    assert not Path("out.jsonl").exists()


def test_a_file_that_cannot_be_written_is_not_the_sources_fault(folder: Path) -> None:
    """What is done with the rows fails on its own account."""
    Path("o.csv").write_text("first\n1\n", "utf-8")
    Path("file").touch()
    command = ["new", "--from-task=shop.any", "--csv=o.csv", "-o", "file/out.jsonl"]
    told = refusal(*command)
    assert told.startswith("manifest: file/out.jsonl: it cannot be written (")


def test_a_long_text_is_a_value_like_others(folder: Path) -> None:
    """As prompts have them; the csv module alone stops at 128 KiB."""
    Path("o.csv").write_text(f"first\n{'x' * 200_000}\n", "utf-8")
    [row] = lines(manifest("new", "--from-task=shop.any", "--csv=o.csv"))
    assert row["kwargs"] == {"first": "x" * 200_000}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--from-task=shop.prise"], "cli_shop:app has no task 'shop.prise'; did you mean 'shop.p"),
        (
            ["--from-task=zzz"],
            "it has: cli_shop.resize, shop.any, shop.made, shop.odd, shop.price, shop.untold",
        ),
        (
            ["--from-task=shop.any", "--app=none:app"],
            "there is no module 'none'",
        ),
        (["--from-task=shop.any", "--csv=none.csv"], "none.csv: it cannot be read"),
        (["--from-task=shop.any", "--id=x"], "--id and --meta name columns"),
        (["--from-run=last", "--from-beat"], "give one of --from-task, --from-run and --from-beat"),
        (["-o", "m.jsonl"], "give one of --from-task, --from-run and --from-beat"),
        (["--from-run=last", "--csv=rows.csv"], "--csv, --id and --meta are of a task"),
        (["--from-beat", "--failed"], "--failed chooses entries of a run; give --from-run, too"),
        (["--from-run=last", "--failed"], "there is no run in"),
        (["--from-beat"], "cli_shop:app has no beat_schedule"),
        (["--from-task=shop.any", "-o", "pytest.ini"], "pytest.ini: is there already"),
        (["--from-task=shop.any", "--json"], "--json describes a file"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(
    options: list[str], sentence: str, folder: Path
) -> None:
    """On stderr, with exit status 2."""
    assert sentence in refusal("new", *options)


def test_every_fault_of_a_manifest_is_named(folder: Path) -> None:
    """Not only the first twenty, as where a run is refused."""
    text = "".join(f'{{"id": "e{n}", "task": "t", "timout": 1}}\n' for n in range(30))
    Path("m.jsonl").write_text(text, "utf-8")
    found = faults("m.jsonl")
    assert len(found) == 30
    assert found[-1] == "30: unknown field 'timout'; did you mean 'timeout'?"
    first = manifest("lint", "m.jsonl", status=1).splitlines()[0]
    assert first.startswith("m.jsonl:1: unknown field")


def test_a_file_that_cannot_be_read_has_no_faults(folder: Path) -> None:
    """That is status 2, and nothing is said of the others; each such file is named."""
    Path("m.jsonl").write_text("{}\n", "utf-8")
    told = refusal("lint", "a.jsonl", "m.jsonl", ".", "--json")
    assert told.splitlines() == [
        "manifest: a.jsonl: there is no such file; check the path",
        ".: it is a folder; name a file in it",
    ]


def test_what_an_app_does_not_accept_is_a_fault(folder: Path) -> None:
    """A task that it does not have, arguments that do not fit, models that do not validate."""
    write_manifest(
        Path("m.jsonl"),
        {"id": "a", "task": "shop.prise"},
        {"id": "b", "task": "shop.price", "args": ["x"], "kwargs": {"many": 1}},
        {"id": "c", "task": "cli_shop.resize", "kwargs": {"picture": {"size": {"width": "w"}}}},
        {"id": "d", "task": "shop.price", "args": ["x", 1, None]},
    )
    assert manifest("lint", "m.jsonl") == "m.jsonl: 4 entries, no fault\n"
    found = faults("m.jsonl", "--app=cli_shop:app")
    assert found[0].startswith("1: entry 'a': cli_shop:app has no task 'shop.prise'")
    assert found[1].startswith("2: entry 'b': shop.price(item, count, note, ratio): ")
    assert [one.split(": ")[2] for one in found[2:]] == [
        "argument picture.name",
        "argument picture.size.width",
    ]


def test_entries_are_written_as_yaml_where_the_files_name_says_so(folder: Path) -> None:
    """They are the same lines, and so have the same digest."""
    Path("rows.csv").write_text("item,count,note\nno,7,\n", "utf-8")
    for name in ("m.jsonl", "m.yaml"):
        as_json("new", "--from-task=shop.price", "--csv=rows.csv", "-o", name)
    text = Path("m.yaml").read_text("utf-8")
    assert text == (
        '- id: price-1\n  task: shop.price\n  kwargs: {"item": "no", "count": 7, "note": ""}\n'
    )
    assert manifest_digest(Path("m.yaml")) == manifest_digest(Path("m.jsonl"))


BEAT = """
from datetime import timedelta
from celery.schedules import crontab

app.conf.beat_schedule = {
    "nightly": {
        "task": "shop.price",
        "schedule": crontab(hour=3, minute=0),
        "args": ("pen", 2),
        "kwargs": {"ratio": 0.1},
        "options": {"queue": "night", "expires": timedelta(hours=1), "serializer": "json"},
    },
    "often": {"task": "shop.any", "schedule": 30.0},
}
"""


def test_beats_schedule_is_a_manifest(folder: Path) -> None:
    """Each entry of it, with arguments and options; what an entry cannot have is named."""
    Path("cli_shop.py").write_text(APP + BEAT, "utf-8")
    found = as_json("new", "--from-beat", "-o", "beat.jsonl")
    assert (found["entries"], found["left_out"]) == (2, {"nightly": ["serializer"]})
    nightly, often = read_manifest(Path("beat.jsonl"))
    assert nightly.model_dump(mode="json", exclude_unset=True) == {
        "id": "nightly",
        "task": "shop.price",
        "args": ["pen", 2],
        "kwargs": {"ratio": 0.1},
        "queue": "night",
        "expires": 3600,
        "meta": {"schedule": "<crontab: 0 3 * * * (m/h/dM/MY/d)>"},
    }
    assert (often.id, often.task, often.args, often.meta) == (
        "often",
        "shop.any",
        [],
        {"schedule": "30.0"},
    )
    said = manifest("new", "--from-beat", "-o", "beat.jsonl", "--force")
    assert "'nightly': left out serializer" in said


ODD_BEAT = """
import decimal, uuid
from datetime import datetime, timezone
from kombu import Queue

MOMENT = datetime(2026, 1, 1, tzinfo=timezone.utc)
ARGS = [[MOMENT, decimal.Decimal("1.10"), uuid.UUID(int=1), b"raw"], {"day": MOMENT.date()}]
app.conf.beat_schedule = {
    "plain": {"task": "shop.any", "schedule": 1, "options": {"queue": Queue("short-running")}},
    "marked": {"task": "shop.any", "schedule": 1, "args": ARGS, "kwargs": {"at": MOMENT}},
    "set": {"task": "shop.any", "schedule": 1, "args": ({1, 2},)},
    "nan": {"task": "shop.any", "schedule": 1, "args": (MOMENT, float("nan"))},
    "line\\nbreak": {"task": "shop.any", "schedule": 1},
    "naive": {"task": "shop.any", "schedule": 1, "options": {"expires": datetime(2030, 1, 1)}},
    "nothing": None,
    5: {"task": "shop.any", "schedule": 1},
}
"""
UNFIT = {
    "set": "Object of type set is not JSON serializable",
    "nan": "Out of range float values are not JSON compliant",
    "line\nbreak": "'id'",
    "naive": "'expires'",
    "nothing": "it is no mapping with a task and a schedule",
    "5": "'id'",
}


def test_what_cannot_be_an_entry_of_beats_schedule_is_left_out_and_named(folder: Path) -> None:
    """The others are written; a queue is its name."""
    Path("cli_shop.py").write_text(APP + ODD_BEAT, "utf-8")
    found = as_json("new", "--from-beat", "-o", "beat.jsonl")
    plain, _ = read_manifest(Path("beat.jsonl"))
    assert (found["entries"], plain.id, plain.queue) == (2, "plain", "short-running")
    left = found["entries_left_out"]
    assert isinstance(left, dict)
    assert left.keys() == UNFIT.keys()
    assert [name for name, why in UNFIT.items() if why not in str(left[name])] == []
    said = manifest("new", "--from-beat", "-o", "beat.jsonl", "--force")
    assert "left out 'set', which cannot be an entry: 'Object of type set" in said


def test_arguments_that_json_lacks_reach_the_task_as_beat_gives_them(folder: Path) -> None:
    """By the marks of Celery's JSON, which is said; another serializer does not read them."""
    Path("cli_shop.py").write_text(APP + ODD_BEAT, "utf-8")
    said = manifest("new", "--from-beat", "-o", "beat.jsonl")
    assert "'marked': arguments that JSON lacks are written with the marks" in said
    _, marked = read_manifest(Path("beat.jsonl"))
    sent = dumps(marked.model_dump(mode="json", include={"args", "kwargs"}))
    told = sys.modules["cli_shop"]
    assert loads(sent) == {"args": told.ARGS, "kwargs": {"at": told.MOMENT}}
    told.app.conf.task_serializer = "pickle"
    left = as_json("new", "--from-beat", "-o", "beat.jsonl", "--force")["entries_left_out"]
    assert isinstance(left, dict)
    assert "which the app sends as pickle" in str(left["marked"])
    told.app.conf.beat_schedule = {5: None}
    assert "nothing of beat_schedule is written; left out '5'" in refusal(
        "new", "--from-beat", "-o", "none.jsonl"
    )
    assert not Path("none.jsonl").exists()


def test_what_failed_in_a_run_is_a_manifest(folder: Path) -> None:
    """With what was skipped for it; an entry waits no more for what has passed."""
    file = write_manifest(
        Path("m.jsonl"),
        {"id": "a", "task": "shop.any", "args": [1]},
        {"id": "b", "task": "shop.any", "after": ["a"], "tags": ["x"]},
        {"id": "c", "task": "shop.any", "after": ["a", "b"], "idempotent": True},
        {"id": "d", "task": "shop.any"},
    )
    make_run(file, 1, ["passed", "failed", "skipped", None])
    found = as_json("new", "--from-run=last", "--failed", "-o", "again.jsonl")
    assert (found["entries"], found["might_run_twice"]) == (2, ["b"])
    again = {one.id: one for one in read_manifest(Path("again.jsonl"))}
    assert (again["b"].after, again["b"].tags, again["c"].after) == ([], ["x"], ["b"])
    assert as_json("new", "--from-run=last", "-o", "all.jsonl")["entries"] == 4
    said = manifest("new", "--from-run=last", "--failed", "-o", "again.yaml")
    assert "1 entry may have run and is not idempotent: 'b'" in said


def test_what_waits_for_what_has_not_failed_is_not_taken_along(folder: Path) -> None:
    """It would be sent though that never ran; nor is what waits for it, and both are named."""
    file = write_manifest(
        Path("m.jsonl"),
        {"id": "dropped", "task": "shop.any"},
        {"id": "late", "task": "shop.any", "after": ["held"]},
        {"id": "held", "task": "shop.any", "after": ["dropped"]},
        {"id": "bad", "task": "shop.any"},
        {"id": "kept", "task": "shop.any", "after": ["bad"]},
        {"id": "open", "task": "shop.any", "after": ["dropped"]},
    )
    make_run(file, 1, ["cancelled", "skipped", "skipped", "failed", "skipped", None])
    found = as_json("new", "--from-run=last", "--failed", "-o", "again.jsonl")
    assert [one.id for one in read_manifest(Path("again.jsonl"))] == ["bad", "kept"]
    assert found["entries_left_out"] == {
        "held": "it waits for 'dropped', which has neither passed nor failed (cancelled)",
        "late": "it waits for 'held', which is left out",
    }
    said = manifest("new", "--from-run=last", "--failed", "-o", "again.jsonl", "--force")
    assert "left out 'held': it waits for 'dropped'" in said
    write_manifest(file, {"id": "a", "task": "t"}, {"id": "b", "task": "t", "after": ["a"]})
    make_run(file, 2, [None, "skipped"])
    told = refusal("new", "--from-run=last", "--failed", "-o", "no.jsonl")
    assert "left out 'b': it waits for 'a', which has neither passed nor failed" in told
    assert not Path("no.jsonl").exists()
