"""What a chat template asks of who renders it, found by a walk over its syntax tree. Nothing is rendered or compiled.

Knows Jinja's tree (jinja2 parses, no more), what attacks by templates are made of, and what llama.cpp's own engine
lacks. Source of the latter: common/jinja of llama.cpp (release 11549). Must not know files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from gguf_forge.errors import escaped

#: Filters of llama.cpp's engine, for values of any kind; methods are the same functions.
FILTERS = (
    "abs append capitalize default dictsort endswith first float format get indent int items join keys last "
    "length list lower lstrip map max min pop reject rejectattr replace reverse rsplit rstrip safe select "
    "selectattr slice sort split startswith string strip title tojson upper values"
)
ALIASES = {"count", "d", "trim"}
TESTS = (
    "boolean callable defined divisibleby eq equalto escaped even false filter float ge greaterthan gt in integer "
    "iterable lessthan lower lt mapping ne none number odd sameas sequence string test true undefined upper"
)
#: Functions of jinja2 that llama.cpp's engine lacks.
LACKING = {"cycler", "joiner", "lipsum"}
#: Statements that llama.cpp's engine lacks, by the node they make.
STATEMENTS: dict[type[nodes.Node], str] = {
    nodes.With: "with",
    nodes.ScopedEvalContextModifier: "autoescape",
    nodes.Pow: "**",
    nodes.FloorDiv: "//",
}
#: Statements that read other files.
READING: dict[type[nodes.Node], str] = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "from ... import",
    nodes.Extends: "extends",
}
#: Attributes by which templates reach Python's internals; the names are those that jinja2's sandbox forbids.
INTERNALS = (
    "ag_code ag_frame co_code cr_code cr_frame f_back f_builtins f_code f_globals f_locals func_closure func_code "
    "func_defaults func_dict func_globals gi_code gi_frame im_class im_func im_self mro tb_frame tb_next"
)
#: Names of objects that web frameworks give to templates; none of them has a meaning in a chat.
REACHING = {"self", "config", "request", "session", "url_for", "get_flashed_messages", "lipsum", "cycler", "joiner"}
_DUNDER = re.compile(r"__\w+__|__\w+|\w+__$")
#: Numbers above which a loop or a repetition is made to exhaust who renders it.
MOST_REPEATED = 1_000_000

_FILTERS, _TESTS, _INTERNALS = frozenset(FILTERS.split()), frozenset(TESTS.split()), frozenset(INTERNALS.split())

#: A finding: the rule, and its text.
Said = tuple[str, str]


class _Generation(Extension):
    """`{% generation %}`, by which transformers marks what the assistant says; llama.cpp passes over it."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def find_in_template(text: str) -> Iterator[Said]:
    """Rules broken by a template, each with what breaks it first; of each rule one finding a thing it names."""
    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols", "jinja2.ext.do", _Generation]).parse(text)  # noqa: S701
    except TemplateSyntaxError as error:
        yield "template-syntax", f"line {error.lineno}: {escaped(error.message or 'no Jinja')}"
        return
    except RecursionError:
        yield "template-syntax", "nested too deeply to be read"
        return
    except (ValueError, OverflowError) as error:
        yield "template-syntax", f"a number or text that cannot be read: {escaped(str(error))}"
        return
    every = list(_walk(tree))
    known = _Known(_own(every), _holding_text(every))
    seen: set[Said] = set()
    for node in every:
        for rule, what in _judged(node, known):
            if (rule, what) not in seen:
                seen.add((rule, what))
                yield rule, f"line {node.lineno}: {what}"


@dataclass(frozen=True)
class _Known:
    """Of a whole template: names it gives a meaning itself, and the nodes in whose trees there is text, by id."""

    own: frozenset[str]
    texts: frozenset[int]


def _own(every: list[nodes.Node]) -> frozenset[str]:
    return frozenset(
        node.name
        for node in every
        if isinstance(node, nodes.Macro) or (isinstance(node, nodes.Name) and node.ctx in ("store", "param"))
    )


def _holding_text(every: list[nodes.Node]) -> frozenset[int]:
    """`every`: parents before their children. Each node is looked at once: a chain may be as deep as it is long."""
    found: set[int] = set()
    for node in reversed(every):
        if isinstance(node, nodes.Const):
            if isinstance(node.value, str):
                found.add(id(node))
        elif any(id(child) in found for child in node.iter_child_nodes()):
            found.add(id(node))
    return frozenset(found)


