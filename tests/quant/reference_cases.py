"""Made-up models with odd shapes and what llama-quantize --dry-run chose for them under random recipes and options.

`python -m tests.quant.reference_cases LLAMA_QUANTIZE IMATRIX OUT.json.xz` makes the cases again (same seed).
"""

from __future__ import annotations

import json
import lzma
import random
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_forge.format import values
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.quant.overrides import parse_override
from gguf_forge.quant.recipe import RECIPES, Options, TensorSpec
from gguf_forge.types import tensor_type

FILE = Path(__file__).parents[2] / "fixtures" / "golden" / "choices.json.xz"
MODELS, RECIPES_EACH, SEED = 57, 9, 24
ARCHS = ["llama"] * 6 + ["falcon"] * 4 + ["qwen2", "deci", "olmo", "jais2", "qwen3", "qwen3moe", "gemma2", "phi3"]
ARCHS += ["gpt2", "bert", "nanbeige", "llama-embed"]
OVERRIDES = (
    *("attn_v=q8_0", "ffn_down=Q3_K", "blk.[0-3].=q6_k", "^output=q4_0", "ATTN_Q=bf16", ".*=q5_k"),
    *("per_layer=iq4_xs", r"blk\.\d\.ffn=q4_1", "ffn_up=mxfp4", "attn_k=q2_0"),
)
ODD_PARTS = (
    *("ssm_conv1d.weight", "time_mix_w1.weight", "ssm_in.weight", "altup_proj.weight", "x.bias"),
    *("ffn_gate_inp_shexp.weight", "indexer.proj.weight", "attn_q.scale", "ffn_gate_inp.weight"),
)


@dataclass(frozen=True)
class Case:
    """A model (metadata, tensors), a recipe, llama-quantize's arguments, and what it chose and reported.

    types: by name, in file order. fallbacks: tensors. needs_imatrix: whether it warned of that.
    """

    facts: dict[str, Any]
    tensors: list[TensorSpec]
    recipe: str
    arguments: list[str]
    types: dict[str, str]
    fallbacks: int
    needs_imatrix: bool

    @property
    def options(self) -> Options:
        """The arguments as Options."""
        pairs = list(zip(self.arguments, [*self.arguments[1:], ""], strict=False))
        given = dict(pairs)
        return Options(
            pure="--pure" in given,
            leave_output="--leave-output-tensor" in given,
            output_type=tensor_type(given["--output-tensor-type"]) if "--output-tensor-type" in given else None,
            token_embedding_type=(
                tensor_type(given["--token-embedding-type"]) if "--token-embedding-type" in given else None
            ),
            overrides=[parse_override(text) for option, text in pairs if option == "--tensor-type"],
            imatrix_names={"blk.0.attn_q.weight"} if "--imatrix" in given else None,
        )


def load() -> list[Case]:
    return [
        Case(
            facts=entry["facts"],
            tensors=[TensorSpec(name, tuple(shape), tensor_type(kind)) for name, shape, kind in entry["tensors"]],
            recipe=run["recipe"],
            arguments=run["arguments"],
            types=run["types"],
            fallbacks=run["fallbacks"],
            needs_imatrix=run["needs_imatrix"],
        )
        for entry in json.loads(lzma.decompress(FILE.read_bytes()))
        for run in entry["runs"]
    ]


