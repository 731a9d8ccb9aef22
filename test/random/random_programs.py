#!/usr/bin/env python3
"""Random programs x meshes x shardings: every pass must keep the value.

usage: random_programs.py [--count 200] [--seed 0] [--op OP] [--failures DIR] [--no-plans] [--no-shrink]

Program SEED is the same in every run; the seeds are --seed, --seed + 1, ... Of twenty,
nine are annotated programs of 2 to 40 ops, two such programs whose ops are first taken
apart and raised again (graph phase), two such programs in fp32 that are also compiled
into a plan and executed, two the gradients of such programs (one of them executed), four
are resolved programs of reshards between pairs of layouts, and one reshards at random.
Annotated programs have repeats (with accumulators that stay partial) and attention over a
sequence that lies on the ranks, by every method and layout. With --op, the first --count
of those programs in which OP is.

A failure is shrunk; the program and the command that shows it go to --failures. Ends
with what was refused, by message, and the coverage: programs per registered op, and
pairs of layouts. Exit status 1 if a program differs or crashes, if more than a tenth
are refused, or (from 200 programs on) below full coverage.
"""

import argparse
import collections
import itertools
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import checker
import generator
import op_coverage
import reshard_pairs
import shrinker

BATCH = 20
FULL_COVERAGE_FROM = 200


def family_of(seed):
    pairs, plans, graphs = dict.fromkeys((3, 8, 13, 18), "pairs"), dict.fromkeys((6, 16), "plan"), dict.fromkeys((1, 11), "graph")
    gradients = {4: "gradients", 14: "gradient plans"}
    return {**pairs, **plans, **graphs, **gradients, 10: "reshards"}.get(seed % 20, "annotated")


