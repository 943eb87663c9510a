"""How each kind of object store is asked: its fsspec file system, its listings and its error codes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import fsspec
from fsspec.asyn import sync

from proxyclip.storage.retry import max_attempts, read_timeout_s

T = TypeVar("T")
Ask = Callable[[Callable[[], T]], T]

# Keys in one page of a listing, as many as S3 and Google Cloud Storage allow.
PAGE_KEYS = 1000

_OPTIONS: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
CONNECT_TIMEOUT_S = 10.0


class Client:
    """A store that only fsspec knows. Its own client retries.

    attempts: how often a request of ours is made. read_options: for `fs.cat_file`. condition: what makes a write
    conditional. keys: what the user sets to give credentials. address: what names another server.
    """

    attempts = 1
    read_options: Mapping[str, Any] = {}
    condition = 'mode="create"'
    keys = "; check the credentials of this store."
    address = "the address"

    def __init__(self, uri: str) -> None:
        self.fs = fsspec.filesystem(uri.split("://")[0], **_OPTIONS)

    def find(self, base: str, ask: Ask[Any]) -> Iterator[dict[str, Any]]:
        """What lies below `base`, as `fs.info` describes it. ask: makes a request, and repeats it if it fails."""
        self.fs.invalidate_cache()  # some keep what they have listed, whatever they are told
        try:
            yield from ask(lambda: self.fs.find(base, detail=True)).values()
        except FileNotFoundError:
            return


class S3(Client):
    """All retries happen here: botocore and s3fs try once. Only aiohttp repeats a request by itself, once."""

    # Without this s3fs asks for the size before every read: a second request for each image.
    read_options: Mapping[str, Any] = {"max_concurrency": 1}
    condition = "If-None-Match: *"
    keys = "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or AWS_PROFILE, or use a role."
    address = "AWS_ENDPOINT_URL"

    def __init__(self, uri: str) -> None:
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "FSSPEC_S3_ENDPOINT_URL"):
            # It never works, and every error would show it.
            if "@" in urlsplit(os.environ.get(name, "")).netloc:
                raise ValueError(f"{name} contains a user or password; remove it from the address{self.keys}")
        self.attempts = max_attempts()
        config = {
            "retries": {"mode": "standard", "total_max_attempts": 1},
            "connect_timeout": min(CONNECT_TIMEOUT_S, read_timeout_s()),
            "read_timeout": read_timeout_s(),
            "max_pool_connections": 64,
        }
        self.fs = fsspec.filesystem("s3", config_kwargs=config, **_OPTIONS)
        self.fs.retries = 1

    def find(self, base: str, ask: Ask[Any]) -> Iterator[dict[str, Any]]:
        """Page by page, so that a failure costs one page and not the whole listing."""
        bucket, prefix, _ = self.fs.split_path(base)
        request = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else "", "MaxKeys": PAGE_KEYS}
        while True:
            page = ask(lambda: self.fs.call_s3("list_objects_v2", **request))
            for found in page.get("Contents", []):
                yield {**found, "name": f"{bucket}/{found['Key']}", "size": found["Size"], "type": "file"}
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]


class Gcs(Client):
    """Google Cloud Storage. All retries happen here."""

    condition = "ifGenerationMatch=0"
    keys = "; set GOOGLE_APPLICATION_CREDENTIALS to a key file, or use a service account."
    address = "STORAGE_EMULATOR_HOST"

    def __init__(self, uri: str) -> None:
        import aiohttp

        try:
            from gcsfs.core import GCSFileSystem  # not gcsfs': it asks another service for the type of every bucket
        except ImportError as error:
            raise ImportError('Google Cloud Storage needs another package; pip install "proxyclip[gcs]".') from error

        class OneTry(GCSFileSystem):
            _request = GCSFileSystem._request.__wrapped__

        timeout_s = read_timeout_s()
        self.attempts = max_attempts()
        self.fs = OneTry(
            token="anon" if os.environ.get("STORAGE_EMULATOR_HOST") else None,
            requests_timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=min(CONNECT_TIMEOUT_S, timeout_s), sock_read=timeout_s
            ),
            **_OPTIONS,
        )

    def find(self, base: str, ask: Ask[Any]) -> Iterator[dict[str, Any]]:
        """Page by page."""
        bucket, prefix, _ = self.fs.split_path(base)
        request: dict[str, Any] = {"prefix": f"{prefix}/" if prefix else "", "maxResults": PAGE_KEYS}
        while True:
            page = ask(lambda: self.fs.call("GET", "b/{}/o", bucket, json_out=True, **request))
            for found in page.get("items", []):
                yield self.fs._process_object(bucket, found)
            if not page.get("nextPageToken"):
                return
            request["pageToken"] = page["nextPageToken"]


class Azure(Client):
    """Azure Blob Storage. All retries happen here, but for a broken body, which Azure's client reads again."""

    condition = "If-None-Match: *"
    keys = (
        "; set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or "
        "AZURE_STORAGE_SAS_TOKEN, or use a managed identity."
    )
    address = "AZURE_STORAGE_CONNECTION_STRING"

    def __init__(self, uri: str) -> None:
        self.attempts = max_attempts()
        try:
            from adlfs import AzureBlobFileSystem
        except ImportError as error:
            raise ImportError('Azure Blob Storage needs another package; pip install "proxyclip[azure]".') from error
        self.fs = AzureBlobFileSystem(**AzureBlobFileSystem._get_kwargs_from_urls(uri), **_OPTIONS)
        # adlfs passes no such settings on to Azure's client.
        client = self.fs.service_client
        client._config.retry_policy.total_retries = 0
        connection = client._pipeline._transport.connection_config
        connection.timeout, connection.read_timeout = min(CONNECT_TIMEOUT_S, read_timeout_s()), read_timeout_s()

    def find(self, base: str, ask: Ask[Any]) -> Iterator[dict[str, Any]]:
        """Page by page."""
        token = None
        while True:
            found, token = ask(lambda: sync(self.fs.loop, self._page, base, token))  # noqa: B023
            yield from (info for info in found if (info.get("metadata") or {}).get("hdi_isfolder") != "true")
            if not token:
                return

    async def _page(self, base: str, token: str | None) -> tuple[list[dict[str, Any]], str | None]:
        container, prefix, _ = self.fs.split_path(f"{base}/")
        async with self.fs.service_client.get_container_client(container) as client:
            blobs = client.list_blobs(prefix, include=["metadata"], results_per_page=PAGE_KEYS)
            pages = blobs.by_page(continuation_token=token)
            async for page in pages:
                return await self.fs._details([blob async for blob in page]), pages.continuation_token
        return [], None


