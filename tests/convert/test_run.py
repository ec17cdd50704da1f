"""Carrying out plans: one reading for all targets, any number of threads, the first error stops everything."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gguf_forge.convert import run as module
from gguf_forge.convert.encoding import Run, encode
from gguf_forge.convert.run import Target, run, source_bytes
from gguf_forge.convert.view import Array, View, of_array
from gguf_forge.errors import QuantError
from gguf_forge.format import reader
from gguf_forge.format.values import string
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.quant.codec import quantize
from gguf_forge.quant.fit import Metric
from gguf_forge.types import tensor_type
from tests.conftest import interrupter

Weights = npt.NDArray[np.float32]
SHAPES = {"a": (300, 64), "b": (3, 5, 256), "c": (64,), "d": (1, 32)}


def values(name: str) -> Array:
    return np.random.default_rng(len(SHAPES[name]) + SHAPES[name][-1]).standard_normal(SHAPES[name], dtype=np.float32)


def views() -> list[View]:
    return [of_array(name, values(name)) for name in SHAPES]


def begun(path: Path, types: Mapping[str, str], weights: Mapping[str, Weights] | None = None) -> Target:
    writer = GGUFWriter(path, {"general.architecture": string("test")})
    for name, kind in types.items():
        writer.declare(name, SHAPES[name], kind)
    writer.begin()
    return Target(writer, {n: tensor_type(t) for n, t in types.items()}, weights or {})


def commit(target: Target) -> None:
    target.writer.seal()
    target.writer.publish()


TYPES = {"a": "Q8_0", "b": "Q4_K", "c": "F32", "d": "F16"}


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("elements", [1, 1000, 1 << 20])
def test_threads_and_run_lengths_do_not_show(
    threads: int, elements: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RUN_ELEMENTS", elements)
    target = begun(tmp_path / "out.gguf", TYPES)
    run(views(), [target], threads=threads)
    commit(target)
    with reader.open(tmp_path / "out.gguf") as file:
        for name, kind in TYPES.items():
            np.testing.assert_array_equal(file.tensors[name].data, quantize(values(name), kind))


def test_every_row_is_read_once_for_all_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUN_ELEMENTS", 640)
    reads: list[tuple[str, int, int]] = []
    lock = threading.Lock()

    def counted(view: View) -> View:
        def rows(start: int, stop: int) -> Array:
            with lock:
                reads.append((view.name, start, stop))
            return view.rows(start, stop)

        return View(view.name, view.shape, view.type, rows)

    targets = [begun(tmp_path / f"{i}.gguf", TYPES) for i in range(3)]
    run([counted(v) for v in views()], targets, threads=2)
    for target in targets:
        commit(target)
    read = {name: sorted((a, b) for n, a, b in reads if n == name) for name in SHAPES}
    for view in views():
        assert [a for a, _ in read[view.name]] == [0, *(b for _, b in read[view.name][:-1])]
        assert read[view.name][-1][1] == view.count
    assert (tmp_path / "0.gguf").read_bytes() == (tmp_path / "2.gguf").read_bytes()


@pytest.mark.parametrize("elements", [256, 256 * 4, 1 << 20])
def test_each_matrix_of_a_stack_has_its_own_importances(
    elements: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RUN_ELEMENTS", elements)
    weights = np.random.default_rng(1).random((3, 256), dtype=np.float32)
    target = begun(tmp_path / "out.gguf", {"b": "Q4_K"}, {"b": weights})
    run([of_array("b", values("b"))], [target], threads=2)
    commit(target)
    expected = [quantize(matrix, "Q4_K", w) for matrix, w in zip(values("b"), weights, strict=True)]
    with reader.open(tmp_path / "out.gguf") as file:
        np.testing.assert_array_equal(file.tensors["b"].data, np.stack(expected))


def test_progress_counts_source_bytes_up_to_the_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUN_ELEMENTS", 640)
    seen: list[tuple[int, int]] = []
    target = begun(tmp_path / "out.gguf", TYPES)
    run(views(), [target], threads=3, progress=lambda done, total: seen.append((done, total)))
    commit(target)
    total = source_bytes(views())
    assert total == 4 * sum(int(np.prod(s)) for s in SHAPES.values())
    assert {t for _, t in seen} == {total}
    done = [d for d, _ in seen]
    assert done == sorted(set(done))
    assert done[-1] == total


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_no_block_can_hold_is_placed(
    bad: float, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RUN_ELEMENTS", 640)
    wrong = values("a").copy()
    wrong[123, 7] = bad
    target = begun(tmp_path / "out.gguf", {"a": "Q8_0"})
    with pytest.raises(QuantError, match=r'^tensor "a": .*NaN or infinity, found at row 123, column \d+$'):
        run([of_array("a", wrong)], [target], threads=threads)
    target.writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_the_first_error_stops_all_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUN_ELEMENTS", 64)
    before = threading.active_count()
    taken: list[int] = []

    def rows(start: int, stop: int) -> Array:
        taken.append(start)
        if start == 10:
            raise OSError("the disk is gone")
        return values("a")[start:stop]

    target = begun(tmp_path / "out.gguf", {"a": "F32"})
    with pytest.raises(OSError, match="the disk is gone"):
        run([View("a", (300, 64), tensor_type("F32"), rows)], [target], threads=4)
    target.writer.abort()
    assert len(taken) < 300
    assert threading.active_count() == before


def test_an_interrupt_stops_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUN_ELEMENTS", 64)
    target = begun(tmp_path / "out.gguf", {"a": "F32"})
    before = threading.active_count()

    def interrupt(done: int, total: int) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([of_array("a", values("a"))], [target], threads=3, progress=interrupt)
    target.writer.abort()
    assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def handled() -> Iterator[threading.Semaphore]:
    """Counts the interrupts that have been raised."""
    count = threading.Semaphore(0)

    def interrupt(number: int, frame: FrameType | None) -> None:
        count.release()
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGINT, interrupt)
    yield count
    signal.signal(signal.SIGINT, old)


def test_impatient_interrupts_wait_for_the_rows_in_hand(tmp_path: Path, handled: threading.Semaphore) -> None:
    target = begun(tmp_path / "out.gguf", {"a": "F32"})
    inside, go_on, interrupt = threading.Event(), threading.Event(), interrupter()

    def rows(start: int, stop: int) -> Array:
        inside.set()
        go_on.wait(60)
        return values("a")[start:stop]

    def press() -> None:
        inside.wait(60)
        for _ in range(3):
            interrupt()
            handled.acquire(timeout=60)
            time.sleep(0.05)  # as long as a hand takes
        go_on.set()

    impatient = threading.Thread(target=press)
    impatient.start()
    with pytest.raises(KeyboardInterrupt):
        run([View("a", (300, 64), tensor_type("F32"), rows)] * 2, [target], threads=2)
    assert go_on.is_set()
    impatient.join()
    target.writer.abort()


def test_no_more_threads_start_than_there_are_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    monkeypatch.setattr(module, "_in_threads", lambda work, count: started.append(count))
    target = begun(tmp_path / "out.gguf", dict.fromkeys(SHAPES, "F32"))
    run(views(), [target], threads=100_000)
    target.writer.abort()
    assert started == [len(SHAPES)]


def test_no_threads_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(QuantError, match="at least 1, found -1"):
        run([], [], threads=-1)


@pytest.mark.parametrize(
    ("value", "kind", "found"),
    [
        (65504.0, "F16", False),
        (-65504.0, "F16", False),
        (65520.0, "F16", True),
        (-65520.0, "F16", True),
        (np.inf, "F16", True),
        (-np.nan, "F16", True),
        (65520.0, "F32", False),
        (65520.0, "BF16", False),
    ],
)
def test_what_f16_cannot_hold_is_told(value: float, kind: str, found: bool, tmp_path: Path) -> None:
    array = values("a")
    array[299, 63] = value
    target = replace(begun(tmp_path / "out.gguf", {"a": kind}), strict=False)
    run([of_array("a", array)], [target], threads=1)
    target.writer.abort()
    assert target.blemishes.keys() == ({"a"} if found else set())
    strict = begun(tmp_path / "out.gguf", {"a": kind})
    with pytest.raises(QuantError, match=r'^tensor "a": .*row 299, column 63') if found else nullcontext():
        run([of_array("a", array)], [strict], threads=1)
    strict.writer.abort()


class _OneMetric:
    """The same covariance for every tensor."""

    def __init__(self, width: int) -> None:
        self._metric = Metric(width, [(0, np.eye(width, dtype=np.float32) + np.float32(0.1))])

    def of(self, *_: object) -> Metric:
        return self._metric


def test_rows_that_cannot_be_fitted_are_encoded_as_ggml_does() -> None:
    """Each by itself: numbers that no fit could take, and a scale beyond its half float."""
    rows = np.random.default_rng(0).standard_normal((6, 64), dtype=np.float32)
    rows[1, 3] = -3e10
    rows[2, 5] = 3e9
    rows[4] *= 3e8
    kind = tensor_type("Q4_0")
    metrics: Any = _OneMetric(64)
    taken = Run(of_array("a", rows), 0, 6)
    made = encode(rows, taken, kind, None, False, metrics)
    fitted = metrics.of().encode(rows[[0, 3, 5]], kind)[0]
    np.testing.assert_array_equal(made[[0, 3, 5]], fitted)
    assert not np.array_equal(fitted, quantize(rows[[0, 3, 5]], kind))
    plain = encode(rows, taken, kind, None, False, None)
    np.testing.assert_array_equal(made[[1, 2, 4]], plain[[1, 2, 4]])
    alone = encode(rows[3:4], replace(taken, stop=1), kind, None, True, metrics)
    np.testing.assert_array_equal(alone, made[3:4])
    rows[3, 7] = np.nan
    with pytest.raises(QuantError, match=r'tensor "a": Q4_0 cannot hold NaN or infinity, found at row 3, column 7'):
        encode(rows, taken, kind, None, False, metrics)
