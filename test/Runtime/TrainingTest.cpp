// Steps that write states: a training step by hand, through the session and
// through dshard-run; checks of gradients, scalars and labels; sequence
// layouts.

#include "TestFolder.h"
#include "TrainingPlan.h"
#include "dshard/Runtime/Npy.h"
#include "dshard/Runtime/Session.h"

#include <cmath>
#include <gtest/gtest.h>
#include <sys/wait.h>

using namespace dshard;
using namespace dshard::test;
using namespace dshard::plan;

namespace {

Result<std::unique_ptr<Session>> start(Builder &builder) {
  auto reader = Reader::fromBytes(builder.finish(), "test.dsplan");
  if (!reader)
    return reader.status();
  return Session::create(std::move(*reader), {});
}

/// x and labels of a step; the columns of x sum to 4 and 8.
struct Batch {
  std::vector<float> x = {1, 2, 1, 2, 1, 2, 1, 2};
  std::vector<int64_t> labels = {0, -100, 9, 3};
  Session::NamedTensors tensors() const {
    return {{"x", {DataType::f32, {4, 2}, x.data()}},
            {"labels", {DataType::i64, {4}, labels.data()}}};
  }
};

std::vector<float> weights(Session &session) {
  std::vector<float> w(2);
  EXPECT_TRUE(session.getState(0, w.data()).ok());
  return w;
}

/// "VmRSS:" and the like, in bytes.
int64_t processBytes(const std::string &key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.compare(0, key.size(), key) == 0)
      return std::stoll(line.substr(key.size())) * 1024;
  return -1;
}

} // namespace

TEST(Training, StatesGoOnFromStepToStep) {
  Builder b;
  buildTrainingPlan(b);
  auto made = start(b);
  ASSERT_TRUE(made.ok()) << made.status().message();
  Session &session = **made;
  Batch batch;
  for (int load = 0; load < 2; ++load) { // loading again starts again
    ASSERT_TRUE(session.load().ok());
    EXPECT_EQ(weights(session), (std::vector<float>{0, 0}));
    ASSERT_TRUE(session.setScalar("lr", 0.5).ok());
    for (int step = 1; step <= 3; ++step) {
      ASSERT_TRUE(session.setInputs("train_step", batch.tensors()).ok());
      ASSERT_TRUE(session.execute("train_step").ok());
      EXPECT_EQ(weights(session),
                (std::vector<float>{2.0f * step, 4.0f * step}));
    }
    // The host sets the scalar between steps.
    ASSERT_TRUE(session.setScalar("lr", 0.25).ok());
    ASSERT_TRUE(session.setInputs("train_step", batch.tensors()).ok());
    ASSERT_TRUE(session.execute("train_step").ok());
    EXPECT_EQ(weights(session), (std::vector<float>{7, 14}));
    int64_t rounds = -1;
    ASSERT_TRUE(session.getState(1, &rounds).ok());
    EXPECT_EQ(rounds, 1); // the last iteration
    float loss = 0;
    ASSERT_TRUE(session.getOutput("train_step", "loss", &loss).ok());
    EXPECT_EQ(loss, 80);
  }
}

TEST(Training, ScalarsAreFinite) {
  Builder b;
  buildTrainingPlan(b);
  auto session = start(b);
  ASSERT_TRUE(session.ok());
  EXPECT_EQ((*session)->setScalar("lr", NAN).message(),
            "scalar 'lr' is nan; it must be finite");
  EXPECT_EQ((*session)->setScalar("lr", INFINITY).message(),
            "scalar 'lr' is inf; it must be finite");
  EXPECT_EQ((*session)->setScalar("lr", 1e300).message(),
            "scalar 'lr' is f32 and cannot be 1e+300");
  EXPECT_TRUE((*session)->setScalar("lr", -1).ok());
}

TEST(Training, LabelsMayHaveOneValueMore) {
  Builder b;
  buildTrainingPlan(b);
  auto session = start(b);
  ASSERT_TRUE(session.ok());
  Batch batch;
  EXPECT_TRUE((*session)->checkInputs("train_step", batch.tensors()).ok());
  batch.labels[2] = 10;
  EXPECT_EQ((*session)->checkInputs("train_step", batch.tensors()).message(),
            "input 'labels' has the value 10 at [2]; allowed are 0 to 9 and "
            "-100");
  batch.labels[2] = -1;
  EXPECT_FALSE((*session)->checkInputs("train_step", batch.tensors()).ok());
}

TEST(Training, FindsGradientsThatAreNotFinite) {
  for (const char *check : {"nonfinite.stop", "nonfinite.skip"}) {
    Builder b;
    buildTrainingPlan(b, check);
    auto session = start(b);
    ASSERT_TRUE(session.ok() && (*session)->load().ok());
    Batch batch;
    for (float bad : {1.0f, INFINITY, NAN}) {
      batch.x[5] = bad;
      ASSERT_TRUE((*session)->setInputs("train_step", batch.tensors()).ok());
      ASSERT_TRUE((*session)->execute("train_step").ok());
      auto found = (*session)->findNotFinite("train_step");
      ASSERT_EQ(found.size(), bad == 1 ? 0u : 1u);
      if (found.empty())
        continue;
      EXPECT_EQ(found[0].name, "w");
      EXPECT_EQ(found[0].skipped, std::string(check) == "nonfinite.skip");
    }
  }
}

