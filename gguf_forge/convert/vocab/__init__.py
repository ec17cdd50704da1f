"""Vocabularies: every tokenizer.* key of a checkpoint, from its tokenizer files.

Knows tokenizers and the reference converter's habits with them. Must not know tensors.

A family's `vocab` is a tuple of parts, each a function of a `VocabJob`, run in order:

* a loader makes the vocabulary, or gives None if its files are not there. The first that makes one counts, later ones
  are passed over: `vocab=(vocab.spm, vocab.bpe)` is tokenizer.model, or else tokenizer.json.
* a step adds keys at its place, changes some, or (with None) takes some away. It runs wherever it stands, before the
  loader too; a key written again keeps its place: `vocab=(vocab.adds(bos=True), vocab.bpe, vocab.space_prefix(False))`.
* `together(loader, step, ...)` is a loader whose steps run only if it finds its files; `when(holds, loader, ...)` one
  for some folders only.

What only one family does stands beside its table, as a function marked `@vocab.loader` or `@vocab.step`:

    @vocab.step
    def no_bos(job: vocab.VocabJob) -> vocab.Changes:
        small = job.count("vocab_size") == 49152
        return {"tokenizer.ggml.add_bos_token": values.boolean(False)} if small else {}

A loader of its own reads a `Vocabulary` (tokens, types, scores, merges), changes it, and hands it to `finish`, which
adds the special tokens, flags and templates that the files name; `fill` has those they leave open, `force` those they
get wrong:

    @vocab.loader
    def glm(job: vocab.VocabJob) -> vocab.Keys | None:
        tokens = vocab.read_bpe(job)
        return None if tokens is None else vocab.finish(
            job, tokens, merges=True, limited=False, fill={"bos": "[gMASK]", "eot": "<|user|>"})

(this one is `vocab.bpe_with(fill={"bos": "[gMASK]", "eot": "<|user|>"})`). `ids(eot=...)` is the step that sets ids
after all has been written. `job.config` are the hyperparameters, `job.settings` is tokenizer_config.json, `job.folder`
reads any other file, `job.note` tells the user what was left out, `job.but(config=...)` asks another part with other
hyperparameters.
"""

from gguf_forge.convert.vocab.added import config_entries, file_entries, is_special, json_entries, text_of
from gguf_forge.convert.vocab.bpe import BYTE_TOKEN
from gguf_forge.convert.vocab.dna import hybrid_dna
from gguf_forge.convert.vocab.hub import open_tokenizer
from gguf_forge.convert.vocab.job import Changes, Keys, Loader, Part, Step, VocabJob, loader, step, together, when
from gguf_forge.convert.vocab.load import finish, load_vocab
from gguf_forge.convert.vocab.loaders import (
    bpe,
    bpe_with,
    in_target,
    llama_hf,
    none,
    of_target,
    padded,
    phi3_spm,
    read_bpe,
    read_llama_hf,
    read_pieces,
    read_spm,
    sized,
    spm,
    spm_with,
    t5,
    whitespace,
    wordpiece,
    xlm_roberta,
    xlmr_keys,
)
from gguf_forge.convert.vocab.native import (
    gpt_neox_default,
    llama_default,
    mistral,
    qwen_tiktoken,
    read_ranks_vocabulary,
    rwkv_world,
    shipped,
    tekken_only,
    tiktoken,
)
from gguf_forge.convert.vocab.plamo import plamo, plamo3
from gguf_forge.convert.vocab.protobuf import read_piece_model
from gguf_forge.convert.vocab.steps import (
    adds,
    config_space_prefix,
    ids,
    space_prefix,
    special_again,
    template,
    template_of_file,
    token_id,
    token_type_count,
)
from gguf_forge.convert.vocab.tokens import TokenType, Vocabulary
from gguf_forge.convert.vocab.unigram import read_unigram

__all__ = [
    "BYTE_TOKEN",
    "Changes",
    "Keys",
    "Loader",
    "Part",
    "Step",
    "TokenType",
    "VocabJob",
    "Vocabulary",
    "adds",
    "bpe",
    "bpe_with",
    "config_entries",
    "config_space_prefix",
    "file_entries",
    "finish",
    "gpt_neox_default",
    "hybrid_dna",
    "ids",
    "in_target",
    "is_special",
    "json_entries",
    "llama_default",
    "llama_hf",
    "load_vocab",
    "loader",
    "mistral",
    "none",
    "of_target",
    "open_tokenizer",
    "padded",
    "phi3_spm",
    "plamo",
    "plamo3",
    "qwen_tiktoken",
    "read_bpe",
    "read_llama_hf",
    "read_piece_model",
    "read_pieces",
    "read_ranks_vocabulary",
    "read_spm",
    "read_unigram",
    "rwkv_world",
    "shipped",
    "sized",
    "space_prefix",
    "special_again",
    "spm",
    "spm_with",
    "step",
    "t5",
    "tekken_only",
    "template",
    "template_of_file",
    "text_of",
    "tiktoken",
    "together",
    "token_id",
    "token_type_count",
    "when",
    "whitespace",
    "wordpiece",
    "xlm_roberta",
    "xlmr_keys",
]
