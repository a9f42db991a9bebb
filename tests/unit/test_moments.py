"""Times are parsed alike on every Python."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from pytest_manifest.schema.wire import parse_moment

NOON = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-24T12:00:00Z", NOON),
        ("2026-11-24T12:00:00+00:00", NOON),
        ("2026-11-24 13:30:00+01:30", NOON),
        ("2026-11-24T12:00:00.5Z", NOON + timedelta(milliseconds=500)),
        ("2026-11-24T12:00:00.1234567Z", NOON + timedelta(microseconds=123456)),
        ("2026-11-24T12:00:00.123456-05:00", NOON + timedelta(hours=5, microseconds=123456)),
        ("2026-11-24T12:00:00", NOON.replace(tzinfo=None)),
    ],
)
def test_a_time_is_parsed_as_other_programs_write_it(text: str, moment: datetime) -> None:
    """With a Z, with any number of digits after the point, and without a zone."""
    assert parse_moment(text) == moment


@pytest.mark.parametrize("text", ["", "Z", "noon", "2026-11-24T25:00:00Z", "2026-11-24T12:00:00."])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Invalid isoformat string|hour must be in"):
        parse_moment(text)
