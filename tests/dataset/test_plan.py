import contextlib
import dataclasses
import random
import uuid
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proxyclip.dataset import plan as module
from proxyclip.dataset.layout import plan_key
from proxyclip.dataset.plan import Plan, PlanRow, PlanSummary, ShardRange, waves
from proxyclip.images.listing import ImageRef
from proxyclip.storage.store import Storage


@pytest.fixture
def plan(tmp_path):
    return Plan(Storage(str(tmp_path / "out")))


def refs(count, size_bytes=10, start=0, etag="1"):
    return [ImageRef(f"{number:05d}.jpg", size_bytes, etag) for number in range(start, start + count)]


def extend(plan, listing, shard_size=4, max_shard_bytes=1000):
    return plan.extend(listing, shard_size, max_shard_bytes)


def planned(plan):
    return {
        shard: [ref.uri for ref in images]
        for part in plan.parts()
        for shard, images in plan.images(part.part, part.shards).items()
    }


def live(plan):
    """What counts in the end: shard by uri."""
    newest = (rows[-1] for rows in plan.histories(plan.parts()))
    return {row.uri: row.shard for row in newest if row.shard is not None}


def files(plan):
    return {entry.key: plan.storage.read(entry.key) for entry in plan.storage.list("plan")}


def test_shards_are_cut_by_count_and_by_bytes(plan):
    images = [*refs(5), ImageRef("00005.jpg", 100, ""), ImageRef("00006.jpg", 25, ""), ImageRef("00007.jpg", 6, "")]
    summary = extend(plan, images, shard_size=4, max_shard_bytes=30)
    assert [len(uris) for uris in planned(plan).values()] == [3, 2, 1, 1, 1]
    assert summary == PlanSummary(images=8, shards=5, new_shards=5, new=8, changed=0, removed=0)


def test_the_plan_depends_on_the_listing_alone(tmp_path):
    one, two = Plan(Storage(str(tmp_path / "1"))), Plan(Storage(str(tmp_path / "2")))
    extend(one, refs(10))
    extend(two, refs(10)[::-1])
    assert files(one) == files(two) != {}


def test_planning_again_adds_new_images_behind_and_moves_none(plan):
    extend(plan, refs(10, start=5))
    before = planned(plan)
    assert extend(plan, refs(10, start=5)) == PlanSummary(10, 3, 0, 0, 0, 0)
    assert extend(plan, refs(15)) == PlanSummary(15, 5, 2, 5, 0, 0)
    after = planned(plan)
    assert {shard: after[shard] for shard in before} == before
    assert sorted(after) == [0, 1, 2, 3, 4]
    assert after[3] == ["00000.jpg", "00001.jpg", "00002.jpg", "00003.jpg"]
    assert plan.dead() == {}


def test_what_changed_is_planned_again_and_its_old_row_is_dead(plan):
    extend(plan, refs(6))
    changed = [ImageRef("00001.jpg", 10, "2"), ImageRef("00005.jpg", 11, "1")]
    listing = [*[ref for ref in refs(6) if ref.uri not in {image.uri for image in changed}], *changed]
    assert extend(plan, listing) == PlanSummary(images=6, shards=3, new_shards=1, new=0, changed=2, removed=0)
    assert planned(plan)[2] == ["00001.jpg", "00005.jpg"]
    assert plan.dead() == {0: {"00001.jpg"}, 1: {"00005.jpg"}}
    assert extend(plan, listing).new_shards == 0
    extend(plan, [dataclasses.replace(ref, etag="3") if ref.uri == "00001.jpg" else ref for ref in listing])
    assert plan.dead() == {0: {"00001.jpg"}, 1: {"00005.jpg"}, 2: {"00001.jpg"}}
    assert live(plan)["00001.jpg"] == 3


