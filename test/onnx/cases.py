"""The official ONNX node cases, generated from the pinned onnx package into a cache folder.

One folder per case, as onnx itself laid them out: NAME/model.onnx, NAME/test_data_set_0/{input,output}_J.pb.
Nothing of it is committed: the numbers depend on the machine's numpy in their last bits.
"""

import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PINNED = "1.23.2"
COUNT = 1884


def cache_folder():
    return ROOT / "build" / "onnx-cases" / PINNED


def _serialize(value, type_proto):
    from onnx import numpy_helper

    if hasattr(value, "SerializeToString"):
        return value
    kind = type_proto.WhichOneof("value")
    if kind == "sequence_type":
        return numpy_helper.from_list(list(value))
    if kind == "optional_type":
        return numpy_helper.from_optional(value)
    if kind == "map_type":
        return numpy_helper.from_dict(value)
    import numpy as np

    array = np.asarray(value)
    made = numpy_helper.from_array(array)
    declared = type_proto.tensor_type.elem_type
    if declared and made.data_type != declared:
        from onnx import helper

        made = helper.make_tensor("", declared, array.shape, array.tobytes(), raw=True)
    return made


def _generate(folder):
    """Computes all cases (10 s) and writes them."""
    from onnx.backend.test.loader import load_model_tests

    index = {}
    for case in load_model_tests(kind="node"):
        where = folder / case.name
        data = where / "test_data_set_0"
        data.mkdir(parents=True)
        (where / "model.onnx").write_bytes(case.model.SerializeToString(deterministic=True))
        (inputs, outputs) = case.data_sets[0]
        for kind, values, infos in (("input", inputs, case.model.graph.input), ("output", outputs, case.model.graph.output)):
            for i, (value, info) in enumerate(zip(values, infos)):
                proto = _serialize(value, info.type)
                (data / f"{kind}_{i}.pb").write_bytes(proto.SerializeToString(deterministic=True))
        index[case.name] = [f"{n.domain}:{n.op_type}" if n.domain else n.op_type for n in case.model.graph.node]
    (folder / "index.json").write_text(json.dumps(index, indent=0, sort_keys=True))


def ensure():
    """The folder with all cases; made at the first call."""
    folder = cache_folder()
    if (folder / "index.json").exists():
        return folder
    found = importlib.metadata.version("onnx")
    if found != PINNED:
        raise SystemExit(f"onnx-suite: onnx {PINNED} is needed for its node cases, found {found}; run scripts/setup")
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        # A process of its own: the cases seed numpy and leave much behind.
        code = f"import sys, pathlib; sys.path.insert(0, {str(ROOT / 'test' / 'onnx')!r}); import cases; cases._generate(pathlib.Path({str(temporary)!r}))"
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit("onnx-suite: the cases cannot be generated:\n" + done.stdout[-2000:])
        if not folder.exists():
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def index():
    """Name -> the op types of its nodes ("DOMAIN:OP" outside the default domain), sorted by name."""
    return json.loads((ensure() / "index.json").read_text())


def main_ops(ops):
    """Name -> the operator that it is a case of. An expanded body belongs to the operator that it expands."""
    result = {}
    for name in ops:
        plain = re.sub(r"_expanded.*$", "", name)
        nodes = ops.get(plain) or ops[name]
        result[name] = nodes[-1] if len(set(nodes)) > 1 else nodes[0]
    return result
