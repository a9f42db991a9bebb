"""Corpora are read as streams of documents, whatever their format."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pydantic import JsonValue

from tasks.movie_bible.documents import Document, FilmFacts
from workflows.gap_fill.corpus import CorpusError, corpus_path, parse_mapping, read_corpus

FILM = FilmFacts("alien", "Alien", 1979, "Ridley Scott", ("Sigourney Weaver", "Ian Holm"))
GIVEN: dict[str, JsonValue] = {"themes": ["isolation", "motherhood"], "mood": "tense"}
EXPECTED = [
    Document("alien/plot", "A crew\nmeets a stranger.", "plot", FILM, GIVEN),
    Document("noir", "Ein Mörder? 🎬"),
]
ROWS: list[dict[str, object]] = [
    {
        "id": "alien/plot",
        "text": "A crew\nmeets a stranger.",
        "kind": "plot",
        "film": "alien",
        "title": "Alien",
        "year": 1979,
        "director": "Ridley Scott",
        "cast": ["Sigourney Weaver", "Ian Holm"],
        "summary": None,
        "themes": ["isolation", "motherhood"],
        "mood": "tense",
        "budget": 11_000_000,
    },
    {"id": "noir", "text": "Ein Mörder? 🎬", "summary": " "},
]
TABLE = (
    "id,text,kind,film,title,year,director,cast,summary,themes,mood,budget\n"
    '"alien/plot","A crew\nmeets a stranger.",plot,alien,Alien,1979,Ridley Scott,'
    'Sigourney Weaver; Ian Holm,,"[""isolation"", ""motherhood""]",tense,11\n'
    "\n"
    "noir,Ein Mörder? 🎬\n"
)


def json_lines(rows: list[dict[str, object]]) -> str:
    """One object a line, with a blank line after each."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n\n" for row in rows)


def write(path: Path, text: str) -> Path:
    """A file of that text; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "A.JSONL"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    """Names that are not known are passed over, as are blank lines, nulls and blank fields."""
    assert list(read_corpus(write(tmp_path / name, json_lines(ROWS)))) == EXPECTED


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.TSV", "\t")])
def test_tables(tmp_path: Path, name: str, delimiter: str) -> None:
    """Lists are JSON or have semicolons between their texts; a row may be short."""
    table = TABLE
    if delimiter == "\t":
        table = table.replace('"[""isolation"", ""motherhood""]"', "isolation;; motherhood ")
        table = table.replace(",", "\t")
    assert list(read_corpus(write(tmp_path / name, table))) == EXPECTED


@pytest.mark.parametrize(("name", "text"), [("a.jsonl", json_lines(ROWS)), ("a.csv", TABLE)])
def test_packed_files(tmp_path: Path, name: str, text: str) -> None:
    """They are unpacked on the way."""
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert list(read_corpus(path)) == EXPECTED


@pytest.mark.parametrize(("name", "text"), [("a.jsonl", json_lines(ROWS)), ("a.csv", TABLE)])
def test_files_from_windows(tmp_path: Path, name: str, text: str) -> None:
    """A byte order mark and its line ends change nothing but a text's own line end."""
    found = list(read_corpus(write(tmp_path / name, "\ufeff" + text.replace("\n", "\r\n"))))
    assert [one.id for one in found] == ["alien/plot", "noir"]
    assert found[1] == EXPECTED[1]
    assert found[0].film == FILM


def test_folders(tmp_path: Path) -> None:
    """The path without suffix is the id; what is hidden, of another kind or linked is not read."""
    for name in ("b/2.txt", "b/1.md", "a.TXT", "c d/ä.x.md", "z.jsonl", ".git/x.txt", ".y.txt"):
        write(tmp_path / name, f"\ufefftext of {name}\r\nend\n")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert list(read_corpus(tmp_path)) == [
        Document("a", "text of a.TXT\nend\n"),
        Document("b/1", "text of b/1.md\nend\n"),
        Document("b/2", "text of b/2.txt\nend\n"),
        Document("c d/ä.x", "text of c d/ä.x.md\nend\n"),
    ]


