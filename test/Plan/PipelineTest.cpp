// Pipelines in plans: two stages with three micro-batches pass the verifier and
// have the memory of their own stage; every constraint has invalid twins.
#include "TestPlan.h"
#include "dshard/Plan/PlanStatistics.h"
#include "dshard/Plan/RankShare.h"

#include <functional>
#include <gtest/gtest.h>

using namespace dshard;
using namespace dshard::plan;

namespace {

constexpr uint32_t microBatches = 3;
enum Programs : uint32_t { load, first, second };
// Buffers of both stages, and the states.
enum Buffers : uint32_t { port, value, weight, copied };
enum States : uint32_t { shared, ofFirst, ofSecond };

/// Stage 0: y0 = x, sent; stage 1: y = received. Each reads its own state, and
/// the one that both hold. `x` and `y` have a slot per micro-batch.
void build(Builder &builder) {
  uint32_t pp = builder.addAxis("pp", 2);
  builder.addAxis("tp", 2);
  int64_t group = builder.addGroup({builder.wholeAxis(pp)});
  auto state = [&](const char *name, int64_t elements, int32_t stage) {
    builder.addState(name, StateRole::parameter, InitializerKind::load,
                     DataType::f32, {elements}, {elements}, {},
                     StateLayout::plain, 0, stage);
  };
  state("shared", 4, -1);
  state("first", 16, 0);
  state("second", 64, 1);

  ProgramAssembler loading = builder.beginProgram("load");
  auto fill = [&](uint32_t block, uint32_t state) {
    loading.append(block, InstructionKind::FILL,
                   {write(loading.addStateBuffer(state))}, {literalBits(1)});
  };
  fill(0, shared);
  for (uint32_t stage : {0, 1}) {
    uint32_t then = loading.addBlock(), otherwise = loading.addBlock();
    fill(then, stage ? ofSecond : ofFirst);
    loading.branch(0, builder.rankValue({pp}, {stage == 0, stage == 1}), then,
                   otherwise);
  }
  loading.finish();

  auto copy = [](ProgramAssembler &program, BufferUse in, BufferUse out) {
    program.append(0, InstructionKind::COPY, {in, out},
                   {literal(1), literal(4), literal(0), literal(1), literal(0),
                    literal(1)});
  };
  for (uint32_t stage : {0, 1}) {
    ProgramAssembler program =
        builder.beginProgram("run." + std::to_string(stage), stage);
    BufferSpec slots = {"port", DataType::f32, {4}, 0};
    slots.slots = microBatches;
    program.addBuffer(slots);
    program.addBuffer({"value", DataType::f32, {4}, 256});
    program.addStateBuffer(stage ? ofSecond : ofFirst);
    program.addBuffer({"copied", DataType::f32, {4}, 320});
    copy(program, read(weight), write(copied));
    if (stage == 0) {
      copy(program, read(port, microBatch()), write(value));
      program.append(0, InstructionKind::SEND, {read(value)},
                     {literal(group), literal(1), literal(0)});
    } else {
      program.append(0, InstructionKind::RECV, {write(value)},
                     {literal(group), literal(0), literal(0)});
      copy(program, read(value), write(port, microBatch()));
    }
    program.finish();
  }
  uint32_t entry = builder.addPipeline("run", {first, second}, microBatches);
  PortSpec spec;
  spec.name = "x";
  spec.program = first;
  spec.buffer = port;
  spec.global = spec.local = {4 * microBatches};
  builder.addInput(entry, spec);
  spec.name = "y";
  spec.program = second;
  builder.addOutput(entry, spec);
}

TEST(Pipeline, VerifiesAndCountsTheMemoryOfEachStage) {
  Builder builder;
  build(builder);
  EXPECT_EQ(test::verifierError(builder), "");
  auto reader = Reader::fromBytes(builder.finish(), "test");
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  const plan::Plan &plan = (*reader)->plan();
  EXPECT_EQ(stageRanks(plan), 2u);
  RankShare shares[] = {rankShare(plan, 0), rankShare(plan, 1)};
  // 16 bytes that all hold, rounded up to 64, and their own.
  EXPECT_EQ(shares[0].states, 64u + 64u);
  EXPECT_EQ(shares[1].states, 64u + 256u);
  EXPECT_EQ(plan.state_size(), 64u + 256u);
  EXPECT_EQ(plan.states()->Get(ofFirst)->offset(),
            plan.states()->Get(ofSecond)->offset());
  // Every micro-batch's 16 bytes may wait for the second stage.
  EXPECT_EQ(shares[0].messages, microBatches * 16u);
  EXPECT_EQ(shares[1].messages, 0u);
  EXPECT_TRUE(shares[0].holds(*plan.states()->Get(shared)));
  EXPECT_FALSE(shares[0].holds(*plan.states()->Get(ofSecond)));
  // Ranks 0 and 1 are stage 0, ranks 2 and 3 stage 1.
  EXPECT_EQ(planStatistics(plan, 1).state, shares[0].states);
  EXPECT_EQ(planStatistics(plan, 2).state, shares[1].states);
}

struct Case {
  const char *name;
  std::function<void(PlanT &)> edit;
  const char *error;
};

void PrintTo(const Case &test, std::ostream *os) { *os << test.name; }

std::vector<Action> &actions(PlanT &plan, uint32_t coordinate) {
  return plan.entries[0]->actions[coordinate]->actions;
}

const Case cases[] = {
    {"v1_slots",
     [](PlanT &p) { // `value` where the input's second slot lies
       Buffer &buffer = p.programs[first]->buffers[value];
       buffer = Buffer(buffer.name(), buffer.space(), buffer.dtype(), 0, 64, 16,
                       1, 64, buffer.dims_begin(), 1, 0, 0, value);
     },
     "[plan_v1] program 'run.0', instruction 1 (copy): buffer 0 'port' is read "
     "at byte 64 after buffer 1 'value' has overwritten it"},
    {"v1_output",
     [](PlanT &p) { // every micro-batch writes the first slot
       for (BufferUse &use : p.programs[second]->uses)
         use.mutable_slot() = literal(0);
     },
     "[plan_v1] program 'run.1': output 'y': buffer 0 'port' is read at byte "
     "64 before it is written"},
    {"v5_overlap", [](PlanT &p) { p.states[ofSecond]->offset = 0; },
     "[plan_v5] state 'second' begins at 0 inside state 'shared'"},
    {"v5_other_stage", [](PlanT &p) { p.states[ofFirst]->stage = 1; },
     "[plan_v5]"},
    {"v5_load_of_all",
     [](PlanT &p) { // the guard of the second stage's weights is gone
       for (Value &value : p.programs[load]->values)
         if (value.kind() == ValueKind::table && value.value() == 1)
           value = literal(1);
     },
     "[plan_v5] program 'load', instruction 4 (fill): state 'second' of stage "
     "1 is not held by rank 0"},
    {"v5_not_loaded",
     [](PlanT &p) {
       p.tables[1]->values = {0, 0};
     },
     "[plan_v5] state 'second' of stage 1 is not loaded by rank 2"},
    {"v7_order",
     [](PlanT &p) { std::swap(actions(p, 1)[0], actions(p, 1)[1]); },
     "[plan_v7] program 'run.1', instruction 1 (recv): rank 2 receives for "
     "micro-batch 1 what rank 0 sends for micro-batch 0"},
    {"v7_send_without_recv",
     [](PlanT &p) {
       for (Instruction &item : p.programs[second]->instructions)
         if (static_cast<InstructionKind>(item.kind()) == InstructionKind::RECV)
           item.mutate_kind(static_cast<uint16_t>(InstructionKind::FILL)),
               item.mutate_values_count(1);
     },
     "[plan_v7] program 'run.0', instruction 2 (send): rank 0 sends to rank 2, "
     "which does not receive it"},
    {"v9_left_out", [](PlanT &p) { actions(p, 1).pop_back(); },
     "[plan_v9] entry 'run': pp coordinate 1 runs 2 of 3 micro-batches of "
     "stage 1"},
    {"v9_twice", [](PlanT &p) { actions(p, 0).push_back(actions(p, 0)[1]); },
     "[plan_v9] entry 'run': action 0.1 comes twice at pp coordinate 0"},
    {"v9_two_homes", [](PlanT &p) { actions(p, 1) = actions(p, 0); },
     "[plan_v9] entry 'run': stage 0 is at the pp coordinates 0 and 1"},
    {"v9_no_home", [](PlanT &p) { actions(p, 1).clear(); },
     "[plan_v9] entry 'run': runs 1 of its 2 stages"},
    {"v9_stage_of_program",
     [](PlanT &p) {
       p.entries[0]->programs = {second, first};
     },
     "[plan_v9] entry 'run': runs the program of stage 1 as stage 0"},
    {"v9_two_types",
     [](PlanT &p) {
       auto again = std::make_unique<PortT>(*p.entries[0]->inputs[0]);
       again->program = second;
       again->buffer = value;
       again->global->dims = again->local->dims = {4};
       p.entries[0]->inputs.push_back(std::move(again));
     },
     "[plan_v9] entry 'run', 'x': has two types on two stages"},
};

class PipelineTwins : public testing::TestWithParam<Case> {};

TEST_P(PipelineTwins, AreRefused) {
  Builder builder;
  build(builder);
  GetParam().edit(builder.plan);
  EXPECT_EQ(test::verifierError(builder).find(GetParam().error), 0u)
      << test::verifierError(builder);
}

INSTANTIATE_TEST_SUITE_P(Verifier, PipelineTwins, testing::ValuesIn(cases),
                         [](const auto &info) {
                           return std::string(info.param.name);
                         });

// A port has one slot, or as many as there are micro-batches.
TEST(Pipeline, PortsHaveASlotPerMicroBatch) {
  Builder builder;
  build(builder);
  builder.plan.entries[0]->micro_batches = 4;
  auto reader = Reader::fromBytes(builder.finish(), "test");
  ASSERT_FALSE(reader.ok());
  EXPECT_NE(reader.status().message().find(
                "an input needs one slot of 48 bytes of f32, its buffer has 3 "
                "of 16 bytes"),
            std::string::npos)
      << reader.status().message();
}

} // namespace
