"""What browsers are told about every answer (OWASP Secure Headers, Fetch's cross-origin policies)."""

from __future__ import annotations

from collections.abc import Sequence

from orgstead.api.outgoing import Header

_API_POLICY = b"default-src 'none'; frame-ancestors 'none'"
_DOCS_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class SecurityHeaders:
    """The headers of every answer, made once.

    An answer of the API is data: it may not run, be framed, be kept by a cache, or be read by another origin. The
    pages under ``docs_path`` may load scripts and styles of this origin, as files only (Swagger UI's come with the
    package). Strict-Transport-Security is sent only when people reach the service over https, because it forbids them
    anything else for a year.
    """

    uncached = b"cache-control: no-store\r\n"
    """The line of an answer that says nothing of caching itself."""

    def __init__(self, *, https: bool, docs_path: str = "/docs") -> None:
        common: list[Header] = [
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]
        if https:
            common.append((b"strict-transport-security", b"max-age=31536000; includeSubDomains"))
        # Only a page has a window that others could hold on to.
        window = (b"cross-origin-opener-policy", b"same-origin")
        self._api = _lines([*common, (b"content-security-policy", _API_POLICY)])
        self._docs = _lines([*common, (b"content-security-policy", _DOCS_POLICY), window])
        self._docs_path = docs_path
        self._below_docs = docs_path + "/"

    def of(self, path: str) -> bytes:
        """The lines to add to an answer for ``path``."""
        if path.startswith(self._docs_path) and (path == self._docs_path or path.startswith(self._below_docs)):
            return self._docs
        return self._api


def _lines(headers: Sequence[Header]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)
