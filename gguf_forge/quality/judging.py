"""How a model's types are judged, from what is given: nothing, importances, a calibration, a text for its answers.

Opens what is needed for the time; the choice is `choose`'s.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from gguf_forge.convert.files import convert_checkpoint
from gguf_forge.convert.job import Quantization
from gguf_forge.convert.metrics import Metrics
from gguf_forge.convert.model import gguf_model
from gguf_forge.errors import RequestError
from gguf_forge.format import reader
from gguf_forge.quality import choose, costs
from gguf_forge.quality.choose import Choices, Plan
from gguf_forge.quality.errors_of_types import encoder
from gguf_forge.quality.sensitivity import Weights
from gguf_forge.quality.session import Model, cut_windows, read_texts

StrPath = str | os.PathLike[str]
#: Windows of a text that the answers are judged on, and tokens of each.
WINDOWS, CONTEXT = 16, 256


def judge(
    source: StrPath, plan: Plan, how: Quantization, texts: Sequence[StrPath] = (), threads: int | None = None
) -> Choices:
    """The types that a model's tensors can get, and what each costs.

    source: a GGUF file or a checkpoint's folder, which is converted for the time if its weights are looked at: not so
    where neither importances, a calibration nor texts are given, and types and roles have their usual costs. plan: its
    dry runs with `how`, whose calibration and effort also say how the rows are encoded that are looked at. texts: run
    through the model, which needs llama.cpp's library. Raises ForgeError.
    """
    probe = plan(choose.PROBE)
    layers = choose.layers_of(probe.metadata)
    importances = how.matrix()

    def weighted(name: str) -> bool:
        return importances is not None and name in importances.entries

    if importances is None and not texts and not how.fits:
        tied = all(choice.name != "output.weight" for choice in probe.choices)
        return choose.choices(plan, costs.usual(layers, tied=tied), weighted)
    with ExitStack() as stack:
        path = Path(source)
        if path.is_dir():
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gguf-forge-"))
            path = convert_checkpoint(path, Path(folder) / "model.gguf", "auto", threads=threads)[0].path
        file = stack.enter_context(reader.open(path))
        metrics = Metrics(gguf_model(file).views, how.calibration)
        encode = encoder(importances, metrics if how.fits else None)
        answers = _answers(stack, path, texts, threads) if texts else None
        return choose.choices(plan, costs.measured(file, layers, encode, metrics, answers), weighted)


def _answers(stack: ExitStack, path: Path, texts: Sequence[StrPath], threads: int | None) -> Weights:
    model = stack.enter_context(Model(path, writable=True))
    windows = cut_windows(model, model.tokenize(read_texts(texts)), CONTEXT)
    if not len(windows):
        raise RequestError(f"the text is too short: {CONTEXT} tokens are needed at least")
    answers = Weights(model, windows[:: max(1, len(windows) // WINDOWS)][:WINDOWS], threads=threads)
    stack.callback(answers.close)
    return answers
