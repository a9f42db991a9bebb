"""Have Flower ask for its password everywhere: compose.yaml names this file by ``FLOWER_CONF``."""

from __future__ import annotations

import os

from pytest_manifest.compat.flower import guard_open_pages

guard_open_pages()

# Whole: of the variable Flower takes each part between commas for a password.
basic_auth = [os.environ["FLOWER_BASIC_AUTH"]]
