"""Files that contain their own checksum, so that a reader can tell whether a file has changed since it was written.

The checksum is the SHA-256 of all other bytes of the file. It is in the first lines: the member `sha256` of a JSON
object, or a comment in a YAML file.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

JSON, COMMENT = '{\n "sha256": "', "# sha256 "
SEAL = re.compile(rb'(?:\{\n "sha256": "|# sha256 )([0-9a-f]{64})')


def sealed_text(text: str) -> bytes:
    """A YAML file with its checksum in the first line."""
    return _sealed(COMMENT, "\n", text)


def sealed_json(value: Mapping[str, Any], *, sort_keys: bool = False) -> bytes:
    """A JSON file with its checksum as the first member; NaN and infinities become null."""
    text = json.dumps(finite(value), indent=1, allow_nan=False, sort_keys=sort_keys)
    return _sealed(JSON, f'",\n{text[2:]}\n' if value else '"\n}\n')


def _sealed(head: str, *tail: str) -> bytes:
    first, *rest = (part.encode() for part in (head, *tail))
    return b"".join((first, _digest(first, *rest).encode(), *rest))


def _digest(*parts: bytes | memoryview) -> str:
    """The checksum of what is not to be copied into one, as the cache of many runs is large."""
    checksum = hashlib.sha256()
    for part in parts:
        checksum.update(part)
    return checksum.hexdigest()


def check(data: bytes) -> None:
    """Compares a file with its checksum.

    Raises:
        ValueError: if they do not match; the message says why.
    """
    seal = SEAL.match(data)
    if seal is None:
        raise ValueError("has no checksum: damaged, or written by an earlier version")
    view = memoryview(data)
    if _digest(view[: seal.start(1)], view[seal.end(1) :]).encode() != seal[1]:
        raise ValueError("damaged: it does not match its checksum")


def unsealed_json(data: bytes) -> dict[str, Any]:
    """The object in a file of `sealed_json`, without the checksum.

    Raises:
        ValueError: if the file has changed since it was written; the message says why.
    """
    check(data)
    content = json.loads(data)
    del content["sha256"]
    return content


def finite(value: Any) -> Any:
    """The value, with None for every float that is not finite, also inside lists, tuples and dictionaries."""
    if isinstance(value, Mapping):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