def test_a_film_comes_from_the_title(tmp_path: Path) -> None:
    """Its id is then what the document's has before a slash; without a title there is no film."""
    rows: list[dict[str, object]] = [
        {"id": "m/1", "text": "x", "title": "M"},
        {"id": "m/2", "text": "x", "year": 1931},
        {"id": "m", "text": "x", "title": "M", "film": "m-1931", "cast": []},
    ]
    found = read_corpus(write(tmp_path / "a.jsonl", json_lines(rows)))
    assert [one.film for one in found] == [FilmFacts("m", "M"), None, FilmFacts("m-1931", "M")]


def test_an_empty_list_is_a_value(tmp_path: Path) -> None:
    """People looked, and there was nothing; in a table it is written ``[]``."""
    lines = write(tmp_path / "a.jsonl", '{"id": 7, "text": "x", "themes": []}')
    table = write(tmp_path / "a.csv", "id,text,themes,characters\n7,x,[],\n")
    assert list(read_corpus(lines)) == list(read_corpus(table))
    assert list(read_corpus(table)) == [Document("7", "x", given={"themes": []})]


def test_columns_of_other_names(tmp_path: Path) -> None:
    """Ours are looked for where the mapping says, and nowhere else."""
    mapping = parse_mapping(" id=slug, text = body ,")
    assert mapping == {"id": "slug", "text": "body"}
    expected = [Document("a", "x")]
    lines = write(tmp_path / "a.jsonl", '{"slug": "a", "body": "x", "id": 5, "text": 6}')
    assert list(read_corpus(lines, mapping=mapping)) == expected
    table = write(tmp_path / "a.csv", "slug, body ,id,text\na,x,5,6\n")
    assert list(read_corpus(table, mapping=mapping)) == expected
    assert parse_mapping("") == {}


def test_a_long_text_in_a_table(tmp_path: Path) -> None:
    """Python's own limit for a cell is shorter than many a chapter."""
    table = write(tmp_path / "a.csv", f"id,text\na,{'x' * 200_000}\n")
    assert len(next(read_corpus(table)).text) == 200_000


def test_empty_files_have_no_documents(tmp_path: Path) -> None:
    """That is no fault; a table needs its header all the same."""
    assert list(read_corpus(write(tmp_path / "a.jsonl", "\n\n"))) == []
    assert list(read_corpus(write(tmp_path / "a.csv", "id,text\n"))) == []


def test_the_sample_has_a_name() -> None:
    """``sample`` is the corpus of this project; any other word is a path."""
    assert corpus_path("sample").parts[-3:] == ("gap_fill", "sample", "films.jsonl")
    assert corpus_path("./sample") == Path("sample")
    assert corpus_path("~/x.csv") == Path.home() / "x.csv"


