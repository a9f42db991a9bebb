"""What of a text or a document is hidden, and what is not."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable
from types import SimpleNamespace
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from pytest_manifest.errors import StackError
from pytest_manifest.redaction import names as in_force
from pytest_manifest.redaction import texts
from pytest_manifest.redaction.documents import redacted, redacted_schema
from pytest_manifest.redaction.names import configure, use_salt
from pytest_manifest.redaction.texts import (
    hide,
    manifest_secret,
    redact,
    redact_error,
    redact_url,
    without_cut,
)
from pytest_manifest.schema import Entry, Receipt, Verdict, shown
from pytest_manifest.schema.shown import (
    pieces_of,
    secrets_of,
    shown_receipt,
    shown_text,
    shown_verdict,
)
from pytest_manifest.stack.health import check_stack
from pytest_manifest.urls import StackAddress
from pytest_manifest.verdict.belief import End, _disagreement
from pytest_manifest.verdict.explanation import explain
from pytest_manifest.worker.receipt import TaskResult, without_arguments
from tests.reasons import phrase
from tests.verdicts import evaluate


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the hidden values as they were."""
    monkeypatch.setattr(texts.hidden_values, "now", texts.Hidden())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:s3cret@h:1/0", "redis://:***@h:1/0"),
        ("amqp://user:s3cret@h//", "amqp://user:***@h//"),
        ("a redis://u:s3@cret@h:1/0 b", "a redis://u:***@h:1/0 b"),
        (
            "sentinel://:s3cret@a:1;sentinel://:s3cret@b:1",
            "sentinel://:***@a:1;sentinel://:***@b:1",
        ),
        ("('redis://:s3cret@h/0', 1)", "('redis://:***@h/0', 1)"),
        ("password=s3cret, x=1", "password=***, x=1"),
        ("{'password': 's3 cret', 'x': 1}", "{'password': '***', 'x': 1}"),
        ('{"db_password": "s3\\"cret"}', '{"db_password": "***"}'),
        ("GEMINI_API_KEY=s3cret", "GEMINI_API_KEY=***"),
        ("https://h/v1?api_key=s3cret&x=1", "https://h/v1?api_key=***&x=1"),
        ("Authorization: Bearer s3cret-token-value", "Authorization: Bearer ***"),
        ("client_secret: s3cret", "client_secret: ***"),
        ("redis://:s3/c#r?e@t@h:1/0", "redis://:***@h:1/0"),
        ("redis://me@x.org:s3cret@h/0", "redis://me@x.org:***@h/0"),
        (
            json.dumps(json.dumps({"password": 's3 "cret', "b": 1})),
            r'"{\"password\": \"***\", \"b\": 1}"',
        ),
        (
            json.dumps(json.dumps(json.dumps({"token": "s3"}))),
            json.dumps(json.dumps(json.dumps({"token": "***"}))),
        ),
        ("password=['s3', ('s3', 's3')], x", "password=***, x"),
        ("password=SecretStr('s3 cret')", "password=***"),
        ("password=b's3 cret'", "password='***'"),
        ('"password": "s3 cret that was cut', '"password": "***"'),
        ("Cookie: sid=s3cret; user=s3", "Cookie: ***"),
        ("('Set-Cookie', 'sid=s3cret; Path=/')", "('Set-Cookie', '***')"),
        ("authorization: Basic s3cret:x y", "authorization: Basic ***"),
        ("{'Authorization': 'Bearer s3'}", "{'Authorization': '***'}"),
        ("db_credentials={'user': 's3'}", "db_credentials=***"),
        ("mysql --db-password s3cret -u me", "mysql --db-password *** -u me"),
        ("['mysql', '--password', 's3cret', 'x']", "['mysql', '--password', '***', 'x']"),
        ("<db:password hint='x'>s3 cret</db:password>", "<db:password hint='x'>***</db:password>"),
    ],
)
def test_secrets_are_taken_out(text: str, shown: str) -> None:
    """A password or key is replaced, and nothing around it."""
    assert redact(text) == shown
    assert "s3" not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "redis://127.0.0.1:6379/0",
        "amqp://guest@h//",
        "http://h:80/a?mail=a@b",
        "max_tokens=300",
        "manifests/x.jsonl:17: id 'a' was used",
        "invalid username-password pair",
        "a disk-based cache of tasks, 3 cookies, and the key 'a'",
        "no page at http://h:80/a?b=1#c, as me@x.org said",
        "KeyError: 'x'",
        "give --password, or --max-tokens 300 and --cookie -x",
        "<passwords/><a>b</a>",
    ],
)
def test_innocent_text_stays(text: str) -> None:
    """What only looks a little like a secret is left alone."""
    assert redact(text) == text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pa/s@s@h:1/0", "redis://:***@h:1/0"),
        ("redis://h:1/0?password=abc", "redis://h:1/0?password=***"),
        ("db+postgresql://u:p@h/x", "db+postgresql://u:***@h/x"),
        ("redis://user@h/0", "redis://user@h/0"),
        ("no url at all", "no url at all"),
    ],
)
def test_a_url_keeps_all_but_its_password(url: str, shown: str) -> None:
    """An address that is known to be a URL is redacted even where it is badly encoded."""
    assert redact_url(url) == shown


_PASSWORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]) | st.sampled_from("/#?@:%;[]"),
    min_size=1,
)


@given(_PASSWORDS)
@example("a/b#c")
@example("6379/x")
def test_no_character_of_a_password_ends_it(password: str) -> None:
    """A URL is shown with user and place alone, whatever its password is made of."""
    assert redact_url(f"redis://me:{password}@h:1/0") == "redis://me:***@h:1/0"


@given(_PASSWORDS)
def test_a_library_repeats_no_piece_of_a_password(password: str) -> None:
    """What takes a URL apart that is not well-formed may quote any piece: all are taken out."""
    url = f"redis://me:{password}@h:1/0"
    for piece in [*re.split("[/?#@:]", password), password]:
        error = ValueError(f"no port: {piece!r}")
        shown = redact_error(error, url)
        if piece and repr(piece)[1:-1] == piece and piece not in "ValueError: no port: '***'":
            assert piece not in shown


def test_an_unescaped_password_is_in_no_error() -> None:
    """The pieces that Python's own library repeats are hidden, short ones in quotes, too."""
    url = "redis://:q/hunter2#x@h:1/0"
    with pytest.raises(ValueError, match="Port could not") as raised:
        print(urlsplit(url).port)
    shown = redact_error(raised.value, url)
    assert shown == "ValueError: Port could not be cast to integer value as '***'"
    assert redact_error(ValueError("hunter2 at 'q' or q"), url) == "ValueError: *** at '***' or q"


@pytest.mark.parametrize("password", ["q/hunter2", "hunter2#x", "hu/nter2?x#y@z"])
def test_a_stack_at_an_unescaped_url_is_refused_without_it(password: str) -> None:
    """What says that a broker cannot be used names no part of its password."""
    url = f"redis://:{password}@127.0.0.1:1/0"
    with pytest.raises(StackError) as raised:
        check_stack(StackAddress(url, url, None, is_private=False), 5)
    assert "redis://:***@127.0.0.1:1/0" in str(raised.value)
    for piece in re.split("[/?#@]", password):
        assert f"'{piece}'" not in str(raised.value)
        assert len(piece) < 3 or piece not in str(raised.value)


def test_a_long_line_is_redacted_in_linear_time() -> None:
    """Redacting a megabyte of letters and separators ends (a quadratic pattern would not)."""
    text = "a-b.c_d:e/f@" * 100_000 + "://" + "x" * 100_000

    assert len(redact(text)) == len(text)


