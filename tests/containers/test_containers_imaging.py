"""Images from outside: what is decoded, what is refused, what counts as the same picture."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from common.errors import BadImageError, ImageTooLargeError
from common.imaging import MAX_BYTES, decode, pixel_digest, to_input
from common.inputs import ARRAY, JSON, read_image
from tests.containers.conftest import Digit, encode


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_png_and_jpeg_are_decoded(digits: list[Digit]) -> None:
    for kind in ("PNG", "JPEG"):
        assert decode(encode(digits[0].image, kind)).size == (8, 8)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", BadImageError, "empty"),
        (b"no image", BadImageError, "neither a PNG nor a JPEG"),
        (encode(Image.new("L", (8, 8)), "GIF"), BadImageError, "neither a PNG nor a JPEG"),
        (encode(Image.effect_noise((64, 64), 50))[:-900], BadImageError, "damaged"),
        (bomb(6000, 6000), ImageTooLargeError, "6000 x 6000 pixels"),
        (bomb(2_000_000, 2_000_000), ImageTooLargeError, "too large|pixels"),
        (b"\x89PNG" + bytes(MAX_BYTES), ImageTooLargeError, "bytes: at most"),
    ],
)
def test_what_is_no_small_enough_image_is_refused_in_words(
    data: bytes, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        decode(data)


@pytest.mark.parametrize("kind", [ARRAY, JSON])
def test_a_body_that_is_too_long_is_not_read(kind: str) -> None:
    with pytest.raises(ImageTooLargeError, match="the body has 11 bytes: at most 10"):
        read_image(b" " * 11, kind, max_bytes=10)


def test_the_digest_is_that_of_the_picture_not_of_the_file(digits: list[Digit]) -> None:
    image = digits[0].image
    copies = [encode(image), encode(image, compress_level=0), encode(image.convert("RGB"))]
    assert len(set(copies)) == 3
    assert len({pixel_digest(decode(copy)) for copy in copies}) == 1
    assert pixel_digest(digits[1].image) != pixel_digest(image)
    # The same bytes in another shape are another picture.
    assert pixel_digest(Image.new("L", (2, 8))) != pixel_digest(Image.new("L", (8, 2)))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_input_has_the_models_shape_for_any_mode(channels: int) -> None:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"):
        pixels = to_input(Image.new(mode, (5, 9)), 16, channels)
        assert pixels.shape == (channels, 16, 16)
        assert pixels.dtype == np.dtype(np.uint8)


def test_transparency_counts_as_black() -> None:
    image = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    assert to_input(image, 8, 1).max() == 0
    # A file may also name a shade that is transparent, without a channel for it.
    named = decode(encode(Image.new("L", (8, 8), 255), transparency=255))
    assert named.getbands() == ("L",)
    assert to_input(named, 8, 1).max() == to_input(named, 8, 3).max() == 0


def test_sixteen_bit_grey_keeps_its_shades() -> None:
    shades = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    image = decode(encode(Image.fromarray(shades)))
    assert np.abs(to_input(image, 8, 1)[0] - shades / 257.0).max() <= 1
    assert pixel_digest(image) != pixel_digest(Image.fromarray(shades // 2))