def test_what_is_gone_is_dead_and_planned_again_when_it_returns(plan):
    extend(plan, refs(6))
    assert extend(plan, refs(4)) == PlanSummary(images=4, shards=2, new_shards=0, new=0, changed=0, removed=2)
    assert plan.dead() == {1: {"00004.jpg", "00005.jpg"}}
    assert extend(plan, refs(4)).removed == 0
    assert extend(plan, refs(5)) == PlanSummary(images=5, shards=3, new_shards=1, new=1, changed=0, removed=0)
    assert plan.dead() == {1: {"00004.jpg", "00005.jpg"}}
    assert live(plan) == {"00000.jpg": 0, "00001.jpg": 0, "00002.jpg": 0, "00003.jpg": 0, "00004.jpg": 2}
    assert sum(part.num_images - part.num_superseded for part in plan.parts()) == 5


def test_dead_rows_are_told_from_the_foot_of_a_part(plan, monkeypatch):
    extend(plan, refs(10))
    extend(plan, refs(9))
    read = []
    monkeypatch.setattr(Storage, "read", lambda self, key, real=Storage.read: read.append(key) or real(self, key))
    assert plan.dead() == {2: {"00009.jpg"}}
    assert read == [plan_key(1)]


def test_a_large_plan_has_several_parts(plan, monkeypatch):
    monkeypatch.setattr(module, "SHARDS_PER_PART", 4)
    extend(plan, refs(10), 1)
    assert [(part.part, part.first_shard, part.num_shards, part.num_images) for part in plan.parts()] == [
        (0, 0, 4, 4),
        (1, 4, 4, 4),
        (2, 8, 2, 2),
    ]
    assert [images[0].uri for images in plan.images(1, [5, 7]).values()] == ["00005.jpg", "00007.jpg"]
    with pytest.raises(KeyError, match="no shard 8"):
        plan.images(1, [8])


def _history(number):
    """A corpus through the years: it grows in the middle, loses some, changes some."""
    images = [ref for ref in refs(60) if (int(ref.uri[:5]) * 7 + number) % 5]
    return [dataclasses.replace(ref, etag="2") if int(ref.uri[:5]) % 11 < number else ref for ref in images]


@pytest.mark.parametrize("after", range(1, 6))
def test_planning_that_was_killed_between_two_parts_ends_in_the_same_bytes(tmp_path, monkeypatch, after):
    monkeypatch.setattr(module, "SHARDS_PER_PART", 3)
    monkeypatch.setattr(module, "REMOVED_PER_PART", 2)
    plain, killed = Plan(Storage(str(tmp_path / "plain"))), Plan(Storage(str(tmp_path / "killed")))
    create, calls = Storage.create, []

    def dies(self, key, data):
        calls.append(key)
        if len(calls) > after:
            raise KeyboardInterrupt
        return create(self, key, data)

    for number in range(4):
        extend(plain, _history(number), 3)
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Storage, "create", dies)
            with contextlib.suppress(KeyboardInterrupt):  # the last parts may fit
                extend(killed, _history(number), 3)
        extend(killed, _history(number), 3)
        assert files(killed) == files(plain)
    assert set(live(plain)) == {ref.uri for ref in _history(3)}


def test_each_image_has_one_row_that_lives_whatever_happened(plan, monkeypatch):
    monkeypatch.setattr(module, "SHARDS_PER_PART", 3)
    monkeypatch.setattr(module, "REMOVED_PER_PART", 2)
    for number in (0, 3, 1, 0, 2):
        extend(plan, _history(number), 3)
        dead = plan.dead()
        left = [uri for shard, uris in planned(plan).items() for uri in uris if uri not in dead.get(shard, ())]
        assert sorted(left) == sorted(live(plan)) == [ref.uri for ref in _history(number)]


def cut_by_the_first_version(changes, shard, shard_size, max_shard_bytes):
    """The rows of the plan's parts, as the code of the first outputs cut them."""
    rows = []
    shards = removed = images = size_bytes = 0
    for uri, image, replaces in changes:
        full = images in (0, shard_size) or (image is not None and size_bytes + image.size_bytes > max_shard_bytes)
        if removed == module.REMOVED_PER_PART if image is None else full and shards == module.SHARDS_PER_PART:
            yield rows
            shard += shards
            rows, shards, removed, images, full = [], 0, 0, 0, True
        if image is None:
            rows.append(PlanRow(uri, None, 0, "", replaces))
            removed += 1
            continue
        if full:
            shards, images, size_bytes = shards + 1, 0, 0
        rows.append(PlanRow(uri, shard + shards - 1, image.size_bytes, image.etag, replaces))
        images, size_bytes = images + 1, size_bytes + image.size_bytes
    if rows:
        yield rows


