"""dshard.compile: the compiler, in this process."""

import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from typing import Any, Optional, Sequence, Union

from dshard import _arguments
from dshard._errors import Error
from dshard._plan import Plan

_log = logging.getLogger("dshard")
PathLike = Union[str, "os.PathLike[str]"]


def compile(
    model: PathLike,
    mesh: Union[str, Mapping[str, int], None] = None,
    dims: Optional[Mapping[str, int]] = None,
    *,
    output: Optional[PathLike] = None,
    weights: Optional[PathLike] = None,
    random_weights: Optional[int] = None,
    threads: int = 0,
    input_dims: Optional[Mapping[str, Union[str, Sequence[str]]]] = None,
    constants: Optional[Mapping[str, Any]] = None,
    train: Union[PathLike, Mapping[str, Any], None] = None,
    tp_plan: Union[PathLike, Mapping[str, Any], None] = None,
    **options: Any,
) -> Plan:
    """Compile an ONNX model into a plan, and open the plan.

    Args:
      model: path of the .onnx; its weights lie beneath its folder.
      mesh: axes and how many ranks each has, as {"dp_shard": 2, "tp": 2} or "dp_shard=2,tp=2";
        pp, dp_replicate, dp_shard, cp, tp. None: one rank.
      dims: sizes of the model's symbolic dims, as {"batch": 2, "seq": 128}.
      output: where to write the plan. None: a temporary file, removed with the Plan.
      weights, random_weights, threads: as in `load`.
      input_dims: what the dims of an input are, as {"x": ["batch", "seq"]} (--dims).
      constants: inputs to fix, as {"use_cache": 0} (--const).
      train: the training configuration, a JSON file or its content (docs/Training.md): adds the
        entry point train_step.
      tp_plan: a built-in plan's name, a JSON file, or its content.
      options: every other flag of dshard-opt that says what to compile, with _ for -:
        sequence_parallel=True, micro_batches=2, fsdp="parameters", cp_method="ring",
        target="cpu:x86-64-v3", ...

    Returns:
      The Plan, not yet loaded.

    Raises:
      Error: with the text that dshard-opt would print. Warnings and remarks go to the logger
        "dshard".

    Example:
      >>> plan = dshard.compile("mlp.onnx", mesh={"tp": 2}, dims={"batch": 16}, tp_plan="mlp-tp.json")
      >>> plan.ranks
      2
    """
    try:
        from dshard import _compiler
    except ImportError as error:
        raise Error(
            f"the compiler is not part of this installation ({error}); compile with dshard-opt, or "
            "install from a build folder that has libdshard-compiler.so"
        ) from None
    model = _arguments.path(model, "the model's path")
    flags = []
    if mesh is not None and not isinstance(mesh, str):
        mesh = ",".join(f"{axis}={size}" for axis, size in _arguments.named(mesh, "mesh", '{"tp": 2}').items())
    if mesh:
        flags.append(("mesh", mesh))
    for name, size in _arguments.named(dims or {}, "dims", '{"batch": 2}').items():
        flags.append(("dim", f"{name}={size}"))
    for name, names in _arguments.named(input_dims or {}, "input_dims", '{"x": ["batch", "seq"]}').items():
        flags.append(("dims", f"{name}={names if isinstance(names, str) else ','.join(map(str, names))}"))
    for name, value in _arguments.named(constants or {}, "constants", '{"use_cache": 0}').items():
        flags.append(("const", f"{name}={value}"))
    for name, value in options.items():
        if value is None or value is False:
            continue
        flags.append((name.replace("_", "-"), None if value is True else str(value)))
    made = None
    with tempfile.TemporaryDirectory(prefix="dshard-") as folder:
        for name, value in (("train", train), ("tp-plan", tp_plan)):
            if isinstance(value, Mapping):
                text = _arguments.json_text(value, name.replace("-", "_"))
                value = os.path.join(folder, f"{name}.json")
                with open(value, "w", encoding="utf-8") as file:
                    file.write(text)
            if value is not None:
                flags.append((name, _arguments.path(value, name.replace("-", "_"))))
        if output is None:
            made = tempfile.mkdtemp(prefix="dshard-plan-")
            output = os.path.join(made, os.path.splitext(os.path.basename(model))[0] + ".dsplan")
        try:
            said = _compiler.compile(model, flags, _arguments.path(output, "output"))
            for line in said.splitlines():
                _log.log(logging.WARNING if line.startswith("warning:") else logging.INFO, "%s", line)
            plan = Plan(output, weights=weights, random_weights=random_weights, threads=threads)
        except BaseException as error:
            if made:
                shutil.rmtree(made, ignore_errors=True)
            if isinstance(error, Error) and folder in str(error):
                # Nobody has seen the file of a dict.
                raise Error(str(error).replace(folder + os.sep, "")) from None
            raise
    if made:
        weakref.finalize(plan, _remove, made, os.getpid())
    return plan


def _remove(folder: str, process: int) -> None:
    """The folder of a plan that is gone; a forked child leaves it to its parent."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
