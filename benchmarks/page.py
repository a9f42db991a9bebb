"""The page of the docs and its plots, made of ``results.json`` and nothing else.

Bars are values and colours by what they are of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from pytest_manifest.text import plural
from tests.page_tables import as_csv

Bars: TypeAlias = dict[str, tuple[float, str]]
Results: TypeAlias = Sequence[Mapping[str, Any]]
Document: TypeAlias = Mapping[str, Any]

HEAD: Final = """# Benchmarks: what the harness costs

Each figure is held against what you would do instead, both measured by turns on one machine in one
run, and against its goal. `make bench` writes this page and [all figures](tables/benchmarks.csv);
[what was tried](../../benchmarks/README.md) to make them better.

"""
RAW: Final = "benchmarks.csv"
MET, MISSED, FREE = "#2a7f5f", "#c2571a", "#5b6b7b"


def page(document: Document) -> str:
    """The page as Markdown; ``left_out`` has, by benchmark, what could not be measured and why."""
    reasons = [reason for some in document.get("left_out", {}).values() for reason in some]
    left_out = "".join(f"Left out: {reason}.\n\n" for reason in reasons)
    table = _table(document["figures"])
    return HEAD + _machine(document["machine"]) + table + left_out + _pictures()


def write_page(document: Document, path: Path) -> None:
    path.write_text(page(document), "utf-8")
    (path.parent / "tables" / RAW).write_text(raw(document), "utf-8")


def _machine(machine: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"Taken on {machine['day']}: {machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}; {packages}.\n"
        "Rates are for comparing with one another, and no promises.\n\n"
    )


def _table(figures: Results) -> str:
    goals = [row for row in figures if row["goal"] is not None]
    missed = [row for row in goals if not row["met"]]
    met = f"{len(goals) - len(missed)} of {plural(len(goals), 'goal')} are met."
    lines = ["| not met | measured | against | goal |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(_cells(row)[:4])} |" for row in missed]
    return f"{met}\n\n" + "\n".join(lines) + "\n\n"


def raw(document: Document) -> str:
    """All figures with their details, as the text of a CSV file."""
    rows = [(*_cells(row), _details(row)) for row in document["figures"]]
    return as_csv([("figure", "measured", "against", "goal", "met", "details"), *rows])


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    goal = "" if row["goal"] is None else f"{'≤' if row['at_most'] else '≥'} {row['goal']:g}"
    met = {True: "met", False: "not met", None: ""}[row["met"]]
    unit = "\N{MULTIPLICATION SIGN}" if row["unit"] == "x" else f" {row['unit']}"
    return row["name"], f"{row['ratio']:.2f}{unit}", row["peer"], goal, met


def _details(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{n.replace('_', ' ')} {v:,.4g}" for n, v in row["details"].items())


def _pictures() -> str:
    return "\n".join(f"![{title}](../images/{file})\n" for file, (title, _) in PLOTS.items())


def nearness(figures: Results) -> Bars:
    """How near each figure is to its goal: 1 is just met, and more is better."""
    bars: Bars = {}
    for row in figures:
        if row["goal"] is not None:
            ratio, goal = max(row["ratio"], 1e-6), row["goal"]
            near = goal / ratio if row["at_most"] else ratio / goal
            bars[f"{row['name']} / {row['peer']}"] = near, MET if row["met"] else MISSED
    return bars


def rates(figures: Results) -> Bars:
    """Entries a second, ours and those of the alternatives."""
    bars: Bars = {}
    for row in figures:
        if row["benchmark"] == "throughput" and "per_s" in row["details"]:
            rate = row["details"]["per_s"]
            bars[f"{row['name']}"] = rate, MET
            if row["name"] in ("end to end", "whole process"):
                bars[row["peer"]] = rate / row["ratio"], FREE
    return bars


PLOTS: Final[dict[str, tuple[str, Callable[[Results], Bars]]]] = {
    "benchmark-goals.svg": ("How much of each goal is reached (1: just met)", nearness),
    "benchmark-rates.svg": ("Entries a second, end to end", rates),
}


def plot(path: Path, title: str, bars: Bars) -> None:
    """Draw bars into an SVG file that asks nobody for scripts or fonts."""
    import pygal
    from pygal.style import CleanStyle

    chart = pygal.HorizontalBar(
        title=title,
        width=960,
        height=130 + 44 * len(bars),
        style=CleanStyle(font_family="sans-serif", background="white", plot_background="white"),
        js=[],
        show_legend=False,
        print_values=True,
        value_formatter=lambda value: f"{value:,.4g}",
        range=(0, 1.15 * max(value for value, _ in bars.values())),
        no_prefix=True,
    )
    chart.x_labels = list(bars)[::-1]
    chart.add("", [{"value": value, "color": color} for value, color in list(bars.values())[::-1]])
    drawn = re.sub(r"<!--.*?-->", "", chart.render(is_unicode=True))  # who drew it, and where to
    path.write_text(drawn + "\n", "utf-8")
