"""The archive of one organization: what is in it, and reading its parts strictly.

An archive is a ZIP file of JSON and JSON Lines, readable with any tool:

    manifest.json               what this is, of which moment, and for every other file its bytes, lines and SHA-256
    organization.json           name, slugs, plan, status, metadata
    members.jsonl               accounts by e-mail, and their roles; no password, no hash of one, no session
    audit.jsonl                 the audit chain
    collections.jsonl           the definition of each collection
    records/COLLECTION.jsonl    its records by id, one canonical line each (``record_tables.as_line``)
    csv/COLLECTION.csv          the same for spreadsheets, where asked for; not read by an import
    parquet/COLLECTION.parquet  the same for analysis, where asked for; not read by an import

The digest of a collection is the sum of the SHA-256 of its lines modulo 2**256: it needs no order, and is the same
wherever the records live. Whoever can write an archive can write its sums, too: they show damage, not who made it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orgstead import __version__, record_definitions
from orgstead.errors import ArchiveInvalid, OrgsteadError
from orgstead.kit import rfc3339
from orgstead.model import (
    AuditEntry,
    Collection,
    Json,
    Membership,
    Organization,
    OrganizationStatus,
    Record,
    Role,
    User,
)
from orgstead.record_batches import checked_id, size_of
from orgstead.record_tables import as_line

FORMAT: Final = "orgstead.organization"
VERSION: Final = 1
"""Grows when an older orgstead could not read what a newer one writes."""

MANIFEST, ORGANIZATION, MEMBERS = "manifest.json", "organization.json", "members.jsonl"
AUDIT, COLLECTIONS = "audit.jsonl", "collections.jsonl"

REQUIRED: Final = frozenset({ORGANIZATION, MEMBERS, AUDIT, COLLECTIONS})
NAME: Final = re.compile(
    r"(?:manifest\.json|organization\.json|members\.jsonl|audit\.jsonl|collections\.jsonl"
    r"|records/[a-z][a-z0-9_]{0,62}\.jsonl|csv/[a-z][a-z0-9_]{0,62}\.csv|parquet/[a-z][a-z0-9_]{0,62}\.parquet)"
)
"""The names that files of an archive can have: nothing that could lead elsewhere, were it unpacked."""

MAX_MANIFEST: Final = 64 * 1_048_576
MAX_LINE: Final = 32 * 1_048_576
"""Bytes of a line: more than the largest record that can be allowed, and all that is said about it."""

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_USER_ID = re.compile(r"usr_[0-9a-z_]{1,60}")
ORG_ID: Final = re.compile(r"org_[0-9a-hjkmnp-tv-z]{26}")

Model = TypeVar("Model", bound=BaseModel)


def records_file(collection: str) -> str:
    return f"records/{collection}.jsonl"


class TableFormat(StrEnum):
    """What an archive can have besides, for each collection; an import checks its sum and reads nothing of it."""

    CSV = "csv"
    PARQUET = "parquet"

    def file(self, collection: str) -> str:
        """The name of a collection's file."""
        return f"{self.value}/{collection}.{self.value}"


def tables_of(collection: str) -> set[str]:
    """The files that a collection can have besides."""
    return {form.file(collection) for form in TableFormat}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class FileFacts(_Part):
    """What the manifest says of a file. ``sha256`` is that of its unpacked bytes."""

    bytes: int = Field(ge=0)
    lines: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class CollectionFacts(_Part):
    """What the manifest says of a collection's records. ``bytes`` is what they count for in a quota."""

    records: int = Field(ge=0)
    bytes: int = Field(ge=0)
    digest: str = Field(pattern="^[0-9a-f]{64}$")


class Head(_Part):
    """The end of the audit chain: what makes it visible that a chain was cut."""

    seq: int = Field(ge=1)
    hash: str = Field(pattern="^[0-9a-f]{64}$")