def program_of(seed):
    family = family_of(seed)
    if family == "pairs":
        program = reshard_pairs.generate(seed, seed // 5)
    elif family == "reshards":
        program = reshard_pairs.generate_random(seed)
    else:
        program = generator.generate(seed, "plan" in family, family == "graph", "gradient" in family)
    checker.choose_flags(program, graph=family == "graph")
    return program


def seeds_of(seed, count, op=None):
    """`count` seeds from `seed` on; only those whose program has `op`, if one is given."""
    numbers = itertools.count(seed)
    if op:
        numbers = (n for n in numbers if any(node.op == op for node in program_of(n).all_nodes()))
    return list(itertools.islice(numbers, count))


def features_of(program):
    """What a program has beyond its ops, that is easily lost from a generator."""
    found = set()
    reads = collections.Counter(id(operand) for node in program.all_nodes() for operand in node.operands)
    if any(count > 1 for count in reads.values()):
        found.add("a value read more than once")
    values = program.arguments + [result for node in program.all_nodes() for result in node.results]
    shardings = [value.sharding for value in values if value.sharding]
    shardings += [s for _, s in program.outputs if s] + [node.target for node in program.all_nodes() if node.target]
    if any(1 in value.shape for value in values):
        found.add("a dim of size 1")
    if any(piece.size != program.mesh[piece.name] for s in shardings for piece in s.pieces()):
        found.add("a sub-axis")
    if any(len(pieces) > 1 for s in shardings for pieces in s.dims):
        found.add("a dim over two axes")
    if any(s.partial for s in shardings):
        found.add("a partial value")
    if any(any(s.open) for s in shardings):
        found.add("an open dim")
    for size in program.mesh.values():
        found.add(f"an axis of size {size}")
    if any(value.sharding and not value.sharding.fits(value.shape) for value in values):
        found.add("a padded vocabulary")
    if "--dshard-fully-shard" in program.flags and program.mesh.get("dp_shard", 1) > 1:
        if any(argument.weight for argument in program.arguments):
            found.add("a parameter stored sharded")
    for node in program.all_nodes():
        x = node.operands[0] if node.operands else None
        if node.op == "attention":
            if x.shape[1] > node.operands[1].shape[1] > 1:
                found.add("grouped heads")
            if len(node.operands) > 3:
                found.add("a key padding")
            if "causal" in node.attributes:
                found.add("a causal mask")
            method = re.search(r'cp_method = "(\w+)"', node.attributes)
            if method:
                found.add(f"a sequence on the ranks, {method.group(1)}")
        if node.op == "reshape" and x.sharding:
            result = node.results[0].shape
            same = [i for i, (a, b) in enumerate(zip(x.shape, result)) if x.shape[: i + 1] == result[: i + 1]]
            first = len(same)
            if first < len(x.shape) and x.sharding.dims[first] and first < len(result):
                found.add("a split of a sharded dim" if result[first] < x.shape[first] else "a merge of a sharded dim")
        if len(node.operands) == 2 and node.op in ("add", "sub", "mul", "max", "min") and x.shape != node.operands[1].shape:
            found.add("a broadcast operand")
    return found


FEATURES = {
    "a value read more than once", "a dim of size 1", "a sub-axis", "a dim over two axes", "a partial value",
    "an open dim", "a padded vocabulary", "a parameter stored sharded", "grouped heads", "a key padding", "a causal mask",
    "a partial accumulator", *(f"a sequence on the ranks, {method}" for method in ("ring", "all_gather", "all_to_all", "hierarchical")),
    "a split of a sharded dim", "a merge of a sharded dim", "a broadcast operand",
    *(f"an axis of size {size}" for size in (1, 2, 3, 4, 8)),
}


class Tally:
    def __init__(self):
        self.kinds = collections.Counter()
        self.families = collections.Counter()
        self.refused = collections.Counter()
        self.ops = collections.Counter()
        self.features = collections.Counter()
        self.pairs = collections.Counter()
        self.meshes = collections.Counter()
        self.failures = []  # (seed, verdict, path)
        self.sizes = []

    def add(self, program, verdict):
        self.kinds[verdict.kind] += 1
        if verdict.kind == "refused":
            self.refused[f"{verdict.where}: {verdict.summary()}"] += 1
        if verdict.kind != "equal":
            return
        self.families[family_of(program.seed)] += 1
        self.ops.update(verdict.ops)
        self.features.update(features_of(program) | verdict.features)
        self.pairs.update(program.pairs)
        self.meshes[" ".join(f"{name}={size}" for name, size in program.mesh.items() if size > 1)] += 1
        self.sizes.append(len(program.nodes))

    @property
    def count(self):
        return sum(self.kinds.values())

    def missing(self):
        """What full coverage lacks, in words."""
        required = [op for op in op_coverage.registered_ops() if op not in op_coverage.ELSEWHERE]
        lacks = [f"op {op} in no program" for op in required if not self.ops[op]]
        lacks += [f"op {op} is made by a pass now: generate it" for op in op_coverage.ELSEWHERE if self.ops[op]]
        lacks += [f"no reshard from {a} to {b}" for a, b in reshard_pairs.PAIRS if not self.pairs[a, b]]
        lacks += [f"no program with {feature}" for feature in sorted(FEATURES) if not self.features[feature]]
        return lacks

    def report(self):
        def table(counter):
            return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))

        required = [op for op in op_coverage.registered_ops() if op not in op_coverage.ELSEWHERE]
        reached = [op for op in required if self.ops[op]]
        pairs = [pair for pair in reshard_pairs.PAIRS if self.pairs[pair]]
        print(f"programs: {table(self.families)}; ops {min(self.sizes, default=0)} to {max(self.sizes, default=0)}")
        print("programs per op:", table({op: self.ops[op] for op in required}))
        print("elsewhere:", "; ".join(f"{op} ({where})" for op, where in op_coverage.ELSEWHERE.items()))
        print("features:", table(self.features))
        print(f"meshes: {len(self.meshes)} kinds, up to 8 ranks")
        print(f"coverage of registered ops: {len(reached)} of {len(required)} ({100 * len(reached) / len(required):.0f} %)")
        print(f"coverage of reshard pairs: {len(pairs)} of {len(reshard_pairs.PAIRS)} ({100 * len(pairs) / len(reshard_pairs.PAIRS):.0f} %)")
        for message, count in self.refused.most_common():
            print(f"refused {count}: {message}")
        print(f"{self.count} programs: " + ", ".join(f"{count} {kind}" for kind, count in self.kinds.items()))

    def verdict(self, coverage=True):
        """Why the run is red, in words; empty if it is green."""
        why = [f"seed {seed}: {v.kind} in {v.where}: {v.message} ({path})" for seed, v, path in self.failures]
        if self.kinds["refused"] * 10 > self.count:
            why.append(f"{self.kinds['refused']} of {self.count} programs refused")
        if coverage and self.count >= FULL_COVERAGE_FROM:
            why += self.missing()
        return why


