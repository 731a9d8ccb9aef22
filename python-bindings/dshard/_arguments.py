"""What callers give, checked before the C libraries see it: an Error of one line, whatever is wrong."""

import json
import os
from collections.abc import Mapping
from typing import Any, Dict

import numpy as np

from dshard import _dtypes, _runtime
from dshard._errors import Error


def path(value: Any, what: str) -> str:
    """A path as the text that the C libraries take."""
    try:
        text = os.fsdecode(value)
        text.encode()
    except TypeError:
        raise Error(f"{what}: expected a path, got {_kind(value)}") from None
    except UnicodeError:
        raise Error(f"{what}: {value!r} is not UTF-8") from None
    if "\0" in text:
        raise Error(f"{what}: {text!r} holds a zero byte")
    return text


def integer(value: Any, what: str, end: int) -> int:
    """A whole number of [0, end)."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise Error(f"{what}: expected a whole number, got {_kind(value)} {value!r}")
    if not 0 <= int(value) < end:
        raise Error(f"{what} is {int(value)}, it must be in 0..{end - 1}")
    return int(value)


def number(value: Any, what: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise Error(f"{what}: expected a number, got {_kind(value)} {value!r}") from None


def named(value: Any, what: str, example: str) -> Dict[str, Any]:
    """A mapping from names."""
    if not isinstance(value, Mapping):
        raise Error(f"{what}: expected a mapping as {example}, got {_kind(value)}")
    for name in value:
        if not isinstance(name, str):
            raise Error(f"{what}: expected names as in {example}, got {_kind(name)} {name!r}")
        if not name.isprintable():  # zero bytes, halves of characters
            raise Error(f"{what}: {name!r} is no name")
    return dict(value)


def json_text(value: Mapping, what: str) -> str:
    """What json.dumps writes, numpy's numbers and lists too."""

    def plain(part: Any) -> Any:
        if isinstance(part, (np.generic, np.ndarray)):
            return part.tolist()
        if isinstance(part, Mapping):
            return dict(part)
        raise TypeError(f"{_kind(part)} is nothing that JSON has")

    try:
        return json.dumps(value, default=plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Error(f"{what}: {error}") from None


def numbers(value: Any, where: str, wanted: np.dtype, is_bf16: bool) -> np.ndarray:
    """Nested lists as an array of the type `wanted`, if it holds such numbers."""
    if is_bf16 and wanted == np.uint16:
        raise Error(f"{where}: lists for bfloat16 need the package ml_dtypes; give the bits as an array of uint16")
    try:
        given = np.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise Error(f"{where}: {error}") from None
    kinds = {"b": "b", "i": "biu", "u": "biu"}.get(wanted.kind, "biuf")
    if given.size and given.dtype.kind not in kinds:
        raise Error(f"{where} is a list of {given.dtype.name}, the plan takes {wanted}")
    if given.size and wanted.kind in "iu" and given.dtype.kind in "iu":
        low, high, bounds = int(given.min()), int(given.max()), np.iinfo(wanted)
        if low < bounds.min or high > bounds.max:
            raise Error(f"{where} holds {low if low < bounds.min else high}, which is no {wanted}")
    return given.astype(wanted)


def from_dlpack(value: Any, where: str) -> np.ndarray:
    """A view of a tensor of another library."""
    try:
        return np.from_dlpack(value)
    except Exception as error:  # what the other library's __dlpack__ raises is its own
        reason = " ".join(str(error).split())
    try:
        # numpy's DLPack has no bfloat16.
        bits = _runtime.bfloat16_bits(value)
    except Exception:
        bits = None
    if bits is None:
        raise Error(f"{where}: numpy cannot take it through DLPack: {reason}")
    return bits.view(_dtypes.BFLOAT16)


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__
