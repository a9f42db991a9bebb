"""Dockerfile: small rules that linters of Dockerfiles have, held by a test of our own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, (name, arguments), continuation lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = []
    for line in joined.splitlines():
        name, _, arguments = line.strip().partition(" ")
        if name:
            found.append((name.upper(), arguments.strip()))
    return found


def faults(text: str) -> list[str]:
    """What is wrong with a Dockerfile, one sentence each."""
    parsed = instructions(text)
    stages = [arguments for name, arguments in parsed if name == "FROM"]
    last = [i for i, (name, _) in enumerate(parsed) if name == "FROM"][-1]
    final = parsed[last:]
    given = dict(text.split("=", 1) for name, text in parsed if name == "ARG" and "=" in text)
    found = [
        f"FROM {image}: pin a version" for image in stages if not _pinned(image, stages, given)
    ]
    if len(stages) < 2:
        found.append("build in a stage of its own")
    users = [arguments for name, arguments in final if name == "USER"]
    if not users or users[-1].split(":")[0] in {"root", "0"}:
        found.append("the last stage must not run as root")
    absent = {"HEALTHCHECK", "CMD"} - {name for name, _ in final}
    found += [f"the last stage has no {name}" for name in sorted(absent)]
    for name, arguments in parsed:
        found += _instruction_faults(name, arguments)
    return found


def _pinned(image: str, stages: list[str], arguments: dict[str, str]) -> bool:
    name = image.split()[0]
    if name.startswith("$"):  # the default of an argument, which compose.yaml gives
        name = arguments.get(name.strip("${}"), "")
    earlier = {stage.split()[-1] for stage in stages if " as " in stage.lower()}
    return name in earlier or bool(re.search(r":\d+\.\d+|@sha256:", name))


def _instruction_faults(name: str, arguments: str) -> list[str]:
    found = []
    if name == "ADD":
        found.append("COPY is plain; ADD fetches and unpacks")
    if name in {"ENV", "ARG"} and re.search(r"(PASSWORD|SECRET|TOKEN)\b", arguments):
        found.append(f"{name} {arguments.split('=')[0]}: a secret in a layer")
    if name in {"CMD", "ENTRYPOINT"} and not arguments.startswith("["):
        found.append(f"{name}: a shell in between swallows signals; write a list")
    if name == "COPY" and re.match(r"(--\S+ )*\. ", arguments):
        found.append("COPY names what it takes, not the whole folder")
    if name == "RUN":
        if re.search(r"apt(-get)? .*install", arguments) and "/var/lib/apt/lists" not in arguments:
            found.append("RUN apt-get install leaves the package lists behind")
        if re.search(r"(curl|wget)\b.*\|\s*(ba)?sh", arguments):
            found.append("RUN pipes a download into a shell")
        if "pip install" in arguments and not re.search("--require-hashes|--no-deps", arguments):
            found.append("RUN pip install takes what is newest; install what is locked")
        if re.search(r"\bsudo\b", arguments):
            found.append("RUN sudo")
    return found


def test_the_dockerfile_has_no_faults(root: Path) -> None:
    """Pinned, two stages, not root, health check, no secret, nothing left behind."""
    assert faults((root / "Dockerfile").read_text("utf-8")) == []


def test_the_image_has_no_installer(root: Path) -> None:
    """Whoever gets in cannot install: the environment is made without pip, from outside."""
    parsed = instructions((root / "Dockerfile").read_text("utf-8"))
    installs = [
        text for name, text in parsed if name == "RUN" and " install " in text and "pip" in text
    ]
    assert installs
    assert all("pip --python /opt/venv/bin/python install" in text for text in installs)
    assert ("RUN", "python -m venv --without-pip /opt/venv") in parsed
    last = [number for number, (name, _) in enumerate(parsed) if name == "FROM"][-1]
    assert any("pip uninstall --yes pip" in text for name, text in parsed[last:] if name == "RUN")


GOOD = """FROM python:3.13-slim AS build
RUN pip install --require-hashes -r locked.txt
FROM python:3.13-slim
COPY --from=build /opt /opt
USER someone
HEALTHCHECK CMD ["true"]
CMD ["true"]
"""


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("FROM python:3.13-slim\n", "FROM python:latest\n", "pin a version"),
        ("FROM python:3.13-slim\n", "FROM python\n", "pin a version"),
        ("FROM python:3.13-slim\n", "FROM $IMAGE\n", "pin a version"),
        ("FROM python:3.13-slim\n", "ARG IMAGE=python\nFROM ${IMAGE}\n", "pin a version"),
        ("FROM python:3.13-slim\n", "", "a stage of its own"),
        ("USER someone\n", "", "must not run as root"),
        ("USER someone\n", "USER root\n", "must not run as root"),
        ('HEALTHCHECK CMD ["true"]\n', "", "no HEALTHCHECK"),
        ('\nCMD ["true"]', "\nCMD sleep 1", "swallows signals"),
        ("USER", "ENV REDIS_PASSWORD=x\nUSER", "secret in a layer"),
        ("USER", "ADD https://example.com/x /x\nUSER", "ADD fetches"),
        ("USER", "COPY . /project\nUSER", "names what it takes"),
        ("USER", "RUN apt-get update && apt-get install -y git\nUSER", "package lists"),
        ("USER", "RUN curl https://example.com | sh\nUSER", "download into a shell"),
        ("USER", "RUN pip install celery\nUSER", "what is locked"),
    ],
)
def test_each_fault_is_found(old: str, new: str, complaint: str) -> None:
    """The rules themselves work: one change to a good file, one complaint."""
    assert faults(GOOD) == []
    assert old in GOOD
    assert any(complaint in fault for fault in faults(GOOD.replace(old, new)))


def test_only_what_the_image_needs_is_sent_to_the_builder(root: Path) -> None:
    """.dockerignore starts from nothing; whatever COPY takes from here is let through."""
    allowed = (root / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in allowed
    let_through = {line[1:].rstrip("/") for line in allowed if line.startswith("!")}
    copied = set()
    for name, arguments in instructions((root / "Dockerfile").read_text("utf-8")):
        if name == "COPY" and "--from=" not in arguments:
            words = [word for word in arguments.split() if not word.startswith("--")]
            copied |= set(words[:-1])
    assert copied == let_through