def test_hiding_while_others_log() -> None:
    """New secrets may become known while other threads are logging."""

    def hide_many(number: int) -> None:
        for i in range(200):
            hide(f"secret-value-{number}-{i}")

    threads = [threading.Thread(target=hide_many, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        redact("secret-value-3-1")
    for thread in threads:
        thread.join()

    assert redact("secret-value-0-7") == "***"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(
        st.sampled_from(
            [
                *("PassWord", "passphrase", "api", "key", "ToKen", "secret", "credential", "s"),
                *("bearer ", "Basic ", "abcd1234efgh", "redis://", "user"),
                *"aZ ,;:=\"'/@\n{}[].-_\\\u212a\u017f\u0130\u0131",
            ]
        ),
        max_size=14,
    ).map("".join)
)
def test_looking_for_signs_first_hides_no_less(text: str) -> None:
    """What a line must have in it for a pattern to match only saves time: \u212a, say, is a k."""
    url, _, tokens = texts._by_form()
    hidden = texts._after_names(url.sub(rf"\1:{texts.HIDDEN}@", text), in_force.names_in_force())
    assert redact(text) == tokens.sub(texts.HIDDEN, hidden)


# Documents


@pytest.fixture
def salt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A salt of this test's own, and names and options as by default afterwards."""
    monkeypatch.setattr(in_force.settings, "now", in_force._Settings(salt=b"salt of this test"))


def test_what_stands_under_the_name_of_a_secret_is_hidden(salt: None) -> None:
    """Texts, numbers, lists and objects; what tells nothing stays, and so does all else."""
    value: dict[str, JsonValue] = {
        "user": "me",
        "password": "hunter2",
        "pins": [{"api-key": 1234}],
        "credentials": {"user": "me", "of": ["hunter2"]},
        "token": None,
        "secret": "",
        "has_token": True,
        "headers": [{"name": "Cookie", "value": "sid=hunter2"}],
        "max_tokens": 300,
        "note": "password=hunter2",
    }
    shown = redacted(value)
    assert isinstance(shown, dict)
    assert "hunter2" not in json.dumps(shown)
    assert "1234" not in json.dumps(shown)
    assert re.fullmatch(r"\*\*\*[0-9a-f]{8}", str(shown["password"]))
    unchanged = ("user", "token", "secret", "has_token", "max_tokens")
    assert {name: shown[name] for name in unchanged} == {name: value[name] for name in unchanged}
    assert redacted(shown) == shown


def test_equal_secrets_are_shown_alike_and_others_differ(salt: None) -> None:
    """By a digest that needs the session's salt."""
    first = redacted({"password": "hunter2"})
    assert first == redacted({"password": "hunter2"})
    assert first != redacted({"password": "hunter3"})
    use_salt(b"another")
    assert first != redacted({"password": "hunter2"})


def test_names_are_added_and_taken_away(salt: None) -> None:
    """An exclamation mark takes one of the defaults away; the others stay."""
    configure(names=["pin", "customer_key", "!token"])
    shown = redacted({"PIN": "x1", "customerKey": "x2", "token": "x3", "password": "x4"})
    assert isinstance(shown, dict)
    assert [str(one).startswith("***") for one in shown.values()] == [True, True, False, True]
    assert redact("customer-key=hunter2 token=x") == "customer-key=*** token=x"
    with pytest.raises(ValueError, match="takes away no name"):
        configure(names=["!pin"])
    with pytest.raises(ValueError, match="is no name"):
        configure(names=["a b"])


def test_a_schema_keeps_its_rules_without_values_of_secrets(salt: None) -> None:
    """Types and lengths stay, what a secret must be does not."""
    schema: dict[str, JsonValue] = {
        "properties": {"password": {"type": "string", "const": "hunter2", "minLength": 3}}
    }
    shown = redacted_schema(schema)
    assert "hunter2" not in json.dumps(shown)
    assert '"type": "string"' in json.dumps(shown)
    assert '"minLength": 3' in json.dumps(shown)


@pytest.mark.parametrize("text", ["abc", ""])
def test_a_short_secret_is_refused(text: str) -> None:
    """It would be blanked out of innocent text."""
    with pytest.raises(ValueError, match="must have 4 or more"):
        manifest_secret(text)


def test_a_registered_value_is_hidden_in_all_its_spellings() -> None:
    """Also as a part of a URL, of JSON, or of Python's representation."""
    secret = manifest_secret('hunter 2/"x"\n')
    for spelling in (secret, quote(secret), json.dumps(secret), repr(secret)):
        assert "hunter" not in redact(f"before {spelling} after")


def test_a_registered_value_is_hidden_in_base64() -> None:
    """At any place in what is encoded, as a part of ``user:password``."""
    secret = manifest_secret("correct horse??>>battery")
    for before in ("", "a", "ab", "abc:"):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            shown = redact(encode(f"{before}{secret}:z".encode()).decode())
            assert "***" in shown
            assert len(shown) < 20


def test_a_registered_value_of_several_lines_is_hidden_in_each() -> None:
    """Whoever prints it puts something before its lines, as a traceback does."""
    manifest_secret("first line of it\nthe second one\r\nend")
    assert redact("E   first line of it\nE   the second one\n") == "E   ***\nE   ***\n"


PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEabcdefghijklmnop\nQRSTUVqrstuv==\n"
    "-----END RSA PRIVATE KEY-----"
)


@pytest.mark.parametrize("before", ["", "    | ", "> ", "E   ", "# ", "'"])
def test_a_private_key_is_hidden_whatever_its_lines_begin_with(before: str) -> None:
    """As in the traceback of a group of exceptions."""
    text = "\n".join(f"{before}{line}" for line in f"x {PEM} y".split("\n"))
    assert redact(text) == f"{before}x *** y"


