"""Blobs in an S3-compatible store instead of a directory: `--s3 URL`.

    https://HOST[:PORT]/BUCKET[/PREFIX]
        PREFIX/blobs/sha256/<digits>      as in the directory

An upload grows in ROOT/content/ingest/ as always, and goes up when its digest was checked; an object appears
whole or not at all. Who has which blob stays in ROOT/record.db. Credentials come from AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY, or the file that the AWS tools use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from yarl import URL

from trivet.base.error import InvalidArgument, Unavailable, Unsupported
from trivet.oci import digest as digests
from trivet.oci import layout
from trivet.store.content import BlobNotFound, ContentStore

if TYPE_CHECKING:
    from minio import Minio
    from minio.error import S3Error

PART = 64 << 20  # bytes of a part of a large upload
_MISSING = frozenset({"NoSuchKey", "NoSuchObject"})


class Bucket(ContentStore):
    """A content store whose complete blobs are objects. Raises `InvalidArgument`, `Unsupported`, `Unavailable`."""

    def __init__(self, root: Path, address: str) -> None:
        super().__init__(root)
        url = URL(address)
        bucket, *prefix = url.path.strip("/").split("/")
        if url.scheme not in ("http", "https") or not url.host or not bucket or url.user or url.query_string:
            raise InvalidArgument(f"{address!r} is not https://HOST/BUCKET[/PREFIX]")
        self._bucket = bucket
        self._prefix = "".join(f"{part}/" for part in prefix)
        self._client = _connect(url)
        with self._explaining(""):
            if not self._client.bucket_exists(bucket):
                raise Unavailable(f"there is no bucket {bucket} at {url.host}", hint="make it first")

    def exists(self, digest: str) -> bool:
        """Tell whether a blob is here."""
        with suppress(BlobNotFound):
            self.size(digest)
            return True
        return False

    def size(self, digest: str) -> int:
        """Tell a blob's size in bytes. Raises `BlobNotFound`."""
        with self._explaining(digest):
            return int(self._client.stat_object(self._bucket, self._key(digest)).size or 0)

    def _open(self, digest: str) -> BinaryIO:
        return self.open_range(digest, 0, 0)

    def open_range(self, digest: str, start: int, length: int) -> BinaryIO:
        """Open a part of a blob; a length of 0 means up to the end. Raises `BlobNotFound`."""
        with self._explaining(digest):
            found = self._client.get_object(self._bucket, self._key(digest), offset=start, length=length)
        return cast(BinaryIO, found)  # urllib3's answer is a file to read from

    def delete(self, digest: str) -> int:
        """Delete a blob if it is here; return its size."""
        with suppress(BlobNotFound):
            size = self.size(digest)
            with self._explaining(digest):
                self._client.remove_object(self._bucket, self._key(digest))
            return size
        return 0

    def walk(self) -> Iterator[tuple[str, int]]:
        """List all blobs and their sizes; objects that are no blobs are passed over."""
        for algorithm, length in digests.LENGTHS.items():
            place = f"{self._prefix}{layout.BLOBS}/{algorithm}/"
            with self._explaining(""):
                for found in self._client.list_objects(self._bucket, prefix=place, recursive=True):
                    digits = (found.object_name or "").removeprefix(place)
                    if len(digits) == length:
                        yield f"{algorithm}:{digits}", int(found.size or 0)

    def publish(self, path: Path, digest: str) -> None:
        """Send a complete and verified file to the place of its digest."""
        with self._explaining(digest):
            self._client.fput_object(self._bucket, self._key(digest), str(path), part_size=PART)
        path.unlink()

    def _key(self, digest: str) -> str:
        return f"{self._prefix}{layout.blob(digest)}"

    @contextmanager
    def _explaining(self, digest: str) -> Iterator[None]:
        from minio.error import MinioException, S3Error
        from urllib3.exceptions import HTTPError

        try:
            yield
        except S3Error as error:
            if digest and _is_missing(error):
                raise BlobNotFound(digest) from error
            raise Unavailable(f"the store of bucket {self._bucket} refuses: {error.message or error.code}") from error
        except (MinioException, HTTPError, ValueError, OSError) as error:
            raise Unavailable(f"the store of bucket {self._bucket} does not answer: {error}") from error


def _is_missing(error: S3Error) -> bool:
    return error.code in _MISSING


def _connect(url: URL) -> Minio:
    try:
        from minio import Minio
        from minio.credentials.providers import AWSConfigProvider, ChainedProvider, EnvAWSProvider
    except ImportError as error:
        raise Unsupported("--s3 wants the package minio", hint="pip install 'trivet[s3]'") from error
    return Minio(
        endpoint=f"{url.host}:{url.port}",
        secure=url.scheme == "https",
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        credentials=ChainedProvider([EnvAWSProvider(), AWSConfigProvider()]),
    )
