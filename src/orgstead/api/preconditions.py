"""Entity tags (RFC 9110 §8.8.3, §13): which state of a resource a client has seen, and whether it still holds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from orgstead.errors import PreconditionFailed
from orgstead.model import Organization, Placement

NO_VERSION = 0
"""A version that no organization has: the first is 1."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_TAGS = re.compile(rb"(?:%b)(?:[ \t]*,[ \t]*(?:%b))*" % (_TAG.pattern, _TAG.pattern))


def etag(organization: Organization, placement: Placement) -> bytes:
    """Changes whenever the shown organization does: what is shown is in these two rows, and each has a version."""
    return b'"%d.%d"' % (organization.version, placement.version)


def dated_tag(version: int, created_at: datetime) -> bytes:
    """The tag of a record: what is removed and made again under its id begins at version 1 again."""
    return b'"%d.%x"' % (version, (created_at - _EPOCH) // _MILLISECOND)


def content_tag(body: bytes) -> bytes:
    """The tag of what has no version of its own, or none that goes with what is shown: its content as it is sent."""
    return b'"%s"' % hashlib.blake2b(body, digest_size=16).hexdigest().encode("ascii")


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a request that changes a resource asks of its state: the values of If-Match and of If-None-Match.

    A condition that cannot be understood, an empty one too, must not be taken for true: it fails.
    """

    match: Sequence[bytes] = ()
    none_match: Sequence[bytes] = ()

    def __bool__(self) -> bool:
        """Is there any?"""
        return bool(self.match or self.none_match)

    def require(self, current: bytes | None) -> None:
        """Raise ``PreconditionFailed`` unless the resource may be changed; ``current`` is its tag, None without one.

        If-Match compares strongly, If-None-Match weakly.
        """
        if self.match:
            text = b",".join(self.match).strip()
            if current is None or (text != b"*" and current not in (tag.strip() for tag in text.split(b","))):
                raise PreconditionFailed
        if self.none_match:
            text = b",".join(self.none_match).strip()
            understood = text == b"*" or _TAGS.fullmatch(text) is not None
            if not understood or (current is not None and is_unchanged(self.none_match, current)):
                raise PreconditionFailed

    def version(self, organization: Organization, placement: Placement) -> int | None:
        """The version that a change of the organization must find; None where any will do.

        Raises ``PreconditionFailed``.
        """
        self.require(etag(organization, placement))
        text = b",".join(self.match).strip()
        # If-None-Match needs no version: what is not the state that it names never becomes it, as versions grow.
        return organization.version if text not in (b"", b"*") else None


def is_unchanged(fields: Iterable[bytes], current: bytes) -> bool:
    """Does If-None-Match name the current tag, by weak comparison? Then a read may answer 304."""
    text = b",".join(fields).strip()
    return text == b"*" or current in (tag.removeprefix(b"W/") for tag in _TAG.findall(text))
