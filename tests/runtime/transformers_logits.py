"""What transformers computes from a checkpoint: transformers_logits.py FOLDER TOKENS OUT.npy.

Runs in an environment of its own, with torch and transformers. Prints a line of JSON: whether logits or embeddings were
written. Weights are float32 on the CPU; no code of the checkpoint is run.
"""

import json
import sys
from typing import Any

import numpy as np
import torch
import transformers


def main() -> None:
    folder, tokens, out = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    named = (getattr(config, "architectures", None) or ["?"])[0]
    how = {"dtype": torch.float32, "trust_remote_code": False, "attn_implementation": "eager"}
    model_class = getattr(transformers, named, None)
    if model_class is None:
        raise SystemExit(f"{named} is not known")
    model, info = model_class.from_pretrained(folder, output_loading_info=True, **how)
    missing = [n for n in info["missing_keys"] if "rotary" not in n and "lm_head" not in n]
    if missing:
        raise SystemExit(f"{named}: weights are missing: {missing[:3]}")
    model.eval()
    ids = torch.tensor([tokens])
    with torch.no_grad():
        given = {"input_ids": ids}
        if config.is_encoder_decoder:
            start = config.decoder_start_token_id or 0
            given["decoder_input_ids"] = torch.tensor([[start, *tokens[:-1]]])
        result = model(**given, **({} if config.is_encoder_decoder else {"use_cache": False}))
    logits = getattr(result, "logits", None)
    kind = "logits" if logits is not None and logits.dim() == 3 else "embeddings"
    values: Any = logits if kind == "logits" else result.last_hidden_state
    np.save(out, values[0].float().numpy())
    print("\n" + json.dumps({"kind": kind, "class": named}))


if __name__ == "__main__":
    main()
