"""Each kind of bad input gives exit status 1 and one line that says what, where and a way out."""

import json
import os
import re
import shutil
import subprocess

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tools

MLP = {"batch": 16}


def refused(done, *parts):
    """Exit status 1, and one line on standard error that has all the parts (regular expressions)."""
    assert done.status == 1, f"exit status {done.status}\n{done.stderr}"
    assert len(done.lines()) == 1, done.stderr
    line = done.lines()[0]
    for part in parts:
        assert re.search(part, line), f"no '{part}' in: {line}"
    return line


def compile_model(model, folder, *flags, dims=MLP):
    arguments = tools.compile_arguments(model, dims=dims)
    done = tools.start("dshard-opt", *arguments, *flags, "-o", folder / "out.dsplan")
    if done.status != 0:
        assert not (folder / "out.dsplan").exists(), "a plan was written all the same"
    return done


@pytest.fixture
def mlp(tmp_path):
    """An MLP with weights in a folder of its own."""
    return tools.model_with_weights("mlp", tmp_path / "model")


@pytest.fixture
def plan(mlp, tmp_path):
    tools.compile_plan(mlp, tmp_path / "mlp.dsplan", "tp=2", MLP)
    return tmp_path / "mlp.dsplan"


def edited(model, edit):
    """Rewrites a model without touching its external data."""
    proto = onnx.load(str(model), load_external_data=False)
    edit(proto)
    model.write_bytes(proto.SerializeToString())
    return model


def move_weights(model, location):
    def edit(proto):
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location

    return edited(model, edit)


def small_model(folder, nodes, opsets=(("", 20),)):
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [16, 64])],
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets]
    path = folder / "small.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=imports).SerializeToString())
    return path


# ---- the model file


def test_missing_file(tmp_path):
    refused(compile_model(tmp_path / "absent.onnx", tmp_path), r"absent\.onnx", "(?i)no such file|not found|cannot")


