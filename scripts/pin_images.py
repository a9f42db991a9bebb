"""Pin the images that a registry gives by their digests, in .env: python -m scripts.pin_images.

What `docker pull` gives for the versions that compose.yaml and Dockerfile name is what is pinned;
the engine takes no other one from then on, whatever those names lead to later. Call it again for
patches. Another command than `docker`, such as podman, is named by DOCKER.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = re.compile(r"\$\{([A-Z]+_IMAGE):-([^}\s@]+)\}")
DIGEST = re.compile("sha256:[0-9a-f]{64}")


def images(compose: str) -> dict[str, str]:
    """Return the images that come from a registry, by the variable that names another one."""
    return dict(DEFAULT.findall(compose))


def pinned(image: str) -> str:
    """Pull an image; return its name with the digest that the registry gave.

    Raises SystemExit with what the engine says where it cannot be had.
    """
    docker = os.environ.get("DOCKER", "docker")
    pulled = _run(docker, "pull", "--quiet", image)
    if pulled.returncode != 0:
        sys.exit(f"{image}: no registry gives it; nothing was pinned: {pulled.stderr.strip()}")
    shown = _run(docker, "image", "inspect", '--format={{join .RepoDigests "\\n"}}', image)
    name = image.rpartition(":")[0]  # others that lead to this image may have others' digests
    lines = (line.partition("@") for line in shown.stdout.splitlines())
    known = (digest for at, _, digest in lines if at == name or at.endswith(f"/{name}"))
    digest = next(filter(DIGEST.fullmatch, known), None)
    if digest is None:
        sys.exit(f"{image}: the engine knows no digest of it; nothing was pinned")
    return f"{image}@{digest}"


def with_variables(text: str, values: Mapping[str, str]) -> str:
    """Return the text of .env with these variables, each in its line or at the end."""
    for name, value in values.items():
        line = f"{name}={value}"
        text, count = re.subn(rf"^{name}=.*$", line, text, flags=re.MULTILINE)
        if not count:
            text = f"{text.rstrip()}\n{line}\n".lstrip()
    return text


def main() -> None:
    """Pin all of them, or none."""
    values = {
        name: pinned(image) for name, image in images((ROOT / "compose.yaml").read_text()).items()
    }
    path = ROOT / ".env"
    if not path.exists():
        sys.exit(".env is not there: cp .env.example .env, and fill in the passwords")
    path.write_text(with_variables(path.read_text("utf-8"), values), "utf-8")
    for value in values.values():
        sys.stdout.write(f"{value}\n")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    main()
