"""The plans that the end-to-end tests compute with: a mesh and further flags of the compiler, "dp_shard=2,tp=2
--sequence-parallel". The tests of the CPU take their lists from here, and test_cuda runs the twin of each."""

# test_against_onnxruntime
TENSOR = ["", "tp=1", "tp=2", "tp=4"]
ODD_BATCHES = [1, 3, 17]  # of the MLP, on tp=2
ODD_SHAPES = [(1, 2), (1, 7), (3, 33)]  # batch and sequence of the Llama, on tp=2
SIXTEEN_BIT = ["", "tp=2", "tp=4"]
LLAMA_TENSOR = ["", "tp=2", "tp=4"]
# A bound is relative to the largest logit, as in fp32; the mean is much smaller. For scale: PyTorch's own
# bf16 run of this model is up to 0.041 from its fp64 run, 0.0058 in the root mean square.
SIXTEEN_BIT_BOUNDS = {"bf16": 2.5e-2, "fp16": 5e-3}

# test_fully_sharded
SHARDED = [
    "dp_shard=2",
    "dp_shard=2,tp=2",
    "dp_shard=2,tp=2 --sequence-parallel",
    "dp_replicate=2,tp=2",
    "dp_replicate=2,tp=2 --sequence-parallel",
    "dp_replicate=2,dp_shard=2",
    "tp=2 --sequence-parallel",
]
SHARDED_SMALL = SHARDED + ["dp_shard=4", "dp_replicate=2,dp_shard=2,tp=2 --sequence-parallel"]
FSDP_MODES = ["none", "optimizer", "gradients", "parameters"]  # on dp_shard=2
# Rows divide; columns do (the gather is along dim 1); nothing does (padded, and the gather crops).
LINEAR_SHAPES = [(8, 7), (5, 8), (5, 7), (3, 1)]
LINEAR = ["dp_shard=2", "dp_shard=4", "dp_replicate=2,dp_shard=2"]

# test_context_parallel
CONTEXT = ["cp=2", "cp=4", "cp=2,tp=2", "dp_shard=2,cp=2", "cp=2,tp=2 --sequence-parallel"]
CONTEXT_WAYS = [
    f"cp={cp} {way}"
    for cp in (2, 4)
    for way in (
        "--cp-method=ring --cp-layout=contiguous",
        "--cp-method=ring --cp-layout=striped",
        "--cp-method=all_gather",
        "--cp-method=all_gather --cp-layout=contiguous",
        "--cp-method=hierarchical",
        "--cp-method=hierarchical --cp-layout=contiguous",
    )
]
LLAMA_CONTEXT = ["cp=2", "cp=4", "cp=2,tp=2"]
LLAMA_CONTEXT_METHODS = ["ring", "all_gather"]
# Four ranks do not divide the two KV heads: see test_context_parallel.test_refusals.
CONTEXT_WAYS += ["cp=2 --cp-method=all_to_all", "cp=2 --cp-method=all_to_all --cp-layout=striped"]

# test_bias
BIAS_CONTEXT = ["cp=2", "cp=2 --cp-layout=striped", "cp=2 --cp-method=all_gather", "cp=2 --cp-method=all_to_all", "cp=2,tp=2"]

# test_pipeline, each with each number of micro-batches
MICRO_BATCHES = [1, 2, 4]
PIPELINE_MLP = ["pp=2", "pp=2,tp=2", "pp=3", "pp=2,dp_shard=2"]  # with --pp-split=cost
PIPELINE = [
    "pp=2",
    "pp=2,tp=2",
    "pp=2,tp=2 --sequence-parallel",
    "pp=2,dp_shard=2",
    "pp=2,dp_replicate=2,tp=2",
    "pp=2,tp=2 --pp-split=cost",
]

LLAMA_PIPELINE = [("pp=2", 1), ("pp=2", 2), ("pp=2,tp=2", 1), ("pp=2,tp=2", 4), ("pp=4", 4)]

# test_training_runs: gradients of the Llama, and skipped steps of the MLP
TRAINING = [
    "",
    "dp_shard=2",
    "dp_shard=2,tp=2",
    "dp_shard=2,tp=2 --sequence-parallel",
    "dp_replicate=2,tp=2",
    "dp_replicate=2,tp=2 --sequence-parallel",
    "tp=2",
    "dp_shard=2 --fsdp=none",
    "dp_shard=2 --fsdp=optimizer",
    "dp_shard=2 --fsdp=gradients",
    "dp_shard=2,tp=2 --micro-batches=2",
    "--micro-batches=2",
]
TRAINING_MLP = ["", "tp=2", "dp_shard=2,tp=2"]
# Norms alone are trained.
FROZEN = ["dp_shard=2", "dp_shard=2,tp=2", "dp_shard=2 --fsdp=none", "dp_shard=2 --fsdp=optimizer", "--micro-batches=2"]
TIED = ["", "dp_shard=2", "--micro-batches=4"]
CHARACTERS = [
    "dp_shard=2",
    "dp_shard=2,tp=2",
    "dp_shard=2,tp=2 --sequence-parallel",
    "dp_replicate=2,tp=2",
    "dp_replicate=2,tp=2 --sequence-parallel",
]
# test_training_tool: the storage of a dim of 64 is 66
PADDED_TRAINING = "dp_shard=3"


def split(text):
    """The mesh, and the list of flags behind it."""
    words = text.split()
    mesh = words.pop(0) if words and not words[0].startswith("-") else ""
    return mesh, words


def ranks_of(text):
    ranks = 1
    for axis in filter(None, split(text)[0].split(",")):
        ranks *= int(axis.split("=")[1])
    return ranks
