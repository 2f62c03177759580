"""Statements: verified by signature, by the bytes of their subjects, and by judging again."""

from __future__ import annotations

import base64
import json
import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from residentkv.cli.main import main
from residentkv.report import dsse
from tests.lowering.site import Site
from tests.report.run import check_of

MAKE_KEY: dict[str, Callable[[], Any]] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


def write_keys(kind: str = "ed25519", name: str = "key") -> tuple[str, str]:
    """Write a key pair and return the names of the private and the public file."""
    private = MAKE_KEY[kind]()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    Path(f"{name}.pem").write_bytes(pem)
    Path(f"{name}.pub").write_bytes(public)
    return f"{name}.pem", f"{name}.pub"


@pytest.fixture
def statement(broken: Path) -> Path:
    """A statement about the broken trace; base64 of it is padded."""
    path = Path("statement.json")
    assert main(["audit", str(broken), "--format", "in-toto", "-o", str(path)]) == 10
    while path.stat().st_size % 3 == 0:
        path.write_text(path.read_text() + "\n")
    return path


@pytest.fixture
def envelope(statement: Path) -> Path:
    """The same, signed with key.pem."""
    private, _ = write_keys()
    assert main(["attest", "sign", str(statement), "--key", private, "-o", "envelope.json"]) == 0
    return Path("envelope.json")


