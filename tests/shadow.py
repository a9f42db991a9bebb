"""Hold the verdicts that a ledger has against what the judge says of its facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_manifest.errors import ManifestError
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.jobs import LoadedAttempt
from pytest_manifest.manifest import Manifest
from pytest_manifest.schema import Entry
from pytest_manifest.schema.run_facts import RunFacts
from pytest_manifest.verdict.judge import Attempt, Judgement, judge, judge_descendant
from pytest_manifest.verdict.tree import Tree


def judged(entry: Entry, loaded: Sequence[LoadedAttempt], run: RunFacts) -> Judgement:
    """Judge an entry by the facts that its ledger has."""
    attempts = []
    for one in loaded:
        tree = Tree(one.own.job.task_id)
        tree.announce(one.own.facts)
        for facts in one.descendants:
            tree.add(judge_descendant(entry, one.own.job, facts, run))
        attempts.append(Attempt(one.own, tree if tree else None))
    return judge(entry, attempts, run)


def differences(ledger: Ledger, manifest: Manifest) -> Iterator[str]:
    """Yield a line for each entry of which the ledger and the judge say something else."""
    merged = ledger.info.merged()
    runs = {name: ledger.jobs.run_facts(name) for name in (*merged, ledger.info.read().run)}
    of_task = ledger.info.task_runs()
    for name, loaded in ledger.jobs.all():
        settled = ledger.verdicts.of_entry(name)
        try:
            if name not in manifest:
                continue
            entry = manifest[name]
        except ManifestError:
            continue
        run = runs.get(of_task.run_of(loaded[-1].own.job.task_id))
        if run is None:
            continue
        found = judged(entry, loaded, run)
        stored = "pending" if settled is None else settled.verdict.verdict
        if found.status != stored:
            said = "" if settled is None else settled.verdict.sentence
            yield f"{name}: stored {stored} ({said}), judged {found.status} ({found.code})"
