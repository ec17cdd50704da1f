"""What is open, and is closed where a `with` block ends. Knows nothing of what that may be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class Closing(ABC):
    """A context manager that is itself what a `with` block has, and closes at its end, however it ends."""

    @abstractmethod
    def close(self) -> None:
        """Closes it; more than once does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