def test_a_signed_statement_holds(envelope: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the public key it verifies, and says by whom it is signed and which bytes were compared."""
    assert main(["attest", "verify", str(envelope), "--key", "key.pub"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("signed by ") and "same broken/hard_protected.jsonl" in out


def test_every_byte_of_the_trace_counts(envelope: Path, broken: Path) -> None:
    """Any one bit of any one byte changed, at the start, the end or between, is exit 10."""
    raw = broken.read_bytes()
    for at in (0, 1, len(raw) // 3, len(raw) // 2, len(raw) - 2, len(raw) - 1):
        broken.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        assert main(["attest", "verify", str(envelope), "--key", "key.pub"]) == 10, at
    broken.write_bytes(raw + b"\n")
    assert main(["attest", "verify", str(envelope), "--key", "key.pub"]) == 10
    broken.write_bytes(raw)
    assert main(["attest", "verify", str(envelope), "--key", "key.pub"]) == 0


@pytest.mark.parametrize("kind", MAKE_KEY)
def test_keys_of_each_kind_sign(statement: Path, kind: str) -> None:
    """Ed25519, ECDSA and RSA; the private key is no public key."""
    private, public = write_keys(kind)
    assert main(["attest", "sign", str(statement), "--key", private, "-o", "e.json"]) == 0
    assert main(["attest", "verify", "e.json", "--key", public]) == 0
    assert main(["attest", "verify", "e.json", "--key", private]) == 2


def test_a_weak_key_does_not_count(
    statement: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An RSA key below 2048 bits is refused when signing, and when verifying what it signed all the same."""
    monkeypatch.setitem(MAKE_KEY, "weak", lambda: rsa.generate_private_key(65537, 1024))
    private, public = write_keys("weak", "weak")
    assert main(["attest", "sign", str(statement), "--key", private, "-o", "e.json"]) == 2
    assert "an RSA key of 1024 bits" in capsys.readouterr().err and not Path("e.json").exists()
    with monkeypatch.context() as patched:
        patched.setattr(dsse, "MIN_RSA_BITS", 1024)
        assert main(["attest", "sign", str(statement), "--key", private, "-o", "e.json"]) == 0
    assert main(["attest", "verify", "e.json", "--key", public]) == 2
    assert "an RSA key of 1024 bits" in capsys.readouterr().err


def test_another_key_did_not_sign(envelope: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 10; beside the right key a wrong one does no harm."""
    write_keys(name="other")
    assert main(["attest", "verify", str(envelope), "--key", "other.pub"]) == 10
    assert "RKV402" in capsys.readouterr().err
    assert main(["attest", "verify", str(envelope), "--key", "other.pub", "--key", "key.pub"]) == 0


def change_payload(plain: dict[str, Any]) -> None:
    payload = json.loads(base64.b64decode(plain["payload"]))
    payload["predicate"]["report"]["traces"][0]["verdict"] = "conforming"
    plain["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()


def change_idle_bits(plain: dict[str, Any]) -> None:
    """Make the statement end within three bytes and turn the bits of its last letter that stand for nothing."""
    padding = len(plain["payload"]) - len(plain["payload"].rstrip("="))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    assert padding, "this statement has no idle bits"
    last = letters[letters.index(plain["payload"][-padding - 1]) ^ 1]
    plain["payload"] = plain["payload"][: -padding - 1] + last + "=" * padding


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], int]] = {
    "another payload": (change_payload, 10),
    "no signature": (lambda e: e.update(signatures=[]), 10),
    "idle bits": (change_idle_bits, 11),
    "a key with another name": (lambda e: e.update(payloadtype=e.pop("payloadType")), 11),
    "another type": (lambda e: e.update(payloadType="text/plain"), 11),
    "payload that is no base64": (lambda e: e.update(payload="*"), 11),
    "no payload": (lambda e: e.pop("payload"), 11),
    "signatures that are text": (lambda e: e.update(signatures="x"), 11),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_envelope_is_never_believed(envelope: Path, name: str) -> None:
    """Whatever is damaged, the exit code is no pass and no internal error."""
    change, code = DAMAGE[name]
    plain = json.loads(envelope.read_text())
    change(plain)
    envelope.write_text(json.dumps(plain))
    assert main(["attest", "verify", str(envelope), "--key", "key.pub"]) == code


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], int, str]] = {
    "no subject": (lambda s: s.update(subject=[]), 11, "RKV401"),
    "another subject": (lambda s: s["subject"][0]["digest"].update(sha256="0" * 64), 11, "RKV401"),
    "another predicate": (lambda s: s.update(predicateType="urn:x:y"), 11, "RKV401"),
    "a predicate without end": (lambda s: s.update(predicateType="u" * 1_000_000), 11, "RKV401"),
    "another report": (lambda s: s["predicate"]["report"].update(schema="residentkv.suite/1"), 11, "RKV401"),
    "no traces": (lambda s: s["predicate"]["report"].update(traces=[]), 11, "RKV401"),
    "a better verdict": (lambda s: s["predicate"]["report"]["traces"][0].update(verdict="conforming"), 10, "RKV404"),
    "findings left out": (lambda s: s["predicate"]["report"]["traces"][0].update(claims=[]), 10, "RKV404"),
}


def rename_claim(statement: dict[str, Any]) -> None:
    statement["predicate"]["report"]["traces"][0]["claims"][0]["owner_scope"] = "somebody else"


CHANGES["somebody else's claim"] = (rename_claim, 10, "RKV404")
CHANGES["fewer events"] = (lambda s: s["predicate"]["report"]["traces"][0].update(events=1), 10, "RKV404")


def test_the_report_is_about_the_bytes_at_its_own_path(statement: Path, broken: Path) -> None:
    """A report that names another trace, one that is judged alike, is not about the subject that was compared."""
    other = Path("other.jsonl")
    other.write_bytes(broken.read_bytes().replace(b'"wall_ns":1000,', b'"wall_ns":1001,'))
    assert other.read_bytes() != broken.read_bytes()
    plain = json.loads(statement.read_text())
    plain["predicate"]["report"]["traces"][0]["path"] = str(other)
    statement.write_text(json.dumps(plain))
    assert main(["attest", "verify", str(statement), "--unsigned"]) == 10


@pytest.mark.parametrize("name", ["a\0b", "residentkv/\0", "x" * 5000, "pipe", "-", "", "/dev/zero"])
def test_a_name_that_is_no_file_is_a_missing_subject(
    statement: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a subject and as a trace of the report: exit 3 and one line; a pipe is not waited for."""
    os.mkfifo("pipe")
    plain = json.loads(statement.read_text())
    plain["predicate"]["report"]["traces"][0]["path"] = name
    for _ in range(2):
        statement.write_text(json.dumps(plain))
        assert main(["attest", "verify", str(statement), "--unsigned"]) == 3
        assert "unexpected" not in "".join(capsys.readouterr())
        plain["subject"][0]["name"] = name


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_statement_says_is_judged_again(statement: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A bare statement that says something else than its trace shows does not hold, although the bytes are the same."""
    assert main(["attest", "verify", str(statement), "--unsigned"]) == 0
    change, code, rule = CHANGES[name]
    plain = json.loads(statement.read_text())
    change(plain)
    statement.write_text(json.dumps(plain))
    capsys.readouterr()
    assert main(["attest", "verify", str(statement), "--unsigned"]) == code
    told = "".join(capsys.readouterr())
    assert rule in told and len(told) < 2_000


def test_the_predicate_type_is_ours_to_give(statement: Path) -> None:
    """It is a UUID, which needs no domain, and the page of the formats says what it is."""
    kind = json.loads(statement.read_text())["predicateType"]
    assert uuid.UUID(kind).urn == kind
    page = Path(__file__).parents[2] / "docs" / "formats.md"
    assert f"The predicate type is `{kind}`" in page.read_text()


def test_nobody_is_believed_by_accident(statement: Path, envelope: Path) -> None:
    """Without key or --unsigned, with both, or with the one that does not fit, it is a usage error."""
    for arguments in (
        [str(envelope)],
        [str(envelope), "--unsigned"],
        [str(statement), "--key", "key.pub"],
        [str(envelope), "--key", "key.pub", "--unsigned"],
    ):
        assert main(["attest", "verify", *arguments]) == 2


def test_a_missing_subject_is_no_input(statement: Path, broken: Path) -> None:
    """Exit 3; with --root it is found where it lies now."""
    moved = Path("elsewhere") / broken
    moved.parent.mkdir(parents=True)
    broken.rename(moved)
    assert main(["attest", "verify", str(statement), "--unsigned"]) == 3
    assert main(["attest", "verify", str(statement), "--unsigned", "--root", "elsewhere"]) == 0


def test_a_check_is_about_its_descriptor(site: Site) -> None:
    """A changed descriptor does not verify; one of the library is found wherever the package is installed."""
    assert main([*check_of(site), "--format", "in-toto", "-o", "s.json"]) == 10
    assert main(["attest", "verify", "s.json", "--unsigned"]) == 0
    site.descriptor.write_text(site.descriptor.read_text() + "# changed\n")
    assert main(["attest", "verify", "s.json", "--unsigned"]) == 10
    assert main(["check", "--runtime", "reference", "--format", "in-toto", "-o", "l.json"]) == 10
    (subject,) = json.loads(Path("l.json").read_text())["subject"]
    assert subject["name"].startswith("residentkv/descriptors/reference/")
    assert main(["attest", "verify", "l.json", "--unsigned"]) == 0


def test_without_the_extra_a_signature_is_not_checked(
    envelope: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is a usage error that names the extra, never a pass."""
    for name in [m for m in sys.modules if m.startswith("securesystemslib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "securesystemslib", None)
    assert main(["attest", "verify", str(envelope), "--key", "key.pub"]) == 2
    assert "extra 'sign'" in capsys.readouterr().err
