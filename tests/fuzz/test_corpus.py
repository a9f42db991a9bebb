"""Each input that a fuzzer began with, or once found something with, does no harm any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.mutating import mutated
from tests.fuzz.oracles import expect_bounded_work
from tests.fuzz.targets import TARGETS, Target

MUTATIONS = 20
INPUTS = [(target, path) for target in TARGETS.values() for path in target.inputs()]


def is_seed(path: Path) -> bool:
    """Whether an input is there to begin with, and not for what it has shown."""
    return path.name.startswith("seed-")


@pytest.mark.parametrize(
    ("target", "path"), INPUTS, ids=[f"{target.name}-{path.stem}" for target, path in INPUTS]
)
def test_an_input_of_the_corpus_is_read_or_refused(target: Target, path: Path) -> None:
    """By all that its target holds of any input, in bounded work."""
    data = path.read_bytes()
    target.check(data)  # what it imports is no work of the input
    expect_bounded_work(target.check, data)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_what_is_near_the_corpus_is_read_or_refused(target: Target) -> None:
    """The first mutations of each seed, always the same ones."""
    for path in filter(is_seed, target.inputs()):
        for seed in range(MUTATIONS):
            target.check(mutated(path.read_bytes(), seed, 8_192))


def test_the_same_seed_makes_the_same_mutation() -> None:
    """Or a finding could not be told again."""
    for _, path in INPUTS:
        assert mutated(path.read_bytes(), 7, 8_192) == mutated(path.read_bytes(), 7, 8_192)


def test_each_target_has_seeds() -> None:
    """Inputs that are taken, or a fuzzer seldom comes behind the first check."""
    for target in TARGETS.values():
        assert any(map(is_seed, target.inputs())), target.name
