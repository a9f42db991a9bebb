"""Foreign text in Markdown and in workflow commands: whatever it is, it is text."""

from __future__ import annotations

import html
import re

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pytest_manifest.reporting.github_runner import command_data, command_property
from pytest_manifest.reporting.markdown import code, escaped
from pytest_manifest.text import pictured

PIECES = [
    *"ab_*`|\\<>&[]()!#~@:$^{}-+=.\"'/ \t\n\r0;x",
    *("http://a.b", "www.a.b", "<script>", "-->", "<!--", "&amp;", "&#60;", "```", "</code>", "~~"),
    *("\u202e", "\x00", "\x1b[31m", "🎬", "]]>", "\ud800"),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@given(TEXTS)
@example("\\|`</code>|")
def test_a_cell_shows_its_text_and_nothing_else(text: str) -> None:
    """Rendered, a table has the same cells as ever, without any markup but our own."""
    renderer = MarkdownIt("commonmark", {"html": True})
    renderer.enable(["table", "strikethrough"])
    for cell in (code(text), escaped(text)):
        page = renderer.render(f"| a | b |\n| --- | --- |\n| {cell} | z |\n")
        body = "<tbody>\n<tr>\n<td>(.*?)</td>\n<td>z</td>\n</tr>\n</tbody>"
        (found,) = re.findall(body, page, re.DOTALL)
        seen = found.removeprefix("<code>").removesuffix("</code>")
        assert "<" not in seen
        assert html.unescape(seen).strip() == " ".join(pictured(text).split())


def test_addresses_and_names_lead_nowhere() -> None:
    """GitHub makes links of what looks like an address or a person; not of these."""
    assert "://" not in code("see https://a.example/x")
    assert "www." not in code("see WWW.a.example or www.b.example").replace("&#46;", "")
    assert "@" not in code("@somebody")
    assert code("gap_fill _x_") == "<code>gap_fill &#95;x&#95;</code>"
    assert code("") == ""


@given(TEXTS)
def test_a_command_is_one_line_with_its_own_properties(text: str) -> None:
    """Neither value nor message can end the command, or begin another property."""
    value, message = command_property(text), command_data(text)
    assert not re.search(r"[\r\n,:]", value)
    assert not re.search(r"[\r\n]", message)
    undone = message.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
    assert undone == pictured(text)
