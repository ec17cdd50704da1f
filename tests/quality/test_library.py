"""llama.cpp's library is found, checked and refused; its model computes what other evaluations of it do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType

import numpy as np
import pytest

from gguf_forge.errors import FormatError, InvalidError, RequestError, UnsupportedError
from gguf_forge.quality import library as module
from gguf_forge.quality.declarations import LAYOUTS, Layout
from gguf_forge.quality.library import LibraryError, find_library, library
from gguf_forge.quality.session import Model, Product, Session, cut_windows, weight_name
from tests.quality.conftest import TEXT, needs_library
from tests.runtime import llama


def test_without_a_library_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(module.VARIABLE, raising=False)
    monkeypatch.setattr(module, "PACKAGES", {})
    with pytest.raises(LibraryError, match=r"pip install 'gguf-forge\[run\]'"):
        find_library()


def test_a_named_library_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(module.VARIABLE, str(tmp_path / "libllama.so"))
    with pytest.raises(LibraryError, match="no such file"):
        find_library()


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "libllama.so"
    path.write_bytes(b"\x7fELF")
    with pytest.raises(LibraryError, match="cannot be loaded"):
        module.Library(path)


@needs_library
def test_another_layout_than_the_library_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAYOUTS", (Layout("none", "size_t a; size_t b; size_t c;"),))
    with pytest.raises(LibraryError, match=r"not known here \(none: llama_context_default_params"):
        module.Library(find_library())


@needs_library
def test_the_library_in_use_has_a_known_layout() -> None:
    assert library().layout in LAYOUTS


@needs_library
def test_logits_are_those_of_a_plain_evaluation(dense: Path) -> None:
    with Model(dense) as model:
        tokens = cut_windows(model, model.tokenize(TEXT.read_bytes()[:4000]), 48, 3)
        with Session(model, 48, threads=1) as session:
            together = session.evaluate(tokens)
            assert together is not None
            together = together.copy()
            part = session.evaluate(tokens, first=40)
            assert part is not None
            assert np.array_equal(part, together[:, 40:])
            session.clear()
            for at in range(0, 48, 16):
                last = session.extend(tokens[0, at : at + 16])
            assert np.abs(last - together[0, -1]).max() < 0.02
            with pytest.raises(RequestError, match="the context takes"):
                session.extend([1])
        alone = llama.logits(dense, [int(token) for token in tokens[1]])
    # flash attention and the keys' F16 are the library's choice here, and switched off there
    assert np.abs(alone - together[1]).max() < 0.05
    assert np.mean(alone.argmax(1) == together[1].argmax(1)) > 0.95


@needs_library
def test_texts_become_tokens_and_texts_again(dense: Path) -> None:
    text = "def main(argv):\n    return 0"
    with Model(dense) as model:
        tokens = model.tokenize(text)
        assert tokens[0] == model.first_token == 1
        assert model.text(tokens[1:]).strip() == text


@needs_library
def test_products_show_weights_and_inputs(dense: Path) -> None:
    seen: dict[str, tuple[tuple[int, ...], int, tuple[int, int]]] = {}

    def observe(product: Product) -> None:
        seen[product.weight] = (product.inputs().shape, product.matrices, product.source)

    with Model(dense) as model, Session(model, 32, observe=observe) as session:
        session.evaluate(np.arange(64, dtype=np.int32).reshape(2, 32))
    assert len(seen) == 6 * 7 + 1
    assert seen["blk.2.ffn_down.weight"][:2] == ((1, 1, 64, 768), 1)
    assert seen["blk.0.attn_q.weight"][2] == seen["blk.0.attn_k.weight"][2] == seen["blk.0.attn_v.weight"][2]
    assert seen["blk.0.attn_q.weight"][2] != seen["blk.0.attn_output.weight"][2]


@needs_library
def test_what_an_observer_raises_comes_out(dense: Path) -> None:
    def observe(product: Product) -> None:
        raise KeyError(product.weight)

    with Model(dense) as model, Session(model, 32, observe=observe) as session:
        for _ in range(2):
            with pytest.raises(KeyError, match=r"blk\.0\.attn_q"):
                session.evaluate([list(range(32))])


@needs_library
def test_bad_requests_are_refused(dense: Path) -> None:
    with Model(dense) as model, Session(model, 32) as session:
        with pytest.raises(InvalidError, match="token 4096 is not in the vocabulary"):
            session.evaluate([[1, 4096]])
        with pytest.raises(RequestError, match="1 windows of 33 tokens"):
            session.evaluate([[1] * 33])
    with pytest.raises(RequestError, match="closed"):
        session.evaluate([[1]])


@needs_library
def test_files_that_are_no_models_are_refused(dense: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not a GGUF file"):
        Model(TEXT)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(dense.read_bytes()[:500_000])
    with pytest.raises(FormatError):
        Model(cut)
    with pytest.raises(UnsupportedError, match=r"llama\.cpp does not load it: .*unknown model architecture"):
        Model(TEXT.with_name("imatrix-stdlib.gguf"))


GIVE_UP = """
import sys
from gguf_forge.quality.library import library, tidied
with tidied(lambda: open(sys.argv[1], "w").close()):
    library().ggml_abort(b"/src/ggml.c", 3, b"GGML_ASSERT(%s) failed", library().ffi.new("char[]", b"x"))
"""


@needs_library
def test_a_library_that_ends_the_process_leaves_one_line(tmp_path: Path) -> None:
    mark = tmp_path / "tidied"
    done = subprocess.run([sys.executable, "-c", GIVE_UP, str(mark)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "gguf-forge: llama.cpp gave up on the model: ggml.c:3: GGML_ASSERT(x) failed\n"
    assert mark.exists()


@pytest.mark.parametrize("name", ["blk.0.attn_k.weight", "CUDA0#blk.0.attn_k.weight#0", "CPU#blk.0.attn_k.weight"])
def test_a_scheduler_s_marks_are_no_part_of_a_name(name: str) -> None:
    assert weight_name(name) == "blk.0.attn_k.weight"


@contextmanager
def raising_at_entry(code: CodeType, number: int) -> Iterator[None]:
    """At the `number`-th call of a function, KeyboardInterrupt before its first line, as a signal may have it."""
    calls = 0

    def trace(frame: FrameType, event: str, value: object) -> None:
        nonlocal calls
        if event == "call" and frame.f_code is code:
            calls += 1
            if calls == number:
                raise KeyboardInterrupt

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@needs_library
@pytest.mark.parametrize("number", [1, 40, 41])
def test_a_signal_at_the_entry_of_a_callback_ends_the_evaluation(dense: Path, number: int) -> None:
    with Model(dense) as model, Session(model, 16, threads=1, observe=lambda product: None) as session:
        with raising_at_entry(Session._see.__code__, number), pytest.raises(KeyboardInterrupt):
            session.evaluate(np.ones((1, 16), np.int32))
        assert session.evaluate(np.ones((1, 16), np.int32)) is not None


@needs_library
def test_a_signal_while_the_library_is_heard_is_raised_behind_it(tmp_path: Path) -> None:
    lib = library()
    with raising_at_entry(module.Library._hear.__code__, 1):
        lib.llama_model_load_from_file(os.fsencode(tmp_path / "missing.gguf"), lib.llama_model_default_params())
        with pytest.raises(KeyboardInterrupt):
            lib.reason()
    assert "missing.gguf" in lib.reason()
