"""Writes fixtures/torch: `python tests/source/make_torch_files.py fixtures/torch`, with torch 2.13 installed.

Each NAME.bin comes with what torch itself reads from it: NAME.npz, 16-bit brain floats and 8-bit floats as float32.
"""

from __future__ import annotations

import collections
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch

OUT = Path(sys.argv[1])


def save(name: str, tensors: dict[str, torch.Tensor], **options: object) -> None:
    torch.save(tensors, OUT / f"{name}.bin", **options)
    arrays = {}
    for key, tensor in tensors.items():
        values = tensor.detach()
        small = values.dtype.itemsize == 1 and values.dtype.is_floating_point
        arrays[key] = (values.float() if small or values.dtype == torch.bfloat16 else values).numpy()
    np.savez_compressed(OUT / f"{name}.npz", **arrays)


def main() -> None:
    torch.manual_seed(1)
    x = torch.randn(6, 10)
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    whole = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
    dtypes = {str(kind).removeprefix("torch."): x.to(kind) for kind in kinds}
    dtypes |= {str(kind).removeprefix("torch."): (x * 20).abs().to(kind) for kind in whole}
    dtypes |= {"bool": x > 0, "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4)}
    save("dtypes", dtypes)
    save("dtypes-legacy", dtypes, _use_new_zipfile_serialization=False)

    codes = torch.arange(256, dtype=torch.uint8)
    eight = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu]
    save("fp8", {str(kind).removeprefix("torch."): codes.view(kind) for kind in eight})
    wide = [torch.uint16, torch.uint32]
    save("unsigned", {str(k).removeprefix("torch."): torch.tensor([0, 7, 2**15 + 1, 2**16 - 1]).to(k) for k in wide})

    base = torch.arange(120, dtype=torch.float32).reshape(10, 12)
    views = {
        "base": base,
        "rows": base[3:7],
        "columns": base[:, 2:9],
        "transposed": base.T,
        "every_other": base[::2, ::3],
        "diagonal": base.diagonal(),
        "expanded": base[:1].expand(5, 12),
        "cube": base.reshape(2, 5, 12).permute(2, 0, 1),
    }
    save("views", views)
    save("views-legacy", views, _use_new_zipfile_serialization=False)

    module = torch.nn.Linear(4, 3)
    save("module", module.state_dict())
    torch.save(dict(module.named_parameters()), OUT / "parameters.bin")
    np.savez_compressed(OUT / "parameters.npz", **{k: v.detach().numpy() for k, v in module.named_parameters()})

    tied = collections.OrderedDict(a=base.half(), z=None, b=None)
    tied["z"] = tied["b"] = tied["a"]
    save("tied", tied)

    small = {"weight": torch.arange(24).reshape(4, 6).float(), "bias": torch.arange(4).float()}
    head = {f"{matrix}.{end}": values for matrix in "qk" for end, values in small.items()}
    torch.save({"head": head, "head_dim": 4, "temperature": 1.375}, OUT / "nested.pt")

    torch.jit.save(torch.jit.script(module), OUT / "torchscript.bad.bin")
    with (
        zipfile.ZipFile(OUT / "tied.bin") as plain,
        zipfile.ZipFile(OUT / "deflated.bad.bin", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in plain.namelist():
            packed.writestr(member, plain.read(member))


if __name__ == "__main__":
    main()
