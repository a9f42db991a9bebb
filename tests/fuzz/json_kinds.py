"""Kinds of JSON texts that parsers differ on, written for formats of one object a line.

A kind is about a value, which stands somewhere in an object, or about the line itself, in which
``@`` stands for a valid object. ``right``: RFC 8259 says that it is JSON; ``wrong``: that it is
not; ``open``: it leaves that to each parser, or says only what is advisable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Rule = Literal["right", "wrong", "open"]
OBJECT: Final = b"@"
FORMATS: Final = ("manifest", "receipts", "stream")


@dataclass(frozen=True)
class Kind:
    """One kind: its name, the rule, a text of it; ``is_line``: it is about the whole line.

    ``taken``: of an open one, the formats that take it; ``decision``: what becomes of it.
    """

    name: str
    rule: Rule
    text: bytes
    is_line: bool = False
    taken: tuple[str, ...] = ()
    decision: str = ""


RIGHT_VALUES: Final = {
    "null": b"null",
    "true": b"true",
    "false": b"false",
    "an empty array": b"[]",
    "an empty object": b"{}",
    "an empty text": b'""',
    "an empty key": b'{"":0}',
    "arrays in arrays": b"[[[[[[]]]]]]",
    "objects in objects": b'{"a":{"b":{"c":{}}}}',
    "an array of several kinds": b'[null,1,"1",{},[],true]',
    "spaces, tabs and returns between tokens": b'[ 1 ,\t2 ,\r"a" ]',
    "a space before a colon": b'{"a" : 1}',
    "zero": b"0",
    "minus zero": b"-0",
    "minus zero with a fraction": b"-0.0",
    "a negative integer": b"-123",
    "an integer of one digit": b"7",
    "an exponent": b"1e2",
    "a capital exponent": b"1E2",
    "an exponent with a plus": b"1e+2",
    "an exponent with a minus": b"1E-2",
    "an exponent of zero": b"0e1",
    "an exponent with zeros before it": b"1e0002",
    "a fraction": b"123.456789",
    "a fraction with an exponent": b"0.5e-3",
    "a fraction with zeros after it": b"1.50000",
    "an integer of 53 bits": b"9007199254740991",
    "an integer of 63 bits": b"-9223372036854775808",
    "each short escape": rb'"\"\\\/\b\f\n\r\t"',
    "an escape of four digits": rb'"\u0041\u00e9"',
    "an escape in capitals": rb'"\uABCD\u00E9"',
    "an escaped pair of surrogates": rb'"\ud83d\ude00"',
    "an escaped null character": rb'"\u0000"',
    "escaped control characters": rb'"\u0001\u001f"',
    "an escape that is none": rb'"\\u0000"',
    "an escaped byte order mark": rb'"\ufeff"',
    "an escaped line separator": rb'"\u2028\u2029"',
    "an escape that is not needed": rb'"\u002f\u0020"',
    "a slash": b'"/"',
    "a delete character": b'"\x7f"',
    "two bytes a character": '"é"'.encode(),
    "three bytes a character": '"€"'.encode(),
    "four bytes a character": '"\U0001f600"'.encode(),
    "the last character there is": '"\U0010ffff"'.encode(),
    "characters that are none": '"\ufdd0\uffff"'.encode(),
    "a line separator": '"\u2028"'.encode(),
    "a byte order mark in a text": '"\ufeff"'.encode(),
    "a right-to-left override": '"\u202e"'.encode(),
    "a key with an escape": rb'{"\u0061":1}',
    "a key of non-ASCII characters": '{"é":1}'.encode(),
    "a key of a surrogate pair": rb'{"\ud83d\ude00":1}',
    "a text of braces": b'"{}[]:,"',
    "a text of comments": b'"/* // */"',
    "a long text": b'"' + b"x" * 5_000 + b'"',
    "a long array": b"[" + b"0," * 999 + b"0]",
    "50 levels": b"[" * 50 + b"]" * 50,
}
RIGHT_LINES: Final = {
    "an object": b"@",
    "spaces around the object": b" \t@ \t",
    "a return at the line's end": b"@\r",
}
WRONG_VALUES: Final = {
    "nothing": b"",
    "a word": b"nul",
    "a word that goes on": b"nulls",
    "a word in capitals": b"True",
    "Python's None": b"None",
    "undefined": b"undefined",
    "NaN": b"NaN",
    "minus NaN": b"-NaN",
    "Infinity": b"Infinity",
    "minus Infinity": b"-Infinity",
    "Inf": b"Inf",
    "a name without quotes": b"name",
    "single quotes": b"'a'",
    "a plus before a number": b"+1",
    "two minuses": b"--1",
    "a minus alone": b"-",
    "a minus and a space": b"- 1",
    "a zero before a number": b"01",
    "a zero before a negative number": b"-01",
    "two zeros": b"00",
    "a point before the digits": b".5",
    "a minus and a point": b"-.5",
    "a point without digits": b"1.",
    "a point and an exponent": b"1.e1",
    "two points": b"1.2.3",
    "an exponent without digits": b"1e",
    "an exponent with a sign alone": b"1e+",
    "an exponent with a fraction": b"1e1.5",
    "two exponents": b"1e1e1",
    "a hexadecimal number": b"0x1F",
    "an octal number": b"0o17",
    "underscores in a number": b"1_000",
    "a space in a number": b"1 000",
    "letters behind a number": b"1a",
    "a number of full-width digits": "１".encode(),  # noqa: RUF001 - that is the case
    "a text without its end": b'"a',
    "a text without its beginning": b'a"',
    "a text that ends in a backslash": b'"\\',
    "an escape of x": rb'"\x41"',
    "an escape of a": rb'"\a"',
    "an escape of a single quote": rb'"\'"',
    "an escape of zero": rb'"\0"',
    "an escape of a capital U": rb'"\U00000041"',
    "an escape of braces": rb'"\u{41}"',
    "an escape of three digits": rb'"\u041"',
    "an escape without digits": rb'"\u"',
    "an escape of other digits": rb'"\u00G1"',
    "an escape of a sign": rb'"\u-041"',
    "an escape of a character of two bytes": '"\\é"'.encode(),
    "an escape outside a text": rb"\u0041",
    "a null character in a text": b'"a\x00b"',
    "a tab in a text": b'"a\tb"',
    "a return in a text": b'"a\rb"',
    "an escape character in a text": b'"\x1b[31m"',
    "a null character between tokens": b"[1,\x00 2]",
    "a form feed between tokens": b"[1,\x0c2]",
    "a no-break space between tokens": "[1,\u00a02]".encode(),
    "a word joiner between tokens": "[1,\u20602]".encode(),
    "a byte order mark between tokens": "[1,\ufeff2]".encode(),
    "an array without its end": b"[1",
    "an array without its beginning": b"1]",
    "an array that ends as an object": b"[1}",
    "an array with a comma at its end": b"[1,]",
    "an array with a comma at its beginning": b"[,1]",
    "an array of a comma": b"[,]",
    "an array with two commas": b"[1,,2]",
    "an array without a comma": b"[1 2]",
    "an array with a colon": b"[1:2]",
    "an array with a semicolon": b"[1;2]",
    "an array in brackets of words": b"[1, true false]",
    "an array with dots": b"[1, ...]",
    "an object without its end": b'{"a":1',
    "an object without its beginning": b'"a":1}',
    "an object that ends as an array": b'{"a":1]',
    "an object with a comma at its end": b'{"a":1,}',
    "an object with a comma at its beginning": b'{,"a":1}',
    "an object with two commas": b'{"a":1,,"b":2}',
    "an object without a comma": b'{"a":1 "b":2}',
    "an object without a colon": b'{"a" 1}',
    "an object with two colons": b'{"a"::1}',
    "an object with a comma for a colon": b'{"a",1}',
    "an object without a value": b'{"a":}',
    "an object without a key": b"{:1}",
    "a key alone": b'{"a"}',
    "a key that is a number": b"{1:1}",
    "a key that is a word": b"{null:1}",
    "a key without quotes": b"{a:1}",
    "a key in single quotes": b"{'a':1}",
    "a key that is an array": b"{[]:1}",
    "a comment of two slashes": b"1 // one",
    "a comment of a slash and a star": b"1 /* one */",
    "a comment of a hash": b"1 # one",
    "a comment alone": b"/**/",
    "two values": b"1 1",
    "a value and a comma": b"1,",
    "an emoji without quotes": "\U0001f600".encode(),
    "a bracket that does not close": b"[" * 60,
    "a brace that does not open": b"}",
    "a date": b"2026-11-24",
    "a binary number": b"0b1",
    "a fraction of words": b"1/2",
    "a byte that begins nothing": b"\xff",
}
WRONG_LINES: Final = {
    "a line of nothing": b"",
    "a line of spaces": b"  \t",
    "an object twice": b"@@",
    "an object and a comma": b"@,",
    "an object and a brace": b"@}",
    "an object and a word": b"@ true",
    "an object and a comment": b"@ // all",
    "a comment and an object": b"/* all */ @",
    "an object and a null character": b"@\x00",
    "a null character and an object": b"\x00@",
    "a form feed and an object": b"\x0c@",
    "a semicolon at the end": b"@;",
    "an object in parentheses": b"(@)",
    "a half byte order mark": b"\xef\xbb@",
    "a text of markup": b"<a>@</a>",
    "a byte that is no JSON": b"\xff",
    "a sequence of records": b"\x1e@",
}
NO_OBJECTS: Final = {
    "a line that is an array": b"[@]",
    "a line that is a text": b'"a"',
    "a line that is a number": b"1",
    "a line that is true": b"true",
    "a line that is null": b"null",
}
"""JSON, but no line of ours: refused as such."""
ALL: Final = FORMATS
_NOT_UTF8: Final = "refused: bytes that are not UTF-8 have no meaning that two readers share"
_HALF: Final = "refused, with its place: no UTF-8 can hold it"
_TWICE: Final = (
    "manifests and receipts files refuse it, as two readers may take different ones; of a record "
    "in the stream the last one counts"
)
_ENCODING: Final = "refused: all that we read is UTF-8, without a mark"
_ROUNDED: Final = "taken, rounded to the nearest number of 64 bits, as nearly every parser does"
_EXACT: Final = "taken as it is, to the digit"
OPEN_VALUES: Final = (
    Kind("an integer of 64 bits", "open", b"9223372036854775808", taken=ALL, decision=_EXACT),
    Kind("an integer of 100 digits", "open", b"-" + b"9" * 100, taken=ALL, decision=_EXACT),
    Kind(
        "an integer of 5,000 digits",
        "open",
        b"1" * 5_000,
        decision="refused: Python itself reads and writes 4,300 digits at most",
    ),
    Kind("more digits than a number has", "open", b"0.1" + b"0123456789" * 20, taken=ALL,
         decision=_ROUNDED),
    Kind("a number too large", "open", b"1e400",
         decision="refused: it would be infinite, which cannot be written again"),
    Kind("a negative number too large", "open", b"-1e400",
         decision="refused: it would be infinite, which cannot be written again"),
    Kind("a large number of digits", "open", b"1" + b"0" * 400 + b".0",
         decision="refused: it would be infinite, which cannot be written again"),
    Kind("an exponent of many digits", "open", b"1e" + b"9" * 60,
         decision="refused: it would be infinite, which cannot be written again"),
    Kind("a number too small", "open", b"1e-400", taken=ALL, decision="taken, as 0.0"),
    Kind("a negative number too small", "open", b"-1e-400", taken=ALL, decision="taken, as -0.0"),
    Kind("the smallest number", "open", b"5e-324", taken=ALL, decision=_ROUNDED),
    Kind("half of a surrogate pair", "open", rb'"\ud800"', decision=_HALF),
    Kind("the other half of a pair", "open", rb'"\udc00"', decision=_HALF),
    Kind("the halves of a pair, turned round", "open", rb'"\ude00\ud83d"', decision=_HALF),
    Kind("half of a pair and a character", "open", rb'"\ud800A"', decision=_HALF),
    Kind("half of a pair twice", "open", rb'"\ud83d\ud83d"', decision=_HALF),
    Kind("half of a pair and another escape", "open", rb'"\ud800\n"', decision=_HALF),
    Kind("half of a pair in a key", "open", rb'{"\udfff":1}', decision=_HALF),
    Kind("a key twice", "open", b'{"a":1,"a":2}', taken=("stream",), decision=_TWICE),
    Kind("a key twice with the same value", "open", b'{"a":1,"a":1}', taken=("stream",),
         decision=_TWICE),
    Kind("a key twice, once escaped", "open", rb'{"a":1,"\u0061":2}', taken=("stream",),
         decision=_TWICE),
    Kind("an empty key twice", "open", b'{"":1,"":2}', taken=("stream",), decision=_TWICE),
    Kind("a surrogate in UTF-8", "open", b'"\xed\xa0\x80"', decision=_NOT_UTF8),
    Kind("a pair of surrogates in UTF-8", "open", b'"\xed\xa0\xbd\xed\xb8\x80"',
         decision=_NOT_UTF8),
    Kind("an overlong character", "open", b'"\xc0\xaf"', decision=_NOT_UTF8),
    Kind("an overlong null character", "open", b'"\xe0\x80\x80"', decision=_NOT_UTF8),
    Kind("a character beyond the last", "open", b'"\xf4\xbf\xbf\xbf"', decision=_NOT_UTF8),
    Kind("a sequence of five bytes", "open", b'"\xf8\x88\x80\x80\x80"', decision=_NOT_UTF8),
    Kind("a sequence cut off", "open", b'"\xe2\x82"', decision=_NOT_UTF8),
    Kind("a byte of a sequence alone", "open", b'"\x81"', decision=_NOT_UTF8),
    Kind("Latin-1", "open", b'"\xe9"', decision=_NOT_UTF8),
    Kind("bytes that never occur", "open", b'"\xfe\xff"', decision=_NOT_UTF8),
    Kind("98 levels", "open", b"[" * 98 + b"]" * 98, taken=ALL, decision="taken: 100 at most"),
    Kind("101 levels", "open", b"[" * 101 + b"]" * 101,
         decision="refused, with what to do: 100 levels at most"),
    Kind("500 levels of objects", "open", b'{"a":' * 500 + b"1" + b"}" * 500,
         decision="refused, as 101 levels"),
    Kind("100,000 levels", "open", b"[" * 100_000 + b"]" * 100_000,
         decision="refused, as 101 levels"),
)  # fmt: skip
OPEN_LINES: Final = (
    Kind("a byte order mark", "open", b"\xef\xbb\xbf@", is_line=True, decision=_ENCODING),
    Kind("UTF-16 with a byte order mark", "open", b"utf-16", is_line=True, decision=_ENCODING),
    Kind("UTF-16, little end first", "open", b"utf-16-le", is_line=True, decision=_ENCODING),
    Kind("UTF-16, big end first", "open", b"utf-16-be", is_line=True, decision=_ENCODING),
    Kind("UTF-32", "open", b"utf-32", is_line=True, decision=_ENCODING),
)
"""Of encodings the text is the name: the object is encoded by it."""
KINDS: Final = (
    *(Kind(name, "right", text) for name, text in RIGHT_VALUES.items()),
    *(Kind(name, "right", text, is_line=True) for name, text in RIGHT_LINES.items()),
    *(Kind(name, "wrong", text) for name, text in WRONG_VALUES.items()),
    *(Kind(name, "wrong", text, is_line=True) for name, text in WRONG_LINES.items()),
    *(Kind(name, "wrong", text, is_line=True) for name, text in NO_OBJECTS.items()),
    *OPEN_VALUES,
    *OPEN_LINES,
)
