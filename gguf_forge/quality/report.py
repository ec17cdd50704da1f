"""An evaluation as plain values, and as the rows of a table. Must not know how either is shown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gguf_forge.quality.evaluate import Evaluation, Verdict

#: Heading, and what a reader may want to be told of it.
BESIDE = {
    "KL x 1000": "mean divergence from the base, in thousandths of a nat, and its standard error",
    "median": "divergence x 1000 that half of the positions do not exceed",
    "99.9 %": "divergence x 1000 that one position in a thousand exceeds",
    "same top": "positions where both hold the same token for the likeliest",
    "RMS dp": "root mean square of the differences of the following token's probability",
}
ALONE = {
    "file": "",
    "type": "",
    "bytes": "",
    "bits": "bits per weight",
    "perplexity": "of the following token, and its standard error",
}


def document(found: Evaluation) -> dict[str, Any]:
    """All there is, for programs: divergences in nats, probabilities and their differences as shares of 1.

    Each estimate is {value, error}; quantiles are {share of positions: figure}.
    """
    task = found.task
    return {
        "texts": [str(text) for text in task.texts],
        "context": task.context,
        "windows": found.windows,
        "positions": found.positions,
        "prompts": list(task.prompts),
        "base": None if found.base is None else _plain(found.base),
        "models": [_plain(verdict) for verdict in found.models],
    }


def _plain(verdict: Verdict) -> dict[str, Any]:
    return {
        "file": str(verdict.path),
        "type": verdict.type,
        "bytes": verdict.bytes,
        "bits_per_weight": verdict.bits_per_weight,
        "perplexity": asdict(verdict.perplexity),
        "beside": None if verdict.beside is None else asdict(verdict.beside),
        "window_kl": list(verdict.window_kl),
        "answers": [asdict(answer) for answer in verdict.answers],
        "seconds": verdict.seconds,
    }


def headings(found: Evaluation) -> dict[str, str]:
    """The table's columns, and what each is."""
    return ALONE | (BESIDE if found.base is not None else {})


def rows(found: Evaluation) -> list[list[str]]:
    """The table's rows, the base first."""
    verdicts = [*([found.base] if found.base is not None else []), *found.models]
    return [_row(verdict) for verdict in verdicts]


def _row(verdict: Verdict) -> list[str]:
    bits = "?" if verdict.bits_per_weight is None else f"{verdict.bits_per_weight:.3f}"
    perplexity = f"{verdict.perplexity.value:.4f} +/- {verdict.perplexity.error:.4f}"
    row = [verdict.path.name, verdict.type, str(verdict.bytes), bits, perplexity]
    beside = verdict.beside
    if beside is None:
        return row
    return [
        *row,
        f"{1000 * beside.kl.value:.3f} +/- {1000 * beside.kl.error:.3f}",
        f"{1000 * beside.kl_median:.3f}",
        f"{1000 * beside.kl_quantiles[0.999]:.2f}",
        f"{beside.same_top.value:.2%}",
        f"{beside.difference_rms.value:.3%}",
    ]
