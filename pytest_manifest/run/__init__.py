"""Run one dispatch of one manifest, from its first message to its last verdict."""
