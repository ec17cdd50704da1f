"""Files behind URLs against a server that keeps to HTTP, and servers that break it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import gguf_forge
from gguf_forge import values
from gguf_forge.errors import (
    ChangedInputError,
    ForgeError,
    FormatError,
    IncompleteSetError,
    InputError,
    LimitError,
    TruncatedError,
    UnsupportedError,
)
from gguf_forge.format import reader
from gguf_forge.format.layout import ValueType
from gguf_forge.remote import ranges
from tests.cli.conftest import Forge
from tests.remote.server import Site, serving

pytest.importorskip("requests")

TOKENS = 150_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A header of 4 MB, most of it a vocabulary, and 6 MB of data."""
    path = tmp_path_factory.mktemp("remote") / "model.gguf"
    rng = np.random.default_rng(3)
    with gguf_forge.GGUFWriter(path) as writer:
        writer.add("general.architecture", values.string("llama"))
        writer.add("tokenizer.ggml.tokens", values.strings([f"token{i}" * (1 + i % 3) for i in range(TOKENS)]))
        writer.add("tokenizer.ggml.scores", values.array(ValueType.FLOAT32, np.arange(TOKENS, dtype=np.float32)))
        for n in range(6):
            writer.add_tensor(f"blk.{n}.ffn_up.weight", rng.normal(size=(255, 1028)).astype(np.float32))
    return path


def hashes(path: object) -> object:
    found = gguf_forge.hash_file(path, ("sha256",))  # type: ignore[arg-type]
    return found.tensors, found.whole


def header_bytes(path: Path) -> int:
    with reader.open(path) as file:
        return file.parts[0].checked.data_start


def test_a_file_behind_a_url_is_the_same_as_beside_us(site: Site, model: Path) -> None:
    site.files["/a/model.gguf"] = model.read_bytes()
    with gguf_forge.open(f"{site.address}/a/model.gguf") as there, gguf_forge.open(model) as here:
        assert dict(there.metadata)["tokenizer.ggml.tokens"] == here.metadata["tokenizer.ggml.tokens"]
        assert there.nbytes == here.nbytes
        assert list(there.tensors) == list(here.tensors)
        name = "blk.3.ffn_up.weight"
        assert np.array_equal(there.tensors[name].data, here.tensors[name].data)
        assert np.array_equal(there.tensors[name].dequantize(), here.tensors[name].dequantize())
        assert np.array_equal(there.tensors[name].read_rows(7, 30), here.tensors[name].read_rows(7, 30))
        assert str(there.path) == f"{site.address}/a/model.gguf"
    assert hashes(f"{site.address}/a/model.gguf") == hashes(model)
    assert gguf_forge.diff_files(f"{site.address}/a/model.gguf", model).same


def test_opening_fetches_the_header_and_at_most_as_much_again(site: Site, model: Path) -> None:
    site.files["/model.gguf"] = model.read_bytes()
    gguf_forge.open(f"{site.address}/model.gguf").close()
    assert header_bytes(model) <= site.sent <= 2 * header_bytes(model) + ranges.FIRST
    assert len(site.requests) <= 6


@pytest.mark.parametrize("args", [["inspect"], ["inspect", "--json"], ["check"], ["diff", "--headers"]])
def test_commands_that_need_no_data_fetch_none(site: Site, model: Path, forge: Forge, args: list[str]) -> None:
    site.files["/model.gguf"] = model.read_bytes()
    forge(*args, f"{site.address}/model.gguf", *([model] if "diff" in args else []))
    assert 0 < site.sent <= 2 * header_bytes(model) + ranges.FIRST


def test_a_hash_fetches_each_byte_once_in_few_requests(site: Site, model: Path) -> None:
    site.files["/model.gguf"] = model.read_bytes()
    hashes(f"{site.address}/model.gguf")
    assert site.sent <= 1.01 * model.stat().st_size + ranges.GAP
    assert len(site.requests) <= 10


def test_a_small_file_is_had_by_one_request(site: Site, tmp_path: Path, forge: Forge) -> None:
    with gguf_forge.GGUFWriter(tmp_path / "small.gguf") as writer:
        writer.add("general.architecture", values.string("llama"))
        writer.add_tensor("output.weight", np.ones((4, 32), np.float32))
    site.files["/small.gguf"] = (tmp_path / "small.gguf").read_bytes()
    assert forge("hash", f"{site.address}/small.gguf").code == 0
    assert len(site.requests) == 1


# Sets.


@pytest.fixture
def shards(site: Site, model: Path, tmp_path: Path) -> Site:
    gguf_forge.split_file(model, tmp_path / "m", max_tensors=3)
    for path in tmp_path.iterdir():
        site.files[f"/set/{path.name}"] = path.read_bytes()
    return site


