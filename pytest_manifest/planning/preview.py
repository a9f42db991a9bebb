"""Count what a manifest would run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from pytest_manifest.manifest import Manifest
from pytest_manifest.schema import Entry, exact


@dataclass
class Preview:
    """What a manifest would run; ``longest_timeout`` in seconds, ``cost`` in the entries' unit."""

    path: Path
    name: str
    entries: int = 0
    tasks: Counter[tuple[str, str]] = field(default_factory=Counter)
    longest_timeout: float = 0.0
    cost: float | None = None

    def lines(self) -> Iterator[str]:
        """Yield the preview as lines of plain text."""
        yield f"plan {self.name}: {self.entries} entries in {self.path}"
        width = max((len(task) for task, _ in self.tasks), default=0)
        for (task, queue), count in sorted(self.tasks.items()):
            yield f"  {count:>7}  {task:<{width}}  queue {queue}"
        yield f"  longest timeout {self.longest_timeout:g} s"
        if self.cost is not None:
            yield f"  estimated cost {self.cost:,.4g}"


def preview(manifest: Manifest) -> Preview:
    """Count a manifest's entries by task and queue."""
    header = manifest.header
    name = f"{header.workflow}:{header.mode}" if header.workflow else manifest.path.name
    result = Preview(manifest.path, name)
    total: Decimal | None = None
    timeout: float = Entry.model_fields["timeout"].default
    for entry in manifest.documents():
        result.entries += 1
        result.tasks[entry["task"], entry.get("queue") or "default"] += 1
        result.longest_timeout = max(result.longest_timeout, entry.get("timeout", timeout))
        cost = entry.get("cost")
        if cost is not None:
            total = exact(cost) + (total or 0)
    result.cost = None if total is None else float(total)
    return result
