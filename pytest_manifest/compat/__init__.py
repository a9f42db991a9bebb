"""The private parts of other packages that this one relies on, a module for each package.

Everywhere else other packages are used as they document it; ``tests/house/test_reaches.py`` holds
that, and counts what is here. Each function says what it relies on, the version that it was written
for, and the test that fails when that changes: ``tests/unit/test_compat_*.py``.
"""
