"""An evaluation as one HTML page that loads nothing from elsewhere: the table, plots as SVG, answers side by side."""

from __future__ import annotations

import html
from collections.abc import Sequence
from string import Template

from gguf_forge.errors import as_utf8
from gguf_forge.quality.evaluate import Evaluation, Verdict
from gguf_forge.quality.plots import Series, curves, scatter
from gguf_forge.quality.report import headings, rows

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --line: #ccc; --faint: #777; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #161616; --line: #444; --faint: #999; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child, td:first-child, .answers th, .answers td { text-align: left; }
.wide { overflow-x: auto; } .plots { display: flex; flex-wrap: wrap; gap: 1.5rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: 13px; }
mark { background: none; color: inherit; border-bottom: 2px solid #d1495b; }
figure { margin: 0; } figcaption, .faint { color: var(--faint); font-size: .9rem; }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif; } svg .axis { stroke: var(--line); fill: none; }
</style>
</head>
<body>
<h1>$title</h1>
<p class="faint">$about</p>
<div class="wide">$table</div>
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
        title=_text(title), about=_text(about), table=_table(found), plots=_plots(found), answers=_answers(found)
    )


def _text(plain: str) -> str:
    return html.escape(as_utf8(plain))


def _table(found: Evaluation) -> str:
    head = "".join(f'<th title="{_text(what)}">{_text(name)}</th>' for name, what in headings(found).items())
    width = len(headings(found))
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in [*row, *[""] * (width - len(row))]) + "</tr>\n"
        for row in rows(found)
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def _label(verdict: Verdict) -> str:
    return verdict.path.stem


def _plots(found: Evaluation) -> str:
    beside = [(_label(verdict), verdict, verdict.beside) for verdict in found.models if verdict.beside is not None]
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
            told = f'{_text(_label(verdict))}<br><span class="faint">{equal}</span>'
            differs = found.base is not None and answer.text != found.base.answers[i].text
            text = _marked(answer.text, found.base.answers[i].text) if found.base and differs else _text(answer.text)
            lines += f"<tr><th>{told}</th><td><pre>{text}</pre></td></tr>\n"
        parts.append(f'<h2>Answers</h2>\n<pre>{_text(prompt)}</pre>\n<table class="answers">\n{lines}</table>')
    return "\n".join(parts)


def _marked(text: str, base: str) -> str:
    """The text, marked from its first character that is not the base's."""
    same = next((i for i, (a, b) in enumerate(zip(text, base, strict=False)) if a != b), min(len(text), len(base)))
    return f"{_text(text[:same])}<mark>{_text(text[same:])}</mark>"