def test_directory_instead_of_file(tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    refused(compile_model(tmp_path / "folder.onnx", tmp_path), r"folder\.onnx", "directory|folder")


@pytest.mark.parametrize(
    "content",
    [b"", b"hello, this is not a model\n", bytes(range(256)) * 20, b"\x00" * 100],
    ids=["empty", "text", "bytes", "zeros"],
)
def test_not_onnx(content, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(content)
    refused(compile_model(tmp_path / "bad.onnx", tmp_path), r"bad\.onnx", "(?i)onnx model|empty|not an? ")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_truncated_file(keep, tmp_path):
    data = (tools.MODELS / "llama-small.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(data[: int(len(data) * keep)])
    refused(compile_model(tmp_path / "cut.onnx", tmp_path, dims={"batch": 2, "seq": 16}), r"cut\.onnx")


def test_git_lfs_pointer(tmp_path):
    (tmp_path / "lfs.onnx").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4" * 64 + "\nsize 123456\n"
    )
    refused(compile_model(tmp_path / "lfs.onnx", tmp_path), "(?i)lfs", "git lfs pull")


# ---- weights


def test_external_data_too_short(mlp, tmp_path):
    data = mlp.with_name("mlp.onnx.data")
    os.truncate(data, 100000)
    refused(compile_model(mlp, tmp_path), r"mlp\.onnx\.data", "100000", r"down_proj\.weight|132096")


@pytest.mark.parametrize("location", ["../elsewhere.data", "/etc/passwd", "a/../../elsewhere.data"])
def test_external_data_outside_the_folder(location, mlp, tmp_path):
    shutil.copyfile(mlp.with_name("mlp.onnx.data"), tmp_path / "elsewhere.data")
    refused(compile_model(move_weights(mlp, location), tmp_path), re.escape(location), "folder")


def test_external_data_behind_a_link_that_leaves_the_folder(mlp, tmp_path):
    data = mlp.with_name("mlp.onnx.data")
    shutil.move(data, tmp_path / "elsewhere.data")
    data.symlink_to(tmp_path / "elsewhere.data")
    refused(compile_model(mlp, tmp_path), r"mlp\.onnx\.data", "--weights|folder")


def run_mlp(plan, folder, *flags, **inputs):
    inputs = inputs or tools.mlp_inputs(16)
    arguments = []
    for name, array in inputs.items():
        np.save(folder / f"{name}.npy", array)
        arguments += ["--input", f"{name}={folder / name}.npy"]
    return tools.start("dshard-run", plan, *arguments, *flags)


def test_weights_missing_at_run_time(plan, mlp, tmp_path):
    mlp.with_name("mlp.onnx.data").unlink()
    refused(run_mlp(plan, tmp_path), r"mlp\.onnx\.data", "--random-weights|--weights")


def test_weights_too_short_at_run_time(plan, mlp, tmp_path):
    os.truncate(mlp.with_name("mlp.onnx.data"), 50000)
    refused(run_mlp(plan, tmp_path), r"mlp\.onnx\.data")


def test_weights_changed_since_compilation(plan, mlp, tmp_path):
    tools.fill_weights(mlp, seed=1)
    refused(run_mlp(plan, tmp_path), r"mlp\.onnx\.data|_proj\.weight", "changed")


def test_plan_compiled_without_weights_needs_them(tmp_path):
    model = tmp_path / "mlp.onnx"
    shutil.copyfile(tools.MODELS / "mlp.onnx", model)
    tools.compile_plan(model, tmp_path / "mlp.dsplan", "tp=2", MLP)
    refused(run_mlp(tmp_path / "mlp.dsplan", tmp_path), r"mlp\.onnx\.data", "--random-weights")


# ---- the graph


def test_undefined_input(tmp_path):
    model = small_model(tmp_path, [helper.make_node("Relu", ["nowhere"], ["y"], name="act")])
    refused(compile_model(model, tmp_path), "nowhere", "act")


def test_cycle(tmp_path):
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
        helper.make_node("Relu", ["b"], ["y"], name="third"),
    ]
    refused(compile_model(small_model(tmp_path, nodes), tmp_path), "cycle", "first|second")


def test_unknown_ops_are_listed_together(tmp_path):
    nodes = [
        helper.make_node("Wobble", ["x"], ["a"], name="one", domain="my.ops"),
        helper.make_node("Jiggle", ["a"], ["b"], name="two", domain="my.ops"),
        helper.make_node("Wobble", ["b"], ["y"], name="three", domain="my.ops"),
    ]
    model = small_model(tmp_path, nodes, (("", 20), ("my.ops", 1)))
    refused(compile_model(model, tmp_path), "Wobble", "Jiggle")


def test_unbound_symbolic_dim(mlp, tmp_path):
    refused(compile_model(mlp, tmp_path, dims={}), "batch", "--dim batch=")


def test_batch_of_nothing(mlp, tmp_path):
    refused(compile_model(mlp, tmp_path, dims={"batch": 0}), "--dim batch=0", "'y'", "0x64", "at least 1")


def test_dim_that_the_model_does_not_have(mlp, tmp_path):
    refused(compile_model(mlp, tmp_path, dims={"batch": 16, "sequence": 3}), "sequence", "batch")


# ---- mesh and tensor-parallel plan


def test_heads_not_divisible(filled, tmp_path):
    done = compile_model(filled("llama"), tmp_path, "--mesh=tp=3", dims={"batch": 2, "seq": 16})
    refused(done, "8 heads are not divisible by tp=3")


def test_features_not_divisible(mlp, tmp_path):
    plan = f"--tp-plan={tools.MODELS / 'mlp-tp.json'}"
    refused(compile_model(mlp, tmp_path, "--mesh=tp=3", plan), "256|64", "tp=3")


def test_unknown_axis(mlp, tmp_path):
    refused(compile_model(mlp, tmp_path, "--mesh=warp=2"), "warp", "tp")


@pytest.mark.parametrize("mesh", ["tp=0", "tp=-1", "tp=2,tp=2"])
def test_bad_mesh(mesh, mlp, tmp_path):
    done = compile_model(mlp, tmp_path, f"--mesh={mesh}")
    assert done.status in (1, 2) and len(done.lines()) == 1, done.stderr
    assert "tp" in done.stderr


def test_ranks_that_do_not_fit_the_mesh(mlp, tmp_path):
    refused(compile_model(mlp, tmp_path, "--mesh=tp=2", "--ranks=3"), "3", "2")


def test_plan_key_that_matches_nothing(mlp, tmp_path):
    (tmp_path / "tp.json").write_text(json.dumps({"up_porj": "colwise", "down_proj": "rowwise"}))
    refused(compile_model(mlp, tmp_path, "--mesh=tp=2", f"--tp-plan={tmp_path / 'tp.json'}"), "up_porj", "up_proj")


def test_unknown_style(mlp, tmp_path):
    (tmp_path / "tp.json").write_text(json.dumps({"up_proj": "sideways", "down_proj": "rowwise"}))
    done = compile_model(mlp, tmp_path, "--mesh=tp=2", f"--tp-plan={tmp_path / 'tp.json'}")
    refused(done, "sideways", "colwise")


def test_plan_file_that_is_not_json(mlp, tmp_path):
    (tmp_path / "tp.json").write_text("{up_proj: colwise")
    refused(compile_model(mlp, tmp_path, "--mesh=tp=2", f"--tp-plan={tmp_path / 'tp.json'}"), r"tp\.json")


def test_plan_name_that_does_not_exist(mlp, tmp_path):
    refused(compile_model(mlp, tmp_path, "--mesh=tp=2", "--tp-plan=lama"), "lama", "llama")


# ---- data parallel, fully sharded, sequence parallel


def test_batch_that_the_data_axes_do_not_divide(mlp, tmp_path):
    done = compile_model(mlp, tmp_path, "--mesh=dp_replicate=2,dp_shard=2", dims={"batch": 6})
    refused(done, "input 'x': batch dim 0 of size 6 is not divisible by dp_replicate=2, dp_shard=2", "4, 8")


def test_no_batch_dim(mlp, tmp_path):
    done = compile_model(mlp, tmp_path, "--mesh=dp_shard=2", "--dims", "x=none,hidden", dims={"none": 16})
    refused(done, "dp_shard=2 shard the batch, but no input has a batch dim", "--dims INPUT=batch")


def test_ranks_that_the_mesh_does_not_divide(filled, tmp_path):
    done = compile_model(filled("llama-small"), tmp_path, "--mesh=tp=2", "--ranks=5", dims={"batch": 2, "seq": 16})
    refused(done, "--ranks=5", "2 ranks")


def test_unknown_fully_sharded_mode(mlp, tmp_path):
    done = compile_model(mlp, tmp_path, "--mesh=dp_shard=2", "--fsdp=weights")
    refused(done, "unknown fully-sharded mode 'weights'", "none, optimizer, gradients, parameters")


def test_unit_that_matches_nothing(filled, tmp_path):
    done = compile_model(
        filled("llama-small"), tmp_path, "--mesh=dp_shard=2", "--fsdp-unit=model.layer.*", dims={"batch": 2, "seq": 16}
    )
    refused(done, r"--fsdp-unit=model\.layer\.\* matches no module", r"model\.layers\.\*")


def test_sequence_parallel_without_tp(filled, tmp_path):
    done = compile_model(
        filled("llama-small"), tmp_path, "--mesh=dp_shard=2", "--sequence-parallel", dims={"batch": 2, "seq": 16}
    )
    refused(done, "--sequence-parallel shards over tp, which has size 1", "--mesh=tp=N")


def test_sequence_that_tp_does_not_divide(filled, tmp_path):
    done = compile_model(
        filled("llama-small"), tmp_path, "--mesh=tp=2", "--sequence-parallel", dims={"batch": 2, "seq": 15}
    )
    refused(done, "sequence dim 1 of size 15", "tp=2", "14, 16")


@pytest.mark.parametrize("mesh", ["cp=2", "dp_shard=2,cp=2"])
def test_no_sequence_for_cp(mesh, mlp, tmp_path):
    refused(compile_model(mlp, tmp_path, f"--mesh={mesh}"), "cp=2 shards the sequence", "--dims INPUT=batch,seq")


def test_sequence_that_cp_does_not_divide(filled, tmp_path):
    done = compile_model(filled("llama-small"), tmp_path, "--mesh=cp=2", dims={"batch": 2, "seq": 18})
    refused(done, "'input_ids': sequence dim 1 of size 18", "4 \\(2 \\* cp=2, layout zigzag\\)", "16, 20")


@pytest.mark.parametrize("flag", ["--pack-weights", "--hash-weights"])
def test_what_is_not_built_is_refused(flag, mlp, tmp_path):
    refused(compile_model(mlp, tmp_path, flag), flag.split("=")[0], "not built")


def test_training_configuration_that_is_not_there(mlp, tmp_path):
    refused(compile_model(mlp, tmp_path, "--train=config.json"), "--train: config.json", "No such file")


@pytest.mark.parametrize("arguments", [["--frobnicate"], ["--dim", "batch"], ["--mesh"]])
def test_wrong_command_line_is_status_2(arguments, mlp):
    done = tools.start("dshard-opt", mlp, *arguments)
    assert done.status == 2 and len(done.lines()) == 1, done.stderr


# ---- inputs at run time


def test_input_of_wrong_name(plan, tmp_path):
    refused(run_mlp(plan, tmp_path, z=np.zeros((16, 64), np.float32)), "'?z'?", "'?x'?")


def test_input_of_wrong_shape(plan, tmp_path):
    refused(run_mlp(plan, tmp_path, x=np.zeros((16, 63), np.float32)), "x", "63", "64")


def test_input_of_wrong_dtype(plan, tmp_path):
    refused(run_mlp(plan, tmp_path, x=np.zeros((16, 64), np.float64)), "x", "f64|float64", "f32|float32")


def test_input_not_given(plan, tmp_path):
    refused(tools.start("dshard-run", plan), "x", "--input")


def test_input_file_that_is_no_npy(plan, tmp_path):
    (tmp_path / "x.npy").write_text("not an array")
    refused(tools.start("dshard-run", plan, "--input", f"x={tmp_path / 'x.npy'}"), r"x\.npy", "npy")


@pytest.mark.parametrize("mesh", ["tp=2", "dp_shard=2,tp=2", "cp=2,tp=2"])
def test_token_id_outside_the_vocabulary(mesh, filled, tmp_path):
    plan = tmp_path / "llama.dsplan"
    tools.compile_plan(filled("llama-small"), plan, mesh, {"batch": 2, "seq": 16})
    inputs = tools.llama_inputs(256, 2, 16)
    inputs["input_ids"][1, 3] = 256
    refused(run_mlp(plan, tmp_path, **inputs), "input_ids", "256", "255|\\[0, 256\\)")


# ---- the plan file


def test_plan_missing(tmp_path):
    refused(run_mlp(tmp_path / "absent.dsplan", tmp_path), r"absent\.dsplan")


@pytest.mark.parametrize("keep", [0, 10, 64, 1000, -1])
def test_plan_truncated(keep, plan, tmp_path):
    plan.write_bytes(plan.read_bytes()[:keep])
    refused(run_mlp(plan, tmp_path), r"mlp\.dsplan")


@pytest.mark.parametrize("place", [0, 5, 40, 55, 100, 0.3, 0.6, 0.999])
def test_plan_altered(place, plan, tmp_path):
    data = bytearray(plan.read_bytes())
    data[int(len(data) * place) if isinstance(place, float) else place] ^= 0x10
    plan.write_bytes(data)
    refused(run_mlp(plan, tmp_path), r"mlp\.dsplan")
    refused(tools.start("dshard-plan", "verify", plan), r"mlp\.dsplan")


CHECKSUM = r"""
#define XXH_INLINE_ALL
#include <xxhash.h>
#include <cstdio>
#include <vector>
int main(int, char **argv) {  // rewrites the checksum of a plan file
  FILE *file = fopen(argv[1], "r+b");
  std::vector<unsigned char> data;
  for (int c; (c = fgetc(file)) != EOF;)
    data.push_back(c);
  XXH3_state_t *state = XXH3_createState();
  XXH3_128bits_reset(state);
  XXH3_128bits_update(state, data.data(), 48);
  XXH3_128bits_update(state, data.data() + 64, data.size() - 64);
  XXH128_hash_t hash = XXH3_128bits_digest(state);
  fseek(file, 48, SEEK_SET);
  fwrite(&hash.low64, 8, 1, file);
  fwrite(&hash.high64, 8, 1, file);
  fclose(file);
}
"""


def test_plan_for_another_cpu(plan, tmp_path):
    """A plan whose required CPU feature this machine has under no name: 'avx2' becomes 'avx9'."""
    (tmp_path / "checksum.cpp").write_text(CHECKSUM)
    rehash = tmp_path / "checksum"
    subprocess.run(["g++", "-O1", str(tmp_path / "checksum.cpp"), "-o", str(rehash)], check=True)
    original = plan.read_bytes()
    subprocess.run([str(rehash), str(plan)], check=True)
    assert plan.read_bytes() == original, "the test's checksum is not the format's"
    assert original.count(b"avx2\0") == 1
    plan.write_bytes(original.replace(b"avx2\0", b"avx9\0"))
    subprocess.run([str(rehash), str(plan)], check=True)
    refused(run_mlp(plan, tmp_path), "avx9", "CPU")