// A thousand steps need no more memory than fifty.
TEST(Training, MemoryDoesNotGrow) {
  Builder b;
  buildTrainingPlan(b);
  auto session = start(b);
  ASSERT_TRUE(session.ok() && (*session)->load().ok());
  Batch batch;
  int64_t before = 0;
  for (int step = 0; step < 1050; ++step) {
    if (step == 50)
      before = processBytes("VmRSS:");
    ASSERT_TRUE((*session)->setInputs("train_step", batch.tensors()).ok());
    ASSERT_TRUE((*session)->execute("train_step").ok());
    ASSERT_TRUE((*session)->findNotFinite("train_step").empty());
    float loss;
    ASSERT_TRUE((*session)->getOutput("train_step", "loss", &loss).ok());
  }
  if (before > 0) {
    EXPECT_LT(processBytes("VmRSS:") - before, 64 << 10);
  }
}

// The parts of a dealt dim on their ranks, and back in natural order.
TEST(Training, SequenceLayouts) {
  struct {
    SequenceLayout layout;
    std::vector<float> onRank1; // of [2, 8], columns over cp=2
  } cases[] = {
      {SequenceLayout::contiguous, {4, 5, 6, 7, 14, 15, 16, 17}},
      {SequenceLayout::zigzag, {2, 3, 4, 5, 12, 13, 14, 15}},
      {SequenceLayout::striped, {1, 3, 5, 7, 11, 13, 15, 17}},
  };
  std::vector<float> x(16), y(16);
  for (int i = 0; i < 16; ++i)
    x[i] = static_cast<float>(i / 8 * 10 + i % 8);
  for (const auto &c : cases) {
    Builder b;
    b.plan.target = "cpu:x86-64";
    uint32_t cp = b.addAxis("cp", 2);
    ProgramAssembler load = b.beginProgram("load");
    load.finish();
    ProgramAssembler run = b.beginProgram("run");
    uint32_t in = run.addBuffer({"x", DataType::f32, {2, 4}, 0});
    uint32_t out = run.addBuffer({"y", DataType::f32, {2, 4}, 64});
    run.append(0, InstructionKind::COPY, {read(in), write(out)},
               {literal(1), literal(8), literal(0), literal(1), literal(0),
                literal(1)},
               {"m", "/m/Copy"});
    run.finish();
    uint32_t entry = b.addEntry("run", run.index());
    PortSpec port;
    port.name = "x";
    port.program = run.index();
    port.buffer = in;
    port.global = {2, 8};
    port.local = {2, 4};
    port.sharding = {{}, {b.wholeAxis(cp)}};
    port.layout = c.layout;
    port.layoutDim = 1;
    port.layoutParts = 2;
    b.addInput(entry, port);
    port.name = "y";
    port.buffer = out;
    b.addOutput(entry, port);
    b.plan.load = load.index();
    auto session = start(b);
    ASSERT_TRUE(session.ok()) << session.status().message();
    ASSERT_TRUE((*session)->load().ok());
    ASSERT_TRUE((*session)
                    ->setInput("run", "x", {DataType::f32, {2, 8}, x.data()})
                    .ok());
    const float *second =
        static_cast<const float *>((*session)->executor(1).address(1, in));
    EXPECT_EQ(std::vector<float>(second, second + 8), c.onRank1);
    ASSERT_TRUE((*session)->execute("run").ok());
    ASSERT_TRUE((*session)->getOutput("run", "y", y.data()).ok());
    EXPECT_EQ(y, x);
  }
}

//===----------------------------------------------------------------------===//
// dshard-run
//===----------------------------------------------------------------------===//

