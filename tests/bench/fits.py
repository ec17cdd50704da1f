"""What fitting rows to a covariance costs, beside ggml's encoders with an importance matrix and our own; one thread."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from gguf_forge._native import ISA
from gguf_forge.quant.codec import quantize
from gguf_forge.quant.fit import FITTED, Metric
from gguf_forge.types import TENSOR_TYPES
from tests.bench.codecs import figure, rate
from tests.bench.report import Report, seconds
from tests.oracle import JUDGE, Oracle

WIDTHS, ROWS, FEW_ROWS = (1024, 4096), 128, 16


def bench(report: Report, folder: Path) -> None:
    report.section(
        "Fitting",
        "`--effort high`: rows fitted to the second moments of their inputs. One thread, million weights a second "
        f"({ISA}), in matrices of so many columns; ref: the encoder with an importance matrix, where it uses one.",
    )
    ggml = Oracle(JUDGE)
    generator = np.random.default_rng(1)
    metrics, prepared = {}, []
    for width in WIDTHS:
        inputs = generator.standard_normal((256, width)) @ generator.standard_normal((width, width))
        moments = (inputs.T @ inputs / 256).astype(np.float32)
        metrics[width] = Metric(width, [(0, moments)])
        took = seconds(partial(Metric, width, [(0, moments)]), most=3)
        prepared.append(f"{took:.2f} s for {width} columns")
    columns = [f">{what} {width}" for width in WIDTHS for what in ("fitted", "ref / fitted", "fitted / ggml")]
    report.table("type", ">ggml", ">ref", *columns)
    rows = generator.standard_normal((ROWS, WIDTHS[-1]), dtype=np.float32)
    weights = generator.random(WIDTHS[-1], dtype=np.float32) + np.float32(0.01)
    for name in sorted(FITTED):
        kind = TENSOR_TYPES[name]
        given = weights if kind.weighted else None
        few = rows[:FEW_ROWS]
        peer = rate(partial(ggml.encode, few, kind, given), few.size)
        ref = rate(partial(quantize, rows, kind, given, 1), rows.size)
        cells = [figure(peer), figure(ref)]
        for width in WIDTHS:
            some = np.ascontiguousarray(rows[:, :width])
            fitted = rate(partial(metrics[width].encode, some, kind), some.size)
            if fitted is None or ref is None or peer is None:
                continue
            cells += [figure(fitted), figure(ref / fitted), figure(fitted / peer)]
        report.row(name, *cells)
    report.say(f"\nFactoring, once for each distinct input: {', '.join(prepared)}.")
