"""Inputs that are Parquet files with image bytes, on disk and in a real S3 server."""

import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proxyclip.images.errors import ImageError
from proxyclip.images.inputs import rows
from proxyclip.images.inputs.images import fetch_image, open_images
from proxyclip.images.listing import list_images
from proxyclip.storage.store import StorageError


def image(number):
    return f"image {number} ".encode() * (number % 7 + 1)


def hugging_face(numbers, *, groups=10, **others):
    """As `datasets` writes it: a struct of bytes and path."""
    images = [{"bytes": image(number), "path": f"{number}.jpg"} for number in numbers]
    return to_bytes(pa.table({"image": images, "label": [0] * len(images), **others}), groups)


def to_bytes(table, groups=10):
    pq.write_table(table, buffer := io.BytesIO(), row_group_size=groups)
    return buffer.getvalue()


def fetched(address):
    """What a read task gets: bytes, or the reason why there are none, by uri."""
    refs = list(list_images(address))
    with ThreadPoolExecutor(4) as pool:
        found = open_images(address).fetch(pool, refs)
    return {
        ref.uri: each.reason if isinstance(each, ImageError) else each for ref, each in zip(refs, found, strict=True)
    }


def test_rows_are_named_by_file_and_number(place):
    place.write("data/part-0.parquet", hugging_face(range(25)))
    place.write("data/part-1.parquet", hugging_face(range(25, 30)))
    found = fetched(place.uri)
    assert list(found) == [
        *(f"data/part-0.parquet#{row:08d}" for row in range(25)),
        *(f"data/part-1.parquet#{row:08d}" for row in range(5)),
    ]
    assert list(found.values()) == [image(number) for number in range(30)]
    images = open_images(place.uri)
    assert fetch_image(images, "data/part-1.parquet#00000003") == image(28)
    assert fetch_image(pickle.loads(pickle.dumps(images)), "data/part-1.parquet#3") == image(28)
    assert images.exists("data/part-1.parquet#00000003")


def test_sizes_are_about_those_of_the_images(place):
    place.write("x.parquet", to_bytes(pa.table({"image": [bytes(1000)] * 3 + [bytes(range(256)) * 400] * 3}), 3))
    sizes = [ref.size_bytes for ref in list_images(f"{place.uri}/x.parquet")]
    assert sizes[:3] == sizes[:1] * 3
    assert sizes[0] < 2000
    assert sizes[3] > 20_000  # the three are equal, and Parquet stores one


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.struct([("bytes", pa.binary())])])
def test_a_column_of_bytes_is_chosen_by_name(place, kind):
    values = [{"bytes": image(number)} if pa.types.is_struct(kind) else image(number) for number in range(5)]
    place.write("x.parquet", to_bytes(pa.table({"uri": ["u"] * 5, "jpg": pa.array(values, kind)})))
    found = fetched(f"{place.uri}/x.parquet;image-column=jpg")
    assert list(found.values()) == [image(number) for number in range(5)]
    assert [ref.uri for ref in list_images(f"{place.uri}/x.parquet")] == ["u"]


def test_a_column_of_keys_names_the_rows_wherever_they_are(place):
    keys = [f"cat/{number}.jpg" for number in range(25)]
    place.write("x.parquet", hugging_face(range(25), key=keys))
    address = f"{place.uri}/x.parquet;key-column=key"
    assert fetched(address) == {f"x.parquet#{key}": image(number) for number, key in enumerate(keys)}
    before = {ref.uri: ref.etag for ref in list_images(address)}
    place.write("x.parquet", hugging_face(range(24, -1, -1), key=keys[::-1]))
    assert fetched(address) == {f"x.parquet#{key}": image(number) for number, key in enumerate(keys)}
    assert all(before[ref.uri] != ref.etag for ref in list_images(address))


