// Hand-built plans executed: repeat, if, tables, slots, views, events, four
// collectives; sharded inputs and outputs; scalars; and what is refused.

#include "dshard/Runtime/Session.h"
#include "Plan/HandBuiltPlan.h"
#include "TestFolder.h"
#include "dshard/Runtime/Cpu/Gemm.h"

#include <gtest/gtest.h>

using namespace dshard;
using namespace dshard::test;
using namespace dshard::plan;

namespace {

/// The hand-built plan, with the scratch that this runtime's products need.
void build(Builder &builder, const TestFolder &folder, bool packed) {
  HandBuiltOptions options;
  options.modelFolder = folder.path();
  options.packed = packed;
  options.packedSize = cpu::packedBytes(4, 2, DataType::f32);
  buildHandBuiltPlan(builder, options);
  builder.plan.programs[1]->thread_scratch = cpu::gemmScratchBytes();
}

Result<std::unique_ptr<Session>> start(Builder &builder,
                                       SessionOptions options = {}) {
  auto reader = Reader::fromBytes(builder.finish(), "test.dsplan");
  if (!reader)
    return reader.status();
  return Session::create(std::move(*reader), options);
}

std::vector<float> someInput() {
  std::vector<float> x(16);
  for (int i = 0; i < 16; ++i)
    x[i] = static_cast<float>((i * 5) % 7 - 3);
  return x;
}

TensorView view(const std::vector<float> &x, std::vector<int64_t> dims) {
  return {DataType::f32, std::move(dims), x.data()};
}

class HandBuilt : public testing::TestWithParam<bool> {};

} // namespace

TEST_P(HandBuilt, ComputesWhatItSays) {
  TestFolder folder;
  folder.write("hand-built.weights", handBuiltWeightFile());
  Builder builder;
  build(builder, folder, GetParam());
  for (unsigned threads : {1u, 2u}) {
    SessionOptions options;
    options.threads = threads;
    auto session = start(builder, options);
    ASSERT_TRUE(session.ok()) << session.status().message();
    Status loaded = (*session)->load();
    ASSERT_TRUE(loaded.ok()) << loaded.message();
    std::vector<float> x = someInput(), out(8), first(4);
    for (bool flag : {true, false, true}) {
      ASSERT_TRUE((*session)->setScalar("flag", flag).ok());
      Status set = (*session)->setInputs("run", {{"x", view(x, {4, 4})}});
      ASSERT_TRUE(set.ok()) << set.message();
      Status ran = (*session)->execute("run");
      ASSERT_TRUE(ran.ok()) << ran.message();
      ASSERT_TRUE((*session)->getOutput("run", "out", out.data()).ok());
      ASSERT_TRUE((*session)->getOutput("run", "first", first.data()).ok());
      std::vector<float> expected = handBuiltExpected(x, flag);
      EXPECT_EQ(out, expected);
      expected.resize(4);
      EXPECT_EQ(first, expected);
    }
  }
}

// What the record counts is what the plan holds: 3 rounds of the repeat.
TEST_P(HandBuilt, RecordsInstructionsAndBytes) {
  TestFolder folder;
  folder.write("hand-built.weights", handBuiltWeightFile());
  Builder builder;
  build(builder, folder, GetParam());
  auto session = start(builder);
  ASSERT_TRUE(session.ok() && (*session)->load().ok());
  std::vector<float> x = someInput();
  ASSERT_TRUE((*session)->setInputs("run", {{"x", view(x, {4, 4})}}).ok());
  (*session)->clearRecords();
  (*session)->setRecording(true, true);
  ASSERT_TRUE((*session)->execute("run").ok());
  for (uint32_t rank = 0; rank < 4; ++rank) {
    ExecutionRecord &record = (*session)->record(rank);
    EXPECT_EQ(record.kinds[InstructionKind::MATMUL].count, 4u);
    EXPECT_EQ(record.kinds[InstructionKind::FILL].count, 2u);
    EXPECT_EQ(record.kinds[InstructionKind::COPY].count, 4u);
    EXPECT_EQ(record.kinds.count(InstructionKind::REPEAT), 0u);
    EXPECT_EQ(record.events.size(), 17u);
    auto reduced = record.collectives.at(
        {InstructionKind::ALL_REDUCE, 1}); // groups: tp, dp
    EXPECT_EQ(reduced.count, 1u);
    EXPECT_EQ(reduced.bytes, 32u);
    EXPECT_EQ(record.collectives.at({InstructionKind::ALL_GATHER, 0}).bytes,
              16u);
  }
}

