"""A SentencePiece vocabulary before a family, its added tokens and GGUF come in: pieces and how text is cut into them.

Knows tokenizer.model; `spm_json` makes the same of tokenizer.json. Must not know what is added to pieces.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gguf_forge.convert.vocab.protobuf import BPE, UNIGRAM, PieceModel, read_piece_model
from gguf_forge.convert.vocab.sentencepiece import open_model, piece_type
from gguf_forge.convert.vocab.tokens import ADDED_SCORE, TokenType
from gguf_forge.errors import CheckpointError


@dataclass(frozen=True)
class Pieces:
    """Pieces by id, with scores and types; a text is None where the file has no piece of that id.

    `file`: its name. `added_score`: what a token gets that is no piece. `settings`: how a text is prepared, and whether
    it is cut into the pieces whose scores, log probabilities, have the highest sum (UNIGRAM), or by merging pairs, that
    with the highest score first (BPE). `roles`: ids of bos, eos, unk and pad, as far as the file says.
    """

    file: str
    texts: list[str | None]
    scores: list[float]
    types: list[TokenType]
    added_score: float
    settings: PieceModel
    roles: Mapping[str, int]

    @property
    def unigram(self) -> bool:
        """Whether a text is cut by probability."""
        return self.settings.kind == UNIGRAM


def read_pieces_of(path: Path) -> Pieces:
    """All pieces of a SentencePiece file. CheckpointError if it is damaged, or of neither kind."""
    model = open_model(path)
    settings = read_piece_model(path)
    if settings.kind not in (UNIGRAM, BPE):
        raise CheckpointError(f"{path}: a SentencePiece model of kind {settings.kind}, neither BPE nor Unigram")
    count = int(model.vocab_size())
    roles = {"bos": model.bos_id(), "eos": model.eos_id(), "unk": model.unk_id(), "pad": model.pad_id()}
    types = [piece_type(model, piece) for piece in range(count)]
    for piece in settings.user_defined:
        types[piece] = TokenType.USER_DEFINED
    return Pieces(
        file=path.name,
        texts=[model.id_to_piece(piece) for piece in range(count)],
        scores=[float(model.get_score(piece)) for piece in range(count)],
        types=types,
        added_score=ADDED_SCORE,
        settings=settings,
        roles={role: number for role, number in roles.items() if number >= 0},
    )
