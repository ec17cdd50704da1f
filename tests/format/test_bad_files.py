"""The malformed files kept in fixtures/gguf/bad: what opening each of them says."""

from __future__ import annotations

from pathlib import Path

import pytest

from gguf_forge.errors import ForgeError, FormatError, InvalidError, LimitError, TruncatedError, UnsupportedError
from gguf_forge.format import reader
from gguf_forge.format.findings import findings

FOLDER = Path(__file__).resolve().parents[2] / "fixtures/gguf/bad"

#: File: the error, the byte offset and the field it names.
REFUSED: dict[str, tuple[type[ForgeError], int | None, str | None]] = {
    "A12_align_dup": (InvalidError, 57, 'key "general.alignment"'),
    "H01_empty": (FormatError, None, None),
    "H03_magic_only": (TruncatedError, 4, "version"),
    "H04_bad_magic": (FormatError, 0, None),
    "H08_ver1": (FormatError, 4, "version"),
    "H10_ver4": (FormatError, 4, "version"),
    "H13_trunc_counts": (TruncatedError, 8, "header"),
    "H16_nkv_minus1": (TruncatedError, 16, "header"),
    "H17_nt_2e62": (TruncatedError, 8, "header"),
    "H18_nkv_2e62": (TruncatedError, 16, "header"),
    "H20_nkv_1e6_nofile": (TruncatedError, 16, "header"),
    "H22_jpeg": (FormatError, 0, None),
    "H24_lfs": (FormatError, 0, None),
    "K03_keylen_eof": (TruncatedError, 16, "header"),
    "K10_dup_key_difftype": (InvalidError, 38, 'key "k"'),
    "K11_type13": (InvalidError, 33, 'key "k"'),
    "K12_type_minus1": (InvalidError, 33, 'key "k"'),
    "K15_strlen_1g": (TruncatedError, 37, 'key "k"'),
    "K22_arr_len_max_u8": (TruncatedError, 41, 'key "k"'),
    "K24_arr_len_1g_u8": (TruncatedError, 41, 'key "k"'),
    "K29_arr_nest_2000": (LimitError, 133, 'key "k"'),
    "T04_name_empty": (InvalidError, 24, 'tensor ""'),
    "T05_name_nul": (InvalidError, 24, r'tensor "a\x00b"'),
    "T06_name_badutf8": (InvalidError, 24, r'tensor "\xff\xfe"'),
    "T08_dup_after_nul": (InvalidError, 24, r'tensor "a\x00x"'),
    "T13_nd_1e6": (InvalidError, 33, 'tensor "a"'),
    "T20_prod_2e64": (InvalidError, 24, 'tensor "a"'),
    "T21_prod_wrap4": (InvalidError, 24, 'tensor "a"'),
    "T22_prod_2e63": (InvalidError, 24, 'tensor "a"'),
    "T25_q4_0_nbytes_wrap2": (InvalidError, 24, 'tensor "a"'),
    "T27_dim_7fff": (TruncatedError, 24, 'tensor "a"'),
    "T28_type_neg1": (UnsupportedError, 24, 'tensor "a"'),
    "T30_type_count": (UnsupportedError, 24, 'tensor "a"'),
    "T31_type_1000": (UnsupportedError, 24, 'tensor "a"'),
    "T32_q4_0_ne31": (InvalidError, 24, 'tensor "a"'),
    "T33_q4k_ne32": (InvalidError, 24, 'tensor "a"'),
    "T34_off_max": (TruncatedError, 24, 'tensor "a"'),
    "T37_off_eof": (TruncatedError, 24, 'tensor "a"'),
    "T39_overlap": (InvalidError, 57, 'tensor "b"'),
    "T43_trunc_ti": (TruncatedError, 49, 'tensor "a"'),
    "T44_data_short1": (TruncatedError, 69, 'tensor "a"'),
    "T46_no_pad": (TruncatedError, 69, 'tensor "a"'),
    "T48_nt_gt_actual": (InvalidError, 57, 'tensor ""'),
    "T51_two_halves_64k": (TruncatedError, 24, 'tensor "a"'),
}
#: File that opens: the rules of its findings.
OPENS: dict[str, list[str]] = {
    "A07_align4096_short": ["layout"],
    "D01_q4_0_nan_scale": [],  # a matter of data, which opening does not read
    "D03_iq2xxs_bad_grid": [],
    "H09_ver2": [],
    "K08_key_upper_space": ["key-form"],
    "K13_bool2": ["bool-byte"],
    "K19_str_nul": ["text"],
    "K30_arr_empty": [],
    "K31_arr_empty_str": [],
    "K35_empty_string_value": [],
    "K37_kv_fake_internal": ["key-form"],
    "T10_name_ansi": ["tensor-name"],
    "T11_nd0": [],
    "T18_dim_4_0": ["empty-tensor"],
    "V01_vocab_scores_u8": ["tokenizer"],
    "ok": [],
    "ok_unpadded_tail": ["layout"],
}


def test_every_file_is_in_the_table() -> None:
    assert {p.stem for p in FOLDER.glob("*.gguf")} == {*REFUSED, *OPENS}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    error, offset, field = REFUSED[name]
    path = FOLDER / f"{name}.gguf"
    with pytest.raises(ForgeError) as caught:
        reader.open(path)
    found = caught.value
    assert (type(found), found.offset, found.field) == (error, offset, field)
    assert str(found).startswith(f"{path}: ")


@pytest.mark.parametrize("name", OPENS)
def test_opens(name: str) -> None:
    with reader.open(FOLDER / f"{name}.gguf") as file:
        assert [f.rule for f in findings(file)] == OPENS[name]
