"""Link the names in a summary to the repository on GitHub, or to the files beside it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import quote


def step_summary_file() -> Path | None:
    """Return the file whose Markdown GitHub shows on the step's page, None elsewhere."""
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    return Path(name) if name else None


class Links(Protocol):
    """Addresses for a summary; a method returns None if it has no address."""

    def manifest(self, path: Path, line: int | None = None) -> str | None:
        """Return the address of the manifest, or of one of its lines."""

    def paper(self, path: Path) -> str | None:
        """Return the address of a file that the run has left."""

    def artifacts(self) -> str | None:
        """Return the address of the page on which CI keeps files."""


@dataclass(frozen=True)
class LocalLinks:
    """Links for a Markdown file in ``folder``."""

    folder: Path

    def manifest(self, path: Path, line: int | None = None) -> str | None:
        return self.paper(path) + (f"#L{line}" if line else "")

    def paper(self, path: Path) -> str:
        return _quoted(Path(os.path.relpath(path.resolve(), self.folder.resolve())))

    def artifacts(self) -> str | None:
        return None


@dataclass(frozen=True)
class GitHubLinks:
    """Links for the page of a step; ``repository`` is its address, '' if it is not known."""

    repository: str
    commit: str
    run: str
    workspace: Path | None

    @classmethod
    def of_environment(cls) -> Self:
        """Make links from the variables that GitHub's runner sets."""
        told = os.environ.get
        server, name = told("GITHUB_SERVER_URL", ""), told("GITHUB_REPOSITORY", "")
        workspace = told("GITHUB_WORKSPACE")
        return cls(
            repository=f"{server}/{quote(name)}" if server and name else "",
            commit=quote(told("GITHUB_SHA", "")),
            run=quote(told("GITHUB_RUN_ID", "")),
            workspace=Path(workspace).resolve() if workspace else None,
        )

    def manifest(self, path: Path, line: int | None = None) -> str | None:
        if not (self.repository and self.commit and self.workspace):
            return None
        with contextlib.suppress(ValueError):
            inside = path.resolve().relative_to(self.workspace)
            place = f"#L{line}" if line else ""
            return f"{self.repository}/blob/{self.commit}/{_quoted(inside)}{place}"
        return None

    def paper(self, path: Path) -> str | None:  # noqa: ARG002 - it is on the runner alone
        return None

    def artifacts(self) -> str | None:
        if not (self.repository and self.run):
            return None
        return f"{self.repository}/actions/runs/{self.run}#artifacts"


def _quoted(path: Path) -> str:
    return quote(os.fsencode(path.as_posix()))
