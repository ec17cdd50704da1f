"""llama.cpp's C API, from the library that the package `xllamacpp` carries: does a file load, and what does it compute.

Every question is asked in a process of its own, because llama.cpp ends its process on some files and prints freely.
The declarations are those of llama.h as of xllamacpp 2026.10.11549; another version may need others.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DECLARATIONS = """
struct llama_model_params {
    void * devices; const void * overrides;
    int32_t n_gpu_layers, split_mode, load_mode, lazy_mode, main_gpu;
    const float * tensor_split; void * progress; void * progress_data; const void * kv_overrides;
    bool vocab_only, check_tensors, use_extra_bufts, no_host, no_alloc, load_mtp;
};
struct llama_context_params {
    uint32_t n_ctx, n_batch, n_ubatch, n_seq_max, n_rs_seq, n_outputs_max, n_outputs_max_per_seq;
    int32_t n_threads, n_threads_batch, ctx_type, rope_scaling_type, pooling_type, attention_type, flash_attn_type;
    float rope_freq_base, rope_freq_scale, yarn_ext_factor, yarn_attn_factor, yarn_beta_fast, yarn_beta_slow;
    uint32_t yarn_orig_ctx; float defrag_thold;
    void * cb_eval; void * cb_eval_data; int32_t type_k, type_v; size_t moe_cache_size;
    void * abort_callback; void * abort_data;
    bool embeddings, offload_kqv, no_perf, op_offload, swa_full, kv_unified;
    void * samplers; size_t n_samplers; void * ctx_other;
};
typedef struct {
    int32_t n_tokens; int32_t * token; float * embd; int32_t * pos; int32_t * n_seq_id; int32_t ** seq_id;
    int8_t * logits;
} llama_batch;
void llama_backend_init(void);
struct llama_model_params llama_model_default_params(void);
struct llama_context_params llama_context_default_params(void);
void * llama_model_load_from_file(const char * path, struct llama_model_params params);
void * llama_init_from_model(void * model, struct llama_context_params params);
void llama_free(void * context);
const void * llama_model_get_vocab(const void * model);
int32_t llama_vocab_n_tokens(const void * vocab);
int32_t llama_model_n_embd(const void * model);
bool llama_model_has_encoder(const void * model);
bool llama_model_has_decoder(const void * model);
int32_t llama_model_decoder_start_token(const void * model);
int32_t llama_tokenize(const void * vocab, const char * text, int32_t size, int32_t * tokens, int32_t most,
    bool add_special, bool parse_special);
