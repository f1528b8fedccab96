"""Bodies of requests to pictures, by content type: what the endpoint takes, and what its captures hold.

The server and the preparation of training data both read them here. A request that training decodes
differently than the endpoint did is a silent loss of accuracy.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import BadImageError, ImageTooLargeError
from common.imaging import MAX_BYTES, MAX_PIXELS, decode

ENCODED = ("image/png", "image/jpeg")
ARRAY = "application/x-npy"
JSON = "application/json"
CONTENT_TYPES = (*ENCODED, ARRAY, JSON)

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_MEMBERS = ("image", "pixels")


def media_type(content_type: str) -> str:
    """Return a Content-Type header without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def read_image(
    body: bytes, kind: str, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read the picture that a request holds.

    Parameters
    ----------
    body
        PNG or JPEG; ``application/x-npy``: NumPy's file format, uint8, of shape ``(height, width)`` or
        ``(height, width, channels)`` with 1, 3 or 4 channels; ``application/json``: ``{"image": <base64 of a
        PNG or JPEG>}`` or ``{"pixels": <nested lists of 0 to 255, shaped like the array>}``.
    kind
        One of `CONTENT_TYPES`, as `media_type` returns it.
    max_bytes, max_pixels
        Limits, judged by headers before anything is decoded.

    Raises
    ------
    ImageTooLargeError
        More bytes or pixels than are accepted.
    BadImageError
        Anything else that is wrong with it.
    """
    if kind in ENCODED:
        return decode(body, max_bytes, max_pixels)
    if len(body) > max_bytes:
        raise ImageTooLargeError(f"the body has {len(body)} bytes: at most {max_bytes} are accepted")
    if kind == ARRAY:
        return _from_array(_read_array(body, max_pixels), max_pixels)
    if kind == JSON:
        return _from_json(body, max_bytes, max_pixels)
    raise BadImageError(f"content type {kind!r} is not accepted: send {', '.join(CONTENT_TYPES)}")


def _read_array(body: bytes, max_pixels: int) -> NDArray[np.uint8]:
    # Not numpy.load: it allocates what the header promises before it looks whether the data is there.
    stream = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, kind = read[version](stream)
    except KeyError:
        raise BadImageError("the array is of an unknown version of NumPy's format: save it as 1.0") from None
    except Exception as error:  # the header is a Python literal, whose readers fail in a dozen ways
        raise BadImageError(f"the body is no array in NumPy's .npy format: {error}") from error
    if kind != np.uint8:
        raise BadImageError(f"the array is of {kind}: send uint8 pixels of 0 to 255")
    _check_shape(shape, max_pixels)
    data = body[stream.tell() :]
    size = int(np.prod(shape))
    if len(data) != size:
        raise BadImageError(f"the array of shape {shape} needs {size} bytes of data and has {len(data)}")
    return np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


def _check_shape(shape: tuple[int, ...], max_pixels: int) -> None:
    if (
        len(shape) not in (2, 3)
        or (len(shape) == 3 and shape[2] not in _MODES)
        or any(type(length) is not int or length < 1 for length in shape)
    ):
        raise BadImageError(
            f"the array has shape {shape}: send (height, width) or (height, width, channels) with 1, 3 or 4 "
            "channels"
        )
    if shape[0] * shape[1] > max_pixels:
        raise ImageTooLargeError(
            f"the image has {shape[1]} x {shape[0]} pixels: at most {max_pixels} are accepted"
        )


def _from_array(pixels: NDArray[np.uint8], max_pixels: int) -> Image.Image:
    _check_shape(pixels.shape, max_pixels)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(pixels))


def _from_json(body: bytes, max_bytes: int, max_pixels: int) -> Image.Image:
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadImageError(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict) or sum(name in value for name in _MEMBERS) != 1:
        raise BadImageError(
            'send one JSON object with either "image" (base64 of a PNG or JPEG) or "pixels" (nested lists)'
        )
    if "image" in value:
        return decode(_from_base64(value["image"]), max_bytes, max_pixels)
    return _from_array(_from_lists(value["pixels"]), max_pixels)


def _from_base64(text: object) -> bytes:
    if not isinstance(text, str):
        raise BadImageError('"image" must be text: the base64 of a PNG or JPEG file')
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadImageError(f'"image" is not base64: {error}') from error


def _from_lists(rows: object) -> NDArray[np.uint8]:
    # Not numpy.asarray of what came: of one long text among numbers it makes as long a text of each number.
    shape: list[int] = []
    values: list[Any] = [rows]
    while len(shape) <= 3 and set(map(type, values)) == {list}:
        lengths = set(map(len, values))
        if len(lengths) > 1:
            raise BadImageError(
                f'"pixels" is no array: lists side by side have {sorted(lengths)[:5]} elements'
            )
        shape.append(lengths.pop())
        values = list(chain.from_iterable(values))
    _check_shape(tuple(shape), MAX_PIXELS)
    if set(map(type, values)) != {int}:
        raise BadImageError('"pixels" must be nested lists of whole numbers')
    if min(values) < 0 or max(values) > 255:
        raise BadImageError(f'"pixels" must be 0 to 255, and are {min(values)} to {max(values)}')
    return np.array(values, np.uint8).reshape(shape)