LINES = '{"id": "a", "text": "x"}\n'


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.jsonl", LINES + "{'id'}", "a.jsonl:2: the line is not JSON (Expecting"),
        ("a.jsonl", LINES + "[1]", "a.jsonl:2: the line is a list; write one JSON object"),
        ("a.jsonl", '\n{"id": "a", "id": "b"}', "a.jsonl:2: the line cannot be used (it has 'id'"),
        ("a.jsonl", '{"id": NaN}', "a.jsonl:1: the line cannot be used (NaN is not JSON)"),
        ("a.jsonl", '{"year": ' + "9" * 5000 + "}", "a.jsonl:1: the line cannot be used (Exceeds"),
        ("a.jsonl", "[" * 200_000, "a.jsonl:1: the line cannot be used (maximum recursion"),
        ("a.jsonl", '{"text": "x"}', "a.jsonl:1: the document has no id; write one, or say by a"),
        ("a.jsonl", '{"id": "a"}', "a.jsonl:1: the document has no text; write one, or say by"),
        ("a.jsonl", '{"id": "a", "text": " "}', "a.jsonl:1: the document has an empty text;"),
        ("a.jsonl", '{"id": "", "text": "x"}', "a.jsonl:1: the document has an empty id;"),
        ("a.jsonl", '{"id": true, "text": "x"}', "a.jsonl:1: id must be text, not a truth value"),
        ("a.jsonl", '{"id": "a", "text": 5}', "a.jsonl:1: text must be text, not a number (docu"),
        ("a.jsonl", '{"id": "a\\n", "text": "x"}', "a.jsonl:1: id holds a character that cannot"),
        ("a.jsonl", f'{{"id": "{"x" * 151}", "text": "x"}}', "a.jsonl:1: id has 151 characters"),
        ("a.jsonl", '{"id": "a", "text": "\\u0000"}', "a.jsonl:1: text holds a NUL character"),
        ("a.jsonl", '{"id": "a", "text": "\\ud800"}', "a.jsonl:1: text holds half of a surrogate"),
        ("a.jsonl", '{"id":"a","text":"x","themes":"y"}', "a.jsonl:1: themes must be a list of"),
        ("a.jsonl", '{"id":"a","text":"x","year":"y"}', "a.jsonl:1: year must be a whole number"),
        ("a.jsonl", '{"id":"a","text":"x","title":"T","year":"y"}', "a.jsonl:1: year must be a"),
        ("a.jsonl", '{"id":"a","text":"x","film":"f","cast":"y"}', "a.jsonl:1: cast must be a li"),
        ("a.jsonl", LINES * 2, "a.jsonl:2: document id 'a' was used at {}/a.jsonl:1 already;"),
        ("a.jsonl", LINES + "\ud800", "a.jsonl:2: byte 0xed is not UTF-8; save the file as UTF-8"),
        ("a.csv", "id,text\na,x,y\n", "a.csv:2: the row has 3 cells, and the header 2; put quotes"),
        ("a.csv", 'id,text\na,"x\n\n\n', "a.csv:2: the row that begins here is broken (unexpect"),
        ("a.csv", "id;text\na;x\n", "a.csv:1: there is no column 'id' (there are: id;text); say"),
        ("a.csv", "", "a.csv:1: there is no column 'id' (there are: none); say by a mapping such"),
        ("a.csv", "id,text,id\n", "a.csv:1: the column 'id' comes twice; rename one of them"),
        ("a.csv", 'id,text\na,"x\ny"\nb,\n', "a.csv:4: the document has an empty text; write"),
        ("a.csv", 'id,text\na,"x\ny"\na,z\n', "a.csv:4: document id 'a' was used at {}/a.csv:2"),
        ("a.csv", "id,text,year\na,x,1e3\n", "a.csv:2: year must be a whole number, not '1e3'"),
        ("a.csv", "id,text,themes\na,x,[y\n", "a.csv:2: themes begins like a JSON array and is"),
        ("a.csv", "id,text,themes\na,x,[1]\n", "a.csv:2: themes has an item 1 that must be text"),
        ("a.csv", "id,text\na,x\0\n", "a.csv:2: text holds a NUL character"),
        ("a.csv", "id,text\na,x\nb,\ud800\n", "a.csv:3: byte 0xed is not UTF-8"),
        ("a.json", "[]", "a.json: the format of this file is not known; name a .jsonl"),
        ("a", "[]", "a: the format of this file is not known"),
        ("a.gz", "[]", "a.gz: the format of this file is not known"),
        ("a.jsonl.gz", LINES, "a.jsonl.gz: the file is no whole gzip file (Not a gzipped file"),
        ("a/b.txt", "\n\n\ud800", "a/b.txt:3: byte 0xed is not UTF-8"),
        ("a/b.txt", " ", "a/b.txt: the document has an empty text"),
        ("a/b\n.txt", "x", "a/b\n.txt: id holds a character that cannot be printed"),
        ("a/b.rst", "x", "a: there is no .txt or .md file in the folder; name one that has some"),
    ],
)
def test_a_fault_is_a_sentence_with_its_place(
    tmp_path: Path, name: str, text: str, sentence: str
) -> None:
    """File and line, what is wrong, and what to do next."""
    write(tmp_path / name, text)
    folder = tmp_path / name.partition("/")[0]
    with pytest.raises(CorpusError) as caught:
        list(read_corpus(folder))
    said = str(caught.value)
    assert said.startswith(f"{tmp_path}/{sentence.format(tmp_path)}"), said
    assert "; " in said
    assert len(said) < 400 + len(str(tmp_path)) * 2
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_files_of_one_id(tmp_path: Path) -> None:
    """Two suffixes do not make two documents."""
    write(tmp_path / "a.md", "x")
    write(tmp_path / "a.txt", "x")
    with pytest.raises(CorpusError, match=r"a\.txt: document id 'a' was used at .*a\.md already"):
        list(read_corpus(tmp_path))


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    """Linux allows any bytes."""
    write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")), "x")
    with pytest.raises(CorpusError, match="id holds half of a surrogate pair"):
        list(read_corpus(tmp_path))


