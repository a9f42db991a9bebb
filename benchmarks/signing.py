"""What signatures cost: signed receipts, and a signed work order.

    python -m benchmarks.signing [--jobs=N] [--rounds=N] [--json=FILE]

Whole sessions on a private stack, with receipts signed and unsigned by turns: the processors' time
of pytest, broker and workers together, for jobs that do nothing. That is the worst case: what is
signed is the same however long a job takes. So what each entry took more is told as a share of the
time of jobs of 10 ms, 100 ms and 1 s, too. The parts (signing a start and a receipt in the worker,
checking both in pytest) are taken by themselves, in this process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.side_by_side import PLUGIN, PYTEST, Figure, figure, project, quiet_about, take, tell
from pytest_manifest import signing as keys
from pytest_manifest.manifest import check_manifest
from pytest_manifest.schema import Receipt
from pytest_manifest.verdict.signatures import ReportSignatures
from pytest_manifest.worker import signing
from tests.forgeries.reports import TRUE, Job

GOAL: Final = 0.03
"""The share of a run that signatures may take."""
REPEATS: Final = 2000
LENGTHS: Final = (0.01, 0.1, 1.0)
"""Seconds that a job takes."""
JOB: Final = Job(
    "20261124T150000-0badcafe", "echo-1", 1, "t", "2026-11-24T15:00:00.000000+00:00", "s", 7
)


def microseconds(call: Callable[[], object]) -> float:
    """Processor time of a call, at its best of five rounds."""
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(REPEATS // 5):
            call()
        best = min(best, (time.process_time() - began) / (REPEATS // 5))
    return best * 1e6


def parts() -> dict[str, float]:
    """What each step takes, in microseconds."""
    private, public = keys.generate()
    signing.use(keys.read_signer(private.decode(), "key"))
    signatures = ReportSignatures(keys.read_verifier(public, "key"))
    start, receipt = JOB.start(TRUE), JOB.receipt()
    signed_start, record = JOB.signed_start(), JOB.signed(receipt)
    received = Receipt.model_validate(record["receipt"])
    assert signatures.fault_in_record(record, received) == ""
    taken = {
        "sign a start (us)": microseconds(lambda: signing.with_signature(start)),
        "sign a receipt (us)": microseconds(lambda: signing.sign_receipt(receipt, TRUE)),
        "check a start (us)": microseconds(lambda: signatures.fault_of_record(signed_start)),
        "check a receipt (us)": microseconds(
            lambda: signatures.fault_in_record(record, received.model_copy())
        ),
    }
    signing.forget()
    return taken


def sessions(folder: Path, jobs: int, rounds: int) -> tuple[list[float], list[float]]:
    """The processors' seconds of sessions without and with signed receipts, by turns."""
    project(folder, jobs)
    command = [*PYTEST, *PLUGIN, "--manifest=m.jsonl", "--manifest-aggregate=task"]
    took: dict[bool, list[float]] = {False: [], True: []}
    for number in range(2 * rounds):
        signed = bool(number % 2)
        with quiet_about(folder / ".manifest"):
            more = ["--override-ini=manifest_require_signed_receipts=true"] if signed else []
            took[signed].append(take([*command, *more], folder).cpu)
    return took[False], took[True]


def order(folder: Path, entries: int) -> Figure:
    """Checking the signature of a work order against reading it."""
    project(folder, entries)
    path = folder / "m.jsonl"
    private, public = keys.generate()
    found = check_manifest(path)
    keys.sign_order(path, found.entries, found.sha256, keys.read_signer(private.decode(), "key"))
    verifier = keys.read_verifier(public, "key")
    shares = []
    for _ in range(5):
        began = time.process_time()
        sha256 = check_manifest(path).sha256
        middle = time.process_time()
        keys.check_order(path, sha256, verifier)
        shares.append(100 * (time.process_time() - middle) / (middle - began))
    return figure(
        f"check the signature of a work order of {entries:,} entries",
        "reading and checking it",
        shares,
        goal=100 * GOAL,
        at_most=True,
        unit="%",
    )


def main() -> None:
    """Take the figures and tell them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        unsigned, signed = sessions(folder, given.jobs, given.rounds)
        of_order = order(folder, given.entries)
    taken = parts()
    more = sum(taken.values()) / 1e6
    whole = statistics.median(unsigned) / given.jobs
    ratios = [after / before for before, after in zip(unsigned, signed, strict=True)]
    figures = [
        figure(
            "a run of jobs that do nothing, with signed receipts",
            "the same unsigned (processor time)",
            ratios,
            goal=1 + GOAL,
            at_most=True,
            details={**taken, "a job of the unsigned run (us)": whole * 1e6},
        )
    ]
    figures += [
        figure(
            f"signing and checking, of a job of {seconds:g} s",
            "the job and what its run takes for it",
            [100 * more / (whole + seconds)],
            goal=100 * GOAL,
            at_most=True,
            unit="%",
        )
        for seconds in LENGTHS
    ]
    tell([*figures, of_order], given.json)


if __name__ == "__main__":
    main()