def test_the_other_shards_are_beside_the_one_that_is_named(shards: Site, model: Path) -> None:
    assert len(shards.files) == 2
    for name in shards.files:
        assert hashes(f"{shards.address}{name}?download=true") == hashes(model)


def test_a_shard_that_is_not_there_is_named(shards: Site, forge: Forge) -> None:
    first, second = sorted(shards.files)
    del shards.files[second]
    with pytest.raises(IncompleteSetError, match="missing"):
        gguf_forge.open(shards.address + first)
    shown = forge("inspect", shards.address + first)
    assert shown.code == 0
    assert "shown alone" in shown.err
    assert [f.rule for f in gguf_forge.check(shards.address + first).findings if f.rule == "set"] == ["set"]


# Servers that know no ranges.


def test_a_header_is_read_from_a_server_without_ranges_and_the_rest_is_not_fetched(site: Site, model: Path) -> None:
    site.files["/model.gguf"] = model.read_bytes()
    site.ranges, site.declared = False, 100 << 30
    gguf_forge.open(f"{site.address}/model.gguf").close()
    assert site.sent < 40 << 20  # with what the system holds of a connection
    assert len(site.requests) == 1


def test_all_is_read_in_order_from_a_server_without_ranges(site: Site, model: Path) -> None:
    site.files["/model.gguf"] = model.read_bytes()
    site.ranges = False
    assert hashes(f"{site.address}/model.gguf") == hashes(model)
    assert len(site.requests) == 1


def test_a_server_without_ranges_is_not_asked_for_what_is_past(site: Site, model: Path) -> None:
    site.files["/model.gguf"] = model.read_bytes()
    site.ranges = False
    with gguf_forge.open(f"{site.address}/model.gguf") as file:
        last, first = list(file.tensors.values())[-1], list(file.tensors.values())[-2]
        assert last.data.size
        with pytest.raises(InputError, match="knows no ranges"):
            assert first.data.size
    assert len(site.requests) == 1


def test_a_server_that_says_no_length_is_refused(site: Site, model: Path) -> None:
    site.files["/model.gguf"] = model.read_bytes()
    site.ranges = site.length = False
    with pytest.raises(InputError, match="does not say how long"):
        gguf_forge.open(f"{site.address}/model.gguf")


# Connections that end, and answers that lie.


@pytest.mark.parametrize("cut", [ranges.PIECE + 1, 200_001, 1_000_000])
def test_a_connection_that_is_cut_goes_on_where_it_was(site: Site, model: Path, cut: int) -> None:
    site.files["/model.gguf"] = model.read_bytes()
    site.cut = cut
    assert hashes(f"{site.address}/model.gguf") == hashes(model)


def test_a_connection_that_gives_nothing_is_given_up(site: Site, model: Path) -> None:
    site.files["/model.gguf"] = model.read_bytes()
    site.cut = 0
    with pytest.raises(InputError, match="cut"):
        gguf_forge.open(f"{site.address}/model.gguf")
    assert len(site.requests) == ranges.TRIES


def test_a_connection_that_is_cut_without_ranges_is_the_end(site: Site, model: Path) -> None:
    site.files["/model.gguf"] = model.read_bytes()
    site.ranges, site.cut = False, 1_000_000
    with pytest.raises(InputError, match="no ranges to go on with"):
        gguf_forge.open(f"{site.address}/model.gguf")


def test_a_body_that_is_short_is_asked_for_again(site: Site, model: Path) -> None:
    site.files["/model.gguf"] = model.read_bytes()
    site.short = 1000
    assert hashes(f"{site.address}/model.gguf") == hashes(model)


@pytest.mark.parametrize("lie", [1, 1000])
def test_a_range_that_was_not_asked_for_is_refused(site: Site, model: Path, lie: int) -> None:
    site.files["/model.gguf"] = model.read_bytes()
    site.lie = lie
    with pytest.raises(InputError, match="the server says it sends"):
        gguf_forge.open(f"{site.address}/model.gguf")


def test_a_packed_body_is_refused(site: Site, model: Path) -> None:
    site.files["/model.gguf"] = model.read_bytes()
    site.encoding = "gzip"
    with pytest.raises(InputError, match="packed"):
        gguf_forge.open(f"{site.address}/model.gguf")


def test_an_empty_file_is_none(site: Site) -> None:
    site.files["/model.gguf"] = b""
    with pytest.raises(FormatError, match="empty file"):
        gguf_forge.open(f"{site.address}/model.gguf")


