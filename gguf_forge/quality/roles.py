"""How sensitive a model is to each kind of tensor where nobody measured it: a table, of one trained Llama. No files.

Numbers are the mean Kullback-Leibler divergence (nats a token) that an error of 1, relative to the square of what it
falls on, would make if divergence went on growing as it begins. They are of a model of 6 layers; of a layer in a deeper
model there are more, and each counts less.
"""

from __future__ import annotations

from dataclasses import dataclass

from gguf_forge.names import Kind, kind_of


@dataclass(frozen=True)
class Role:
    """weights: where the error is relative to the weights themselves; outputs: to what they make of real inputs."""

    kind: Kind
    weights: float
    outputs: float


ROLES = (
    Role(Kind.OUTPUT, 1.1, 3.0),
    Role(Kind.TOKEN_EMBD, 0.26, 0.26),
    Role(Kind.VALUES, 0.05, 0.30),
    Role(Kind.ATTN_Q | Kind.ATTN_K, 0.007, 0.06),
    Role(Kind.ATTN_OUTPUT, 0.044, 0.38),
    Role(Kind.FFN_DOWN, 0.046, 0.32),
    Role(Kind.FFN_GATE, 0.015, 0.22),
    Role(Kind.FFN_UP, 0.014, 0.15),
)
OTHER = Role(Kind.OTHER, 0.03, 0.25)
LAYERS = 6


def sensitivity(name: str, layers: int, *, outputs: bool, tied: bool = False) -> float:
    """Of a tensor, by its name. tied: the embeddings serve as the output matrix, too."""
    kind = kind_of(name)
    role = next((role for role in ROLES if kind & role.kind), OTHER)
    number = role.outputs if outputs else role.weights
    if tied and kind is Kind.TOKEN_EMBD:
        number += ROLES[0].outputs if outputs else ROLES[0].weights
    return number * (LAYERS / layers if name.startswith("blk.") and layers > 0 else 1.0)
