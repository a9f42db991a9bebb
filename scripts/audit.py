"""Look at what this project is made of: python -m scripts.audit [--offline|--complete] [CHECK ...].

Each check prints a line; the exit status is 1 where one has found a fault. `--offline` leaves out
those that ask others: a service that knows vulnerabilities, the registry of the vendored libraries.
`--complete`, for a release, makes a fault of what could not be looked up.
"""

# ruff: noqa: T201  (a command speaks on its standard output)

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import tomllib

ROOT = Path(__file__).resolve().parents[1]
VENDOR = ROOT / "pytest_manifest" / "reporting" / "run_page" / "vendor"
LOCKS: Final = ("requirements/dev.txt", "requirements/image.txt", "requirements/neighbours.txt")
CODE: Final = ("pytest_manifest", "tasks", "workflows", "scripts", ".ci", "hatch_build.py")
LICENCES: Final = frozenset({"MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Apache-2.0"})
"""What may be in the wheel, whose own licence is Apache-2.0."""
SECONDS: Final = 300
WITH_REASON: Final = re.compile(r"#\s*noqa:\s*([A-Z0-9, ]+?)\s*(?:-|\()\s*(\w.*)")
"""A rule that does not hold in a line, and why."""

NOSEC: Final = re.compile(r"#\s*nosec (?:B\d+,? ?)+ # \w.*")
"""The same by bandit's own mark."""


@dataclass
class Outcome:
    """The result of a check: what was looked at, in a line; faults; and what could not be seen."""

    line: str
    faults: Sequence[str] = ()
    unseen: Sequence[str] = field(default_factory=tuple)


def code() -> Outcome:
    """Run bandit; a finding is accepted where its line has ruff's mark for it, with the reason.

    Bandit's own mark is for the few that ruff does not have, and needs a reason as well.
    """
    shown = _run("-m", "bandit", "--quiet", "-c", "pyproject.toml", "-f", "json", "-r", *CODE)
    outcome = judged_code(json.loads(shown.stdout), lambda name: (ROOT / name).read_text("utf-8"))
    outcome.faults = [*outcome.faults, *_marks_without_reason()]
    return outcome


