"""Tensor types that this version does not read: by their number, which program probably wrote them and calls them what.

Knows names alone, no sizes and no layouts. Sources: `enum ggml_type` in ggml/include/ggml.h of each program, over its
history. A number that a program gives to a type of its own, and llama.cpp to one that is read, is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gguf_forge.types import REMOVED

#: Program to the numbers of its own types, the likelier program first. Then llama.cpp, with what it has removed.
_PROGRAMS: Mapping[str, Mapping[int, str]] = {
    "BitNet": {36: "I2_S", 37: "I8_S", 38: "TL1"},
    "ik_llama.cpp": {
        97: "Q8_0_X4", 98: "Q8_1_X4", 99: "Q8_2_X4", 133: "Q6_0", 134: "IQ1_BN", 135: "IQ2_BN", 136: "Q8_K64",
        137: "IQ2_K", 138: "IQ3_K", 139: "IQ4_K", 140: "IQ5_K", 141: "IQ6_K", 142: "IQ2_TN", 143: "IQ1_TN",
        144: "IQ4_KS", 145: "IQ2_KS", 146: "IQ4_KSS", 147: "Q8_K16", 148: "Q8_K32", 149: "Q8_KR8", 150: "Q8_K128",
        151: "Q8_KV", 152: "IQ5_KS", 153: "IQ2_KT", 154: "IQ3_KT", 155: "IQ4_KT", 156: "IQ3_KS", 157: "IQ2_KL",
        158: "IQ1_KT", 202: "Q4_0_R8", 206: "Q5_0_R4", 208: "Q8_0_R8", 210: "Q2_K_R4", 211: "Q3_K_R4", 212: "Q4_K_R4",
        213: "Q5_K_R4", 214: "Q6_K_R4", 216: "IQ2_XXS_R4", 217: "IQ2_XS_R4", 218: "IQ3_XXS_R4", 219: "IQ1_S_R4",
        220: "IQ4_NL_R4", 221: "IQ3_S_R4", 222: "IQ2_S_R4", 223: "IQ4_XS_R8", 229: "IQ1_M_R4", 230: "BF16_R16",
        233: "Q6_0_R4", 335: "IQ2_BN_R4", 337: "IQ2_K_R4", 338: "IQ3_K_R4", 339: "IQ4_K_R4", 340: "IQ5_K_R4",
        344: "IQ4_KS_R4", 352: "IQ5_KS_R4", 353: "MXFP4_R8", 397: "Q8_K_R16", 398: "Q8_KV_R8", 399: "Q8_K_R8",
    },
    "PrismML's llama.cpp": {142: "PQ2_0", 143: "PTQ1_0"},
    "llama-cpp-turboquant": {43: "TURBO2_0", 44: "TURBO3_0", 45: "TQ3_1S", 46: "TQ4_1S", 47: "TURBO4_0"},
    "ROCmFPX": {
        100: "Q4_0_ROCMFP4", 101: "Q4_0_ROCMFP4_FAST", 102: "Q6_0_ROCMFPX", 103: "Q8_0_ROCMFPX", 104: "Q3_0_ROCMFPX",
        105: "TURBO3_0", 106: "TURBO4_0", 107: "Q2_0_ROCMFPX", 108: "Q4_0_ROCMI4",
    },
    "an older llama.cpp": REMOVED,
}  # fmt: skip


def _by_number() -> Mapping[int, tuple[tuple[str, str], ...]]:
    found: dict[int, tuple[tuple[str, str], ...]] = {}
    for program, types in _PROGRAMS.items():
        for number, name in types.items():
            found[number] = (*found.get(number, ()), (name, program))
    return MappingProxyType(found)


#: Number to (name, program) of each type that has it, the likeliest first.
FOREIGN_TYPES = _by_number()


def probably(number: int) -> str | None:
    """What a type's number stands for in other programs: "IQ3_KS of ik_llama.cpp"; None when none is known."""
    known = FOREIGN_TYPES.get(number)
    return " or ".join(f"{name} of {program}" for name, program in known) if known else None
