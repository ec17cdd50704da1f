"""Sizes asked for are kept, choices are never predicted worse than recipes, and what is judged is what is computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import gguf_forge
from gguf_forge.cli import cli
from gguf_forge.cli.choosing import read_size
from gguf_forge.convert.files import Planned, quantize_file
from gguf_forge.convert.job import Quantization
from gguf_forge.errors import RequestError
from gguf_forge.quality import choose, costs
from gguf_forge.quality.errors_of_types import USUAL, encoder, output_error, relative_errors, sampled
from gguf_forge.quality.memory import Use
from gguf_forge.quant.fit import Metric
from gguf_forge.types import tensor_type

MODEL = Path(__file__).parents[2] / "fixtures/models/PyLlama-7M"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("choose") / "f16.gguf"
    gguf_forge.convert_checkpoint(MODEL, path, "f16")
    return path


@pytest.fixture(scope="module")
def plan(source: Path) -> Callable[[str], Planned]:
    return lambda recipe: quantize_file(source, source.parent / "x.gguf", recipe, dry_run=True)


@pytest.fixture(scope="module")
def found(plan: Callable[[str], Planned]) -> choose.Choices:
    return choose.choices(plan, costs.usual(6, tied=False))


@pytest.mark.parametrize("nbytes", [2_900_000, 3_037_888, 3_500_001, 4_321_987, 9_000_000])
def test_a_file_has_the_bytes_that_were_reckoned(found: choose.Choices, source: Path, nbytes: int) -> None:
    taken = found.under(nbytes)
    how = Quantization(overrides=found.overrides(taken))
    planned = quantize_file(source, source.parent / "y.gguf", found.recipe(taken), quantization=how, dry_run=True)
    assert planned.file.size == found.bytes_of(taken) <= nbytes


def test_no_recipe_is_predicted_to_be_better_at_its_size(found: choose.Choices) -> None:
    rows = found.rows()
    assert [row.name for row in rows][:2] == ["Q2_K", "Q3_K_S"]
    assert len(rows) == len(choose.RECIPES)
    assert all(row.expected is None or row.chosen <= row.expected for row in rows)
    assert all(a.chosen >= b.chosen for a, b in pairwise(rows))


def test_more_quality_takes_more_bytes(found: choose.Choices) -> None:
    sizes = [found.bytes_of(found.for_quality(word)) for word in ("small", "balanced", "max")]
    assert sizes == sorted(sizes)
    assert all(found.for_quality(word).cost <= most for word, most in choose.QUALITIES.items())


def test_too_few_bytes_are_an_error(found: choose.Choices) -> None:
    with pytest.raises(RequestError, match="too few"):
        found.under(1_000_000)


def test_the_output_error_is_that_of_the_outputs() -> None:
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((500, 64)) * np.linspace(0.1, 3, 64)
    rows, change = rng.standard_normal((2, 8, 64)).astype(np.float32)
    moments = [(0, (inputs.T @ inputs / 500).astype(np.float32))]
    error, total = output_error(change, rows, moments)
    assert error == pytest.approx(np.square(inputs @ change.T).sum() / 500, rel=1e-4)
    assert total == pytest.approx(np.square(inputs @ rows.T).sum() / 500, rel=1e-4)


def test_finer_types_err_less() -> None:
    rows = np.random.default_rng(2).standard_normal((64, 512)).astype(np.float32)
    kinds = [tensor_type(name) for name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0")]
    errors = list(relative_errors("x", [rows], kinds, encoder(None)).values())
    assert errors == sorted(errors, reverse=True)
    assert errors == pytest.approx([USUAL[kind.name] for kind in kinds], rel=0.1)


def test_rows_that_cannot_be_fitted_err_as_they_are_written() -> None:
    """Fitted as zeros they would cost everything."""
    rows = np.random.default_rng(2).standard_normal((4, 64)).astype(np.float32)
    rows[1] *= 1e10
    kind = tensor_type("MXFP4")
    metric: Any = SimpleNamespace(of=lambda *_: Metric(64, [(0, np.eye(64, dtype=np.float32))]))
    made = encoder(None, metric)("x", 0, rows, kind)
    np.testing.assert_array_equal(made[1], gguf_forge.quantize(rows, kind)[1])
    assert relative_errors("x", [rows], [kind], encoder(None, metric))["MXFP4"] < 0.02


def test_sampled_rows_are_spread() -> None:
    assert sampled(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert sampled(1001, 3).tolist() == [0, 500, 1000]


@pytest.mark.parametrize(
    ("word", "nbytes"),
    [("4GiB", 4 << 30), ("4G", 4 << 30), ("1.5gb", 1_500_000_000), ("800MB", 800_000_000), ("77", 77), ("2kib", 2048)],
)
def test_sizes_are_read(word: str, nbytes: int) -> None:
    assert read_size(word) == nbytes


@pytest.mark.parametrize("word", ["", "GiB", "-1GiB", "0", "4 parsecs", "1e9", "9" * 30])
def test_what_is_no_size_is_refused(word: str) -> None:
    with pytest.raises(RequestError, match="is no size"):
        read_size(word)


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    return result.exit_code, result.output


def test_a_target_size_on_the_command_line(source: Path, tmp_path: Path) -> None:
    code, said = run("quantize", source, tmp_path / "out.gguf", "--target-size", "3.5MiB")
    assert code == 0, said
    with gguf_forge.open(tmp_path / "out.gguf") as made:
        assert 3.4 * 2**20 < (tmp_path / "out.gguf").stat().st_size <= 3.5 * 2**20
        assert len({tensor.type for tensor in made.tensors.values()}) > 3


def test_a_named_type_is_kept(source: Path, tmp_path: Path) -> None:
    words = ("quantize", source, tmp_path / "out.gguf", "--target-bpw", "5", "--tensor-type", r"blk\.0\.=Q8_0")
    code, said = run(*words)
    assert code == 0, said
    with gguf_forge.open(tmp_path / "out.gguf") as made:
        assert {str(t.type) for name, t in made.tensors.items() if "blk.0.attn_q." in name} == {"Q8_0"}
        bits = (
            8 * sum(t.nbytes for t in made.tensors.values()) / sum(int(np.prod(t.shape)) for t in made.tensors.values())
        )
    assert 4.9 < bits <= 5


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--target-size", "3MiB", "--type", "Q4_K_M"), "a type is given"),
        (("--target-size", "3MiB", "--target-bpw", "4"), "one of --target-size"),
        (("--target-size", "three"), "is no size"),
        (("--fit", "8GiB", "--kv-type", "Q2_K"), "no type that llama.cpp has for the cache"),
    ],
)
def test_wishes_that_contradict_each_other(source: Path, tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    code, output = run("quantize", source, tmp_path / "out.gguf", *more)
    assert code == 2
    assert said in output


def test_recommend_reckons_memory_from_the_checkpoint_alone() -> None:
    code, output = run("recommend", MODEL, "--memory", "16MiB", "--context", "1000", "--kv-type", "q8_0", "--json")
    assert code == 0, output
    found = json.loads(output)
    # 6 layers, keys and values of 128 numbers each, 1024 cells; a block of Q8_0 is 34 bytes for 32 numbers.
    assert found["cache"]["bytes"] == 6 * 1024 * 2 * 128 // 32 * 34
    fitting = [row for row in found["rows"] if row["memory"] <= 16 * 2**20]
    assert fitting
    assert found["suggested"]["size_of"] == fitting[-1]["size_of"]
    assert run("recommend", MODEL)[0] == 0


def test_memory_adds_up(found: choose.Choices) -> None:
    use = Use(512)
    assert found.memory(1000, use) == 1000 + found.cache(use).nbytes + found.working(use)
    assert found.working(use) == 512 * 4 * (4096 + 2 * 256)
