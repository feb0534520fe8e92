"""Every table, declared once. A new entity is a declaration here; no engine changes.

Keys of scoped tables begin with the organization's id (or are it), so that a duplicate key tells nobody what another
organization has, and so that the tables can be sharded by it.
"""

from __future__ import annotations

from typing import Any

from orgstead.model import (
    ApiKey,
    AuditEntry,
    AuditHead,
    Cell,
    Collection,
    Event,
    IdempotentResponse,
    IndexEntry,
    Membership,
    Operation,
    Organization,
    Placement,
    PurgeReceipt,
    Record,
    RecordEvent,
    Session,
    Slot,
    SlugClaim,
    User,
)
from orgstead.storage.port import Home, Table

organizations = Table(
    "organizations",
    Organization,
    key=("id",),
    scope="id",
    unique={"organizations.external_id": ("external_id",)},
    indexes=(("status", "purge_at", "id"),),
)
slugs = Table("slugs", SlugClaim, key=("slug",), scope=None, indexes=(("org_id", "slug"),))
placements = Table("placements", Placement, key=("org_id",), scope="org_id")
memberships = Table(
    "memberships",
    Membership,
    key=("org_id", "user_id"),
    scope="org_id",
    indexes=(("user_id", "org_id"), ("org_id", "role", "user_id")),
)
users = Table("users", User, key=("id",), scope=None, unique={"users.email": ("email_key",)})
sessions = Table(
    "sessions",
    Session,
    key=("id",),
    scope=None,
    indexes=(("user_id", "created_at", "id"), ("org_id", "id"), ("expires_at", "id")),
)
api_keys = Table("api_keys", ApiKey, key=("org_id", "id"), scope="org_id")
operations = Table(
    "operations",
    Operation,
    key=("org_id", "id"),
    scope="org_id",
    indexes=(("state", "lease_until"), ("state", "updated_at", "org_id", "id"), ("id", "org_id")),
    lease=("lease_until", "lease_owner"),
)
events = Table("events", Event, key=("org_id", "id"), scope="org_id")
audit_entries = Table("audit_entries", AuditEntry, key=("org_id", "seq"), scope="org_id")
audit_heads = Table("audit_heads", AuditHead, key=("org_id",), scope="org_id")
idempotent_responses = Table(
    "idempotent_responses",
    IdempotentResponse,
    key=("org_id", "id"),
    scope="org_id",
    indexes=(("expires_at", "org_id", "id"), ("subject", "org_id", "id")),
)
cells = Table("cells", Cell, key=("name",), scope=None)
purge_receipts = Table("purge_receipts", PurgeReceipt, key=("org_id",), scope="org_id")

slots = Table("slots", Slot, key=("org_id", "epoch", "slot"), scope="org_id", home=Home.SPACE)
records = Table(
    "records", Record, key=("org_id", "collection", "id"), scope="org_id", home=Home.SPACE, large=True, weight="bytes"
)
collections = Table("collections", Collection, key=("org_id", "name"), scope="org_id", home=Home.SPACE)
index_entries = Table(
    "index_entries",
    IndexEntry,
    key=("org_id", "collection", "number", "key"),
    scope="org_id",
    home=Home.SPACE,
)
record_events = Table("record_events", RecordEvent, key=("org_id", "seq"), scope="org_id", home=Home.SPACE)
space_responses = Table(
    "space_responses",
    IdempotentResponse,
    key=("org_id", "id"),
    scope="org_id",
    home=Home.SPACE,
    indexes=(("expires_at", "org_id", "id"),),
    large=True,
)
"""As ``idempotent_responses``, for what happens in a space: the answer is kept in the transaction of the effect."""

TABLES: tuple[Table[Any], ...] = (
    organizations,
    slugs,
    placements,
    memberships,
    users,
    sessions,
    api_keys,
    operations,
    events,
    audit_entries,
    audit_heads,
    idempotent_responses,
    cells,
    purge_receipts,
    slots,
    records,
    collections,
    index_entries,
    record_events,
    space_responses,
)
DIRECTORY: tuple[Table[Any], ...] = tuple(t for t in TABLES if t.home is Home.DIRECTORY)
SPACE: tuple[Table[Any], ...] = tuple(t for t in TABLES if t.home is Home.SPACE)
