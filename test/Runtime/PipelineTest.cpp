// A pipeline executed: two stages, three micro-batches, sharded rows, an input
// of both stages, bound memory, and the memory of each stage.

#include "dshard/Plan/PlanBuilder.h"
#include "dshard/Runtime/Session.h"

#include <gtest/gtest.h>

using namespace dshard;
using namespace dshard::plan;

namespace {

constexpr int64_t microBatches = 3;

/// On <pp=2,dp_shard=2>: y = x, which crosses the stages, and w = z + 0, whose
/// copy on stage 0 must be there (it is sent first). Rows are `width` floats;
/// each rank has two rows of x per micro-batch, and four of z, which is whole
/// everywhere.
void build(Builder &builder, int64_t width) {
  uint32_t pp = builder.addAxis("pp", 2), dp = builder.addAxis("dp_shard", 2);
  int64_t group = builder.addGroup({builder.wholeAxis(pp)});
  builder.plan.target = "cpu";
  builder.addState("own of 1", StateRole::buffer, InitializerKind::zero,
                   DataType::f32, {1024}, {1024}, {}, StateLayout::plain, 0, 1);
  builder.beginProgram("load").finish();
  uint64_t slot = alignTo(static_cast<uint64_t>(4 * width * 4), 64);
  uint64_t room = microBatches * slot;
  std::vector<uint32_t> programs;
  enum { x, z, travels, zThere };
  for (uint32_t stage : {0, 1}) {
    ProgramAssembler program =
        builder.beginProgram("run." + std::to_string(stage), stage);
    programs.push_back(program.index());
    BufferSpec spec = {stage ? "y" : "x", DataType::f32, {2, width}, 0};
    spec.slots = microBatches;
    program.addBuffer(spec);
    spec = {"z", DataType::f32, {4, width}, room};
    spec.slots = microBatches;
    program.addBuffer(spec);
    program.addBuffer({"travels", DataType::f32, {2, width}, 2 * room});
    program.addBuffer({"z there", DataType::f32, {4, width}, 2 * room + slot});
    auto copy = [&](BufferUse in, BufferUse out, int64_t count) {
      program.append(0, InstructionKind::COPY, {in, out},
                     {literal(1), literal(count), literal(0), literal(1),
                      literal(0), literal(1)});
    };
    auto message = [&](uint32_t buffer, int64_t tag) {
      bool sends = stage == 0;
      program.append(0, sends ? InstructionKind::SEND : InstructionKind::RECV,
                     {sends ? read(buffer) : write(buffer)},
                     {literal(group), literal(sends ? 1 : 0), literal(tag)});
    };
    if (stage == 0) {
      copy(read(z, microBatch()), write(zThere), 4 * width);
      message(zThere, 1);
      copy(read(x, microBatch()), write(travels), 2 * width);
      message(travels, 0);
    } else {
      message(travels, 0); // in another order than they were sent
      copy(read(travels), write(x, microBatch()), 2 * width);
      message(zThere, 1);
      spec = {"w", DataType::f32, {4, width}, 3 * room + slot};
      spec.slots = microBatches;
      uint32_t w = program.addBuffer(spec);
      copy(read(z, microBatch()), write(w, microBatch()), 4 * width);
    }
    program.finish();
  }
  uint32_t entry = builder.addPipeline("run", programs, microBatches);
  auto port = [&](const char *name, uint32_t stage, uint32_t buffer,
                  int64_t rows, bool sharded) {
    PortSpec spec;
    spec.name = name;
    spec.program = programs[stage];
    spec.buffer = buffer;
    spec.global = {rows * microBatches * (sharded ? 2 : 1), width};
    spec.local = {rows * microBatches, width};
    if (sharded)
      spec.sharding = {{builder.wholeAxis(dp)}, {}};
    return spec;
  };
  builder.addInput(entry, port("x", 0, x, 2, true));
  builder.addInput(entry, port("z", 0, z, 4, false));
  builder.addInput(entry, port("z", 1, z, 4, false));
  builder.addOutput(entry, port("y", 1, x, 2, true));
  builder.addOutput(entry, port("w", 1, zThere + 1, 4, false));
}

std::unique_ptr<Session> start(int64_t width) {
  Builder builder;
  build(builder, width);
  auto reader = Reader::fromBytes(builder.finish(), "pipeline.dsplan");
  EXPECT_TRUE(reader.ok()) << reader.status().message();
  if (!reader)
    return nullptr;
  SessionOptions options;
  options.threads = 1;
  auto session = Session::create(std::move(*reader), options);
  EXPECT_TRUE(session.ok()) << session.status().message();
  if (!session)
    return nullptr;
  Status loaded = (*session)->load();
  EXPECT_TRUE(loaded.ok()) << loaded.message();
  return std::move(*session);
}

std::vector<float> count(int64_t size, float from) {
  std::vector<float> values(size);
  for (int64_t i = 0; i < size; ++i)
    values[i] = from + static_cast<float>(i);
  return values;
}

} // namespace

