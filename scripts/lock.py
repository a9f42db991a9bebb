"""Lock the dependencies, naming no package index: `lock.py` writes, `lock.py --check` compares.

Two kinds of lock come out of one resolution by uv:

* ``requirements/dev.txt``, ``image.txt`` and ``neighbours.txt``: every version with its SHA-256
  hashes, for ``pip install --require-hashes`` and ``uv pip sync``. ``neighbours.txt`` is what
  comes on top of ``dev.txt``.
* ``uv.lock``: the same versions for ``uv sync`` and ``uv run``, kept without download addresses.
  uv completes it from the index that is configured where it runs, keeping the versions; the
  completed file is for the working copy only, and ``lock.py --neutral`` takes the addresses out.

Exit status: 0 when all is current (or was written), 1 when something differs, 2 without uv.
"""

# ruff: noqa: T201  (a command speaks on its standard output)

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent
LOCK = "uv.lock"
DEV, NEIGHBOURS = "requirements/dev.txt", "requirements/neighbours.txt"
EXPORTS = {
    DEV: ("--all-groups", "--no-group", "neighbours"),
    NEIGHBOURS: ("--only-group", "neighbours"),
    "requirements/image.txt": (
        *("--no-default-groups", "--group", "image"),
        *("--extra", "xdist", "--extra", "allure", "--extra", "flower", "--extra", "sign"),
    ),
}
FILES = (LOCK, *EXPORTS)
NOTE = (
    "# Versions only: scripts/lock.py takes the download addresses out, uv fills them in again\n"
    "# from the index that is configured where it runs.\n"
)


def neutral(lock: str) -> str:
    """Return the text of a uv.lock without any address.

    The root package's metadata goes too: without it uv holds the lock for stale and completes it,
    with the locked versions as its preference. (A lock that lacks only the addresses is taken for
    current and then fails to install.)
    """
    lock = re.sub(r"^(sdist|wheels) = \[\n(?:    .*\n)*\]\n", "", lock, flags=re.MULTILINE)
    lock = re.sub(r"^(sdist|wheels) = .*\n", "", lock, flags=re.MULTILINE)
    lock = re.sub(r'registry = "[^"]*"', 'registry = "index"', lock)
    lock = re.sub(r"^\[package\.metadata[^\]]*\]\n(?:(?!\[).*\n)*", "", lock, flags=re.MULTILINE)
    lock = re.sub(r"^#.*\n", "", lock, flags=re.MULTILINE)
    return NOTE + re.sub(r"\n{3,}", "\n\n", lock).rstrip() + "\n"


def find_uv() -> str | None:
    """Return the path of uv: the one on the path, else one beside the running Python, else None."""
    beside = Path(sys.executable).with_name("uv")
    return shutil.which("uv") or (str(beside) if beside.exists() else None)


def resolve(uv: str, *, upgrade: bool) -> dict[str, str]:
    """Return the wanted contents of each locked file, resolved in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in ("pyproject.toml", "README.md", "LICENSE", LOCK):
            if (ROOT / name).exists():
                shutil.copy(ROOT / name, work / name)
        (work / "pytest_manifest").mkdir()

        def run(*arguments: str) -> str:
            done = subprocess.run(
                [uv, *arguments], cwd=work, check=True, text=True, stdout=subprocess.PIPE
            )
            return done.stdout

        run("lock", "--quiet", *(["--upgrade"] if upgrade else []))
        lock = (work / LOCK).read_text("utf-8")
        wanted = {LOCK: neutral(lock)}
        plain = ("--frozen", "--no-emit-project", "--no-annotate", "--no-header")
        for name, groups in EXPORTS.items():
            exported = run("export", "--quiet", "--format=requirements-txt", *plain, *groups)
            wanted[name] = with_extras(exported, lock)
        wanted[NEIGHBOURS] = beyond(wanted[NEIGHBOURS], wanted[DEV])
    return wanted


def with_extras(exported: str, lock: str) -> str:
    """Name the extras with which the packages of an export ask for one another.

    uv leaves them out, as it has resolved them; but pip with hashes then holds such a requirement
    (``google-api-core[grpc]``) for one that is not pinned. What only packages outside the export
    ask for is left out, as the export does not have what such an extra needs.
    """
    pinned = set(re.findall(r"^([A-Za-z0-9._-]+)==", exported, re.MULTILINE))
    asked = {
        (needed["name"], extra)
        for package in tomllib.loads(lock)["package"]
        if package["name"] in pinned
        for some in (
            package.get("dependencies", []),
            *package.get("optional-dependencies", {}).values(),
        )
        for needed in some
        for extra in needed.get("extra", ())
    }
    for name, extra in sorted(asked):
        line = rf"^{re.escape(name)}(?:\[[^\]]*\])?(?===)"
        exported = re.sub(line, f"{name}[{extra}]", exported, flags=re.MULTILINE)
    return exported


def beyond(exported: str, other: str) -> str:
    """Return the requirements of ``exported`` that ``other`` has not."""
    name = re.compile(r"[A-Za-z0-9._-]+")
    known = {found[0] for line in other.splitlines() if (found := name.match(line))}
    entries = re.split(r"\n(?=\S)", exported.rstrip("\n"))
    kept = [one for one in entries if (found := name.match(one)) and found[0] not in known]
    return "".join(f"{entry}\n" for entry in kept)


def differing(wanted: dict[str, str]) -> list[str]:
    """Return the names of the files whose contents are not the wanted ones."""
    here = {name: ROOT / name for name in wanted}
    return [
        name
        for name, path in here.items()
        if not path.exists() or path.read_text("utf-8") != wanted[name]
    ]


def write(contents: dict[str, str]) -> None:
    """Replace the files that differ."""
    for name in differing(contents):
        (ROOT / name).write_text(contents[name], "utf-8")
        print(f"{name}: written")


def main() -> int:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail if not current")
    parser.add_argument("--upgrade", action="store_true", help="take the newest allowed versions")
    parser.add_argument(
        "--neutral",
        action="store_true",
        help="only take the addresses out of uv.lock",
    )
    arguments = parser.parse_args()
    if arguments.neutral:
        wanted = {LOCK: neutral((ROOT / LOCK).read_text("utf-8"))}
    else:
        uv = find_uv()
        if uv is None:
            print("lock.py: uv is not installed; `pip install uv` brings it", file=sys.stderr)
            return 2
        wanted = resolve(uv, upgrade=arguments.upgrade)
    if not arguments.check:
        write(wanted)
        return 0
    stale = differing(wanted)
    for name in stale:
        print(f"{name} is not current: run `make lock`, and commit it", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
