"""The libraries of the run page are what their packages have, with their licences."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pytest_manifest.reporting.run_page.page import LIBRARIES, STYLES, VENDOR

LISTED = json.loads((VENDOR / "vendor.json").read_text("utf-8"))["packages"]
FILES = [(package, file) for package in LISTED for file in package["files"]]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", range(len(FILES)), ids=[file["file"] for _, file in FILES])
def test_a_file_has_its_digest(number: int) -> None:
    """Nobody has edited it since it came out of its package."""
    _, file = FILES[number]
    assert hashlib.sha256((VENDOR / file["file"]).read_bytes()).hexdigest() == file["sha256"]


def test_every_file_is_listed_and_every_package_has_its_licence() -> None:
    """Nothing stands in the folder of which nobody knows where it is from."""
    there = {path.name for path in VENDOR.iterdir()} - {"vendor.json"}
    assert there == {file["file"] for _, file in FILES}
    assert there >= {*LIBRARIES, *STYLES}
    for package in LISTED:
        licences = [file for file in package["files"] if file["file"].startswith("LICENSE.")]
        assert len(licences) == 1
        assert package["licence"] in (VENDOR / licences[0]["file"]).read_text("utf-8")


def vendor_script() -> ModuleType:
    """scripts/vendor.py as a module."""
    spec = importlib.util.spec_from_file_location("vendor", ROOT / "scripts" / "vendor.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fetching_anew_finds_what_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is not what the list says is named, and the exit status tells it."""
    import io
    import tarfile

    vendor = vendor_script()
    listed = {
        "package": "plots",
        "version": "1.0.0",
        "licence": "MIT",
        "files": [{"source": "dist/a.js", "file": "a.js", "sha256": "0" * 64}],
    }
    (tmp_path / "vendor.json").write_text(json.dumps({"packages": [listed]}), "utf-8")
    monkeypatch.setattr(vendor, "VENDOR", tmp_path)
    monkeypatch.setattr(vendor, "LIST", tmp_path / "vendor.json")

    def pack(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[:3] == ["npm", "pack", "--silent"]
        assert command[-1] == "plots@1.0.0"
        folder = Path(command[command.index("--pack-destination") + 1])
        with tarfile.open(folder / "plots-1.0.0.tgz", "w:gz") as archive:
            member = tarfile.TarInfo("package/dist/a.js")
            member.size = 3
            archive.addfile(member, io.BytesIO(b"a()"))
        return subprocess.CompletedProcess(command, 0, "plots-1.0.0.tgz\n", "")

    monkeypatch.setattr(vendor.subprocess, "run", pack)
    assert vendor.main([]) == 1
    assert "a.js differs" in capsys.readouterr().err
    assert vendor.main([]) == 0
    assert (tmp_path / "a.js").read_bytes() == b"a()"
    assert vendor.main(["charts@2"]) == 2
    capsys.readouterr()
    assert vendor.main(["--check"]) == 0
    (tmp_path / "a.js").write_bytes(b"b()")
    assert vendor.main(["--check"]) == 1
    assert "a.js is not what was published" in capsys.readouterr().err
    assert (tmp_path / "a.js").read_bytes() == b"b()"

    def unreached(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="npm error\nnpm error no network\n")

    monkeypatch.setattr(vendor.subprocess, "run", unreached)
    assert vendor.main(["--check"]) == vendor.UNREACHED
    assert "did not give a package: npm error no network" in capsys.readouterr().err
