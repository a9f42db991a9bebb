"""Name the modules that judge, with the promises that they keep and the tests that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PACKAGE = "pytest_manifest"


@dataclass(frozen=True)
class Judge:
    """A module whose mutants are to be killed.

    ``path``: below the package; ``promises``: which of them it keeps; ``tests``: the files, below
    the tests, that hold it to them, without a server and fast.
    """

    path: str
    promises: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the module's name below the package, as ``MODULE=`` takes it."""
        return self.path.removesuffix(".py").replace("/", ".")

    @property
    def module(self) -> str:
        """Return the module's whole name."""
        return f"{PACKAGE}.{self.name}"


def _unit(*names: str) -> tuple[str, ...]:
    return tuple(f"unit/test_{name}.py" for name in names)


THE_JUDGE = _unit(
    *("judge", "judge_bounds", "judge_disagreements", "judge_fields", "judge_follow_ups"),
    *("judge_reasons", "judge_trees"),
)
"""Tables of rules made of facts."""
JUDGES = (
    *(
        Judge(f"verdict/{name}.py", "S2, S4, S5", THE_JUDGE)
        for name in ("judge", "case", "inference", "belief", "tree")
    ),
    Judge("broker/locating/base.py", "S3", _unit("locating")),
    Judge("run/resume_rules.py", "S1, S2", _unit("run_resume", "run_again")),
    Judge(
        "verdict/expectations.py",
        "S4",
        _unit(
            *("verdict_judge", "verdict_containment", "verdict_secrets", "run_expected_endings"),
            "judge_fields",
        ),
    ),
    Judge(
        "run/schedule.py",
        "S6",
        _unit("run_schedule", "run_schedule_budget", "run_key_limits", "run_sending"),
    ),
    Judge(
        "run/send_queue.py",
        "S6",
        _unit("run_to_send", "run_schedule", "run_schedule_budget", "run_key_limits"),
    ),
    Judge(
        "run/casebook.py",
        "S4, S5",
        _unit(
            *("run_kept", "run_engine", "run_trees", "run_clock", "run_departures"),
            *("resume_untold", "resume_judged", "audits", "audited_statuses"),
            *("signing_admission", "merging", "merge_judged"),
        ),
    ),
    Judge("run/invariants.py", "all", _unit("invariant_rules")),
    Judge("ledger/invariants.py", "all", _unit("invariant_queries", "invariant_rules")),
    Judge(
        "verdict/judging.py",
        "S4, S5",
        _unit("judging", "costs", "excuses"),
    ),
    Judge(
        "run/resume.py",
        "S1, S2, S6",
        _unit(
            *("resume", "resume_untold", "resume_decisions", "resume_judged", "older_ledgers"),
            *("run_resume", "run_again"),
        ),
    ),
    Judge("verdict/signatures.py", "S4", _unit("report_signatures")),
    Judge("verdict/messages.py", "-", _unit("verdict_messages")),
    Judge("verdict/explanation.py", "-", _unit("explanation", "descendants")),
)

BY_NAME: Mapping[str, Judge] = {judge.name: judge for judge in JUDGES}