llama_batch llama_batch_init(int32_t n_tokens, int32_t embd, int32_t n_seq_max);
int32_t llama_encode(void * context, llama_batch batch);
int32_t llama_decode(void * context, llama_batch batch);
float * llama_get_logits_ith(void * context, int32_t i);
float * llama_get_embeddings_ith(void * context, int32_t i);
"""


class RuntimeRefusalError(Exception):
    """llama.cpp refused, or ended its process; the message is the end of what it printed."""


def loads(path: Path, *, vocab_only: bool = False) -> None:
    """Loads a file. RuntimeRefusalError if llama.cpp does not."""
    _ask("load", path, {"vocab_only": vocab_only})


def logits(path: Path, tokens: list[int], *, embeddings: bool = False) -> NDArray[np.float32]:
    """What the model computes after each of the tokens: (tokens, vocabulary), or (tokens, width) of embeddings."""
    found: NDArray[np.float32] = logits_of(path, [tokens], embeddings=embeddings)[0]
    return found


def logits_of(path: Path, windows: list[list[int]], *, embeddings: bool = False) -> NDArray[np.float32]:
    """`logits` of several windows of as many tokens, each in a context of its own: (windows, tokens, ...)."""
    out = path.with_suffix(".npy")
    _ask("logits", path, {"windows": windows, "out": str(out), "embeddings": embeddings})
    found: NDArray[np.float32] = np.load(out)
    out.unlink()
    return found


def tokenize(path: Path, texts: list[str], *, special: bool = True) -> list[list[int]]:
    """The token ids of each text, without those that are added at its ends."""
    found: list[list[int]] = json.loads(_ask("tokenize", path, {"texts": texts, "special": special}))
    return found


def _ask(question: str, path: Path, how: dict[str, Any]) -> str:
    command = [sys.executable, "-m", "tests.runtime.llama", question, str(path)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        command,
        input=json.dumps(how),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=600,
        cwd=root,
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = [line for line in lines if "error" in line.lower() or "assert" in line.lower()] or lines[-3:]
        raise RuntimeRefusalError(f"{question} {path.name}: exit {done.returncode}: {' | '.join(said[:4])[:600]}")
    return done.stdout.splitlines()[-1] if done.stdout.strip() else ""


def _library() -> tuple[Any, Any]:
    import cffi
    import xllamacpp

    ffi = cffi.FFI()
    ffi.cdef(_DECLARATIONS)
    (path,) = Path(xllamacpp.__file__).parent.glob("xllamacpp*.so")
    return ffi, ffi.dlopen(str(path))


def _open(ffi: Any, lib: Any, path: str, *, vocab_only: bool = False) -> Any:
    lib.llama_backend_init()
    params = lib.llama_model_default_params()
    params.vocab_only = vocab_only
    params.n_gpu_layers = 0
    params.check_tensors = True
    model = lib.llama_model_load_from_file(path.encode(), params)
    if model == ffi.NULL:
        sys.exit(3)
    return model


def _batch(lib: Any, tokens: list[int]) -> Any:
    batch = lib.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
    return batch


def _logits(ffi: Any, lib: Any, path: str, how: dict[str, Any]) -> None:
    model = _open(ffi, lib, path)
    np.save(how["out"], np.stack([_window(ffi, lib, model, tokens, how) for tokens in how["windows"]]))


def _window(ffi: Any, lib: Any, model: Any, tokens: list[int], how: dict[str, Any]) -> NDArray[np.float32]:
    params = lib.llama_context_default_params()
    count = len(tokens)
    params.n_ctx = params.n_batch = params.n_ubatch = max(64, count)
    params.n_threads = params.n_threads_batch = 1
    params.flash_attn_type, params.type_k, params.type_v = 0, 0, 0
    params.embeddings = how["embeddings"]
    params.pooling_type = 0 if how["embeddings"] else -1
    params.swa_full = True
    context = lib.llama_init_from_model(model, params)
    if context == ffi.NULL:
        sys.exit(4)
    if lib.llama_model_has_encoder(model):
        if lib.llama_encode(context, _batch(lib, tokens)) != 0:
            sys.exit(5)
        if lib.llama_model_has_decoder(model):
            tokens = [max(0, lib.llama_model_decoder_start_token(model)), *tokens[:-1]]
    if (not lib.llama_model_has_encoder(model) or lib.llama_model_has_decoder(model)) and (
        lib.llama_decode(context, _batch(lib, tokens)) != 0
    ):
        sys.exit(6)
    vocabulary = lib.llama_model_get_vocab(model)
    width = lib.llama_model_n_embd(model) if how["embeddings"] else lib.llama_vocab_n_tokens(vocabulary)
    get = lib.llama_get_embeddings_ith if how["embeddings"] else lib.llama_get_logits_ith
    rows = [np.frombuffer(ffi.buffer(get(context, i), 4 * width), np.float32).copy() for i in range(len(tokens))]
    lib.llama_free(context)
    return np.stack(rows)


def _tokenize(ffi: Any, lib: Any, path: str, how: dict[str, Any]) -> None:
    vocab = lib.llama_model_get_vocab(_open(ffi, lib, path, vocab_only=True))
    found = []
    for text in how["texts"]:
        raw = text.encode()
        ids = ffi.new("int32_t[]", len(raw) + 16)
        count = lib.llama_tokenize(vocab, raw, len(raw), ids, len(raw) + 16, False, how["special"])
        found.append([ids[i] for i in range(count)])
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    _question, _path, _how = sys.argv[1], sys.argv[2], json.load(sys.stdin)
    _ffi, _lib = _library()
    if _question == "load":
        _open(_ffi, _lib, _path, vocab_only=_how["vocab_only"])
    elif _question == "logits":
        _logits(_ffi, _lib, _path, _how)
    else:
        _tokenize(_ffi, _lib, _path, _how)
