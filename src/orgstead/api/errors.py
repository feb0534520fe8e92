"""Errors as HTTP says them: one table from class to status, one rendering (RFC 9457, ``application/problem+json``)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import orjson

from orgstead import errors, record_errors
from orgstead.errors import OrgsteadError

STATUS: Final[dict[type[OrgsteadError], int]] = {
    errors.MalformedRequest: 400,
    errors.InvalidCursor: 400,
    errors.UnknownHost: 400,
    errors.Unauthenticated: 401,
    errors.BadCredentials: 401,
    errors.InvalidToken: 401,
    errors.Forbidden: 403,
    errors.SignupClosed: 403,
    errors.NotFound: 404,
    errors.OutOfScope: 404,
    errors.MethodNotAllowed: 405,
    errors.RequestTimeout: 408,
    errors.LinesRefused: 422,
    errors.Conflict: 409,
    errors.NameTaken: 409,
    errors.ExternalIdTaken: 409,
    errors.StatusConflict: 409,
    errors.OperationInProgress: 409,
    errors.UserExists: 409,
    errors.AlreadyMember: 409,
    errors.LastOwner: 409,
    errors.MoveUnavailable: 409,
    errors.BudgetExhausted: 409,
    errors.IdempotencyInProgress: 409,
    errors.AlreadyExists: 409,
    errors.FileExists: 409,
    errors.StaleRow: 409,
    errors.OrganizationRequired: 409,
    errors.PreconditionFailed: 412,
    errors.PreconditionRequired: 428,
    errors.BodyTooLarge: 413,
    errors.UriTooLong: 414,
    errors.UnsupportedMediaType: 415,
    errors.InvalidInput: 422,
    errors.InvalidName: 422,
    errors.InvalidSlug: 422,
    errors.NameReserved: 422,
    errors.PasswordUnacceptable: 422,
    errors.InvalidEmail: 422,
    errors.UnknownPlan: 422,
    errors.ConfirmationRequired: 422,
    errors.InvalidValue: 422,
    errors.IdempotencyKeyReused: 422,
    errors.InvalidIdempotencyKey: 422,
    errors.Suspended: 423,
    errors.RateLimited: 429,
    errors.HeadersTooLarge: 431,
    errors.ArchiveInvalid: 422,
    record_errors.InvalidRecord: 422,
    record_errors.InvalidRecordId: 422,
    record_errors.InvalidDefinition: 422,
    record_errors.InvalidQuery: 422,
    record_errors.QueryUnindexed: 422,
    record_errors.QueryTooLarge: 422,
    record_errors.RecordTooLarge: 413,
    record_errors.FeedExpired: 410,
    record_errors.QuotaExceeded: 403,
    record_errors.RecordExists: 409,
    record_errors.UniqueTaken: 409,
    record_errors.DefinitionViolated: 409,
    record_errors.CollectionNotEmpty: 409,
    record_errors.CollectionChanging: 409,
    errors.InternalError: 500,
    errors.Unavailable: 503,
    errors.Overloaded: 503,
    errors.DeadlineExceeded: 503,
    errors.PlacementMoved: 503,
    errors.ArchiveUnavailable: 503,
    errors.StorageError: 503,
    errors.StorageFull: 503,
    errors.StorageReadOnly: 503,
    errors.StorageBusy: 503,
    errors.OutcomeUnknown: 503,
    errors.TransactionEnded: 503,
    errors.SpaceMismatch: 503,
    errors.ConfigurationError: 503,
    errors.SchemaOutdated: 503,
    errors.SchemaTooNew: 503,
    errors.DatabaseInUse: 503,
    errors.FailpointReached: 503,
}
"""Every class of ``errors.catalogue()``, each by name: a new error is a decision about its status."""

MAX_BYTES: Final = 4096
"""Largest problem document. Lists inside it are cut to fit."""

_CHALLENGE: Final = b'Bearer realm="orgstead"'
_INVALID_TOKEN: Final = b'Bearer realm="orgstead", error="invalid_token"'


class Rendered(NamedTuple):
    """A complete answer: headers in ASGI's form (lower-case names, bytes), body in UTF-8."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def status_of(error: OrgsteadError) -> int:
    """The status of an error; a class outside the table answers like its nearest parent in it, else 500."""
    return next((STATUS[cls] for cls in type(error).__mro__ if cls in STATUS), 500)


def type_of(code: str) -> str:
    """The stable ``type`` of a code, an identifier that needs no domain: ``urn:orgstead:error:resource.not_found``."""
    return f"urn:orgstead:error:{code}"


def render(error: OrgsteadError, request_id: str, *, allow: Iterable[str] = ()) -> Rendered:
    """The error as a problem document of at most MAX_BYTES, with the headers that its status asks for.

    ``allow`` names the methods of the resource for a 405 (RFC 9110 §15.5.6). A 401 carries the challenge of RFC 6750,
    429 and 503 say when to retry in whole seconds. An error about something that exists elsewhere (OutOfScope) is
    rendered exactly as one about something that does not exist.
    """
    if isinstance(error, errors.OutOfScope):
        error = errors.NotFound()
    status = status_of(error)
    document: dict[str, Any] = {
        "type": type_of(error.code),
        "title": error.title,
        "status": status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
        "errors": [],
    }
    problems = [{"pointer": fault.pointer, "code": fault.code, "detail": fault.detail} for fault in error.problems]
    body = _fitted(document, "errors", problems)
    if isinstance(error, record_errors.QuotaExceeded):
        document["quota"] = {"what": error.what, "used": error.used, "limit": error.limit}
        body = _fitted(document, "errors", problems)
    if isinstance(error, errors.OrganizationRequired):
        choices = [{"id": key, "slug": slug, "name": name} for key, slug, name in error.organizations]
        body = _fitted(document, "organizations", choices)
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        invalid = isinstance(error, errors.InvalidToken)
        headers.append((b"www-authenticate", _INVALID_TOKEN if invalid else _CHALLENGE))
    elif status == 405:
        headers.append((b"allow", ", ".join(sorted(allow)).encode("ascii")))
    elif status in (429, 503):
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after or 1))))
    return Rendered(status, headers, body)


def _fitted(document: dict[str, Any], member: str, items: Sequence[dict[str, str]]) -> bytes:
    """The document with as many of the items, from the first, as leave it within MAX_BYTES."""
    document[member] = list(items)
    body = orjson.dumps(document)
    while len(body) > MAX_BYTES and document[member]:
        # Halving ends after a few rounds whatever the number of items.
        document[member] = document[member][: len(document[member]) // 2]
        body = orjson.dumps(document)
    return body
