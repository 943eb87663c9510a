"""Weights by address and in bundles: fetched, checked, and complete without any name or network."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from pathlib import Path

import pytest
from hub_server import LFS_BYTES, hub_server
from huggingface_hub import constants

from proxyclip.config import ModelConfig
from proxyclip.recipes.bundle.fetch import fetch_bundle
from proxyclip.recipes.bundle.manifest import MANIFEST, read_manifest
from proxyclip.recipes.weights import WeightsDiffer, check_hashes, weight_files, weight_hashes
from proxyclip.storage import cache
from proxyclip.storage.store import Storage

CLIP = "timm/vit_base_patch16_clip_224.openai/open_clip_model.safetensors"
PROXY = "timm/vit_base_patch8_224.dino/model.safetensors"
CLIP_BYTES, PROXY_BYTES = b"clip" * LFS_BYTES, b"small proxy"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Files in the true repositories; they need not be networks."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, data in ((CLIP, CLIP_BYTES), (PROXY, PROXY_BYTES)):
        path = tmp_path / "hub" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    with hub_server(tmp_path / "hub", tmp_path / "hf") as running:
        yield running


@pytest.fixture
def store():
    return Storage(f"memory://{uuid.uuid4().hex}/weights")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_downloads_follow_the_hub_to_its_store_and_happen_once(hub):
    files = weight_files(ModelConfig())
    assert files["clip"].read_bytes() == CLIP_BYTES
    assert files["proxy"].read_bytes() == PROXY_BYTES
    assert sorted(hub.downloads()) == [CLIP, PROXY]
    assert weight_files(ModelConfig()) == files
    assert sorted(hub.downloads()) == [CLIP, PROXY]


def test_a_repository_that_was_renamed_is_followed(hub):
    new = hub.folder / "timm" / "renamed"
    (hub.folder / PROXY).parent.rename(new)
    hub.renamed["timm/vit_base_patch8_224.dino"] = "timm/renamed"
    assert weight_files(ModelConfig(), ["proxy"])["proxy"].read_bytes() == PROXY_BYTES


def test_a_bundle_holds_all_with_hashes_and_licences(hub, store):
    fetch_bundle(ModelConfig(), store.uri)
    assert {entry.key for entry in store.list()} == {
        MANIFEST,
        "clip/ViT-B-16-quickgelu.openai.safetensors",
        "proxy/dino-b8.safetensors",
    }
    clip, proxy = read_manifest(store.uri)
    assert (clip.sha256, clip.size_bytes, clip.licence) == (sha256(CLIP_BYTES), len(CLIP_BYTES), "MIT")
    assert (proxy.sha256, proxy.licence, proxy.source) == (
        sha256(PROXY_BYTES),
        "Apache-2.0",
        "timm/vit_base_patch8_224.dino",
    )


def test_a_bundle_takes_the_place_of_the_hub(hub, store, monkeypatch):
    by_name = weight_hashes(ModelConfig())
    fetch_bundle(ModelConfig(), store.uri)
    asked = len(hub.seen)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nowhere")
    config = ModelConfig(weights=store.uri)
    assert weight_hashes(config) == by_name
    assert not cache.cache_folder().exists()  # the manifest knows the hashes
    checked = check_hashes(config, by_name)
    assert Path(str(checked.clip_weights)).read_bytes() == CLIP_BYTES
    assert Path(str(checked.proxy_weights)).read_bytes() == PROXY_BYTES
    assert len(hub.seen) == asked


def test_a_bundle_on_a_disk_is_used_where_it_lies(hub, tmp_path):
    fetch_bundle(ModelConfig(), str(tmp_path / "bundle"))
    config = ModelConfig(weights=str(tmp_path / "bundle"))
    hashes = weight_hashes(config)
    assert weight_files(config)["proxy"] == tmp_path / "bundle" / "proxy" / "dino-b8.safetensors"
    weight_files(config)["proxy"].write_bytes(b"other")
    with pytest.raises(WeightsDiffer, match="manifest"):
        weight_hashes(config)
    with pytest.raises(WeightsDiffer, match=hashes["proxy"]):
        check_hashes(config, hashes)


def test_a_bundle_grows_and_what_is_there_is_not_sent_again(hub, store, tmp_path):
    fetch_bundle(ModelConfig(), store.uri)
    before = {entry.key: entry for entry in store.list()}
    (tmp_path / "other.safetensors").write_bytes(b"other")
    other = ModelConfig(proxy="dino-s16", proxy_weights=str(tmp_path / "other.safetensors"))
    fetch_bundle(other, store.uri)
    assert [file.model for file in read_manifest(store.uri)] == ["ViT-B-16-quickgelu", "dino-b8", "dino-s16"]
    after = {entry.key: entry for entry in store.list()}
    assert {key: after[key] for key in before if key != MANIFEST} == {
        key: entry for key, entry in before.items() if key != MANIFEST
    }
    assert weight_hashes(ModelConfig(proxy="dino-s16", weights=store.uri))["proxy"] == sha256(b"other")


def test_what_a_bundle_lacks_is_told_with_what_it_holds(hub, store):
    with pytest.raises(FileNotFoundError, match="fetch-weights PRESET DEST"):
        weight_files(ModelConfig(weights=store.uri))
    fetch_bundle(ModelConfig(), store.uri)
    with pytest.raises(FileNotFoundError, match=r"no weights of proxy dino-s16; it has: dino-b8"):
        weight_files(ModelConfig(proxy="dino-s16", weights=store.uri))
    store.delete("proxy/dino-b8.safetensors")
    with pytest.raises(FileNotFoundError, match=r"proxy weights does not exist: memory://.*dino-b8"):
        weight_hashes(ModelConfig(weights=store.uri))
    store.write(MANIFEST, json.dumps({"version": 2, "files": []}).encode())
    with pytest.raises(ValueError, match="version is 2"):
        weight_hashes(ModelConfig(weights=store.uri))


def test_networks_in_folders_need_no_bundle(store):
    with pytest.raises(ValueError, match="nothing to fetch"):
        fetch_bundle(ModelConfig(clip="local-dir:here", proxy=None, clip_weights=__file__), store.uri)


@pytest.fixture
def addressed(hub, store):
    """Weights at addresses of their own."""
    store.write("a.safetensors", CLIP_BYTES)
    store.write("b.pth", PROXY_BYTES)
    return ModelConfig(clip_weights=f"{store.uri}/a.safetensors", proxy_weights=f"{store.uri}/b.pth")


def test_weights_by_address_are_those_of_the_file(addressed):
    hashes = weight_hashes(addressed)
    assert hashes == {"clip": sha256(CLIP_BYTES), "proxy": sha256(PROXY_BYTES)}
    checked = check_hashes(addressed, hashes)
    assert checked.proxy_weights == str(cache.cache_folder() / f"{hashes['proxy']}.pth")


def test_a_machine_that_would_fetch_another_file_is_refused(addressed, store, tmp_path, monkeypatch):
    hashes = weight_hashes(addressed)
    store.write("b.pth", b"replaced")
    check_hashes(addressed, hashes)  # this machine has the file of the run
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache of another machine"))
    with pytest.raises(WeightsDiffer, match=sha256(b"replaced")):
        check_hashes(addressed, hashes)


def test_a_broken_copy_is_fetched_again(addressed):
    hashes = weight_hashes(addressed)
    copy = weight_files(addressed)["clip"]
    copy.write_bytes(CLIP_BYTES[:-1])
    assert Path(str(check_hashes(addressed, hashes).clip_weights)).read_bytes() == CLIP_BYTES


def test_a_file_that_is_missing_is_told_with_its_part(addressed, store):
    with pytest.raises(FileNotFoundError, match=r"proxy weights does not exist: memory://.*/c\.pth"):
        weight_hashes(dataclasses.replace(addressed, proxy_weights=f"{store.uri}/c.pth"))
