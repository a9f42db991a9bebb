"""Makes the workflows' planning fixtures known."""

pytest_plugins = ["workflows.system_test.plan"]
