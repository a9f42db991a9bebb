"""Write a run in open formats, for other programs: one module each, and a row of one table.

``manifest export`` names a format, ``--manifest-report`` has its file's ending.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from pytest_manifest.errors import PlanError
from pytest_manifest.files import folder_of

if TYPE_CHECKING:
    from pytest_manifest.reporting.formats.otlp import Request
    from pytest_manifest.reporting.run_report import ReportedRun, RunReport
    from pytest_manifest.run.run import Run
    from pytest_manifest.schema.summary import RunSummary

Writer: TypeAlias = "Callable[[ReportedRun, RunSummary, Path, int], None]"
"""Writes a run, by its summary without entries, into a file of a mode, whole or not at all. Raises
ManifestToolError or OSError."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format: its name, the ending of its files, and what is in them.

    ``module``: of this package, with a ``write`` that is a :data:`Writer`. ``needs``: a package
    that this imports, and the extra that brings it. ``key``: the variable that names a key.
    """

    name: str
    ending: str
    about: str
    module: str
    needs: tuple[str, str] | None = None
    key: str = ""

    def lacking(self) -> str:
        """Return what has to be there first; "" where all is there."""
        if self.key and not os.environ.get(self.key):
            return (
                f"what is written as {self.name} is signed; name a private key by {self.key}, "
                "which 'manifest keygen' makes"
            )
        if self.needs is None or _is_there(self.needs[0]):
            return ""
        package, extra = self.needs
        return (
            f"the format {self.name} needs the package {package}; install it with "
            f"'pip install pytest-celery-manifest[{extra}]'"
        )

    def write(self, run: ReportedRun, summary: RunSummary, path: Path, mode: int) -> None:
        """Write the run. Raises PlanError where it lacks something, and as a :data:`Writer`."""
        if why := self.lacking():
            raise PlanError(f"{path}: is not written: {why}")
        writer: Writer = import_module(f"{__name__}.{self.module}").write
        writer(run, summary, path, mode)


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of its parent
        return False


_KEY: Final = "MANIFEST_SIGNING_KEY"
FORMATS: Final = (
    Format("csv", ".csv", "a row an entry", "table"),
    Format("ctrf", ".ctrf.json", "Common Test Report Format", "ctrf"),
    Format("in-toto", ".intoto.jsonl", "a signed attestation of the result", "in_toto", key=_KEY),
    Format(
        *("openlineage", ".openlineage.jsonl", "events of OpenLineage", "lineage"),
        ("openlineage.client", "openlineage"),
    ),
    Format("otlp", ".otlp.jsonl", "traces and metrics of OpenTelemetry", "otlp"),
    Format("parquet", ".parquet", "a row an entry", "parquet", ("pyarrow", "parquet")),
    Format("prometheus", ".prom", "metrics for Prometheus", "prometheus"),
)
"""All formats but those that are this project's own."""
BY_NAME: Final = {one.name: one for one in FORMATS}


def format_of(path: Path) -> Format | None:
    """Return the format whose ending a file's name has; None: it is none of these."""
    name = path.name.lower()
    return next((one for one in FORMATS if name.endswith(one.ending)), None)


def otlp_requests(run: ReportedRun) -> Iterator[Request]:
    """Yield what a collector of OpenTelemetry is sent of a run.

    Raises LedgerError or ManifestError.
    """
    from pytest_manifest.reporting.formats.otlp import requests_of

    return requests_of(run)


def write_reports(report: RunReport, run: Run) -> None:
    """Write a run that is over to the files of these formats that the options name.

    A fault becomes a warning of the run, and the other files are written all the same.
    """
    from pytest_manifest.reporting.run_report import add_artifact
    from pytest_manifest.reporting.summary import summary_of

    mode = report.options.report_mode
    for given in report.options.other_reports:
        form, path = format_of(given), given
        assert form is not None
        if run is not report.runs[0]:
            stem = given.name[: -len(form.ending)]
            path = given.with_name(f"{stem}.{run.info.run}{form.ending}")
        with report.writing(f"the report in the format {form.name} was not written", run):
            folder_of(path, mode)
            form.write(run, summary_of(run, report.config), path, mode)
            add_artifact(report.config, form.name, path, run.info.run)
