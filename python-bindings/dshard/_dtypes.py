"""The plan's types and numpy's.

numpy has no bfloat16: with the package ml_dtypes installed it is `ml_dtypes.bfloat16`, else its bits
as `uint16`. As an input both are taken.
"""

import numpy as np

try:
    from ml_dtypes import bfloat16 as _bfloat16

    BFLOAT16 = np.dtype(_bfloat16)
except ImportError:
    BFLOAT16 = np.dtype(np.uint16)

BF16_CODE = 11
# dshard_dtype_t of CAPI/Runtime.h: code, the plan's name, numpy's type.
_TABLE = [
    (1, "boolean", np.dtype(np.bool_)),
    (2, "i8", np.dtype(np.int8)),
    (3, "u8", np.dtype(np.uint8)),
    (4, "i16", np.dtype(np.int16)),
    (5, "u16", np.dtype(np.uint16)),
    (6, "i32", np.dtype(np.int32)),
    (7, "u32", np.dtype(np.uint32)),
    (8, "i64", np.dtype(np.int64)),
    (9, "u64", np.dtype(np.uint64)),
    (10, "f16", np.dtype(np.float16)),
    (BF16_CODE, "bf16", BFLOAT16),
    (12, "f32", np.dtype(np.float32)),
    (13, "f64", np.dtype(np.float64)),
]
NUMPY = {code: dtype for code, _, dtype in _TABLE}
_CODES = {dtype: code for code, _, dtype in _TABLE if code != BF16_CODE}


def code_of(dtype, wanted):
    """The plan's type of a numpy array for a port of the type `wanted`; None if plans have no such type."""
    if wanted == BF16_CODE and (dtype == np.uint16 or dtype.name == "bfloat16"):
        return BF16_CODE
    if dtype.name == "bfloat16":
        return BF16_CODE
    return _CODES.get(dtype)
