"""Where llama.cpp's loaders ask for other shapes than the common ones: by the architecture that a file names.

These are facts about a reader, for all the architectures it knows, whether or not a family here makes them. A table
only. Source: as `shape_table`.
"""

from __future__ import annotations

from collections.abc import Mapping

from gguf_forge.convert.shape_sets import (
    AS_KEYS,
    AS_VALUES,
    BY_ROT,
    DELTA,
    DOUBLED,
    DRAFT,
    DRAFT_TOKENS,
    EXPERTS_BY_FF,
    EXPERTS_OR_FF,
    EXPERTS_SHARE_FF,
    FORWARD_EACH,
    HEADS_EACH,
    HEADS_ONLY_EACH,
    LATENT,
    LATENT_OR_KDA,
    LATENT_PLAIN,
    MAMBA_2,
    NORMS_PER_HEAD,
    NORMS_WHOLE,
    RWKV_6,
    RWKV_7,
    SHARED_OR_EACH_FF,
    SHARED_OR_FF,
    SHARED_OR_MANY,
    SHARED_OR_ONE,
    SHARED_SAID,
    SIZES_EACH,
    SQUARE,
    T5,
    TARGETS,
    adapters,
    decides,
    decision_head,
    hashed_rows,
    latent_by_window,
    wavtokenizer,
    widest_rotation,
)
from gguf_forge.convert.shape_table import (
    WIDE,
    Rows,
    alike,
    attention,
    experts,
    feed_forward,
    in_layers,
    shared_experts,
)
from gguf_forge.convert.sizes import (
    ANY,
    EMBD,
    EMBD_OUT,
    EXPERT_FF,
    FF,
    HEADS,
    HEADS_KV,
    INDEX_KEY,
    INDEX_POOL,
    INNER,
    KDA,
    KEY,
    KEY_FULL,
    KEYS,
    LAYERS,
    PER_LAYER,
    Q_RANK,
    QUERIES,
    SHARED,
    SHARED_FF,
    STATE,
    STREAMS,
    TIME_STEPS,
    USED,
    VALUE,
    VALUE_MLA,
    VALUES,
    VOCAB,
    WKV_HEAD,
    Flat,
    OneOf,
    Size,
    attends,
    attends_by_interval,
    axis,
    each,
    key,
    predicts,
    where,
)

