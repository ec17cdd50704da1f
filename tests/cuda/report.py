"""What `make test-cuda` does, one stage after the other, and the table that it prints and writes."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import gguf_forge
from gguf_forge import cuda
from gguf_forge.cuda.driver import CudaError, driver
from gguf_forge.cuda.kernels import find_kernels
from gguf_forge.types import TENSOR_TYPES
from tests.cuda.card import RESULTS, Card, Row, Sizes, processors, same_floats

ROOT = Path(__file__).resolve().parents[2]
SMALL = Sizes(1 << 15, 1 << 13, 1 << 14, 0.01, (64, 1024), 2, 1 << 20, launches=1, rounds=1)
#: Seconds that compute-sanitizer is given, which watches every access of every kernel.
PATIENCE = 150


def run(given: argparse.Namespace) -> int:
    """All stages; 0 where all bits are equal, or there is no GPU, which is said."""
    began = time.monotonic()
    try:
        version = driver().version_name
        prepare(given.device)
        device = cuda.Device(given.device)
        device.kernels.load()
    except CudaError as error:
        print(f"test-cuda: skipped: {error}")
        return 0
    card = Card(device, SMALL if given.small else Sizes())
    told: dict[str, Any] = {"device": device.context.name, "capability": "{}.{}".format(*device.context.capability)}
    told |= {"driver": version, "date": time.strftime("%Y-%m-%d"), "copy": card.copy / 1e9, "processors": processors()}
    end = began + 60 * given.minutes
    rows = list(every_type(card, end))
    told["types"] = [vars(row) for row in rows]
    if not given.only_bits:
        told["products"] = products(card, end)
        told["others"] = others(device)
        told["sanitizer"] = sanitized(given, end)
        told["model"] = model(card.sizes.model, end)
    told["seconds"] = time.monotonic() - began
    text = table(told)
    print(text)
    given.table.parent.mkdir(parents=True, exist_ok=True)
    given.table.write_text(text + "\n", encoding="utf-8")
    given.table.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    wrong = different(told)
    print(f"test-cuda: {'all bits are equal' if not wrong else 'DIFFERENT: ' + ', '.join(wrong)}")
    return 1 if wrong else 0


def prepare(ordinal: int) -> None:
    """Has kernels where none are named: those in build/cuda, or installed, or made for this device by nvcc."""
    if os.environ.get("GGUF_FORGE_KERNELS"):
        return
    folder = ROOT / "build/cuda"
    if not (folder / "kernels.json").exists():
        with suppress(CudaError):
            find_kernels()
            return
        if shutil.which("nvcc") is None:
            raise CudaError("no kernels in build/cuda, and no nvcc to make them: run `make cuda` where there is one")
        from gguf_forge.cuda.context import Context

        major, minor = Context(driver(), ordinal).capability
        print(f"test-cuda: compiling the kernels for sm_{major}{minor}", flush=True)
        command = [sys.executable, "native/cuda/build.py", str(folder), f"{major}{minor}"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    os.environ["GGUF_FORGE_KERNELS"] = str(folder)


def every_type(card: Card, end: float) -> Iterator[Row]:
    """A row for each type, both ways, until the time is up."""
    for kind in TENSOR_TYPES.values():
        if not (kind.decodes or kind.encodes) or time.monotonic() > end:
            continue
        row = Row(kind.name)
        try:
            if kind.decodes:
                card.decode(kind, row)
            if kind.encodes:
                card.encode(kind, row)
        except Exception as error:  # noqa: BLE001 - the others are still to be seen
            row.equal[one_line(error)] = False
        print(f"test-cuda: {kind.name}: {'equal' if all(row.equal.values()) else row.equal}", flush=True)
        yield row


def products(card: Card, end: float) -> list[dict[str, Any]]:
    """Every product that there is, of one vector and of four."""
    found = []
    for kind in TENSOR_TYPES.values():
        if f"forge_matvec_{kind.name.lower()}_f32_1" in card.device.kernels.launches and time.monotonic() < end:
            for dtype in ("float32", "float16"):
                for vectors in (1, 4):
                    line = {"type": kind.name, "dtype": dtype, "vectors": vectors}
                    try:
                        rate, share, right = card.product(kind, dtype, vectors)
                    except Exception as error:  # noqa: BLE001 - as above
                        print(f"test-cuda: product with {kind}: {one_line(error)}")
                        rate, share, right = 0.0, 0.0, False
                    found.append({**line, "rate": rate, "share": share, "right": right})
    return found


def others(device: cuda.Device) -> dict[str, str]:
    """Arrays given to torch and CuPy, and taken from them, without a copy: "equal", or why not tried."""
    x = np.random.default_rng(2).standard_normal((64, 512)).astype(np.float32)
    blocks = gguf_forge.quantize(x, "Q4_K")
    wanted = gguf_forge.dequantize(blocks, "Q4_K")
    found = {}
    for name, try_it in (("torch", _torch), ("cupy", _cupy)):
        try:
            right = try_it(device, x, blocks, wanted)
        except ImportError as error:
            found[name] = f"not tried: {error}"
            continue
        except Exception as error:  # noqa: BLE001 - as above
            found[name] = f"DIFFERENT: {one_line(error)}"
            continue
        found[name] = "equal" if right else "DIFFERENT"
    return found


def _torch(device: cuda.Device, x: Any, blocks: Any, wanted: Any) -> bool:
    import torch

    if not torch.cuda.is_available():
        raise ImportError("this torch sees no GPU")
    where = f"cuda:{device.context.ordinal}"
    stream = torch.cuda.Stream(where)
    with torch.cuda.stream(stream):
        given = torch.from_numpy(x).to(where, non_blocking=True) + 0
        made = cuda.quantize(given, "Q4_K", stream=stream)
    ours = torch.from_dlpack(cuda.dequantize(torch.from_dlpack(made), "Q4_K"))
    bfloat = cuda.quantize(given.to(torch.bfloat16), "BF16").numpy().reshape(-1).view(np.uint16)
    near = (given.to(torch.bfloat16).view(torch.int16).cpu().numpy().reshape(-1).view(np.uint16) == bfloat).all()
    return bool((made.numpy() == blocks).all() and same_floats(ours.cpu().numpy(), wanted) and near)


def _cupy(device: cuda.Device, x: Any, blocks: Any, wanted: Any) -> bool:
    import cupy

    with cupy.cuda.Device(device.context.ordinal):
        given = cupy.asarray(x) + 0
        made = cuda.quantize(given, "Q4_K", stream=cupy.cuda.get_current_stream())
        ours = cupy.asarray(cuda.dequantize(cupy.asarray(made), "Q4_K"))
        return bool((made.numpy() == blocks).all() and same_floats(cupy.asnumpy(ours), wanted))


def sanitized(given: argparse.Namespace, end: float) -> str:
    """What compute-sanitizer says of every kernel on little data, or why it was not asked."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return "not run: there is no compute-sanitizer"
    if time.monotonic() > end - PATIENCE:
        return "not run: the time was up"
    command = [tool, "--error-exitcode", "99", sys.executable, "-m", "tests.cuda", "--small", "--only-bits"]
    with tempfile.TemporaryDirectory() as folder:
        command += ["--device", str(given.device), "--table", f"{folder}/t.md"]
        try:
            done = subprocess.run(command, cwd=ROOT, timeout=PATIENCE, capture_output=True, text=True, check=False)
        except subprocess.TimeoutExpired:
            return f"not ended within {PATIENCE} s"
    said = [line for line in done.stdout.splitlines() if "ERROR SUMMARY" in line]
    if done.returncode == 0:
        return "no errors"
    return f"FAILED ({done.returncode}): {' '.join([*said, *done.stdout.splitlines()[-1:]])} {done.stderr[-200:]}"


