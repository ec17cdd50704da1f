"""`gguf-forge evaluate` on trained models, against what llama-perplexity said of the same files and text."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from gguf_forge.errors import InvalidError, RequestError
from gguf_forge.quality.evaluate import Evaluation, EvaluationTask, evaluate
from gguf_forge.quality.html import page
from gguf_forge.quality.plots import LINE, Series, scatter
from tests.cli.conftest import Forge
from tests.quality.conftest import FIXTURES, needs_library

QUALITY = FIXTURES / "quality"
TEXT = QUALITY / "heldout.txt"
#: What is run here of the text: what llama-perplexity said after as many windows is known.
WINDOWS = 6
TASK = EvaluationTask([TEXT], context=256, chunks=WINDOWS, threads=1)
SHORT = replace(TASK, chunks=2)

pytestmark = needs_library


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("small") / 'Q2_K <small> & "old".gguf'
    gguf_forge.convert_checkpoint(FIXTURES / "models" / "PyLlama-7M", target, "Q2_K")
    return target


def reference(windows: int) -> str:
    """The perplexity that llama-perplexity gave after so many windows."""
    said = (QUALITY / "perplexity-f16.txt").read_text(encoding="utf-8")
    found = re.search(rf"\[{windows}\]([0-9.]+),", said)
    assert found is not None
    return found[1]


def test_perplexity_is_the_reference(dense: Path) -> None:
    found = evaluate([dense], TASK)
    assert f"{found.models[0].perplexity.value:.4f}" == reference(WINDOWS)
    assert (found.windows, found.positions, found.base) == (6, 6 * 127, None)


def test_the_stored_logits_are_of_the_reference_s_form(dense: Path, small: Path, tmp_path: Path) -> None:
    logits = tmp_path / "base.logits"
    first = evaluate([small], SHORT, against=dense, base_logits=logits)
    assert first.base is not None
    assert f"{first.base.perplexity.value:.4f}" == reference(2)
    raw = logits.read_bytes()
    magic, context, vocabulary, windows = struct.unpack_from("<8sIii", raw)
    assert (magic, context, vocabulary, windows) == (b"_logits_", 256, 4096, 2)
    rows = 20 + 4 * 2 * 256
    header = np.frombuffer(raw, "<f4", 2, rows)
    assert 0 < header[0] <= 16 / 65535
    assert len(raw) == rows + 2 * 2 * 127 * (4096 + 4) + 40
    # A file as llama-perplexity leaves it, which does not say whose logits it holds.
    logits.write_bytes(raw[:-40])
    again = evaluate([small], SHORT, against=dense, base_logits=logits)
    assert (first.reused, first.unsure, again.reused, again.unsure) == (False, False, True, True)
    assert again.models[0].beside == first.models[0].beside
    assert again.base is not None
    assert again.base.perplexity.value == pytest.approx(first.base.perplexity.value, rel=1e-5)


def test_logits_of_another_model_or_text_are_not_used(dense: Path, small: Path, tmp_path: Path) -> None:
    logits, task = tmp_path / "base.logits", replace(TASK, chunks=1)
    evaluate([], task, against=small, base_logits=logits)
    assert evaluate([], task, against=small, base_logits=logits).reused
    assert not evaluate([], task, against=dense, base_logits=logits).reused
    assert not evaluate([], replace(task, context=64), against=dense, base_logits=logits).reused
    found = evaluate([dense], replace(task, context=64), against=dense, base_logits=logits)
    assert found.reused
    assert found.models[0].beside is not None
    assert found.models[0].beside.same_top.value == 1


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda raw: raw[:4], "does not begin with _logits_"),
        (lambda raw: raw[:-50], "bytes of"),
        (lambda raw: raw[:8] + b"\xff" * 12 + raw[20:], "base logits of -1 windows"),
        (lambda raw: raw[:20] + b"\xff" * 4 + raw[24:], "a token outside the vocabulary"),
    ],
)
def test_damaged_logits_are_one_line(dense: Path, tmp_path: Path, forge: Forge, damage: Any, says: str) -> None:
    logits = tmp_path / "base.logits"
    evaluate([], replace(TASK, context=16, chunks=1), against=dense, base_logits=logits)
    logits.write_bytes(damage(logits.read_bytes()))
    words = ("--text", TEXT, "-c", 16, "--chunks", 1, "-t", 1, "--against", dense, "--base-logits", logits, "-q")
    done = forge("evaluate", dense, *words)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert says in done.err


def test_a_model_that_reads_other_tokens_is_refused(dense: Path, routed: Path) -> None:
    with pytest.raises(InvalidError, match="reads the text as other tokens"):
        evaluate([routed], replace(TASK, chunks=1), against=dense)


def test_too_short_a_text_is_refused(dense: Path, tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("import os\n", encoding="utf-8")
    with pytest.raises(RequestError, match="one window of 256"):
        evaluate([dense], replace(TASK, texts=[text]))


class Resources(HTMLParser):
    """What a page would load, and the tags that it leaves open."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [f"{tag} {key}" for key, _ in attrs if key in {"src", "href", "srcset", "data", "xlink:href"}]
        self.loaded += [tag] if tag in {"script", "link", "iframe"} else []
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def answered(dense: Path, small: Path) -> Evaluation:
    prompts = ["def parse(", "<script>x</script> & "]
    return evaluate([small, dense], replace(SHORT, prompts=prompts, predict=8), against=dense)


