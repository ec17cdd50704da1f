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

from gguf_forge.convert.vocab.job import Changes, Keys, Loader, Part, Step, VocabJob, loader, step, together, when
from gguf_forge.convert.vocab.load import (
    bpe,
    bpe_with,
    finish,
    llama_hf,
    load_vocab,
    phi3_spm,
    read_bpe,
    read_spm,
    spm,
    wordpiece,
)
from gguf_forge.convert.vocab.steps import (
    adds,
    config_space_prefix,
    ids,
    space_prefix,
    special_again,
    template_of_file,
    token_id,
    token_type_count,
)
from gguf_forge.convert.vocab.tokens import TokenType, Vocabulary

__all__ = [
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
    "config_space_prefix",
    "finish",
    "ids",
    "llama_hf",
    "load_vocab",
    "loader",
    "phi3_spm",
    "read_bpe",
    "read_spm",
    "space_prefix",
    "special_again",
    "spm",
    "step",
    "template_of_file",
    "together",
    "token_id",
    "token_type_count",
    "when",
    "wordpiece",
]
