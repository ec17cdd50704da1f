"""The byte-level alphabet of GPT-2: a visible character for each byte. Must not know files or families."""

from __future__ import annotations


def _alphabet() -> list[str]:
    """Bytes that print as a character of Latin-1 stand for themselves; the others take the code points from 256 on."""
    plain = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    hidden = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) if byte in plain else chr(256 + hidden.index(byte)) for byte in range(256)]


CHAR_OF_BYTE = _alphabet()
BYTE_OF_CHAR = {char: byte for byte, char in enumerate(CHAR_OF_BYTE)}


def visible(data: bytes) -> str:
    """Bytes as the characters a byte-level vocabulary writes for them."""
    return "".join(CHAR_OF_BYTE[byte] for byte in data)


def bytes_of(token: str) -> bytes | None:
    """The bytes a byte-level token stands for; None if it holds a character outside the alphabet."""
    try:
        return bytes(BYTE_OF_CHAR[char] for char in token)
    except KeyError:
        return None