def make_facts(rng: random.Random, arch: str) -> dict[str, Any]:
    layers = rng.choice([1, 2, 4, 7, 8, 12, 16, 17, 24, 33, 68, 80])
    heads = rng.choice([4, 8, 16, 32])
    kv_heads = max(1, heads // rng.choice([1, 2, 4, 8]))
    facts = {
        "general.architecture": arch,
        f"{arch}.context_length": 128,
        f"{arch}.embedding_length": 256,
        f"{arch}.feed_forward_length": 512,
        f"{arch}.vocab_size": 1000,
        f"{arch}.block_count": layers,
        f"{arch}.attention.head_count": heads,
        f"{arch}.attention.head_count_kv": [kv_heads] * layers if rng.random() < 0.2 else kv_heads,
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{arch}.attention.layer_norm_epsilon": 1e-5,
    }
    if experts := rng.choice([0, 0, 0, 1, 2, 4, 8, 8, 16]):
        facts |= {f"{arch}.expert_count": experts, f"{arch}.expert_used_count": 1}
    if arch == "nanbeige":
        facts[f"{arch}.num_loops"] = rng.choice([1, 2, 3])
    if rng.random() < 0.2 and layers > 2:
        facts[f"{arch}.nextn_predict_layers"] = 1
    return facts


def make_shapes(rng: random.Random, layers: int, experts: int) -> dict[str, tuple[int, ...]]:
    fixed = rng.choice([0, 256])

    def matrix(*stack: int) -> tuple[int, ...]:
        return (*stack, 2, fixed or rng.choice([256, 256, 256, 512, 64, 32, 288, 48, 320, 128]))

    shapes = {"token_embd.weight": matrix()}
    for name, chance in (("output", 0.6), ("per_layer_token_embd", 0.2), ("position_embd", 0.2), ("token_types", 0.2)):
        if rng.random() < chance:
            shapes[f"{name}.weight"] = matrix()
    style = rng.choice(["qkv", "separate", "latent"])
    for layer in range(layers):
        parts: dict[str, tuple[int, ...]] = {"attn_output.weight": matrix(), "attn_norm.weight": (256,)}
        if style == "latent":
            parts |= {f"attn_{x}.weight": matrix() for x in ("q_a", "q_b", "kv_a_mqa", "kv_b")}
            parts |= {f"attn_{x}.weight": matrix(2) for x in ("k_b", "v_b")}
        elif style == "qkv" and rng.random() < 0.9:
            parts["attn_qkv.weight"] = matrix()
        else:
            parts |= {f"attn_{x}.weight": matrix() for x in "qkv"}
        if rng.random() < 0.1:
            parts[rng.choice(ODD_PARTS)] = (rng.choice([1, 2]), matrix()[-1])
        if experts > 1 and rng.random() < 0.8:
            parts |= {f"ffn_{x}_exps.weight": matrix(experts) for x in ("gate", "up", "down")}
        if experts <= 1 or rng.random() < 0.5:
            suffix = "_shexp" if experts > 1 and rng.random() < 0.8 else ""
            parts |= {f"ffn_{x}{suffix}.weight": matrix() for x in ("gate", "up", "down")}
        shapes |= {f"blk.{layer}.{part}": shape for part, shape in parts.items()}
    return shapes


def make_arguments(rng: random.Random, imatrix: str) -> list[str]:
    arguments = []
    if rng.random() < 0.15:
        arguments.append("--pure")
    if rng.random() < 0.1:
        arguments.append("--leave-output-tensor")
    if rng.random() < 0.15:
        arguments += ["--output-tensor-type", "F16"]
    if rng.random() < 0.15:
        arguments += ["--token-embedding-type", "BF16"]
    if rng.random() < 0.3:
        for override in rng.sample(OVERRIDES, rng.choice([1, 2, 3])):
            arguments += ["--tensor-type", override]
    if rng.random() < 0.3:
        arguments += ["--imatrix", imatrix]
    return arguments


_ROW = re.compile(
    r"\[ *\d+/ *\d+\] (\S+) +- \[[^]]*\], type = +(\S+), size = +[\d.]+ MiB(?: -> +[\d.]+ MiB \((\S+)\))?"
)


def run(quantizer: str, model: Path, arguments: list[str], recipe: str) -> dict[str, Any] | None:
    """What the reference says, None where it refuses."""
    done = subprocess.run(
        [quantizer, "--dry-run", *arguments, str(model), recipe], capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    types = {name: (new or old).upper() for name, old, new in _ROW.findall(said)}
    if done.returncode or not types:
        return None
    fallbacks = re.search(r"(\d+) of \d+ tensor\(s\) required fallback", said)
    return {
        "recipe": recipe,
        "arguments": arguments,
        "types": types,
        "fallbacks": int(fallbacks[1]) if fallbacks else 0,
        "needs_imatrix": "will require an imatrix" in said,
    }


def make_case(rng: random.Random, arch: str, quantizer: str, imatrix: str, model: Path) -> dict[str, Any]:
    facts = make_facts(rng, arch)
    shapes = make_shapes(rng, facts[f"{arch}.block_count"], facts.get(f"{arch}.expert_count", 0))
    stored = tensor_type(rng.choice(["F32", "F16", "BF16", "Q8_0"]))
    names = rng.sample(list(shapes), len(shapes))
    tensors = []
    with GGUFWriter(model, {key: values.infer(value) for key, value in facts.items()}) as out:
        for name in names:
            fits = len(shapes[name]) > 1 and shapes[name][-1] % stored.block_size == 0
            tensors.append((name, shapes[name], stored if fits else tensor_type("F32")))
            out.declare(*tensors[-1])
        out.begin()
        for name, shape, kind in tensors:
            out.write(name, bytes(kind.nbytes(shape)))
    recipes = rng.sample([name for name in RECIPES if name != "NVFP4"], RECIPES_EACH)
    runs = [run(quantizer, model, make_arguments(rng, imatrix), recipe) for recipe in recipes]
    return {
        "facts": facts,
        "tensors": [(name, shape, kind.name) for name, shape, kind in tensors],
        "runs": [r for r in runs if r],
    }


if __name__ == "__main__":
    generator = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.gguf"
        archs = (ARCHS * MODELS)[:MODELS]
        made = [make_case(generator, arch, sys.argv[1], sys.argv[2], model) for arch in archs]
    text = json.dumps(made, separators=(",", ":")).encode()
    Path(sys.argv[3]).write_bytes(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
