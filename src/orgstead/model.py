"""The things orgstead knows, as frozen dataclasses. No behaviour beyond what a value can say about itself.

Times are UTC with millisecond precision. Ids are a prefix and a lower-case ULID (``org_01h…``), so they sort by age.
``version`` begins at 1 and grows by one with each ``replace`` (compare-and-swap).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

Json = Any
"""A JSON value: None, bool, int within 64 bits, finite float, text, list, or dict with text keys."""

MAX_JSON_DEPTH: Final = 32
"""Arrays and objects inside one another that a JSON value has at most, whichever way it comes in."""

API_KEY_ID: Final = "key_"
"""What the ids of API keys begin with, and no session's does: a credential is the one or the other."""


class OrganizationStatus(StrEnum):
    PROVISIONING = "provisioning"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    CLOSED = "closed"
    PURGING = "purging"


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


class PlacementKind(StrEnum):
    POOLED = "pooled"
    DEDICATED = "dedicated"


class PlacementState(StrEnum):
    STABLE = "stable"
    MOVING = "moving"


class SlotState(StrEnum):
    OPEN = "open"
    LOADING = "loading"
    CLOSED = "closed"


class SlugState(StrEnum):
    CURRENT = "current"
    REDIRECT = "redirect"
    QUARANTINED = "quarantined"