# What is said of entries and receipts


def failed(expect: JsonValue, result: JsonValue, **fields: JsonValue) -> tuple[str, str]:
    """The verdict's sentence and the text of the test for a receipt with this result."""
    entry = Entry.model_validate({"id": "e", "task": "t", "expect": expect, **fields})
    base = {"run": "r", "entry": "e", "attempt": 1, "task_id": "x", "task": "t"}
    receipt = Receipt.model_validate({**base, "state": "succeeded", "result": result})
    verdict = evaluate(entry, receipt, attempt=1)
    assert verdict.verdict == "failed"
    return verdict.sentence, explain(entry, receipt, verdict)


def test_two_secrets_that_are_not_equal_differ(salt: None) -> None:
    """The verdict says so, and neither is in it."""
    said, text = failed({"result": {"password": "hunter2"}}, {"password": "hunter3"})
    assert re.search(
        r"'\*\*\*[0-9a-f]{8}' \(differs\) where '\*\*\*[0-9a-f]{8}' was expected", said
    )
    assert "hunter" not in said + text


def test_equal_secrets_pass(salt: None) -> None:
    """What is held against each other is not what is shown."""
    entry = Entry.model_validate(
        {"id": "e", "task": "t", "expect": {"result": {"password": "hunter2"}}}
    )
    base = {"run": "r", "entry": "e", "attempt": 1, "task_id": "x", "task": "t"}
    receipt = Receipt.model_validate(
        {**base, "state": "succeeded", "result": {"password": "hunter2"}}
    )
    assert evaluate(entry, receipt, attempt=1).verdict == "passed"


def test_a_schema_s_violation_says_nothing_of_a_secret(salt: None) -> None:
    """Neither the value nor the rule, which may be made of it."""
    schema: JsonValue = {"properties": {"token": {"pattern": "^hunter2$"}}}
    said, text = failed({"schema": schema}, {"token": "hunter3"})
    assert "pattern (schema)" in said
    assert "hunter" not in said + text


def test_an_argument_is_hidden_where_an_error_repeats_it(salt: None) -> None:
    """A password that is an argument by its name, in a text that does not name it."""
    entry = Entry.model_validate({"id": "e", "task": "t", "kwargs": {"password": "hunter2"}})
    base = {"run": "r", "entry": "e", "attempt": 1, "task_id": "x", "task": "t", "state": "failed"}
    error = {"type": "ValueError", "message": "no user hunter2", "traceback": "of hunter2"}
    receipt = Receipt.model_validate({**base, "error": error, "log": ["tried hunter2"]})
    verdict = evaluate(entry, receipt, attempt=1)
    assert "ValueError: no user ***" in verdict.sentence
    assert "hunter2" not in verdict.sentence + explain(entry, receipt, verdict)
    shown = shown_receipt(receipt, secrets_of(entry))
    assert "hunter2" not in shown.model_dump_json()


def twice(text: str) -> str:
    """JSON as the text of a KeyError has it."""
    return str(KeyError(json.dumps([text])))


@pytest.mark.parametrize("write", [str, repr, json.dumps, quote, twice])
def test_an_argument_is_hidden_however_an_error_writes_it(
    write: Callable[[str], str], salt: None
) -> None:
    """With quotes, a backslash and letters that JSON escapes; in the worker, too."""
    password = "hun\"ter\\2 pässword'"
    entry = Entry.model_validate({"id": "e", "task": "t", "kwargs": {"password": password}})
    text = f"refused {write(password)} there"
    assert "***" in shown_text(text, secrets_of(entry))
    assert "ter" not in shown_text(text, secrets_of(entry))
    end = TaskResult("failed", error={"type": "E", "message": text, "traceback": None})
    request = SimpleNamespace(args=[], kwargs={"password": password})
    told, log = without_arguments(end, [text], request)
    assert told.error is not None
    assert "ter" not in f"{told.error['message']}{log}"


@pytest.mark.parametrize("size", [0, 30, 60, 90])
def test_an_argument_is_hidden_where_a_result_repeats_it(size: int, salt: None) -> None:
    """Also where a message has room for a part of the text alone."""
    password = "8f3a9c0d7b6e5f4a3b2c1d0e9f8a7b6c"
    fields: dict[str, JsonValue] = {"kwargs": {"password": password}}
    for note in ("x" * size + password, password + "x" * size):
        said = "".join(failed({"result": {"note": "ok"}}, {"note": note}, **fields))
        schema: JsonValue = {"properties": {"note": {"maxLength": 3}}}
        said += "".join(failed({"schema": schema}, {"note": note}, **fields))
        assert not any(password[n : n + 8] in said for n in range(0, 32, 4))


