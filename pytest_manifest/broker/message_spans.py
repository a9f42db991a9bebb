"""Have others' spans of a publishing belong to the entry that is published.

OpenTelemetry's instrumentation of Celery makes one of each message, and writes itself into the
message's headers, in place of the entry's span: which becomes its parent so. Of a task that this
process does not have it would not end its span, nor leave it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from pytest_manifest.schema.tracing import TRACEPARENT


def publishing(options: Mapping[str, object]) -> AbstractContextManager[None]:
    """Return the context to publish a message in, by its options: that of the span it names."""
    headers = options.get("headers")
    named = headers.get(TRACEPARENT) if isinstance(headers, dict) else None
    if named is None or "opentelemetry.trace" not in sys.modules:
        return nullcontext()
    return _within(str(named))


@contextmanager
def _within(traceparent: str) -> Iterator[None]:
    from opentelemetry import context, trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    here = TraceContextTextMapPropagator().extract({TRACEPARENT: traceparent}, context.Context())
    token = context.attach(here)
    try:
        yield
    finally:
        left = trace.get_current_span()
        if left is not trace.get_current_span(here):
            left.end()
        context.detach(token)