def _marks_without_reason() -> list[str]:
    listed = subprocess.run(
        ["git", "grep", "-n", "--fixed-strings", "# nosec", "--", *CODE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (line for line in listed.stdout.splitlines() if "scripts/audit.py" not in line)
    return [f"{line}: give the reason" for line in lines if not NOSEC.search(line)]


def judged_code(found: Mapping[str, object], read: Callable[[str], str]) -> Outcome:
    """Hold bandit's findings against the reasons that the source gives."""
    results, errors = found["results"], found["errors"]
    assert isinstance(results, list)
    assert isinstance(errors, list)
    faults = [f"{one['filename']}: {one['reason']}" for one in errors]
    accepted = 0
    for one in results:
        lines = read(one["filename"]).splitlines()
        covered = [lines[number - 1] for number in one["line_range"]]
        if any(_accepts(line, one["test_id"]) for line in covered):
            accepted += 1
        else:
            place = f"{one['filename']}:{one['line_number']}"
            faults.append(f"{place}: {one['test_id']} {one['issue_text']}")
    return Outcome(
        f"bandit: {accepted} findings accepted, each with its reason in the line", faults
    )


def _accepts(line: str, test: str) -> bool:
    match = WITH_REASON.search(line)
    return match is not None and f"S{test[1:]}" in re.split(r"[, ]+", match[1])


def dependencies() -> Outcome:
    """Run deptry: what is imported is declared, and what is declared is used."""
    faults = []
    for folders in (["pytest_manifest"], ["tasks", "workflows"]):
        # The second are this project's own jobs, whose packages are in a group of their own.
        more = [] if folders == ["pytest_manifest"] else ["--ignore=DEP002,DEP004"]
        shown = _run("-m", "deptry", "--no-ansi", *more, *folders)
        faults += [line for line in shown.stderr.splitlines() if " DEP0" in line]
        if shown.returncode and not faults:
            faults.append(shown.stderr.strip())
    return Outcome("deptry: imports and declared dependencies are the same", faults)


def workflows() -> Outcome:
    """Run zizmor over the workflows and dependabot's file."""
    tool = Path(sys.executable).with_name("zizmor")
    command = [tool, "--offline", "--quiet", "--no-progress", "--persona=pedantic", ".github"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    faults = [] if done.returncode == 0 else [done.stdout + done.stderr]
    return Outcome("zizmor: workflows have no finding", faults)


def licences() -> Outcome:
    """Look at the licence of each vendored package: an allowed one, and its text is there."""
    packages = json.loads((VENDOR / "vendor.json").read_text("utf-8"))["packages"]
    faults = []
    for package in packages:
        name, licence = package["package"], package["licence"]
        if licence not in LICENCES:
            faults.append(f"{name}: {licence} may not be in the wheel")
        texts = [one["file"] for one in package["files"] if one["file"].startswith("LICENSE.")]
        if len(texts) != 1 or licence not in (VENDOR / texts[0]).read_text("utf-8"):
            faults.append(f"{name}: the text of {licence} is not beside it")
        for one in package["files"]:
            digest = hashlib.sha256((VENDOR / one["file"]).read_bytes()).hexdigest()
            if digest != one["sha256"]:
                faults.append(f"{one['file']}: is not what vendor.json says")
    shown = ", ".join(f"{one['package']} {one['version']} ({one['licence']})" for one in packages)
    return Outcome(f"vendored: {shown}", faults)


def vendored() -> Outcome:
    """Fetch the vendored packages anew by npm, and compare."""
    if shutil.which("npm") is None:
        return Outcome("vendored", unseen=["npm is not installed, so no package was fetched"])
    done = _run("scripts/vendor.py", "--check")
    line = "vendored: each file is what its package on the registry has"
    said = done.stderr.strip().splitlines()
    if done.returncode == UNREACHED:
        return Outcome(line, unseen=said[-1:])
    return Outcome(line, said if done.returncode else ())


UNREACHED: Final = 3
"""The status of scripts/vendor.py where the registry did not give a package."""


def vulnerabilities() -> Outcome:
    """Ask pip-audit for known vulnerabilities of all that is locked."""
    accepted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    reasons = accepted["tool"]["manifest-audit"]["accepted-vulnerabilities"]
    locks = [word for name in LOCKS for word in ("-r", name)]
    command = ("-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner=off")
    shown = _run(*command, "--timeout=10", "-f", "json", *locks)
    try:
        found = json.loads(shown.stdout)
    except ValueError:
        said = (shown.stderr.strip().splitlines() or ["no answer"])[-1]
        return Outcome("pip-audit", unseen=[f"no service of vulnerabilities answers: {said[:200]}"])
    return judged_vulnerabilities(found["dependencies"], reasons)


def judged_vulnerabilities(
    found: Iterable[Mapping[str, object]], reasons: Mapping[str, str]
) -> Outcome:
    """Hold what pip-audit has found against what is accepted, each with a reason, by its id.

    pip-audit is content where a service knows none of the packages: those count as not looked up.
    """
    known, skipped, faults, used = 0, [], [], set()
    for one in found:
        name = f"{one['name']} {one.get('version', '')}".rstrip()
        if "skip_reason" in one:
            skipped.append(name)
            continue
        known += 1
        vulnerable = one["vulns"]
        assert isinstance(vulnerable, list)
        for each in vulnerable:
            ids = {each["id"], *each["aliases"]}
            if ids & reasons.keys():
                used |= ids & reasons.keys()
            else:
                fixed = " or ".join(each["fix_versions"]) or "no version yet"
                faults.append(f"{name}: {each['id']}, fixed in {fixed}")
    if not skipped:
        faults += [f"{one} is accepted, and no longer found" for one in reasons.keys() - used]
    shown = ", ".join(skipped[:3])
    unseen = [f"of {len(skipped) + known} packages {len(skipped)} were not looked up: {shown}"]
    line = f"pip-audit: {known} packages looked up, {len(used)} vulnerabilities accepted"
    return Outcome(line, faults, unseen if skipped else ())


CHECKS: Final[Mapping[str, Callable[[], Outcome]]] = {
    "code": code,
    "dependencies": dependencies,
    "workflows": workflows,
    "licences": licences,
    "vendored": vendored,
    "vulnerabilities": vulnerabilities,
}
ONLINE: Final = ("vendored", "vulnerabilities")


def report(name: str, outcome: Outcome, *, complete: bool) -> bool:
    """Print what a check has to say; return whether it found no fault."""
    faults = [*outcome.faults, *(outcome.unseen if complete else ())]
    print(f"{'FAULT' if faults else 'ok' if not outcome.unseen else 'NOT SEEN':8} {outcome.line}")
    for fault in faults:
        print(f"         {name}: {fault}")
    for one in () if complete else outcome.unseen:
        print(f"         {name}: {one}")
    return not faults


def main() -> int:
    """Run the checks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checks", nargs="*", choices=[*CHECKS, []], metavar="CHECK")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--offline", action="store_true")
    which.add_argument("--complete", action="store_true")
    given = parser.parse_args()
    names = [name for name in given.checks or CHECKS if not (given.offline and name in ONLINE)]
    good = [report(name, CHECKS[name](), complete=given.complete) for name in names]
    return 0 if all(good) else 1


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())
