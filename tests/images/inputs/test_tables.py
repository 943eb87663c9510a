"""Inputs that are tables of URIs, on disk and in a real S3 server."""

import gzip
import http.server
import io
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proxyclip.images.errors import ImageError
from proxyclip.images.inputs.images import fetch_image, open_images
from proxyclip.images.listing import list_images
from proxyclip.images.ref import ImageRef


def parquet(**columns):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=2)
    return buffer.getvalue()


def csv(**columns):
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    return "\n".join(lines).encode()


FORMS = {
    "t.parquet": parquet,
    "t.csv": csv,
    "t.csv.gz": lambda **columns: gzip.compress(csv(**columns)),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_table_gives_uri_size_and_etag(place, name):
    uris = ["b.jpg", "s3://other/x/a.jpg", "no extension", "https://host/a?b=c#d"]
    data = FORMS[name](url=uris, size=[3, 0, 7, 10**12], etag=["one", '"two"', "", "4"], class_=[1, 2, 3, 4])
    place.write(name, data)
    assert list(list_images(f"{place.uri}/{name}")) == [
        ImageRef("b.jpg", 3, "one"),
        ImageRef("https://host/a?b=c#d", 10**12, "4"),
        ImageRef("no extension", 7, ""),
        ImageRef("s3://other/x/a.jpg", 0, "two"),
    ]


def test_a_text_file_names_an_image_a_line(place):
    text = "\ufeffa b.jpg\r\n\n  c.jpg \ncaf\u00e9,1.jpg"
    place.write("t.txt", text.encode())
    place.write("z.txt.gz", gzip.compress(text.encode()))
    for name in ("t.txt", "z.txt.gz"):
        found = list(list_images(f"{place.uri}/{name}"))
        assert found == [ImageRef(uri, 0, "") for uri in ("a b.jpg", "c.jpg", "caf\u00e9,1.jpg")]


def test_images_are_relative_to_the_table_or_stand_for_themselves(place, tmp_path):
    place.write("sub/a.jpg", b"a")
    elsewhere = tmp_path / "else where.jpg"
    elsewhere.write_bytes(b"elsewhere")
    address = f"{place.uri}/sub/a.jpg" if "://" in place.uri else f"file://{place.uri}/sub/a.jpg"
    place.write("t.txt", "\n".join(["sub/a.jpg", address, str(elsewhere), "gone.jpg", "../up.jpg"]).encode())
    images = open_images(f"{place.uri}/t.txt")
    found = {}
    for ref in list_images(f"{place.uri}/t.txt"):
        try:
            found[ref.uri] = fetch_image(images, ref.uri)
        except ImageError as error:
            found[ref.uri] = error.reason.split(";")[0]
    assert found == {
        "sub/a.jpg": b"a",
        address: b"a",
        f"file://{elsewhere}": b"elsewhere",
        "gone.jpg": "no such file",
        "../up.jpg": "a name that leads out of the input",
    }
    assert images.exists("sub/a.jpg")
    assert images.exists(address)
    assert not images.exists("gone.jpg")


def test_the_column_is_chosen_by_name_or_is_the_only_one(place):
    place.write("two.csv", csv(path=["a.jpg"], photo=["b.jpg"]))
    place.write("one.csv", csv(photo=["b.jpg"]))

    def uris(address):
        return [ref.uri for ref in list_images(f"{place.uri}/{address}")]

    assert uris("two.csv") == ["a.jpg"]
    assert uris("two.csv;uri-column=photo") == ["b.jpg"]
    assert uris("one.csv") == ["b.jpg"]


def test_a_missing_column_is_named_with_those_that_are_there(place):
    place.write("t.csv", csv(id=[1], photo=["b.jpg"]))
    with pytest.raises(ValueError, match=r"t\.csv: it has no column uri or url .*--uri-column.*: id, photo\."):
        list_images(f"{place.uri}/t.csv")
    with pytest.raises(ValueError, match=r"no column 'Photo'; --uri-column must be one of its columns: id, photo\."):
        list_images(f"{place.uri}/t.csv;uri-column=Photo")


def test_a_uri_that_is_there_twice_is_labelled_once_and_said(place, caplog):
    place.write("t.csv", csv(uri=["b.jpg", "a.jpg", "b.jpg", "b.jpg"], etag=["1", "2", "3", "1"]))
    with caplog.at_level(logging.WARNING):
        found = list_images(f"{place.uri}/t.csv")
    assert list(found) == [ImageRef("a.jpg", 0, "2"), ImageRef("b.jpg", 0, "1")]
    assert "2 rows repeat the URI of an earlier one, such as b.jpg" in caplog.text


def test_rows_without_a_uri_are_counted(place, caplog):
    place.write("t.parquet", parquet(uri=["a.jpg", None, "  ", "b.jpg"]))
    with caplog.at_level(logging.WARNING):
        assert len(list_images(f"{place.uri}/t.parquet")) == 2
    assert "t.parquet: 2 rows have no URI and are left out" in caplog.text


@pytest.mark.parametrize("name", ["t.parquet", "t.csv.gz"])
def test_a_table_that_is_cut_off_is_refused(place, name):
    data = FORMS[name](uri=[f"{number}.jpg" for number in range(1000)])
    place.write(name, data[: len(data) // 2])
    with pytest.raises(ValueError, match=f"{name}: it cannot be read as a table"):
        list_images(f"{place.uri}/{name};uri-column=uri")


def test_one_table_of_several_that_is_cut_off_is_refused_too(place):
    data = parquet(uri=["a.jpg"])
    place.write("0.parquet", data[:-8])
    place.write("1.parquet", data)
    with pytest.raises(ValueError, match=r"0\.parquet: it cannot be read as a table"):
        list_images(f"{place.uri}/*.parquet")
    with pytest.raises(ValueError, match=r"the Parquet file 0\.parquet cannot be read"):
        list_images(f"{place.uri}/0.parquet")


def test_a_table_with_a_row_too_long_is_refused(place):
    place.write("t.csv", b"uri,size\na.jpg,1\nb.jpg,2,3\n")
    with pytest.raises(
        ValueError, match=r"t\.csv: it cannot be read as a table .*Expected 2 columns, got 3: b\.jpg,2,3"
    ):
        list_images(f"{place.uri}/t.csv")


def test_a_table_without_rows_is_refused(place):
    place.write("t.csv", b"uri,size\n")
    with pytest.raises(ValueError, match=r"t\.csv: it names no images"):
        list_images(f"{place.uri}/t.csv")


def test_tables_of_many_files_are_one_input(place):
    for number in range(3):
        place.write(f"part-{number}.parquet", parquet(uri=[f"{number}.jpg", "same.jpg"], size=[1, 2]))
    place.write("other.parquet", parquet(x=[1]))
    for address in ("part-*.parquet", "part-{0..2}.parquet"):
        found = [ref.uri for ref in list_images(f"{place.uri}/{address}")]
        assert found == ["0.jpg", "1.jpg", "2.jpg", "same.jpg"]
    with pytest.raises(FileNotFoundError, match=r"part-3\.parquet"):
        list_images(f"{place.uri}/part-{{0..3}}.parquet")
    with pytest.raises(FileNotFoundError, match=r"none of the 4 files there has such a name"):
        list_images(f"{place.uri}/shard-*.parquet")


@pytest.mark.parametrize(
    "secret", ["https://me:secret@host/a.jpg", "https://b.s3.amazonaws.com/a.jpg?x=1&X-Amz-Signature=secret"]
)
def test_an_address_with_a_secret_is_refused_and_not_shown(place, secret):
    place.write("t.txt", f"a.jpg\n{secret}\n".encode())
    with pytest.raises(ValueError, match=r"t\.txt: https://.*/a\.jpg has a password or a signature") as caught:
        list_images(f"{place.uri}/t.txt")
    assert "secret@" not in str(caught.value)
    assert "=secret" not in str(caught.value)


class Site(http.server.BaseHTTPRequestHandler):
    """Has /a.jpg, is broken at /500, and lacks all else."""

    def do_GET(self):
        status = {"/a.jpg?size=1": 200, "/500": 500}.get(self.path, 404)
        self.send_response(status)
        self.send_header("Content-Length", "1")
        self.end_headers()
        self.wfile.write(b"a")

    def log_message(self, *args):
        pass


def test_a_site_that_is_down_costs_its_images_only(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        site = f"http://127.0.0.1:{server.server_port}"
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            nowhere = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        uris = [f"{site}/a.jpg?size=1", f"{site}/gone", f"{site}/500", f"{nowhere}/a.jpg", "nosuch://host/a"]
        (tmp_path / "t.txt").write_text("\n".join(uris))
        refs = list(list_images(str(tmp_path / "t.txt")))
        with ThreadPoolExecutor(4) as pool:
            fetched = open_images(str(tmp_path / "t.txt")).fetch(pool, refs)
        found = {ref.uri: each for ref, each in zip(refs, fetched, strict=True)}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    data, *errors = (found[uri] for uri in uris)
    assert data == b"a"
    reasons = ["no such file", "the site does not serve it (ClientResponseError)", "the site does not serve it (Client"]
    reasons.append("it cannot be fetched: storage: nosuch://host: Protocol not known")
    assert [each.reason.startswith(reason) for each, reason in zip(errors, reasons, strict=True)] == [True] * 4, errors
