"""Vectors as engines return them: little-endian float32, of length 1."""

from __future__ import annotations

import math
import struct

from openworks.core.errors import InvalidRequestError

_FLOAT_BYTES = 4


def shortened(vector: bytes, dimensions: int | None) -> bytes:
    """Keep the first `dimensions` numbers and make the vector's length 1 again.

    Raises:
        InvalidRequestError: The vector has fewer.
    """
    width = len(vector) // _FLOAT_BYTES
    if dimensions is None or dimensions == width:
        return vector
    if dimensions > width:
        raise InvalidRequestError(
            f"Invalid 'dimensions': this model's vectors have {width}, got {dimensions}.",
            code="invalid_value",
            param="dimensions",
        )
    kept = struct.unpack(f"<{dimensions}f", vector[: dimensions * _FLOAT_BYTES])
    length = math.sqrt(math.fsum(number * number for number in kept)) or 1.0
    return struct.pack(f"<{dimensions}f", *(number / length for number in kept))
