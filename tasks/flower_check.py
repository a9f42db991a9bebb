"""Ask a page of Flower with the password of ``FLOWER_BASIC_AUTH``: a health check.

``python tasks/flower_check.py URL`` fails where the page does not answer. It imports nothing of
Flower, which takes most of a second.
"""

from __future__ import annotations

import base64
import os
import sys
import urllib.request


def authorization() -> str:
    """Make the header's value of the name and password that the environment has."""
    both = os.environ["FLOWER_BASIC_AUTH"].encode()
    return f"Basic {base64.b64encode(both).decode()}"


def ask(url: str) -> None:
    """Ask a page with the password; raise OSError where it is refused or nobody answers."""
    request = urllib.request.Request(url, headers={"Authorization": authorization()})  # noqa: S310 - compose.yaml's own
    urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - the same


if __name__ == "__main__":
    ask(sys.argv[1])
