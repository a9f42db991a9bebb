"""``manifest-stack``: the whole stack in the background, without containers."""

# ruff: noqa: T201 - printing is what a command is for

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pytest_manifest.cli import run_command

NOT_UP: Final = 3
LAST_PORT: Final = 65535


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 is success, 2 a user's error, 3 that no stack is up."""
    return run_command("manifest-stack", _parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="manifest-stack",
        description="Run a private broker and Celery workers in the background.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start it, and wait until every worker answers")
    up.add_argument(
        "--app",
        metavar="MODULE:ATTRIBUTE",
        help="the Celery app; default: MANIFEST_APP, or manifest_app in pyproject.toml",
    )
    up.add_argument(
        "--workers",
        type=_positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="worker processes; default: one for each core (%(default)s)",
    )
    up.add_argument(
        "--flower",
        action="store_true",
        help="run Flower, too, on loopback behind a password (the events that it needs cost the "
        "workers a third of their throughput)",
    )
    up.add_argument(
        "--flower-port",
        type=_port,
        metavar="PORT",
        help="run Flower on this port; default: one that is free",
    )
    up.add_argument("--log-format", choices=("text", "json"), default="text")
    up.add_argument("--log-level", type=str.upper, default="INFO", metavar="LEVEL")
    up.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="default: %(default)g"
    )
    up.set_defaults(run=_up)
    status = commands.add_parser("status", help="show broker, workers and queues; 3: not up")
    status.set_defaults(run=_status)
    logs = commands.add_parser("logs", help="print what the workers have logged")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")
    logs.add_argument("--worker", type=_positive, metavar="K", help="only this one")
    logs.set_defaults(run=_logs)
    url = commands.add_parser(
        "url", help='print the broker\'s URL, for --manifest-broker="$(manifest-stack url)"'
    )
    url.set_defaults(run=_url)
    down = commands.add_parser("down", help="end all of it")
    down.set_defaults(run=_down)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text} is no port: they are 1 to {LAST_PORT}")
    return number


# What a command needs is imported by it: status and url must not wait for Celery.


def _up(arguments: argparse.Namespace) -> int:
    from pytest_manifest.stack.background import UpOptions, default_app, up

    options = UpOptions(
        app=arguments.app or default_app(Path.cwd()),
        workers=arguments.workers,
        cwd=Path.cwd(),
        flower=arguments.flower or arguments.flower_port is not None,
        flower_port=arguments.flower_port or 0,
        log_format=arguments.log_format,
        log_level=arguments.log_level,
        timeout=arguments.timeout,
    )
    for line in up(options):
        print(line)
    return 0


def _status(arguments: argparse.Namespace) -> int:  # noqa: ARG001 - the commands' signature
    from pytest_manifest.stack.background import status

    lines = status()
    if not lines:
        return _not_up()
    print("\n".join(lines))
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    from pytest_manifest.stack.background import logs

    lines = logs(arguments.worker, follow=arguments.follow)
    if lines is None:
        return _not_up()
    for line in lines:
        print(line, flush=arguments.follow)
    return 0


def _url(arguments: argparse.Namespace) -> int:  # noqa: ARG001 - the commands' signature
    from pytest_manifest.stack.state import running_stack

    address = running_stack()
    if address is None:
        return _not_up()
    print(address.broker_url)
    return 0


def _down(arguments: argparse.Namespace) -> int:  # noqa: ARG001 - the commands' signature
    from pytest_manifest.stack.background import down

    print(down())
    return 0


def _not_up() -> int:
    print("manifest-stack: no stack is up; start one with: manifest-stack up", file=sys.stderr)
    return NOT_UP


if __name__ == "__main__":
    sys.exit(main())
