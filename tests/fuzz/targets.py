"""All that reads what others have written, each as a function of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Final, cast

CORPUS: Final = Path(__file__).with_name("corpus")


@dataclass(frozen=True)
class Target:
    """One reader: what its inputs are, by whom they may have been written, and which parts of the
    package a fuzzer watches, as watching all of them takes its time."""

    name: str
    reads: str
    written_by: str
    parts: tuple[str, ...] = ()

    @cached_property
    def check(self) -> Callable[[bytes], None]:
        """Return the function that raises where something is wrong; imported when it is asked."""
        module = import_module(f"tests.fuzz.of_{self.name}")
        return cast("Callable[[bytes], None]", module.check)

    @property
    def corpus(self) -> Path:
        """Return the folder of its committed inputs."""
        return CORPUS / self.name

    def inputs(self) -> Iterator[Path]:
        """Yield its committed inputs, in the order of their names."""
        yield from sorted(self.corpus.iterdir())


TARGETS: Final = {
    target.name: target
    for target in (
        Target(
            "manifest",
            "a manifest, by all its readers and writers",
            "who plans",
            ("manifest", "schema"),
        ),
        Target(
            "stream",
            "records of a run's stream",
            "who reaches the result store",
            ("results", "run", "schema.stream_records", "verdict"),
        ),
        Target(
            "result",
            "stored results of workers without receipts",
            "who reaches the store",
            ("results", "schema.wire", "verdict"),
        ),
        Target(
            "receipts",
            "an exported receipts file",
            "who hands it to an audit",
            ("manifest", "run.exports", "verdict", "schema"),
        ),
        Target(
            "ledger",
            "rows and bytes of a ledger",
            "who writes into `.manifest`",
            ("analysis", "ledger", "run.audit", "verdict"),
        ),
        Target(
            "verdict",
            "ends and starts that were reported of a job",
            "any worker",
            ("schema", "verdict"),
        ),
    )
}
