"""Context parallelism keeps the value of random programs, whatever dims their inputs call
the sequence: before and after the strategy, and on cp ranks."""

import random

import checker
import generator

LAYOUTS = ["zigzag", "zigzag", "striped", "contiguous"]
FLAGS = checker.RESOLVE + checker.LOCAL + checker.SCHEDULE
# Ops that say of themselves how they are sharded, or that belong to a training step.
LEFT_OUT = {"repeat", "if", "gradient", "cross_entropy", "adamw"}


def with_sequences(seed):
    """Program `seed` without its shardings, on a mesh of cp, as text; None where no input can
    be a sequence or it has an op that is left out."""
    r = random.Random(seed)
    program = generator.generate(seed)
    nodes = program.all_nodes()
    if any(node.op in LEFT_OUT or "window" in node.attributes or "cp_method" in node.attributes for node in nodes):
        return None
    cp = r.choice([2, 2, 3, 4])
    program.mesh, program.links = {"cp": cp}, {}
    program.outputs = [(value, None) for value, _ in program.outputs]
    for value in program.arguments + [result for node in nodes for result in node.results]:
        value.sharding = None
    for node in nodes:
        if node.op == "reshard":
            node.op, node.target = "reshape", None
    text, found = program.text(), False
    for argument in program.arguments:
        names = ["none"] * len(argument.shape)
        dims = [i for i, size in enumerate(argument.shape) if size and size % (2 * cp) == 0]
        if dims and argument.role == "input" and not argument.weight and r.random() < 0.6:
            names[r.choice(dims)], found = "seq", True
        listed = ", ".join(f'"{name}"' for name in names)
        text = text.replace(f'{{dshard.name = "{argument.name}"', f'{{dshard.dim_names = [{listed}], dshard.name = "{argument.name}"')
    return (program, text, r.choice(LAYOUTS)) if found else None


def run(tool, *arguments):
    done = checker.run([checker.tool(tool), *map(str, arguments)])
    assert done.returncode == 0, f"{' '.join(map(str, arguments))}\n{done.stderr[:2000]}"
    return done


def test_random_programs_keep_their_value(tmp_path):
    seen = reordered = 0
    for seed in range(160):
        made = with_sequences(seed)
        if made is None:
            continue
        program, text, layout = made
        source, ordered, local = (tmp_path / f"{seed}-{phase}.mlir" for phase in ("source", "ordered", "local"))
        source.write_text(text)
        run("dshard-opt", source, f"--dshard-context-parallel=layout={layout}", "-o", ordered)
        run("dshard-opt", ordered, *FLAGS, "-o", local)
        flags = ["--random-weights=1", "--rtol=1e-7", "--atol=1e-9", *checker.write_inputs(program, tmp_path)]
        run("dshard-interpret", source, "--against", ordered, "--against", local, *flags)
        seen += 1
        reordered += "dshard.reorder" in ordered.read_text()
    assert seen > 40 and reordered > 15
