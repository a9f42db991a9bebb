"""Make the pictures of the documents anew: ``python -m scripts.screenshots [NAME...]``.

``first-run`` is what README's first command prints, run for the picture; ``run-page`` the page of a
made-up run of 400 jobs, ``run-page-tree`` an entry of it whose job started others; ``live`` the
live page of a made-up run of hours, replayed to its middle; ``history`` the page of forty made-up
nights; ``allure`` the report of README's
batch, made by ``scripts/report`` (npm). They go to docs/images. Chromium takes them; it has to be
installed (Debian's package chromium).
"""

# ruff: noqa: T201  (a command speaks on its standard output)

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from html import escape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from itertools import groupby
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Final

import pyte
from PIL import Image

from benchmarks.nights import forty_nights
from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.reporting.history_page import write_history_page
from pytest_manifest.reporting.live_page.content import RunContent
from pytest_manifest.reporting.live_page.server import LiveServer, listening, new_token
from pytest_manifest.reporting.run_page.page import write_page
from tests.browser import chromium
from tests.docs.blocks import blocks, steps
from tests.player import Script, made_ledger, playing
from tests.run_page_sample import about, sample_records, sample_trees

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
SECTION = "Two minutes"
"""README's section that the terminal's picture is of."""
COLUMNS, LINES = 96, 120
SECONDS = 120
RUNS: Final = 3
"""What else the machine does is no part of the picture."""
LASTED: Final = re.compile(r"in (\d+\.\d+)s")
PLUGINS = "pytest_manifest.plugin", "allure_pytest.plugin"
COLOURS: Final = {
    "black": "#8b949e",
    "red": "#ff7b72",
    "green": "#56d364",
    "brown": "#e3b341",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#56d4dd",
}
"""pyte's names of a terminal's colours, and what they look like on a dark ground."""
WINDOW = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; width: max-content; background: #161b22; color: #dee4ea; }}
header {{ padding: 12px 16px 0; }}
i {{ display: inline-block; width: 12px; height: 12px; margin-right: 8px; border-radius: 50%; }}
pre {{ margin: 0; padding: 12px 20px 20px; font: 14px/1.4 "DejaVu Sans Mono", monospace; }}
</style><header><i style="background:#ff5f57"></i><i style="background:#febc2e"></i
><i style="background:#28c840"></i></header><pre>{text}</pre>"""


def in_terminal(command: str, folder: Path) -> str:
    """Run the command on a terminal of its own; return what it writes there, colours and all."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "CI"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": str(COLUMNS),
        "TERM": "xterm-256color",
        # Who has only pip has no others.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": ",".join(PLUGINS),
    }
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    chunks: list[bytes] = []

    def read() -> None:
        # EIO is how Linux says that nobody holds the other end any more.
        try:
            while chunk := os.read(ours, 65536):
                chunks.append(chunk)
        except OSError:
            return

    reader = Thread(target=read)
    reader.start()
    try:
        subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=environment,
            stdin=its,
            stdout=its,
            stderr=its,
            timeout=SECONDS,
            check=False,
        )
    finally:
        os.close(its)
        reader.join(SECONDS)
        os.close(ours)
    return b"".join(chunks).decode("utf-8", "replace")


def as_html(command: str, printed: str) -> str:
    """Return a page that shows a command, and the screen after what it has printed."""
    screen = pyte.Screen(COLUMNS, LINES)
    pyte.Stream(screen).feed(f"\x1b[1;32m$\x1b[0m \x1b[1m{command}\x1b[0m\r\n{printed}")
    rows = [_row(screen.buffer[number]) for number in range(screen.cursor.y + 1)]
    return WINDOW.format(text="\n".join(rows).rstrip())


def _row(cells: Mapping[int, pyte.screens.Char]) -> str:
    parts = []
    line = (cells[column] for column in range(COLUMNS))
    for (colour, bold), run in groupby(line, key=lambda cell: (cell.fg, cell.bold)):
        text = escape("".join(cell.data for cell in run))
        style = f"color:{COLOURS[colour]};" if colour in COLOURS else ""
        style += "font-weight:bold" if bold else ""
        parts.append(f'<span style="{style}">{text}</span>' if style else text)
    return "".join(parts).rstrip()


def first_batch(folder: Path) -> str:
    """Write the files of README's first section; return its command."""
    todo = [block for block in blocks(ROOT / "README.md") if block.section == SECTION]
    for block in todo:
        if "title" in block.options:
            (folder / block.options["title"]).write_text(block.body, "utf-8")
    last = next(block for block in reversed(todo) if block.language == "console")
    return steps(last)[0].command


def _seconds(printed: str) -> float:
    """Return the time that pytest's last line says."""
    return float(LASTED.findall(printed)[-1])


def first_run(browser: Browser, folder: Path) -> None:
    """Take README's first command as it looks in a terminal: the quickest of a few runs."""
    runs: list[str] = []
    for number in range(RUNS):
        own = folder / str(number)
        own.mkdir()
        command = first_batch(own)
        runs.append(in_terminal(command, own).replace(str(own), "~/shop"))
        assert "1 failed" in runs[-1], runs[-1]
    printed = min(runs, key=_seconds)
    with page(browser, width=1400) as shown:
        shown.set_content(as_html(command, printed))
        save("first-run", shown.locator("body").screenshot())