def test_a_page_is_no_model(site: Site) -> None:
    site.files["/model.gguf"] = b"<!DOCTYPE html>" + bytes(1000)
    with pytest.raises(FormatError, match="HTML page"):
        gguf_forge.open(f"{site.address}/model.gguf")


def test_nobody_listens(site: Site) -> None:
    with serving(Site()) as gone:
        pass
    with pytest.raises(InputError, match="cannot be reached"):
        gguf_forge.open(f"{gone.address}/model.gguf")


# Statuses.


@pytest.mark.parametrize(("status", "words"), [(403, "may not be read"), (404, "is not there"), (418, "refuses it")])
def test_a_refusal_is_told_at_once(site: Site, status: int, words: str) -> None:
    site.statuses = [(status, {})] * 9
    with pytest.raises(InputError, match=rf"{words} \(HTTP {status}\)"):
        gguf_forge.open(f"{site.address}/model.gguf")
    assert len(site.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(site: Site, model: Path, status: int) -> None:
    site.files["/model.gguf"] = model.read_bytes()
    site.statuses = [(status, {"Retry-After": "0"})] * (ranges.TRIES - 1)
    gguf_forge.open(f"{site.address}/model.gguf").close()
    site.statuses = [(status, {})] * 99
    with pytest.raises(InputError, match=f"HTTP {status}"):
        gguf_forge.open(f"{site.address}/model.gguf")


def test_nobody_waits_for_an_hour(site: Site) -> None:
    site.statuses = [(429, {"Retry-After": "3600"})] * 9
    with pytest.raises(InputError, match="fewer requests"):
        gguf_forge.open(f"{site.address}/model.gguf")
    assert len(site.requests) == 1


# Another version.


@pytest.mark.parametrize("etag", ["strong", "weak"])
def test_two_versions_are_never_mixed(site: Site, model: Path, etag: str) -> None:
    data = bytearray(model.read_bytes())
    site.etag, site.files["/model.gguf"] = etag, bytes(data)
    with gguf_forge.open(f"{site.address}/model.gguf") as file:
        data[-5] ^= 1
        site.files["/model.gguf"] = bytes(data)
        with pytest.raises(ChangedInputError, match="changed on the server"):
            assert list(file.tensors.values())[-1].data.size
    assert ("If-Range" in site.requests[-1][1]) == (etag == "strong")


def test_another_size_is_another_version(site: Site, model: Path) -> None:
    site.etag, site.files["/model.gguf"] = None, model.read_bytes()
    with gguf_forge.open(f"{site.address}/model.gguf") as file:
        site.files["/model.gguf"] += bytes(32)
        with pytest.raises(ChangedInputError):
            assert list(file.tensors.values())[-1].data.size


def test_a_file_that_goes_meanwhile(site: Site, model: Path) -> None:
    site.files["/model.gguf"] = model.read_bytes()
    with gguf_forge.open(f"{site.address}/model.gguf") as file:
        del site.files["/model.gguf"]
        with pytest.raises(InputError, match="not there"):
            assert list(file.tensors.values())[-1].data.size
    with pytest.raises(InputError, match="closed"):
        assert next(iter(file.tensors.values())).data.size


# Untrusted headers.


def test_a_header_that_goes_on_and_on_is_not_fetched(site: Site) -> None:
    count = 1 << 36
    head = b"GGUF" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    head += (1).to_bytes(8, "little") + b"a" + (9).to_bytes(4, "little") + (0).to_bytes(4, "little")
    site.files["/model.gguf"] = head + count.to_bytes(8, "little") + bytes(1 << 16)
    site.declared = 1 << 40
    with pytest.raises(LimitError, match="goes on to byte"):
        gguf_forge.open(f"{site.address}/model.gguf")
    assert site.sent < 8 << 20
    site.declared = 0
    with pytest.raises(TruncatedError):
        gguf_forge.open(f"{site.address}/model.gguf")


@pytest.mark.parametrize("cut", [4, 23, 1000, 600_000, 3_000_000])
def test_a_cut_file_is_refused_as_beside_us(site: Site, model: Path, tmp_path: Path, cut: int) -> None:
    part = tmp_path / "model.gguf"
    part.write_bytes(model.read_bytes()[:cut])
    site.files["/model.gguf"] = part.read_bytes()
    said = []
    for path in (str(part), f"{site.address}/model.gguf"):
        with pytest.raises(ForgeError) as caught:
            gguf_forge.open(path)
        said.append((type(caught.value), caught.value.offset, caught.value.text))
    assert said[0] == said[1]


# Redirects, logins, and what is not told.


def test_a_login_is_the_library_s_and_goes_no_further(site: Site, model: Path, forge: Forge) -> None:
    with serving(Site()) as elsewhere:
        elsewhere.files["/blob"] = model.read_bytes()
        site.redirects["/model.gguf"] = elsewhere.address.replace("127.0.0.1", "localhost") + "/blob?Signature=hidden"
        url = site.address.replace("//", "//user:secret@") + "/model.gguf?key=hidden"
        shown = forge("inspect", url)
        assert shown.code == 0
        assert "***@127.0.0.1" in shown.out
        asked = site.requests[0]
        assert asked[0].endswith("?key=hidden")
        assert asked[1]["Authorization"] == "Basic " + base64.b64encode(b"user:secret").decode()
        assert all("Authorization" not in headers for _, headers in elsewhere.requests)
        elsewhere.files.clear()
        refused = forge("inspect", url)
        assert refused.code == 1
        for run in (shown, refused):
            assert "secret" not in run.out + run.err
            assert "hidden" not in run.out + run.err


@pytest.mark.parametrize("target", ["/model.gguf", "ftp://127.0.0.1/x?hidden", "http://[hidden/", "file:///etc/hidden"])
def test_a_redirect_to_nowhere(site: Site, target: str) -> None:
    site.redirects["/model.gguf"] = target
    with pytest.raises(InputError, match="redirects") as caught:
        gguf_forge.open(f"{site.address}/model.gguf?hidden")
    assert "hidden" not in str(caught.value)


def test_a_file_that_needs_a_login(site: Site, model: Path, forge: Forge) -> None:
    site.files["/model.gguf"] = model.read_bytes()
    site.requires = "Basic " + base64.b64encode(b"user:secret").decode()
    refused = forge("check", f"{site.address}/model.gguf")
    assert refused.code == 3
    assert "needs a login (HTTP 401)" in refused.out
    wrong = forge("hash", site.address.replace("//", "//user:wrong@") + "/model.gguf")
    assert wrong.code == 1
    assert "wrong" not in wrong.err
    assert forge("hash", site.address.replace("//", "//user:secret@") + "/model.gguf").code == 0


# The Hub.

COMMIT = sha256(b"x").hexdigest()[:40]


def hub(site: Site, *args: object, token: str = "hf_hidden") -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, to which the site is the Hub."""
    pytest.importorskip("huggingface_hub")
    env = {**os.environ, "HF_ENDPOINT": site.address, "HF_TOKEN": token, "NO_PROXY": "*"}
    code = "import sys; from gguf_forge.cli import main; sys.exit(main())"
    words = sys.executable, "-c", code, *map(str, args)
    return subprocess.run(words, env=env, capture_output=True, text=True, check=False)


def test_a_file_of_the_hub_is_had_with_the_library_s_token_at_one_commit(shards: Site) -> None:
    with serving(Site()) as store:
        store.files = {name.replace("/set/", "/"): data for name, data in shards.files.items()}
        for name in store.files:
            for revision in ("v1", COMMIT):
                shards.redirects[f"/me/model/resolve/{revision}/q4{name}"] = (
                    store.address.replace("127.0.0.1", "localhost") + name
                )
        shards.forwarded = {"X-Repo-Commit": COMMIT}
        first = sorted(store.files)[0]
        done = hub(shards, "hash", "--json", f"hf://me/model@v1/q4{first}")
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["tensors"]) == 6
        assert json.loads(done.stdout)["path"] == f"hf://me/model@v1/q4{first}"
        assert [path.split("/")[4] for path, _ in shards.requests].count("v1") == 1
        assert all(h["Authorization"] == "Bearer hf_hidden" for _, h in shards.requests)
        assert all("Authorization" not in h for _, h in store.requests)
        assert "hf_hidden" not in done.stdout + done.stderr


def test_a_file_of_the_hub_that_may_not_be_read(site: Site) -> None:
    site.requires = "Bearer other"
    done = hub(site, "inspect", "hf://me/gated/model.gguf")
    assert done.returncode == 1
    assert "HTTP 401" in done.stderr
    assert "HF_TOKEN" in done.stderr
    assert "hf_hidden" not in done.stderr
    assert site.requests[0][0] == "/me/gated/resolve/main/model.gguf"


# Without the extra.


@pytest.mark.parametrize(
    ("package", "url"), [("requests", "http://127.0.0.1:9/x"), ("huggingface_hub", "hf://a/b/c.gguf")]
)
def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch, package: str, url: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnsupportedError, match=rf"{package} package: pip install 'gguf-forge\[remote\]'"):
        gguf_forge.open(url)


def test_commands_that_read_no_urls_say_which_do(forge: Forge) -> None:
    refused = forge("split", "https://127.0.0.1/x.gguf", "-o", "y")
    assert refused.code == 2
    assert "inspect, check, diff and hash" in refused.err