INSTANTIATE_TEST_SUITE_P(Weights, HandBuilt, testing::Bool(),
                         [](const auto &info) {
                           return info.param ? "packed" : "plain";
                         });

TEST(Session, StateCanBeReadBack) {
  TestFolder folder;
  folder.write("hand-built.weights", handBuiltWeightFile());
  Builder builder;
  build(builder, folder, false);
  auto session = start(builder);
  ASSERT_TRUE(session.ok() && (*session)->load().ok());
  std::vector<float> w(16);
  ASSERT_TRUE((*session)->getState(0, w.data()).ok());
  EXPECT_EQ(w, handBuiltWeights());

  Builder packed;
  build(packed, folder, true);
  auto other = start(packed);
  ASSERT_TRUE(other.ok() && (*other)->load().ok());
  EXPECT_EQ((*other)->getState(0, w.data()).message(),
            "state 'w' is packed for the matrix products and cannot be read "
            "back");
}

TEST(Session, PlannedMemoryIsTheSumOfItsParts) {
  TestFolder folder;
  Builder builder;
  build(builder, folder, false);
  SessionOptions options;
  options.threads = 3;
  auto session = start(builder, options);
  ASSERT_TRUE(session.ok());
  RankMemory memory = (*session)->plannedPerRank();
  EXPECT_EQ(memory.states, 64u);
  EXPECT_EQ(memory.arena, 512u);
  EXPECT_EQ(memory.scratch, 3 * cpu::gemmScratchBytes());
}

TEST(Session, WrongInputs) {
  TestFolder folder;
  folder.write("hand-built.weights", handBuiltWeightFile());
  Builder builder;
  build(builder, folder, false);
  builder.plan.entries[0]->inputs[0]->global->dtype = DataType::f32;
  auto session = start(builder);
  ASSERT_TRUE(session.ok() && (*session)->load().ok());
  std::vector<float> x = someInput();
  EXPECT_EQ((*session)->setInputs("run", {}).message(),
            "no value for the input 'x' of entry point 'run'");
  EXPECT_EQ((*session)->setInput("run", "y", view(x, {4, 4})).message(),
            "entry point 'run' has no input 'y' (did you mean x?); it has x");
  EXPECT_EQ((*session)->setInput("run", "x", view(x, {4, 3})).message(),
            "input 'x' has the shape [4, 3], the plan takes [4, 4]");
  EXPECT_EQ((*session)
                ->setInput("run", "x", {DataType::i32, {4, 4}, x.data()})
                .message(),
            "input 'x' is i32, the plan takes f32");
  EXPECT_EQ((*session)->execute("rum").message(),
            "the plan has no entry point 'rum' (did you mean run?); it has "
            "run");
  EXPECT_EQ((*session)->setScalar("flat", 1).message(),
            "the plan has no scalar 'flat' (did you mean flag?); it has flag");
  EXPECT_EQ((*session)->setScalar("flag", 0.5).message(),
            "scalar 'flag' is i32 and cannot be 0.5");
  float y;
  EXPECT_EQ((*session)->getOutput("run", "outt", &y).message(),
            "entry point 'run' has no output 'outt' (did you mean out?); it "
            "has out, first");
}

TEST(Session, PlanForAnotherCpu) {
  TestFolder folder;
  Builder builder;
  build(builder, folder, false);
  builder.plan.features = {"sse2", "avx99"};
  Status status = start(builder).status();
  EXPECT_NE(status.message().find("plan needs avx99, this CPU has "),
            std::string::npos)
      << status.message();
  EXPECT_NE(status.message().find("compile with --target=cpu"),
            std::string::npos);
  builder.plan.features = {"sse2", "-avx99", "+sse4.2"};
  EXPECT_TRUE(start(builder).ok());
}

