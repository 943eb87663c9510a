"""A folder on a disk, and a prefix in a real S3 server."""

import uuid

import pytest

from proxyclip.storage.store import Storage


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path):
    if request.param == "disk":
        return Storage(str(tmp_path / "in"))
    return Storage(request.getfixturevalue("s3").uri(f"bucket/{uuid.uuid4().hex}/in"))
