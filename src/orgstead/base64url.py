"""Base64url without padding (RFC 4648 section 5), in the one spelling that each value has."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode


def to_base64url(data: bytes) -> str:
    """The bytes as text of ``A-Z a-z 0-9 - _``."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    """The bytes that ``to_base64url`` gives exactly this text for.

    Raises ``ValueError`` for anything else. Decoders usually skip foreign characters and ignore the unused bits of the
    last one, so that one value has many spellings; comparing with the encoding refuses them all.
    """
    data = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    if to_base64url(data) != text:
        raise ValueError("not canonical base64url")
    return data
