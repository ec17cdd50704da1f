"""Checkpoints of random weights that transformers makes, and their logits: transformers_variants.py CASES OUT.

CASES is a JSON file: by name the folder of a checkpoint (`base`), a configuration with its class, and tokens. Each goes
to OUT/NAME, with expected.npy beside its files. Runs in an environment of its own, with torch and transformers; prints
a line of JSON at the end: by name why one could not be made.
"""

import copy
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

#: Files of a tokenizer, by parts of their names.
TOKENIZER = ("token", "vocab", "merges", "special", "spiece")
#: Parameters that stay near where transformers begins with them: decays and their like.
DELICATE = ("A_log", "dt_bias", ".D")


def randomize(model: Any) -> None:
    """Weights whose rows have length 1, embeddings of 1, norms and biases that differ from what they begin with."""
    generator = torch.Generator().manual_seed(1)
    biases = [(name, b) for name, b in model.named_buffers() if "bias" in name and b.is_floating_point()]
    with torch.no_grad():
        for name, parameter in [*model.named_parameters(), *biases]:
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith(DELICATE):
                parameter.add_(0.1 * noise)
            elif "norm" in name.lower() or parameter.dim() <= 1:
                parameter.add_(0.2 * noise)
            elif "embed" in name or "wte" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)


def make(case: dict[str, Any], folder: Path) -> None:
    base, named = Path(case["base"]), case["config"]["architectures"][0]
    model_class = getattr(transformers, named)
    config = model_class.config_class.from_dict(copy.deepcopy(case["config"]))
    torch.manual_seed(0)
    model = model_class._from_config(config, dtype=torch.float32, attn_implementation="eager").float().eval()
    randomize(model)
    model.tie_weights()
    model.save_pretrained(folder)
    for file in base.iterdir():
        if any(part in file.name for part in TOKENIZER):
            shutil.copy(file, folder / file.name)
    model = model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    given = {"input_ids": torch.tensor([case["tokens"]])}
    if config.is_encoder_decoder:
        start = config.decoder_start_token_id or 0
        given["decoder_input_ids"] = torch.tensor([[start, *case["tokens"][:-1]]])
    else:
        given["use_cache"] = False
    with torch.no_grad():
        np.save(folder / "expected.npy", model(**given).logits[0].float().numpy())


def main() -> None:
    transformers.logging.set_verbosity_error()
    failed = {}
    for name, case in json.loads(Path(sys.argv[1]).read_text()).items():
        folder = Path(sys.argv[2]) / name
        folder.mkdir()
        try:
            make(case, folder)
        except Exception as error:  # noqa: BLE001 (whatever it is, the test shows it)
            failed[name] = f"{type(error).__name__}: {error}"
    print("\n" + json.dumps(failed))


if __name__ == "__main__":
    main()
