"""Pickles of numpy arrays, as detectron2's model zoo has them, read without what a pickle may otherwise do."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bcd.errors import UserError
from bcd.files import reading

NUMBERS = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1")  # what an array may hold
ORDERS = ("<", ">", "|", "=")


class Forbidden(pickle.UnpicklingError):
    """A pickle asks for something that is neither an array nor plain data."""


def read_arrays(path: Path) -> dict[Any, Any]:
    """The mapping in a pickle of numpy arrays, texts, numbers, and mappings and lists of these.

    Nothing else is looked up, so that no code of the file runs. Texts of Python 2 are read as Latin-1, as detectron2
    does. Raises UserError for a file that names anything else, is damaged, or holds no mapping.
    """
    with reading(path), open(path, "rb") as file:
        try:
            content = _plain(_Unpickler(file, encoding="latin1").load())
        except Forbidden as error:
            raise UserError(
                f"weights file {path} is a pickle that asks for {error}, which is no array: it may run code, so it is "
                "not read; save its tensors as safetensors"
            ) from None
        except Exception as error:  # a damaged pickle can raise almost anything
            raise UserError(f"weights file {path} is no readable pickle of arrays; get it anew") from error
    if not isinstance(content, dict):
        raise UserError(f"weights file {path} holds no mapping of names to arrays; name another file")
    return content


class _Unpickler(pickle.Unpickler):
    """Knows what numpy writes of an array, and nothing else."""

    def find_class(self, module: str, name: str) -> Callable[..., Any] | type:
        # numpy 1 and 2 call its modules differently.
        found = _KNOWN.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise Forbidden(f"'{module}.{name}'"[:80])
        return found

    def persistent_load(self, pid: object) -> Any:
        raise Forbidden(f"the outside object {pid!r}"[:80])


class _Dtype:
    """In the place of numpy's, whose state could call memory what is none."""

    def __init__(self, code: str, *_arguments: object):
        if code not in NUMBERS:
            raise Forbidden(f"an array of {code!r}"[:80])
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ORDERS:
            raise Forbidden(f"an array in the order {order!r}"[:80])
        self.code = order + self.code

    def numbers(self, content: bytes | bytearray | str) -> np.ndarray:
        raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
        return np.frombuffer(raw, self.code).astype(np.dtype(self.code).newbyteorder("="))


class _Array:
    """In the place of an array, until it is whole."""

    def __init__(self, *_arguments: object):
        self.array = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, columns_first, content = state
        self.array = _array(content, dtype, shape, "F" if columns_first else "C")


def _array(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.array(dtype.numbers(content).reshape(shape, order=order), order="C")


def _number(dtype: _Dtype, content: bytes) -> Any:
    return dtype.numbers(content)[0]


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes, as Python 3 writes them for Python 2."""
    if encoding != "latin1":
        raise Forbidden(f"the encoding {encoding!r}"[:80])
    return text.encode(encoding)


def _no_bytes() -> bytes:
    """How Python 3 writes the content of an empty array for Python 2."""
    return b""


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.array if isinstance(value, _Array) else value


_KNOWN: dict[tuple[str, str], Callable[..., Any] | type] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy.core.numeric", "_frombuffer"): _array,
    ("_codecs", "encode"): _latin1,
    ("__builtin__", "bytes"): _no_bytes,
}
