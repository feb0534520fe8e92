"""Every error of the product, drawn as a tree.

Each leaf carries one stable ``code`` (``area.reason``) that clients may rely on and a ``title`` that is the
one-line documentation of that code. Nothing here knows HTTP: ``api/errors.py`` maps codes to statuses in one table.
A ``detail`` tells the person what happened and what to do next; it never repeats their input and never carries an
engine's text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of one place in the input. ``pointer`` is an RFC 6901 JSON pointer (``/owner/email``)."""

    pointer: str
    code: str
    detail: str


class OrgsteadError(Exception):
    """Base of every error that orgstead raises on purpose.

    ``detail`` defaults to the title. ``next`` is a command or a step for people at a terminal. ``retry_after`` is in
    seconds and only present where waiting helps.
    """

    code: ClassVar[str] = ""
    title: ClassVar[str] = ""

    def __init__(
        self,
        detail: str | None = None,
        *,
        next: str | None = None,
        problems: Sequence[Problem] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.next = next
        self.problems = tuple(problems)
        self.retry_after = retry_after


def catalogue() -> Iterator[type[OrgsteadError]]:
    """Every error class that has a code, in the order of the tree."""
    pending: list[type[OrgsteadError]] = [OrgsteadError]
    while pending:
        cls = pending.pop(0)
        if "code" in cls.__dict__ and cls.code:
            yield cls
        pending[:0] = cls.__subclasses__()


# --- the input is wrong ------------------------------------------------------------------------------------------


class InvalidInput(OrgsteadError):
    code = "request.invalid"
    title = "The request is well-formed, but a value in it is not acceptable; `errors` names each place."


class InvalidName(InvalidInput):
    code = "organization.name_invalid"
    title = "The organization's name has characters or a length that names cannot have."


class InvalidSlug(InvalidInput):
    code = "organization.slug_invalid"
    title = "A slug is 2 to 48 of a-z, 0-9 and single hyphens, begins and ends with a letter or digit."


class NameReserved(InvalidInput):
    code = "organization.name_reserved"
    title = "The name is reserved for the product's own use; choose another."


class PasswordUnacceptable(InvalidInput):
    code = "password.unacceptable"
    title = "The password is too short, too long, or one of the commonly used ones."


class InvalidEmail(InvalidInput):
    code = "email.invalid"
    title = "The e-mail address is not one that mail could be delivered to."


class UnknownPlan(InvalidInput):
    code = "plan.unknown"
    title = "There is no plan of that name."


class ConfirmationRequired(InvalidInput):
    code = "organization.confirmation_required"
    title = "Deleting at once cannot be undone: confirm it with the organization's slug."


class InvalidValue(InvalidInput):
    code = "value.invalid"
    title = "A value cannot be stored: text must be valid Unicode without NUL, numbers finite and within 64 bits."


class IdempotencyKeyReused(InvalidInput):
    code = "idempotency.key_reused"
    title = "This Idempotency-Key was used before with another request; use a new key."


class InvalidIdempotencyKey(InvalidInput):
    code = "idempotency.key_invalid"
    title = "An Idempotency-Key is 1 to 255 printable ASCII characters."


class ArchiveInvalid(InvalidInput):
    code = "archive.invalid"
    title = "The file is not a whole, unaltered archive of an organization; nothing was changed."


class MalformedRequest(OrgsteadError):
    code = "request.malformed"
    title = "The request could not be read: its syntax is broken or goes beyond a structural limit."


class InvalidCursor(MalformedRequest):
    code = "cursor.invalid"
    title = "The cursor was not made for this list, or was altered; start again without one."


class UnknownHost(MalformedRequest):
    code = "request.host_unknown"
    title = "The Host header names no host that this service answers for."


class BodyTooLarge(OrgsteadError):
    code = "request.body_too_large"
    title = "The request body is larger than this service accepts."


class UnsupportedMediaType(OrgsteadError):
    code = "request.media_type_unsupported"
    title = "Send the body as application/json in UTF-8, without Content-Encoding."


class UriTooLong(OrgsteadError):
    code = "request.uri_too_long"
    title = "The request target is longer than this service accepts."


class HeadersTooLarge(OrgsteadError):
    code = "request.headers_too_large"
    title = "The request's headers are larger than this service accepts."


class RequestTimeout(OrgsteadError):
    code = "request.timeout"
    title = "The request did not arrive completely in time."


class MethodNotAllowed(OrgsteadError):
    code = "request.method_not_allowed"
    title = "This resource does not support the method; see the Allow header."


class LinesRefused(OrgsteadError):
    code = "import.lines_refused"
    title = "Some lines of the import were refused; everything else was done."


# --- who is asking ------------------------------------------------------------------------------------------------


class Unauthenticated(OrgsteadError):
    code = "auth.required"
    title = "No valid credential was given."


class BadCredentials(Unauthenticated):
    code = "auth.bad_credentials"
    title = "The e-mail address, the password or the organization is not right."


class InvalidToken(Unauthenticated):
    code = "auth.token_invalid"
    title = "The token is not valid, or no longer; log in again."


class Forbidden(OrgsteadError):
    code = "auth.forbidden"
    title = "Your role in this organization does not allow this."


class SignupClosed(OrgsteadError):
    code = "signup.closed"
    title = "This service does not let people create organizations without an invitation from its operator."


class NotFound(OrgsteadError):
    code = "resource.not_found"
    title = "There is no such resource, or none that you may see."


class Suspended(OrgsteadError):
    code = "organization.suspended"
    title = "The organization is suspended."


class OrganizationRequired(OrgsteadError):
    """``organizations`` lists (id, slug, name) of those that the person, whose password was right, may choose from."""

    code = "auth.organization_required"
    title = "You belong to several organizations: name the one to log in to."

    def __init__(self, organizations: Sequence[tuple[str, str, str]]) -> None:
        super().__init__()
        self.organizations = tuple(organizations)


# --- the state does not allow it ----------------------------------------------------------------------------------


class Conflict(OrgsteadError):
    code = "resource.conflict"
    title = "The resource was changed by someone else at the same time; read it again and retry."


class NameTaken(Conflict):
    code = "organization.name_taken"
    title = "Another organization has this name, or had it until recently; choose another."


class ExternalIdTaken(Conflict):
    code = "organization.external_id_taken"
    title = "Another organization has this external id."


class StatusConflict(Conflict):
    code = "organization.status_conflict"
    title = "The organization's status does not allow this."


class OperationInProgress(Conflict):
    code = "operation.in_progress"
    title = "Another operation of this organization is still running; follow it at /v1/operations/{id} and retry."


class UserExists(Conflict):
    code = "user.exists"
    title = "An account with this e-mail address exists; use its password."


class AlreadyMember(Conflict):
    code = "membership.exists"
    title = "The person is a member of the organization already."


class LastOwner(Conflict):
    code = "membership.last_owner"
    title = "An organization needs at least one owner; make someone else an owner first."


class MoveUnavailable(Conflict):
    code = "placement.move_unavailable"
    title = "This plan keeps its data elsewhere, and this version cannot move an organization's data yet."


class BudgetExhausted(Conflict):
    code = "placement.budget_exhausted"
    title = "The database has as many dedicated spaces as it may have; choose a pooled plan or raise the budget."


class IdempotencyInProgress(Conflict):
    code = "idempotency.in_progress"
    title = "A request with this Idempotency-Key is still being worked on; retry in a moment."


class PreconditionFailed(OrgsteadError):
    code = "precondition.failed"
    title = "The resource is not as If-Match or If-None-Match asks; read it again."


class PreconditionRequired(OrgsteadError):
    code = "precondition.required"
    title = "This service changes records only by the version that was read: send its ETag as If-Match."


# --- not now --------------------------------------------------------------------------------------------------------


class RateLimited(OrgsteadError):
    code = "rate.limited"
    title = "Too many requests; wait as long as Retry-After says."


class Unavailable(OrgsteadError):
    code = "service.unavailable"
    title = "The service cannot do this right now; retry after a moment."


class Overloaded(Unavailable):
    code = "service.overloaded"
    title = "The service is at its limit; retry after a moment."


class DeadlineExceeded(Unavailable):
    code = "service.deadline_exceeded"
    title = "The request took longer than its deadline and was given up; what it had not committed is not done."


class PlacementMoved(Unavailable):
    code = "placement.moving"
    title = "The organization's data is being moved or renamed; retry after a moment."


class ArchiveUnavailable(Unavailable):
    code = "archive.unavailable"
    title = "The archive that is being imported cannot be read any more; put it back, or the import will be undone."


class InternalError(OrgsteadError):
    """What a fault of orgstead itself looks like from outside; the log has the rest under the request id."""

    code = "service.internal"
    title = "Something went wrong on our side; the request id leads to the cause in the service's log."


# --- storage --------------------------------------------------------------------------------------------------------


class StorageError(Unavailable):
    code = "storage.unavailable"
    title = "The database did not answer; nothing was changed."


class StorageFull(StorageError):
    code = "storage.full"
    title = "The database has no space left; nothing was changed."


class StorageReadOnly(StorageError):
    code = "storage.read_only"
    title = "The database accepts no writes; nothing was changed."


class StorageBusy(StorageError):
    code = "storage.busy"
    title = "The database is held by another process; nothing was changed."


class OutcomeUnknown(StorageError):
    code = "storage.outcome_unknown"
    title = "The connection was lost while saving: the change may or may not have been made; read before you retry."


class TransactionEnded(StorageError):
    code = "storage.transaction_ended"
    title = "An earlier error ended this transaction; nothing in it was saved."


class AlreadyExists(Conflict):
    """``constraint`` is orgstead's own name of what was violated, as declared in ``storage/tables.py``."""

    code = "resource.exists"
    title = "A resource with this identity exists already."

    def __init__(self, constraint: str) -> None:
        super().__init__()
        self.constraint = constraint


class FileExists(Conflict):
    code = "file.exists"
    title = "There is a file where a new one should go; name one that does not exist yet."


class StaleRow(Conflict):
    code = "resource.stale"
    title = "The resource was changed by someone else at the same time; read it again and retry."


class OutOfScope(NotFound):
    code = "resource.out_of_scope"
    title = "There is no such resource, or none that you may see."


class SpaceMismatch(OrgsteadError):
    code = "placement.space_mismatch"
    title = "An organization's space is not where its placement says; run `orgstead fsck`."


# --- starting and operating -----------------------------------------------------------------------------------------


class ConfigurationError(OrgsteadError):
    code = "configuration.invalid"
    title = "The configuration does not allow the service to start."


class SchemaOutdated(ConfigurationError):
    code = "schema.outdated"
    title = "The database's schema is older than this version of orgstead."


class SchemaTooNew(ConfigurationError):
    code = "schema.too_new"
    title = "The database's schema was made by a newer version of orgstead."


class DatabaseInUse(ConfigurationError):
    code = "storage.in_use"
    title = "Another process has this database open for writing."


class FailpointReached(OrgsteadError):
    code = "failpoint.reached"
    title = "A failpoint that was set on purpose (ORGSTEAD_FAILPOINTS) stopped the work here."