def keep_failure(program, verdict, folder, failures, plan, shrink, limit=300):
    """Shrinks and writes SEED.mlir, whose first lines say the failure and the command."""
    work = folder / "shrink"

    def still_fails(smaller):
        return checker.check(smaller, work, plan).same_failure(verdict)

    if shrink:
        program = shrinker.shrink(program, still_fails, limit)
        found = checker.check(program, work, plan)
        verdict = found if found.failed else verdict
    failures.mkdir(parents=True, exist_ok=True)
    path = failures / f"{program.seed}.mlir"
    lines = [f"seed {program.seed}: {verdict.kind} in {verdict.where}: {verdict.message}"]
    for name, array in program.arrays().items():
        lines.append(f"input {name}: {array.tolist()}")
    for command in verdict.commands:
        lines.append(" ".join(command).replace(str(work), "DIR"))
    lines.append(f"again: test/random/random_programs.py --seed {program.seed} --count 1")
    path.write_text("".join(f"// {line}\n" for line in lines) + program.text())
    return path


def run(seed, count, failures, plans=True, shrink=True, progress=False, op=None):
    tally = Tally()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="dshard-random-"))
    groups = collections.defaultdict(list)
    for number in seeds_of(seed, count, op):
        family = family_of(number)
        groups["resolved" if family in ("pairs", "reshards") else family].append(number)
    for group, seeds in groups.items():
        plan = plans and "plan" in group
        for start in range(0, len(seeds), BATCH):
            programs = [program_of(number) for number in seeds[start : start + BATCH]]
            for program, verdict in zip(programs, checker.check_batch(programs, folder, plan)):
                tally.add(program, verdict)
                if verdict.failed:
                    path = keep_failure(program, verdict, folder, failures, plan, shrink)
                    tally.failures.append((program.seed, verdict, path))
                    print(f"seed {program.seed}: {verdict.kind} in {verdict.where}: {verdict.message}; see {path}", flush=True)
            if progress:
                print(f"{group}: {min(start + BATCH, len(seeds))} of {len(seeds)}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    return tally


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--op", choices=sorted(generator.MAKERS), metavar="OP", help="only programs with this op, e.g. softmax")
    build = pathlib.Path(os.environ.get("TESTED_BUILD", checker.ROOT / "build"))
    parser.add_argument("--failures", type=pathlib.Path, default=build / "random-failures")
    parser.add_argument("--no-plans", action="store_true", help="compile no plans, execute nothing")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--print", action="store_true", help="only print the program of --seed")
    options = parser.parse_args()
    if options.print:
        print(program_of(options.seed).text())
        return 0
    start = time.monotonic()
    tally = run(options.seed, options.count, options.failures, not options.no_plans, not options.no_shrink, True, options.op)
    tally.report()
    why = tally.verdict(coverage=not options.op)
    for line in why:
        print("FAILED", line)
    print(f"{time.monotonic() - start:.0f} s")
    return 1 if why else 0


if __name__ == "__main__":
    sys.exit(main())
