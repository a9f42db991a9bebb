"""Fetch the run page's libraries anew: python scripts/vendor.py [--check] [PACKAGE@VERSION ...].

Without a package the versions of vendor.json are fetched, and must be what is committed. `--check`
compares, and writes nothing; it ends with 3 where the registry does not give a package.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).parents[1] / "pytest_manifest" / "reporting" / "run_page" / "vendor"
LIST = VENDOR / "vendor.json"


UNREACHED = 3


def main(wanted: list[str]) -> int:
    """Fetch, write the files and the list; 1 where a committed digest is another one."""
    packages: list[dict[str, Any]] = json.loads(LIST.read_text("utf-8"))["packages"]
    if wanted == ["--check"]:
        try:
            faulty = [package for package in packages if not fetch(package, write=False)]
        except subprocess.CalledProcessError as error:
            said = (error.stderr or "").strip().splitlines() or [str(error)]
            sys.stderr.write(f"the registry did not give a package: {said[-1]}\n")
            return UNREACHED
        return 1 if faulty else 0
    versions = dict(name.rsplit("@", 1) for name in wanted)
    unknown = versions.keys() - {package["package"] for package in packages}
    if unknown:
        sys.stderr.write(f"{LIST.name} does not list {', '.join(sorted(unknown))}\n")
        return 2
    same = True
    for package in packages:
        name = package["package"]
        changed = versions.get(name, package["version"]) != package["version"]
        package["version"] = versions.get(name, package["version"])
        same &= fetch(package) or changed
    text = json.dumps({"packages": packages}, indent=2) + "\n"
    LIST.write_text(text, encoding="utf-8")
    return 0 if same else 1


def fetch(package: dict[str, Any], *, write: bool = True) -> bool:
    """Unpack the package's files; whether all of them have the digests that the list says.

    ``write`` False: compare them with the files that are there, too, and leave those.
    """
    same = True
    with tempfile.TemporaryDirectory() as folder:
        source = f"{package['package']}@{package['version']}"
        packed = subprocess.run(
            ["npm", "pack", "--silent", "--pack-destination", folder, source],
            check=True,
            capture_output=True,
            text=True,
        )
        with tarfile.open(Path(folder) / packed.stdout.split()[-1]) as archive:
            for file in package["files"]:
                member = archive.extractfile(f"package/{file['source']}")
                assert member is not None, file["source"]
                data = member.read()
                digest = hashlib.sha256(data).hexdigest()
                if digest != file["sha256"]:
                    sys.stderr.write(f"{source}: {file['file']} differs from vendor.json\n")
                    same = False
                if not write:
                    if data != (VENDOR / file["file"]).read_bytes():
                        sys.stderr.write(f"{source}: {file['file']} is not what was published\n")
                        same = False
                    continue
                file["sha256"] = digest
                (VENDOR / file["file"]).write_bytes(data)
    return same


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
