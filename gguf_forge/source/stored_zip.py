"""Where the members of an uncompressed zip archive lie. Never inflates; must not know what members mean."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Set as AbstractSet

import numpy as np

from gguf_forge.errors import FormatError, InvalidError, TruncatedError, UnsupportedError, escaped
from gguf_forge.source.input_file import InputFile

_ENCRYPTED = 0x1
_LOCAL_BYTES = 30


class StoredZip:
    """The directory of an open zip archive. Raises FormatError when there is none, InvalidError for repeated names."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        try:
            with zipfile.ZipFile(io.BufferedReader(_RawInput(file))) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, EOFError, IndexError) as error:
            raise FormatError(f"damaged zip archive: {error!s:.80}", path=file.path) from None
        self._members = {member.filename: member for member in members}
        if len(self._members) != len(members):
            raise InvalidError("zip archive holds two members of one name", path=file.path)

    @property
    def names(self) -> AbstractSet[str]:
        """Names of all members."""
        return self._members.keys()

    def place(self, name: str) -> tuple[int, int]:
        """Offset in the file and size in bytes of a member.

        Raises UnsupportedError for a compressed or encrypted one, TruncatedError for one that is not all there.
        """
        member = self._members[name]
        path, field = self._file.path, f'member "{escaped(name)}"'
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise UnsupportedError(
                "compressed; weights are stored plain, and nothing is inflated", path=path, field=field
            )
        if member.flag_bits & _ENCRYPTED:
            raise UnsupportedError("encrypted", path=path, field=field)
        if member.header_offset < 0:
            raise InvalidError(f"local header at offset {member.header_offset}", path=path, field=field)
        local = self._file.read(member.header_offset, _LOCAL_BYTES)
        if local[:4] != b"PK\x03\x04":
            raise FormatError("no local header", path=path, field=field, offset=member.header_offset)
        name_bytes, extra_bytes = struct.unpack("<HH", local[26:])
        offset = member.header_offset + _LOCAL_BYTES + name_bytes + extra_bytes
        if offset + member.file_size > self._file.size:
            raise TruncatedError(
                f"ends at byte {offset + member.file_size}, file has {self._file.size}", path=path, field=field
            )
        return offset, member.file_size


class _RawInput(io.RawIOBase):
    """An InputFile as the seekable stream that zipfile wants."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = max(0, min(len(buffer), self._file.size - self._at))
        target = np.frombuffer(buffer, np.uint8, count)
        self._file.read_into(target, self._at)
        self._at += count
        return count
