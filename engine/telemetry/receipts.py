"""Signs receipts and checks them: Ed25519 (RFC 8032) over canonical JSON (RFC 8785).

No number in a signed text has a fraction, for that is the one part of RFC 8785 in which languages differ: such a number
is a string of its shortest form. Everything else of it is what ``json.dumps`` with sorted keys and without spaces
writes, as long as the names of fields are ASCII, which ours are.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from engine.config.settings import RECEIPT_KEY_PREFIX
from engine.model.errors import EngineError
from engine.model.receipt import PublicKey, PublicKeys, ReceiptStatement, SignedReceipt

ALGORITHM = "Ed25519"
KEY_BYTES = 32
SIGNATURE_BYTES = 64


class ReceiptError(EngineError):
    """A receipt, or a public key, that does not hold; the message says what is wrong."""


class ReceiptSigner:
    """The service's signing keys: the first signs, the others did before."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        """
        Args:
            secrets: values of RECEIPT_KEY; at least one.
        """
        private = [
            Ed25519PrivateKey.from_private_bytes(base64.b64decode(secret.removeprefix(RECEIPT_KEY_PREFIX)))
            for secret in secrets
        ]
        self._private = private[0]
        self.public = PublicKeys(keys=tuple(_public_key(key.public_key().public_bytes_raw()) for key in private))

    def sign(self, statement: ReceiptStatement) -> SignedReceipt:
        """The receipt of a final task."""
        said: dict[str, Any] = _without_fractions(msgspec.to_builtins(statement))
        signature = self._private.sign(canonical(said))
        return SignedReceipt(
            receipt=said,
            algorithm=ALGORITHM,
            kid=self.public.keys[0].kid,
            signature=base64.b64encode(signature).decode("ascii"),
        )


def canonical(said: Mapping[str, Any]) -> bytes:
    """The bytes that are signed."""
    return json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def verify_receipt(text: bytes, keys: PublicKeys) -> dict[str, Any]:
    """What a receipt says, after it was held against the keys of a service.

    Args:
        text: the whole answer of ``GET /task/{task_id}/receipt``.
        keys: those that you trust; never those that came with the receipt.

    Raises:
        ReceiptError: it is no receipt, another key signed it, or it was changed.
    """
    signed = _read(text)
    if signed.algorithm != ALGORITHM:
        raise ReceiptError(f"its algorithm is {signed.algorithm[:40]!r}, and receipts are signed by {ALGORITHM}")
    key = next((key for key in keys.keys if key.kid == signed.kid), None)
    if key is None:
        known = ", ".join(key.kid for key in keys.keys)
        raise ReceiptError(f"the key {signed.kid[:64]!r} signed it, and the public key given is {known}")
    try:
        signature = _decode(signed.signature, SIGNATURE_BYTES)
        Ed25519PublicKey.from_public_bytes(_raw(key)).verify(signature, canonical(signed.receipt))
    except (ValueError, InvalidSignature):
        raise ReceiptError("its signature does not hold: a field of it was changed, or another key signed it") from None
    return signed.receipt


def read_public_keys(text: str) -> PublicKeys:
    """Public keys, from the answer of ``GET /.well-known/unityai-receipt-keys`` or from the ``x`` of one of them.

    Raises:
        ReceiptError: it is neither.
    """
    try:
        if text.lstrip().startswith("{"):
            found = msgspec.json.decode(text, type=PublicKeys)
            # the thumbprint is worked out again: a key under another one's name would be a way in
            return PublicKeys(keys=tuple(_public_key(_raw(key)) for key in found.keys if key.crv == ALGORITHM))
        return PublicKeys(keys=(_public_key(_raw(PublicKey(x=text.strip(), kid=""))),))
    except ValueError:
        raise ReceiptError(
            "the public key is neither the answer of GET /.well-known/unityai-receipt-keys nor the `x` of a key in it"
        ) from None


def _read(text: bytes) -> SignedReceipt:
    try:
        # msgspec would take the last of two fields of one name, where another reader takes the first
        fields = json.loads(text, object_pairs_hook=_distinct)
        return msgspec.convert(fields, SignedReceipt)
    except (ValueError, RecursionError) as error:
        raise ReceiptError(f"it is no receipt: {error}") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is in it twice")
    return found


def _without_fractions(value: Any) -> Any:
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return {name: _without_fractions(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_fractions(part) for part in value]
    return value


def _public_key(raw: bytes) -> PublicKey:
    x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
    thumbprint = hashlib.sha256(canonical({"crv": ALGORITHM, "kty": "OKP", "x": x})).digest()
    return PublicKey(x=x, kid=base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode("ascii"))


def _raw(key: PublicKey) -> bytes:
    return _decode(key.x.replace("-", "+").replace("_", "/") + "=", KEY_BYTES)


def _decode(text: str, length: int) -> bytes:
    """Base64 of that many bytes, in its one form: a last letter with other unused bits would be a second one."""
    raw = base64.b64decode(text, validate=True)
    if len(raw) != length or base64.b64encode(raw).decode("ascii") != text:
        raise ValueError(text)
    return raw
