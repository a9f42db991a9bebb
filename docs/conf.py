"""Tell Sphinx how the site is built; scripts/docs_site.py calls it (``make docs``)."""

from pathlib import Path

import tomllib
from pygments.lexers import JsonLexer, TextLexer
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent

project = "pytest-celery-manifest"
release = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
extensions = ["myst_parser", "sphinx_copybutton"]
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
templates_path = ["_templates"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "source_edit_link": "",
    "light_css_variables": {
        "color-brand-primary": "#1f6f43",
        "color-brand-content": "#1a6440",
        "color-code-background": "#f3f5f7",
    },
    "dark_css_variables": {"color-brand-primary": "#7fd1a1", "color-brand-content": "#8bd8ab"},
}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

myst_heading_anchors = 4
myst_enable_extensions = ["strikethrough"]

# What is copied is what is typed: commands without their prompt, and nothing that they print.
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"


def setup(app: Sphinx) -> None:
    """Name a lexer for each language of our blocks that Pygments does not know."""
    app.add_lexer("jsonl", JsonLexer)
    app.add_lexer("csv", TextLexer)
