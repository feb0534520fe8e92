"""The ZIP file that an archive is: written as a stream, and read with distrust.

Nothing is ever unpacked to a disk. What the directory of the file says is checked before anything is read, and while a
file is read it may not become larger than the manifest says, have another sum, or a line without end.
"""

from __future__ import annotations

import errno
import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from io import SEEK_END
from typing import BinaryIO, Final, cast

from orgstead import archives
from orgstead.archives import FileFacts, Manifest
from orgstead.errors import ArchiveInvalid, ArchiveUnavailable

MAGIC: Final = b"PK\x03\x04"
CHUNK: Final = 256 * 1024
MAX_FILES: Final = 100_000
FREE_BYTES: Final = 1 << 30
"""So much an archive may unpack to, whatever its size."""

MAX_RATIO: Final = 100
"""So many times its size it may unpack to beyond that; real archives stay far below."""

_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError)
"""What the library says of a file that is not as it should be."""


def is_archive(stream: BinaryIO) -> bool:
    """Does the stream begin like an archive? Nothing is read from it."""
    begin = stream.read(len(MAGIC))
    stream.seek(0)
    return begin == MAGIC


# --- writing ----------------------------------------------------------------------------------------------------------


class FileWriter:
    """One file of an archive while it is written."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._sha = hashlib.sha256()
        self._bytes = 0
        self._lines = 0

    def write(self, content: bytes) -> int:
        """Add bytes; lines are counted by their ends."""
        self._write(content)
        self._sha.update(content)
        self._bytes += len(content)
        self._lines += content.count(b"\n")
        return len(content)

    @property
    def facts(self) -> FileFacts:
        return FileFacts(bytes=self._bytes, lines=self._lines, sha256=self._sha.hexdigest())


class ArchiveWriter:
    """Writes an archive to the stream, from its beginning. ``at`` is the moment; ``files`` what was written so far."""

    def __init__(self, stream: BinaryIO, at: datetime) -> None:
        stream.seek(0)
        stream.truncate()
        self._zip = zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, allowZip64=True)
        self.at = at
        self.files: dict[str, FileFacts] = {}

    @contextmanager
    def file(self, name: str, *, packed: bool = False) -> Iterator[FileWriter]:
        """The next file, complete at the end of the block. ``packed`` is content that is not worth compressing."""
        info = self._info(name)
        if packed:
            info.compress_type = zipfile.ZIP_STORED
        with self._zip.open(info, "w", force_zip64=True) as target:
            writer = FileWriter(target.write)
            yield writer
        self.files[name] = writer.facts

    def finish(self, manifest: Manifest) -> None:
        """Add the manifest and end the archive."""
        with self._zip.open(self._info(archives.MANIFEST), "w") as target:
            target.write(manifest.encoded())
        self._zip.close()

    def abandon(self) -> None:
        """Write nothing more, also not when it is forgotten: another archive is begun on the stream."""
        self._zip.fp = None

    def _info(self, name: str) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name, max(self.at.timetuple()[:6], (1980, 1, 1, 0, 0, 0)))
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o600 << 16
        return info


# --- reading ----------------------------------------------------------------------------------------------------------


@contextmanager
def _reading(otherwise: str) -> Iterator[None]:
    """Tell a damaged archive, about which ``otherwise`` is said, from a file that the system cannot read.

    Raises ``ArchiveInvalid``, ``ArchiveUnavailable``.
    """
    try:
        yield
    except (*_BROKEN, OSError) as error:
        fault = error if isinstance(error, OSError) else error.__context__  # the library wraps what it meets at first
        # "Invalid argument" is a place before the file's beginning, to which an altered directory may lead.
        if isinstance(fault, OSError) and fault.errno not in (None, errno.EINVAL):
            raise ArchiveUnavailable(f"The archive cannot be read: {fault.strerror}.") from error
        raise ArchiveInvalid(otherwise) from None


class ArchiveReader:
    """An archive whose directory and manifest were found good. ``digest`` is the SHA-256 of the manifest: its name.

    ``large`` lifts the bound on how much it may unpack to. Raises ``ArchiveInvalid``, and ``ArchiveUnavailable`` where
    the file itself cannot be read, here and while reading.
    """

    def __init__(self, stream: BinaryIO, *, large: bool = False) -> None:
        with _reading("The file is no archive, or was cut short."):
            size = stream.seek(0, SEEK_END)
            stream.seek(0)
            self._zip = zipfile.ZipFile(stream)
        self._entries = self._checked_entries(size)
        content = b"".join(self._chunks(archives.MANIFEST, archives.MAX_MANIFEST))
        self.manifest = archives.manifest(content)
        self.digest = hashlib.sha256(content).hexdigest()
        self._check_agreement(size, large)

    def _checked_entries(self, size: int) -> dict[str, zipfile.ZipInfo]:
        infos = self._zip.infolist()
        if len(infos) > MAX_FILES or sum(info.compress_size for info in infos) > size:
            raise ArchiveInvalid("The archive has more in it than can be in a file of its size.")
        entries: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            # orig_filename is what is in the file; the other one ends where the first NUL is.
            name = info.orig_filename
            if not archives.NAME.fullmatch(name) or name in entries:
                raise ArchiveInvalid("The archive has a file that does not belong into it, or one twice.")
            if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ArchiveInvalid("The archive is encrypted or packed in a way that orgstead does not use.")
            entries[name] = info
        if archives.MANIFEST not in entries:
            raise ArchiveInvalid("The file is not the archive of an organization: it has no manifest.")
        return entries

    def _check_agreement(self, size: int, large: bool) -> None:
        """The directory of the file and the manifest must say the same."""
        files = self.manifest.files
        if self._entries.keys() - {archives.MANIFEST} != files.keys():
            raise ArchiveInvalid("The files of the archive are not those that its manifest names.")
        if any(self._entries[name].file_size != facts.bytes for name, facts in files.items()):
            raise ArchiveInvalid("A file of the archive has not the size that the manifest says.")
        unpacked = sum(facts.bytes for facts in files.values())
        if not large and unpacked > max(FREE_BYTES, MAX_RATIO * size):
            raise ArchiveInvalid(
                f"The archive would unpack to {unpacked} bytes, more than {MAX_RATIO} times its size.",
                next="if you know where it comes from: add --large",
            )

    def content(self, name: str, at_most: int) -> bytes:
        """A small file whole."""
        if self.manifest.files[name].bytes > at_most:
            raise ArchiveInvalid(f"{name} is larger than it can be.")
        return b"".join(self._verified(name))

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a file, each with its end. At the last one the file's sum has been checked."""
        begun: list[bytes] = []
        count = size = 0
        for chunk in self._verified(name):
            first, *more = chunk.split(b"\n")
            begun.append(first)
            size += len(first)
            if size > archives.MAX_LINE:
                raise ArchiveInvalid(f"{name} has a line that is too long.")
            for following in more:
                count += 1
                yield b"".join(begun) + b"\n"
                begun, size = [following], len(following)
        if size or count != self.manifest.files[name].lines:
            raise ArchiveInvalid(f"{name} has not the lines that the manifest says.")

    def verify(self, name: str) -> None:
        """Check a file's sum without looking at what is in it."""
        for _ in self._verified(name):
            pass

    def _verified(self, name: str) -> Iterator[bytes]:
        facts = self.manifest.files[name]
        sha, size = hashlib.sha256(), 0
        for chunk in self._chunks(name, facts.bytes):
            sha.update(chunk)
            size += len(chunk)
            yield chunk
        if size != facts.bytes or sha.hexdigest() != facts.sha256:
            raise ArchiveInvalid(f"{name} is not as it was written: its checksum is another one.")

    def _chunks(self, name: str, at_most: int) -> Iterator[bytes]:
        """The bytes of a file; never more than ``at_most`` and a chunk are unpacked."""
        left = at_most
        with (
            _reading(f"{name} cannot be unpacked: the archive is damaged."),
            self._zip.open(self._entries[name]) as source,
        ):
            while chunk := cast(BinaryIO, source).read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise ArchiveInvalid(f"{name} unpacks to more than it may.")
                yield chunk
