"""Have the links of README.md lead somewhere on a package index, too.

In the repository they are relative. A distribution's description gets ``PROJECT_URL``, the address
of the project on GitHub, before them, and the version's tag; the release workflow sets it. Without
it nobody knows where the files are to be read: the text of the links stays, and pictures go.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
PICTURE = re.compile(r"<p align=\"center\">\s*<img src=\"(?P<target>[^\"]+)\"[^>]*>\s*</p>\n+")
ABSOLUTE = ("https://", "#")


def description(readme: str, address: str, version: str) -> str:
    """Return README's text without a relative link; ``address`` may be empty."""

    def link(found: re.Match[str]) -> str:
        if found["target"].startswith(ABSOLUTE):
            return found[0]
        if not address:
            return found["text"]
        return f"[{found['text']}]({address}/blob/v{version}/{found['target']})"

    def picture(found: re.Match[str]) -> str:
        target = found["target"]
        return found[0].replace(target, f"{address}/raw/v{version}/{target}") if address else ""

    return PICTURE.sub(picture, LINK.sub(link, readme))


class CustomMetadataHook(MetadataHookInterface):
    """Gives a distribution its description, and its addresses where they are known."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set what pyproject.toml declares as dynamic."""
        address = os.environ.get("PROJECT_URL", "").rstrip("/")
        readme = Path(self.root, "README.md").read_text("utf-8")
        text = description(readme, address, metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        pages = {"Source": "", "Documentation": "/blob/HEAD/docs/README.md"}
        pages["Changes"] = "/blob/HEAD/CHANGELOG.md"
        metadata["urls"] = {name: f"{address}{page}" for name, page in pages.items() if address}