namespace {

struct Outcome {
  int status;
  std::string out, error;
};

class TrainingTool : public testing::Test {
protected:
  TrainingTool() {
    for (const char *check : {"stop", "skip"}) {
      Builder builder;
      buildTrainingPlan(builder, (std::string("nonfinite.") + check).c_str());
      EXPECT_TRUE(
          builder.finish(folder.path(std::string(check) + ".dsplan")).ok());
    }
    // Three steps: columns of x sum to 4 and 8, 8 and 16, 12 and 24.
    std::vector<float> x;
    std::vector<int64_t> labels;
    for (int step = 1; step <= 3; ++step)
      for (int i = 0; i < 8; ++i)
        x.push_back(static_cast<float>(step * (1 + i % 2)));
    labels.assign(12, 4);
    save("x.npy", DataType::f32, {3, 4, 2}, x.data());
    save("x1.npy", DataType::f32, {4, 2}, x.data());
    save("labels.npy", DataType::i64, {3, 4}, labels.data());
    save("labels1.npy", DataType::i64, {4}, labels.data());
    labels[6] = 11;
    save("wrong.npy", DataType::i64, {3, 4}, labels.data());
    x[10] = INFINITY;
    save("infinite.npy", DataType::f32, {3, 4, 2}, x.data());
  }
  void save(const char *name, DataType type, const std::vector<int64_t> &dims,
            const void *data) {
    EXPECT_TRUE(writeNpy(folder.path(name), type, dims, data).ok());
  }
  std::string text(const std::string &name) {
    std::ifstream file(folder.path(name), std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  std::vector<float> floats(const std::string &name) {
    auto array = readNpy(folder.path(name));
    EXPECT_TRUE(array.ok()) << array.status().message();
    if (!array)
      return {};
    const float *data = array->data.as<float>();
    return std::vector<float>(data, data + elementCount(array->dims));
  }
  Outcome run(const std::string &arguments) {
    std::string command = "cd " + folder.path() + " && " + DSHARD_RUN_TOOL +
                          " " + arguments + " >stdout.txt 2>stderr.txt";
    int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text("stdout.txt"),
            text("stderr.txt")};
  }

  TestFolder folder;
};

} // namespace

TEST_F(TrainingTool, TrainsAndSavesStates) {
  std::string arguments = "stop.dsplan --entry train_step --steps 3 --input "
                          "x=x.npy --input labels=labels.npy ";
  Outcome outcome = run(arguments + "--scalar lr=0.25 --output loss=loss.npy "
                                    "--save-state first");
  ASSERT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_EQ(outcome.error, "");
  EXPECT_EQ(floats("loss.npy"), (std::vector<float>{80, 320, 720}));
  EXPECT_EQ(floats("first/w.npy"), (std::vector<float>{6, 12}));
  EXPECT_NE(outcome.out.find("loss: f32[3], min 80, max 720, mean 373.333, "
                             "first 80, last 720\n"),
            std::string::npos)
      << outcome.out;
  EXPECT_EQ(outcome.out.find("nonfinite"), std::string::npos);
  EXPECT_NE(outcome.out.find("steps: "), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder.path("first/.partial")));

  // The same bits again, into a folder that holds an earlier state.
  std::filesystem::create_directories(folder.path("second"));
  folder.write("second/w.npy", "old");
  ASSERT_EQ(run(arguments + "--scalar lr=0.25 --save-state second").status, 0);
  for (const char *file : {"w.npy", "blocks_rounds.npy"})
    EXPECT_EQ(text(std::string("first/") + file),
              text(std::string("second/") + file));
}

TEST_F(TrainingTool, OneStepNeedsNoStepDim) {
  for (const char *suffix : {"", " --steps 1"}) {
    Outcome outcome =
        run("stop.dsplan --input x=x1.npy --input labels=labels1.npy --output "
            "loss=loss.npy" +
            std::string(suffix));
    EXPECT_EQ(outcome.status, 0) << outcome.error;
    EXPECT_EQ(floats("loss.npy"), std::vector<float>{80});
  }
  Outcome outcome =
      run("stop.dsplan --steps 3 --input x=x1.npy --input labels=labels.npy");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.error,
            "dshard-run: input 'x' has the shape [4, 2], with --steps 3 the "
            "plan takes [3, 4, 2]: one batch for every step\n");
}

TEST_F(TrainingTool, StopsOrSkipsWhereAGradientIsNotFinite) {
  std::string arguments =
      "--steps 3 --input x=infinite.npy --input labels=labels.npy --save-state "
      "states";
  Outcome outcome = run("stop.dsplan " + arguments);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.error.find(
                "dshard-run: gradient of 'w' is not finite in step 2; "),
            0u)
      << outcome.error;
  EXPECT_EQ(std::count(outcome.error.begin(), outcome.error.end(), '\n'), 1);
  EXPECT_FALSE(std::filesystem::exists(folder.path("states/w.npy")));
  outcome = run("skip.dsplan " + arguments);
  EXPECT_EQ(outcome.status, 0);
  EXPECT_NE(outcome.error.find("gradient of 'w' is not finite in step 2; the "
                               "step is skipped"),
            std::string::npos)
      << outcome.error;
}

TEST_F(TrainingTool, ChecksEveryStepsLabelsBeforeTheFirst) {
  Outcome outcome =
      run("stop.dsplan --steps 3 --input x=x.npy --input labels=wrong.npy");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.error,
            "dshard-run: input 'labels' has the value 11 at [2]; allowed are 0 "
            "to 9 and -100 (step 2)\n");
  outcome = run("stop.dsplan --steps 3 --input x=x.npy --input "
                "labels=labels.npy --scalar lr=nan");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.error,
            "dshard-run: scalar 'lr' is nan; it must be finite\n");
}

TEST_F(TrainingTool, ReportsSteps) {
  Outcome outcome = run("stop.dsplan --steps 3 --repeat 2 --warmup 1 --input "
                        "x=x.npy --input labels=labels.npy --report=json");
  ASSERT_EQ(outcome.status, 0) << outcome.error;
  for (const char *key :
       {"\"steps_per_second\": ", "\"step_latency_ms\": ", "\"count\": 6,"})
    EXPECT_NE(outcome.out.find(key), std::string::npos) << outcome.out;
}