def test_a_gzip_file_that_was_cut_off(tmp_path: Path) -> None:
    """Its first documents come out, then the fault."""
    path = tmp_path / "a.jsonl.gz"
    rows: list[dict[str, object]] = [
        {"id": str(n), "text": os.urandom(40).hex()} for n in range(2000)
    ]
    packed = gzip.compress(json_lines(rows).encode())
    path.write_bytes(packed[: len(packed) // 2])
    stream = read_corpus(path)
    assert next(stream).id == "0"
    with pytest.raises(CorpusError, match=r"a\.jsonl\.gz: the file is no whole gzip file"):
        list(stream)


@pytest.mark.parametrize("name", ["nowhere.jsonl", "nowhere"])
def test_what_is_not_there_is_said_at_once(tmp_path: Path, name: str) -> None:
    """Before the first document is asked for."""
    with pytest.raises(CorpusError, match="there is no such file or folder; name one"):
        read_corpus(tmp_path / name)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the tests may run as root, the refusal is made up."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "a.jsonl", LINES)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CorpusError, match=r"cannot be read \(Permission denied\); see to its"):
        list(read_corpus(path))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("slug", "the mapping has 'slug' where OURS=THEIRS must stand; write it as in"),
        ("id=", "the mapping has 'id=' where OURS=THEIRS must stand"),
        ("plot=x", "the mapping names a column 'plot' that is not known; write OURS=THEIRS with"),
        ("id=a,id=b", "the mapping names 'id' twice; leave one of them out"),
    ],
)
def test_a_mapping_that_cannot_be(text: str, sentence: str) -> None:
    """It is refused with a sentence."""
    with pytest.raises(CorpusError, match=f"^{sentence}"):
        parse_mapping(text)


@pytest.mark.parametrize(
    ("name", "text", "mapping", "sentence"),
    [
        ("a.csv", "id,text\n", {"mood": "m"}, "a.csv:1: there is no column 'm'"),
        ("a.jsonl", LINES, {"mood": "m"}, "a.jsonl: no line has the name 'm' that the mapping"),
        ("a.jsonl", LINES, {"plot": "m"}, "the mapping names a column 'plot'"),
        ("a/b.txt", "x", {"text": "m"}, "a: a folder of text files has no columns; leave the"),
    ],
)
def test_a_mapping_that_does_not_fit_the_file(
    tmp_path: Path, name: str, text: str, mapping: Mapping[str, str], sentence: str
) -> None:
    """A column that is nowhere is a mistake, rather than a gap everywhere."""
    write(tmp_path / name, text)
    with pytest.raises(CorpusError) as caught:
        list(read_corpus(tmp_path / name.partition("/")[0], mapping=mapping))
    assert sentence in str(caught.value)


def test_a_line_without_end_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is not what its name says has no lines."""
    monkeypatch.setattr("workflows.gap_fill.corpus.lines.LONGEST", 1000)
    lines = write(tmp_path / "a.jsonl", LINES + "x" * 3_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(CorpusError, match=r"a\.jsonl:2: the line has more than 1,000 bytes"):
            list(read_corpus(lines))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    write(tmp_path / "b" / "c.txt", "x" * 5000)
    with pytest.raises(CorpusError, match=r"c\.txt: the file has more than 1,000 bytes; divide"):
        list(read_corpus(tmp_path / "b"))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.jsonl", lambda n, text: json.dumps({"id": f"f/{n:06d}", "text": text}) + "\n"),
        ("a.csv", lambda n, text: ("" if n else "id,text\n") + f"f/{n:06d},{text}\n"),
    ],
)
def test_streaming_keeps_nothing(
    tmp_path: Path, name: str, line: Callable[[int, str], str]
) -> None:
    """Memory does not grow with the documents; ids of all of them would be a hundred bytes each."""

    def peak(count: int) -> int:
        path = tmp_path / name
        path.write_text("".join(line(n, "x" * 600) for n in range(count)))
        sum(1 for _ in read_corpus(path))
        tracemalloc.start()
        try:
            assert sum(1 for _ in read_corpus(path)) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert (peak(12_000) - peak(2_000)) / 10_000 < 10
