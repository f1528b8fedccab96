"""Pictures where they lie: in files, in lines of data capture, in the scratch file of what came as Parquet.

What is known of a picture while a dataset is prepared is its place and what it looks like, a few dozen
bytes; its own bytes are read when they are looked at and once more when they are written. So memory does not
grow with the number or the size of images.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from PIL import Image

from common.errors import BadImageError
from common.imaging import FORMATS, MAX_BYTES, decode, pixel_digest
from common.inputs import CONTENT_TYPES, ENCODED, media_type, read_image
from dataset.near_duplicates import Features, describe, same_picture

_MD5 = re.compile("[0-9a-f]{32}")
_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Place(NamedTuple):
    """Where a picture's bytes are.

    ``length`` is -1 for a whole file. With ``captured`` they are a line of data capture, which holds the
    picture. ``etag`` is that of the object when the snapshot was made, where that is known.
    """

    path: str
    offset: int = 0
    length: int = -1
    captured: bool = False
    etag: str | None = None


@dataclass(frozen=True)
class Looks:
    """What one picture looks like.

    ``problem`` says why it cannot be trained on; the rest is then empty. ``digest`` is that of the pixels,
    ``content`` the first 64 bits of a digest of the bytes, ``size`` their number.
    """

    problem: str = ""
    changed: bool = False
    digest: bytes = b""
    content: int = 0
    size: int = 0
    is_jpeg: bool = False
    features: Features | None = None


def read(place: Place) -> bytes:
    """Return the bytes of a PNG or JPEG file; none where there is no file.

    Raises
    ------
    BadImageError
        A captured request holds no picture.
    """
    try:
        with open(place.path, "rb", buffering=0) as file:
            size = place.length
            if size < 0:  # one byte more than may be decoded is enough to refuse it
                size = min(os.fstat(file.fileno()).st_size, MAX_BYTES + 1)
            content = os.pread(file.fileno(), size, place.offset)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return b""
    return captured_picture(content) if place.captured else content


def captured_body(line: bytes) -> tuple[bytes, str]:
    """Return the body of a captured request, and its media type (empty when that was not captured)."""
    part: dict[str, Any] | None = json.loads(line)["captureData"].get("endpointInput")
    if part is None:  # an endpoint may be set to capture only answers
        return b"", ""
    data: str = part["data"]
    body = base64.b64decode(data, validate=True) if part["encoding"] == "BASE64" else data.encode()
    return body, media_type(part.get("observedContentType") or "")


def captured_picture(line: bytes) -> bytes:
    """Return the picture of a captured request as a PNG or JPEG file, as the endpoint has seen it.

    A PNG or JPEG, also one within JSON, is returned as it came; pixels become a PNG.

    Raises
    ------
    BadImageError
        The request holds no picture that the endpoint takes.
    """
    body, kind = captured_body(line)
    if kind not in CONTENT_TYPES or kind in ENCODED:
        return body  # decoding tells whether it is a picture
    image = read_image(body, kind)
    if image.format in FORMATS:
        embedded: str = json.loads(body)["image"]
        return base64.b64decode(embedded)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def look(place: Place) -> Looks:
    """Read and decode one picture."""
    try:
        content = read(place)
        if content and is_another(content, place):
            return Looks("it was changed after the snapshot", changed=True)
        image = decode(content)
    except BadImageError as error:
        return Looks(str(error))
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        return Looks(f"its capture cannot be read: {type(error).__name__} {error}")
    return Looks(
        digest=bytes.fromhex(pixel_digest(image)),
        content=int.from_bytes(hashlib.sha256(content).digest()[:8]),
        size=len(content),
        is_jpeg=image.format == "JPEG",
        features=describe(image),
    )


def is_another(content: bytes, place: Place) -> bool:
    """Say whether ``content`` cannot be the object that had the place's ETag.

    The ETag of an object that was uploaded in one part, unencrypted or with SSE-S3, is the MD5 of its bytes;
    that of a multipart upload has a ``-`` and says nothing that could be checked:
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
    """
    if place.etag is None or _MD5.fullmatch(place.etag) is None:
        return False
    if len(content) > MAX_BYTES:  # only its beginning was read
        with open(place.path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest() != place.etag
    return hashlib.md5(content, usedforsecurity=False).hexdigest() != place.etag


@lru_cache(maxsize=4)
def _decoded(place: Place) -> Image.Image:
    return decode(read(place))


def look_at_all(places: list[Place]) -> list[Looks]:
    """Look at several pictures: a piece of work for another process."""
    return [look(place) for place in places]


def are_same(pairs: list[tuple[Place, Place]]) -> list[bool]:
    """Compare several pairs of pictures: a piece of work for another process."""
    return [same_picture(_decoded(one), _decoded(other)) for one, other in pairs]


def read_all(places: list[Place]) -> list[bytes]:
    """Read several pictures: a piece of work for another process."""
    return [read(place) for place in places]


class Workers:
    """Processes that decode side by side; none is started before there is enough to do for one.

    Parameters
    ----------
    processes
        How many; by default one per core, and this process alone does it where there is one core only.
    """

    HERE_BELOW = 3000
    """With fewer pictures than this, starting processes costs more than they save."""

    def __init__(self, processes: int | None = None) -> None:
        self.processes = processes or len(os.sched_getaffinity(0))
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def map(
        self, work: Callable[[list[_In]], list[_Out]], items: Iterable[_In], at_once: int
    ) -> Iterator[_Out]:
        """Yield what `work` makes of the items, in their order, with a bounded number of them under way."""
        pending: list[Future[list[_Out]]] = []
        begun = 0
        rest = iter(items)
        while part := list(islice(rest, at_once)):
            begun += len(part)
            if self._pool is None and self.processes > 1 and begun > self.HERE_BELOW:
                # Spawned, not forked: Polars has threads, which a fork would leave half alive.
                self._pool = ProcessPoolExecutor(self.processes, mp_context=get_context("spawn"))
            if self._pool is None:
                yield from work(part)
                continue
            pending.append(self._pool.submit(work, part))
            if len(pending) > 2 * self.processes:
                yield from pending.pop(0).result()
        for future in pending:
            yield from future.result()
