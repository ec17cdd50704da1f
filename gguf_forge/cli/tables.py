"""Tables on a terminal of any width. Knows columns and rich; must not know what the cells mean.

No figure and no name is ever folded. Where the terminal is too narrow, prose wraps between words; then columns are left
out, in an order the table states, and named under it; then long names are cut in the middle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gguf_forge.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group

#: A line under the heading, and nothing else, in characters that every code page has: rows from top to bottom.
ASCII = "    \n    \n -- \n    \n    \n    \n    \n    \n"
#: Blanks between columns, the least width of prose, and of a name that is cut.
GAP, PROSE, NAME = 3, 18, 15


class Table:
    """A table of plain text, escaped as it is added.

    columns: their names; ">" before one aligns it to the right, "~" makes it prose (one column at most). spare: the
    columns that can be left out where space is lacking, in this order. heading: whether the names are shown. The first
    column is of names, which are cut when nothing else helps.
    """

    def __init__(self, *columns: str, spare: Sequence[str] = (), heading: bool = True) -> None:
        self._names = [column.lstrip(">~") for column in columns]
        self._right = [column.startswith(">") for column in columns]
        self._prose = [column.startswith("~") for column in columns]
        self._spare = [self._names.index(name) for name in spare]
        self._heading = heading
        self._rows: list[list[str]] = []

    def add(self, *cells: object) -> None:
        """Adds a row; cells that are not given are empty."""
        given = [printable(str(cell)) for cell in cells]
        self._rows.append(given + [""] * (len(self._names) - len(given)))

    def fitted(self, width: int, ascii_only: bool = False) -> Group:
        """What to print where there are `width` columns, and perhaps no characters but ASCII's."""
        from rich.console import Group

        shown = list(range(len(self._names)))
        natural = [self._width(column) for column in shown]
        least = [min(n, PROSE) if prose else n for n, prose in zip(natural, self._prose, strict=True)]

        def space() -> int:
            return width - sum(least[c] for c in shown) - GAP * (len(shown) - 1)

        left_out = []
        for column in self._spare:
            if space() >= 0:
                break
            shown.remove(column)
            left_out.append(self._names[column])
        left = space()
        if left < 0:
            least[shown[0]] = max(min(least[shown[0]], NAME), least[shown[0]] + left)
        widths = {c: min(natural[c], least[c] + left) if self._prose[c] and left > 0 else least[c] for c in shown}
        missing = [f"(no room for: {', '.join(left_out)})"] if left_out else []
        return Group(self._drawn(widths, ascii_only), *missing)

    def _width(self, column: int) -> int:
        from rich.cells import cell_len

        cells = [row[column] for row in self._rows] + ([self._names[column]] if self._heading else [])
        return max((cell_len(cell) for cell in cells), default=0)

    def _drawn(self, widths: dict[int, int], ascii_only: bool) -> Any:
        from rich import box, table
        from rich.text import Text

        lines = box.Box(ASCII, ascii=True) if ascii_only else box.SIMPLE_HEAD
        drawn = table.Table(box=lines, padding=0, show_edge=False, show_header=self._heading)
        for column, width in widths.items():
            if drawn.columns:
                drawn.add_column(width=GAP - 2)  # and one for the line on each side, which is blank
            justify: Any = "right" if self._right[column] else "left"
            drawn.add_column(self._names[column], justify=justify, width=width, overflow="fold")
        for row in self._rows:
            cells = [Text(row[c] if self._prose[c] else _cut(row[c], width)) for c, width in widths.items()]
            drawn.add_row(*[part for cell in cells for part in ("", cell)][1:])
        return drawn


def _cut(name: str, width: int) -> str:
    """A name in at most so many characters: its beginning and its end."""
    if len(name) <= width:
        return name
    tail = (width - 2) // 2
    return f"{name[: width - 3 - tail]}...{name[-tail:]}"
