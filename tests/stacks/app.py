"""The contract's app with one cell's settings, for its workers and for who asks them."""

from __future__ import annotations

import json
import os

from tests.contract.app import app

__all__ = ["app"]

SETTINGS = "MANIFEST_TEST_STACK_SETTINGS"

app.conf.update(json.loads(os.environ.get(SETTINGS, "{}")))