// 8 floats fill a slot of 64 bytes, 3 leave a gap behind it.
TEST(Pipeline, RowsComeBackInTheirPlaces) {
  for (int64_t width : {8, 3}) {
    auto session = start(width);
    ASSERT_TRUE(session);
    for (float from : {1.0f, 1000.0f}) {
      std::vector<float> x = count(12 * width, from),
                         z = count(12 * width, -from);
      std::vector<float> y(12 * width), w(12 * width);
      Status set = session->setInputs(
          "run", {{"x", {DataType::f32, {12, width}, x.data()}},
                  {"z", {DataType::f32, {12, width}, z.data()}}});
      ASSERT_TRUE(set.ok()) << set.message();
      Status ran = session->execute("run");
      ASSERT_TRUE(ran.ok()) << ran.message();
      ASSERT_TRUE(session->getOutput("run", "y", y.data()).ok());
      ASSERT_TRUE(session->getOutput("run", "w", w.data()).ok());
      EXPECT_EQ(x, y);
      EXPECT_EQ(z, w);
    }
    EXPECT_EQ(session->checkInputs("run", {}).message(),
              "no value for the inputs 'x', 'z' of entry point 'run'");
  }
}

TEST(Pipeline, AnInputOfTwoStagesIsBoundOnBoth) {
  auto session = start(16);
  ASSERT_TRUE(session);
  alignas(64) float z[12 * 16];
  ASSERT_TRUE(session->bind("run", "z", z).ok());
  std::vector<float> x = count(12 * 16, 0), w(12 * 16);
  for (float from : {1.0f, 2.0f}) {
    std::fill(std::begin(z), std::end(z), from);
    ASSERT_TRUE(
        session
            ->setInputs("run", {{"x", {DataType::f32, {12, 16}, x.data()}},
                                {"z", {DataType::f32, {12, 16}, z}}})
            .ok());
    ASSERT_TRUE(session->execute("run").ok());
    ASSERT_TRUE(session->getOutput("run", "w", w.data()).ok());
    EXPECT_EQ(w, std::vector<float>(12 * 16, from));
  }
  // Slots with gaps do not lie in the caller's memory as they should.
  auto narrow = start(3);
  ASSERT_TRUE(narrow);
  EXPECT_EQ(narrow->bind("run", "z", z).message(),
            "'z' goes through in micro-batches of 48 bytes, no multiple of 64, "
            "and cannot be bound");
}

TEST(Pipeline, StagesHaveTheirOwnMemory) {
  auto session = start(8);
  ASSERT_TRUE(session);
  RankMemory most = session->plannedPerRank(),
             all = session->plannedOfAllRanks();
  EXPECT_EQ(most.states, 4096u);
  EXPECT_EQ(all.states, 2 * 4096u); // two ranks of stage 1
  EXPECT_EQ(session->executor(0).memory().states, 0u);
  EXPECT_EQ(session->executor(2).memory().states, 4096u);
  // What stage 0 sends, x and z, of each micro-batch.
  EXPECT_EQ(session->executor(0).memory().messages,
            microBatches * (2 + 4) * 8 * sizeof(float));
  EXPECT_EQ(session->executor(2).memory().messages, 0u);
  uint64_t sum = 0;
  for (uint32_t rank = 0; rank < 4; ++rank)
    sum += session->executor(rank).memory().total();
  EXPECT_EQ(all.total(), sum);
  std::vector<float> state(1024, 1);
  ASSERT_TRUE(session->getState(0, state.data()).ok());
  EXPECT_EQ(state, std::vector<float>(1024, 0));
}
