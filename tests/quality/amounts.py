"""How much text a calibration needs, and which: `python -m tests.quality.amounts MODEL.gguf TEXTS --work FOLDER`.

TEXTS is a folder with, for each kind of text, KIND.calibration.txt and KIND.heldout.txt. The model is calibrated on
each kind, and on as much of each, with so many tokens; quantized with the importance matrix of that text, as
llama-quantize does, and with --calibration; and judged on the held-out text of each kind. The table has the share of
the divergence that the calibration leaves. FOLDER keeps what was made and found: a run that was stopped goes on, and
one of fewer --kinds, --tokens or --recipes prints what it has of the others, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf_forge
from gguf_forge.quality.calibrate import CalibrationRun, calibrate
from gguf_forge.quality.evaluate import EvaluationTask, evaluate
from tests.bench.report import Report

CONTEXT = 256
#: A calibration's name where it has as much of each kind.
EACH = "each"
RECIPES = "Q4_0,Q4_K_M,Q3_K_M,Q2_K"
TOKENS = "4096,16384,65536"
WAYS = ("imatrix", "high")


@dataclass(frozen=True)
class Given:
    """The model, the folder of its texts, the one of what is made, and how many windows are judged."""

    model: Path
    texts: Path
    work: Path
    windows: int

    @property
    def kinds(self) -> list[str]:
        """The kinds of text that there are."""
        return sorted(path.name.removesuffix(".heldout.txt") for path in self.texts.glob("*.heldout.txt"))

    @property
    def found(self) -> Path:
        return self.work / "found.json"


def moments(given: Given, kind: str, windows: int) -> Path:
    """The calibration of so many windows of a kind of text; of the mixture each kind has its share.

    Its half is that of half as many, so that no window is read twice.
    """
    made = given.work / f"{kind}-{windows}.gguf"
    if made.exists():
        return made
    if kind == EACH:
        parts = [moments(given, one, windows // len(given.kinds)) for one in given.kinds]
        calibrate(None, made, CalibrationRun([]), merge=parts)
        return made
    half = windows // 2
    more = [moments(given, kind, half)] if half >= 8 and half % 8 == 0 else []
    skip = half if more else 0
    run = CalibrationRun([given.texts / f"{kind}.calibration.txt"], CONTEXT, windows - skip, skip, threads=1)
    calibrate(given.model, made, run, merge=more)
    return made


def divergences(given: Given, recipe: str, way: str, calibration: Path) -> dict[str, float]:
    """Mean divergences of a quantized model on the held-out text of each kind."""
    target = given.work / f"{calibration.stem}-{recipe}-{way}.gguf"
    with gguf_forge.Calibration.open(calibration) as opened:
        how = gguf_forge.Quantization(imatrix=opened.imatrix, calibration=opened if way == "high" else None)
        gguf_forge.quantize_file(given.model, target, recipe, quantization=how, threads=1)
    out = {}
    for kind in given.kinds:
        task = EvaluationTask([given.texts / f"{kind}.heldout.txt"], CONTEXT, given.windows, threads=1)
        base = given.work / f"{kind}-{given.windows}.logits"
        verdict = evaluate([target], task, against=given.model, base_logits=base).models[0]
        assert verdict.beside is not None
        out[kind] = verdict.beside.kl.value
    target.unlink()
    return out


def cells(given: Given, kinds: Sequence[str], tokens: Sequence[int], recipes: Sequence[str]) -> Iterator[str]:
    """Makes and judges what is not known yet; what was found after each, by "kind tokens recipe way text"."""
    known: dict[str, float] = json.loads(given.found.read_text()) if given.found.exists() else {}
    for kind in kinds:
        for count in tokens:
            for recipe in recipes:
                for way in WAYS:
                    names = {text: f"{kind} {count} {recipe} {way} {text}" for text in given.kinds}
                    if all(name in known for name in names.values()):
                        continue
                    calibration = moments(given, kind, count // CONTEXT)
                    for text, kl in divergences(given, recipe, way, calibration).items():
                        known[names[text]] = kl
                        yield f"{names[text]}: {1000 * kl:.2f}"
                    given.found.write_text(json.dumps(known, indent=1))


def table(given: Given) -> Report:
    """The shares; in brackets what the importance matrix leaves, KL x 1000."""
    known: dict[str, float] = json.loads(given.found.read_text())
    rows = {tuple(name.split()[:2]): None for name in known}
    recipes = list({name.split()[2]: None for name in known})
    report = Report()
    columns = [(recipe, text) for text in given.kinds for recipe in recipes]
    report.table("calibrated on", ">tokens", *(f">{recipe}, {text}" for recipe, text in columns))
    for kind, count in rows:
        row = []
        for recipe, text in columns:
            rival, ours = (known.get(f"{kind} {count} {recipe} {way} {text}") for way in WAYS)
            row.append("" if rival is None or ours is None else f"{ours / rival:.2f} ({1000 * rival:.1f})")
        report.row(kind, count, *row)
    return report


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kinds", help="of calibration texts, by commas; `each` is a mixture of all")
    parser.add_argument("--tokens", default=TOKENS)
    parser.add_argument("--recipes", default=RECIPES)
    parser.add_argument("--windows", type=int, default=16, help="that are judged, of each text")
    chosen = parser.parse_args(arguments)
    given = Given(chosen.model, chosen.texts, chosen.work, chosen.windows)
    given.work.mkdir(parents=True, exist_ok=True)
    kinds = chosen.kinds.split(",") if chosen.kinds else [EACH, *given.kinds]
    tokens = [int(count) for count in chosen.tokens.split(",")]
    for told in cells(given, kinds, tokens, chosen.recipes.split(",")):
        print(told, file=sys.stderr, flush=True)
    table(given)


if __name__ == "__main__":
    main(sys.argv[1:])
