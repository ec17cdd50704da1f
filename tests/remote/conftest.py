"""A site for each test, without waits between tries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.conftest import forge
from tests.remote.server import Site, serving

__all__ = ["forge"]  # a fixture


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    pytest.importorskip("requests")
    from gguf_forge.remote import ranges

    monkeypatch.setattr(ranges, "PAUSE", 0.0)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("NETRC", "/nowhere")
    with serving(Site()) as running:
        yield running