def run_page(browser: Browser, folder: Path) -> None:
    """Take the top of the page of a run, from its counts to its timeline."""
    count = 400
    file = folder / "run.html"
    records = list(sample_records(count, workers=8, seed=1))
    write_page(file, about(records), records)
    with page(browser, width=1200, height=1248) as shown:
        shown.goto(file.as_uri())
        shown.locator("canvas, svg").first.wait_for()
        save("run-page", shown.screenshot())


def run_page_tree(browser: Browser, folder: Path) -> None:
    """Take an entry that is opened, with the tree of what its job started unfolded."""
    count, every = 400, 20
    file = folder / "run.html"
    records = list(sample_records(count, workers=8, seed=1))
    write_page(file, about(records, trees=sample_trees(every)), records)
    with page(browser, width=1000, height=1110) as shown:
        shown.goto(file.as_uri() + "#entry=thumbnail-00040")
        shown.locator(".tree-part summary").click()
        shown.locator(".tree-part").evaluate("part => part.closest('section').scrollIntoView()")
        save("run-page-tree", shown.locator("#details").screenshot())


def allure(browser: Browser, folder: Path) -> None:
    """Take an entry in Allure, of the report that scripts/report makes of README's batch."""
    results, report = folder / "allure-results", folder / "allure-report"
    in_terminal(f"{first_batch(folder)} --alluredir={results}", folder)
    settings = {
        "ALLURE_RESULTS": str(results),
        "ALLURE_REPORT": str(report),
        "ALLURE_HISTORY": str(folder / "history.jsonl"),
        "ALLURE_TITLE": "sale.jsonl",
    }
    subprocess.run([ROOT / "scripts" / "report"], env=os.environ | settings, check=True)
    with served(report) as address, page(browser, width=1280, height=750) as shown:
        shown.goto(address)
        shown.get_by_text("half-price").first.click()
        shown.get_by_text("jobs.discounted").first.wait_for()
        shown.wait_for_load_state("networkidle")
        save("allure", shown.screenshot())


def history(browser: Browser, folder: Path) -> None:
    """Take the page of forty made-up nights."""
    file = folder / "history.html"
    write_history_page(file, forty_nights(folder))
    with page(browser, width=1200, height=1270) as shown:
        shown.goto(file.as_uri())
        save("history", shown.screenshot())


def triage(browser: Browser, folder: Path) -> None:
    """Take what is open after forty made-up nights, as it looks in a terminal."""
    forty_nights(folder)
    printed = in_terminal("manifest triage --in runs", folder)
    with page(browser, width=1400) as shown:
        shown.set_content(as_html("manifest triage", printed))
        save("triage", shown.locator("body").screenshot())


def live(browser: Browser, folder: Path) -> None:
    """Take the top of the live page of a run of hours: a worker has died, and a task fails."""
    source = made_ledger(folder, Script(entries=4000, seconds=7200, dies=0.45, cost=0.002))
    content = RunContent(partial(StoredRun.open, by_settings=False), control=True, root=folder)
    server = LiveServer(listening(), new_token(), content)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        with playing(source, folder / "live" / source.name, begun=3720) as player:
            content.path = player.path
            with page(browser, width=1200, height=1210) as shown:
                shown.goto(server.address)
                shown.locator("#list tbody tr").first.wait_for()
                shown.locator("#rate canvas").wait_for()
                save("live", shown.screenshot())
    finally:
        server.close()
        thread.join()


def save(name: str, png: bytes) -> None:
    """Write a picture with 128 colours, which such pages do with: a third of the bytes."""
    small = Image.open(BytesIO(png)).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    path = IMAGES / f"{name}.png"
    small.save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB")


@contextmanager
def page(browser: Browser, *, width: int, height: int = 900) -> Iterator[Page]:
    """Give a page in light colours, of one and a half dots a pixel, as documents show it."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, device_scale_factor=1.5, color_scheme="light"
    )
    try:
        yield context.new_page()
    finally:
        context.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Give the address under which a folder's files are served, on a free port of loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing of requests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


PICTURES: Final[dict[str, Callable[[Browser, Path], None]]] = {
    "first-run": first_run,
    "run-page": run_page,
    "run-page-tree": run_page_tree,
    "live": live,
    "history": history,
    "triage": triage,
    "allure": allure,
}


def main() -> int:
    """Take the pictures that are named, or all."""
    wanted = sys.argv[1:] or list(PICTURES)
    unknown = [name for name in wanted if name not in PICTURES]
    if unknown:
        print(
            f"There is no picture {unknown[0]!r}; there are {', '.join(PICTURES)}", file=sys.stderr
        )
        return 2
    with chromium() as browser:
        for name in wanted:
            folder = Path(tempfile.mkdtemp(prefix="manifest-picture-"))
            try:
                PICTURES[name](browser, folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
