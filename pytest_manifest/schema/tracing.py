"""Name the spans of a run, by W3C Trace Context: who dispatches and who exports get the same ids.

Ids are digests of run and entry, so a span can be written long after the message that names it. A
run of up to 1,000 entries is one trace. Of a larger one each entry has a trace of its own, with a
link to the run's, and a share of them is kept, beside all that fail.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from typing_extensions import Self

TRACEPARENT: Final = "traceparent"
"""The header of a message; the environment of a job of CI has it in capitals."""
MOST_CHILDREN: Final = 1_000
"""Entries beyond which each has a trace of its own: viewers of traces show no more."""
_FORM: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?",
    re.ASCII,
)
_SAMPLER_SHARE: Final = "OTEL_TRACES_SAMPLER_ARG"


@dataclass(frozen=True, slots=True)
class SpanContext:
    """A span's place: its trace, its id, and whether whoever goes on with it keeps spans, too."""

    trace_id: str
    span_id: str
    is_sampled: bool = True

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a ``traceparent``; None for what is none."""
        found = _FORM.fullmatch(text.strip())
        return None if found is None else cls(found[1], found[2], bool(int(found[3], 16) & 1))

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"


@dataclass(frozen=True, slots=True)
class RunTrace:
    """The trace of a run of so many ``entries``; ``parent``: the span of CI that it is part of.

    ``share``: how many traces of entries are kept where each has its own, from 0 to 1; None: some
    1,000 of them.
    """

    run: str
    entries: int
    parent: SpanContext | None = None
    share: float | None = None

    @classmethod
    def noted(cls, run: str, entries: int, note: str | None) -> RunTrace:
        """Return that of a run whose ledger has this note of :func:`trace_note`."""
        parent, share = None, None
        with suppress(ValueError, TypeError, AttributeError):
            found = json.loads(note or "{}")
            parent = SpanContext.parse(str(found.get("parent", "")))
            share = None if found.get("share") is None else float(found["share"])
        return cls(run, entries, parent, share)

    @property
    def root(self) -> SpanContext:
        """Return the span of the run."""
        digest = sha256(f"manifest run {self.run}".encode()).hexdigest()
        if self.parent is None:
            return SpanContext(digest[:32], digest[32:48])
        return SpanContext(self.parent.trace_id, digest[32:48], self.parent.is_sampled)

    def stretch(self, number: int) -> SpanContext:
        """Return the span of the ``number``-th time that pytest took the run up."""
        digest = sha256(f"manifest run {self.run} {number}".encode()).hexdigest()
        return SpanContext(self.root.trace_id, digest[:16], self.root.is_sampled)

    @property
    def is_parted(self) -> bool:
        """Return whether each entry has a trace of its own."""
        return self.entries > MOST_CHILDREN

    def of(self, entry: str) -> SpanContext:
        """Return the span of an entry."""
        digest, root = sha256(f"{self.run}/{entry}".encode()).hexdigest(), self.root
        if not self.is_parted:
            return SpanContext(root.trace_id, digest[:16], root.is_sampled)
        trace_id = digest[16:48]
        share = MOST_CHILDREN / self.entries if self.share is None else self.share
        # As OpenTelemetry's own sampler by ratio decides it.
        is_kept = int(trace_id[16:], 16) < share * (1 << 64)
        return SpanContext(trace_id, digest[:16], root.is_sampled and is_kept)


def trace_note(environment: Mapping[str, str]) -> str:
    """Return what a ledger notes of the environment that a run is begun in; "" for nothing."""
    found: dict[str, str | float] = {}
    parent = SpanContext.parse(environment.get(TRACEPARENT.upper(), ""))
    if parent is not None:
        found["parent"] = str(parent)
    with suppress(ValueError):
        share = float(environment.get(_SAMPLER_SHARE, ""))
        found["share"] = min(max(share, 0.0), 1.0)
    return json.dumps(found) if found else ""
