"""Outputs back to source tensors: bit for bit where the rules only move rows and columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gguf_forge.convert.ops import Computed, Elementwise, Verb, Whole
from gguf_forge.convert.plan import Outputs, plan_outputs
from gguf_forge.convert.undo import source_views
from gguf_forge.errors import ConversionError
from gguf_forge.source.input_file import InputFile
from gguf_forge.source.tensor import SourceTensor
from tests.convert import headers
from tests.convert.headers import Case

CASES = headers.load()
#: Larger cases say nothing that smaller ones do not.
MAX_ELEMENTS = 3 << 20


def tensors_of(case: Case, folder: Path) -> dict[str, SourceTensor]:
    """The checkpoint's tensors with random bits in place of their values, in one file."""
    headers_ = case.headers()
    path = folder / "weights"
    path.write_bytes(np.random.default_rng(1).bytes(sum(t.nbytes for t in headers_.values())))
    file, at, found = InputFile(path), 0, {}
    for name, tensor in headers_.items():
        found[name] = SourceTensor(name, tensor.element, tensor.shape, file, at)
        at += tensor.nbytes
    return found


def moves(verb: Verb) -> bool:
    """Whether a verb leaves every value as it is."""
    parts = getattr(verb, "verbs", ())
    one_way = type(verb).undo is Verb.undo
    return not isinstance(verb, (Elementwise, Whole, Computed)) and not one_way and all(moves(part) for part in parts)


def planned(case: Case, tensors: dict[str, SourceTensor], folder: Path) -> Outputs:
    return plan_outputs(case.arch, tensors, case.facts(folder))


#: Element types that GGUF has, too.
KEPT = {"F32", "F16", "BF16"}


def is_small_and_kept(case: Case) -> bool:
    small = sum(int(np.prod(shape)) for _, _, shape in case.source) <= MAX_ELEMENTS
    return small and {dtype for _, dtype, _ in case.source} <= KEPT


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if is_small_and_kept(case)])
def test_what_was_only_moved_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    tensors = tensors_of(case, tmp_path)
    outputs = planned(case, tensors, tmp_path)
    views = {view.name: view for view in outputs.views}
    checked = 0
    calculated = {source for e in outputs.emissions if not moves(e.rule.verb) for source in e.sources}
    for emission in outputs.emissions:
        if not emission.sources or not moves(emission.rule.verb) or not all(n in views for n in emission.names):
            continue
        alone = Outputs((), (), outputs.facts, emissions=(emission,))
        try:
            back = source_views(case.arch, alone, views, tensors)
        except ConversionError as error:
            assert "were not kept" in str(error)  # noqa: PT017 - rows left out on purpose
            continue
        for stored, view in back.items():
            assert view.shape == (tensors[stored].shape or (1,)), stored
            assert view.read().tobytes() == tensors[stored].read().tobytes(), stored
            checked += 1
    assert checked >= (len(tensors) - len(outputs.dropped) - len(calculated)) // 2


@pytest.mark.parametrize("name", ["plain-Mixtral-8x7B-Instruct-v0.1", "Muse-Glimmer"])
def test_a_whole_checkpoint_comes_back(name: str, tmp_path: Path) -> None:
    """Muse Glimmer's norms are made of the configuration where a projection stands, and make no source."""
    case = CASES[name]
    tensors = tensors_of(case, tmp_path)
    outputs = planned(case, tensors, tmp_path)
    back = source_views(case.arch, outputs, {v.name: v for v in outputs.views}, tensors)
    assert set(back) == set(tensors) - set(outputs.dropped)
