"""Write the facts of a story into a ledger, as a run would have recorded them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from typing_extensions import TypeIs

from pytest_manifest.ledger import RECEIPT_KEYS, Descendant, Ledger
from pytest_manifest.manifest import Manifest, read_manifest
from pytest_manifest.run.changes import keep_manifest
from pytest_manifest.schema import facts as f
from pytest_manifest.schema import run_facts as r
from tests.reports import run_info
from tests.unit.judge_world import BEGAN, LIFETIME, RUN, World


def written(world: World, folder: Path) -> tuple[Path, Manifest]:
    """Write the ledger of a finished run, of which no verdict is recorded yet."""
    line = world.entry.model_dump_json(exclude_unset=True, by_alias=True)
    (folder / "m.jsonl").write_text(f"{line}\n", "utf-8")
    manifest = read_manifest(folder / "m.jsonl")
    info = run_info(
        *(RUN, BEGAN, manifest),
        broker="redis://jobs",
        backend="redis://results",
        is_private=world.is_private,
        stream_ttl=int(LIFETIME),
    )
    path = folder / "run.sqlite"
    with Ledger.create(path, info) as ledger, ledger.transaction():
        keep_manifest(manifest, path)
        if world.signed_only:
            ledger.info.set_meta(RECEIPT_KEYS, "[]")
        steps: list[f.Job | r.JobFact | r.RunFact] = [*world.jobs.values(), *world.run]
        steps += [one for facts in world.of.values() for one in facts]
        for one in sorted(steps, key=lambda step: step.seq):
            _write(ledger, world, one)
        ledger.info.set_status("finished")
    return path, manifest


def _write(ledger: Ledger, world: World, one: f.Job | r.JobFact | r.RunFact) -> None:
    if isinstance(one, f.Job):
        _plan(ledger, world, one)
    elif not one.job:
        ledger.facts.append([(None, one)])
    elif _counts(one, ledger):
        ledger.events.add([one])
    else:
        ledger.facts.append([(world.entry.id, one)])


def _counts(one: r.JobFact | r.RunFact, ledger: Ledger) -> TypeIs[r.JobFact]:
    if isinstance(one, f.Started):
        return all(each.execution != one.execution for each in ledger.events.starts(one.job))
    return isinstance(one, f.Announced) or (isinstance(one, f.Ended) and not one.fault)


def _plan(ledger: Ledger, world: World, job: f.Job) -> None:
    spawn = job.spawn
    if spawn is None:
        why = job.why if job.why in ("retry", "resume") else None
        ledger.attempts.plan([(job.task_id, job.entry, job.number, 0, job.why)], why=why)
        sent = [one for one in world.of[job.task_id] if isinstance(one, f.Sending)]
        if sent:
            ledger.attempts.mark([job.task_id], "sent", sent_at=sent[0].sent_at)
        return
    row = Descendant(job.task_id, spawn.root, spawn.parent, spawn.task, spawn.how)
    more = {name: getattr(spawn, name) for name in ("queue", "fulfils", "chords", "due")}
    ledger.descendants.add([replace(row, spawned_at=spawn.spawned_at, **more)])
