"""The encoder of text with DNA in it. Must not know how the text around it is encoded."""

from __future__ import annotations

from gguf_forge.convert.vocab.dna import DNA_LENGTH, DNA_MARK, DNA_TAGS
from gguf_forge.convert.vocab.encode.merging import RankedEncoder
from gguf_forge.convert.vocab.encode.words import Words


class DNAEncoder:
    """What stands between <dna> and </dna> is cut into words of six letters, the last filled up with A."""

    def __init__(self, words: Words, text: RankedEncoder) -> None:
        self._words, self._text = words, text

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without special tokens."""
        opening, closing, unknown = (self._words.id_of(tag) for tag in DNA_TAGS)
        if opening is None or closing is None or unknown is None:
            return self._text.encode(text)
        ids: list[int] = []
        before, opened, rest = text.partition(DNA_TAGS[0])
        while opened:
            dna, closed, after = rest.partition(DNA_TAGS[1])
            ids += self._text.encode(before) if before else []
            ids += [opening, *self._encode_dna(dna, unknown), *([closing] if closed else [])]
            before, opened, rest = after.partition(DNA_TAGS[0])
        return ids + (self._text.encode(before) if before else [])

    def _encode_dna(self, dna: str, unknown: int) -> list[int]:
        data = dna.encode().upper()
        data += b"A" * (-len(data) % DNA_LENGTH)
        ids = []
        for start in range(0, len(data), DNA_LENGTH):
            word = data[start : start + DNA_LENGTH].decode(errors="replace")
            number = self._words.id_of(word + DNA_MARK)
            ids.append(unknown if number is None else number)
        return ids
