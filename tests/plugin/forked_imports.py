"""The server of :mod:`tests.plugin.forked` imports this, and thereby what sessions need."""

from tests.plugin.forked import load

load()