def model(nbytes: int, end: float) -> dict[str, Any]:
    """The conversion of a model on both, or why not."""
    if time.monotonic() > end:
        return {"missing": "the time was up"}
    try:
        from tests.cuda.model import convert_model

        (ROOT / "build").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
            return convert_model(Path(folder), nbytes)
    except ImportError as error:
        return {"missing": str(error)}
    except Exception as error:  # noqa: BLE001 - as above
        return {"missing": one_line(error), "equal": False}


def one_line(error: Exception) -> str:
    """What went wrong, short."""
    return f"{type(error).__name__}: {' '.join(str(error).split()):.200}"


def different(told: dict[str, Any]) -> list[str]:
    """What was not equal, or not right, or failed."""
    wrong = [f"{row['type']} {what}" for row in told["types"] for what, equal in row["equal"].items() if not equal]
    wrong += [f"products of {p['type']} with {p['dtype']}" for p in told.get("products", []) if not p["right"]]
    wrong += [name for name, what in told.get("others", {}).items() if what.startswith("DIFFERENT")]
    wrong += ["compute-sanitizer"] if told.get("sanitizer", "").startswith("FAILED") else []
    return wrong + (["the converted model"] if told.get("model", {}).get("equal") is False else [])


def table(told: dict[str, Any]) -> str:
    """Everything as one page of Markdown."""
    copy = told["copy"]
    head = (
        f"{told['device']} (compute capability {told['capability']}), driver of CUDA {told['driver']}, {told['date']}; "
        f"copies {copy:.0f} GB/s (read + written); {told['processors']} processors; {told['seconds']:.0f} s"
    )
    columns = (
        "| type | decoded, GB/s (share of the copy rate): to f32 | f16 | bf16 | encoded, G weights/s (times one core): "
        "without importance | with | bits |"
    )
    lines = [head, "", columns, "|---|---|---|---|---|---|---|"]
    for row in told["types"]:
        rates = [row["decoded"].get(dtype) for dtype in RESULTS]
        cells = ["-" if rate is None else f"{rate:.0f} ({rate / copy:.0%})" for rate in rates]
        for how in ("without", "with"):
            rate = row["encoded"].get(how)
            cells.append("-" if rate is None else f"{rate:.3g} ({row['faster'][how]:.0f}x)")
        wrong = [what for what, equal in row["equal"].items() if not equal]
        cells.append("equal" if not wrong else f"DIFFERENT: {', '.join(wrong)}")
        lines.append(f"| {row['type']} | {' | '.join(cells)} |")
    if told.get("products"):
        lines += ["", "| product | vectors | GB/s | share of the copy rate | within rounding of float64 |"]
        lines.append("|---|---|---|---|---|")
        for p in told["products"]:
            right = "yes" if p["right"] else "NO"
            name = f"{p['type']}, {p['dtype']}"
            lines.append(f"| {name} | {p['vectors']} | {p['rate']:.0f} | {p['share']:.0%} | {right} |")
    for name, what in told.get("others", {}).items():
        lines += ["", f"{name}: {what}"]
    if "sanitizer" in told:
        lines += ["", f"compute-sanitizer: {told['sanitizer']}"]
    if "model" in told:
        lines += ["", _of_model(told["model"])]
    return "\n".join(lines)


def _of_model(m: dict[str, Any]) -> str:
    if "missing" in m:
        return f"model: not converted: {m['missing']}"
    return (
        f"model of {m['bytes'] / 1e9:.2f} GB to {m['recipe']}: {m['cuda']:.2f} s with --device cuda, {m['cpu']:.2f} s "
        f"on the processors, {m['moved']:.2f} s to read and write those bytes alone "
        f"({m['cuda'] / m['moved']:.2f} times); "
        f"{'the same file' if m['equal'] else 'ANOTHER FILE'}; {'; '.join(m['notes'])}"
    )
