"""Run the official ONNX node cases through the compiler and the runtime.

Every case is generated from the pinned onnx package (once, 15 s, into build/onnx-cases), compiled, run on one rank and
compared: types and shapes equal, rtol 1e-3, atol 1e-7 (bfloat16: rtol 2^-6). Inputs that must be known at compile
time, as a Reshape's shape, are fixed with --const; the rest are inputs of the plan.
With --sharded every dim of every input that 2 (or 4) divides is, one at a time, also sharded over 2 (or 4) ranks.

A case ends as
  passed   all outputs are right
  refused  one line says what is not supported
  wrong    an output differs, or an error that calls itself a defect
  crashed  the process died, or gave no answer in time
"""

import argparse
import collections
import json
import os
import pathlib
import re
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

import cases
import pool
import report

VERDICTS = ("passed", "refused", "wrong", "crashed")

EXAMPLES = """examples:
  scripts/onnx-suite                                   all cases, whole: a minute or two
  scripts/onnx-suite --sharded                         also sharded: several minutes
  scripts/onnx-suite --filter 'test_(add|mul)' --sharded
  scripts/onnx-suite --list wrong,crashed              names and reasons
  scripts/onnx-suite --list refused --filter resize
  scripts/onnx-suite --reasons                         what is missing, by number of cases
  scripts/onnx-suite --write                           writes docs/onnx-coverage.md
  build/bin/dshard-opt build/onnx-cases/1.23.2/test_add/model.onnx --to=import     look at one

exit status: 0 nothing wrong or crashed, 1 something is, 2 the command line is wrong
"""


def parse(arguments):
    parser = argparse.ArgumentParser(prog="onnx-suite", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filter", metavar="REGEX", help="only the cases whose name matches")
    parser.add_argument("--sharded", action="store_true", help="also shard every dim of every input, of the cases that pass")
    parser.add_argument("--list", metavar="VERDICT", help="print the names (passed, refused, wrong, crashed; several with commas)")
    parser.add_argument("--reasons", action="store_true", help="print what is missing, by number of cases")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="worker processes (default: one per core)")
    parser.add_argument("--build", metavar="DIR", help="build folder (default: build)")
    parser.add_argument("--write", action="store_true", help="write docs/onnx-coverage.md from a whole run")
    parser.add_argument("--check", action="store_true", help="fail if docs/onnx-coverage.md is out of date")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="with --sharded: shard only every N-th case that passes")
    parser.add_argument("--results", metavar="FILE", help="write all results as JSON")
    chosen = parser.parse_args(arguments)
    if chosen.list and set(chosen.list.split(",")) - set(VERDICTS):
        parser.error(f"--list {chosen.list}: the verdicts are {', '.join(VERDICTS)}")
    if (chosen.write or chosen.check) and chosen.filter:
        parser.error("--write and --check need all cases; leave --filter out")
    if chosen.every < 1:
        parser.error("--every needs at least 1")
    if chosen.jobs < 1:
        parser.error("--jobs needs at least 1")
    try:
        re.compile(chosen.filter or "")
    except re.error as error:
        parser.error(f"--filter: {error}")
    return chosen


class Progress:
    def __init__(self, title):
        self.title, self.start, self.last = title, time.monotonic(), 0.0
        self.tty = sys.stderr.isatty()

    def __call__(self, done, count):
        now = time.monotonic()
        if now - self.last < (0.2 if self.tty else 15) and done < count:
            return
        self.last = now
        end = "\r" if self.tty and done < count else "\n"
        print(f"{self.title}: {done} of {count}, {now - self.start:.0f} s", file=sys.stderr, end=end, flush=True)


def run_whole(names, folder, chosen):
    """name -> (verdict, reason, bound inputs)."""
    found = pool.run([(n, "whole", (n,)) for n in names], folder, chosen.build, chosen.jobs, Progress("whole"))
    return {n: ("crashed", describe(r), []) if isinstance(r, Exception) else tuple(r) for n, r in sorted(found.items())}


def describe(error):
    return str(error) if isinstance(error, pool.Crash) else f"the suite itself: {type(error).__name__}: {error}"


def run_sharded(whole, folder, chosen):
    """name -> [(input, dim, ranks, verdict, reason)] of those that passed whole."""
    tasks = [(n, "sharded", (n, bound)) for n, (verdict, _, bound) in whole.items() if verdict == "passed"][:: chosen.every]
    found = pool.run(tasks, folder, chosen.build, chosen.jobs, Progress("sharded"))
    return {n: [("", 0, 0, "crashed", describe(r))] if isinstance(r, Exception) else [tuple(x) for x in r] for n, r in sorted(found.items())}


def worst(verdicts):
    return max(verdicts, key=VERDICTS.index, default="passed")


def count(verdicts):
    counted = collections.Counter(verdicts)
    return ", ".join(f"{counted[v]} {v}" for v in VERDICTS)


def main(arguments):
    chosen = parse(arguments)
    if not (cases.cache_folder() / "index.json").exists():
        print("generating the cases", file=sys.stderr, flush=True)
    ops = cases.index()
    folder = cases.cache_folder()
    names = [n for n in ops if re.search(chosen.filter or "", n)]
    if not names:
        print(f"onnx-suite: no case matches '{chosen.filter}'", file=sys.stderr)
        return 2
    main_ops = cases.main_ops(ops)

    whole = run_whole(names, folder, chosen)
    sharded = run_sharded(whole, folder, chosen) if chosen.sharded else None
    asked = set((chosen.list or "").split(",")) | {"wrong", "crashed"}
    for name, (verdict, reason, _) in whole.items():
        if verdict in asked:
            print(f"{verdict}: {name}" + (f": {reason}" if reason else ""))
    for name, results in (sharded or {}).items():
        for target, dim, ranks, verdict, reason in results:
            if verdict in asked - {"passed"}:
                print(f"{verdict} sharded: {name}: dim {dim} of '{target}' over {ranks}: {reason}")
    if chosen.reasons:
        print(report.reasons(whole, main_ops))
    print(f"whole: {len(whole)} cases: {count(v for v, _, _ in whole.values())}")
    bad = [v for v, _, _ in whole.values() if v in ("wrong", "crashed")]
    if sharded is not None:
        shardable = {n: r for n, r in sharded.items() if r}
        runs = [x[3] for r in shardable.values() for x in r]
        print(f"sharded: {len(shardable)} cases with a dim to shard: {count(worst([x[3] for x in r]) for r in shardable.values())}")
        print(f"sharded: {len(runs)} ways: {count(runs)}")
        bad += [v for v in runs if v in ("wrong", "crashed")]
    if chosen.results:
        pathlib.Path(chosen.results).write_text(json.dumps({"whole": whole, "sharded": sharded}, indent=1))
    path = cases.ROOT / "docs" / "onnx-coverage.md"
    if chosen.write:
        path.write_text(report.page(whole, main_ops))
        print(f"wrote {path.relative_to(cases.ROOT)}")
    if chosen.check and (not path.exists() or path.read_text() != report.page(whole, main_ops)):
        print("docs/onnx-coverage.md is out of date; cure: scripts/onnx-suite --write")
        return 1
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
