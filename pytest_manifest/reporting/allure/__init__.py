"""Write Allure results about the jobs: their times, places, attempts and receipts.

allure-pytest writes what pytest did. The result of an entry's test is made from the run's ledger
before it is written; every other result stays as allure-pytest makes it.
"""

from __future__ import annotations

import pytest

from pytest_manifest.reporting.run_report import RunReport

__all__ = ["register"]


def register(config: pytest.Config, report: RunReport) -> None:
    """Register the report of entries for the folder that ``--alluredir`` names."""
    from pytest_manifest.reporting.allure.hooks import AllureReport

    config.pluginmanager.register(AllureReport(config, report), "manifest-allure")
