"""Makes the workflows' planning fixtures known, as far as what they need is installed."""

from importlib.util import find_spec

pytest_plugins = ["workflows.system_test.plan"]
# The environments of the matrix (noxfile.py) are without what the example tasks need.
if find_spec("sqlalchemy"):
    pytest_plugins.append("workflows.gap_fill.plan")