_EAGLE_INPUT = TARGETS * key("target_hidden_size")
_LATENT_WIDTH = key("moe_latent_size", 0) | EMBD
_NEMOTRON_FF = each(key("expert_feed_forward_length", 0)) | where(predicts, FF, each(FF)) // each(USED)
_KIMI_WIDTH = key("expert_latent_length", 0) | EMBD
#: PLaMo 2 asks for sizes of heads even where the first layer has none.
_PLAMO_KEY, _PLAMO_VALUE = key("attention.key_length", KEY), key("attention.value_length", VALUE)
_PLAMO_STEPS = Size(lambda basis, layer: None if (e := EMBD.of(basis, 0)) is None else max(64, e // 16))
_DRAFT_GROUPS = 2 * key("conv_kernel_size") * (EMBD // key("conv_group_size"))
_ALTUP = 256

#: Architectures of llama.cpp and the rows in which they differ from the common ones; where two sets of rows name one
#: output, the later holds.
_EXCEPTIONS: tuple[tuple[str, Rows], ...] = (
    # attention
    (
        (
            "arctic baichuan bert bitnet bloom chameleon codeshell cohere2 command-r dbrx deepseek dream "
            "eurobert falcon gpt2 gptneox grok internlm2 jais jamba jina-bert-v2 jina-bert-v3 lfm2 lfm2moe "
            "llada-moe modern-bert mpt nemotron neo-bert nomic-bert nomic-bert-moe olmo olmo2 olmoe orion "
            "phi2 phi3 phimoe plamo pockettts qwen qwen2 qwen2moe qwen2vl stablelm starcoder starcoder2 "
            "xverse"
        ),
        SQUARE,
    ),
    (
        (
            "apertus cohere2moe ernie4_5 ernie4_5-moe grovemoe maincoder mellum minimax-m2 minimax-m3 "
            "paddleocr qwen3 qwen3moe qwen3tts qwen3vl qwen3vlmoe rnd1 smallthinker talkie"
        ),
        AS_VALUES,
    ),
    ("exaone-moe maple seed_oss", AS_KEYS),
    ("bailingmoe gpt-oss", BY_ROT),
    ("deci granitehybrid nemotron_h nemotron_h_moe", HEADS_EACH),
    ("laguna openelm plamo3", HEADS_ONLY_EACH),
    ("gemma-embedding2 gemma4 gemma4-assistant spark2_5", SIZES_EACH),
    ("deepseek2 mistral4 deepseek32 glm-dsa hy_v4 dots3note", LATENT),
    ("minicpm3 plm", LATENT_PLAIN),
    ("kimi-linear kimi-k3 glm5-next bailingmoe3", LATENT_OR_KDA),
    ("qwen3next qwen35 qwen35moe qwen4exp clef", DELTA),
    ("jina-bert-v2 mpt olmoe", NORMS_WHOLE),
    ("chameleon command-r stablelm k2-horizon", NORMS_PER_HEAD),
    # feeding forward
    ("chatglm glm4 modern-bert neo-bert phi3 plamo2", DOUBLED),
    ("deci gemma4 gemma4-assistant nemotron_h nemotron_h_moe openelm plamo3", FORWARD_EACH),
    (
        (
            "arctic dbrx granite granite_swa granitehybrid granitemoe hunyuan-moe jamba llama llama-embed "
            "minicpm minimax-01 minimax-m2 mistral3 nomic-bert-moe olmoe phimoe refact"
        ),
        EXPERTS_BY_FF,
    ),
    (
        "glm4moe grovemoe hy_v3 llada-moe mellum qwen2moe qwen35moe qwen3moe qwen3next qwen3vlmoe qwen4exp rnd1",
        EXPERTS_SHARE_FF,
    ),
    ("cohere2moe grok", EXPERTS_OR_FF),
    (
        (
            "ernie4_5 ernie4_5-moe granite granite_swa granitehybrid granitemoe llama llama-embed minicpm "
            "mistral3 nemotron_h nemotron_h_moe paddleocr refact step35"
        ),
        SHARED_SAID,
    ),
    ("qwen2moe qwen35moe qwen4exp", SHARED_OR_FF),
    ("hunyuan-moe qwen3next", SHARED_OR_EACH_FF),
    ("exaone-moe hy_v3", SHARED_OR_ONE),
    ("cohere2moe k2-horizon", SHARED_OR_MANY),
    # state spaces
    ("mamba2 granitehybrid nemotron_h nemotron_h_moe falcon-h1", MAMBA_2),
    ("rwkv6 rwkv6qwen2", RWKV_6),
    ("rwkv7 arwkv7", RWKV_7),
    ("t5 t5encoder", T5),
    ("dflash eagle3", DRAFT),
    # and single architectures
    ("arctic", in_layers(feed_forward(EMBD))),
    ("arwkv7", in_layers({"time_mix_lerp_fused": OneOf(((6, 1, 1, EMBD), (5, 1, 1, EMBD)))})),
    ("bailingmoe2", in_layers({"attn_qkv": (EMBD + 2 * VALUES, EMBD)})),
    ("bailingmoe2", in_layers(shared_experts((SHARED_FF | EXPERT_FF) * SHARED))),
    (
        "bailingmoe3",
        in_layers(
            {
                **alike((KDA, EMBD), "ssm_f_a", "ssm_g_a"),
                "ssm_a": (HEADS, 1),
                "attn_gate": (HEADS, EMBD),
                **shared_experts(SHARED_FF | EXPERT_FF * (SHARED | 1)),
            }
        ),
    ),
    ("chatglm deci", in_layers({"attn_output": (EMBD, EMBD)})),
    ("clef", decision_head(axis("decision.proj_memory.weight", -2), axis("dec.blk.0.ffn_up.weight", -2))),
    (
        "cogvlm",
        in_layers(
            {
                **alike((3 * QUERIES, EMBD), "attn_qkv", "vis_attn_qkv"),
                "vis_attn_output": (EMBD, QUERIES),
                **alike((FF, EMBD), "vis_gate", "vis_up"),
                "vis_down": (EMBD, FF),
            }
        ),
    ),
    ("deci", in_layers({"attn_output": (EMBD, where(attends, each(HEADS) * KEY, EMBD))})),
    ("deepseek2-ocr", in_layers(attention(EMBD, EMBD, EMBD, EMBD))),
    ("deepseek4 dflash", in_layers({"attn_q_b": (QUERIES, Q_RANK), "attn_kv_a_norm": (KEY,)})),
    (
        "dflash",
        {
            "rope_freqs": (KEY // 2,),
            "markov_w1": (VOCAB, axis("markov_w1.weight", -1)),
            "markov_w2": (DRAFT_TOKENS, axis("markov_w1.weight", -1)),
            "conf_proj": (1, EMBD + axis("markov_w1.weight", -1)),
            **alike((VOCAB, key("selector_rank")), "selector_predecessor", "selector_successor"),
            "selector_hidden": (key("selector_rank"), EMBD),
            **in_layers(
                {
                    **alike((2, key("conv_kernel_size"), EMBD), "attn_conv_base", "ffn_conv_base"),
                    **alike((_DRAFT_GROUPS, EMBD), "attn_conv_proj", "ffn_conv_proj"),
                }
            ),
        },
    ),
    ("dots1", in_layers(attention(QUERIES, QUERIES, QUERIES, QUERIES))),
    ("dots3note", latent_by_window()),
    (
        "eagle3",
        {
            "token_embd": (ANY, EMBD),
            "fc": (EMBD, _EAGLE_INPUT),
            "enc.output_norm": (_EAGLE_INPUT,),
            **in_layers({"attn_q": (QUERIES, 2 * EMBD), "attn_k": (KEYS, 2 * EMBD), "attn_v": (VALUES, 2 * EMBD)}),
        },
    ),
    ("exaone4", in_layers({"attn_output": (EMBD, EMBD)})),
    (
        "gemma3n",
        {
            "per_layer_token_embd": (VOCAB, LAYERS * _ALTUP),
            "per_layer_model_proj": (LAYERS * _ALTUP, EMBD),
            "per_layer_proj_norm": (_ALTUP,),
            **alike((3, EMBD, EMBD), "altup_proj", "altup_unembd_proj"),
            **in_layers(
                {
                    "inp_gate": (_ALTUP, EMBD),
                    "proj": (EMBD, _ALTUP),
                    "altup_correct_coef": (4, 4),
                    "altup_predict_coef": (16, 4),
                    "altup_router": (4, EMBD),
                    **alike((EMBD,), "altup_correct_scale", "altup_router_norm", "laurel_post_norm"),
                    "laurel_l": (64, EMBD),
                    "laurel_r": (EMBD, 64),
                }
            ),
        },
    ),
    ("gemma4 gemma4-assistant", {"rope_freqs": (KEY_FULL // 2,)}),
    ("gemma4-assistant", {"nextn.pre_projection": (EMBD, 2 * EMBD_OUT), "nextn.post_projection": (EMBD_OUT, EMBD)}),
    ("gemma-embedding2", {"output": (EMBD_OUT, EMBD)}),
    ("glm5-next", in_layers({"indexer_compressor_gate": (INDEX_KEY, EMBD)})),
    ("glm5-next", in_layers({"indexer_compressor_ape": (INDEX_POOL, INDEX_KEY)})),
    ("glm5-next k2-horizon", in_layers(experts(each(EXPERT_FF)))),
    ("glm5-next", in_layers(shared_experts(each(EXPERT_FF) * SHARED))),
    ("granite_swa", in_layers({"ffn_up_shexp": (2 * SHARED_FF, EMBD)})),
    ("graniteswitch", adapters()),
    (
        "hy_v4",
        in_layers(
            {
                **alike((2 * STREAMS, WIDE), "hc_attn_fn", "hc_ffn_fn"),
                **alike((2 * STREAMS,), "hc_attn_base", "hc_ffn_base"),
                **alike((2,), "hc_attn_scale", "hc_ffn_scale"),
                "attn_gate": (HEADS * VALUE_MLA, EMBD),
            }
        ),
    ),
    ("jamba", in_layers({"attn_k": (each(VALUES), EMBD), "attn_v": (each(VALUES), EMBD)})),
    (
        "jina-bert-v2",
        {
            "cls": (1, EMBD),
            **in_layers(
                {
                    "ffn_up": OneOf(((FF, EMBD), (2 * FF, EMBD))),
                    "ffn_up.bias": (axis("blk.{l}.ffn_up.weight", -2),),
                }
            ),
        },
    ),
    (
        "k2-horizon",
        in_layers(
            {
                **alike(Flat((HEADS, KEY)), "attn_q_norm"),
                **alike(Flat((HEADS_KV, KEY)), "attn_k_norm"),
                "attn_gate": (HEADS * VALUE, EMBD),
                "attn_output": (EMBD, HEADS * VALUE),
                **shared_experts(SHARED_FF | each(EXPERT_FF) * SHARED),
            }
        ),
    ),
    ("kimi-linear", in_layers({"ssm_a": (HEADS, 1)})),
    ("kimi-linear kimi-k3", in_layers(shared_experts(EXPERT_FF * (SHARED | 1)))),
    (
        "kimi-k3",
        in_layers(
            {
                **experts(EXPERT_FF, _KIMI_WIDTH),
                "ffn_routed_down": (_KIMI_WIDTH, EMBD),
                "ffn_routed_up": (EMBD, _KIMI_WIDTH),
                "ffn_routed_norm": (_KIMI_WIDTH,),
                "attn_gate": (HEADS * VALUE_MLA, EMBD),
            }
        ),
    ),
    (
        "laguna",
        in_layers(
            {
                "attn_gate": OneOf(((each(HEADS), EMBD), (each(HEADS) * KEY, EMBD))),
                **shared_experts(SHARED_FF | EXPERT_FF * key("expert_shared_count", 1)),
            }
        ),
    ),
    (
        "lfm2 lfm2moe",
        {
            "dense_2": (EMBD_OUT, EMBD),
            "cls.output": (1, EMBD),
            **in_layers({"attn_k": (each(KEYS), EMBD), "attn_v": (each(VALUES), EMBD)}),
        },
    ),
    (
        "lfm2",
        in_layers(
            {
                "attn_qkv": (where(decides, 3 * EMBD, EMBD + each(KEYS) + each(VALUES)), EMBD),
                **feed_forward(where(decides, each(FF), FF)),
            }
        ),
    ),
    ("llama4", in_layers(shared_experts(EXPERT_FF))),
    (
        "mimo2 step35",
        in_layers(attention(each(HEADS) * KEY, each(KEYS), each(VALUES), each(HEADS) * VALUE)),
    ),
    ("mimo2", in_layers({"attn_sinks": (each(HEADS),)})),
    (
        "minimax-01",
        in_layers(
            {
                "attn_qkv": (where(attends_by_interval, QUERIES + KEYS + VALUES, 3 * QUERIES), EMBD),
                "attn_norm_2": (QUERIES,),
            }
        ),
    ),
    ("minimax-m2", in_layers({"attn_q_norm": (QUERIES,), "attn_k_norm": (KEYS,)})),
    (
        "modern-bert",
        in_layers(
            {
                "attn_qkv": (3 * EMBD, EMBD),
                "ffn_up": (where(decides, each(FF), 2 * FF), EMBD),
                "ffn_down": (EMBD, where(decides, each(FF), FF)),
            }
        ),
    ),
    (
        "nemotron_h nemotron_h_moe",
        in_layers(
            {
                **experts(_NEMOTRON_FF, _LATENT_WIDTH),
                "ffn_latent_down": (_LATENT_WIDTH, EMBD),
                "ffn_latent_up": (EMBD, _LATENT_WIDTH),
            }
        ),
    ),
    ("olmo2", in_layers({"attn_q_norm": (EMBD,), "attn_k_norm": (HEADS_KV * (EMBD // HEADS),)})),
    ("phimoe", alike((EMBD // HEADS // 2,), "rope_factors_long", "rope_factors_short")),
    (
        "plamo2",
        in_layers(
            {
                **attention(
                    each(HEADS) * _PLAMO_KEY,
                    each(HEADS_KV) * _PLAMO_KEY,
                    each(HEADS_KV) * _PLAMO_VALUE,
                    each(HEADS) * _PLAMO_VALUE,
                ),
                "attn_q_norm": (each(HEADS), _PLAMO_KEY),
                "attn_k_norm": (each(HEADS_KV), _PLAMO_KEY),
                "ssm_x": (_PLAMO_STEPS + 2 * STATE, INNER),
                "ssm_dt": (TIME_STEPS, _PLAMO_STEPS),
                "ssm_a": (TIME_STEPS,),
                "ssm_d": (TIME_STEPS,),
                "ssm_dt_norm": (_PLAMO_STEPS,),
            }
        ),
    ),
    ("openelm", in_layers({"attn_qkv": ((each(HEADS) + 2 * each(HEADS_KV)) * KEY, EMBD)})),
    ("plamo3", in_layers({"attn_output": (EMBD, each(HEADS) * VALUE), "ffn_up": (2 * each(FF), EMBD)})),
    ("qwen", in_layers({"attn_qkv": (3 * EMBD, EMBD), **feed_forward(FF // 2)})),
    ("qwen3tts", {"output": (3072, EMBD)}),
    ("qwen35", {"cls.output": (EMBD_OUT, EMBD)}),
    ("clef", {"cls.output": (1, EMBD)}),
    ("qwen4exp", {"per_layer_token_embd": (Size(hashed_rows), PER_LAYER)}),
    ("qwen4exp", in_layers({"nextn.hnorm": Flat((STREAMS, EMBD))})),
    ("rwkv6qwen2", in_layers(alike((HEADS_KV * WKV_HEAD | EMBD, EMBD), "time_mix_key", "time_mix_value"))),
    ("spark2_5 step35", in_layers({"attn_gate": (each(HEADS), EMBD)})),
    ("step35", alike((Size(widest_rotation) // 2,), "rope_freqs", "rope_factors_long", "rope_factors_short")),
    ("talkie", in_layers({"attn_q_norm": (HEADS, 1)})),
    ("wavtokenizer-dec", wavtokenizer()),
    # with no exception
    (
        (
            "afmoe arcee exaone gemma gemma-embedding gemma2 gemma3 hrm_text hunyuan-dense hunyuan_vl jais2 "
            "llada mamba muse-glimmer nanbeige pangu-embedded smollm3"
        ),
        {},
    ),
)


def _gathered() -> Mapping[str, Rows]:
    gathered: dict[str, Rows] = {}
    for names, rows in _EXCEPTIONS:
        for name in names.split():
            gathered[name] = {**gathered.get(name, {}), **rows}
    return gathered


#: Of each architecture that llama.cpp loads as a language model, its exceptions.
SHAPES_OF = _gathered()
