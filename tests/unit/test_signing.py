"""Keys, envelopes and statements: what is signed holds for others, and nothing else holds."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_manifest import signing
from pytest_manifest.errors import SigningError
from pytest_manifest.manifest import check_manifest, manifest_digest
from tests.unit.cli_support import as_json, manifest, refusal

ENTRY = b'{"id": "a", "task": "t"}\n'


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The files of a private and a public key."""
    private_pem, public_pem = signing.generate()
    private, public = tmp_path / "k.key", tmp_path / "k.pub"
    signing.write_key(private, private_pem, 0o600)
    signing.write_key(public, public_pem.encode(), 0o644)
    return private, public


def signed(folder: Path, private: Path, text: bytes = ENTRY) -> Path:
    """A manifest with its signature."""
    path = folder / "m.jsonl"
    path.write_bytes(text)
    summary = check_manifest(path)
    signer = signing.read_signer(str(private), "--key")
    signing.sign_order(path, summary.entries, summary.sha256, signer)
    return path


def check(path: Path, public: Path) -> None:
    signing.check_order(path, manifest_digest(path), signing.read_verifier(str(public), "--key"))


def test_what_dsse_signs_is_as_its_specification_shows() -> None:
    """The example of the protocol's own document."""
    assert (
        signing.pae("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_an_order_that_is_signed_holds_wherever_it_lies(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    """Its name is no part of what is promised; several keys may be trusted."""
    path = signed(tmp_path, pair[0])
    moved = tmp_path / "other.jsonl"
    signing.signature_of(path).rename(signing.signature_of(moved))
    path.rename(moved)
    both = tmp_path / "both.pub"
    both.write_text(signing.generate()[1] + pair[1].read_text())
    check(moved, both)


@pytest.mark.parametrize(
    "change",
    [ENTRY + b'{"id": "b", "task": "t"}\n', ENTRY.replace(b'"t"', b'"u"'), b'{"manifest": 1}\n'],
    ids=["added", "replaced", "emptied"],
)
def test_an_order_that_was_changed_is_told(
    tmp_path: Path, pair: tuple[Path, Path], change: bytes
) -> None:
    """Each byte counts, those of the header too."""
    path = signed(tmp_path, pair[0])
    path.write_bytes(change)
    with pytest.raises(SigningError, match="was changed since it was signed"):
        check(path, pair[1])


def test_a_header_that_was_added_is_a_change(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    """Though all entries are as they were."""
    path = signed(tmp_path, pair[0])
    path.write_bytes(b'{"manifest": 1, "rerun": true}\n' + ENTRY)
    with pytest.raises(SigningError, match="was changed"):
        check(path, pair[1])


def test_entries_that_were_read_before_the_file_was_put_back_are_told(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    """The signed statement has the digest of the entries, and those that were read are others."""
    path = signed(tmp_path, pair[0])
    with pytest.raises(SigningError, match="was changed"):
        signing.check_order(path, "0" * 64, signing.read_verifier(str(pair[1]), "--key"))


def envelope_of(payload: object, private: Path, kind: str = signing.PAYLOAD_TYPE) -> bytes:
    signer = signing.read_signer(str(private), "--key")
    return json.dumps(signing.seal(kind, json.dumps(payload).encode(), signer)).encode()


def test_nothing_else_that_the_key_has_signed_is_an_order(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    """Another statement, another type of payload, what is no envelope: each has its phrase."""
    path = signed(tmp_path, pair[0])
    place = signing.signature_of(path)
    good = json.loads(base64.b64decode(json.loads(place.read_bytes())["payload"]))
    two = {**good, "subject": good["subject"] * 2}
    others = {
        "no work order": envelope_of({**good, "predicateType": "https://slsa.dev/x"}, pair[0]),
        "no DSSE envelope of": envelope_of(good, pair[0], "application/json"),
        "names no SHA-256": envelope_of(two, pair[0]),
        "is no DSSE envelope": b"{}",
        "none of its signatures": json.dumps(
            {**json.loads(place.read_bytes()), "signatures": [{"sig": "AAAA"}, 5, {"sig": 5}]}
        ).encode(),
    }
    for phrase, text in others.items():
        place.write_bytes(text)
        with pytest.raises(SigningError, match=phrase):
            check(path, pair[1])
    place.write_bytes(b"[" * 100_000)
    with pytest.raises(SigningError, match="no DSSE envelope"):
        check(path, pair[1])


def test_a_signature_of_another_key_or_none_is_told(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    """With what to do next."""
    path = signed(tmp_path, pair[0])
    other = tmp_path / "other.pub"
    signing.write_key(other, signing.generate()[1].encode(), 0o644)
    with pytest.raises(SigningError, match="none of its signatures is of a key that is trusted"):
        check(path, other)
    signing.signature_of(path).unlink()
    with pytest.raises(SigningError, match=r"is not signed .* 'manifest sign .*m\.jsonl'"):
        check(path, pair[1])


def test_a_private_key_is_its_owners_alone_and_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the umask; and nothing that is printed has it."""
    monkeypatch.chdir(tmp_path)
    before = os.umask(0)
    try:
        printed = manifest("keygen")
    finally:
        os.umask(before)
    private = tmp_path / "manifest.key"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    text = private.read_text()
    assert text.splitlines()[1] not in printed
    assert "never overwritten" in refusal("keygen")
    (tmp_path / "manifest.pub").unlink()
    assert "never overwritten" in refusal("keygen")
    assert private.read_text() == text
    assert "in the same file" in refusal("keygen", "x.pub")


def test_a_signature_is_written_through_no_link(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    """Where others can write to the manifest's folder, they could have laid one there."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".m.jsonl.sig.{os.getpid()}").symlink_to(victim)
    check(signed(tmp_path, pair[0]), pair[1])
    assert victim.read_text() == "mine"


def test_a_private_key_that_others_can_read_is_not_used(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    """It is told how to mend that."""
    pair[0].chmod(0o640)
    with pytest.raises(SigningError, match="others can read this private key"):
        signed(tmp_path, pair[0])


def test_keys_come_from_the_environment_as_well(
    tmp_path: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the name of a file, or as the text itself, which no message repeats."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.jsonl").write_bytes(ENTRY)
    monkeypatch.setenv(signing.SIGNING_KEY_VARIABLE, pair[0].read_text())
    monkeypatch.setenv(signing.PUBLIC_KEY_VARIABLE, str(pair[1]))
    manifest("sign", "m.jsonl")
    assert manifest("verify", "m.jsonl") == "m.jsonl: its signature holds\n"
    (tmp_path / "m.jsonl").write_bytes(b"")
    assert "was changed" in str(as_json("verify", "m.jsonl", status=1)["files"])
    monkeypatch.setenv(signing.SIGNING_KEY_VARIABLE, "-----BEGIN PRIVATE KEY-----\nsecret\n")
    (tmp_path / "m.jsonl").write_bytes(ENTRY)
    told = refusal("sign", "m.jsonl")
    assert "MANIFEST_SIGNING_KEY: holds no private Ed25519 key" in told
    assert "secret" not in told
    for text in ("MC4CAQAwBQYDK2VwBCIEIPsecret", "a/secret" * 1000):
        monkeypatch.setenv(signing.SIGNING_KEY_VARIABLE, text)
        told = refusal("sign", "m.jsonl")
        assert "MANIFEST_SIGNING_KEY: names no file that is there" in told
        assert "secret" not in told
    monkeypatch.delenv(signing.SIGNING_KEY_VARIABLE)
    assert "name a private key by --key=FILE" in refusal("sign", "m.jsonl")


def test_a_manifest_is_signed_by_the_key_that_was_made_here(
    tmp_path: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no other one is named; to check a signature the public one has to be named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(signing.SIGNING_KEY_VARIABLE, raising=False)
    monkeypatch.delenv(signing.PUBLIC_KEY_VARIABLE, raising=False)
    (tmp_path / "m.jsonl").write_bytes(ENTRY)
    made = as_json("keygen")
    assert as_json("sign", "m.jsonl")["key_id"] == made["key_id"]
    assert "name the public keys by --key=FILE" in refusal("verify", "m.jsonl")
    monkeypatch.setenv(signing.SIGNING_KEY_VARIABLE, str(pair[0]))
    assert as_json("sign", "m.jsonl")["key_id"] != made["key_id"]


def test_a_manifest_with_placeholders_is_not_signed(
    tmp_path: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest would refuse it, and its values would be written after somebody has signed."""
    monkeypatch.chdir(tmp_path)
    unwritten = b'{"id": "b", "task": "t", "kwargs": {"n": "<fill in: int>"}}\n'
    (tmp_path / "m.jsonl").write_bytes(ENTRY + unwritten)
    said = refusal("sign", f"--key={pair[0]}", "m.jsonl")
    assert "m.jsonl:2: entry 'b': kwargs.n is still '<fill in: int>'; write its value" in said
    assert not (tmp_path / "m.jsonl.sig").exists()


def test_what_is_no_key_is_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    """Of another kind, with a password, the wrong half, or not there."""
    more = pair[1].read_text() + "-----END PUBLIC KEY-----"
    for text in ("", "nonsense", pair[0].read_text(), more):
        (tmp_path / "x.pub").write_text(text)
        with pytest.raises(SigningError, match="holds no public Ed25519 key"):
            signing.read_verifier(str(tmp_path / "x.pub"), "--key")
    (tmp_path / "x.key").write_text(pair[1].read_text())
    (tmp_path / "x.key").chmod(0o600)
    with pytest.raises(SigningError, match="holds no private Ed25519 key"):
        signing.read_signer(str(tmp_path / "x.key"), "--key")
    with pytest.raises(SigningError, match="cannot be read"):
        signing.read_signer(str(tmp_path / "none.key"), "--key")


def test_cryptography_is_imported_only_where_a_key_is_used() -> None:
    """Nor needed: an idle session, a worker and the command do without."""
    code = (
        "import sys, pytest_manifest.signing, pytest_manifest.signing\n"
        "import pytest_manifest.cli.main, pytest_manifest.plugin, pytest_manifest.worker\n"
        "sys.exit('cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_cryptography_it_is_told_what_to_install(tmp_path: Path) -> None:
    """In a sentence."""
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from pytest_manifest.cli.main import main; sys.argv = ['manifest', 'keygen']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install pytest-celery-manifest[sign]" in done.stderr
