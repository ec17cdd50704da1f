"""What llama.cpp's loaders ask for whatever else a file says. A table, made by tests/whole/make_required.py.

Names of architectures stand in one text, separated by blanks; `a|b` is either tensor; {l} the number of a layer.
Source: the load_hparams, load_arch_hparams and load_arch_tensors of llama.cpp (release 11549).
"""

from __future__ import annotations

from collections.abc import Mapping

#: Keys of every architecture, without its name.
COMMON = ("context_length", "embedding_length", "block_count")
#: Further keys, and the architectures that ask for them.
KEYS: Mapping[str, str] = {
    "attention.layer_norm_rms_epsilon": (
        "afmoe apertus arcee arctic baichuan bailingmoe bailingmoe2 bailingmoe3 bitnet chameleon chatglm cogvlm "
        "deci deepseek deepseek2 deepseek2-ocr deepseek32 deepseek4 dflash dots1 dots3note dream eagle3 ernie4_5 "
        "ernie4_5-moe eurobert exaone exaone-moe exaone4 falcon-h1 gemma gemma-embedding gemma-embedding2 gemma2 "
        "gemma3 gemma3n gemma4 gemma4-assistant glm-dsa glm4 glm4moe glm5-next gpt-oss granite granite_swa "
        "granitehybrid granitemoe graniteswitch grok grovemoe hrm_text hunyuan-dense hunyuan-moe hunyuan_vl hy_v3 "
        "hy_v4 internlm2 jamba k2-horizon kimi-k3 kimi-linear laguna lfm2 lfm2moe llada llada-moe llama llama-embed "
        "llama4 maincoder mamba mamba2 maple mellum mimo2 minicpm minicpm3 minimax-01 minimax-m2 minimax-m3 "
        "mistral3 mistral4 muse-glimmer nanbeige neo-bert olmo2 olmoe openelm paddleocr pangu-embedded phi3 phimoe "
        "plamo plamo2 plamo3 plm qwen qwen2 qwen2moe qwen3 qwen35 qwen35moe qwen3moe qwen3next qwen3tts qwen3vl "
        "qwen3vlmoe qwen4exp refact rnd1 seed_oss smallthinker smollm3 spark2_5 step35 t5 t5encoder talkie xverse"
    ),
    "expert_feed_forward_length": (
        "afmoe bailingmoe bailingmoe2 bailingmoe3 cohere2moe deepseek deepseek2 deepseek2-ocr deepseek32 deepseek4 "
        "dots1 dots3note exaone-moe glm-dsa glm4moe glm5-next gpt-oss grovemoe hunyuan-moe hy_v3 hy_v4 kimi-k3 "
        "kimi-linear laguna lfm2moe llama4 maple mellum mimo2 minimax-m2 minimax-m3 mistral4 step35"
    ),
    "attention.layer_norm_epsilon": (
        "bert bloom clef codeshell cohere2 command-r dbrx falcon gpt2 gptneox jais jais2 jina-bert-v2 jina-bert-v3 "
        "modern-bert mpt nemotron nemotron_h nemotron_h_moe nomic-bert nomic-bert-moe olmo orion phi2 pockettts "
        "stablelm starcoder starcoder2 wavtokenizer-dec"
    ),
    "expert_shared_count": (
        "afmoe bailingmoe bailingmoe2 bailingmoe3 deepseek deepseek2 deepseek2-ocr deepseek32 deepseek4 dots1 "
        "dots3note glm-dsa glm4moe glm5-next hy_v4 kimi-k3 kimi-linear minimax-m3 mistral4"
    ),
    "attention.sliding_window": (
        "cohere2 cohere2moe deepseek4 dots3note exaone-moe gemma-embedding gemma-embedding2 gemma3n gemma4 "
        "gemma4-assistant gpt-oss granite_swa maple mimo2 muse-glimmer spark2_5 step35"
    ),
    "ssm.conv_kernel": (
        "bailingmoe3 falcon-h1 glm5-next granitehybrid jamba kimi-k3 kimi-linear mamba mamba2 nemotron_h "
        "nemotron_h_moe plamo2 qwen35 qwen35moe qwen3next qwen4exp"
    ),
    "attention.kv_lora_rank": (
        "bailingmoe3 deepseek2 deepseek32 dots3note glm-dsa glm5-next hy_v4 kimi-k3 kimi-linear minicpm3 mistral4 "
        "plm"
    ),
    "ssm.inner_size": (
        "falcon-h1 granitehybrid jamba mamba mamba2 nemotron_h nemotron_h_moe plamo2 qwen35 qwen35moe qwen3next "
        "qwen4exp"
    ),
    "ssm.state_size": (
        "falcon-h1 granitehybrid jamba mamba mamba2 nemotron_h nemotron_h_moe plamo2 qwen35 qwen35moe qwen3next "
        "qwen4exp"
    ),
    "ssm.time_step_rank": (
        "falcon-h1 granitehybrid jamba mamba mamba2 nemotron_h nemotron_h_moe plamo2 qwen35 qwen35moe qwen3next "
        "qwen4exp"
    ),
    "expert_gating_func": (
        "bailingmoe2 bailingmoe3 deepseek32 deepseek4 dots3note exaone-moe kimi-k3 kimi-linear lfm2moe minimax-m3"
    ),
    "ssm.group_count": (
        "falcon-h1 granitehybrid mamba2 nemotron_h nemotron_h_moe plamo2 qwen35 qwen35moe qwen3next qwen4exp"
    ),
    "attention.sliding_window_pattern": (
        "dots3note gemma4 gemma4-assistant granite_swa maple mimo2 spark2_5 step35"
    ),
    "logit_scale": "cohere2 cohere2moe granite granite_swa granitemoe graniteswitch muse-glimmer talkie",
    "attention.indexer.head_count": "deepseek32 deepseek4 dots3note glm-dsa glm5-next minimax-m3 qwen4exp",
    "attention.indexer.key_length": "deepseek32 deepseek4 dots3note glm-dsa glm5-next minimax-m3 qwen4exp",
    "attention.indexer.top_k": "deepseek32 deepseek4 dots3note glm-dsa glm5-next minimax-m3 qwen4exp",
    "attention.q_lora_rank": "deepseek32 deepseek4 dots3note glm-dsa glm5-next hy_v4 minicpm3",
    "rope.dimension_sections": "qwen2vl qwen35 qwen35moe qwen3tts qwen3vl qwen3vlmoe qwen4exp",
    "attention.key_length_mla": "bailingmoe3 dots3note glm5-next hy_v4 kimi-k3 kimi-linear",
    "attention.value_length_mla": "bailingmoe3 dots3note glm5-next hy_v4 kimi-k3 kimi-linear",
    "hyper_connection.count": "deepseek4 glm5-next hy_v4 qwen4exp",
    "kda.head_dim": "bailingmoe3 glm5-next kimi-k3 kimi-linear",
    "leading_dense_block_count": "bailingmoe3 cohere2moe dots3note laguna",
    "wkv.head_size": "arwkv7 rwkv6 rwkv6qwen2 rwkv7",
    "hyper_connection.epsilon": "deepseek4 glm5-next hy_v4",
    "attention.decay_lora_rank": "arwkv7 rwkv7",
    "attention.iclr_lora_rank": "arwkv7 rwkv7",
    "attention.key_length_swa": "gemma4 gemma4-assistant",
    "attention.relative_buckets_count": "t5 t5encoder",
    "attention.value_length_swa": "gemma4 gemma4-assistant",
    "attention.value_residual_mix_lora_rank": "arwkv7 rwkv7",
    "embedding_length_per_layer_input": "gemma-embedding2 gemma4",
    "hyper_connection.sinkhorn_iterations": "deepseek4 glm5-next",
    "shortconv.l_cache": "lfm2 lfm2moe",
    "swiglu_clamp_exp": "deepseek4 maple",
    "time_decay_extra_dim": "rwkv6 rwkv6qwen2",
    "time_mix_extra_dim": "rwkv6 rwkv6qwen2",
    "activation.situ_beta": "kimi-k3",
    "activation.situ_linear_beta": "kimi-k3",
    "attention.clamp_kqv": "dbrx",
    "attention.compress_ratios": "deepseek4",
    "attention.compress_rope_freq_base": "deepseek4",
    "attention.group_norm_epsilon": "wavtokenizer-dec",
    "attention.group_norm_groups": "wavtokenizer-dec",
    "attention.indexer.block_size": "minimax-m3",
    "attention.indexer.kpool": "glm5-next",
    "attention.indexer.local_blocks": "minimax-m3",
    "attention.indexer.types": "dots3note",
    "attention.key_length_mla_swa": "dots3note",
    "attention.kv_lora_rank_swa": "dots3note",
    "attention.output_group_count": "deepseek4",
    "attention.output_lora_rank": "deepseek4",
    "attention.value_length_mla_swa": "dots3note",
    "attn_res.block_size": "kimi-k3",
    "decision.block_count": "clef",
    "decision.head_count": "clef",
    "decision.routing_block_count": "clef",
    "expert_group_scale": "grovemoe",
    "expert_weights_norm": "deepseek4",
    "expert_weights_scale": "deepseek4",
    "experts_per_group": "grovemoe",
    "hash_layer_count": "deepseek4",
    "hrm.h_cycles": "hrm_text",
    "hrm.l_cycles": "hrm_text",
    "hrm.layers_per_stack": "hrm_text",
    "hyper_connection.low_rank": "qwen4exp",
    "hyper_connection.magnitude": "hy_v4",
    "interleave_moe_layer_step": "llama4",
    "kda.gate_lower_bound": "bailingmoe3",
    "moe_every_n_layers": "nomic-bert-moe",
    "residual_scale": "minimax-01",
    "rope.freq_base_swa": "dots3note",
    "target_hidden_size": "eagle3",
    "use_parallel_residual": "gptneox",
    "xielu.alpha_n": "apertus",
    "xielu.alpha_p": "apertus",
    "xielu.beta": "apertus",
    "xielu.eps": "apertus",
}
#: Tensors that stand once in a file.
ONCE: Mapping[str, str] = {
    "token_embd.weight": (
        "afmoe apertus arcee arctic arwkv7 baichuan bailingmoe bailingmoe2 bailingmoe3 bert bitnet bloom chameleon "
        "chatglm cogvlm cohere2 cohere2moe command-r dbrx deci deepseek deepseek2 deepseek2-ocr deepseek32 "
        "deepseek4 dots1 dots3note dream ernie4_5 ernie4_5-moe eurobert exaone exaone-moe exaone4 falcon falcon-h1 "
        "gemma gemma-embedding gemma-embedding2 gemma2 gemma3 gemma3n gemma4 gemma4-assistant glm-dsa glm4 glm4moe "
        "glm5-next gpt-oss gpt2 gptneox granite granite_swa granitehybrid granitemoe graniteswitch grok grovemoe "
        "hrm_text hunyuan-dense hunyuan-moe hunyuan_vl hy_v3 hy_v4 internlm2 jais jais2 jamba jina-bert-v2 "
        "jina-bert-v3 k2-horizon kimi-k3 kimi-linear laguna lfm2 lfm2moe llada llada-moe llama llama-embed llama4 "
        "maincoder mamba mamba2 maple mellum mimo2 minicpm minicpm3 minimax-01 minimax-m2 minimax-m3 mistral3 "
        "mistral4 modern-bert mpt muse-glimmer nanbeige nemotron nemotron_h nemotron_h_moe neo-bert nomic-bert "
        "nomic-bert-moe olmo olmo2 olmoe openelm orion paddleocr pangu-embedded phi2 phi3 phimoe plamo plamo2 "
        "plamo3 plm pockettts qwen qwen2 qwen2moe qwen2vl qwen3 qwen35 qwen35moe qwen3moe qwen3next qwen3tts "
        "qwen3vl qwen3vlmoe qwen4exp refact rnd1 rwkv6 rwkv6qwen2 rwkv7 seed_oss smallthinker smollm3 spark2_5 "
        "stablelm starcoder starcoder2 step35 t5 t5encoder talkie wavtokenizer-dec xverse"
    ),
    "output_norm.weight": (
        "afmoe apertus arcee arctic arwkv7 baichuan bailingmoe bailingmoe2 bailingmoe3 bitnet bloom chameleon "
        "chatglm codeshell cogvlm cohere2 cohere2moe command-r dbrx deci deepseek deepseek2 deepseek2-ocr "
        "deepseek32 deepseek4 dflash dots1 dots3note dream eagle3 ernie4_5 ernie4_5-moe eurobert exaone exaone-moe "
        "exaone4 falcon falcon-h1 gemma gemma-embedding gemma-embedding2 gemma2 gemma3 gemma3n gemma4 "
        "gemma4-assistant glm-dsa glm4 glm4moe glm5-next gpt-oss gpt2 gptneox granite granite_swa granitehybrid "
        "granitemoe grok grovemoe hunyuan-dense hunyuan-moe hunyuan_vl hy_v3 hy_v4 internlm2 jais jais2 jamba "
        "k2-horizon kimi-k3 kimi-linear laguna llada llada-moe llama llama-embed llama4 maincoder mamba mamba2 "
        "maple mellum mimo2 minicpm minicpm3 minimax-01 minimax-m2 minimax-m3 mistral3 mistral4 modern-bert mpt "
        "muse-glimmer nanbeige nemotron nemotron_h nemotron_h_moe olmo2 olmoe openelm orion paddleocr "
        "pangu-embedded phi2 phi3 phimoe plamo plamo2 plamo3 plm pockettts qwen qwen2 qwen2moe qwen2vl qwen3 qwen35 "
        "qwen35moe qwen3moe qwen3next qwen3tts qwen3vl qwen3vlmoe refact rnd1 rwkv6 rwkv6qwen2 rwkv7 seed_oss "
        "smallthinker smollm3 spark2_5 stablelm starcoder starcoder2 step35 xverse"
    ),
    "output.weight": (
        "apertus arwkv7 baichuan bailingmoe bailingmoe2 codeshell dbrx deepseek4 dots1 exaone-moe gemma-embedding2 "
        "glm5-next gpt-oss gptneox hy_v4 internlm2 jais kimi-k3 kimi-linear llada-moe maple mellum mimo2 minimax-m2 "
        "minimax-m3 muse-glimmer nemotron olmo2 olmoe orion phi2 phimoe plamo qwen qwen2moe rwkv6 rwkv6qwen2 rwkv7 "
        "stablelm talkie xverse"
    ),
    "output_norm.bias": (
        "bloom codeshell falcon gpt2 gptneox jais jais2 nemotron orion phi2 phimoe pockettts rwkv6 rwkv7 stablelm "
        "starcoder starcoder2"
    ),
    "token_embd_norm.weight": (
        "bert bloom jina-bert-v2 jina-bert-v3 lfm2 lfm2moe modern-bert nomic-bert nomic-bert-moe rwkv6 rwkv7"
    ),
    "token_embd_norm.bias": "bert bloom jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe rwkv6 rwkv7",
    "enc.output_norm.weight": "dflash neo-bert t5 t5encoder",
    "position_embd.weight": "bert gpt2 starcoder",
    "fc.weight": "dflash eagle3",
    "output.bias": "phi2 phimoe",
    "output_hc_base.weight": "deepseek4 hy_v4",
    "output_hc_fn.weight": "deepseek4 hy_v4",
    "output_hc_scale.weight": "deepseek4 hy_v4",
    "per_layer_model_proj.weight": "gemma-embedding2 gemma3n",
    "per_layer_proj_norm.weight": "gemma-embedding2 gemma3n",
    "token_types.weight": "clef jina-bert-v2",
    "altup_proj.weight": "gemma3n",
    "altup_unembd_proj.weight": "gemma3n",
    "conv1d.bias": "wavtokenizer-dec",
    "conv1d.weight": "wavtokenizer-dec",
    "dec.output_norm.weight": "t5",
    "decision.proj_global.weight": "clef",
    "decision.proj_memory.weight": "clef",
    "decision.proj_option_context.weight": "clef",
    "decision.proj_option_lexical.weight": "clef",
    "decision.proj_option_question.weight": "clef",
    "decision.proj_question.weight": "clef",
    "decision.scales": "clef",
    "decision.scorer.bias": "clef",
    "decision.scorer.weight": "clef",
    "decision.scorer_out.bias": "clef",
    "decision.scorer_out.weight": "clef",
    "hrm.z_l_init": "hrm_text",
    "nextn.post_projection.weight": "gemma4-assistant",
    "per_layer_token_embd.weight": "gemma3n",
}
#: Tensors of each layer of the model proper.
LAYER: Mapping[str, str] = {
    "blk.{l}.attn_norm.weight": (
        "afmoe apertus arcee arctic arwkv7 baichuan bailingmoe bitnet bloom chameleon chatglm codeshell cogvlm "
        "cohere2 command-r dbrx deepseek deepseek2-ocr dots1 dream eagle3 ernie4_5 ernie4_5-moe eurobert exaone "
        "falcon falcon-h1 gemma gemma-embedding gemma-embedding2 gemma2 gemma3 gemma3n gemma4 gpt-oss gpt2 gptneox "
        "granite granite_swa granitehybrid granitemoe grok grovemoe hunyuan-dense hunyuan-moe hunyuan_vl hy_v4 "
        "internlm2 jais jais2 jamba k2-horizon kimi-k3 kimi-linear laguna lfm2moe llada llada-moe llama llama-embed "
        "llama4 maincoder mamba mamba2 maple mellum minicpm minicpm3 minimax-01 minimax-m2 minimax-m3 mistral3 mpt "
        "muse-glimmer nemotron neo-bert olmoe openelm orion paddleocr pangu-embedded phi2 phi3 phimoe plamo plamo2 "
        "plamo3 plm pockettts qwen qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3tts qwen3vl qwen3vlmoe refact rnd1 "
        "rwkv6 rwkv6qwen2 rwkv7 seed_oss smallthinker smollm3 spark2_5 stablelm starcoder starcoder2 xverse"
    ),
    "blk.{l}.attn_output.weight": (
        "afmoe apertus arcee arctic baichuan bailingmoe bert bitnet bloom chameleon chatglm codeshell cogvlm "
        "cohere2 command-r dbrx deepseek deepseek2-ocr dots1 dream eagle3 ernie4_5 ernie4_5-moe eurobert exaone "
        "falcon falcon-h1 gemma gemma-embedding gemma-embedding2 gemma2 gemma3 gemma3n gemma4 gpt-oss gpt2 gptneox "
        "granite granite_swa granitemoe grok grovemoe hunyuan-dense hunyuan-moe hunyuan_vl hy_v4 internlm2 jais "
        "jais2 jina-bert-v2 jina-bert-v3 k2-horizon laguna llada llada-moe llama llama-embed llama4 maincoder maple "
        "mellum minicpm minicpm3 minimax-01 minimax-m2 minimax-m3 mistral3 mpt muse-glimmer nemotron neo-bert "
        "nomic-bert nomic-bert-moe olmo olmo2 olmoe openelm orion paddleocr pangu-embedded phi2 phi3 phimoe plamo "
        "plamo3 plm pockettts qwen qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3tts qwen3vl qwen3vlmoe refact rnd1 "
        "seed_oss smallthinker smollm3 spark2_5 stablelm starcoder starcoder2 talkie xverse"
    ),
    "blk.{l}.ffn_norm.weight": (
        "afmoe apertus arcee arctic arwkv7 baichuan bailingmoe bitnet bloom chameleon chatglm codeshell cogvlm "
        "deepseek deepseek2-ocr dots1 dream eagle3 ernie4_5 ernie4_5-moe eurobert exaone gemma gemma-embedding "
        "gemma-embedding2 gemma2 gemma3 gemma3n gemma4 gpt2 gptneox granite granite_swa granitemoe grok grovemoe "
        "hunyuan-dense hunyuan-moe hunyuan_vl hy_v4 internlm2 jais jais2 jamba k2-horizon kimi-k3 kimi-linear "
        "laguna lfm2moe llada llada-moe llama llama-embed llama4 maincoder maple mellum minicpm minicpm3 minimax-01 "
        "minimax-m2 minimax-m3 mistral3 mpt muse-glimmer nemotron neo-bert olmoe openelm orion paddleocr "
        "pangu-embedded phi3 phimoe plamo2 plamo3 plm pockettts qwen qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3tts "
        "qwen3vl qwen3vlmoe refact rnd1 rwkv6qwen2 smallthinker smollm3 spark2_5 starcoder starcoder2 xverse"
    ),
    "blk.{l}.attn_k.weight|blk.{l}.attn_qkv.weight": (
        "afmoe apertus arcee arctic baichuan bailingmoe bert chameleon chatglm codeshell cohere2 command-r deepseek "
        "deepseek2-ocr dots1 dream ernie4_5 ernie4_5-moe eurobert exaone falcon-h1 gemma gemma-embedding gemma2 "
        "gemma3 gemma3n gpt-oss granite granite_swa granitemoe grok grovemoe hunyuan-dense hunyuan-moe hunyuan_vl "
        "internlm2 jais2 jina-bert-v2 jina-bert-v3 laguna llada llada-moe llama llama-embed llama4 maincoder maple "
        "mellum minicpm minimax-m2 minimax-m3 mistral3 muse-glimmer nemotron nomic-bert nomic-bert-moe olmo olmo2 "
        "olmoe orion paddleocr pangu-embedded phi2 phimoe plamo qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3tts "
        "qwen3vl qwen3vlmoe refact rnd1 seed_oss smallthinker smollm3 spark2_5 stablelm starcoder2 talkie xverse"
    ),
    "blk.{l}.attn_q.weight|blk.{l}.attn_qkv.weight": (
        "afmoe apertus arcee arctic baichuan bailingmoe bert chameleon chatglm codeshell cohere2 command-r deepseek "
        "deepseek2-ocr dots1 dream ernie4_5 ernie4_5-moe eurobert exaone falcon-h1 gemma gemma-embedding gemma2 "
        "gemma3 gemma3n gpt-oss granite granite_swa granitemoe grok grovemoe hunyuan-dense hunyuan-moe hunyuan_vl "
        "internlm2 jais2 jina-bert-v2 jina-bert-v3 laguna llada llada-moe llama llama-embed llama4 maincoder maple "
        "mellum minicpm minimax-m2 minimax-m3 mistral3 muse-glimmer nemotron nomic-bert nomic-bert-moe olmo olmo2 "
        "olmoe orion paddleocr pangu-embedded phi2 phimoe plamo qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3tts "
        "qwen3vl qwen3vlmoe refact rnd1 seed_oss smallthinker smollm3 spark2_5 stablelm starcoder2 talkie xverse"
    ),
    "blk.{l}.attn_v.weight|blk.{l}.attn_qkv.weight": (
        "afmoe apertus arcee arctic baichuan bailingmoe bert chameleon chatglm codeshell cohere2 command-r deepseek "
        "deepseek2-ocr dots1 dream ernie4_5 ernie4_5-moe eurobert exaone falcon-h1 gemma gemma-embedding gemma2 "
        "gemma3 gemma3n gpt-oss granite granite_swa granitemoe grok grovemoe hunyuan-dense hunyuan-moe hunyuan_vl "
        "internlm2 jais2 jina-bert-v2 jina-bert-v3 laguna llada llada-moe llama llama-embed llama4 maincoder maple "
        "mellum minicpm minimax-m2 minimax-m3 mistral3 muse-glimmer nemotron nomic-bert nomic-bert-moe olmo olmo2 "
        "olmoe orion paddleocr pangu-embedded phi2 phimoe plamo qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3tts "
        "qwen3vl qwen3vlmoe refact rnd1 seed_oss smallthinker smollm3 spark2_5 stablelm starcoder2 talkie xverse"
    ),
    "blk.{l}.ffn_down.weight": (
        "apertus arcee arctic arwkv7 baichuan bert bitnet bloom chameleon chatglm codeshell cogvlm cohere2 "
        "command-r dream eagle3 eurobert exaone falcon falcon-h1 gemma gemma-embedding gemma-embedding2 gemma2 "
        "gemma3 gemma3n gemma4 gpt2 gptneox hunyuan-dense hunyuan_vl internlm2 jais jais2 jina-bert-v2 jina-bert-v3 "
        "llada maincoder minicpm3 mpt muse-glimmer nemotron neo-bert nomic-bert olmo olmo2 openelm orion "
        "pangu-embedded phi2 phi3 plamo plamo2 plamo3 plm pockettts qwen qwen2 qwen2vl qwen3 qwen3tts qwen3vl "
        "rwkv6qwen2 seed_oss smollm3 spark2_5 stablelm starcoder starcoder2 talkie xverse"
    ),
    "blk.{l}.ffn_up.weight": (
        "apertus arcee arctic arwkv7 baichuan bert bitnet bloom chameleon chatglm codeshell cogvlm cohere2 "
        "command-r dream eagle3 eurobert exaone falcon falcon-h1 gemma gemma-embedding gemma-embedding2 gemma2 "
        "gemma3 gemma3n gemma4 gpt2 gptneox hunyuan-dense hunyuan_vl internlm2 jais jais2 jina-bert-v3 llada "
        "maincoder minicpm3 mpt muse-glimmer nemotron neo-bert nomic-bert olmo olmo2 openelm orion pangu-embedded "
        "phi2 phi3 plamo plamo2 plamo3 plm pockettts qwen qwen2 qwen2vl qwen3 qwen3tts qwen3vl rwkv6qwen2 seed_oss "
        "smollm3 spark2_5 stablelm starcoder starcoder2 talkie xverse"
    ),
    "blk.{l}.ffn_gate.weight": (
        "arctic arwkv7 baichuan bitnet chameleon cogvlm cohere2 command-r dream eagle3 eurobert exaone falcon-h1 "
        "gemma gemma-embedding gemma-embedding2 gemma2 gemma3 gemma3n gemma4 hunyuan-dense hunyuan_vl internlm2 "
        "jais llada maincoder minicpm3 muse-glimmer nomic-bert olmo olmo2 openelm orion pangu-embedded plamo qwen "
        "qwen2 qwen2vl qwen3 qwen3tts qwen3vl rwkv6qwen2 seed_oss smollm3 spark2_5 stablelm talkie xverse"
    ),
    "blk.{l}.attn_q_norm.weight": (
        "afmoe apertus chameleon dots1 gemma-embedding gemma-embedding2 gemma3 gemma3n gemma4 grovemoe "
        "hunyuan-dense hunyuan-moe hunyuan_vl laguna llada-moe maincoder maple mellum minimax-m2 minimax-m3 "
        "muse-glimmer olmo2 olmoe openelm plamo3 qwen3 qwen3moe qwen3tts qwen3vl qwen3vlmoe rnd1 talkie"
    ),
    "blk.{l}.attn_k_norm.weight": (
        "afmoe apertus chameleon dots1 gemma-embedding gemma-embedding2 gemma3 gemma3n grovemoe hunyuan-dense "
        "hunyuan-moe hunyuan_vl laguna llada-moe maincoder maple mellum minimax-m2 minimax-m3 muse-glimmer olmo2 "
        "olmoe openelm plamo3 qwen3 qwen3moe qwen3tts qwen3vl qwen3vlmoe rnd1"
    ),
    "blk.{l}.ffn_down_exps.weight": (
        "arctic bailingmoe dbrx gpt-oss grok grovemoe hunyuan-moe llada-moe maple mellum minimax-01 minimax-m2 "
        "olmoe phimoe qwen2moe qwen3moe qwen3vlmoe rnd1 smallthinker"
    ),
    "blk.{l}.ffn_gate_inp.weight": (
        "arctic bailingmoe dbrx gpt-oss grok grovemoe hunyuan-moe llada-moe maple mellum minimax-01 minimax-m2 "
        "olmoe phimoe qwen2moe qwen3moe qwen3vlmoe rnd1 smallthinker"
    ),
    "blk.{l}.ffn_up_exps.weight": (
        "arctic bailingmoe dbrx gpt-oss grok grovemoe hunyuan-moe llada-moe maple mellum minimax-01 minimax-m2 "
        "olmoe phimoe qwen2moe qwen3moe qwen3vlmoe rnd1 smallthinker"
    ),
    "blk.{l}.attn_norm.bias": (
        "bloom codeshell falcon gpt2 gptneox jais jais2 nemotron orion phi2 phimoe pockettts rwkv6 rwkv7 stablelm "
        "starcoder starcoder2"
    ),
    "blk.{l}.ffn_gate_exps.weight": (
        "bailingmoe dbrx gpt-oss grovemoe hunyuan-moe llada-moe maple mellum minimax-m2 olmoe phimoe qwen2moe "
        "qwen3moe qwen3vlmoe rnd1 smallthinker"
    ),
    "blk.{l}.attn_output.bias": (
        "bloom codeshell gpt-oss gpt2 gptneox jais jais2 jina-bert-v2 pangu-embedded phi2 phimoe starcoder "
        "starcoder2"
    ),
    "blk.{l}.attn_qkv.weight": (
        "bloom cogvlm dbrx falcon gpt2 gptneox jais mpt neo-bert openelm plamo3 qwen starcoder"
    ),
    "blk.{l}.ffn_norm.bias": (
        "bloom codeshell gpt2 gptneox jais jais2 nemotron orion phimoe pockettts starcoder starcoder2"
    ),
    "blk.{l}.post_attention_norm.weight": (
        "afmoe gemma-embedding gemma-embedding2 gemma2 gemma3 gemma3n gemma4 gpt-oss muse-glimmer olmo2 seed_oss"
    ),
    "blk.{l}.ffn_down.bias": "bloom codeshell gpt2 gptneox jais jais2 jina-bert-v2 phi2 starcoder starcoder2",
    "blk.{l}.post_ffw_norm.weight": (
        "afmoe gemma-embedding gemma-embedding2 gemma2 gemma3 gemma3n gemma4 muse-glimmer olmo2"
    ),
    "blk.{l}.ffn_up.bias": "bloom codeshell gpt2 gptneox jais jais2 phi2 starcoder",
    "blk.{l}.attn_output_norm.weight": "bert dbrx grok jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe",
    "blk.{l}.attn_qkv.bias": "bloom gpt2 gptneox jais qwen starcoder",
    "blk.{l}.attn_gate.weight": "afmoe hy_v4 laguna muse-glimmer spark2_5",
    "blk.{l}.attn_output_norm.bias": "bert jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe",
    "blk.{l}.attn_q.weight": "bitnet eagle3 gemma-embedding2 k2-horizon plm",
    "blk.{l}.layer_output_norm.bias": "bert jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe",
    "blk.{l}.layer_output_norm.weight": "bert jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe",
    "blk.{l}.attn_k.weight": "bitnet eagle3 gemma-embedding2 k2-horizon",
    "blk.{l}.time_mix_key.weight": "arwkv7 rwkv6 rwkv6qwen2 rwkv7",
    "blk.{l}.time_mix_output.weight": "arwkv7 rwkv6 rwkv6qwen2 rwkv7",
    "blk.{l}.time_mix_receptance.weight": "arwkv7 rwkv6 rwkv6qwen2 rwkv7",
    "blk.{l}.time_mix_value.weight": "arwkv7 rwkv6 rwkv6qwen2 rwkv7",
    "blk.{l}.time_mix_w1.weight": "arwkv7 rwkv6 rwkv6qwen2 rwkv7",
    "blk.{l}.time_mix_w2.weight": "arwkv7 rwkv6 rwkv6qwen2 rwkv7",
    "blk.{l}.attn_kv_a_mqa.weight": "hy_v4 minicpm3 plm",
    "blk.{l}.attn_kv_a_norm.weight": "hy_v4 minicpm3 plm",
    "blk.{l}.attn_norm_2.weight": "eagle3 rwkv6 rwkv7",
    "blk.{l}.attn_sinks.weight": "gpt-oss granite_swa hy_v4",
    "blk.{l}.attn_v.weight": "bitnet eagle3 gemma-embedding2",
    "blk.{l}.ffn_down_shexp.weight": "bailingmoe hunyuan-moe qwen2moe",
    "blk.{l}.ffn_gate_shexp.weight": "bailingmoe hunyuan-moe qwen2moe",
    "blk.{l}.ffn_up_shexp.weight": "bailingmoe hunyuan-moe qwen2moe",
    "blk.{l}.ssm_a": "falcon-h1 mamba mamba2",
    "blk.{l}.ssm_conv1d.weight": "falcon-h1 mamba mamba2",
    "blk.{l}.ssm_d": "falcon-h1 mamba mamba2",
    "blk.{l}.ssm_dt.bias": "falcon-h1 mamba mamba2",
    "blk.{l}.ssm_in.weight": "falcon-h1 mamba mamba2",
    "blk.{l}.ssm_out.weight": "falcon-h1 mamba mamba2",
    "blk.{l}.attn_kv_b.weight": "minicpm3 plm",
    "blk.{l}.attn_norm_2.bias": "rwkv6 rwkv7",
    "blk.{l}.attn_q_a.weight": "hy_v4 minicpm3",
    "blk.{l}.attn_q_a_norm.weight": "hy_v4 minicpm3",
    "blk.{l}.attn_q_b.weight": "hy_v4 minicpm3",
    "blk.{l}.channel_mix_key.weight": "rwkv6 rwkv7",
    "blk.{l}.channel_mix_lerp_k.weight": "rwkv6 rwkv7",
    "blk.{l}.channel_mix_value.weight": "rwkv6 rwkv7",
    "blk.{l}.inp_gate.weight": "gemma-embedding2 gemma3n",
    "blk.{l}.layer_output_scale.weight": "gemma-embedding2 talkie",
    "blk.{l}.post_attention_norm": "plamo2 plamo3",
    "blk.{l}.post_ffw_norm": "plamo2 plamo3",
    "blk.{l}.post_norm.weight": "gemma-embedding2 gemma3n",
    "blk.{l}.proj.weight": "gemma-embedding2 gemma3n",
    "blk.{l}.ssm_conv1d.bias": "mamba mamba2",
    "blk.{l}.time_mix_a0.weight": "arwkv7 rwkv7",
    "blk.{l}.time_mix_a1.weight": "arwkv7 rwkv7",
    "blk.{l}.time_mix_a2.weight": "arwkv7 rwkv7",
    "blk.{l}.time_mix_decay.weight": "rwkv6 rwkv6qwen2",
    "blk.{l}.time_mix_decay_w1.weight": "rwkv6 rwkv6qwen2",
    "blk.{l}.time_mix_decay_w2.weight": "rwkv6 rwkv6qwen2",
    "blk.{l}.time_mix_gate.weight": "rwkv6 rwkv6qwen2",
    "blk.{l}.time_mix_k_a.weight": "arwkv7 rwkv7",
    "blk.{l}.time_mix_k_k.weight": "arwkv7 rwkv7",
    "blk.{l}.time_mix_lerp_fused.weight": "rwkv6qwen2 rwkv7",
    "blk.{l}.time_mix_lerp_x.weight": "rwkv6 rwkv6qwen2",
    "blk.{l}.time_mix_ln.bias": "rwkv6 rwkv7",
    "blk.{l}.time_mix_ln.weight": "rwkv6 rwkv7",
    "blk.{l}.time_mix_r_k.weight": "arwkv7 rwkv7",
    "blk.{l}.time_mix_w0.weight": "arwkv7 rwkv7",
    "enc.blk.{l}.attn_k.weight": "t5 t5encoder",
    "enc.blk.{l}.attn_norm.weight": "t5 t5encoder",
    "enc.blk.{l}.attn_o.weight": "t5 t5encoder",
    "enc.blk.{l}.attn_q.weight": "t5 t5encoder",
    "enc.blk.{l}.attn_v.weight": "t5 t5encoder",
    "enc.blk.{l}.ffn_down.weight": "t5 t5encoder",
    "enc.blk.{l}.ffn_norm.weight": "t5 t5encoder",
    "enc.blk.{l}.ffn_up.weight": "t5 t5encoder",
    "blk.{l}.altup_correct_coef.weight": "gemma3n",
    "blk.{l}.altup_correct_scale.weight": "gemma3n",
    "blk.{l}.altup_predict_coef.weight": "gemma3n",
    "blk.{l}.altup_router.weight": "gemma3n",
    "blk.{l}.altup_router_norm.weight": "gemma3n",
    "blk.{l}.attn_k_b.weight": "hy_v4",
    "blk.{l}.attn_sub_norm.weight": "bitnet",
    "blk.{l}.attn_v_b.weight": "hy_v4",
    "blk.{l}.channel_mix_lerp_r.weight": "rwkv6",
    "blk.{l}.channel_mix_receptance.weight": "rwkv6",
    "blk.{l}.exp_probs_b.bias": "minimax-m2",
    "blk.{l}.ffn_down_chexps.weight": "grovemoe",
    "blk.{l}.ffn_down_exps.bias": "gpt-oss",
    "blk.{l}.ffn_gate.bias": "jais",
    "blk.{l}.ffn_gate_chexps.weight": "grovemoe",
    "blk.{l}.ffn_gate_exps.bias": "gpt-oss",
    "blk.{l}.ffn_gate_inp.bias": "gpt-oss",
    "blk.{l}.ffn_gate_inp_shexp.weight": "qwen2moe",
    "blk.{l}.ffn_norm": "falcon-h1",
    "blk.{l}.ffn_norm_exps.weight": "arctic",
    "blk.{l}.ffn_sub_norm.weight": "bitnet",
    "blk.{l}.ffn_up_chexps.weight": "grovemoe",
    "blk.{l}.ffn_up_exps.bias": "gpt-oss",
    "blk.{l}.hc_attn_base.weight": "hy_v4",
    "blk.{l}.hc_attn_fn.weight": "hy_v4",
    "blk.{l}.hc_attn_scale.weight": "hy_v4",
    "blk.{l}.hc_ffn_base.weight": "hy_v4",
    "blk.{l}.hc_ffn_fn.weight": "hy_v4",
    "blk.{l}.hc_ffn_scale.weight": "hy_v4",
    "blk.{l}.laurel_l.weight": "gemma3n",
    "blk.{l}.laurel_post_norm.weight": "gemma3n",
    "blk.{l}.laurel_r.weight": "gemma3n",
    "blk.{l}.ssm_dt.weight": "mamba",
    "blk.{l}.ssm_norm.weight": "mamba2",
    "blk.{l}.ssm_x.weight": "mamba",
    "blk.{l}.time_mix_first.weight": "rwkv6",
    "blk.{l}.time_mix_g1.weight": "rwkv7",
    "blk.{l}.time_mix_g2.weight": "rwkv7",
    "blk.{l}.vis_attn_output.weight": "cogvlm",
    "blk.{l}.vis_attn_qkv.weight": "cogvlm",
    "blk.{l}.vis_down.weight": "cogvlm",
    "blk.{l}.vis_gate.weight": "cogvlm",
    "blk.{l}.vis_up.weight": "cogvlm",
}
#: Types of single values, by the key without the architecture's name.
TYPES: Mapping[str, str] = {
    "activation.situ_beta": "FLOAT32",
    "activation.situ_linear_beta": "FLOAT32",
    "adapters.count": "UINT32",
    "adapters.lora_rank": "UINT32",
    "adapters.router_gain": "FLOAT32",
    "attention.causal": "BOOL",
    "attention.clamp_kqv": "FLOAT32",
    "attention.compress_ratios": "UINT32",
    "attention.compress_rope_freq_base": "FLOAT32",
    "attention.decay_lora_rank": "UINT32",
    "attention.gate_lora_rank": "UINT32",
    "attention.group_norm_epsilon": "FLOAT32",
    "attention.group_norm_groups": "UINT32",
    "attention.head_count": "UINT32",
    "attention.head_count_kv": "UINT32",
    "attention.iclr_lora_rank": "UINT32",
    "attention.indexer.block_size": "UINT32",
    "attention.indexer.head_count": "UINT32",
    "attention.indexer.key_length": "UINT32",
    "attention.indexer.kpool": "UINT32",
    "attention.indexer.kpool_select_tail": "BOOL",
    "attention.indexer.local_blocks": "UINT32",
    "attention.indexer.top_k": "UINT32",
    "attention.indexer.types": "UINT32",
    "attention.key_length": "UINT32",
    "attention.key_length_mla": "UINT32",
    "attention.key_length_mla_swa": "UINT32",
    "attention.key_length_swa": "UINT32",
    "attention.kv_lora_rank": "UINT32",
    "attention.kv_lora_rank_swa": "UINT32",
    "attention.layer_norm_epsilon": "FLOAT32",
    "attention.layer_norm_rms_epsilon": "FLOAT32",
    "attention.max_alibi_bias": "FLOAT32",
    "attention.output_group_count": "UINT32",
    "attention.output_lora_rank": "UINT32",
    "attention.output_scale": "FLOAT32",
    "attention.q_lora_rank": "UINT32",
    "attention.recurrent_layers": "UINT32",
    "attention.relative_buckets_count": "UINT32",
    "attention.scale": "FLOAT32",
    "attention.shared_kv_layers": "UINT32",
    "attention.sliding_window": "UINT32",
    "attention.sliding_window_pattern": "UINT32",
    "attention.temperature_length": "UINT32",
    "attention.temperature_scale": "FLOAT32",
    "attention.value_expert_count": "UINT32",
    "attention.value_expert_used_count": "UINT32",
    "attention.value_length": "UINT32",
    "attention.value_length_mla": "UINT32",
    "attention.value_length_mla_swa": "UINT32",
    "attention.value_length_swa": "UINT32",
    "attention.value_residual_mix_lora_rank": "UINT32",
    "attention.value_scale": "FLOAT32",
    "attn_logit_softcapping": "FLOAT32",
    "attn_res.block_size": "UINT32",
    "block_count": "UINT32",
    "block_size": "UINT32",
    "classifier.activation": "STRING",
    "context_length": "UINT32",
    "conv_group_size": "UINT32",
    "conv_kernel_size": "UINT32",
    "convnext.block_count": "UINT32",
    "convnext.embedding_length": "UINT32",
    "decision.block_count": "UINT32",
    "decision.head_count": "UINT32",
    "decision.routing_block_count": "UINT32",
    "decoder_block_count": "UINT32",
    "decoder_start_token_id": "UINT32",
    "dense_2_feat_in": "UINT32",
    "dense_2_feat_out": "UINT32",
    "dense_3_feat_in": "UINT32",
    "dense_3_feat_out": "UINT32",
    "embedding_length": "UINT32",
    "embedding_length_out": "UINT32",
    "embedding_length_per_layer_input": "UINT32",
    "embedding_scale": "FLOAT32",
    "expert_chunk_feed_forward_length": "UINT32",
    "expert_count": "UINT32",
    "expert_feed_forward_length": "UINT32",
    "expert_gating_func": "UINT32",
    "expert_group_count": "UINT32",
    "expert_group_scale": "FLOAT32",
    "expert_group_used_count": "UINT32",
    "expert_latent_length": "UINT32",
    "expert_shared_count": "UINT32",
    "expert_shared_feed_forward_length": "UINT32",
    "expert_used_count": "UINT32",
    "expert_weights_norm": "BOOL",
    "expert_weights_scale": "FLOAT32",
    "experts_per_group": "UINT32",
    "features_length": "UINT32",
    "feed_forward_length": "UINT32",
    "final_logit_softcapping": "FLOAT32",
    "full_attention_interval": "UINT32",
    "hash_layer_count": "UINT32",
    "hidden_activation": "STRING",
    "hrm.h_cycles": "UINT32",
    "hrm.l_cycles": "UINT32",
    "hrm.layers_per_stack": "UINT32",
    "hrm.prefix_lm": "BOOL",
    "hyper_connection.count": "UINT32",
    "hyper_connection.epsilon": "FLOAT32",
    "hyper_connection.low_rank": "UINT32",
    "hyper_connection.magnitude": "FLOAT32",
    "hyper_connection.sinkhorn_iterations": "UINT32",
    "interleave_moe_layer_step": "UINT32",
    "kda.gate_lower_bound": "FLOAT32",
    "kda.head_dim": "UINT32",
    "kda.safe_gate": "BOOL",
    "leading_dense_block_count": "UINT32",
    "logit_scale": "FLOAT32",
    "moe_every_n_layers": "UINT32",
    "moe_latent_size": "UINT32",
    "n_deepstack_layers": "UINT32",
    "nextn_predict_layers": "UINT32",
    "norm_before_fc": "BOOL",
    "norm_before_residual": "BOOL",
    "num_loops": "UINT32",
    "ple.conv_kernel": "UINT32",
    "ple.eos_token_id": "UINT32",
    "ple.heads_per_ngram": "UINT32",
    "ple.image_token_id": "UINT32",
    "ple.ngram_size": "UINT32",
    "posnet.block_count": "UINT32",
    "posnet.embedding_length": "UINT32",
    "rescale_every_n_layers": "UINT32",
    "residual_scale": "FLOAT32",
    "rope.dimension_count": "UINT32",
    "rope.dimension_count_swa": "UINT32",
    "rope.dimension_sections": "INT32",
    "rope.freq_base": "FLOAT32",
    "rope.freq_base_swa": "FLOAT32",
    "rope.scale_linear": "FLOAT32",
    "rope.scaling.alpha": "FLOAT32",
    "rope.scaling.attn_factor": "FLOAT32",
    "rope.scaling.factor": "FLOAT32",
    "rope.scaling.finetuned": "BOOL",
    "rope.scaling.original_context_length": "UINT32",
    "rope.scaling.type": "STRING",
    "rope.scaling.yarn_attn_factor": "FLOAT32",
    "rope.scaling.yarn_beta_fast": "FLOAT32",
    "rope.scaling.yarn_beta_slow": "FLOAT32",
    "rope.scaling.yarn_ext_factor": "FLOAT32",
    "rope.scaling.yarn_log_multiplier": "FLOAT32",
    "router_logit_softcapping": "FLOAT32",
    "selector_rank": "UINT32",
    "selector_top_k": "UINT32",
    "shortconv.l_cache": "UINT32",
    "skip_loop_final_norm": "BOOL",
    "ssm.conv_kernel": "UINT32",
    "ssm.dt_b_c_rms": "BOOL",
    "ssm.group_count": "UINT32",
    "ssm.inner_size": "UINT32",
    "ssm.state_size": "UINT32",
    "ssm.time_step_rank": "UINT32",
    "swiglu_clamp_exp": "FLOAT32",
    "swiglu_clamp_shexp": "FLOAT32",
    "swin_norm": "BOOL",
    "target_hidden_size": "UINT32",
    "time_decay_extra_dim": "UINT32",
    "time_mix_extra_dim": "UINT32",
    "token_shift_count": "UINT32",
    "use_parallel_residual": "BOOL",
    "vocab_size": "UINT32",
    "wkv.head_size": "UINT32",
    "xielu.alpha_n": "FLOAT32",
    "xielu.alpha_p": "FLOAT32",
    "xielu.beta": "FLOAT32",
    "xielu.eps": "FLOAT32",
}
#: Keys that stand by themselves, not under the architecture's name.
ABSOLUTE = ["xielu.alpha_n", "xielu.alpha_p", "xielu.beta", "xielu.eps"]
#: Keys that may hold an array, of one value for each layer of the model proper; `*`: of all architectures.
IN_LAYER: Mapping[str, str] = {
    "attention.indexer.types": "glm-dsa glm5-next hy_v4",
    "xielu.alpha_n": "apertus",
    "xielu.alpha_p": "apertus",
    "xielu.beta": "apertus",
    "xielu.eps": "apertus",
}
#: Keys that may hold an array, of one value for each layer, those that only predict too.
IN_EVERY_LAYER: Mapping[str, str] = {
    "expert_feed_forward_length": (
        "afmoe bailingmoe bailingmoe2 bailingmoe3 cohere2moe deepseek deepseek2 deepseek2-ocr deepseek32 deepseek4 "
        "dflash dots1 dots3note ernie4_5 ernie4_5-moe exaone-moe gemma4 glm-dsa glm4moe glm5-next gpt-oss grok "
        "grovemoe hunyuan-moe hy_v3 hy_v4 k2-horizon kimi-k3 kimi-linear laguna lfm2moe llada-moe llama4 maple "
        "mellum mimo2 minimax-m2 minimax-m3 mistral4 nemotron_h nemotron_h_moe paddleocr qwen2moe qwen35moe "
        "qwen3moe qwen3next qwen3vlmoe qwen4exp rnd1 smallthinker step35"
    ),
    "swiglu_clamp_exp": "bailingmoe3 deepseek4 dflash glm5-next hy_v4 maple step35",
    "attention.recurrent_layers": "minimax-01 qwen35 qwen35moe qwen3next qwen4exp",
    "swiglu_clamp_shexp": "bailingmoe3 deepseek4 dflash glm5-next step35",
    "attention.compress_ratios": "qwen4exp",
    "attention.head_count": "*",
    "attention.head_count_kv": "*",
    "expert_used_count": "*",
    "feed_forward_length": "*",
}
