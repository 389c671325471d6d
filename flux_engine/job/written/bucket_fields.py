"""What names a bucket, as people paste it: endpoint, name, region and keys, of a job's `s3Config` or of the settings.

Each function returns the value to use or raises ValueError, whose text says what is right and holds nothing of the
value. What passes here can be signed and sent; whether the bucket exists is another question (results/trial.py).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from flux_engine.job.validation import shown_name

S3_CONFIG: Final = ("endpointUrl", "accessId", "accessSecret", "bucketName", "region")
_INVISIBLE: Final = "\ufeff\u200b\u200c\u200d\u2060"
_SENDABLE: Final = re.compile(r"[\x21-\x7e]*")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_REGION: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_TEMPLATE: Final = re.compile(r"\{\{.*\}\}")
MAX_CHARACTERS: Final = 2048


def trimmed(text: str) -> str:
    """`text` without the blanks, line breaks and invisible characters that copying puts around a value."""
    return text.strip(_INVISIBLE + " \t\r\n\f\v\u00a0")


def s3_config_warnings(config: object) -> list[str]:
    """One that names what a job's `s3Config` has besides its fields, the first few of it: a misspelt region would be
    the default one without a word."""
    unread = [shown_name(name) for name in config if name not in S3_CONFIG] if isinstance(config, Mapping) else []
    if not unread:
        return []
    named = ", ".join(f"`{name}`" for name in unread[:3])
    return [f"`s3Config` has no {named}, which had no effect; it takes {', '.join(S3_CONFIG)}"]


def filled_in(text: str) -> str:
    """A secret, and not the name of one that RunPod would have put here."""
    if _TEMPLATE.fullmatch(text):
        raise ValueError("is a template that was not filled in; create the secret that it names")
    return text


def sendable(text: str) -> str:
    """A key or token that a request header can carry."""
    filled_in(text)
    if text[:1] == text[-1:] and text[:1] in ('"', "'"):
        raise ValueError("stands in quotation marks; leave them out")
    if text.lower().startswith("bearer "):
        raise ValueError("begins with `Bearer`; set the token alone")
    if not _SENDABLE.fullmatch(text) or len(text) > MAX_CHARACTERS:
        raise ValueError("holds a blank, a line break or a character beyond ASCII; paste the value alone")
    return text


def valid_bucket(text: str) -> str:
    if "://" in text or "/" in text:
        raise ValueError("must be the bucket's name alone, 3 to 63 characters, without s3:// and without a folder")
    if not _NAME.fullmatch(text) or ".." in text:
        raise ValueError(
            "must be 3 to 63 letters, digits, dots, hyphens or underscores; send the name that the store lists"
        )
    return text


def valid_region(text: str) -> str:
    """Regions are written in small letters everywhere."""
    if not _REGION.fullmatch(text.lower()):
        raise ValueError("must be letters, digits and hyphens, such as us-east-1, or auto")
    return text.lower()


def valid_endpoint(text: str) -> str:
    """An http or https URL that boto3 accepts; a path is kept."""
    if "://" not in text:
        raise ValueError("must be an http or https URL; put https:// in front of it")
    if not _SENDABLE.fullmatch(text) or "\\" in text or len(text) > MAX_CHARACTERS:
        raise ValueError("must be a URL in ASCII without blanks")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("must be a URL with a port from 1 to 65535, or without one") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http or https URL")
    if parts.username or parts.password or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be a URL without a user, a query or a fragment")
    if port == 0 or not _is_host(parts.hostname):
        raise ValueError("must name a host of letters, digits, dots and hyphens; for an underscore use the IP address")
    return text


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            return ipaddress.IPv6Address(host).scope_id is None
        except ValueError:
            return False
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split("."))
