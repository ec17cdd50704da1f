"""An evaluation as one HTML page that loads nothing from elsewhere: the table, plots as SVG, answers side by side."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from string import Template

from gguf_forge.errors import as_utf8
from gguf_forge.quality.evaluate import Evaluation, Verdict
from gguf_forge.quality.plots import Series, colour, curves, scatter
from gguf_forge.quality.report import headings, rows

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --line: #d4d4d4; --faint: #6b6b6b; --other: #fde2c8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #161616; --line: #3d3d3d; --faint: #a0a0a0; --other: #5c3a1a; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font: 13px/1.5 ui-monospace, monospace; margin: 1.4rem 0 .3rem; white-space: pre-wrap; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
.wide th, .wide td { white-space: nowrap; } thead th { vertical-align: bottom; }
th:first-child, td:first-child, .answers th, .answers td { text-align: left; }
.answers { width: 100%; } .answers th { width: 14rem; font-weight: 600; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } .swatch { display: inline-block; width: .7em; height: .7em; border-radius: 50%;
  margin-right: .5em; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: .8rem 0; } dd { margin: 0; }
pre { font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
mark { color: inherit; background: var(--other); }
figure { margin: 0; } figcaption, .faint, dl { color: var(--faint); font-size: .87rem; font-weight: 400; }
svg { max-width: 100%; height: auto; }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif; } svg .axis { stroke: var(--line); fill: none; }
</style>
</head>
<body>
<h1>$title</h1>
<p class="faint">$about</p>
<div class="wide">$table</div>
$legend
$plots
$answers
</body>
</html>
""")


def page(found: Evaluation) -> str:
    """The page."""
    title = "Quantized models on a text" if found.base is None else f"Models beside {found.base.path.name}"
    texts = ", ".join(str(text) for text in found.task.texts)
    about = f"{texts}: {found.windows} windows of {found.task.context} tokens, {found.positions} positions judged."
    return PAGE.substitute(
        title=_text(title),
        about=_text(about),
        table=_table(found),
        legend=_legend(found),
        plots=_plots(found),
        answers=_answers(found),
    )


def _text(plain: str) -> str:
    return html.escape(as_utf8(plain))


def _table(found: Evaluation) -> str:
    head = "".join(f'<th title="{_text(what)}">{_text(name)}</th>' for name, what in headings(found).items())
    width = len(headings(found))
    colours = [None] * (found.base is not None) + [colour(i) for i in range(len(found.models))]
    body = "".join(
        "<tr>" + "".join(_cells(_swatch(shade), [*row, *[""] * (width - len(row))])) + "</tr>\n"
        for row, shade in zip(rows(found), colours, strict=True)
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def _cells(swatch: str, row: Sequence[str]) -> Iterator[str]:
    """What follows +/- is faint, and digits of large whole numbers stand in threes."""
    for i, cell in enumerate(row):
        value, sign, error = cell.partition(" +/- ")
        plain = f"{int(value):,}" if value.isdecimal() else value
        rest = f' <span class="faint">&plusmn; {_text(error)}</span>' if sign else ""
        yield f"<td>{swatch if i == 0 else ''}{_text(plain)}{rest}</td>"


def _swatch(shade: str | None) -> str:
    return "" if shade is None else f'<span class="swatch" style="background:{shade}"></span>'


def _legend(found: Evaluation) -> str:
    told = "".join(f"<dt>{_text(name)}</dt><dd>{_text(what)}</dd>" for name, what in headings(found).items() if what)
    return f"<dl>{told}</dl>"


def _labels(found: Evaluation) -> list[str]:
    """What the models are called in plots: their files' names without what all begin with."""
    names = [verdict.path.stem for verdict in found.models]
    least, most = min(names), max(names)
    shared = least[: next((i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), len(least))]
    start = max(shared.rfind(mark) for mark in "-._ ") + 1
    return [name[start:] for name in names] if len(names) > 1 and all(len(name) > start for name in names) else names


def _plots(found: Evaluation) -> str:
    named = zip(_labels(found), found.models, strict=True)
    beside = [(label, verdict, verdict.beside) for label, verdict in named if verdict.beside is not None]
    if not beside:
        return ""
    sizes = [Series(name, [(v.bytes / 2**20, 1000 * max(s.kl.value, 1e-9))]) for name, v, s in beside]
    quantiles = [
        Series(name, [(100 * share, 1000 * max(kl, 1e-9)) for share, kl in s.kl_quantiles.items() if share >= 0.05])
        for name, _, s in beside
    ]
    windows = [
        Series(name, [(float(i + 1), 1000 * max(kl, 1e-9)) for i, kl in enumerate(v.window_kl)])
        for name, v, s in beside
    ]
    figures = [
        (scatter(sizes, "MiB", "KL x 1000"), "Size and mean divergence. Lower and further left is better."),
        (curves(quantiles, "% of positions", "KL x 1000"), "Divergence that so many positions do not exceed."),
        (curves(windows, "window", "KL x 1000"), "Mean divergence of each window of the text."),
    ]
    drawn = "".join(f"<figure>{svg}<figcaption>{_text(says)}</figcaption></figure>\n" for svg, says in figures)
    return f'<h2>Plots</h2>\n<div class="plots">\n{drawn}</div>'


def _answers(found: Evaluation) -> str:
    """A table for each prompt: what each model says, marked from where it leaves the base's answer."""
    verdicts: Sequence[Verdict] = [*([found.base] if found.base is not None else []), *found.models]
    parts = []
    for i, prompt in enumerate(found.task.prompts):
        lines = ""
        for verdict in verdicts:
            answer = verdict.answers[i]
            equal = "" if answer.equal is None else f"{answer.equal} of {len(answer.tokens)} tokens as the base"
            told = f'{_text(verdict.path.stem)}<br><span class="faint">{equal}</span>'
            differs = found.base is not None and answer.text != found.base.answers[i].text
            text = _marked(answer.text, found.base.answers[i].text) if found.base and differs else _text(answer.text)
            lines += f"<tr><th>{told}</th><td><pre>{text}</pre></td></tr>\n"
        parts.append(f'<h3>{_text(prompt)}</h3>\n<table class="answers">\n{lines}</table>')
    told = (
        "What each model says after a prompt, by its likeliest tokens; marked from where it leaves the base's answer."
    )
    return "\n".join(["<h2>Answers</h2>", f'<p class="faint">{told}</p>', *parts]) if parts else ""


def _marked(text: str, base: str) -> str:
    """The text, marked from its first character that is not the base's."""
    same = next((i for i, (a, b) in enumerate(zip(text, base, strict=False)) if a != b), min(len(text), len(base)))
    return f"{_text(text[:same])}<mark>{_text(text[same:])}</mark>"
