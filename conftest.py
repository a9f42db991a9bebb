"""Makes the workflows' planning fixtures known."""

pytest_plugins = ["workflows.gap_fill.plan", "workflows.system_test.plan"]
