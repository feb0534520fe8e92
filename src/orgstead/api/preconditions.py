"""Entity tags (RFC 9110 §8.8.3, §13): which state of a resource a client has seen, and whether it still holds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from orgstead.errors import PreconditionFailed
from orgstead.model import Organization, Placement

NO_VERSION = 0
"""A version that no organization has: the first is 1."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


def etag(organization: Organization, placement: Placement) -> bytes:
    """Changes whenever the shown organization does: what is shown is in these two rows, and each has a version."""
    return b'"%d.%d"' % (organization.version, placement.version)


def dated_tag(version: int, created_at: datetime) -> bytes:
    """The tag of a record or collection: what is removed and made again under its name begins at version 1 again."""
    return b'"%d.%x"' % (version, (created_at - _EPOCH) // _MILLISECOND)


def require_match(fields: Iterable[bytes], current: bytes) -> None:
    """Raise ``PreconditionFailed`` unless If-Match names the current tag, by strong comparison."""
    text = b",".join(fields).strip()
    if text and text != b"*" and current not in (tag.strip() for tag in text.split(b",")):
        raise PreconditionFailed


def content_tag(body: bytes) -> bytes:
    """The tag of what is read only, and so needs no version: its content as it is sent."""
    return b'"%s"' % hashlib.blake2b(body, digest_size=16).hexdigest().encode("ascii")


def version_if_matched(fields: Iterable[bytes], organization: Organization, placement: Placement) -> int | None:
    """The version that a change must find, when If-Match is given; ``fields`` are that header's values.

    Raises ``PreconditionFailed`` where none of the tags is the current one by strong comparison, and so for a weak or
    a malformed tag too: a condition that cannot be understood must not be taken for true.
    """
    text = b",".join(fields).strip()
    if not text or text == b"*":
        return None
    if etag(organization, placement) in (tag.strip() for tag in text.split(b",")):
        return organization.version
    raise PreconditionFailed


def is_unchanged(fields: Iterable[bytes], current: bytes) -> bool:
    """Does If-None-Match name the current tag, by weak comparison? Then a read may answer 304."""
    text = b",".join(fields).strip()
    return text == b"*" or current in (tag.removeprefix(b"W/") for tag in _TAG.findall(text))