_CLIENTS: dict[str, type[Client]] = {
    **dict.fromkeys(("s3", "s3a"), S3),
    **dict.fromkeys(("gs", "gcs"), Gcs),
    **dict.fromkeys(("az", "abfs", "abfss"), Azure),
}


def open_client(uri: str) -> Client:
    """The client of a store. Raises ValueError or ImportError if there is none."""
    return _CLIENTS.get(uri.split("://")[0], Client)(uri)


def error_code(error: BaseException | None) -> str:
    """The store's code of an error, for instance "NoSuchBucket", or an empty string."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        if code := getattr(error, "error_code", None):  # Azure
            return str(getattr(code, "value", code))
        if type(error).__name__ == "HttpError" and (code := getattr(error, "code", None)):  # Google
            return f"HTTP {code}"
        if isinstance(error, OSError) and str(error).startswith("Forbidden:"):  # Google
            return "HTTP 403"
        error = error.__cause__
    return ""


# Credentials that are wrong as a whole, not for one object.
BROKEN_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "AuthorizationHeaderMalformed",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
    "NoAuthenticationInformation",
    "HTTP 401",
}
NOT_ALLOWED = {"HTTP 403", "AuthorizationFailure", "AuthorizationPermissionMismatch", "InsufficientAccountPermissions"}
NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "DefaultCredentialsError",
    "ClientAuthenticationError",
}
_NO_SERVER = {"EndpointConnectionError", "ConnectTimeoutError", "ServiceRequestError", "ClientConnectorError"}


def advice(client: Client, kind: str) -> str:
    """What to do about an error, by its code or the name of its type."""
    if kind in BROKEN_CREDENTIALS | _NO_CREDENTIALS:
        return client.keys
    if kind in NO_BUCKET:
        return f"; create the bucket, or correct its name or {client.address}."
    if kind in _NO_SERVER:
        return f"; check that the endpoint is up and that {client.address} is right."
    return ""
