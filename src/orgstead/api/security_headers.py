"""What browsers are told about every answer (OWASP Secure Headers, Fetch's cross-origin policies)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

Header = tuple[bytes, bytes]

_API_POLICY = b"default-src 'none'; frame-ancestors 'none'"
_DOCS_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Added(NamedTuple):
    """Headers to add to an answer, and the lines that they are."""

    headers: Sequence[Header]
    lines: bytes


class SecurityHeaders:
    """The headers of every answer, made once.

    An answer of the API is data: it may not run, be framed, be kept by a cache, or be read by another origin. The
    pages under ``docs_path`` may load scripts and styles of this origin, as files only (Swagger UI's come with the
    package). Strict-Transport-Security is sent only when
    people reach the service over https, because it forbids them anything else for a year.
    """

    def __init__(self, *, https: bool, docs_path: str = "/docs") -> None:
        common: list[Header] = [
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]
        if https:
            common.append((b"strict-transport-security", b"max-age=31536000; includeSubDomains"))
        api = [*common, (b"content-security-policy", _API_POLICY)]
        self._api = _added(api)
        self._api_uncached = _added([*api, (b"cache-control", b"no-store")])
        # Only a page has a window that others could hold on to.
        window = (b"cross-origin-opener-policy", b"same-origin")
        self._docs = _added([*common, (b"content-security-policy", _DOCS_POLICY), window])
        self._docs_path = docs_path
        self._below_docs = docs_path + "/"

    def of(self, path: str, headers: Iterable[Header]) -> Added:
        """What to add to the ``headers`` of an answer for ``path``. ``no-store`` unless the answer says otherwise."""
        if path.startswith(self._docs_path) and (path == self._docs_path or path.startswith(self._below_docs)):
            return self._docs
        return self._api if b"cache-control" in dict(headers) else self._api_uncached


def _added(headers: Sequence[Header]) -> Added:
    return Added(headers, b"".join(b"%b: %b\r\n" % header for header in headers))
