"""S3 Inventory, laid out and named as AWS documents it, on disk and in a real S3 server."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

from proxyclip.images.listing import list_images
from proxyclip.images.ref import ImageRef

FOLDER = "photos/every-day"
MANIFEST = f"{FOLDER}/2026-11-26T01-00Z/manifest.json"

# Key, version, is latest, is delete marker, size, etag
OBJECTS = [
    ("b c+d.jpg", "v1", True, False, 10, "aa"),
    ("a/\u5716.PNG", "v1", True, False, 2**40, "bb-2"),
    ("a/old.jpg", "v1", False, False, 7, "cc"),
    ("a/old.jpg", "v2", True, True, None, None),
    ("a/notes.txt", "v1", True, False, 5, "dd"),
    ("a/.hidden.jpg", "v1", True, False, 5, "ee"),
    ("folder/", "v1", True, False, 0, "ff"),
]
WANTED = [ImageRef("s3://photos/a/\u5716.PNG", 2**40, "bb-2"), ImageRef("s3://photos/b c+d.jpg", 10, "aa")]
CSV_SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, ETag, StorageClass"


def as_csv(objects):
    from urllib.parse import quote_plus

    lines = []
    for key, version, latest, deleted, size, etag in objects:
        values = ["photos", quote_plus(key, safe="/"), version, str(latest).lower(), str(deleted).lower()]
        values += ["" if size is None else str(size), etag or "", "STANDARD"]
        lines.append(",".join(f'"{value}"' for value in values))
    return gzip.compress("\n".join(lines).encode())


def as_table(objects):
    key, version, latest, deleted, size, etag = map(list, zip(*objects, strict=True))
    columns = {"bucket": ["photos"] * len(key), "key": key, "version_id": version, "is_latest": latest}
    columns |= {"is_delete_marker": deleted, "size": pa.array(size, pa.int64()), "e_tag": etag}
    return pa.table(columns)


def as_parquet(objects):
    pq.write_table(as_table(objects), buffer := io.BytesIO())
    return buffer.getvalue()


def as_orc(objects):
    orc.write_table(as_table(objects), buffer := io.BytesIO())
    return buffer.getvalue()


FORMS = {"CSV": ("csv.gz", as_csv), "Parquet": ("parquet", as_parquet), "ORC": ("orc", as_orc)}


def write(place, form, *, schema=CSV_SCHEMA):
    ending, encode = FORMS[form]
    files = []
    for number, objects in enumerate((OBJECTS[:3], OBJECTS[3:])):
        place.write(f"{FOLDER}/data/{number}.{ending}", encode(objects))
        files.append({"key": f"lists/{FOLDER}/data/{number}.{ending}", "size": 1, "MD5checksum": "x"})
    manifest = {"sourceBucket": "photos", "destinationBucket": "arn:aws:s3:::lists", "version": "2016-11-30"}
    manifest |= {"creationTimestamp": "1764118800000", "fileFormat": form, "fileSchema": schema, "files": files}
    place.write(MANIFEST, json.dumps(manifest).encode())
    return f"{place.uri}/{MANIFEST}"


@pytest.mark.parametrize("form", FORMS)
def test_the_latest_images_are_listed_with_size_and_etag(place, form):
    assert list(list_images(write(place, form))) == WANTED


def test_an_inventory_without_optional_fields_is_read(place):
    address = write(place, "CSV")
    lines = gzip.decompress(place.read(f"{FOLDER}/data/0.csv.gz")).decode().splitlines()
    for number in range(2):
        short = "\n".join(",".join(line.split(",")[:2]) for line in lines[:2]).encode()
        place.write(f"{FOLDER}/data/{number}.csv.gz", gzip.compress(short))
    manifest = json.loads(place.read(MANIFEST)) | {"fileSchema": "Bucket, Key"}
    place.write(MANIFEST, json.dumps(manifest).encode())
    assert list(list_images(address)) == [ImageRef(ref.uri, 0, "") for ref in WANTED]


def test_files_that_are_missing_or_cut_off_are_named(place):
    address = write(place, "CSV")
    data = place.read(f"{FOLDER}/data/1.csv.gz")
    place.write(f"{FOLDER}/data/1.csv.gz", data[:-12])
    with pytest.raises(ValueError, match=r"data/1\.csv\.gz, a file of the inventory, cannot be read"):
        list_images(address)
    place.delete(f"{FOLDER}/data/1.csv.gz")
    with pytest.raises(FileNotFoundError, match=r"data/1\.csv\.gz is named by the inventory's manifest"):
        list_images(address)


def test_another_manifest_is_refused(place):
    place.write(MANIFEST, b'{"name": "my app"}')
    with pytest.raises(ValueError, match="is no manifest of S3 Inventory"):
        list_images(f"{place.uri}/{MANIFEST}")
