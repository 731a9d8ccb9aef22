"""200 random programs on random meshes keep their values through every pass, their
coverage is complete, and the machine that says so can see a fault and shrink it."""

import pathlib
import re

import pytest

import checker
import op_coverage
import random_programs
import shrinker
import spoiler

SEED = 0


@pytest.fixture(scope="module")
def tally(tmp_path_factory):
    return random_programs.run(SEED, 200, tmp_path_factory.mktemp("failures"), shrink=False)


def test_none_differs(tally):
    tally.report()
    assert [f"seed {seed}: {v.kind} in {v.where}: {v.message}" for seed, v, _ in tally.failures] == []
    assert tally.kinds["refused"] <= tally.count // 10, tally.refused
    assert tally.count == 200


def test_coverage_is_complete(tally):
    assert tally.missing() == []


def test_coverage_can_be_incomplete(tally, monkeypatch):
    """A new op that no program reaches is missed, and one said to be elsewhere that a pass makes."""
    monkeypatch.setattr(op_coverage, "registered_ops", lambda: ["matmul", "brand_new"])
    assert "op brand_new in no program" in tally.missing()
    monkeypatch.setitem(op_coverage.ELSEWHERE, "matmul", "nowhere")
    assert "op matmul is made by a pass now: generate it" in tally.missing()


def test_ops_are_read_from_the_td_files():
    ops = op_coverage.registered_ops()
    assert len(ops) == len(set(ops)) > 60
    assert {"matmul", "neg", "constant", "all_gather", "yield"} <= set(ops)
    assert set(op_coverage.ELSEWHERE) < set(ops)


def test_the_same_seed_gives_the_same_program():
    for seed in range(40):
        assert random_programs.program_of(seed).text() == random_programs.program_of(seed).text()


def sabotage(program, folder, pattern, replacement):
    """The verdict on a program whose last dump is edited; None if nothing matches."""
    folder.mkdir(exist_ok=True)
    compiled, _ = checker.compile_batch([program], program.flags)
    dumps = compiled.get(program.name, [])
    if not dumps:
        return None
    name, text = dumps[-1]
    edited, count = re.subn(pattern, replacement, text, count=1)
    return checker.compare(program, [*dumps[:-1], (name, edited)], folder) if count else None


def test_a_fault_is_seen_and_shrunk(tmp_path):
    """One collective takes the maximum: the program differs, and shrinks to a few ops
    that still differ for that reason."""
    fault = (r"(dshard\.(?:all_reduce|reduce_scatter) +)sum", r"\1max")
    seen = 0
    for seed in range(60):
        if random_programs.family_of(seed) != "annotated":
            continue
        program = random_programs.program_of(seed)
        verdict = sabotage(program, tmp_path / "a", *fault)
        if verdict is None or len(program.nodes) < 8:
            continue
        assert verdict.kind == "different" or not verdict.failed  # a maximum of equal values is no fault
        if not verdict.failed:
            continue
        seen += 1
        assert verdict.where in ("dshard-verify-schedule", "dshard-schedule", "dshard-form-kernels")

        def still_fails(smaller):
            found = sabotage(smaller, tmp_path / "a", *fault)
            return found is not None and found.kind == "different"

        small = shrinker.shrink(program, still_fails)
        assert still_fails(small)
        assert len(small.nodes) <= 3 and len(small.outputs) == 1, small.text()
        break
    assert seen


def test_a_crash_and_a_refusal_are_told_apart(tmp_path):
    program = random_programs.program_of(0)
    program.mesh, program.links = {"tp": 2}, {}
    for value in program.arguments + [result for node in program.nodes for result in node.results]:
        value.sharding = None
    program.outputs = [(value, None) for value, _ in program.outputs]
    for node in program.nodes:
        node.target = node.target and checker_sharding(node.target)
    verdict = checker.check(program, tmp_path / "good")
    assert verdict.kind == "equal", verdict
    program.mesh = {"tp": 7, "pp": 2}  # pp lies in front
    verdict = checker.check(program, tmp_path / "bad")
    assert verdict.kind == "refused" and verdict.message, verdict


def checker_sharding(target):
    return type(target).replicated(len(target.dims))


def test_failures_are_kept(tmp_path):
    """The file of a failure has the seed, the message and the command, and compiles."""
    program = random_programs.program_of(2)
    verdict = checker.Verdict("different", "dshard-partition", "made up", [["dshard-interpret", "x"]])
    path = random_programs.keep_failure(program, verdict, tmp_path, tmp_path / "kept", False, shrink=False)
    text = pathlib.Path(path).read_text()
    assert text.startswith("// seed 2: different in dshard-partition: made up\n")
    assert "--seed 2 --count 1" in text
    path.write_text(text)
    assert checker.run([checker.tool("dshard-opt"), str(path)]).returncode == 0


def test_wrong_programs_are_refused(tmp_path):
    """One clear error, or an equal program; no crash, no other value. Every kind of fault
    is tried and refused at least once."""
    refused = set()
    for seed in range(150):
        program = random_programs.program_of(seed)
        fault, text = spoiler.spoil(program, seed)
        verdict = checker.check_spoiled(program, text, tmp_path)
        assert not verdict.failed, f"seed {seed}, {fault}: {verdict.kind}: {verdict.message}\n{text}"
        if verdict.kind == "refused":
            assert verdict.message[0].islower() or verdict.message[0] in "'\"", verdict.message
            assert not verdict.message.rstrip("\n").endswith("."), verdict.message
            refused.update(fault.split(" and "))
    assert refused == set(spoiler.FAULTS)


def test_passes_are_those_of_the_pipeline():
    """A pass that a phase gains is compared as well."""
    text = (checker.ROOT / "lib" / "Pipelines" / "Phases.cpp").read_text()

    def passes_of(phase):
        body = re.search(rf"case Phase::{phase}:\n(?!  *return)(.*?)break;", text, re.DOTALL).group(1)
        return re.findall(r'"(dshard-[\w-]+|canonicalize)', body)

    def names(flags):
        return [flag[2:].split("=")[0] for flag in flags]

    assert names(checker.RESOLVE) == [passes_of("annotate")[-1]] + passes_of("resolve")
    assert names(checker.LOCAL) == passes_of("local")
    assert names(checker.SCHEDULE) == passes_of("schedule")
    raised = [name for name in passes_of("graph") if name != "dshard-fold-constants"]  # rounds what it folds
    assert names(checker.GRAPH) == ["dshard-decompose"] + raised
