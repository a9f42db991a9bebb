"""Allure results that tell of the jobs: times, places, attempts and receipts, not of the judging.

allure-pytest writes what pytest did. Where a test is of an entry, its result is made anew from the
run's ledger before it is written; every other test stays as allure-pytest makes it.
"""

from __future__ import annotations

import pytest

from pytest_manifest.reporting.run_report import RunReport

__all__ = ["register"]


def register(config: pytest.Config, report: RunReport) -> None:
    """Report entries in the folder that ``--alluredir`` names."""
    from pytest_manifest.reporting.allure.hooks import AllureReport

    config.pluginmanager.register(AllureReport(config, report), "manifest-allure")
