"""Debian's Chromium, driven by Playwright, for tests that open a page as people do.

The fixtures ``browser`` (one a session) and ``page`` (one a test, which fails when the page raises
an error) are known to every test.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

VARIABLE = "MANIFEST_TEST_CHROMIUM"
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


class BrowserUnavailableError(Exception):
    """There is no browser; the message says what to install."""


def chromium_path() -> str:
    """The browser of ``MANIFEST_TEST_CHROMIUM``, else the one on the search path."""
    given = os.environ.get(VARIABLE)
    found = given or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None or not os.access(found, os.X_OK):
        raise BrowserUnavailableError(
            f"{given or 'chromium'} is not there: install Debian's chromium "
            f"(apt-get install chromium), or name one in {VARIABLE}"
        )
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser; raises BrowserUnavailableError where there is none."""
    path = chromium_path()
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise BrowserUnavailableError(
            "playwright is not installed: pip install playwright (its own browsers are not needed)"
        ) from None
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        except Error as error:
            raise BrowserUnavailableError(f"{path} does not start: {error.message}") from None
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser, *, width: int = 1280, height: int = 900, dark: bool = False
) -> Iterator[Page]:
    """A page in a profile of its own, which knows nothing of other tests' pages.

    Errors that the page raises fail the test when it is closed.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    errors: list[str] = []
    try:
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
    finally:
        context.close()
    assert errors == []


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium; without it the test is skipped, and in continuous integration it fails."""
    from tests.conftest import missing

    with ExitStack() as stack:
        try:
            started = stack.enter_context(chromium())
        except BrowserUnavailableError as unavailable:
            missing(str(unavailable))
        yield started


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of 1280 by 900, in light colours; ``opened`` makes others."""
    with opened(browser) as made:
        yield made