def test_what_was_cut_off_a_secret_is_hidden_in_a_verdict(salt: None) -> None:
    """In a sentence that others have written."""
    verdict = Verdict(
        verdict="forged", entry="e", sentence="it says 'a hunter...' and '...d words'"
    )
    shown = shown_verdict(verdict, ["hunter2 and words"])
    assert shown.sentence == "it says 'a ***...' and '...***'"


def test_receipts_that_contradict_one_another_show_no_part_of_a_secret(salt: None) -> None:
    """The results are redacted before they are cut."""
    base = {"run": "r", "entry": "e", "attempt": 1, "task_id": "x", "task": "t"}
    base |= {"state": "succeeded", "cpu": 1.0}
    both = [
        End(1, "x", Receipt.model_validate({**base, "result": f"{'y' * 50} ghp_{one * 30}"}))
        for one in "ab"
    ]
    said = phrase(_disagreement(both, by_failure=False))
    assert "differ" in said
    assert "aaaa" not in said


def test_the_words_of_a_secret_are_known(salt: None) -> None:
    """A text that is printed in parts is found by them; words that are shown are none of them."""
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEabcdefgh\nijklmnop==\n-----END RSA PRIVATE KEY-----"
    entry = Entry.model_validate(
        {
            "id": "e",
            "task": "t",
            "meta": {"note": f"innocent {key}"},
            "kwargs": {"token": "a bcdefghi"},
        }
    )
    words = pieces_of(entry)
    assert {"MIIEabcdefgh", "ijklmnop==", "bcdefghi"} <= set(words)
    assert "innocent" not in words
    assert pieces_of(Entry.model_validate({"id": "e", "task": "t", "args": ["innocent"]})) == []


def test_a_part_of_a_secret_beside_an_ellipsis_is_hidden() -> None:
    """As where pytest shows the beginning and the end of a long value of a variable."""
    text = "x = 'the hunt...ter2 is' ... and hunting ...7abc"
    assert without_cut(text, ["hunter2"]) == "x = 'the ***...*** is' ... and hunting ...7abc"


def test_digests_without_salt_are_left_out(salt: None) -> None:
    """Of a result that was changed: a short secret could be found by guessing."""
    base = {"run": "r", "entry": "e", "attempt": 1, "task_id": "x", "task": "t"}
    base |= {"state": "succeeded", "result_sha256": "0" * 64}
    secret = Receipt.model_validate({**base, "result": {"pin_token": "1234"}})
    assert shown_receipt(secret).result_sha256 is None
    plain = Receipt.model_validate({**base, "result": {"a": 1}})
    assert shown_receipt(plain) == plain
    known = Receipt.model_validate({**base, "args_sha256": "0" * 64})
    assert shown_receipt(known).args_sha256 is None  # an argument may be a registered secret


def test_who_wants_to_see_all_does(salt: None) -> None:
    """Entries, receipts and verdicts are shown as they are; addresses are not."""
    configure(is_on=False)
    said, text = failed({"result": {"password": "hunter2"}}, {"password": "hunter3"})
    assert "'hunter3' where 'hunter2' was expected" in said
    assert "hunter3" in text
    assert redact_url("redis://:hunter2@h/0") == "redis://:***@h/0"


WORDS = st.sampled_from(
    [
        *("password", "PassWord", "a_key", "Cookie", "sk-x", "SK-x", "eyJ", "://", "@", "\\u0041"),
        *("\u017f", "\u212a", "k_live_", "hooks.slack", "plain", "\n", "s3cr3t & more", "(x"),
    ]
)


@given(parts=st.lists(WORDS | st.text(max_size=5), max_size=5), values=st.sets(WORDS, max_size=2))
def test_both_ways_of_looking_for_signs_find_the_same(parts: list[str], values: set[str]) -> None:
    """The one is for short texts, the other for whole documents."""
    text = "".join(parts)
    texts.hidden_values.now = texts.Hidden()
    texts.add_literals(values)
    with_signs = shown.may_hold_secret(text)
    assert with_signs is texts.may_hold_secret(text)


@pytest.mark.ring(2)
def test_too_many_hidden_values_are_looked_for_one_by_one() -> None:
    """Where they cannot be searched for at once."""
    manifest_secret("x" * 3_000_000)
    assert shown.may_hold_secret("plain")
