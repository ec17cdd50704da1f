"""The table of what came of it, from the results alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.cuda.card import RESULTS
from tests.cuda.plan import Part
from tests.cuda.results import Record

#: How many failures are listed.
LISTED = 24


def wrong(records: list[Record], parts: list[Part]) -> list[str]:
    """What was not equal, failed, or was asked for and not done; nothing of it: all is well."""
    found = [f"{r['part']}: {r['item']}" for r in records if "item" in r and not right(r)]
    ran = {r["part"] for r in records if "seconds" in r or "missing" in r or "skipped" in r}
    cut = {r["part"]: r["cut"] for r in records if "cut" in r}
    for part in parts:
        if part.name not in ran:
            found.append(f"{part.name}: not run")
        elif part.name in cut and not part.optional:
            found.append(f"{part.name}: {cut[part.name]}")
    return found


def right(record: Record) -> bool:
    """Whether an item is as it should be."""
    return "failed" not in record and record.get("equal", True) is not False


def page(records: list[Record], parts: list[Part]) -> str:
    """Everything as one page of Markdown."""
    known = {r["part"]: r for r in records if r.get("item") in {"device", "kernels"}}
    rates = {r["part"]: r["rate"] for r in records if r["part"] in {"copy", "copy after"} and "rate" in r}
    copy = max(rates.values(), default=0.0)
    lines = _head(known.get("device", {}), known.get("kernels", {}), rates)
    lines += _types(records, copy, known.get("kernels", {}).get("resources", {}))
    lines += _products(records, copy)
    lines += ["", *(f"- {of_part(part, records)}" for part in parts)]
    lines += _failures(records)
    bad = wrong(records, parts)
    said = f"NOT WELL: {len(bad)} of the above." if bad else "All bits are equal, and everything ran."
    return "\n".join([*lines, "", f"**{said}**"])


def _head(device: Record, kernels: Record, rates: dict[str, float]) -> list[str]:
    capability = ".".join(str(n) for n in device.get("capability", ["?"]))
    when = {"copy": "before", "copy after": "after all"}
    copies = ", ".join(f"{rate:.0f} GB/s {when[part]}" for part, rate in rates.items())
    return [
        (
            f"{device.get('device', 'no device')} (compute capability {capability}; driver "
            f"{', '.join(device.get('driver') or ['?'])}, of CUDA {device.get('cuda', '?')}), "
            f"{device.get('memory', 0) / 1e9:.0f} GB; "
            f"{device.get('processors', '?')} processors, {device.get('processor', '?')}, {device.get('isa', '?')}; "
            f"{kernels.get('date', '')}, commit {device.get('commit') or 'unknown'}"
        ),
        "",
        (
            f"Kernels: {kernels.get('kernels', 'none')}. Copies within the card's memory, read + written: "
            f"{copies or 'none'}; shares are of the larger."
        ),
    ]


def _types(records: list[Record], copy: float, resources: dict[str, str]) -> list[str]:
    decoded = {(r["type"], r["dtype"]): r for r in records if r["part"] == "decode" and "rate" in r}
    encoded = {(r["type"], r["how"]): r for r in records if r["part"] == "encode" and "rate" in r}
    names = list(dict.fromkeys(name for name, _ in [*decoded, *encoded]))
    if not names:
        return []
    lines = [
        "",
        (
            "Decoded: GB/s, read + written (share of the copy), registers/stack/spilled. Encoded: thousand million "
            "weights a second (times one core), and how many millions were compared."
        ),
        "",
        "| type | to f32 | to f16 | to bf16 | encoded without importance | with | registers/stack/spilled | bits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    bad = Counter(_type_of(r) for r in records if "item" in r and not right(r))
    for name in names:
        cells = []
        for dtype, suffix in RESULTS.items():
            r = decoded.get((name, dtype))
            used = resources.get(f"forge_decode_{name.lower()}_{suffix}", "")
            cells.append(f"{r['rate']:.0f} ({r['rate'] / (copy or 1):.0%}) {used}".strip() if r else "-")
        for how in ("without", "with"):
            r = encoded.get((name, how))
            cells.append(f"{r['rate']:.3g} ({r['faster']:.0f}x), {r['compared'] / 1e6:.0f}" if r else "-")
        cells.append(resources.get(f"forge_encode_{name.lower()}", "-"))
        cells.append("DIFFERENT" if bad[name] else "equal")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _type_of(record: Record) -> str:
    """The type that an item is about, as its name says."""
    words = record["item"].split()
    named = words[1:2] if words[0] in {"decode", "encode", "product"} else words[:1]
    return str(record.get("type") or "".join(named))


def _products(records: list[Record], copy: float) -> list[str]:
    found = [r for r in records if r["part"] == "products" and "rate" in r]
    if not found:
        return []
    columns = [(dtype, vectors) for dtype in ("float32", "float16") for vectors in (1, 4)]
    head = " | ".join(f"{dtype} x {vectors}" for dtype, vectors in columns)
    lines = ["", f"| product: GB/s (share of the copy) | {head} | right |"]
    lines.append("|---|---|---|---|---|---|")
    for key in dict.fromkeys((r["type"], r["shape"]) for r in found):
        row = {(r["dtype"], r["vectors"]): r for r in found if (r["type"], r["shape"]) == key}
        cells = [f"{row[c]['rate']:.0f} ({row[c]['rate'] / (copy or 1):.0%})" if c in row else "-" for c in columns]
        well = "yes" if all(right(r) for r in row.values()) else "NO"
        lines.append(f"| {key[0]}, {key[1]} | {' | '.join(cells)} | {well} |")
    return lines


def of_part(part: Part, records: list[Record]) -> str:
    """What came of a part, in a line."""
    own = [r for r in records if r["part"] == part.name]
    items = [r for r in own if "item" in r]
    said = [f"{sum(right(r) for r in items)} of {len(items)} right"] if items else []
    said += [f"CUT: {r['cut']}" for r in own if "cut" in r]
    said += [f"not there: {r['missing']}" for r in own if "missing" in r]
    said += [r["skipped"] for r in own if "skipped" in r]
    said += [f"{r['said']}" for r in own if "said" in r]
    said += [_of_model(r) for r in own if "recipe" in r]
    said += [f"{r['seconds']:.0f} s" for r in own if "seconds" in r]
    return f"{part.name}: {'; '.join(said) or 'not run'}"


def _of_model(m: Record) -> str:
    return (
        f"{m['bytes'] / 1e9:.2f} GB to {m['recipe']} {m['where']}: {m['cuda']:.2f} s with cuda, {m['cpu']:.2f} s on "
        f"the processors, {m['moved']:.2f} s to read and write those bytes alone ({m['cuda'] / m['moved']:.2f} times); "
        f"{'the same file' if m['equal'] else 'ANOTHER FILE'}; {'; '.join(m['notes'])}"
    )


def _failures(records: list[Record]) -> list[str]:
    found = [r for r in records if "item" in r and not right(r)]
    if not found:
        return []
    lines = ["", "What is not right (results.jsonl and unequal.npz have more):"]
    lines += [f"- {r['part']}: {r['item']}: {_told(r)}" for r in found[:LISTED]]
    return lines + ([f"- and {len(found) - LISTED} more"] if len(found) > LISTED else [])


def _told(record: Record) -> str:
    if "failed" in record:
        return str(record["failed"])
    names = ("different", "share", "first", "again", "right", "refused")
    kept: dict[str, Any] = {name: record[name] for name in names if name in record}
    if "remainders" in record:
        kept["remainders hit"] = {m: each["hit"] for m, each in record["remainders"].items()}
    return ", ".join(f"{name} {value}" for name, value in kept.items())
