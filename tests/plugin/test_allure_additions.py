"""What a project adds to the built-in test of an entry is in its Allure result, as in any other."""

from __future__ import annotations

import json

from tests.plugin import allure_support as allure
from tests.plugin.allure_support import MEMORY, Result
from tests.plugin.conftest import Project

CONFTEST = """
import allure
import pytest

def pytest_collection_modifyitems(items):
    for item in items:
        if "d-1" in item.name:
            item.add_marker(allure.severity("minor"))
            item.add_marker(pytest.mark.nightly)

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item):
    if "d-2" in item.name:
        with allure.step("look after it"):
            allure.attach("seen", "note", allure.attachment_type.TEXT)
        allure.dynamic.label("owner", "bob")
        allure.dynamic.link("https://docs.example.com/", name="docs")
        allure.dynamic.parameter("host", "h-1")
        allure.dynamic.title("the third")

@pytest.fixture(scope="session", autouse=True)
def prepare():
    with allure.step("make ready"):
        yield
"""
EACH = """

@pytest.fixture(autouse=True)
def guard(request):
    allure.dynamic.tag(f"guarded {request.node.name}")
    with allure.step("look around"):
        print("on guard")
"""


def containers(found: allure.Results) -> dict[str, Result]:
    """By the name of the fixture that was set up."""
    files = found.folder.glob("*-container.json")
    told = [json.loads(path.read_text("utf-8")) for path in files]
    return {one["befores"][0]["name"]: one for one in told if one.get("befores")}


def test_from_outside(project: Project) -> None:
    """By hooks and markers, and by a fixture that is set up once for all."""
    project.doubles(count=4)
    project.write("conftest.py", CONFTEST)
    project.write("pytest.ini", "[pytest]\nmanifest_app = jobs:app\nmarkers = nightly\n")
    found = allure.run(project, MEMORY)
    one, two = found.of("d-1"), found.of("d-2")
    assert allure.label(one, "severity") == "minor"
    assert allure.labels(one, "tag") == ["nightly", "odd"]
    assert two["name"] == "the third"
    assert allure.label(two, "owner") == "bob"
    assert [link["url"] for link in two["links"]] == ["https://docs.example.com/"]
    assert two["parameters"][-1] == {"name": "host", "value": "'h-1'", "excluded": True}
    own = two["steps"][-1]["steps"][0]
    assert own["name"] == "look after it"
    assert (found.folder / own["attachments"][0]["source"]).read_text() == "seen"
    assert "owner" not in {label["name"] for label in found.of("d-3")["labels"]}
    (step,) = containers(found)["prepare"]["befores"][0]["steps"]
    assert step["name"] == "make ready"
    assert sorted(containers(found)["prepare"]["children"]) == sorted(r["uuid"] for r in found.all)


def test_by_a_fixture_around_each_test(project: Project) -> None:
    """It is shown with the test that it was set up for, and so is what it has printed."""
    project.doubles(count=2)
    project.write("conftest.py", "import allure\nimport pytest\n" + EACH)
    found = allure.run(project, MEMORY)
    told = [json.loads(path.read_text()) for path in found.folder.glob("*-container.json")]
    uuids = {result["uuid"] for result in found.all}
    guards = [
        one
        for one in told
        if one["befores"][0]["name"] == "guard" and uuids & set(one.get("children", ()))
    ]
    assert [one["befores"][0]["steps"][0]["name"] for one in guards] == ["look around"] * 2
    assert {one["children"][0] for one in guards} == uuids
    for entry in ("d-0", "d-1"):
        result = found.of(entry)
        assert f"guarded entry[{entry}]" in allure.labels(result, "tag")
        assert "on guard" in found.attached(result, "stdout")