class OperationState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """A customer of the product. ``operation_id`` names the one operation at work on it, if any.

    ``epoch`` is the cut-off of its log-ins: a token carries the epoch it was minted under; an older one is dead.
    ``suspended_by`` is "owner" or "operator": what an operator suspended, an owner cannot reactivate.
    ``members`` counts its memberships, ``api_keys`` its API keys; as every write to the row does, counting raises
    ``version``.
    """

    id: str
    name: str
    slug: str
    plan: str
    status: OrganizationStatus
    external_id: str | None = None
    metadata: dict[str, Json] = field(default_factory=dict)
    epoch: int = 1
    operation_id: str | None = None
    suspended_by: str | None = None
    closed_at: datetime | None = None
    purge_at: datetime | None = None
    members: int = 0
    api_keys: int = 0
    created_at: datetime
    updated_at: datetime
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SlugClaim:
    """Who holds a slug. One row per slug for all states, so that its key decides every race for a name.

    ``held_for`` is the user who may take a quarantined slug before ``until``; ``until`` is None while current.
    """

    slug: str
    org_id: str
    state: SlugState
    held_for: str | None = None
    until: datetime | None = None
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person with a password. ``email_key`` is the canonical form that is unique.

    ``epoch`` is the cut-off of the person's sessions: changing the password ends all that began under an older one.
    """

    id: str
    email: str
    email_key: str
    password_hash: str
    epoch: int = 1
    created_at: datetime
    updated_at: datetime
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """That a person may act for an organization, and in which role."""

    org_id: str
    user_id: str
    role: Role
    created_at: datetime
    updated_at: datetime
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One log-in of one person to one organization, and its family of refresh tokens.

    ``seed`` and ``generation`` make the refresh token (see ``tokens.py``); ``rotated_at`` starts the grace in which the
    previous generation is still answered.
    """

    id: str
    user_id: str
    org_id: str
    user_epoch: int
    seed: str
    generation: int = 1
    rotated_at: datetime
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A credential of an organization for its programs. It acts in ``role``.

    ``user_id`` is who was shown it, when it was made or rotated last (``updated_at``), and has to be a member without a
    break from then on. ``secret_hash`` is the SHA-256 (hex) of the key as it was shown. ``used_at`` is known to the
    hour only: most requests do not write.
    """

    org_id: str
    id: str
    name: str
    role: Role
    user_id: str
    secret_hash: str
    expires_at: datetime | None = None
    used_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where an organization's data lives. ``space`` is the physical name when dedicated, None when pooled.

    The name is recorded here when the space is made or renamed and never derived again. ``epoch`` grows with every
    change of place; ``previous`` is the physical name before the last change.
    """

    org_id: str
    cell: str
    kind: PlacementKind
    space: str | None
    epoch: int = 1
    state: PlacementState = PlacementState.STABLE
    previous: str | None = None
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A fence, a quota and a usage counter in one row of a space (``docs/decisions``: slots).

    ``seq`` is the number of the space's last ``RecordEvent``.
    """

    org_id: str
    epoch: int
    slot: int
    state: SlotState
    tracked: bool = False
    records: int = 0
    bytes: int = 0
    collections: int = 0
    seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What an organization says of its records of one kind.

    ``schema`` is the text of a JSON Schema. ``indexes`` holds ``{"fields", "unique", "state"}`` by number; a number is
    never given twice. ``pending`` is the change of the definition that is being checked and built, if any.
    """

    org_id: str
    name: str
    schema: str | None = None
    indexes: dict[str, Json] = field(default_factory=dict)
    next_index: int = 1
    pending: dict[str, Json] = field(default_factory=dict)
    created_at: datetime
    updated_at: datetime
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """Where the record ``id`` stands in the index ``number`` of its collection: ``key`` sorts as its values do."""

    org_id: str
    collection: str
    number: int
    key: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordEvent:
    """A change in a space, written in its transaction. ``seq`` counts a space's events from 1, without gaps.

    ``record_id`` and ``record_version`` are None for what concerns the collection. ``actor`` made the change.
    """

    org_id: str
    seq: int
    type: str
    collection: str
    record_id: str | None = None
    record_version: int | None = None
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A document of an organization. ``bytes`` is the size of its canonical JSON."""

    org_id: str
    collection: str
    id: str
    data: dict[str, Json]
    bytes: int
    created_at: datetime
    updated_at: datetime
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Work of several steps that any process can resume. ``step`` names the step to do next.

    ``lease_until`` and ``lease_owner`` say who works on it. ``progress`` is 0.0 to 1.0. ``actor`` started it.
    """

    id: str
    org_id: str
    kind: str
    state: OperationState
    step: str
    progress: float = 0.0
    payload: dict[str, Json] = field(default_factory=dict)
    result: dict[str, Json] = field(default_factory=dict)
    error: str | None = None
    attempts: int = 0
    actor: str
    lease_owner: str | None = None
    lease_until: datetime
    created_at: datetime
    updated_at: datetime
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to an organization, written in the transaction that made it happen (outbox)."""

    org_id: str
    id: str
    type: str
    data: dict[str, Json] = field(default_factory=dict)
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One link of an organization's audit chain; ``hash`` covers every other field and the ``previous`` hash."""

    org_id: str
    seq: int
    id: str
    at: datetime
    actor: str
    action: str
    details: dict[str, Json] = field(default_factory=dict)
    request_id: str | None = None
    address: str | None = None
    previous: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """The end of an organization's audit chain: what makes a cut-off chain visible."""

    org_id: str
    seq: int
    hash: str
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotentResponse:
    """What a POST with an Idempotency-Key answered, or that it is still being worked on (``status`` 0).

    ``org_id`` is the caller's organization ("" for callers without one), ``id`` a hash of principal, route and key,
    ``fingerprint`` a hash of the request. ``body`` is encrypted where ``secret`` is true. ``operation_id`` names the
    operation whose result is the answer, ``subject`` the organization that it is about.
    """

    org_id: str
    id: str
    fingerprint: str
    status: int = 0
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    secret: bool = False
    operation_id: str | None = None
    subject: str | None = None
    created_at: datetime
    expires_at: datetime
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A database server that holds organizations' data. ``dedicated`` counts the dedicated spaces promised in it."""

    name: str
    dedicated: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeReceipt:
    """The proof that a purge removed an organization: what, how much of it, and when. Holds none of its data."""

    org_id: str
    actor: str
    closed_at: datetime | None
    purged_at: datetime
    removed: dict[str, int]
    audit_seq: int
    audit_hash: str


@dataclass(frozen=True, slots=True)
class Access:
    """What one request needs to know about who is asking; read in one round trip, fresh on every request.

    Anything that does not exist is None, ``session`` where an API key was asked for, ``api_key`` where a session was.
    ``user_epoch`` is the user's current cut-off.
    """

    organization: Organization | None
    placement: Placement | None
    membership: Membership | None
    session: Session | None
    user_epoch: int | None
    api_key: ApiKey | None = None
