"""Try forgeries in a run whose jobs no worker runs, on a real Valkey."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from pytest_manifest import signing as keys
from pytest_manifest.ledger import Ledger
from pytest_manifest.manifest import write_manifest
from pytest_manifest.manifest.reader import Manifest
from pytest_manifest.run.dispatch import dispatch_run
from pytest_manifest.run.run import Run
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Entry, Header
from pytest_manifest.urls import StackAddress
from pytest_manifest.worker import signing
from tests.forgeries.kinds import Kind, Loot, order_signature
from tests.forgeries.reports import TASK, Job, Publisher
from tests.support import eventually

DONOR = "donor"
DEADLINE = 12.0
"""Seconds of a run whose jobs have been taken away."""


@dataclass(frozen=True)
class Trial:
    """What came of a run: each entry's verdict, the sentences, and where all is kept."""

    verdicts: dict[str, str]
    sentences: dict[str, str]
    run: Run
    manifest: Manifest
    public_pem: str


def entry_of(number: int, kind: Kind) -> Entry:
    """The entry that one forgery is about; what it expects is met by no true end."""
    n = 1000 + number
    expect: dict[str, Any] = kind.expect or {"result": {"n": n}}
    fields = {"id": name_of(number), "task": TASK, "kwargs": {"n": n}, "timeout": 60}
    return Entry.model_validate({**fields, "expect": expect})


def name_of(number: int) -> str:
    return f"k-{number:02d}"


def forged(
    url: str, folder: Path, kinds: Sequence[Kind], *, signed: bool, truth: bool = False
) -> Trial:
    """Run a manifest with an entry for each kind, and forge the end of each.

    ``signed``: whether true workers sign, and only what they sign counts. ``truth``: whether a true
    worker reports a success of every job after that; else their messages are taken away, and no
    worker ever has them.
    """
    folder.mkdir(parents=True)
    private, public = keys.generate()
    signer = keys.read_signer(private.decode(), "key")
    earlier = Job("20200101T000000-0badcafe", "k-00", 1, "0badcafe-0", wire_now(), "gone", 1000)
    donor = Entry.model_validate(
        {"id": DONOR, "task": TASK, "kwargs": {"n": 7}, "expect": {"result": {"n": 7}}}
    )
    entries = [entry_of(number, kind) for number, kind in enumerate(kinds)]
    manifest = write_manifest(folder / "m.jsonl", Header(), [*entries, donor])
    signing.use(signer if signed else None)
    try:
        with redis.Redis.from_url(url) as client:
            client.flushall()
            publisher = Publisher(client)
            run = _begin(url, folder, manifest, public if signed else None)
            try:
                _forge(run, publisher, kinds, earlier, signer, truth=truth)
                eventually(run.ended.is_set, within=90, what="the run ends")
            finally:
                run.begin_stop()
                run.stop()
    finally:
        signing.forget()
    with Ledger.open(run.ledger_path) as ledger:
        found = [one.verdict for one in ledger.queries.all_verdicts()]
    return Trial(
        {one.entry: one.verdict for one in found},
        {one.entry: one.sentence for one in found},
        run,
        manifest,
        public,
    )


def wire_now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000+00:00", time.gmtime())


def _begin(url: str, folder: Path, manifest: Manifest, pem: str | None) -> Run:
    address = StackAddress(url, url, "tests.forgeries.app:app", is_private=False)
    settings = RunSettings(folder / "runs", deadline=DEADLINE, receipt_keys=pem)
    run = dispatch_run(manifest, manifest.ids, address, settings)
    run.prepare()
    run.take_effect()
    run.start()
    eventually(run.all_sent.is_set, within=60, what="all is sent")
    return run


def _forge(
    run: Run,
    publisher: Publisher,
    kinds: Sequence[Kind],
    earlier: Job,
    signer: keys.Signer,
    *,
    truth: bool,
) -> None:
    jobs = publisher.jobs()
    own = keys.read_signer(keys.generate()[0].decode(), "key")
    loot = Loot(own, signer.key_id, jobs[DONOR], earlier, order_signature(signer))
    for number, kind in enumerate(kinds):
        kind.forge(publisher, jobs[name_of(number)], loot)
    _tell(publisher, jobs[DONOR])
    last = _last(publisher, jobs[DONOR])
    eventually(lambda: _read_to(run, last), within=60, what="the forgeries have been read")
    if truth:
        for number in range(len(kinds)):
            _tell(publisher, jobs[name_of(number)])
    publisher.drop_messages()


def _tell(publisher: Publisher, job: Job) -> None:
    """Report a success as the true worker does."""
    publisher.push(job, job.signed_start(), job.signed(job.receipt()))


def _last(publisher: Publisher, job: Job) -> str:
    newest: Any = publisher.client.xrevrange(job.stream, count=1)
    return str(newest[0][0].decode())


def _read_to(run: Run, last: str) -> bool:
    with Ledger.open(run.ledger_path) as ledger:
        return (ledger.info.get_meta("stream_position") or "0") >= last