def changes_between(listing, rows):
    """What is new, changed or removed in a listing, against the newest row of each image."""
    listed = {image.uri: image for image in listing}
    for uri in sorted(listed.keys() | rows.keys()):
        image, row = listed.get(uri), rows.get(uri)
        old = None if row is None or row.shard is None else row
        if image is None and old is not None:
            yield uri, None, old.shard
        elif image is not None and (old is None or (old.size_bytes, old.etag) != (image.size_bytes, image.etag)):
            yield uri, image, old and old.shard


@pytest.mark.parametrize("seed", range(40))
def test_a_plan_is_cut_as_the_first_version_cut_it(plan, monkeypatch, seed):
    rng = random.Random(seed)
    monkeypatch.setattr(module, "SHARDS_PER_PART", rng.randint(1, 4))
    monkeypatch.setattr(module, "REMOVED_PER_PART", rng.randint(1, 4))
    shard_size, max_shard_bytes = rng.randint(1, 5), rng.randint(5, 60)
    newest = {}
    for _ in range(5):
        uris = rng.sample(range(60), rng.randint(0, 60))
        listing = [ImageRef(f"{uri:05d}.jpg", rng.randint(0, 30), rng.choice("ab")) for uri in uris]
        before = plan.parts()
        first_shard = before[-1].shards.stop if before else 0
        expected = list(
            cut_by_the_first_version(changes_between(listing, newest), first_shard, shard_size, max_shard_bytes)
        )
        extend(plan, listing, shard_size, max_shard_bytes)
        found = []
        for part in plan.parts()[len(before) :]:
            table = pq.read_table(pa.BufferReader(plan.storage.read(plan_key(part.part))))
            found.append([PlanRow(**row) for row in table.to_pylist()])
            shards = {row.shard for row in found[-1]} - {None}
            assert list(part.shards) == sorted(shards)
            assert part.num_images == sum(row.shard is not None for row in found[-1])
            assert part.num_superseded == sum(row.replaces is not None for row in found[-1])
            assert (part.first_uri, part.last_uri) == (found[-1][0].uri, found[-1][-1].uri)
        assert found == expected
        newest |= {row.uri: row for rows in found for row in rows}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9, 10])
def test_waves_hold_all_shards_in_order_and_no_more_than_they_may(size):
    ranges = [ShardRange(0, (0, 1, 2, 3)), ShardRange(1, (4,)), ShardRange(3, (12, 13, 15, 16))]
    found = list(waves(ranges, size))
    assert [(part.part, shard) for wave in found for part in wave for shard in part.shards] == [
        (part.part, shard) for part in ranges for shard in part.shards
    ]
    sizes = [sum(part.num_shards for part in wave) for wave in found]
    assert sizes[:-1] == [size] * (len(sizes) - 1)
    assert 0 < sizes[-1] <= size


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_of_runs_planning_at_once_each_image_is_planned_once(kind, plan, monkeypatch, request):
    monkeypatch.setattr(module, "SHARDS_PER_PART", 2)
    if kind == "s3":
        plan = Plan(Storage(request.getfixturevalue("s3").uri(f"bucket/{uuid.uuid4().hex}")))
    with ThreadPoolExecutor(3) as pool:
        summaries = list(pool.map(lambda _: extend(Plan(plan.storage), refs(24), 3), range(3)))
    new = sum(summary.new for summary in summaries)  # on S3 equal bytes are anybody's own
    assert new == 24 if kind == "disk" else 24 <= new <= 72
    shards = planned(plan)
    assert sorted(shards) == list(range(8))
    assert sorted(uri for uris in shards.values() for uri in uris) == [ref.uri for ref in refs(24)]


def test_a_part_that_was_lost_is_named(plan):
    extend(plan, refs(1))
    plan.storage.write("plan/00002.parquet", plan.storage.read("plan/00000.parquet"))
    plan.storage.write("plan/notes.txt", b"not ours")
    with pytest.raises(FileNotFoundError, match=r"plan/00001.parquet"):
        plan.parts()