def _walk(tree: nodes.Node) -> Iterator[nodes.Node]:
    """A node and all below it, parents first; without recursion, which a long chain of operators would exhaust."""
    left = [tree]
    while left:
        node = left.pop()
        yield node
        left += reversed(list(node.iter_child_nodes()))


def _judged(node: nodes.Node, known: _Known) -> Iterator[Said]:
    for kind, judge in _JUDGES.items():
        if isinstance(node, kind):
            yield from judge(node, known)
    if type(node) in READING:
        yield "template-unsafe", f"reads another file: {READING[type(node)]}"
    if type(node) in STATEMENTS:
        yield "template-lacking", f"llama.cpp's engine has no {STATEMENTS[type(node)]}"


def _attribute(node: nodes.Getattr, known: _Known) -> Iterator[Said]:
    if _DUNDER.fullmatch(node.attr) or node.attr in _INTERNALS:
        yield "template-unsafe", f"reaches for .{escaped(node.attr, 40)}"


def _text(node: nodes.Const, known: _Known) -> Iterator[Said]:
    if isinstance(node.value, str) and re.search(r"__\w+__", node.value):
        found = re.search(r"__\w+__", node.value)
        yield "template-unsafe", f"names {escaped(found[0] if found else '', 40)}"


def _item(node: nodes.Getitem, known: _Known) -> Iterator[Said]:
    if isinstance(node.arg, nodes.Concat) or (isinstance(node.arg, nodes.Add) and id(node.arg) in known.texts):
        pieces = "".join(str(part.value) for part in _walk(node.arg) if isinstance(part, nodes.Const))
        if "__" in pieces:
            yield "template-unsafe", "puts a name with underscores together from pieces"


def _name(node: nodes.Name, known: _Known) -> Iterator[Said]:
    if (node.ctx == "load" and node.name in REACHING - known.own) or _DUNDER.fullmatch(node.name):
        yield "template-unsafe", f"reaches for {escaped(node.name, 40)}"


def _filter(node: nodes.Filter, known: _Known) -> Iterator[Said]:
    if node.name == "attr":
        yield "template-unsafe", "reaches for attributes by the filter attr"
    elif node.name not in _FILTERS | ALIASES:
        yield "template-lacking", f"llama.cpp's engine has no filter {escaped(node.name, 40)}"


def _test(node: nodes.Test, known: _Known) -> Iterator[Said]:
    if node.name not in _TESTS:
        yield "template-lacking", f"llama.cpp's engine has no test {escaped(node.name, 40)}"


def _call(node: nodes.Call, known: _Known) -> Iterator[Said]:
    if isinstance(node.node, nodes.Name) and node.node.name == "range" and "range" not in known.own:
        yield from _repeated(node.args)
    if isinstance(node.node, nodes.Name) and node.node.name in LACKING - known.own:
        yield "template-lacking", f"llama.cpp's engine has no function {node.node.name}"
    if isinstance(node.node, nodes.Getattr) and not _is_known(node.node, known):
        yield "template-lacking", f"llama.cpp's engine has no method {escaped(node.node.attr, 40)}"


def _is_known(node: nodes.Getattr, known: _Known) -> bool:
    """Whether a method is llama.cpp's, a function that a namespace holds, or unsafe already."""
    name = node.attr
    return name in _FILTERS or name in known.own or name in _INTERNALS or _DUNDER.fullmatch(name) is not None


def _product(node: nodes.Mul, known: _Known) -> Iterator[Said]:
    if id(node) in known.texts:
        yield from _repeated([node.left, node.right])


def _repeated(parts: list[nodes.Expr]) -> Iterator[Said]:
    for part in parts:
        if isinstance(part, nodes.Const) and isinstance(part.value, (int, float)) and part.value > MOST_REPEATED:
            yield "template-unsafe", f"repeats something more than {MOST_REPEATED} times"


def _loop(node: nodes.For, known: _Known) -> Iterator[Said]:
    if node.recursive:
        yield "template-lacking", "llama.cpp's engine has no recursive loops"


_JUDGES: dict[type[nodes.Node], Callable[..., Iterator[Said]]] = {
    nodes.Getattr: _attribute,
    nodes.Const: _text,
    nodes.Getitem: _item,
    nodes.Name: _name,
    nodes.Filter: _filter,
    nodes.Test: _test,
    nodes.Call: _call,
    nodes.Mul: _product,
    nodes.For: _loop,
}
