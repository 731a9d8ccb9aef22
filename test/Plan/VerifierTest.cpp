// The verifier: the hand-built plan passes; every constraint has invalid twins.
#include "TestPlan.h"

#include <functional>
#include <gtest/gtest.h>

using namespace dshard;
using namespace dshard::plan;

namespace {

TEST(Verifier, AcceptsTheHandBuiltPlan) {
  for (bool packed : {false, true}) {
    Builder builder;
    test::HandBuiltOptions options;
    options.packed = packed;
    test::buildHandBuiltPlan(builder, options);
    EXPECT_EQ(test::verifierError(builder), "");
  }
}

struct Case {
  const char *name;
  std::function<void(PlanT &)> edit;
  const char *error; // all of this text, in this order, with gaps at "..."
};

ProgramT &run(PlanT &plan) { return *plan.programs[1]; }
Value &valueOf(PlanT &plan, uint32_t instruction, uint32_t at) {
  return run(plan)
      .values[run(plan).instructions[instruction].values_begin() + at];
}
BufferUse &useOf(PlanT &plan, uint32_t instruction, uint32_t at) {
  return run(plan).uses[run(plan).instructions[instruction].uses_begin() + at];
}
/// Turns an instruction into one that does nothing (a repeat of no rounds).
void drop(PlanT &plan, uint32_t instruction) {
  ProgramT &program = run(plan);
  Instruction &item = program.instructions[instruction];
  item.mutate_kind(static_cast<uint16_t>(InstructionKind::REPEAT));
  item.mutate_uses_count(0);
  item.mutate_values_begin(static_cast<uint32_t>(program.values.size()));
  item.mutate_values_count(2);
  program.values.push_back(literal(2));
  program.values.push_back(literal(0));
}
void swapInstructions(PlanT &plan, uint32_t a, uint32_t b) {
  std::swap(run(plan).instructions[a], run(plan).instructions[b]);
}

// Instructions of `run`: 0 fill, 1 repeat, 2 if, 3 matmul, 4 call, 5 record, 6
// wait, 7 permute, 8 record, 9 wait, 10 all_gather, 11 all_reduce; 12 matmul,
// 13 copy (body); 14 fill (then); 15 fill (else); 16, 17 copy. Buffers: 0 x, 1
// w, 2 acc, 3 history, 4 bias, 5 y, 6 z, 7 swapped, 8 gathered, 9 out, 10
// first.
const std::vector<Case> &cases() {
  static const std::vector<Case> list = {
      // plan_v1
      {"v1_never_written", [](PlanT &p) { drop(p, 0); },
       "[plan_v1] program 'run', instruction 12 (matmul, node "
       "'/mlp/fc/MatMul'): buffer 2 'acc' is read at byte 0 before it is "
       "written"},
      {"v1_one_branch", [](PlanT &p) { drop(p, 15); },
       "[plan_v1]...instruction 3 (matmul...buffer 4 'bias' is read at byte 0 "
       "before it is written on every path"},
      {"v1_one_rank", [](PlanT &p) { drop(p, 17); },
       "[plan_v1]...instruction 7 (permute...buffer 6 'z' is read...after "
       "buffer 2 'acc' has overwritten it"},
      {"v1_no_round", [](PlanT &p) { valueOf(p, 1, 1) = literal(0); },
       "[plan_v1]...instruction 3...buffer 3 'history'"},
      {"v1_perhaps_no_round",
       [](PlanT &p) { valueOf(p, 1, 1) = scalarValue(0); },
       "[plan_v1]...instruction 3...buffer 3 'history'...on every path"},
      {"v1_slot_not_reached",
       [](PlanT &p) {
         valueOf(p, 1, 1) = literal(1);
         useOf(p, 3, 3) = read(3, literal(1));
       },
       "[plan_v1]...instruction 3...buffer 3 'history'"},
      {"v1_reused_while_live",
       [](PlanT &p) { run(p).buffers[2].mutate_offset(0); },
       "[plan_v1]...buffer 0 'x' is read at byte 0 after buffer 2 'acc' has "
       "overwritten it"},
      {"v1_overwritten_later",
       [](PlanT &p) { run(p).buffers[4].mutate_offset(128); },
       "[plan_v1]...instruction 3...buffer 3 'history'...after buffer 4 'bias' "
       "has overwritten it"},
      {"v1_overwritten_in_next_round",
       [](PlanT &p) { run(p).buffers[3].mutate_offset(0); },
       "[plan_v1]...instruction 12 (matmul...buffer 0 'x' is read at byte 0 "
       "after buffer 3 'history' has overwritten it"},
      {"v1_output_missing", [](PlanT &p) { drop(p, 11); },
       "[plan_v1] program 'run': output 'out': buffer 9 'out' is read"},
      {"v1_output_lost",
       [](PlanT &p) {
         swapInstructions(p, 11, 0); // out is written first, then reused
       },
       "[plan_v1]"},
      {"v1_inputs_overlap",
       [](PlanT &p) {
         auto port = std::make_unique<PortT>(*p.entries[0]->inputs[0]);
         port->name = p.entries[0]->outputs[0]->name;
         run(p).buffers[5].mutate_offset(0);
         run(p).buffers[5].mutate_size(32);
         port->buffer = 5;
         p.entries[0]->inputs.push_back(std::move(port));
       },
       "[plan_v1]...input 'out' overlaps another input, buffer 0 'x'"},
      // plan_v2
      {"v2_no_wait", [](PlanT &p) { drop(p, 6); },
       "[plan_v2]...instruction 7 (permute...buffer 6 'z' was written on "
       "stream 0, and stream 1 has not waited for it"},
      {"v2_no_wait_back", [](PlanT &p) { drop(p, 9); },
       "[plan_v2]...instruction 10 (all_gather...buffer 7 'swapped' was "
       "written on stream 1"},
      {"v2_reuse_without_wait",
       [](PlanT &p) {
         drop(p, 9);
         useOf(p, 10, 0) = read(5);           // y instead of swapped
         run(p).buffers[8].mutate_offset(64); // over z, which stream 1 reads
       },
       "[plan_v2]...instruction 10 (all_gather...was read on stream 1"},
      {"v2_not_recorded", [](PlanT &p) { swapInstructions(p, 5, 6); },
       "[plan_v2]...instruction 5 (wait...event 0 is waited for before it is "
       "recorded"},
      {"v2_recorded_too_early", [](PlanT &p) { swapInstructions(p, 4, 5); },
       "[plan_v2]...(permute...buffer 6 'z' was written on stream 0"},
      // plan_v3
      {"v3_matmul_over_lhs",
       [](PlanT &p) { run(p).buffers[5].mutate_offset(0); },
       "[plan_v3]...instruction 3 (matmul...result buffer 5 'y' [0, 16) "
       "overlaps 'lhs' buffer 0 'x' [0, 32)"},
      {"v3_residual_other_rows",
       [](PlanT &p) { valueOf(p, 12, 7) = literal(1); },
       "[plan_v3]...instruction 12 (matmul...overlaps 'residual'"},
      {"v3_all_gather", [](PlanT &p) { run(p).buffers[8].mutate_offset(384); },
       "[plan_v3]...instruction 10 (all_gather...overlaps 'in'"},
      {"v3_copy", [](PlanT &p) { useOf(p, 16, 1) = write(5); },
       "[plan_v3]...instruction 16 (copy"},
      // plan_v4
      {"v4_matmul_k", [](PlanT &p) { valueOf(p, 3, 3) = literal(5); },
       "[plan_v4]...instruction 3 (matmul, node '/mlp/fc/MatMul'): 'lhs' "
       "reaches byte 36 of buffer 0 'x', which has 32"},
      {"v4_matmul_m", [](PlanT &p) { valueOf(p, 3, 1) = literal(3); },
       "[plan_v4]...'lhs' reaches byte 48 of buffer 0 'x', which has 32"},
      {"v4_matmul_ldc", [](PlanT &p) { valueOf(p, 3, 6) = literal(1); },
       "[plan_v4]...rows of 2 elements are written 1 elements apart"},
      {"v4_matmul_type",
       [](PlanT &p) { run(p).buffers[4].mutate_dtype(DataType::i32); },
       "[plan_v4]...buffer 4 'bias' is i32, expected a floating-point type"},
      {"v4_copy_out", [](PlanT &p) { valueOf(p, 13, 7) = literal(3); },
       "[plan_v4]...instruction 13 (copy...'out' reaches byte 20 of buffer 3 "
       "'history', which has 16"},
      {"v4_copy_by_rank",
       [](PlanT &p) { valueOf(p, 13, 3) = tableValue(0); }, // offsets 0 and 2
       "[plan_v4]...instruction 13 (copy...'in' reaches byte 24"},
      {"v4_copy_type",
       [](PlanT &p) {
         run(p).buffers[3].mutate_dtype(DataType::i32);
         useOf(p, 3, 3) = absent();
       },
       "[plan_v4]...buffer 2 'acc' is f32, but buffer 3 'history' is i32"},
      {"v4_gather_size",
       [](PlanT &p) { run(p).dims[run(p).buffers[8].dims_begin()] = 1; },
       "[plan_v4]...instruction 10 (all_gather...buffer 8 'gathered' has 4 "
       "elements, expected 8 from the 4 of buffer 7 'swapped' in a group of 2"},
      {"v4_gather_outer", [](PlanT &p) { valueOf(p, 10, 2) = literal(3); },
       "[plan_v4]...has 4 elements, not a multiple of 3"},
      {"v4_reduce_group",
       [](PlanT &p) {
         valueOf(p, 11, 2) = literal(3); // mean
         for (uint32_t b : {7u, 8u, 9u, 10u, 5u, 6u})
           run(p).buffers[b].mutate_dtype(DataType::i32);
         for (uint32_t i : {3u, 16u, 17u})
           drop(p, i);
         p.entries[0]->outputs.clear();
       },
       "[plan_v4]...instruction 11 (all_reduce...mean of i32 is not defined"},
      {"v4_load_at", [](PlanT &p) { p.programs[0]->values[9].mutate_value(1); },
       "[plan_v4] program 'load', instruction 0 (load_slice): writes elements "
       "1 to 3 of dim 1 of buffer 0 'w', which has 2"},
      {"v4_load_dims",
       [](PlanT &p) { p.programs[0]->buffers[0].mutate_dims_count(1); },
       "[plan_v4]...takes 2 dims, but weight 'w' has 2 and buffer 0 'w' has 1"},
      // plan_v5
      {"v5_states_overlap",
       [](PlanT &p) {
         p.states.push_back(std::make_unique<StateT>(*p.states[0]));
         p.states[1]->name = p.entries[0]->inputs[0]->name;
       },
       "[plan_v5] state 'x' begins at 0 inside state 'w', which ends at 32"},
      {"v5_parameter_written", [](PlanT &p) { useOf(p, 11, 1) = write(1); },
       "[plan_v5]...instruction 11...state 'w' is not one that programs"},
      {"v5_packed_read",
       [](PlanT &p) { p.states[0]->layout = StateLayout::packed; },
       "[plan_v5]...state 'w' is packed, and only pack_rhs may write it"},
      {"v5_not_loaded",
       [](PlanT &p) {
         p.programs[0]->instructions.clear();
         p.programs[0]->blocks[0].mutate_count(0);
       },
       "[plan_v5] state 'w' is initialised by the load program 'load', which "
       "does not write it"},
      // plan_v6, plan_v7
      {"v6_other_kinds", // tp 0 gathers where tp 1 reduces
       [](PlanT &p) {
         ProgramT &program = run(p);
         Instruction &copy = program.instructions[17];
         copy = program.instructions[11];
         program.values.insert(program.values.end(),
                               {literal(0), literal(1), literal(0)});
         copy.mutate_values_begin(
             static_cast<uint32_t>(program.values.size() - 3));
         program.uses.push_back(read(5));
         program.uses.push_back(write(6));
         copy.mutate_uses_begin(static_cast<uint32_t>(program.uses.size() - 2));
       },
       "[plan_v6]...instruction...(permute...meets rank...at instruction 17 "
       "(all_reduce) of another kind in the same group"},
      {"v6_one_rank_only", // tp 1 reduces over dp and tp 0 does not: allowed
       [](PlanT &p) {
         ProgramT &program = run(p);
         Instruction &copy = program.instructions[17];
         copy = program.instructions[11];
         program.uses.push_back(read(5));
         program.uses.push_back(write(6));
         copy.mutate_uses_begin(static_cast<uint32_t>(program.uses.size() - 2));
       },
       ""},
      {"v6_other_sizes", // dp 1 reduces y where dp 0 reduces gathered
       [](PlanT &p) {
         p.tables[1]->axes = {0}; // the blocks are chosen by dp
         ProgramT &program = run(p);
         Instruction &copy = program.instructions[17];
         copy = program.instructions[11];
         program.uses.push_back(read(5));
         program.uses.push_back(write(6));
         copy.mutate_uses_begin(static_cast<uint32_t>(program.uses.size() - 2));
       },
       "[plan_v6]...instruction 11 (all_reduce...rank 0 meets rank 2 at "
       "instruction 17 (all_reduce): buffer 8 'gathered' has 8 elements of "
       "f32, buffer 5 'y' has 4 of f32"},
      {"v7_permute_peers",
       [](PlanT &p) {
         p.tables[2]->values = {1, 1};
       },
       "[plan_v7]...instruction 7 (permute...member 0 of the group sends to "
       "member 1, which receives from member 1"},
      // plan_v9
      {"v9_actions",
       [](PlanT &p) {
         p.entries[0]->actions.push_back(
             std::make_unique<ActionListT>(*p.entries[0]->actions[0]));
       },
       "[plan_v9] entry 'run' has 2 action lists for 1 pp coordinates"},
      {"v9_local",
       [](PlanT &p) {
         p.entries[0]->inputs[0]->global->dims = {6, 4};
       },
       "[plan_v9] entry 'run', 'x': dim 0 of size 6 in 2 shards has local size "
       "2, expected 3"},
      {"v9_names",
       [](PlanT &p) {
         p.entries[0]->outputs[1]->name = p.entries[0]->outputs[0]->name;
       },
       "[plan_v9] entry 'run', 'out': there are two of this name"},
      {"v9_partial_input",
       [](PlanT &p) {
         p.entries[0]->inputs[0]->sharding->partial = p.groups[0]->axes;
       },
       "[plan_v9] entry 'run', 'x': is a partial input"},
      {"v9_program", [](PlanT &p) { p.entries[0]->programs[0] = 0; },
       "[plan_v9] entry 'run', 'x': lies in program 1, which the entry does "
       "not run"},
  };
  return list;
}

/// The parts of `pattern` between "..." are in `text`, in order.
bool matches(const std::string &text, const std::string &pattern) {
  if (pattern.empty())
    return text.empty();
  size_t at = 0, begin = 0;
  while (true) {
    size_t end = pattern.find("...", begin);
    std::string part =
        pattern.substr(begin, end == std::string::npos ? end : end - begin);
    size_t found = text.find(part, at);
    if (found == std::string::npos || (begin == 0 && found != 0))
      return false;
    at = found + part.size();
    if (end == std::string::npos)
      return true;
    begin = end + 3;
  }
}

class VerifierTwins : public ::testing::TestWithParam<Case> {};

TEST_P(VerifierTwins, AreJudged) {
  Builder builder;
  test::buildHandBuiltPlan(builder);
  GetParam().edit(builder.plan);
  std::string error = test::verifierError(builder);
  EXPECT_TRUE(matches(error, GetParam().error)) << "got: " << error;
}

INSTANTIATE_TEST_SUITE_P(Verifier, VerifierTwins, ::testing::ValuesIn(cases()),
                         [](const auto &info) {
                           return std::string(info.param.name);
                         });

// plan_v8: live ranges are computed by the builder, so they are changed in the
// serialised plan.
TEST(Verifier, V8LiveRanges) {
  Builder builder;
  test::buildHandBuiltPlan(builder);
  auto reader = Reader::fromBytes(builder.finish(), "plan");
  ASSERT_TRUE(reader.ok());
  auto &acc = const_cast<Buffer &>(
      *(*reader)->plan().programs()->Get(1)->buffers()->Get(2));
  acc.mutate_live_end(12);
  EXPECT_EQ(verifyPlan((*reader)->plan()).message(),
            "[plan_v8] program 'run': buffer 2 'acc' says it is live from "
            "instruction 0 to 12, its uses say 0 to 13");
}

//===----------------------------------------------------------------------===//
// Pipelines: sends and receives across action lists
//===----------------------------------------------------------------------===//

/// Two stages; `swap` lets both receive first, `sizes` makes them disagree,
/// `tag` makes the receiver wait for another message.
std::string pipelineError(bool swap, bool sizes, bool tag, bool extra) {
  Builder builder;
  uint32_t pp = builder.addAxis("pp", 2);
  builder.addAxis("dp", 64); // makes no difference
  int64_t group = builder.addGroup({builder.wholeAxis(pp)});
  builder.beginProgram("load").finish();
  for (uint32_t stage = 0; stage < 2; ++stage) {
    ProgramAssembler program =
        builder.beginProgram("stage" + std::to_string(stage), stage);
    uint32_t there = program.addBuffer(
        {"there", DataType::f32, {sizes && stage ? 8 : 4}, 0});
    uint32_t back = program.addBuffer({"back", DataType::f32, {4}, 64});
    auto send = [&](uint32_t buffer, int64_t to, int64_t number) {
      program.append(0, InstructionKind::SEND, {read(buffer)},
                     {literal(group), literal(to), literal(number)});
    };
    auto receive = [&](uint32_t buffer, int64_t from, int64_t number) {
      program.append(0, InstructionKind::RECV, {write(buffer)},
                     {literal(group), literal(from), literal(number)});
    };
    program.append(0, InstructionKind::FILL, {write(stage ? back : there)},
                   {literalBits(1)});
    if (stage == 0) {
      if (swap)
        receive(back, 1, 1);
      send(there, 1, 0);
      if (extra)
        send(there, 1, 7);
      if (!swap)
        receive(back, 1, 1);
    } else {
      receive(there, 0, tag ? 5 : 0);
      send(back, 0, 1);
    }
    program.finish();
  }
  uint32_t entry = builder.addEntry("run", 1);
  EntryT &item = *builder.plan.entries[entry];
  item.programs = {1, 2};
  item.micro_batches = 2;
  for (uint32_t stage = 0; stage < 2; ++stage) {
    item.actions[stage]->actions.clear();
    for (uint32_t batch = 0; batch < 2; ++batch)
      item.actions[stage]->actions.emplace_back(stage, ActionKind::forward,
                                                batch);
  }
  return test::verifierError(builder);
}

TEST(Verifier, V7Pipelines) {
  EXPECT_EQ(pipelineError(false, false, false, false), "");
  EXPECT_TRUE(matches(pipelineError(true, false, false, false),
                      "[plan_v7] program 'stage0', instruction 1 (recv): rank "
                      "0 waits for ever in group 'pp': rank 64 is at "
                      "instruction 1 (recv)"))
      << pipelineError(true, false, false, false);
  EXPECT_TRUE(matches(pipelineError(false, true, false, false),
                      "[plan_v7] program 'stage1', instruction 1 (recv): rank "
                      "64 receives 8 elements of f32, rank 0 sends 4 of f32"));
  EXPECT_TRUE(matches(pipelineError(false, false, true, false),
                      "[plan_v7]...waits for ever"));
  EXPECT_TRUE(matches(pipelineError(false, false, false, true),
                      "[plan_v7] program 'stage0', instruction 2 (send): rank "
                      "0 sends to rank 64, which does not receive it"));
}

// Two groups, each in one order everywhere, and still a deadlock: half of the
// ranks go to the rows first, the others to the columns.
TEST(Verifier, V6DeadlockAcrossGroups) {
  Builder builder;
  uint32_t x = builder.addAxis("x", 2), y = builder.addAxis("y", 2);
  int64_t rows = builder.addGroup({builder.wholeAxis(x)});
  int64_t columns = builder.addGroup({builder.wholeAxis(y)});
  builder.beginProgram("load").finish();
  ProgramAssembler run = builder.beginProgram("run");
  uint32_t a = run.addBuffer({"a", DataType::f32, {4}, 0});
  uint32_t first = run.addBlock(), second = run.addBlock();
  auto reduce = [&](uint32_t block, int64_t group) {
    run.append(block, InstructionKind::ALL_REDUCE, {read(a), write(a)},
               {literal(group), literal(1), literal(0)});
  };
  run.append(0, InstructionKind::FILL, {write(a)}, {literalBits(1)});
  reduce(first, rows);
  reduce(first, columns);
  reduce(second, columns);
  reduce(second, rows);
  // Ranks (0,0) and (1,1) take the first way.
  uint32_t table = builder.addTable({x, y}, {first, second, second, first});
  run.call(0, tableValue(table));
  run.finish();
  builder.addEntry("run", run.index());
  std::string error = test::verifierError(builder);
  EXPECT_TRUE(matches(error, "[plan_v6] program 'run', instruction...waits for "
                             "ever in group"))
      << error;
}

// 4,096 ranks of which 32 differ, thousands of collectives: a moment.
TEST(Verifier, Scales) {
  Builder builder;
  uint32_t pp = builder.addAxis("pp", 4);
  uint32_t dp = builder.addAxis("dp", 16);
  uint32_t cp = builder.addAxis("cp", 8);
  uint32_t tp = builder.addAxis("tp", 8);
  (void)pp;
  int64_t ring = builder.addGroup({builder.wholeAxis(cp)});
  int64_t wide =
      builder.addGroup({builder.wholeAxis(dp), builder.wholeAxis(tp)});
  builder.beginProgram("load").finish();
  ProgramAssembler run = builder.beginProgram("run");
  uint32_t a = run.addBuffer({"a", DataType::f32, {4}, 0});
  uint32_t b = run.addBuffer({"b", DataType::f32, {4}, 64});
  uint32_t body = run.addBlock(), early = run.addBlock(), late = run.addBlock();
  uint32_t next = builder.addTable({cp}, {1, 2, 3, 4, 5, 6, 7, 0});
  uint32_t previous = builder.addTable({cp}, {7, 0, 1, 2, 3, 4, 5, 6});
  uint32_t which = builder.addTable(
      {cp}, {early, late, late, late, early, late, early, late});
  run.append(0, InstructionKind::FILL, {write(a)}, {literalBits(1)});
  run.repeat(0, body, literal(500));
  run.append(
      body, InstructionKind::PERMUTE, {read(a), write(b)},
      {literal(ring), literal(1), tableValue(next), tableValue(previous)});
  run.call(body, tableValue(which));
  for (uint32_t block : {early, late})
    run.append(block, InstructionKind::ALL_REDUCE, {read(b), write(a)},
               {literal(wide), literal(1), literal(0)});
  run.finish();
  builder.addEntry("run", run.index());
  EXPECT_EQ(test::verifierError(builder), "");
  // One member of the ring that sends elsewhere is found.
  builder.plan.tables[next]->values[3] = 0;
  EXPECT_TRUE(matches(test::verifierError(builder),
                      "[plan_v7] program 'run', instruction...(permute): "
                      "member...of the group sends to member"))
      << test::verifierError(builder);
}

/// What training adds: a scalar, a written state, the iteration as a value,
/// attention's gradients, ports with checks. Buffers: 0 m, 1 lr, 2 i, 3 sums, 4
/// q, 5 lse, 6 out, 7 dq, 8 dk, 9 dv.
void buildTrainingPlan(Builder &b) {
  uint32_t lr = b.addScalar("lr", DataType::f32, 1e-3);
  uint32_t moment = b.addState("w.exp_avg", StateRole::optimizer_state,
                               InitializerKind::zero, DataType::f32, {4}, {4});
  b.plan.states[moment]->written = true;
  b.beginProgram("load").finish();
  ProgramAssembler run = b.beginProgram("train_step");
  uint32_t m = run.addStateBuffer(moment), rate = run.addScalarBuffer(lr);
  uint32_t i = run.addBuffer({"i", DataType::i64, {}, 0});
  uint32_t sums = run.addBuffer({"sums", DataType::f32, {2}, 64});
  std::vector<uint32_t> parts; // [batch 1, heads 2, s 2, d 3]
  for (const char *name : {"q", "lse", "out", "dq", "dk", "dv"})
    parts.push_back(
        run.addBuffer({name, DataType::f32, {12}, 128 + 64 * parts.size()}));
  uint32_t q = parts[0], lse = parts[1], out = parts[2];
  uint32_t kernel =
      b.addKernel("k", b.addImage(ImageKind::elf, "x", 1), 0, 4, 1, 3);
  uint32_t body = run.addBlock();
  for (uint32_t buffer : {sums, q, lse, out})
    run.append(0, InstructionKind::FILL, {write(buffer)}, {literalBits(1)});
  run.repeat(0, body, literal(2));
  run.append(body, InstructionKind::FILL, {write(i)}, {loopIndex()});
  std::vector<Value> values = {literal(1), literal(2), literal(2), literal(2),
                               literal(2), literal(3), literal(3)};
  for (int tensor = 0; tensor < 8; ++tensor)
    for (int64_t stride : {12, 6, 3})
      values.push_back(literal(stride));
  for (int64_t last : {1, 0, -1, 0, 0, 0, 0, 4, 2, 1})
    values.push_back(literal(last));
  run.append(body, InstructionKind::ATTENTION_GRAD,
             {read(q), read(q), read(q), read(out), read(lse), read(out),
              absent(), read(q), write(parts[3]), write(parts[4]),
              write(parts[5])},
             values);
  run.append(0, InstructionKind::LAUNCH, {read(m), read(rate), write(m)},
             {literal(kernel), literal(2)});
  run.finish();
  uint32_t entry = b.addEntry("train_step", run.index());
  PortSpec port;
  port.name = "nonfinite";
  port.program = run.index();
  port.buffer = sums;
  port.global = port.local = {2};
  port.finite = {"w", "b"};
  b.addOutput(entry, port);
}

TEST(Verifier, AcceptsTraining) {
  Builder builder;
  buildTrainingPlan(builder);
  EXPECT_EQ(test::verifierError(builder), "");
}

TEST(Verifier, RefusesWrongTraining) {
  const std::vector<Case> list = {
      {"scalar_written", [](PlanT &p) { useOf(p, 5, 2) = write(1); },
       "...instruction 5 (launch): 'out' is a scalar, which programs only "
       "read"},
      {"scalar_type",
       [](PlanT &p) { run(p).buffers[1].mutate_dtype(DataType::i32); },
       "...buffer 1 is not all of a scalar of type f32"},
      {"not_written", [](PlanT &p) { p.states[0]->written = false; },
       "[plan_v5]...instruction 5...state 'w.exp_avg' is not one that programs "
       "other than the load program may write"},
      {"written_and_packed",
       [](PlanT &p) { p.states[0]->layout = StateLayout::packed; },
       "...state 0 is packed, but entry points write it"},
      {"fill_outside", [](PlanT &p) { valueOf(p, 0, 0) = loopIndex(); },
       "...instruction 0: enclosing repeat 0 does not exist"},
      {"grad_heads", [](PlanT &p) { valueOf(p, 7, 2) = literal(3); },
       "[plan_v4]...instruction 7 (attention_grad): 2 heads are not a multiple "
       "of 3 KV heads"},
      {"grad_row", [](PlanT &p) { valueOf(p, 7, 4) = literal(9); },
       "[plan_v4]...instruction 7 (attention_grad): 'k' reaches byte"},
      {"grad_bias",
       [](PlanT &p) {
         Instruction &grad = run(p).instructions[7];
         valueOf(p, 7, grad.values_count() - 3) = literal(99);
       },
       "[plan_v4]...instruction 7 (attention_grad): 'bias' reaches byte"},
      {"grad_bias_keys",
       [](PlanT &p) {
         Instruction &grad = run(p).instructions[7];
         valueOf(p, 7, grad.values_count() - 1) = literal(2);
       },
       "[plan_v4]...instruction 7 (attention_grad): keys of the bias lie 2 "
       "elements apart, expected 0 or 1"},
      {"finite_names",
       [](PlanT &p) { p.entries[0]->outputs[0]->finite.pop_back(); },
       "...has 1 names of finite elements, expected one per element"},
      {"layout_dim", [](PlanT &p) { p.entries[0]->outputs[0]->layout_dim = 1; },
       "...layout of dim 1 does not exist"},
      {"layout_parts",
       [](PlanT &p) {
         PortT &port = *p.entries[0]->outputs[0];
         port.layout = SequenceLayout::zigzag;
         port.layout_dim = 0;
         port.layout_parts = 2;
       },
       "...dim of size 2 cannot be dealt out in 4 pieces"},
  };
  for (const Case &item : list) {
    Builder builder;
    buildTrainingPlan(builder);
    item.edit(builder.plan);
    std::string error = test::verifierError(builder);
    EXPECT_TRUE(matches(error, item.error)) << item.name << ": " << error;
  }
}

/// A product with 4 columns of 64 in two blocks of 32, of 4 bits.
void buildQuantizedPlan(Builder &b) {
  b.beginProgram("load").finish();
  ProgramAssembler run = b.beginProgram("run");
  uint32_t lhs = run.addBuffer({"lhs", DataType::f32, {2, 64}, 0});
  uint32_t rhs = run.addBuffer({"rhs", DataType::u8, {4, 2, 16}, 512});
  uint32_t scales = run.addBuffer({"scales", DataType::f32, {4, 2}, 640});
  uint32_t zeros = run.addBuffer({"zeros", DataType::u8, {4, 1}, 704});
  uint32_t out = run.addBuffer({"out", DataType::f32, {2, 4}, 768});
  for (uint32_t buffer : {lhs, rhs, scales, zeros})
    run.append(0, InstructionKind::FILL, {write(buffer)}, {literalBits(1)});
  std::vector<Value> values;
  for (int64_t value : {2, 4, 64, 64, 4, 0, 32, 4, 0, 0})
    values.push_back(literal(value));
  run.append(0, InstructionKind::MATMUL_NBITS,
             {read(lhs), read(rhs), read(scales), read(zeros), absent(),
              absent(), write(out)},
             values);
  run.finish();
  uint32_t entry = b.addEntry("run", run.index());
  PortSpec port;
  port.name = "out";
  port.program = run.index();
  port.buffer = out;
  port.global = port.local = {2, 4};
  b.addOutput(entry, port);
}

TEST(Verifier, BlockQuantizedProducts) {
  const std::vector<Case> list = {
      {"as_built", [](PlanT &) {}, ""},
      {"bits", [](PlanT &p) { valueOf(p, 4, 7) = literal(3); },
       "[plan_v4]...3 bits in blocks of 32, expected 4 or 8 in blocks of a "
       "multiple of 16"},
      {"block", [](PlanT &p) { valueOf(p, 4, 6) = literal(0); },
       "[plan_v4]...4 bits in blocks of 0"},
      {"columns",
       [](PlanT &p) {
         valueOf(p, 4, 1) = literal(5);
         valueOf(p, 4, 4) = literal(5);
       },
       "[plan_v4]...'rhs' reaches byte 160 of"},
      {"bytes", [](PlanT &p) { valueOf(p, 4, 7) = literal(8); },
       "[plan_v4]...'rhs' reaches byte 256 of"},
      {"scales",
       [](PlanT &p) { run(p).buffers[2].mutate_dtype(DataType::i32); },
       "[plan_v4]...is i32, expected f32"},
  };
  for (const Case &item : list) {
    Builder builder;
    buildQuantizedPlan(builder);
    item.edit(builder.plan);
    std::string error = test::verifierError(builder);
    EXPECT_TRUE(item.error[0] ? matches(error, item.error) : error.empty())
        << item.name << ": " << error;
  }
}

/// Six rows of 8, each with one of three matrices of 4 columns.
void buildGroupedPlan(Builder &b) {
  b.beginProgram("load").finish();
  ProgramAssembler run = b.beginProgram("run");
  uint32_t lhs = run.addBuffer({"lhs", DataType::f32, {6, 8}, 0});
  uint32_t rhs = run.addBuffer({"rhs", DataType::f32, {3, 8, 4}, 256});
  uint32_t groups = run.addBuffer({"groups", DataType::i64, {6}, 640});
  uint32_t out = run.addBuffer({"out", DataType::f32, {6, 4}, 704});
  uint32_t space = run.addBuffer({"workspace", DataType::u8, {512}, 832});
  for (uint32_t buffer : {lhs, rhs, groups})
    run.append(0, InstructionKind::FILL, {write(buffer)}, {literalBits(1)});
  std::vector<Value> values;
  for (int64_t value : {3, 6, 4, 8, 0, 0, 0})
    values.push_back(literal(value));
  run.append(0, InstructionKind::GROUPED_MATMUL,
             {read(lhs), read(rhs), read(groups), write(out), write(space)},
             values);
  run.finish();
  uint32_t entry = b.addEntry("run", run.index());
  PortSpec port;
  port.name = "out";
  port.program = run.index();
  port.buffer = out;
  port.global = port.local = {6, 4};
  b.addOutput(entry, port);
}

TEST(Verifier, GroupedProducts) {
  const std::vector<Case> list = {
      {"as_built", [](PlanT &) {}, ""},
      {"matrices", [](PlanT &p) { valueOf(p, 3, 0) = literal(4); },
       "[plan_v4]...'rhs' reaches byte 512 of"},
      {"rows", [](PlanT &p) { valueOf(p, 3, 1) = literal(7); },
       "[plan_v4]...'lhs' reaches byte 224 of"},
      {"columns", [](PlanT &p) { valueOf(p, 3, 2) = literal(5); },
       "[plan_v4]...'rhs' reaches byte 480 of"},
      {"packed", [](PlanT &p) { valueOf(p, 3, 6) = literal(1); },
       "[plan_v4]...has 384 bytes, 3 packed 8 x 4 operands need 1536"},
      {"groups",
       [](PlanT &p) { run(p).buffers[2].mutate_dtype(DataType::f64); },
       "[plan_v4]...is f64, expected integers"},
  };
  for (const Case &item : list) {
    Builder builder;
    buildGroupedPlan(builder);
    item.edit(builder.plan);
    std::string error = test::verifierError(builder);
    EXPECT_TRUE(item.error[0] ? matches(error, item.error) : error.empty())
        << item.name << ": " << error;
  }
}

} // namespace
