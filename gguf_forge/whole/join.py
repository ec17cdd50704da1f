"""Parts of a file put together: `join`. Knows shares and where their bytes belong, and encodes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from gguf_forge.convert.identity import differences
from gguf_forge.errors import IncompleteSetError, InvalidError, escaped, listed
from gguf_forge.format.atomic import AtomicFile
from gguf_forge.format.layout import LIMITS
from gguf_forge.format.parse import parse
from gguf_forge.format.places import require_other
from gguf_forge.format.sets import Shard
from gguf_forge.format.share import Piece, Share
from gguf_forge.format.validate import Checked, align, validate

StrPath = str | os.PathLike[str]
Progress = Callable[[int, int], None]


def join(
    output: StrPath, parts: Sequence[StrPath], *, overwrite: bool = True, progress: Progress | None = None
) -> Shard:
    """Puts the parts that `convert` and `quantize` made with `part=(I, N)` together: the file that one run makes.

        gguf_forge.convert_checkpoint("model", "model.gguf", "Q4_K_M", part=(1, 2))    # on one machine
        gguf_forge.convert_checkpoint("model", "model.gguf", "Q4_K_M", part=(2, 2))    # on another
        gguf_forge.join("model.gguf", ["model.gguf.00001-of-00002.part", "model.gguf.00002-of-00002.part"])

    parts: all of them, in any order. The file appears only when it is whole, and every byte is what its part's digest
    says. Raises IncompleteSetError where parts are missing; InvalidError for two that are not of one plan, one source
    and one encoder, for one given twice, for bytes that are not as they were written; what `Share` raises; OutputError.
    """
    path = Path(output)
    shares = _opened([Path(part) for part in parts])
    require_other([share.path for share in shares], [path])
    checked = _header(shares[0])
    _require_all(shares, checked)
    total = sum(piece.nbytes for share in shares for piece in share.pieces)
    out = AtomicFile(path, shares[0].size, overwrite=overwrite)
    done = 0
    try:
        for share in shares:
            with Share(share.path) as again:
                if (again.part, again.pieces) != (share.part, share.pieces):
                    raise InvalidError("was replaced meanwhile", path=share.path)
                for piece in again.pieces:
                    at = piece.offset
                    for data in again.data(piece):
                        out.write_at(data, at)
                        at += len(data)
                        done += len(data)
                        if progress is not None:
                            progress(done, total)
        out.seal()
        out.publish()
    except BaseException:
        out.discard()
        raise
    return Shard(path, [tensor.info.name for tensor in checked.tensors], shares[0].size)


def _opened(paths: Sequence[Path]) -> list[Share]:
    """The indexes of all parts, in order, of one file. Not open any more: there may be more than a process may open."""
    if not paths:
        raise IncompleteSetError("no parts given")
    shares = []
    for path in paths:
        with Share(path) as share:
            shares.append(share)
    first, count = shares[0], shares[0].part[1]
    found: dict[int, Share] = {}
    for share in shares:
        if (share.part[1], share.size) != (count, first.size):
            text = f"part {share.part[0]} of {share.part[1]}, of a file of {share.size} bytes"
            raise InvalidError(f"{text}; {escaped(str(first.path))} is of another", path=share.path)
        other = found.setdefault(share.part[0], share)
        if other is not share:
            raise InvalidError(f"is part {share.part[0]}, as {escaped(str(other.path))} is", path=share.path)
        lines = differences(share.facts, first.facts, elsewhere=True)
        if lines:
            raise InvalidError(f"and {escaped(str(first.path))}: of {'; '.join(lines)}", path=share.path)
    missing = [f"{number} of {count}" for number in range(1, count + 1) if number not in found]
    if missing:
        raise IncompleteSetError(f"not all parts are given; missing: {listed(missing)}", path=first.path)
    return [found[number] for number in range(1, count + 1)]


def _header(first: Share) -> Checked:
    """The file's header, which the first part holds. Raises InvalidError, and what is wrong with it."""
    piece = first.pieces[0] if first.pieces else None
    if piece is None or piece.offset:
        raise InvalidError("the first part holds no header", path=first.path)
    with Share(first.path) as again:
        header = b"".join(bytes(data) for data in again.data(piece))
    plan = first.facts.get("plan")
    if not isinstance(plan, dict) or plan.get("header") != sha256(header).hexdigest():
        raise InvalidError("its header is not the plan's", path=first.path)
    checked = validate(parse(header, first.size, first.path, LIMITS), LIMITS)
    if checked.data_start != len(header):
        raise InvalidError(f"a header of {len(header)} bytes, and data from {checked.data_start}", path=first.path)
    end = max([checked.data_start, *(tensor.start + tensor.nbytes for tensor in checked.tensors)])
    if not end <= first.size <= align(end, checked.alignment):  # the last tensor has its padding, or none
        raise InvalidError(f"data end at {end}, and the file is to have {first.size} bytes", path=first.path)
    return checked


def _require_all(shares: Sequence[Share], checked: Checked) -> None:
    """Raises InvalidError unless the parts hold every byte of every tensor, once, and nothing else."""
    pieces: list[tuple[Piece, Path]] = [(piece, share.path) for share in shares for piece in share.pieces]
    pieces.sort(key=lambda one: one[0].offset)
    wanted = [(0, checked.data_start, "the header")]
    wanted += sorted((t.start, t.start + t.nbytes, f'tensor "{escaped(t.info.name)}"') for t in checked.tensors)
    number = 0
    for start, stop, field in wanted:
        at = start
        while at < stop:
            piece, path = pieces[number] if number < len(pieces) else (None, shares[-1].path)
            if piece is None or piece.offset != at or at + piece.nbytes > stop:
                text = f"no part has byte {at} of the file, or one has others with it"
                raise InvalidError(text, path=path, field=field)
            at += piece.nbytes
            number += 1
    if number < len(pieces):
        piece, path = pieces[number]
        raise InvalidError(f"bytes from {piece.offset} on are not of the file, or twice there", path=path)
