"""Other people's projects, which know nothing of us: fixture projects in ``tests/projects``."""
