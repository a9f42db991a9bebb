"""Rings of the suite, and parts of a ring that take turns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import rings
from tests.turns import WHOLE_VARIABLE, part_of_the_day


@pytest.fixture
def restored_profile() -> Iterator[None]:
    """The profile of Hypothesis' own, and afterwards that of this run again."""
    before = settings.get_current_profile_name()
    settings.load_profile("default")
    yield
    settings.load_profile(before)


IDS = [f"tests/live/test_{n % 7}.py::test_{n}[{n}]" for n in range(500)]


def test_a_test_is_of_its_folders_ring_where_no_mark_says_otherwise() -> None:
    assert rings.ring_of("tests/unit/test_a.py::test_b", None) == 1
    assert rings.ring_of("tests/live/test_a.py::TestA::test_b[1/2]", None) == 2
    assert rings.ring_of("tests/live/test_a.py::test_b", 1) == 1
    assert rings.ring_of("tests/unit/test_a.py::test_b", 2) == 2
    assert rings.ring_of("tests/workflows/live/test_a.py::test_b[unit/x]", None) == 2
    assert rings.ring_of("tests/workflows/unit/test_a.py::test_b", None) == 1


@pytest.mark.parametrize(
    ("nodeid", "mark"),
    [
        ("tests/nowhere/test_a.py::test_b", None),
        ("tests/test_a.py::test_b", None),
        ("tests/unit/test_a.py::test_b", 3),
    ],
)
def test_a_test_of_no_ring_is_an_error(nodeid: str, mark: int | None) -> None:
    """None is left out of every run in silence."""
    with pytest.raises(pytest.UsageError, match=r"no ring: .*; see tests/rings\.py"):
        rings.ring_of(nodeid, mark)


def test_every_folder_with_tests_has_a_ring() -> None:
    """But those that no run of the suite collects."""
    tests = Path(rings.__file__).parent
    folders = {path.relative_to(tests).parts[0] for path in tests.rglob("test_*.py")}
    assert folders - {"compose", "projects"} == {name.split("/")[0] for name in rings.OF_FOLDERS}
    assert all((tests / name).is_dir() for name in rings.OF_FOLDERS)


def test_a_file_without_a_test_of_the_ring_is_not_even_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mark within keeps it; conftest.py, helpers and folders of no ring are none of this."""
    monkeypatch.setattr(rings, "ROOT", tmp_path)
    for name, text, without_1, without_2 in (
        ("unit/test_a.py", "", False, True),
        ("unit/test_b.py", "@pytest.mark.ring(2)", False, False),
        ("live/test_c.py", "@pytest.mark.ring(2)", True, False),
        ("live/test_d.py", "marks=pytest.mark.ring(1)", False, False),
        ("plugin/test_f.py", "import XDIST_LATER", False, False),
        ("live/conftest.py", "", False, False),
        ("elsewhere/test_e.py", "", False, False),
    ):
        path = tmp_path / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        assert rings.is_without(path, 1) is without_1, name
        assert rings.is_without(path, 2) is without_2, name


def test_a_mark_that_stands_in_another_file_is_refused(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rings, "ROOT", pytester.path)
    path = pytester.path / "tests" / "live" / "test_a.py"
    path.parent.mkdir(parents=True)
    path.write_text("def test_it(): pass", "utf-8")
    items, _ = pytester.inline_genitems(path)
    (item,) = items
    rings.refuse_hidden([item])
    item.add_marker(pytest.mark.ring(1))
    with pytest.raises(pytest.UsageError, match=r"write mark\.ring\(1\) into test_a\.py"):
        rings.refuse_hidden([item])


@pytest.mark.parametrize("parts", [1, 2, 12])
def test_so_many_parts_play_each_test_once(parts: int) -> None:
    played = [one for k in range(parts) for one in IDS if rings.is_in_part(one, k, parts)]
    assert sorted(played) == sorted(IDS)


def test_parts_are_of_like_size() -> None:
    sizes = [sum(rings.is_in_part(one, k, 12) for one in IDS) for k in range(12)]
    assert min(sizes) > len(IDS) / 12 / 2


def test_the_number_of_a_commit_names_a_part() -> None:
    assert rings.part_of("1234/12") == (10, 12)
    assert rings.part_of("0/1") == (0, 1)
    for text in ("", "3", "a/b", "1/0", "1/"):
        with pytest.raises(ValueError):  # noqa: PT011  (of int, too)
            rings.part_of(text)


def test_samples_are_whole_where_parts_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is in another day's sample and in this commit's part were never played."""
    monkeypatch.setenv(WHOLE_VARIABLE, "1")
    assert part_of_the_day(range(10), 3) == list(range(10))


def test_ring_1_tries_fewer_examples_and_the_same_ones(
    restored_profile: None,
) -> None:
    rings.choose_examples(1)
    assert settings().derandomize
    assert settings().deadline is None
    assert [rings.examples(count) for count in (200, 60, 3)] == [40, 12, 1]


def test_ring_2_tries_as_many_as_are_asked_for(restored_profile: None) -> None:
    rings.choose_examples(2)
    assert settings().deadline is None
    assert [rings.examples(count) for count in (200, 60, 3)] == [200, 60, 3]


def test_a_run_of_a_ring_plays_what_is_of_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The innermost mark counts; what is left out is said to be deselected."""
    monkeypatch.setenv(WHOLE_VARIABLE, "")  # a part sets it, and this process has other tests
    pytester.makeconftest("""
        from tests import rings

        def pytest_addoption(parser):
            rings.add_options(parser)

        def pytest_configure(config):
            config.addinivalue_line("markers", "ring: ...")
            rings.configure(config)

        def pytest_collection_modifyitems(config, items):
            rings.select(config, items)
    """)
    for folder, mark in (("unit", 2), ("live", 1)):
        path = pytester.path / "tests" / folder / f"test_{folder}.py"
        path.parent.mkdir(parents=True)
        path.write_text(
            "import pytest\n\ndef test_plain(): pass\n\n"
            f"@pytest.mark.ring({mark})\ndef test_marked(): pass\n\n"
            f"@pytest.mark.ring({mark})\nclass TestIt:\n"
            f"    @pytest.mark.ring({3 - mark})\n    def test_inner(self): pass\n",
            "utf-8",
        )
    (pytester.path / "verify.py").write_text("def test_entry(): pass\n", "utf-8")
    root = ("--rootdir=.", "-p", "no:cacheprovider")
    pytester.inline_run(*root, "verify.py").assertoutcome(passed=1)  # a manifest's, in the project
    pytester.inline_run(*root).assertoutcome(passed=6)
    one = pytester.inline_run(*root, "--ring=1")
    one.assertoutcome(passed=3)
    names = {
        report.nodeid.partition("::")[2] for report in one.getreports("pytest_runtest_logreport")
    }
    assert names == {"test_plain", "TestIt::test_inner", "test_marked"}
    both = [len(pytester.inline_run(*root, f"--part={k}/2").listoutcomes()[0]) for k in (0, 1)]
    assert sum(both) == 6
    assert pytester.runpytest("--part=x").ret == pytest.ExitCode.USAGE_ERROR
