"""What is called of llama.h, ggml.h and ggml-backend.h, for cffi's ABI mode, in the layouts its structures have had.

In ABI mode nobody checks a declaration against the library: `library` does, with the values of DEFAULTS, which the
library itself gives, and with a tensor of a known shape. A structure that grew another field gets another Layout.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Bytes behind each structure that goes by value: a library whose structure is longer then writes into them, and is
#: refused, instead of writing elsewhere.
SPARE = 512


@dataclass(frozen=True)
class Layout:
    """One form of the structures: fields of llama_context_params between type_v and abort_callback."""

    since: str
    after_types: str


LAYOUTS = (
    Layout("llama.cpp of October 2026 (xllamacpp 2026.10.11549)", "size_t moe_cache_size;"),
    Layout("llama.cpp of summer 2026 (llama-cpp-python 0.3.36)", ""),
)

#: Values the library gives in the structures of llama_*_default_params, spread over each so that a shifted field shows.
MODEL_DEFAULTS = {
    "n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1, "main_gpu": 0, "vocab_only": 0,
    "check_tensors": 0, "use_extra_bufts": 1, "no_host": 0, "no_alloc": 0, "load_mtp": 0,
}  # fmt: skip
CONTEXT_DEFAULTS = {
    "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_rs_seq": 0, "n_outputs_max": 0, "ctx_type": 0,
    "rope_scaling_type": -1, "pooling_type": -1, "attention_type": -1, "flash_attn_type": -1, "rope_freq_base": 0,
    "yarn_ext_factor": -1, "yarn_attn_factor": -1, "yarn_beta_fast": -1, "yarn_beta_slow": -1, "defrag_thold": -1,
    "type_k": 1, "type_v": 1, "embeddings": 0, "offload_kqv": 1, "no_perf": 1, "op_offload": 1, "swa_full": 1,
    "kv_unified": 0, "n_samplers": 0,
}  # fmt: skip


def declarations(layout: Layout) -> str:
    """The text for cffi.FFI.cdef."""
    return _TEXT.replace("@after_types@", layout.after_types).replace("@spare@", f"char spare[{SPARE}];")


_TEXT = """
typedef struct ggml_tensor {
    int type;
    void * buffer;
    int64_t ne[4];
    size_t nb[4];
    int op;
    int32_t op_params[16];
    int32_t flags;
    struct ggml_tensor * src[10];
    struct ggml_tensor * view_src;
    size_t view_offs;
    void * data;
    char name[64];
    void * extra;
    char padding[8];
} ggml_tensor;
typedef struct { size_t mem_size; void * mem_buffer; bool no_alloc; } ggml_init_params;
void * ggml_init(ggml_init_params params);
void ggml_free(void * context);
ggml_tensor * ggml_new_tensor_3d(void * context, int type, int64_t ne0, int64_t ne1, int64_t ne2);
ggml_tensor * ggml_set_name(ggml_tensor * tensor, const char * name);
ggml_tensor * ggml_mul_mat(void * context, ggml_tensor * a, ggml_tensor * b);
const char * ggml_op_name(int op);
const char * ggml_type_name(int type);
size_t ggml_nbytes(const ggml_tensor * tensor);
bool ggml_backend_buffer_is_host(void * buffer);
void ggml_backend_tensor_get(const ggml_tensor * tensor, void * data, size_t offset, size_t size);

struct llama_model_params {
    void * devices; const void * tensor_buft_overrides;
    int32_t n_gpu_layers, split_mode, load_mode, lazy_mode, main_gpu;
    const float * tensor_split; void * progress_callback; void * progress_callback_user_data; const void * kv_overrides;
    bool vocab_only, check_tensors, use_extra_bufts, no_host, no_alloc, load_mtp;
    @spare@
};
struct llama_context_params {
    uint32_t n_ctx, n_batch, n_ubatch, n_seq_max, n_rs_seq, n_outputs_max, n_outputs_max_per_seq;
    int32_t n_threads, n_threads_batch, ctx_type, rope_scaling_type, pooling_type, attention_type, flash_attn_type;
    float rope_freq_base, rope_freq_scale, yarn_ext_factor, yarn_attn_factor, yarn_beta_fast, yarn_beta_slow;
    uint32_t yarn_orig_ctx; float defrag_thold;
    bool (*cb_eval)(ggml_tensor * tensor, bool ask, void * data); void * cb_eval_user_data;
    int32_t type_k, type_v;
    @after_types@
    void * abort_callback; void * abort_callback_data;
    bool embeddings, offload_kqv, no_perf, op_offload, swa_full, kv_unified;
    void * samplers; size_t n_samplers; void * ctx_other;
    @spare@
};
typedef struct {
    int32_t n_tokens; int32_t * token; float * embd; int32_t * pos; int32_t * n_seq_id; int32_t ** seq_id;
    int8_t * logits;
} llama_batch;

void ggml_abort(const char * file, int line, const char * format, ...);
void * ggml_set_abort_callback(void (*callback)(const char * message));

void llama_log_set(void (*log)(int level, const char * text, void * data), void * data);
void llama_backend_init(void);
const char * llama_print_system_info(void);
bool llama_supports_gpu_offload(void);
struct llama_model_params llama_model_default_params(void);
struct llama_context_params llama_context_default_params(void);
void * llama_model_load_from_file(const char * path, struct llama_model_params params);
void llama_model_free(void * model);
void * llama_init_from_model(void * model, struct llama_context_params params);
void llama_free(void * context);
uint32_t llama_n_ctx(const void * context);
const void * llama_model_get_vocab(const void * model);
int32_t llama_model_n_embd(const void * model);
int32_t llama_model_n_ctx_train(const void * model);
bool llama_model_has_encoder(const void * model);
bool llama_model_has_decoder(const void * model);
int32_t llama_model_decoder_start_token(const void * model);
int32_t llama_vocab_n_tokens(const void * vocab);
bool llama_vocab_get_add_bos(const void * vocab);
bool llama_vocab_get_add_eos(const void * vocab);
int32_t llama_vocab_bos(const void * vocab);
int32_t llama_vocab_eos(const void * vocab);
bool llama_vocab_is_eog(const void * vocab, int32_t token);
int32_t llama_tokenize(const void * vocab, const char * text, int32_t size, int32_t * tokens, int32_t most,
    bool add_special, bool parse_special);
int32_t llama_detokenize(const void * vocab, const int32_t * tokens, int32_t count, char * text, int32_t most,
    bool remove_special, bool unparse_special);
void * llama_get_memory(const void * context);
void llama_memory_clear(void * memory, bool data);
llama_batch llama_batch_init(int32_t n_tokens, int32_t embd, int32_t n_seq_max);
void llama_batch_free(llama_batch batch);
int32_t llama_encode(void * context, llama_batch batch);
int32_t llama_decode(void * context, llama_batch batch);
void llama_synchronize(void * context);
float * llama_get_logits_ith(void * context, int32_t i);
"""