def test_answers_and_the_page(dense: Path, small: Path) -> None:
    found = answered(dense, small)
    assert found.base is not None
    theirs = found.base.answers
    assert [len(answer.tokens) for answer in theirs] == [8, 8]
    assert [answer.equal for answer in found.models[1].answers] == [8, 8]
    assert found.models[1].answers[0].text == theirs[0].text
    assert found.models[0].answers[0].tokens != theirs[0].tokens
    text = page(found)
    parser = Resources()
    parser.feed(text)
    assert (parser.loaded, parser.open) == ([], [])
    assert text.count("<svg") == 3
    assert text.count("<h2>Answers</h2>") == 1
    assert not re.search(r"url\(|@import|<script", text)
    assert "&lt;script&gt;x&lt;/script&gt; &amp; " in text
    assert "Q2_K &lt;small&gt; &amp; &quot;old&quot;" in text


def test_names_beside_dots_do_not_cover_each_other() -> None:
    drawn = scatter([Series(f"a model of {i}", [(1 + i / 1000, 2.0)]) for i in range(5)], "MiB", "KL")
    heights = [float(y) for y in re.findall(r'y="([0-9.]+)">a model', drawn)]
    assert len(heights) == 5
    assert min(np.diff(sorted(heights))) >= LINE


def test_the_command_prints_what_was_found(dense: Path, small: Path, tmp_path: Path, forge: Forge) -> None:
    out = tmp_path / "page.html"
    words = ("--against", dense, "--text", TEXT, "-c", 256, "--chunks", 2, "-t", 1, "-q")
    done = forge("evaluate", small, *words, "--json", "--html", out)
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert (found["windows"], found["positions"], found["context"]) == (2, 254, 256)
    assert f"{found['base']['perplexity']['value']:.4f}" == reference(2)
    model = found["models"][0]
    assert model["bytes"] == small.stat().st_size
    assert model["type"] == "Q2_K"
    assert model["beside"]["kl"]["value"] == pytest.approx(np.mean(model["window_kl"]))
    assert 0.02 < model["beside"]["kl"]["value"] < 0.5
    assert model["beside"]["kl_quantiles"]["0.999"] > model["beside"]["kl_median"]
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    shown = forge("evaluate", small, *words, "-p", "import ", "-n", 4)
    assert f"{1000 * model['beside']['kl']['value']:.3f} +/- " in shown.out
    assert "after 'import ':" in shown.out


def test_logits_need_a_base(dense: Path, tmp_path: Path, forge: Forge) -> None:
    done = forge("evaluate", dense, "--text", TEXT, "--base-logits", tmp_path / "base.logits")
    assert done.code == 2
    assert "--against, which is not given" in done.err
