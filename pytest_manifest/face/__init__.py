"""The pytest face: hooks say when, the modules below say what."""
