"""The table of docs/quality.md: `python -m tests.quality [MODEL HELDOUT CALIBRATION]... [--recipes Q4_K_M,...]`.

MODEL is a checkpoint's folder or a .gguf file in F16, HELDOUT the text that it is judged on, CALIBRATION the text
whose statistics the quantizer gets, or the .gguf file that `gguf-forge calibrate` made of it. Without arguments it is
the trained model of fixtures/ and the texts beside it. `--page` writes the tables into the page.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gguf_forge.quality.evaluate import EvaluationTask, Verdict, evaluate
from gguf_forge.quant.calibration import Calibration
from tests.bench.report import Report, Run, machine, run

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures"
PAGE = ROOT / "docs" / "quality.md"
#: Between these lines of the page stands the table.
BEGIN, END = "<!-- what `make quality` writes -->", "<!-- end of it -->"
RECIPES = "Q6_K,Q5_K_M,Q4_K_M,Q4_K_S,Q4_0,IQ4_XS,Q3_K_M,Q3_K_S,IQ3_XXS,Q2_K,IQ2_XS"
CONTEXT, WINDOWS = 256, 88
IMATRIX = "its imatrix"
#: Efforts that are shown; `ref` is llama-quantize's.
EFFORTS = "high,max"
FORGE: list[str | Path] = [sys.executable, "-m", "gguf_forge"]


@dataclass(frozen=True)
class Made:
    """A file, how it was made, and what that took."""

    recipe: str
    way: str
    path: Path
    took: Run


@dataclass(frozen=True)
class Given:
    """A model and its texts, and what was made of them: the F16 file, and the statistics."""

    model: Path
    heldout: Path
    calibration: Path
    folder: Path

    @property
    def base(self) -> Path:
        return self.model if self.model.suffix == ".gguf" else self.folder / "base.gguf"

    @property
    def moments(self) -> Path:
        return self.folder / "calibration.gguf"


def prepare(given: Given) -> Run | None:
    """Converts, and gathers importance matrix and covariances in one file; what gathering took, if it was done."""
    if given.base != given.model:
        run([*FORGE, "convert", given.model, "--type", "f16", "-o", given.base, "-q"])
    if given.calibration.suffix == ".gguf":
        shutil.copyfile(given.calibration, given.moments)
        return None
    words: list[str | Path] = ["--text", given.calibration, "-c", str(CONTEXT), "-t", "1", "-q"]
    return run([*FORGE, "calibrate", given.base, "-o", given.moments, *words])


def make(given: Given, name: str, efforts: Sequence[str]) -> Iterator[Made]:
    """One recipe in each way that it can be made. The first two ways' bytes are those of llama-quantize."""
    ways: dict[str, list[str | Path]] = {"as llama-quantize": [], IMATRIX: ["--imatrix", given.moments]}
    ways |= {effort: ["--calibration", given.moments, "--effort", effort] for effort in efforts}
    for way, words in ways.items():
        target = given.folder / f"{name}-{len(words)}-{way}.gguf"
        try:
            took = run([*FORGE, "quantize", given.base, target, name, *words, "-q"])
        except RuntimeError as error:
            if words or "importance matrix" not in str(error):
                raise
            continue  # a type that is made with one only
        yield Made(name, way, target, took)


def table(report: Report, given: Given, recipes: Sequence[str], efforts: Sequence[str], windows: int) -> None:
    took = prepare(given)
    print("made the statistics", file=sys.stderr, flush=True)
    made = [one for name in recipes for one in make(given, name, efforts)]
    print("made the files", file=sys.stderr, flush=True)
    files = [one.path for one in made]
    task = EvaluationTask([given.heldout], context=CONTEXT, chunks=windows, threads=1)
    found = evaluate(files, task, against=given.base)
    assert found.base is not None
    verdicts = dict(zip(files, found.models, strict=True))
    report.say(f"### {given.model.name.removesuffix('.gguf')}\n")
    size = given.base.stat().st_size
    report.say(
        f"Judged on `{given.heldout.name}`: {found.windows} windows of {CONTEXT} tokens. F16: {size} bytes, perplexity"
        f" {found.base.perplexity.value:.3f}. Statistics: {statistics(given, took)}.\n"
    )
    report.table(
        "recipe", "made by", ">bytes", ">KL x 1000", ">share", ">perplexity", ">same top", ">seconds", ">MB"
    )  # fmt: skip
    rivals = {one.recipe: verdicts[one.path] for one in made if one.way == IMATRIX}
    for one in made:
        report.row(*row(one, verdicts[one.path], rivals[one.recipe]))
    report.say()


def statistics(given: Given, took: Run | None) -> str:
    """What of a calibration text the quantizer got, and what gathering it took."""
    with Calibration.open(given.moments) as calibration:
        gathered = f"{max(map(calibration.tokens, calibration.names))} tokens of `{given.calibration.name}`"
    return gathered if took is None else f"{gathered} in {took.seconds:.1f} s and {took.megabytes:.0f} MB"


def row(one: Made, verdict: Verdict, rival: Verdict) -> list[str]:
    took = [f"{one.took.seconds:.2f}", f"{one.took.megabytes:.0f}"]
    assert verdict.beside is not None
    assert rival.beside is not None
    kl = verdict.beside.kl.value
    return [
        one.recipe, one.way, str(verdict.bytes), f"{1000 * kl:.2f}", f"{kl / rival.beside.kl.value:.2f}",
        f"{verdict.perplexity.value:.3f}", f"{verdict.beside.same_top.value:.2%}", *took,
    ]  # fmt: skip


def write(report: Report) -> None:
    """Puts the tables into the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    body = "\n".join(report.lines).strip()
    PAGE.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("given", nargs="*", type=Path, metavar="MODEL HELDOUT CALIBRATION")
    parser.add_argument("--recipes", default=RECIPES, help="separated by commas")
    parser.add_argument("--efforts", default=EFFORTS, help="separated by commas")
    parser.add_argument("--page", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--windows", type=int, default=WINDOWS, help="of the text, at most")
    chosen = parser.parse_args(arguments)
    quality = FIXTURES / "quality"
    words = chosen.given or [FIXTURES / "models" / "PyLlama-7M", quality / "heldout.txt", quality / "calibration.txt"]
    if len(words) % 3:
        parser.error("each MODEL needs a HELDOUT and a CALIBRATION text")
    report = Report()
    told = [Path(word).name if "/" in word else word for word in arguments]
    report.say(f"Made on {machine()} by `{' '.join(['python -m tests.quality', *told])}`.\n")
    with tempfile.TemporaryDirectory() as scratch:
        for at in range(0, len(words), 3):
            folder = Path(scratch) / str(at)
            folder.mkdir()
            model, heldout, calibration = words[at : at + 3]
            given = Given(model, heldout, calibration, folder)
            table(report, given, chosen.recipes.split(","), chosen.efforts.split(","), chosen.windows)
    if chosen.page:
        write(report)


if __name__ == "__main__":
    main(sys.argv[1:])
