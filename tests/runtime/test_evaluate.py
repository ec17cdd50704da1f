"""All that llama-perplexity prints of a model beside its base, over a whole text: equal to the last digit it prints."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

import gguf_forge
from gguf_forge.quality.evaluate import EvaluationTask, evaluate
from gguf_forge.quality.statistics import Summary
from tests.quality.conftest import FIXTURES

QUALITY = FIXTURES / "quality"

pytestmark = pytest.mark.runtime


def printed(found: Summary) -> dict[str, str]:
    """The figures under llama-perplexity's names, as it writes them."""
    ratio, difference, rms, same = (
        found.perplexity_ratio,
        found.difference.scaled(100),
        found.difference_rms.scaled(100),
        found.same_top.scaled(100),
    )
    lines = {
        "Mean PPL(Q)": f"{found.perplexity.value:.6f} ± {found.perplexity.error:.6f}",
        "Mean PPL(base)": f"{found.base_perplexity.value:.6f} ± {found.base_perplexity.error:.6f}",
        "Cor(ln(PPL(Q)), ln(PPL(base)))": f"{100 * found.correlation:.2f}%",
        "Mean ln(PPL(Q)/PPL(base))": f"{math.log(ratio.value):.6f} ± {ratio.error / ratio.value:.6f}",
        "Mean PPL(Q)/PPL(base)": f"{ratio.value:.6f} ± {ratio.error:.6f}",
        "Mean PPL(Q)-PPL(base)": f"{found.perplexity_difference.value:.6f} ± {found.perplexity_difference.error:.6f}",
        "Mean KLD": f"{found.kl.value:.6f} ± {found.kl.error:.6f}",
        "Maximum KLD": f"{found.kl_maximum:.6f}",
        "Median KLD": f"{found.kl_median:.6f}",
        "Minimum KLD": f"{found.kl_minimum:.6f}",
        "Mean Δp": f"{difference.value:.3f} ± {difference.error:.3f} %",
        "Maximum Δp": f"{100 * found.difference_maximum:.3f}%",
        "Median Δp": f"{100 * found.difference_median:.3f}%",
        "Minimum Δp": f"{100 * found.difference_minimum:.3f}%",
        "RMS Δp": f"{rms.value:.3f} ± {rms.error:.3f} %",
        "Same top p": f"{same.value:.3f} ± {same.error:.3f} %",
    }
    lines |= {f"{100 * share:.1f}% KLD": f"{value:.6f}" for share, value in found.kl_quantiles.items()}
    lines |= {f"{100 * share:.1f}% Δp": f"{100 * value:.3f}%" for share, value in found.difference_quantiles.items()}
    return lines


def test_every_figure_is_that_of_llama_perplexity(tmp_path: Path) -> None:
    for kind in ("f16", "Q4_K_M"):
        gguf_forge.convert_checkpoint(FIXTURES / "models" / "PyLlama-7M", tmp_path / f"{kind}.gguf", kind)
    task = EvaluationTask([QUALITY / "heldout.txt"], context=256)
    found = evaluate([tmp_path / "Q4_K_M.gguf"], task, against=tmp_path / "f16.gguf")
    assert found.base is not None
    alone = found.base.perplexity
    last = (QUALITY / "perplexity-f16.txt").read_text(encoding="utf-8").splitlines()[0]
    assert last == f"Final estimate: PPL = {alone.value:.4f} +/- {alone.error:.5f}"
    beside = found.models[0].beside
    assert beside is not None
    ours = printed(beside)
    said = (QUALITY / "perplexity-kld-q4_k_m.txt").read_text(encoding="utf-8")
    theirs = dict(re.findall(r"^ *(\S.*?) *: +(.*?) *$", said, re.MULTILINE))
    assert len(theirs) == 34
    assert {name: re.sub(r" +", " ", value) for name, value in theirs.items()} == {
        name: ours[re.sub(r" +", " ", name)] for name in theirs
    }
