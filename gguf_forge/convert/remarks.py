"""What a checkpoint says of how its model computes, and the converted file cannot: what it would mislead by.

One function a rule, each over one subject. Knows GGUF's keys and tensor names. Must not know families, or values of
weights. What is left unsaid is a note, not an error: the file is what the checkpoint says. (What no reader would load
is an error: see `shapes`.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_forge.convert import sentence
from gguf_forge.convert.arch import Arch, Drop
from gguf_forge.convert.rope import rope_of
from gguf_forge.errors import escaped, listed
from gguf_forge.format.values import Value

_HEADED = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_MAX_NAMED = 2
_HEADS = frozenset({"output.weight", "cls.output.weight"})


@dataclass(frozen=True)
class Subject:
    """What a conversion starts from and leads to: folder, configuration, architecture, metadata, names of tensors, and
    stored names of those left out.
    """

    directory: Path
    config: Mapping[str, Any]
    arch: Arch
    metadata: Mapping[str, Value]
    names: Collection[str]
    dropped: Collection[str] = ()

    def value(self, key: str) -> Any:
        """The value of a key under the architecture's name, None without one."""
        found = self.metadata.get(f"{self.arch.name}.{key}")
        return None if found is None else found.value

    @property
    def headed(self) -> bool:
        """Whether the class in config.json is of a model with a head."""
        named = str((self.config.get("architectures") or [""])[0])
        return named.endswith(_HEADED) and not self.arch.draft


def remarks(subject: Subject) -> list[str]:
    """All remarks, a line each, in the order of the rules."""
    return [found for rule in RULES.values() for found in rule(subject)]


def _scaling(subject: Subject) -> Iterator[str]:
    kind = rope_of(subject.config).get("rope_type")
    if kind in (None, "default", "llama3", "proportional") or subject.value("rope.scaling.type") is not None:
        return
    if not any(key.startswith(f"{subject.arch.name}.rope.scaling.") for key in subject.metadata):
        yield f"config.json: rotary scaling of type {kind!r} has no form in GGUF and is left out"


def _factors(subject: Subject) -> Iterator[str]:
    factors = ("rope_factors_long.weight", "rope_factors_short.weight")
    if subject.value("rope.scaling.type") == "longrope" and not set(factors) & set(subject.names):
        yield f"config.json: the factors of rotary scaling have no tensors for {subject.arch.name}, which turns without"


#: Where YaRN's passage from turning as before to turning slower lies, as llama.cpp has it; some architectures read it.
_PASSAGE = {"beta_fast": 32, "beta_slow": 1, "truncate": True}
_READ_BETAS = ("grok", "mistral3", "k2-horizon")


def _passage(subject: Subject) -> Iterator[str]:
    rope, arch = rope_of(subject.config), subject.arch.name
    if subject.value("rope.scaling.type") != "yarn":
        return
    for key, usual in _PASSAGE.items():
        said = rope.get(key)
        if said is not None and said != usual and not (key != "truncate" and arch in _READ_BETAS):
            yield f"config.json: {key} of rotary scaling is {said!r:.40}; {arch} in GGUF means {usual!r}"


def _window(subject: Subject) -> Iterator[str]:
    window = subject.config.get("sliding_window")
    used = window and subject.config.get("use_sliding_window") is not False
    if used and subject.value("attention.sliding_window") is None:
        yield (
            f"config.json: sliding_window {window} has no key for {subject.arch.name}; every layer will see all tokens"
        )


def _modules(subject: Subject) -> Iterator[str]:
    for kind, path in sentence.modules(subject.directory):
        if kind.endswith("Pooling") and subject.value("pooling_type") is None:
            yield (
                f"{sentence.MODULES}: {subject.arch.name} has no key for pooling; "
                "whoever runs the model must choose it"
            )
        elif not kind.endswith(sentence.KEPT) and not _is_kept(subject, path):
            shown = f"{escaped(kind, 40)} ({escaped(path, 40)})"
            if any(name.startswith(f"{path}/") for row in subject.arch.tensors for name in row.names):
                yield f"{sentence.MODULES}: {shown} is left out; --sentence-transformers-dense-modules keeps it"
            else:
                yield f"{sentence.MODULES}: {shown} has no form in GGUF and is left out"


def _is_kept(subject: Subject, path: str) -> bool:
    """Whether a rule made an output of the module's folder."""
    outs = {out for row in subject.arch.tensors if any(n.startswith(f"{path}/") for n in row.names) for out in row.out}
    return bool(outs & set(subject.names))


def _implied(subject: Subject) -> Iterator[str]:
    for key, means in subject.arch.implied:
        value = subject.config.get(key)
        if value is None:
            continue
        meant: tuple[Any, ...] = means if isinstance(means, tuple) else means(subject.config)
        if value not in meant:
            yield f"config.json: {key} is {value!r}; {subject.arch.name} in GGUF means {meant[0]!r}"


def _head(subject: Subject) -> Iterator[str]:
    if subject.headed and subject.config.get("tie_word_embeddings") is False and not _HEADS & set(subject.names):
        yield (
            "config.json: tie_word_embeddings is false, but there is no lm_head, or no place for it in "
            f"{subject.arch.name}; the embedding serves instead"
        )


def _reranker(subject: Subject) -> Iterator[str]:
    if subject.headed and "cls.output.weight" in subject.names:
        yield (
            "taken for a reranker, by its name or model card: of the output only the rows of its answers, yes and no, "
            "are kept, as cls.output.weight"
        )


def _further(subject: Subject) -> Iterator[str]:
    further = subject.value("nextn_predict_layers")
    if further and not any("nextn." in name for name in subject.names):
        yield f"the metadata speaks of layers that predict further tokens ({further}), but there are none"


def _partial(subject: Subject) -> Iterator[str]:
    rope = rope_of(subject.config)
    part = rope.get("partial_rotary_factor")
    # Of "proportional" ones a tensor says which pairs turn.
    if not isinstance(part, (int, float)) or part in (0, 1) or rope.get("rope_type") == "proportional":
        return
    turned, size = subject.value("rope.dimension_count"), subject.value("attention.key_length")
    if turned is not None:
        whole = size if size is not None else subject.value("embedding_length") // subject.value("attention.head_count")
        if turned == int(whole * part):
            return
    yield f"config.json: partial_rotary_factor {part} has no key for {subject.arch.name}; whole heads will turn"


def _losses(subject: Subject) -> Iterator[str]:
    for drop in subject.arch.drop:
        if isinstance(drop, Drop) and drop.loss:
            found = [name for name in subject.dropped if re.search(drop.pattern, name)]
            if found:
                yield f"{listed(found, _MAX_NAMED)} left out: {drop.loss}"


def _cautions(subject: Subject) -> Iterator[str]:
    for row in subject.arch.tensors:
        if row.caution and any(out in subject.names for whole in row.expanded() for out in whole.out):
            yield row.caution


RULES: dict[str, Callable[[Subject], Iterator[str]]] = {
    "rotary scaling": _scaling,
    "factors of rotary scaling": _factors,
    "passage of rotary scaling": _passage,
    "sliding window": _window,
    "sentence-transformers modules": _modules,
    "implied settings": _implied,
    "head": _head,
    "reranker": _reranker,
    "further layers": _further,
    "partly turned heads": _partial,
    "tensors without a place": _losses,
    "what is computed otherwise": _cautions,
}