class Point(_Part):
    """The moment of the archive: the number of the last event of the records that it has seen, and the audit's head.

    All of it was true at once; the audit may lack entries of the last moments before, none of them about what is here.
    """

    at: str
    events: int = Field(ge=0)
    audit: Head


class Manifest(_Part):
    """What an archive says of itself."""

    format: str
    version: int
    software: str
    organization_id: str
    slug: str
    point: Point
    members: int = Field(ge=0)
    collections: dict[str, CollectionFacts]
    files: dict[str, FileFacts]

    @property
    def records(self) -> int:
        return sum(facts.records for facts in self.collections.values())

    @property
    def size(self) -> int:
        """What the records count for in a quota."""
        return sum(facts.bytes for facts in self.collections.values())

    def encoded(self) -> bytes:
        return orjson.dumps(self.model_dump(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


class ArchivedOrganization(_Part):
    """The organization as it was. ``former_slugs`` are told, and not claimed by an import."""

    id: str
    name: str
    slug: str
    former_slugs: list[str]
    plan: str
    status: OrganizationStatus = Field(strict=False)
    suspended_by: str | None
    external_id: str | None
    metadata: dict[str, Any]
    created_at: str
    updated_at: str


class ArchivedMember(_Part):
    """A member: the account by its address, and its role."""

    user_id: str
    email: str
    role: Role = Field(strict=False)
    created_at: str
    updated_at: str


class ArchivedCollection(_Part):
    """The definition of a collection in force, as a client writes it."""

    name: str
    definition_schema: dict[str, Any] | None = Field(alias="schema")
    indexes: list[list[str]]
    unique: list[list[str]]
    created_at: str
    updated_at: str


# --- writing ----------------------------------------------------------------------------------------------------------


def software() -> str:
    return f"orgstead {__version__}"


def organization_json(organization: Organization, former_slugs: Sequence[str]) -> bytes:
    """The file about the organization."""
    shown: dict[str, Json] = {
        "id": organization.id,
        "name": organization.name,
        "slug": organization.slug,
        "former_slugs": list(former_slugs),
        "plan": organization.plan,
        "status": organization.status.value,
        "suspended_by": organization.suspended_by,
        "external_id": organization.external_id,
        "metadata": organization.metadata,
        "created_at": rfc3339(organization.created_at),
        "updated_at": rfc3339(organization.updated_at),
    }
    return orjson.dumps(shown, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def member_line(membership: Membership, user: User) -> bytes:
    """A member. The hash of the password stays where it is: with it, an archive would be worth cracking."""
    return _line(
        {
            "user_id": user.id,
            "email": user.email,
            "role": membership.role.value,
            "created_at": rfc3339(membership.created_at),
            "updated_at": rfc3339(membership.updated_at),
        }
    )


def audit_line(entry: AuditEntry) -> bytes:
    """An entry of the chain; its hash covers the organization's id, too, which is that of the archive."""
    return _line(
        {
            "seq": entry.seq,
            "id": entry.id,
            "at": rfc3339(entry.at),
            "actor": entry.actor,
            "action": entry.action,
            "details": entry.details,
            "request_id": entry.request_id,
            "address": entry.address,
            "previous": entry.previous,
            "hash": entry.hash,
        }
    )


def collection_line(collection: Collection) -> bytes:
    """A collection's definition."""
    return _line(
        {
            "name": collection.name,
            **record_definitions.shown(collection),
            "created_at": rfc3339(collection.created_at),
            "updated_at": rfc3339(collection.updated_at),
        }
    )


def _line(value: Json) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


class LinesDigest:
    """The order-free digest of lines."""

    def __init__(self) -> None:
        self._total = 0
        self.count = 0

    def take(self, line: bytes) -> None:
        self._total += int.from_bytes(hashlib.sha256(line).digest())
        self.count += 1

    def hexdigest(self) -> str:
        return f"{self._total % 2**256:064x}"


# --- reading ----------------------------------------------------------------------------------------------------------


def parsed(model: type[Model], content: bytes, where: str) -> Model:
    """The content of a file or line as this model. Raises ``ArchiveInvalid``."""
    try:
        return model.model_validate(orjson.loads(content))
    except (orjson.JSONDecodeError, ValidationError):
        raise ArchiveInvalid(f"{where} is not as orgstead writes it.") from None


def manifest(content: bytes) -> Manifest:
    """The manifest. Raises ``ArchiveInvalid``, saying so where only the version is not ours."""
    try:
        head = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise ArchiveInvalid(f"{MANIFEST} is not JSON.") from None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ArchiveInvalid("The file is not the archive of an organization.")
    if head.get("version") != VERSION:
        raise ArchiveInvalid(f"The archive has a format that this orgstead does not know; it knows {VERSION}.")
    found = parsed(Manifest, content, MANIFEST)
    expected = REQUIRED | {records_file(name) for name in found.collections}
    tables = {table for name in found.collections for table in tables_of(name)}
    if not expected <= found.files.keys() <= expected | tables or not ORG_ID.fullmatch(found.organization_id):
        raise ArchiveInvalid(f"{MANIFEST} does not agree with itself.")
    for name, facts in found.collections.items():
        if found.files[records_file(name)].lines != facts.records:
            raise ArchiveInvalid(f"{MANIFEST} does not agree with itself.")
    moment(found.point.at, MANIFEST)
    return found


def moment(text: str, where: str) -> datetime:
    """A time as ``rfc3339`` writes it. Raises ``ArchiveInvalid``."""
    if _MOMENT.fullmatch(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    raise ArchiveInvalid(f"{where} has a time that is none.")


def record(org_id: str, collection: str, line: bytes, at: str) -> Record:
    """The record that a line is, for this organization. Raises ``ArchiveInvalid``.

    The line must be the canonical one, byte for byte: then no reader can see another record in it than this one.
    """
    try:
        value = orjson.loads(line)
        found = Record(
            org_id=org_id,
            collection=collection,
            id=checked_id(value["id"]),
            data=value["data"],
            bytes=size_of(value["data"]),
            created_at=moment(value["created_at"], at),
            updated_at=moment(value["updated_at"], at),
            version=value["version"],
        )
        whole = type(found.data) is dict and type(found.version) is int and found.version >= 1
        if whole and as_line(found) == line:
            return found
    except (orjson.JSONDecodeError, KeyError, TypeError, OrgsteadError):
        pass
    raise ArchiveInvalid(f"{at} is no record as orgstead writes it.")


def audit_entry(org_id: str, line: bytes, at: str) -> AuditEntry:
    """The entry of the audit chain that a line is. Raises ``ArchiveInvalid``; the chain itself is checked elsewhere."""
    try:
        value = orjson.loads(line)
        found = AuditEntry(**{**value, "org_id": org_id, "at": moment(value["at"], at)})
        if audit_line(found) == line:
            return found
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    raise ArchiveInvalid(f"{at} is no entry of an audit log.")


def collection(org_id: str, line: bytes, at: str) -> Collection:
    """The collection that a line defines, empty and with its indexes ready. Raises ``ArchiveInvalid``."""
    read = parsed(ArchivedCollection, line, at)
    try:
        name = record_definitions.checked_name(read.name)
        wanted = record_definitions.parse(read.definition_schema, read.indexes, read.unique)
    except OrgsteadError as error:
        raise ArchiveInvalid(f"{at}: {error.detail}") from None
    empty = Collection(
        org_id=org_id,
        name=name,
        created_at=moment(read.created_at, at),
        updated_at=moment(read.updated_at, at),
    )
    return record_definitions.settled(record_definitions.announced(empty, wanted), applied=True)


def member(line: bytes, at: str) -> ArchivedMember:
    """The member that a line is. Raises ``ArchiveInvalid``."""
    read = parsed(ArchivedMember, line, at)
    if not _USER_ID.fullmatch(read.user_id):
        raise ArchiveInvalid(f"{at} has an id that no account has.")
    moment(read.created_at, at)
    moment(read.updated_at, at)
    return read
