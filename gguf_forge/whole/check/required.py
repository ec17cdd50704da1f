"""What llama.cpp's loaders ask for whatever else a file says. A table, made by tests/whole/make_required.py.

A row has names of keys or tensors, and the architectures that ask for all of them, each in one text, separated by
blanks; `a|b` is either tensor; {l} the number of a layer.
Source: the load_hparams, load_arch_hparams and load_arch_tensors of llama.cpp (release 11549).
"""

from __future__ import annotations

#: Keys of every architecture, without its name.
COMMON = ("context_length", "embedding_length", "block_count")
#: Further keys, and the architectures that ask for them.
KEYS = (
    (
        "attention.layer_norm_rms_epsilon",
        ("afmoe apertus arcee arctic baichuan bailingmoe bailingmoe2 bailingmoe3 bitnet chameleon chatglm cogvlm "
         "deci deepseek deepseek2 deepseek2-ocr deepseek32 deepseek4 dflash dots1 dots3note dream eagle3 ernie4_5 "
         "ernie4_5-moe eurobert exaone exaone-moe exaone4 falcon-h1 gemma gemma-embedding gemma-embedding2 gemma2 "
         "gemma3 gemma3n gemma4 gemma4-assistant glm-dsa glm4 glm4moe glm5-next gpt-oss granite granite_swa "
         "granitehybrid granitemoe graniteswitch grok grovemoe hrm_text hunyuan-dense hunyuan-moe hunyuan_vl hy_v3 "
         "hy_v4 internlm2 jamba k2-horizon kimi-k3 kimi-linear laguna lfm2 lfm2moe llada llada-moe llama llama-embed "
         "llama4 maincoder mamba mamba2 maple mellum mimo2 minicpm minicpm3 minimax-01 minimax-m2 minimax-m3 "
         "mistral3 mistral4 muse-glimmer nanbeige neo-bert olmo2 olmoe openelm paddleocr pangu-embedded phi3 phimoe "
         "plamo plamo2 plamo3 plm qwen qwen2 qwen2moe qwen3 qwen35 qwen35moe qwen3moe qwen3next qwen3tts qwen3vl "
         "qwen3vlmoe qwen4exp refact rnd1 seed_oss smallthinker smollm3 spark2_5 step35 t5 t5encoder talkie xverse"),
    ),
    (
        "expert_feed_forward_length",
        ("afmoe bailingmoe bailingmoe2 bailingmoe3 cohere2moe deepseek deepseek2 deepseek2-ocr deepseek32 deepseek4 "
         "dots1 dots3note exaone-moe glm-dsa glm4moe glm5-next gpt-oss grovemoe hunyuan-moe hy_v3 hy_v4 kimi-k3 "
         "kimi-linear laguna lfm2moe llama4 maple mellum mimo2 minimax-m2 minimax-m3 mistral4 step35"),
    ),
    (
        "attention.layer_norm_epsilon",
        ("bert bloom clef codeshell cohere2 command-r dbrx falcon gpt2 gptneox jais jais2 jina-bert-v2 jina-bert-v3 "
         "modern-bert mpt nemotron nemotron_h nemotron_h_moe nomic-bert nomic-bert-moe olmo orion phi2 pockettts "
         "stablelm starcoder starcoder2 wavtokenizer-dec"),
    ),
    (
        "expert_shared_count",
        ("afmoe bailingmoe bailingmoe2 bailingmoe3 deepseek deepseek2 deepseek2-ocr deepseek32 deepseek4 dots1 "
         "dots3note glm-dsa glm4moe glm5-next hy_v4 kimi-k3 kimi-linear minimax-m3 mistral4"),
    ),
    (
        "attention.sliding_window",
        ("cohere2 cohere2moe deepseek4 dots3note exaone-moe gemma-embedding gemma-embedding2 gemma3n gemma4 "
         "gemma4-assistant gpt-oss granite_swa maple mimo2 muse-glimmer spark2_5 step35"),
    ),
    (
        "ssm.conv_kernel",
        ("bailingmoe3 falcon-h1 glm5-next granitehybrid jamba kimi-k3 kimi-linear mamba mamba2 nemotron_h "
         "nemotron_h_moe plamo2 qwen35 qwen35moe qwen3next qwen4exp"),
    ),
    (
        "attention.kv_lora_rank",
        ("bailingmoe3 deepseek2 deepseek32 dots3note glm-dsa glm5-next hy_v4 kimi-k3 kimi-linear minicpm3 mistral4 "
         "plm"),
    ),
    (
        "ssm.inner_size ssm.state_size ssm.time_step_rank",
        ("falcon-h1 granitehybrid jamba mamba mamba2 nemotron_h nemotron_h_moe plamo2 qwen35 qwen35moe qwen3next "
         "qwen4exp"),
    ),
    (
        "expert_gating_func",
        "bailingmoe2 bailingmoe3 deepseek32 deepseek4 dots3note exaone-moe kimi-k3 kimi-linear lfm2moe minimax-m3",
    ),
    (
        "ssm.group_count",
        "falcon-h1 granitehybrid mamba2 nemotron_h nemotron_h_moe plamo2 qwen35 qwen35moe qwen3next qwen4exp",
    ),
    ("attention.sliding_window_pattern", "dots3note gemma4 gemma4-assistant granite_swa maple mimo2 spark2_5 step35"),
    ("logit_scale", "cohere2 cohere2moe granite granite_swa granitemoe graniteswitch muse-glimmer talkie"),
    (
        "attention.indexer.head_count attention.indexer.key_length attention.indexer.top_k",
        "deepseek32 deepseek4 dots3note glm-dsa glm5-next minimax-m3 qwen4exp",
    ),
    ("attention.q_lora_rank", "deepseek32 deepseek4 dots3note glm-dsa glm5-next hy_v4 minicpm3"),
    ("rope.dimension_sections", "qwen2vl qwen35 qwen35moe qwen3tts qwen3vl qwen3vlmoe qwen4exp"),
    (
        "attention.key_length_mla attention.value_length_mla",
        "bailingmoe3 dots3note glm5-next hy_v4 kimi-k3 kimi-linear",
    ),
    ("hyper_connection.count", "deepseek4 glm5-next hy_v4 qwen4exp"),
    ("kda.head_dim", "bailingmoe3 glm5-next kimi-k3 kimi-linear"),
    ("leading_dense_block_count", "bailingmoe3 cohere2moe dots3note laguna"),
    ("wkv.head_size", "arwkv7 rwkv6 rwkv6qwen2 rwkv7"),
    ("hyper_connection.epsilon", "deepseek4 glm5-next hy_v4"),
    ("attention.decay_lora_rank attention.iclr_lora_rank attention.value_residual_mix_lora_rank", "arwkv7 rwkv7"),
    ("attention.key_length_swa attention.value_length_swa", "gemma4 gemma4-assistant"),
    ("attention.relative_buckets_count", "t5 t5encoder"),
    ("embedding_length_per_layer_input", "gemma-embedding2 gemma4"),
    ("hyper_connection.sinkhorn_iterations", "deepseek4 glm5-next"),
    ("shortconv.l_cache", "lfm2 lfm2moe"),
    ("swiglu_clamp_exp", "deepseek4 maple"),
    ("time_decay_extra_dim time_mix_extra_dim", "rwkv6 rwkv6qwen2"),
    ("activation.situ_beta activation.situ_linear_beta attn_res.block_size", "kimi-k3"),
    ("attention.clamp_kqv", "dbrx"),
    (
        ("attention.compress_ratios attention.compress_rope_freq_base attention.output_group_count "
         "attention.output_lora_rank expert_weights_norm expert_weights_scale hash_layer_count"),
        "deepseek4",
    ),
    ("attention.group_norm_epsilon attention.group_norm_groups", "wavtokenizer-dec"),
    ("attention.indexer.block_size attention.indexer.local_blocks", "minimax-m3"),
    ("attention.indexer.kpool", "glm5-next"),
    (
        ("attention.indexer.types attention.key_length_mla_swa attention.kv_lora_rank_swa "
         "attention.value_length_mla_swa rope.freq_base_swa"),
        "dots3note",
    ),
    ("decision.block_count decision.head_count decision.routing_block_count", "clef"),
    ("expert_group_scale experts_per_group", "grovemoe"),
    ("hrm.h_cycles hrm.l_cycles hrm.layers_per_stack", "hrm_text"),
    ("hyper_connection.low_rank", "qwen4exp"),
    ("hyper_connection.magnitude", "hy_v4"),
    ("interleave_moe_layer_step", "llama4"),
    ("kda.gate_lower_bound", "bailingmoe3"),
    ("moe_every_n_layers", "nomic-bert-moe"),
    ("residual_scale", "minimax-01"),
    ("target_hidden_size", "eagle3"),
    ("use_parallel_residual", "gptneox"),
    ("xielu.alpha_n xielu.alpha_p xielu.beta xielu.eps", "apertus"),
)
#: Tensors that stand once in a file.
ONCE = (
    (
        "token_embd.weight",
        ("afmoe apertus arcee arctic arwkv7 baichuan bailingmoe bailingmoe2 bailingmoe3 bert bitnet bloom chameleon "
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
         "stablelm starcoder starcoder2 step35 t5 t5encoder talkie wavtokenizer-dec xverse"),
    ),
    (
        "output_norm.weight",
        ("afmoe apertus arcee arctic arwkv7 baichuan bailingmoe bailingmoe2 bailingmoe3 bitnet bloom chameleon "
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
         "smallthinker smollm3 spark2_5 stablelm starcoder starcoder2 step35 xverse"),
    ),
    (
        "output.weight",
        ("apertus arwkv7 baichuan bailingmoe bailingmoe2 codeshell dbrx deepseek4 dots1 exaone-moe gemma-embedding2 "
         "glm5-next gpt-oss gptneox hy_v4 internlm2 jais kimi-k3 kimi-linear llada-moe maple mellum mimo2 minimax-m2 "
         "minimax-m3 muse-glimmer nemotron olmo2 olmoe orion phi2 phimoe plamo qwen qwen2moe rwkv6 rwkv6qwen2 rwkv7 "
         "stablelm talkie xverse"),
    ),
    (
        "output_norm.bias",
        ("bloom codeshell falcon gpt2 gptneox jais jais2 nemotron orion phi2 phimoe pockettts rwkv6 rwkv7 stablelm "
         "starcoder starcoder2"),
    ),
    (
        "token_embd_norm.weight",
        "bert bloom jina-bert-v2 jina-bert-v3 lfm2 lfm2moe modern-bert nomic-bert nomic-bert-moe rwkv6 rwkv7",
    ),
    ("token_embd_norm.bias", "bert bloom jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe rwkv6 rwkv7"),
    ("enc.output_norm.weight", "dflash neo-bert t5 t5encoder"),
    ("position_embd.weight", "bert gpt2 starcoder"),
    ("fc.weight", "dflash eagle3"),
    ("output.bias", "phi2 phimoe"),
    ("output_hc_base.weight output_hc_fn.weight output_hc_scale.weight", "deepseek4 hy_v4"),
    ("per_layer_model_proj.weight per_layer_proj_norm.weight", "gemma-embedding2 gemma3n"),
    ("token_types.weight", "clef jina-bert-v2"),
    ("altup_proj.weight altup_unembd_proj.weight per_layer_token_embd.weight", "gemma3n"),
    ("conv1d.bias conv1d.weight", "wavtokenizer-dec"),
    ("dec.output_norm.weight", "t5"),
    (
        ("decision.proj_global.weight decision.proj_memory.weight decision.proj_option_context.weight "
         "decision.proj_option_lexical.weight decision.proj_option_question.weight decision.proj_question.weight "
         "decision.scales decision.scorer.bias decision.scorer.weight decision.scorer_out.bias "
         "decision.scorer_out.weight"),
        "clef",
    ),
    ("hrm.z_l_init", "hrm_text"),
    ("nextn.post_projection.weight", "gemma4-assistant"),
)
#: Tensors of each layer of the model proper.
LAYER = (
    (
        "blk.{l}.attn_norm.weight",
        ("afmoe apertus arcee arctic arwkv7 baichuan bailingmoe bitnet bloom chameleon chatglm codeshell cogvlm "
         "cohere2 command-r dbrx deepseek deepseek2-ocr dots1 dream eagle3 ernie4_5 ernie4_5-moe eurobert exaone "
         "falcon falcon-h1 gemma gemma-embedding gemma-embedding2 gemma2 gemma3 gemma3n gemma4 gpt-oss gpt2 gptneox "
         "granite granite_swa granitehybrid granitemoe grok grovemoe hunyuan-dense hunyuan-moe hunyuan_vl hy_v4 "
         "internlm2 jais jais2 jamba k2-horizon kimi-k3 kimi-linear laguna lfm2moe llada llada-moe llama llama-embed "
         "llama4 maincoder mamba mamba2 maple mellum minicpm minicpm3 minimax-01 minimax-m2 minimax-m3 mistral3 mpt "
         "muse-glimmer nemotron neo-bert olmoe openelm orion paddleocr pangu-embedded phi2 phi3 phimoe plamo plamo2 "
         "plamo3 plm pockettts qwen qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3tts qwen3vl qwen3vlmoe refact rnd1 "
         "rwkv6 rwkv6qwen2 rwkv7 seed_oss smallthinker smollm3 spark2_5 stablelm starcoder starcoder2 xverse"),
    ),
    (
        "blk.{l}.attn_output.weight",
        ("afmoe apertus arcee arctic baichuan bailingmoe bert bitnet bloom chameleon chatglm codeshell cogvlm "
         "cohere2 command-r dbrx deepseek deepseek2-ocr dots1 dream eagle3 ernie4_5 ernie4_5-moe eurobert exaone "
         "falcon falcon-h1 gemma gemma-embedding gemma-embedding2 gemma2 gemma3 gemma3n gemma4 gpt-oss gpt2 gptneox "
         "granite granite_swa granitemoe grok grovemoe hunyuan-dense hunyuan-moe hunyuan_vl hy_v4 internlm2 jais "
         "jais2 jina-bert-v2 jina-bert-v3 k2-horizon laguna llada llada-moe llama llama-embed llama4 maincoder maple "
         "mellum minicpm minicpm3 minimax-01 minimax-m2 minimax-m3 mistral3 mpt muse-glimmer nemotron neo-bert "
         "nomic-bert nomic-bert-moe olmo olmo2 olmoe openelm orion paddleocr pangu-embedded phi2 phi3 phimoe plamo "
         "plamo3 plm pockettts qwen qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3tts qwen3vl qwen3vlmoe refact rnd1 "
         "seed_oss smallthinker smollm3 spark2_5 stablelm starcoder starcoder2 talkie xverse"),
    ),
    (
        "blk.{l}.ffn_norm.weight",
        ("afmoe apertus arcee arctic arwkv7 baichuan bailingmoe bitnet bloom chameleon chatglm codeshell cogvlm "
         "deepseek deepseek2-ocr dots1 dream eagle3 ernie4_5 ernie4_5-moe eurobert exaone gemma gemma-embedding "
         "gemma-embedding2 gemma2 gemma3 gemma3n gemma4 gpt2 gptneox granite granite_swa granitemoe grok grovemoe "
         "hunyuan-dense hunyuan-moe hunyuan_vl hy_v4 internlm2 jais jais2 jamba k2-horizon kimi-k3 kimi-linear "
         "laguna lfm2moe llada llada-moe llama llama-embed llama4 maincoder maple mellum minicpm minicpm3 minimax-01 "
         "minimax-m2 minimax-m3 mistral3 mpt muse-glimmer nemotron neo-bert olmoe openelm orion paddleocr "
         "pangu-embedded phi3 phimoe plamo2 plamo3 plm pockettts qwen qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3tts "
         "qwen3vl qwen3vlmoe refact rnd1 rwkv6qwen2 smallthinker smollm3 spark2_5 starcoder starcoder2 xverse"),
    ),
    (
        ("blk.{l}.attn_k.weight|blk.{l}.attn_qkv.weight blk.{l}.attn_q.weight|blk.{l}.attn_qkv.weight "
         "blk.{l}.attn_v.weight|blk.{l}.attn_qkv.weight"),
        ("afmoe apertus arcee arctic baichuan bailingmoe bert chameleon chatglm codeshell cohere2 command-r deepseek "
         "deepseek2-ocr dots1 dream ernie4_5 ernie4_5-moe eurobert exaone falcon-h1 gemma gemma-embedding gemma2 "
         "gemma3 gemma3n gpt-oss granite granite_swa granitemoe grok grovemoe hunyuan-dense hunyuan-moe hunyuan_vl "
         "internlm2 jais2 jina-bert-v2 jina-bert-v3 laguna llada llada-moe llama llama-embed llama4 maincoder maple "
         "mellum minicpm minimax-m2 minimax-m3 mistral3 muse-glimmer nemotron nomic-bert nomic-bert-moe olmo olmo2 "
         "olmoe orion paddleocr pangu-embedded phi2 phimoe plamo qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3tts "
         "qwen3vl qwen3vlmoe refact rnd1 seed_oss smallthinker smollm3 spark2_5 stablelm starcoder2 talkie xverse"),
    ),
    (
        "blk.{l}.ffn_down.weight",
        ("apertus arcee arctic arwkv7 baichuan bert bitnet bloom chameleon chatglm codeshell cogvlm cohere2 "
         "command-r dream eagle3 eurobert exaone falcon falcon-h1 gemma gemma-embedding gemma-embedding2 gemma2 "
         "gemma3 gemma3n gemma4 gpt2 gptneox hunyuan-dense hunyuan_vl internlm2 jais jais2 jina-bert-v2 jina-bert-v3 "
         "llada maincoder minicpm3 mpt muse-glimmer nemotron neo-bert nomic-bert olmo olmo2 openelm orion "
         "pangu-embedded phi2 phi3 plamo plamo2 plamo3 plm pockettts qwen qwen2 qwen2vl qwen3 qwen3tts qwen3vl "
         "rwkv6qwen2 seed_oss smollm3 spark2_5 stablelm starcoder starcoder2 talkie xverse"),
    ),
    (
        "blk.{l}.ffn_up.weight",
        ("apertus arcee arctic arwkv7 baichuan bert bitnet bloom chameleon chatglm codeshell cogvlm cohere2 "
         "command-r dream eagle3 eurobert exaone falcon falcon-h1 gemma gemma-embedding gemma-embedding2 gemma2 "
         "gemma3 gemma3n gemma4 gpt2 gptneox hunyuan-dense hunyuan_vl internlm2 jais jais2 jina-bert-v3 llada "
         "maincoder minicpm3 mpt muse-glimmer nemotron neo-bert nomic-bert olmo olmo2 openelm orion pangu-embedded "
         "phi2 phi3 plamo plamo2 plamo3 plm pockettts qwen qwen2 qwen2vl qwen3 qwen3tts qwen3vl rwkv6qwen2 seed_oss "
         "smollm3 spark2_5 stablelm starcoder starcoder2 talkie xverse"),
    ),
    (
        "blk.{l}.ffn_gate.weight",
        ("arctic arwkv7 baichuan bitnet chameleon cogvlm cohere2 command-r dream eagle3 eurobert exaone falcon-h1 "
         "gemma gemma-embedding gemma-embedding2 gemma2 gemma3 gemma3n gemma4 hunyuan-dense hunyuan_vl internlm2 "
         "jais llada maincoder minicpm3 muse-glimmer nomic-bert olmo olmo2 openelm orion pangu-embedded plamo qwen "
         "qwen2 qwen2vl qwen3 qwen3tts qwen3vl rwkv6qwen2 seed_oss smollm3 spark2_5 stablelm talkie xverse"),
    ),
    (
        "blk.{l}.attn_q_norm.weight",
        ("afmoe apertus chameleon dots1 gemma-embedding gemma-embedding2 gemma3 gemma3n gemma4 grovemoe "
         "hunyuan-dense hunyuan-moe hunyuan_vl laguna llada-moe maincoder maple mellum minimax-m2 minimax-m3 "
         "muse-glimmer olmo2 olmoe openelm plamo3 qwen3 qwen3moe qwen3tts qwen3vl qwen3vlmoe rnd1 talkie"),
    ),
    (
        "blk.{l}.attn_k_norm.weight",
        ("afmoe apertus chameleon dots1 gemma-embedding gemma-embedding2 gemma3 gemma3n grovemoe hunyuan-dense "
         "hunyuan-moe hunyuan_vl laguna llada-moe maincoder maple mellum minimax-m2 minimax-m3 muse-glimmer olmo2 "
         "olmoe openelm plamo3 qwen3 qwen3moe qwen3tts qwen3vl qwen3vlmoe rnd1"),
    ),
    (
        "blk.{l}.ffn_down_exps.weight blk.{l}.ffn_gate_inp.weight blk.{l}.ffn_up_exps.weight",
        ("arctic bailingmoe dbrx gpt-oss grok grovemoe hunyuan-moe llada-moe maple mellum minimax-01 minimax-m2 "
         "olmoe phimoe qwen2moe qwen3moe qwen3vlmoe rnd1 smallthinker"),
    ),
    (
        "blk.{l}.attn_norm.bias",
        ("bloom codeshell falcon gpt2 gptneox jais jais2 nemotron orion phi2 phimoe pockettts rwkv6 rwkv7 stablelm "
         "starcoder starcoder2"),
    ),
    (
        "blk.{l}.ffn_gate_exps.weight",
        ("bailingmoe dbrx gpt-oss grovemoe hunyuan-moe llada-moe maple mellum minimax-m2 olmoe phimoe qwen2moe "
         "qwen3moe qwen3vlmoe rnd1 smallthinker"),
    ),
    (
        "blk.{l}.attn_output.bias",
        ("bloom codeshell gpt-oss gpt2 gptneox jais jais2 jina-bert-v2 pangu-embedded phi2 phimoe starcoder "
         "starcoder2"),
    ),
    (
        "blk.{l}.attn_qkv.weight",
        "bloom cogvlm dbrx falcon gpt2 gptneox jais mpt neo-bert openelm plamo3 qwen starcoder",
    ),
    (
        "blk.{l}.ffn_norm.bias",
        "bloom codeshell gpt2 gptneox jais jais2 nemotron orion phimoe pockettts starcoder starcoder2",
    ),
    (
        "blk.{l}.post_attention_norm.weight",
        "afmoe gemma-embedding gemma-embedding2 gemma2 gemma3 gemma3n gemma4 gpt-oss muse-glimmer olmo2 seed_oss",
    ),
    ("blk.{l}.ffn_down.bias", "bloom codeshell gpt2 gptneox jais jais2 jina-bert-v2 phi2 starcoder starcoder2"),
    (
        "blk.{l}.post_ffw_norm.weight",
        "afmoe gemma-embedding gemma-embedding2 gemma2 gemma3 gemma3n gemma4 muse-glimmer olmo2",
    ),
    ("blk.{l}.ffn_up.bias", "bloom codeshell gpt2 gptneox jais jais2 phi2 starcoder"),
    ("blk.{l}.attn_output_norm.weight", "bert dbrx grok jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe"),
    ("blk.{l}.attn_qkv.bias", "bloom gpt2 gptneox jais qwen starcoder"),
    ("blk.{l}.attn_gate.weight", "afmoe hy_v4 laguna muse-glimmer spark2_5"),
    (
        "blk.{l}.attn_output_norm.bias blk.{l}.layer_output_norm.bias blk.{l}.layer_output_norm.weight",
        "bert jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe",
    ),
    ("blk.{l}.attn_q.weight", "bitnet eagle3 gemma-embedding2 k2-horizon plm"),
    ("blk.{l}.attn_k.weight", "bitnet eagle3 gemma-embedding2 k2-horizon"),
    (
        ("blk.{l}.time_mix_key.weight blk.{l}.time_mix_output.weight blk.{l}.time_mix_receptance.weight "
         "blk.{l}.time_mix_value.weight blk.{l}.time_mix_w1.weight blk.{l}.time_mix_w2.weight"),
        "arwkv7 rwkv6 rwkv6qwen2 rwkv7",
    ),
    ("blk.{l}.attn_kv_a_mqa.weight blk.{l}.attn_kv_a_norm.weight", "hy_v4 minicpm3 plm"),
    ("blk.{l}.attn_norm_2.weight", "eagle3 rwkv6 rwkv7"),
    ("blk.{l}.attn_sinks.weight", "gpt-oss granite_swa hy_v4"),
    ("blk.{l}.attn_v.weight", "bitnet eagle3 gemma-embedding2"),
    (
        "blk.{l}.ffn_down_shexp.weight blk.{l}.ffn_gate_shexp.weight blk.{l}.ffn_up_shexp.weight",
        "bailingmoe hunyuan-moe qwen2moe",
    ),
    (
        ("blk.{l}.ssm_a blk.{l}.ssm_conv1d.weight blk.{l}.ssm_d blk.{l}.ssm_dt.bias blk.{l}.ssm_in.weight "
         "blk.{l}.ssm_out.weight"),
        "falcon-h1 mamba mamba2",
    ),
    ("blk.{l}.attn_kv_b.weight", "minicpm3 plm"),
    (
        ("blk.{l}.attn_norm_2.bias blk.{l}.channel_mix_key.weight blk.{l}.channel_mix_lerp_k.weight "
         "blk.{l}.channel_mix_value.weight blk.{l}.time_mix_ln.bias blk.{l}.time_mix_ln.weight"),
        "rwkv6 rwkv7",
    ),
    ("blk.{l}.attn_q_a.weight blk.{l}.attn_q_a_norm.weight blk.{l}.attn_q_b.weight", "hy_v4 minicpm3"),
    ("blk.{l}.inp_gate.weight blk.{l}.post_norm.weight blk.{l}.proj.weight", "gemma-embedding2 gemma3n"),
    ("blk.{l}.layer_output_scale.weight", "gemma-embedding2 talkie"),
    ("blk.{l}.post_attention_norm blk.{l}.post_ffw_norm", "plamo2 plamo3"),
    ("blk.{l}.ssm_conv1d.bias", "mamba mamba2"),
    (
        ("blk.{l}.time_mix_a0.weight blk.{l}.time_mix_a1.weight blk.{l}.time_mix_a2.weight "
         "blk.{l}.time_mix_k_a.weight blk.{l}.time_mix_k_k.weight blk.{l}.time_mix_r_k.weight "
         "blk.{l}.time_mix_w0.weight"),
        "arwkv7 rwkv7",
    ),
    (
        ("blk.{l}.time_mix_decay.weight blk.{l}.time_mix_decay_w1.weight blk.{l}.time_mix_decay_w2.weight "
         "blk.{l}.time_mix_gate.weight blk.{l}.time_mix_lerp_x.weight"),
        "rwkv6 rwkv6qwen2",
    ),
    ("blk.{l}.time_mix_lerp_fused.weight", "rwkv6qwen2 rwkv7"),
    (
        ("enc.blk.{l}.attn_k.weight enc.blk.{l}.attn_norm.weight enc.blk.{l}.attn_o.weight enc.blk.{l}.attn_q.weight "
         "enc.blk.{l}.attn_v.weight enc.blk.{l}.ffn_down.weight enc.blk.{l}.ffn_norm.weight "
         "enc.blk.{l}.ffn_up.weight"),
        "t5 t5encoder",
    ),
    (
        ("blk.{l}.altup_correct_coef.weight blk.{l}.altup_correct_scale.weight blk.{l}.altup_predict_coef.weight "
         "blk.{l}.altup_router.weight blk.{l}.altup_router_norm.weight blk.{l}.laurel_l.weight "
         "blk.{l}.laurel_post_norm.weight blk.{l}.laurel_r.weight"),
        "gemma3n",
    ),
    (
        ("blk.{l}.attn_k_b.weight blk.{l}.attn_v_b.weight blk.{l}.hc_attn_base.weight blk.{l}.hc_attn_fn.weight "
         "blk.{l}.hc_attn_scale.weight blk.{l}.hc_ffn_base.weight blk.{l}.hc_ffn_fn.weight "
         "blk.{l}.hc_ffn_scale.weight"),
        "hy_v4",
    ),
    ("blk.{l}.attn_sub_norm.weight blk.{l}.ffn_sub_norm.weight", "bitnet"),
    ("blk.{l}.channel_mix_lerp_r.weight blk.{l}.channel_mix_receptance.weight blk.{l}.time_mix_first.weight", "rwkv6"),
    ("blk.{l}.exp_probs_b.bias", "minimax-m2"),
    ("blk.{l}.ffn_down_chexps.weight blk.{l}.ffn_gate_chexps.weight blk.{l}.ffn_up_chexps.weight", "grovemoe"),
    (
        "blk.{l}.ffn_down_exps.bias blk.{l}.ffn_gate_exps.bias blk.{l}.ffn_gate_inp.bias blk.{l}.ffn_up_exps.bias",
        "gpt-oss",
    ),
    ("blk.{l}.ffn_gate.bias", "jais"),
    ("blk.{l}.ffn_gate_inp_shexp.weight", "qwen2moe"),
    ("blk.{l}.ffn_norm", "falcon-h1"),
    ("blk.{l}.ffn_norm_exps.weight", "arctic"),
    ("blk.{l}.ssm_dt.weight blk.{l}.ssm_x.weight", "mamba"),
    ("blk.{l}.ssm_norm.weight", "mamba2"),
    ("blk.{l}.time_mix_g1.weight blk.{l}.time_mix_g2.weight", "rwkv7"),
    (
        ("blk.{l}.vis_attn_output.weight blk.{l}.vis_attn_qkv.weight blk.{l}.vis_down.weight blk.{l}.vis_gate.weight "
         "blk.{l}.vis_up.weight"),
        "cogvlm",
    ),
)
#: Types of single values, and the keys that have them, without the architecture's name.
TYPES = {
    "BOOL":
        ("attention.causal attention.indexer.kpool_select_tail expert_weights_norm hrm.prefix_lm kda.safe_gate "
         "norm_before_fc norm_before_residual rope.scaling.finetuned skip_loop_final_norm ssm.dt_b_c_rms swin_norm "
         "use_parallel_residual"),
    "FLOAT32":
        ("activation.situ_beta activation.situ_linear_beta adapters.router_gain attention.clamp_kqv "
         "attention.compress_rope_freq_base attention.group_norm_epsilon attention.layer_norm_epsilon "
         "attention.layer_norm_rms_epsilon attention.max_alibi_bias attention.output_scale attention.scale "
         "attention.temperature_scale attention.value_scale attn_logit_softcapping embedding_scale "
         "expert_group_scale expert_weights_scale final_logit_softcapping hyper_connection.epsilon "
         "hyper_connection.magnitude kda.gate_lower_bound logit_scale residual_scale rope.freq_base "
         "rope.freq_base_swa rope.scale_linear rope.scaling.alpha rope.scaling.attn_factor rope.scaling.factor "
         "rope.scaling.yarn_attn_factor rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow "
         "rope.scaling.yarn_ext_factor rope.scaling.yarn_log_multiplier router_logit_softcapping swiglu_clamp_exp "
         "swiglu_clamp_shexp xielu.alpha_n xielu.alpha_p xielu.beta xielu.eps"),
    "INT32":
        "rope.dimension_sections",
    "STRING":
        "classifier.activation hidden_activation rope.scaling.type",
    "UINT32":
        ("adapters.count adapters.lora_rank attention.compress_ratios attention.decay_lora_rank "
         "attention.gate_lora_rank attention.group_norm_groups attention.head_count attention.head_count_kv "
         "attention.iclr_lora_rank attention.indexer.block_size attention.indexer.head_count "
         "attention.indexer.key_length attention.indexer.kpool attention.indexer.local_blocks "
         "attention.indexer.top_k attention.indexer.types attention.key_length attention.key_length_mla "
         "attention.key_length_mla_swa attention.key_length_swa attention.kv_lora_rank attention.kv_lora_rank_swa "
         "attention.output_group_count attention.output_lora_rank attention.q_lora_rank attention.recurrent_layers "
         "attention.relative_buckets_count attention.shared_kv_layers attention.sliding_window "
         "attention.sliding_window_pattern attention.temperature_length attention.value_expert_count "
         "attention.value_expert_used_count attention.value_length attention.value_length_mla "
         "attention.value_length_mla_swa attention.value_length_swa attention.value_residual_mix_lora_rank "
         "attn_res.block_size block_count block_size context_length conv_group_size conv_kernel_size "
         "convnext.block_count convnext.embedding_length decision.block_count decision.head_count "
         "decision.routing_block_count decoder_block_count decoder_start_token_id dense_2_feat_in dense_2_feat_out "
         "dense_3_feat_in dense_3_feat_out embedding_length embedding_length_out embedding_length_per_layer_input "
         "expert_chunk_feed_forward_length expert_count expert_feed_forward_length expert_gating_func "
         "expert_group_count expert_group_used_count expert_latent_length expert_shared_count "
         "expert_shared_feed_forward_length expert_used_count experts_per_group features_length feed_forward_length "
         "full_attention_interval hash_layer_count hrm.h_cycles hrm.l_cycles hrm.layers_per_stack "
         "hyper_connection.count hyper_connection.low_rank hyper_connection.sinkhorn_iterations "
         "interleave_moe_layer_step kda.head_dim leading_dense_block_count moe_every_n_layers moe_latent_size "
         "n_deepstack_layers nextn_predict_layers num_loops ple.conv_kernel ple.eos_token_id ple.heads_per_ngram "
         "ple.image_token_id ple.ngram_size posnet.block_count posnet.embedding_length rescale_every_n_layers "
         "rope.dimension_count rope.dimension_count_swa rope.scaling.original_context_length selector_rank "
         "selector_top_k shortconv.l_cache ssm.conv_kernel ssm.group_count ssm.inner_size ssm.state_size "
         "ssm.time_step_rank target_hidden_size time_decay_extra_dim time_mix_extra_dim token_shift_count vocab_size "
         "wkv.head_size"),
}
#: Keys that stand by themselves, not under the architecture's name.
ABSOLUTE = ["xielu.alpha_n", "xielu.alpha_p", "xielu.beta", "xielu.eps"]
#: Keys that may hold an array, of one value for each layer of the model proper; `*`: of all architectures.
IN_LAYER = (
    ("attention.indexer.types", "glm-dsa glm5-next hy_v4"),
    ("xielu.alpha_n xielu.alpha_p xielu.beta xielu.eps", "apertus"),
)
#: Keys that may hold an array, of one value for each layer, those that only predict too.
IN_EVERY_LAYER = (
    (
        "expert_feed_forward_length",
        ("afmoe bailingmoe bailingmoe2 bailingmoe3 cohere2moe deepseek deepseek2 deepseek2-ocr deepseek32 deepseek4 "
         "dflash dots1 dots3note ernie4_5 ernie4_5-moe exaone-moe gemma4 glm-dsa glm4moe glm5-next gpt-oss grok "
         "grovemoe hunyuan-moe hy_v3 hy_v4 k2-horizon kimi-k3 kimi-linear laguna lfm2moe llada-moe llama4 maple "
         "mellum mimo2 minimax-m2 minimax-m3 mistral4 nemotron_h nemotron_h_moe paddleocr qwen2moe qwen35moe "
         "qwen3moe qwen3next qwen3vlmoe qwen4exp rnd1 smallthinker step35"),
    ),
    ("swiglu_clamp_exp", "bailingmoe3 deepseek4 dflash glm5-next hy_v4 maple step35"),
    ("attention.recurrent_layers", "minimax-01 qwen35 qwen35moe qwen3next qwen4exp"),
    ("swiglu_clamp_shexp", "bailingmoe3 deepseek4 dflash glm5-next step35"),
    ("attention.compress_ratios", "qwen4exp"),
    ("attention.head_count attention.head_count_kv expert_used_count feed_forward_length", "*"),
)
