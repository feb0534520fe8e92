"""Exporting one organization as one archive, as it is at one moment, in little memory.

The records are read in one snapshot of the space. The directory is another snapshot, before and after: where it says
the same both times, it was so at the moment of the records, too; where it does not, the export begins anew. Log-ins do
not matter for that, so the audit chain may end a little earlier, before entries that concern nothing in the archive.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final

from orgstead import archives, lifecycle, model, organizations, record_collections, spaces
from orgstead.archive_files import CHUNK, ArchiveWriter
from orgstead.archives import CollectionFacts, Head, LinesDigest, Manifest, Point, TableFormat
from orgstead.errors import ConfigurationError, Conflict, NotFound, StatusConflict
from orgstead.kit import rfc3339
from orgstead.model import AuditHead, Placement, Role, SlugState
from orgstead.organizations import Located
from orgstead.record_columns import Columns
from orgstead.record_tables import Sink, Table, as_line, csv_table, pages
from orgstead.storage import tables
from orgstead.storage.port import Space, SystemScope, Transaction

if TYPE_CHECKING:
    from orgstead.app import App

SCOPE = SystemScope("export organization")
BATCH: Final = 500
TRIES: Final = 3
"""How often an export begins anew because the organization or its members were changed meanwhile."""

Advance = Callable[[int], None]
"""Told how many more records were written."""

Tables = Mapping[TableFormat, Callable[[Sink, Columns], AbstractContextManager[Table]]]
"""The formats that are wanted besides, each with what begins a table."""


def _ignore(count: int) -> None: ...


@dataclass(slots=True)
class _Records:
    """What a snapshot of the space has."""

    events: int
    collections: dict[str, CollectionFacts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Directory:
    """What a snapshot of the directory says; members and audit are in temporary files."""

    organization: bytes
    placement: Placement
    members: bytes
    count: int
    head: AuditHead


class _Copy:
    """A snapshot of the directory, kept aside: what is long is in files, which are emptied when it is taken anew."""

    def __init__(self, stack: ExitStack) -> None:
        self.members = stack.enter_context(_aside())
        self.audit = stack.enter_context(_aside())

    async def take(self, tx: Transaction, org_id: str) -> _Directory:
        """Raises ``NotFound``, ``StatusConflict`` for an organization that is being made or purged."""
        for file in (self.members, self.audit):
            file.seek(0)
            file.truncate()
        located = await organizations.get(tx, org_id)
        if located.organization.status in lifecycle.BUSY:
            raise StatusConflict(f"The organization is {located.organization.status}.")
        slugs = await tx.page(tables.slugs, {"org_id": org_id, "state": SlugState.REDIRECT}, limit=BATCH)
        digest, count = LinesDigest(), 0
        async for line in _member_lines(tx, org_id):
            self.members.write(line)
            digest.take(line)
            count += 1
        head = await tx.get(tables.audit_heads, org_id)
        await self._audit(tx, org_id)
        text = archives.organization_json(located.organization, sorted(claim.slug for claim in slugs))
        return _Directory(text, located.placement, digest.hexdigest().encode(), count, head)

    async def _audit(self, tx: Transaction, org_id: str) -> None:
        seq = 0
        while entries := await tx.page(
            tables.audit_entries, {"org_id": org_id}, order=("seq",), after=(seq, org_id), limit=BATCH
        ):
            self.audit.write(b"".join(map(archives.audit_line, entries)))
            seq = entries[-1].seq


def _aside() -> tempfile.SpooledTemporaryFile[bytes]:
    return tempfile.SpooledTemporaryFile(max_size=4 * 1_048_576)


async def _member_lines(tx: Transaction, org_id: str) -> AsyncIterator[bytes]:
    """Owners first, so that an organization that is being made anew has one from the first member on."""
    for role in (Role.OWNER, Role.ADMIN, Role.MEMBER, Role.VIEWER):
        after: tuple[str, str] | None = None
        where = {"org_id": org_id, "role": role}
        while rows := await tx.page(tables.memberships, where, order=("user_id",), after=after, limit=BATCH):
            users = {user.id: user for user in await tx.find_many(tables.users, [(row.user_id,) for row in rows])}
            for row in rows:
                if row.user_id in users:
                    yield archives.member_line(row, users[row.user_id])
            after = (rows[-1].user_id, org_id)


async def _head(tx: Transaction, org_id: str) -> Located:
    return await organizations.get(tx, org_id)


async def export(
    app: App,
    org_id: str,
    target: BinaryIO,
    *,
    formats: Collection[TableFormat] = (),
    advance: Advance = _ignore,
) -> Manifest:
    """Write the archive to a stream that can be read back and emptied; returns its manifest.

    ``formats`` are written besides, for each of which the records are read once more. Takes a few megabytes of memory,
    with Parquet a few dozen, however many records there are. Raises ``NotFound``, ``StatusConflict``, ``Conflict``
    where the organization or its members change all the time, ``ConfigurationError`` where a format needs a library
    that is not installed.
    """
    wanted = _tables(formats)
    for _ in range(TRIES):
        with ExitStack() as stack:
            before, after = _Copy(stack), _Copy(stack)
            said = await app.storage.scan(SCOPE, before.take, org_id)
            begun: list[ArchiveWriter] = []

            def begin(begun: list[ArchiveWriter] = begun) -> ArchiveWriter:
                _abandon(begun)
                begun[:] = [ArchiveWriter(target, app.clock())]
                return begun[0]

            stack.callback(_abandon, begun)
            found = await spaces.scan(app, said.placement, _write_space, begin, wanted, advance)
            says = await app.storage.scan(SCOPE, after.take, org_id)
            if not _same(said, says):
                continue
            (writer,) = begun
            with writer.file(archives.ORGANIZATION) as file:
                file.write(said.organization)
            for name, copy in ((archives.MEMBERS, before.members), (archives.AUDIT, before.audit)):
                copy.seek(0)
                with writer.file(name) as file:
                    while chunk := copy.read(CHUNK):
                        file.write(chunk)
            manifest = _manifest(org_id, writer, said, found)
            writer.finish(manifest)
            return manifest
    raise Conflict("The organization was changed again and again while it was exported; try again later.")


def _tables(formats: Collection[TableFormat]) -> Tables:
    found: dict[TableFormat, Callable[[Sink, Columns], AbstractContextManager[Table]]] = {}
    if TableFormat.CSV in formats:
        found[TableFormat.CSV] = csv_table
    if TableFormat.PARQUET in formats:
        try:
            from orgstead.record_parquet import parquet_table
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "orgstead":
                raise
            raise ConfigurationError(
                "Parquet is written by the library pyarrow, which is not installed.",
                next="pip install 'orgstead[parquet]'",
            ) from error
        found[TableFormat.PARQUET] = parquet_table
    return found


def _abandon(writers: Sequence[ArchiveWriter]) -> None:
    for writer in writers:
        writer.abandon()


def _same(before: _Directory, after: _Directory) -> bool:
    return (before.organization, before.placement, before.members) == (
        after.organization,
        after.placement,
        after.members,
    )


def _manifest(org_id: str, writer: ArchiveWriter, said: _Directory, found: _Records) -> Manifest:
    return Manifest(
        format=archives.FORMAT,
        version=archives.VERSION,
        software=archives.software(),
        organization_id=org_id,
        slug=archives.parsed(archives.ArchivedOrganization, said.organization, archives.ORGANIZATION).slug,
        point=Point(at=rfc3339(writer.at), events=found.events, audit=Head(seq=said.head.seq, hash=said.head.hash)),
        members=said.count,
        collections=found.collections,
        files=writer.files,
    )


# --- the space --------------------------------------------------------------------------------------------------------


async def _write_space(
    tx: Transaction, space: Space, begin: Callable[[], ArchiveWriter], wanted: Tables, advance: Advance
) -> _Records:
    """Write collections and records. The transaction may be begun again, and then so is the archive."""
    slots = await tx.page(tables.slots, {"org_id": space.org_id, "epoch": space.epoch}, limit=1)
    if not slots:
        raise NotFound  # it was moved or renamed since the placement was read
    writer = begin()
    found = _Records(events=slots[0].seq)
    definitions: list[model.Collection] = []
    after: str | None = None
    while batch := await record_collections.page(tx, space, after=after, limit=BATCH):
        definitions += batch
        after = batch[-1].name
    with writer.file(archives.COLLECTIONS) as file:
        for collection in definitions:
            file.write(archives.collection_line(collection))
    for collection in definitions:
        await _write_collection(tx, writer, collection.name, found, wanted, advance)
    return found


async def _write_collection(
    tx: Transaction, writer: ArchiveWriter, name: str, found: _Records, wanted: Tables, advance: Advance
) -> None:
    digest, columns = LinesDigest(), Columns()
    with writer.file(archives.records_file(name)) as file:
        async for batch in pages(tx, name):
            lines = [as_line(record) for record in batch]
            file.write(b"".join(lines))
            for line in lines:
                digest.take(line)
            columns.note(batch)
            advance(len(batch))
    found.collections[name] = CollectionFacts(records=digest.count, bytes=columns.bytes, digest=digest.hexdigest())
    for form, begun in wanted.items():
        with (
            writer.file(form.file(name), packed=form is TableFormat.PARQUET) as file,
            begun(file, columns) as table,
        ):
            async for batch in pages(tx, name):
                table.add(batch)
