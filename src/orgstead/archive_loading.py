"""What an import does with the files of an archive: look at every line before anything is changed, then load them.

Loading may be interrupted anywhere and begun again: what is there already is passed over, and two that load side by
side do not disturb each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from orgstead import archives, identity, lifecycle, organizations, placements, record_definitions, spaces
from orgstead.archive_files import ArchiveReader
from orgstead.archives import ArchivedMember, ArchivedOrganization, LinesDigest
from orgstead.audit import Chain
from orgstead.errors import (
    AlreadyExists,
    ArchiveInvalid,
    InternalError,
    InvalidInput,
)
from orgstead.failpoints import failpoint
from orgstead.index_keys import Index, keys_of
from orgstead.model import AuditEntry, AuditHead, Collection, IndexEntry, OrganizationStatus, Placement, Record, Role
from orgstead.record_errors import InvalidRecord, QuotaExceeded
from orgstead.record_tables import as_line, pages
from orgstead.storage import tables
from orgstead.storage.port import Space, SystemScope, Transaction
from orgstead.usage import Limits

if TYPE_CHECKING:
    from orgstead.app import App

SCOPE = SystemScope("import organization")
BATCH: Final = 1000
BATCH_BYTES: Final = 8 * 1_048_576
ENTRIES: Final = 500
MAX_ORGANIZATION: Final = 1_048_576

_BY: Final = frozenset({organizations.OWNER, organizations.OPERATOR})
_SUSPENDED_BY: Final[Mapping[OrganizationStatus, frozenset[str | None]]] = {
    OrganizationStatus.ACTIVE: frozenset({None}),
    OrganizationStatus.SUSPENDED: _BY,
    OrganizationStatus.CLOSED: _BY | {None},
}
"""Who may have suspended what is exported, by its status."""

Advance = Callable[[int], None]
"""Told how many more records were looked at or written."""


# --- looking ----------------------------------------------------------------------------------------------------------


def organization(reader: ArchiveReader) -> ArchivedOrganization:
    """The organization of the archive. Raises ``ArchiveInvalid``."""
    content = reader.content(archives.ORGANIZATION, MAX_ORGANIZATION)
    found = archives.parsed(ArchivedOrganization, content, archives.ORGANIZATION)
    if (found.id, found.slug) != (reader.manifest.organization_id, reader.manifest.slug):
        raise ArchiveInvalid("The manifest and the organization of the archive do not agree.")
    if found.status in lifecycle.BUSY:
        raise ArchiveInvalid(f"{archives.ORGANIZATION}: `status` is {found.status}, which nothing that is exported is.")
    if found.suspended_by not in _SUSPENDED_BY[found.status]:
        raise ArchiveInvalid(f"{archives.ORGANIZATION}: `suspended_by` does not go with `status` {found.status}.")
    archives.moment(found.created_at, archives.ORGANIZATION)
    archives.moment(found.updated_at, archives.ORGANIZATION)
    return found


def collections(reader: ArchiveReader, org_id: str) -> dict[str, Collection]:
    """The collections that the archive defines: those that its manifest names. Raises ``ArchiveInvalid``."""
    found: dict[str, Collection] = {}
    for at, line in _numbered(reader, archives.COLLECTIONS):
        one = archives.collection(org_id, line, at)
        found[one.name] = one
    if found.keys() != reader.manifest.collections.keys() or len(found) != _lines(reader, archives.COLLECTIONS):
        raise ArchiveInvalid("The manifest and the collections of the archive do not agree.")
    return found


def members(reader: ArchiveReader) -> Iterator[ArchivedMember]:
    """The members of the archive, owners first. Raises ``ArchiveInvalid``."""
    for at, line in _numbered(reader, archives.MEMBERS):
        yield archives.member(line, at)


def audit_entries(reader: ArchiveReader, org_id: str) -> Iterator[AuditEntry]:
    """The entries of the chain, in order. Raises ``ArchiveInvalid``."""
    for at, line in _numbered(reader, archives.AUDIT):
        yield archives.audit_entry(org_id, line, at)


def records(reader: ArchiveReader, org_id: str, collection: str) -> Iterator[tuple[Record, bytes]]:
    """The records of a collection by id, each with its line. Raises ``ArchiveInvalid``."""
    last = ""
    for at, line in _numbered(reader, archives.records_file(collection)):
        record = archives.record(org_id, collection, line, at)
        if record.id <= last:
            raise ArchiveInvalid(f"{at}: the records are not in the order of their ids.")
        last = record.id
        yield record, line


def _numbered(reader: ArchiveReader, name: str) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(reader.lines(name), 1):
        yield f"{name}:{number}", line


def _lines(reader: ArchiveReader, name: str) -> int:
    return reader.manifest.files[name].lines


def check(reader: ArchiveReader, max_bytes: int, advance: Advance) -> None:
    """Look at everything in the archive once; nothing is changed for it. Raises ``ArchiveInvalid``.

    ``max_bytes`` is the largest record that is accepted here.
    """
    org_id = reader.manifest.organization_id
    organization(reader)
    _check_members(reader)
    _check_audit(reader)
    for name, collection in collections(reader, org_id).items():
        _check_records(reader, collection, max_bytes, advance)
        for table in archives.tables_of(name) & reader.manifest.files.keys():
            reader.verify(table)


def _check_members(reader: ArchiveReader) -> None:
    keys: set[str] = set()
    owned = True
    for member in members(reader):
        try:
            _, key = identity.canonical_email(member.email)
        except InvalidInput:
            raise ArchiveInvalid("A member of the archive has no e-mail address.") from None
        owned = owned and (bool(keys) or member.role is Role.OWNER)
        keys.add(key)
    if len(keys) != reader.manifest.members or _lines(reader, archives.MEMBERS) != len(keys):
        raise ArchiveInvalid(
            "The members of the archive are not those that the manifest counts, or one is there twice."
        )
    if not owned:
        raise ArchiveInvalid("The archive has members, but no owner.")


def _check_audit(reader: ArchiveReader) -> None:
    chain, head = Chain(), reader.manifest.point.audit
    org_id = reader.manifest.organization_id
    for entry in audit_entries(reader, org_id):
        chain.follow(entry)
    if not chain.ends_at(AuditHead(org_id=org_id, seq=head.seq, hash=head.hash)):
        raise ArchiveInvalid("The audit log of the archive is not as it was written.")


def _check_records(reader: ArchiveReader, collection: Collection, max_bytes: int, advance: Advance) -> None:
    digest, size = LinesDigest(), 0
    for record, line in records(reader, collection.org_id, collection.name):
        digest.take(line)
        size += record.bytes
        if record.bytes > max_bytes:
            raise ArchiveInvalid(
                f"The archive has a record of {record.bytes} bytes; here a record has at most {max_bytes}.",
                next="raise the setting records.max_bytes",
            )
        if record_definitions.violations(collection, record.id, record.data, InvalidRecord.code):
            raise ArchiveInvalid("A record of the archive violates the schema of its collection.")
        if digest.count % BATCH == 0:
            advance(BATCH)
    advance(digest.count % BATCH)
    facts = reader.manifest.collections[collection.name]
    if (digest.count, size, digest.hexdigest()) != (facts.records, facts.bytes, facts.digest):
        raise ArchiveInvalid("The records of the archive are not those that the manifest says.")


# --- loading ----------------------------------------------------------------------------------------------------------


async def load(app: App, reader: ArchiveReader, placement: Placement, limits: Limits, advance: Advance) -> None:
    """Bring the space to what the archive says; what is there already stays.

    Raises ``QuotaExceeded``, ``PlacementMoved``, and ``ArchiveInvalid`` for what only shows now.
    """
    defined = collections(reader, placement.org_id)
    names = list(defined)
    for begin in range(0, len(names), ENTRIES):
        batch = [defined[name] for name in names[begin : begin + ENTRIES]]
        await spaces.run(app, placement, _add_collections, batch, limits)
    for name, collection in defined.items():
        last = await spaces.read(app, placement, _last_id, name)
        for records_ in _batches(reader, collection, last, advance):
            try:
                await spaces.run(app, placement, _add_records, collection, records_, limits)
            except AlreadyExists as error:
                if error.constraint != tables.index_entries.key_constraint:
                    raise
                raise ArchiveInvalid("Two records of the archive have the same value in a unique field.") from None
            except InvalidInput as error:
                raise ArchiveInvalid(f"A record of the archive cannot be stored: {error.detail}") from None
            advance(len(records_))
            await failpoint("import.mid_load")
    await spaces.run(app, placement, _go_on_numbering, reader.manifest.point.events)


def _batches(reader: ArchiveReader, collection: Collection, last: str, advance: Advance) -> Iterator[list[Record]]:
    """The records behind the id ``last``, so many at once as one transaction takes."""
    batch: list[Record] = []
    size = passed = 0
    for record, _ in records(reader, collection.org_id, collection.name):
        if record.id <= last:
            passed += 1
            continue
        batch.append(record)
        size += record.bytes
        if len(batch) == BATCH or size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    advance(passed)
    if batch:
        yield batch


async def _last_id(tx: Transaction, space: Space, collection: str) -> str:
    """Records are loaded in the order of their ids, so those up to the last one are there."""
    found = await tx.page(tables.records, {"collection": collection}, order=("-id",), limit=1)
    return found[0].id if found else ""


async def _add_collections(tx: Transaction, space: Space, batch: Sequence[Collection], limits: Limits) -> None:
    await placements.hold(tx, space)
    there = await tx.find_many(tables.collections, [(space.org_id, one.name) for one in batch])
    known = {one.name for one in there}
    new = [one for one in batch if one.name not in known]
    if new:
        await _enter(tx, space, {"collections": len(new)}, limits)
        await tx.add_many(tables.collections, new)


async def _add_records(
    tx: Transaction, space: Space, collection: Collection, batch: Sequence[Record], limits: Limits
) -> None:
    await placements.hold(tx, space)
    there = await tx.find_many(tables.records, [(space.org_id, collection.name, one.id) for one in batch])
    known = {one.id for one in there}
    new = [one for one in batch if one.id not in known]
    if not new:
        return
    await _enter(tx, space, {"records": len(new), "bytes": sum(one.bytes for one in new)}, limits)
    entries = list(_entries(space.org_id, collection, new))
    await tx.add_all([(tables.records, new), (tables.index_entries, entries)])


def _entries(org_id: str, collection: Collection, batch: Sequence[Record]) -> Iterator[IndexEntry]:
    indexes: Sequence[Index] = record_definitions.indexes_of(collection)
    for record in batch:
        for index in indexes:
            for key in dict.fromkeys(keys_of(index, record.id, record.data)):
                yield IndexEntry(org_id=org_id, collection=collection.name, number=index.number, key=key, id=record.id)


async def _enter(tx: Transaction, space: Space, deltas: dict[str, int], limits: Limits) -> None:
    if not await placements.enter(tx, space, deltas=deltas, at_most=limits.bounding(deltas)):
        raise QuotaExceeded("The plan does not allow as much as the archive has any more; choose another with --plan.")


async def _go_on_numbering(tx: Transaction, space: Space, events: int) -> None:
    """Number the space's events behind those of the archive: a reader who goes on there is told to begin anew."""
    slot = await placements.hold(tx, space)
    if slot.seq <= events:
        await placements.enter(tx, space, deltas={"seq": events + 1 - slot.seq})