TEST(Session, PlanForAnotherDevice) {
  TestFolder folder;
  Builder builder;
  build(builder, folder, false);
  builder.plan.target = "tpu:v5";
  EXPECT_EQ(start(builder).status().message(),
            "test.dsplan: plan is for 'tpu:v5'; this runtime runs plans for "
            "cpu and cuda:sm_NN");
}

TEST(Session, TooLittleScratchIsRefused) {
  TestFolder folder;
  Builder builder;
  build(builder, folder, false);
  builder.plan.programs[1]->thread_scratch = 64;
  std::string message = start(builder).status().message();
  EXPECT_NE(message.find("needs " + std::to_string(cpu::gemmScratchBytes()) +
                         " bytes of scratch per thread, the plan has 64"),
            std::string::npos)
      << message;
}

// An entry whose lists leave micro-batches out is refused when it is loaded.
TEST(Session, EveryMicroBatchRuns) {
  TestFolder folder;
  folder.write("hand-built.weights", handBuiltWeightFile());
  Builder builder;
  build(builder, folder, false);
  builder.plan.entries[0]->micro_batches = 4;
  auto session = start(builder);
  ASSERT_FALSE(session.ok());
  EXPECT_NE(session.status().message().find(
                "[plan_v9] entry 'run': pp coordinate 0 runs 1 of 4 "
                "micro-batches of stage 0"),
            std::string::npos)
      << session.status().message();
}

// A weight that is missing on load stops all four ranks with one message.
TEST(Session, MissingWeightsStopEveryRank) {
  TestFolder folder;
  Builder builder;
  build(builder, folder, false);
  auto session = start(builder);
  ASSERT_TRUE(session.ok());
  std::string message = (*session)->load().message();
  EXPECT_NE(message.find("'hand-built.weights' is missing"), std::string::npos)
      << message;
  EXPECT_FALSE((*session)->execute("run").ok());
}

// Two pipeline stages, each a program of its own, with a send and a receive.
TEST(Session, ActionListsRunStages) {
  Builder b;
  b.plan.target = "cpu:x86-64";
  uint32_t pp = b.addAxis("pp", 2);
  int64_t group = b.addGroup({b.wholeAxis(pp)});
  ProgramAssembler load = b.beginProgram("load");
  load.finish();
  InstructionOrigin origin = {"m", "/m/Send"};
  ProgramAssembler first = b.beginProgram("run.0", 0);
  uint32_t x = first.addBuffer({"x", DataType::f32, {4}, 0});
  first.append(0, InstructionKind::SEND, {read(x)},
               {literal(group), literal(1), literal(7)}, origin);
  first.finish();
  ProgramAssembler second = b.beginProgram("run.1", 1);
  uint32_t y = second.addBuffer({"y", DataType::f32, {4}, 0});
  second.append(0, InstructionKind::RECV, {write(y)},
                {literal(group), literal(0), literal(7)}, origin);
  second.finish();
  uint32_t entry = b.addEntry("run", first.index());
  EntryT &run = *b.plan.entries[entry];
  run.programs = {first.index(), second.index()};
  run.actions.clear();
  for (uint32_t stage = 0; stage < 2; ++stage) {
    auto list = std::make_unique<ActionListT>();
    list->actions.push_back(Action(stage, ActionKind::forward, 0));
    run.actions.push_back(std::move(list));
  }
  b.addInput(entry, {"x", first.index(), x, DataType::f32, {4}, {4}});
  b.addOutput(entry, {"y", second.index(), y, DataType::f32, {4}, {4}});
  b.plan.load = load.index();
  auto session = start(b);
  ASSERT_TRUE(session.ok()) << session.status().message();
  ASSERT_TRUE((*session)->load().ok());
  std::vector<float> in = {1, 2, 3, 4}, out(4);
  ASSERT_TRUE((*session)->setInputs("run", {{"x", view(in, {4})}}).ok());
  Status ran = (*session)->execute("run");
  ASSERT_TRUE(ran.ok()) << ran.message();
  ASSERT_TRUE((*session)->getOutput("run", "y", out.data()).ok());
  EXPECT_EQ(out, in);
}

