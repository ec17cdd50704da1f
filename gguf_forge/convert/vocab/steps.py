"""Steps several families share: flags, ids and keys beside a vocabulary.

Knows single keys. Must not know how a vocabulary is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gguf_forge.convert.vocab.job import Changes, Step, VocabJob, step
from gguf_forge.convert.vocab.special import FLAG_KEYS, ID_KEYS, read_special
from gguf_forge.convert.vocab.templates import template_values
from gguf_forge.errors import ConversionError
from gguf_forge.format import values
from gguf_forge.format.values import Value

SPACE_PREFIX = "tokenizer.ggml.add_space_prefix"


def space_prefix(wanted: bool) -> Step:
    """Whether a text is given a space in front before it is cut."""

    def add_space_prefix(_: VocabJob) -> Changes:
        return {SPACE_PREFIX: values.boolean(wanted)}

    return Step(add_space_prefix)


@step
def config_space_prefix(job: VocabJob) -> Changes:
    """add_space_prefix where tokenizer_config.json has an add_prefix_space."""
    wanted = job.settings.get("add_prefix_space")
    return {} if wanted is None else {SPACE_PREFIX: values.boolean(bool(wanted))}


def adds(**roles: bool) -> Step:
    """Which of bos, eos, sep a text is wrapped in, whatever the files say: `adds(bos=True, eos=False)`."""
    unknown = set(roles) - set(FLAG_KEYS)
    if unknown:
        raise ConversionError(f"no flag says whether {', '.join(sorted(unknown))} is added")

    def add_flags(_: VocabJob) -> Changes:
        return {FLAG_KEYS[role]: values.boolean(wanted) for role, wanted in roles.items()}

    return Step(add_flags)


def ids(**roles: int | str) -> Step:
    """Special ids whatever the files say: `ids(pad=3, eot="<|eot|>")`. A text the vocabulary lacks sets nothing."""
    unknown = set(roles) - set(ID_KEYS)
    if unknown:
        raise ConversionError(f"no key holds the id of {', '.join(sorted(unknown))}")

    def set_ids(job: VocabJob) -> Changes:
        found = {role: token_id(job, token) for role, token in roles.items()}
        return {ID_KEYS[role]: values.u32(number) for role, number in found.items() if number is not None}

    return Step(set_ids)


def token_id(job: VocabJob, token: int | str) -> int | None:
    """The id of a token among those written so far; a number is taken as it is."""
    if isinstance(token, int):
        return token
    written = job.keys.get("tokenizer.ggml.tokens")
    tokens = list(written.value) if written is not None else []
    return tokens.index(token) if token in tokens else None


def special_again(roles: Sequence[str], fill: Mapping[str, int] | None = None, *, template: bool = True) -> Step:
    """The special tokens read once more, for other roles; `fill` has ids for those that no file names.

    Roles without a key (prefix, suffix, middle, fsep) are looked for and not written, as the reference does.
    """

    def read_roles(job: VocabJob) -> Changes:
        special = read_special(job.folder, job.note, roles=roles)
        for role, number in (fill or {}).items():
            special.ids.setdefault(role, number)
        if not template:
            special.template = None
        return special.values()

    return Step(read_roles)


@step
def token_type_count(job: VocabJob) -> Changes:
    """The number of token types of the BERT family's embeddings."""
    return dict([type_count(job)])


def type_count(job: VocabJob) -> tuple[str, Value]:
    """The same as a key and its value."""
    count = job.count("type_vocab_size")
    return "tokenizer.ggml.token_type_count", values.u32(1 if count is None else count)


def template(text: str) -> Step:
    """A chat template in place of any the files hold."""

    def set_template(_: VocabJob) -> Changes:
        return template_values(text)

    return Step(set_template)


@step
def template_of_file(job: VocabJob) -> Changes:
    """chat_template.jinja in place of what tokenizer_config.json holds, if there is such a file."""
    text = job.folder.text("chat_template.jinja")
    return {} if text is None else template_values(text)
