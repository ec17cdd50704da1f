"""Names of files behind URLs: how they are read, and what of them is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gguf_forge.errors import InputError
from gguf_forge.remote.location import HubLocation, Location, located

COMMIT = "a" * 40


@pytest.mark.parametrize(
    ("text", "shown", "name"),
    [
        ("https://h/a/m.gguf", "https://h/a/m.gguf", "m.gguf"),
        ("HTTP://h:8080/m%20x.gguf", "http://h:8080/m%20x.gguf", "m x.gguf"),
        ("https://user:pass@h/m.gguf?sig=x#y", "https://***@h/m.gguf?...", "m.gguf"),
        ("https://token@h/m.gguf", "https://***@h/m.gguf", "m.gguf"),
        ("https://h", "https://h", "h"),
        ("hf://o/r/m.gguf", "hf://o/r/m.gguf", "m.gguf"),
        ("hf://o/r@v1.0/a/b/m.gguf", "hf://o/r@v1.0/a/b/m.gguf", "m.gguf"),
        ("hf://o/r@refs/pr/1/m.gguf", "hf://o/r@refs/pr/1/m.gguf", "m.gguf"),
        ("hf://datasets/o/r/m.gguf", "hf://datasets/o/r/m.gguf", "m.gguf"),
    ],
)
def test_a_url_is_named_without_its_secrets(text: str, shown: str, name: str) -> None:
    found = located(text)
    assert isinstance(found, Location)
    assert (str(found), os.fspath(found), found.name) == (shown, shown, name)
    assert "pass" not in repr(found)
    assert "token" not in repr(found)
    assert located(found) is found


@pytest.mark.parametrize("text", ["m.gguf", "a/https://x", "file:///x", "C:\\x", "https:/h/x"])
def test_all_else_is_a_path(text: str) -> None:
    assert located(text) == Path(text)


@pytest.mark.parametrize(
    "text",
    ["hf://", "hf://o", "hf://o/r", "hf://o/r/", "hf://o/r@/m", "https://", "https:///m", "http://h:x/m", "http://[h/m"],
)
def test_a_url_that_names_nothing(text: str) -> None:
    with pytest.raises(InputError):
        located(text)


def test_a_wrong_url_keeps_its_secrets() -> None:
    for text in ("http://user:secret@h:x/m?secret", "hf://secret@o?secret"):
        with pytest.raises(InputError) as caught:
            located(text)
        assert "secret" not in str(caught.value) or text.startswith("hf")


def test_others_are_in_the_same_folder() -> None:
    web = located("https://u:p@h/a/m-1.gguf?download=true")
    assert isinstance(web, Location)
    other = web.with_name("m 2.gguf")
    assert other.request().url == "https://u:p@h/a/m%202.gguf?download=true"
    hub = located("hf://o/r@v1/a/m-1.gguf")
    assert isinstance(hub, HubLocation)
    assert str(hub.with_name("m-2.gguf")) == "hf://o/r@v1/a/m-2.gguf"
    assert hub.pinned([{"x-repo-commit": COMMIT}]).with_name("m-2.gguf").commit == COMMIT
    assert hub.pinned([{}, {"x-repo-commit": "../x"}]) == hub
    assert hub.pinned([{"x-repo-commit": COMMIT}]) == hub


def test_the_library_knows_addresses_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    hub = located("hf://o/r@refs%2Fpr%2F1/a/m 1.gguf")
    assert isinstance(hub, HubLocation)
    asked = hub.request()
    assert asked.url.endswith("/o/r/resolve/refs%2Fpr%2F1/a/m%201.gguf")
    assert asked.headers["Authorization"] == "Bearer hf_x"
    pinned = hub.pinned([{"x-repo-commit": COMMIT}])
    assert f"/resolve/{COMMIT}/" in pinned.request().url