async def verify(app: App, reader: ArchiveReader, placement: Placement) -> None:
    """Read everything back. Raises ``InternalError`` where it is not what the archive says."""
    for name, facts in reader.manifest.collections.items():
        found = await spaces.scan(app, placement, _digest, name)
        if found != (facts.records, facts.digest):
            raise InternalError("The records that were imported are not those of the archive.")


async def _digest(tx: Transaction, space: Space, collection: str) -> tuple[int, str]:
    digest = LinesDigest()
    async for batch in pages(tx, collection):
        for record in batch:
            digest.take(as_line(record))
    return digest.count, digest.hexdigest()


# --- the audit chain --------------------------------------------------------------------------------------------------


async def load_audit(app: App, reader: ArchiveReader, org_id: str) -> None:
    """Continue the organization's chain with the entries of the archive that it does not have yet."""
    head = await app.storage.read(SCOPE, _audit_head, org_id)
    batch: list[AuditEntry] = []
    for entry in audit_entries(reader, org_id):
        if entry.seq > head.seq:
            batch.append(entry)
        if len(batch) == ENTRIES:
            await app.storage.run(SCOPE, _append, org_id, batch)
            batch = []
    if batch:
        await app.storage.run(SCOPE, _append, org_id, batch)


async def _audit_head(tx: Transaction, org_id: str) -> AuditHead:
    return await tx.get(tables.audit_heads, org_id)


async def _append(tx: Transaction, org_id: str, batch: Sequence[AuditEntry]) -> None:
    head = await tx.lock(tables.audit_heads, org_id)
    new = [entry for entry in batch if entry.seq > head.seq]
    if not new:
        return
    if new[0].previous != head.hash:
        raise ArchiveInvalid("The audit log of the archive does not go on where the organization's ends.")
    await tx.add_many(tables.audit_entries, new)
    await tx.replace(
        tables.audit_heads, AuditHead(org_id=org_id, seq=new[-1].seq, hash=new[-1].hash, version=head.version)
    )


async def shorten_audit(tx: Transaction, org_id: str) -> int:
    """Take up to 500 entries off the end of the chain, but never the first; returns how many: what an undo does."""
    last = await tx.page(tables.audit_entries, {"org_id": org_id}, order=("-seq",), limit=ENTRIES)
    gone = [entry for entry in last if entry.seq > 1]
    if gone:
        head = await tx.lock(tables.audit_heads, org_id)
        await tx.remove_many(tables.audit_entries, [(org_id, entry.seq) for entry in gone])
        first = gone[-1]
        await tx.replace(tables.audit_heads, replace(head, seq=first.seq - 1, hash=first.previous))
    return len(gone)
