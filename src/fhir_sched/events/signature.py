"""Signatures of webhooks as Standard Webhooks has them: HMAC-SHA256 over id, time and body (version v1).

Knows no connection.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

_PREFIX: Final = "whsec_"
_SHORTEST: Final = 24


def keys(secret: str) -> tuple[bytes, ...]:
    """The keys of a setting: one secret, or several separated by blanks while one takes another's place.

    `whsec_` and base64, as the specification writes them; any other text is the key itself. Raises ValueError.

    >>> keys("whsec_c2VjcmV0 plain")
    (b'secret', b'plain')
    """
    return tuple(map(_key, secret.split()))


def _key(text: str) -> bytes:
    encoded = text.removeprefix(_PREFIX)
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        if text.startswith(_PREFIX):
            raise ValueError(f"what stands behind {_PREFIX} must be base64") from None
        return text.encode()
    return key if text.startswith(_PREFIX) or len(key) >= _SHORTEST else text.encode()


def headers(secrets: tuple[bytes, ...], message_id: str, at: int, body: bytes) -> dict[str, str]:
    """The three headers of a message that is sent at that time (seconds since 1970); without a key no signature."""
    found = {"webhook-id": message_id, "webhook-timestamp": str(at)}
    if secrets:
        signed = b"%b.%d.%b" % (message_id.encode(), at, body)
        found["webhook-signature"] = " ".join(
            f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}" for key in secrets
        )
    return found
