"""Signed statements: DSSE envelopes, by securesystemslib. The only module that imports it; it is the extra `sign`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residentkv.errors import InputError, UsageError
from residentkv.report.codes import NOT_A_STATEMENT, SIGNATURE
from residentkv.report.intoto import PAYLOAD_TYPE

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

MIN_RSA_BITS = 2048
"""What NIST SP 800-131A asks of a key whose signatures count; a shorter one can be forged."""

EXTRA = "install residentkv with its extra 'sign'"


def sign_payload(payload: bytes, key: bytes, path: str) -> dict[str, Any]:
    """Return an envelope with one signature over a statement.

    Args:
        payload: the statement as it is stored; these bytes are signed.
        key: a private key, PEM (PKCS 8): Ed25519, ECDSA on a NIST curve, or RSA.
        path: how to name the key in errors.

    Raises:
        UsageError: the extra is not installed, or the key is none that can sign.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from securesystemslib.dsse import Envelope
        from securesystemslib.signer import CryptoSigner
    except ImportError as e:
        raise UsageError(f"found no {e.name}, expected it for signatures; {EXTRA}") from None
    try:
        # Whatever the key turns out to be, the signer says whether it can sign with it.
        private = load_pem_private_key(key, None)
        _check_strength(private)
        signer = CryptoSigner(private)
    except (ValueError, TypeError, UnsupportedAlgorithm, AttributeError) as e:
        raise UsageError(f"{path}: found no private key that can sign ({e}), expected PEM without a password") from None
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(signer)
    signed: dict[str, Any] = envelope.to_dict()
    return signed


def open_envelope(envelope: dict[str, Any], keys: Sequence[Path], path: str) -> tuple[bytes, str]:
    """Return the payload of an envelope and the id of a key that signed it.

    Args:
        envelope: the decoded JSON.
        keys: files with public keys, PEM; one of them has to have signed.
        path: how to name the envelope in errors.

    Raises:
        UsageError: the extra is not installed, or a key cannot be read.
        InputError: RKV401, it is no envelope of a statement.
        SignatureError: none of the keys made a signature over it.
    """
    try:
        from securesystemslib.dsse import Envelope
        from securesystemslib.exceptions import Error
    except ImportError as e:
        raise UsageError(f"found no {e.name}, expected it for signatures; {EXTRA}") from None
    public = [_public_key(key) for key in keys]
    try:
        payload = envelope["payload"]
        if base64.b64encode(base64.b64decode(payload, validate=True)).decode() != payload:
            raise ValueError("the payload is base64 with bits that stand for nothing")
        opened = Envelope.from_dict(envelope)
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error, Error) as e:
        raise InputError(f"found no DSSE envelope ({e!r})", path=path, code=NOT_A_STATEMENT.code) from None
    if opened.payload_type != PAYLOAD_TYPE:
        message = f"found a payload of type {opened.payload_type[:60]!r}, expected {PAYLOAD_TYPE}"
        raise InputError(message, path=path, code=NOT_A_STATEMENT.code)
    try:
        accepted = opened.verify(list(public), 1)
    except (Error, ValueError) as e:
        raise SignatureError(f"{path}: {SIGNATURE.code} no given key signed this statement: {e}") from None
    return opened.payload, next(iter(accepted))


class SignatureError(UsageError):
    """A signature is not there, or is not by a given key; the statement is not believed."""

    exit_code = 10


def _check_strength(key: object) -> None:
    """Check that a key is not one that others can find out.

    Raises:
        ValueError: it is.
    """
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

    if isinstance(key, RSAPrivateKey | RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise ValueError(f"an RSA key of {key.key_size} bits, which is not at least {MIN_RSA_BITS}")


def _public_key(path: Path) -> SSlibKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.exceptions import Error
    from securesystemslib.signer import SSlibKey

    from residentkv.files import read_input

    raw = read_input(path)
    try:
        public = load_pem_public_key(raw)
        _check_strength(public)
        return SSlibKey.from_crypto(public)
    except (ValueError, TypeError, UnsupportedAlgorithm, Error) as e:
        raise UsageError(f"{path}: found no public key ({e}), expected PEM") from None