namespace {
/// One rank: y = x (a copy), ids checked against a range, memory bound.
void buildCopy(Builder &b, uint32_t ranks, DataType type) {
  b.plan.target = "cpu:x86-64";
  uint32_t tp = b.addAxis("tp", ranks);
  ProgramAssembler load = b.beginProgram("load");
  load.finish();
  ProgramAssembler run = b.beginProgram("run");
  // Five elements over two ranks: three each, the last one padding.
  int64_t local = (5 + ranks - 1) / ranks;
  uint32_t x = run.addBuffer({"x", type, {local}, 0});
  uint32_t y = run.addBuffer({"y", type, {local}, 64});
  run.append(0, InstructionKind::COPY, {read(x), write(y)},
             {literal(1), literal(local), literal(0), literal(1), literal(0),
              literal(1)},
             {"m", "/m/Copy"});
  run.finish();
  uint32_t entry = b.addEntry("run", run.index());
  std::vector<std::vector<AxisRef>> sharding;
  if (ranks > 1)
    sharding = {{b.wholeAxis(tp)}};
  b.addInput(entry, {"x", run.index(), x, type, {5}, {local}, sharding});
  b.addOutput(entry, {"y", run.index(), y, type, {5}, {local}, sharding});
  b.plan.load = load.index();
}
} // namespace

TEST(Session, UnevenShardsArePadded) {
  Builder b;
  buildCopy(b, 2, DataType::f32);
  auto session = start(b);
  ASSERT_TRUE(session.ok()) << session.status().message();
  ASSERT_TRUE((*session)->load().ok());
  std::vector<float> in = {1, 2, 3, 4, 5}, out(5);
  ASSERT_TRUE((*session)->setInputs("run", {{"x", view(in, {5})}}).ok());
  const float *second =
      static_cast<const float *>((*session)->executor(1).address(1, 0));
  EXPECT_EQ(second[1], 5);
  EXPECT_EQ(second[2], 0); // the padding
  ASSERT_TRUE((*session)->execute("run").ok());
  ASSERT_TRUE((*session)->getOutput("run", "y", out.data()).ok());
  EXPECT_EQ(out, in);
  alignas(64) float memory[16];
  EXPECT_EQ((*session)->bind("run", "x", memory).message(),
            "'x' is sharded over the ranks and cannot be bound; its shards are "
            "copied");
}

TEST(Session, IntegerInputsAreChecked) {
  Builder b;
  buildCopy(b, 1, DataType::i64);
  PortT &port = *b.plan.entries[0]->inputs[0];
  port.has_range = true;
  port.range_min = 0;
  port.range_max = 9;
  auto session = start(b);
  ASSERT_TRUE(session.ok() && (*session)->load().ok());
  int64_t ids[5] = {0, 9, 3, 10, 4};
  EXPECT_EQ(
      (*session)->setInput("run", "x", {DataType::i64, {5}, ids}).message(),
      "input 'x' has the value 10 at [3]; allowed are 0 to 9");
  ids[3] = -1;
  EXPECT_FALSE(
      (*session)->setInput("run", "x", {DataType::i64, {5}, ids}).ok());
  ids[3] = 1;
  EXPECT_TRUE((*session)->setInput("run", "x", {DataType::i64, {5}, ids}).ok());
}

TEST(Session, BoundMemoryIsUsedInPlace) {
  Builder b;
  buildCopy(b, 1, DataType::f32);
  auto session = start(b);
  ASSERT_TRUE(session.ok() && (*session)->load().ok());
  alignas(64) float in[16] = {1, 2, 3, 4, 5}, out[16] = {};
  ASSERT_TRUE((*session)->bind("run", "x", in).ok());
  ASSERT_TRUE((*session)->bind("run", "y", out).ok());
  EXPECT_FALSE((*session)->bind("run", "y", out + 1).ok());
  EXPECT_FALSE((*session)->bind("run", "z", out).ok());
  ASSERT_TRUE((*session)->execute("run").ok());
  EXPECT_EQ(out[4], 5);
  in[4] = 7;
  ASSERT_TRUE((*session)->execute("run").ok());
  EXPECT_EQ(out[4], 7);
}
