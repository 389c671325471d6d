"""Signatures as Standard Webhooks has them, so that its libraries verify ours.

webhook-id: msg_...                 the same for every attempt: a receiver that has seen it is done
webhook-timestamp: 1764100000       of this attempt; receivers refuse one that is minutes old
webhook-signature: v1,<base64 of HMAC-SHA256 over "id.timestamp.body">
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

from flux_engine.gateway.security.secret import derived

PREFIX: Final = "whsec_"


def secret_of(user: str, gateway_secret: bytes) -> str:
    """The secret that a user's deliveries are signed with, as its receiver configures it."""
    return PREFIX + base64.b64encode(derived(gateway_secret, f"webhooks of {user}")).decode()


def signed_headers(secret: str, *, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """What goes with `body`. `secret` is one of `secret_of`."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