def test_a_key_that_leads_out_of_a_folder_fails_alone(place):
    place.write("x.parquet", hugging_face(range(3), key=["../up.jpg", "b/../c", "d..e"]))
    found = fetched(f"{place.uri}/x.parquet;key-column=key")
    leads_out = "a name that leads out of the input"
    assert found == {"x.parquet#../up.jpg": image(0), "x.parquet#b/../c": leads_out, "x.parquet#d..e": image(2)}


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "x.parquet;image-column=jpg",
            r"x\.parquet: it has no column 'jpg'; --image-column .*: image, label, key, same",
        ),
        ("x.parquet;image-column=label", r"column 'label' has type int64; an image is binary"),
        ("x.parquet;key-column=name", r"it has no column 'name'; --key-column"),
        ("x.parquet;key-column=same", r"rows 0 and 1 have the same key 's'; choose another column"),
        ("x.parquet;key-column=key", r"row 2 has no key in column 'key'"),
    ],
)
def test_columns_that_cannot_be_meant_are_refused(place, address, message):
    place.write("x.parquet", hugging_face(range(3), key=["a", "b", None], same=["s", "s", "t"]))
    with pytest.raises(ValueError, match=message):
        list_images(f"{place.uri}/{address}")


def test_a_file_that_is_cut_off_is_one_failure_and_the_others_are_read(place):
    data = hugging_face(range(20))
    place.write("a.parquet", data)
    place.write("b.parquet", data[: len(data) // 2])
    place.write("c.parquet", data)
    found = fetched(place.uri)
    assert len(found) == 41
    assert found["b.parquet#"].startswith("the Parquet file b.parquet cannot be read (")
    assert found["a.parquet#00000019"] == found["c.parquet#00000019"] == image(19)
    place.write("b.parquet", data)
    assert len(fetched(place.uri)) == 60


def test_a_damaged_row_group_costs_its_rows_only(place):
    data = bytearray(hugging_face(range(30)))
    start = pq.ParquetFile(pa.BufferReader(bytes(data))).metadata.row_group(1).column(0).data_page_offset
    data[start : start + 40] = bytes(40)
    place.write("x.parquet", bytes(data))
    found = list(fetched(place.uri).values())
    assert found[:10] + found[20:] == [image(number) for number in [*range(10), *range(20, 30)]]
    assert all(
        each.startswith(f"row {number + 10} of x.parquet: its row group 1 is dam")
        for number, each in enumerate(found[10:20])
    )


def test_rows_without_bytes_and_rows_that_are_gone_say_so(place):
    place.write("x.parquet", to_bytes(pa.table({"image": [image(0), None]})))
    refs = list(list_images(place.uri))
    assert fetched(place.uri) == {refs[0].uri: image(0), refs[1].uri: "row 1 of x.parquet has no bytes"}
    images = open_images(place.uri)
    for uri, reason in (
        ("x.parquet#2", "no row 2"),
        ("x.parquet#two", "no row two"),
        ("y.parquet#0", "no such file"),
    ):
        with pytest.raises(ImageError, match=reason):
            fetch_image(images, uri)
    assert not images.exists("y.parquet#0")


def test_a_row_group_is_read_in_pieces_and_only_as_far_as_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "_ROWS_AT_ONCE", 4)
    path = tmp_path / "x.parquet"
    path.write_bytes(to_bytes(pa.table({"image": [image(number) for number in range(100)]}), 100))
    seen = []
    real = pq.ParquetFile.iter_batches

    def counted(self, *args, **options):
        for batch in real(self, *args, **options):
            seen.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    assert fetch_image(open_images(str(path)), "x.parquet#9") == image(9)
    assert seen == [4, 4, 4]


def test_a_store_that_fails_is_not_blamed_on_the_rows(place, monkeypatch):
    place.write("x.parquet", hugging_face(range(3)))
    images = open_images(place.uri)
    refs = list(list_images(place.uri))

    def fails(*args):
        raise StorageError("down")

    with ThreadPoolExecutor(2) as pool:
        images.fetch(pool, refs)  # the footer is known
        monkeypatch.setattr(type(place), "open", fails)
        with pytest.raises(StorageError, match="down"):
            images.fetch(pool, refs)


def test_files_that_may_not_be_read_fail_for_that_reason(place, monkeypatch):
    place.write("x.parquet", hugging_face(range(3)))
    refs = list(list_images(place.uri))

    def fails(*args):
        raise PermissionError(13, "access denied")

    monkeypatch.setattr(type(place), "open", fails)
    with ThreadPoolExecutor(2) as pool:
        assert {each.reason for each in open_images(place.uri).fetch(pool, refs)} == {"access denied"}
