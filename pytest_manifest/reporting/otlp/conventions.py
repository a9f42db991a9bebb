"""Name what spans and metrics say, by OpenTelemetry's semantic conventions; ours begin with
``manifest.``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pytest_manifest.schema.statuses import Outcome

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
"""The version of the conventions that the names are of."""

SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
PIPELINE_NAME: Final = "cicd.pipeline.name"
PIPELINE_RUN_ID: Final = "cicd.pipeline.run.id"
PIPELINE_ACTION_NAME: Final = "cicd.pipeline.action.name"
PIPELINE_RESULT: Final = "cicd.pipeline.result"
SUITE_NAME: Final = "test.suite.name"
SUITE_RUN_STATUS: Final = "test.suite.run.status"
CASE_NAME: Final = "test.case.name"
CASE_RESULT_STATUS: Final = "test.case.result.status"
MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGE_ID: Final = "messaging.message.id"
DESTINATION_NAME: Final = "messaging.destination.name"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
FUNCTION_NAME: Final = "code.function.name"
ERROR_TYPE: Final = "error.type"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

RUN: Final = "RUN"
"""The action of a pipeline."""
CASE_RESULTS: Final[Mapping[Outcome, str]] = {"passed": "pass", "failed": "fail", "error": "fail"}
"""What a test came to; of what was skipped or is pending the conventions have no word."""
RESULTS: Final[Mapping[str, tuple[str, str]]] = {
    "passed": ("success", "success"),
    "failed": ("failure", "failure"),
    "stopped": ("cancellation", "aborted"),
}
"""The results of a pipeline and of a suite."""

VERDICT: Final = "manifest.verdict"
ATTEMPTS: Final = "manifest.attempts"
WORKER: Final = "manifest.worker"
COST: Final = "manifest.cost"
REUSED_FROM: Final = "manifest.reused_from"
ENTRIES: Final = "manifest.entries"
MANIFEST: Final = "manifest"
"""The label of metrics: the manifest's file."""
