// dshard-run from outside: its command line, files, exit statuses, messages and
// report, on the hand-built plan.

#include "Plan/HandBuiltPlan.h"
#include "TestFolder.h"
#include "dshard/Runtime/Cpu/Gemm.h"
#include "dshard/Runtime/Npy.h"

#include <cstdio>
#include <gtest/gtest.h>
#include <sys/wait.h>

using namespace dshard;
using namespace dshard::test;
using namespace dshard::plan;

namespace {

struct Outcome {
  int status;
  std::string out, error;
};

class RunTool : public testing::Test {
protected:
  RunTool() {
    folder.write("hand-built.weights", handBuiltWeightFile());
    Builder builder;
    HandBuiltOptions options;
    options.modelFolder = folder.path();
    buildHandBuiltPlan(builder, options);
    builder.plan.programs[1]->thread_scratch = cpu::gemmScratchBytes();
    EXPECT_TRUE(builder.finish(folder.path("p.dsplan")).ok());
    for (int i = 0; i < 16; ++i)
      x.push_back(static_cast<float>(i % 5 - 2));
    expected = handBuiltExpected(x, true);
    save("x.npy", {4, 4}, x);
    save("out.npy", {2, 4}, expected);
  }
  void save(const std::string &name, const std::vector<int64_t> &dims,
            const std::vector<float> &data) {
    EXPECT_TRUE(
        writeNpy(folder.path(name), DataType::f32, dims, data.data()).ok());
  }
  std::vector<float> load(const std::string &name) {
    auto array = readNpy(folder.path(name));
    EXPECT_TRUE(array.ok()) << array.status().message();
    if (!array)
      return {};
    const float *data = array->data.as<float>();
    return std::vector<float>(data, data + elementCount(array->dims));
  }
  Outcome run(const std::string &arguments, const std::string &before = "") {
    std::string command = "cd " + folder.path() + " && " + before + " " +
                          DSHARD_RUN_TOOL + " " + arguments +
                          " >stdout.txt 2>stderr.txt";
    int status = std::system(command.c_str());
    auto text = [&](const char *name) {
      std::ifstream file(folder.path(name));
      return std::string(std::istreambuf_iterator<char>(file), {});
    };
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text("stdout.txt"),
            text("stderr.txt")};
  }
  /// Exit status and the one line of standard error.
  void expectError(const std::string &arguments, int status,
                   const std::string &message, const std::string &before = "") {
    Outcome outcome = run(arguments, before);
    EXPECT_EQ(outcome.status, status) << arguments << "\n" << outcome.error;
    EXPECT_EQ(outcome.error, "dshard-run: " + message + "\n") << arguments;
    EXPECT_EQ(outcome.out, "");
  }

  TestFolder folder;
  std::vector<float> x, expected;
};

} // namespace

TEST_F(RunTool, WritesOutputs) {
  Outcome outcome = run("p.dsplan --input x=x.npy --output out=y.npy "
                        "--output=first=z.npy");
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_EQ(outcome.error, "");
  EXPECT_EQ(load("y.npy"), expected);
  EXPECT_EQ(load("z.npy"),
            std::vector<float>(expected.begin(), expected.begin() + 4));
  EXPECT_NE(outcome.out.find("out: f32[2x4], min "), std::string::npos)
      << outcome.out;
  EXPECT_NE(outcome.out.find("on 4 ranks (dp=2,tp=2)"), std::string::npos);
  EXPECT_NE(outcome.out.find("collective: all_reduce over dp, 1 per run"),
            std::string::npos);
}

TEST_F(RunTool, SetsScalars) {
  EXPECT_EQ(
      run("p.dsplan --input x=x.npy --output out=y.npy --scalar flag=0").status,
      0);
  EXPECT_EQ(load("y.npy"), handBuiltExpected(x, false));
}

TEST_F(RunTool, RunsSteps) {
  std::vector<float> two = x, both = expected;
  for (float value : x)
    two.push_back(value + 1);
  std::vector<float> next =
      handBuiltExpected(std::vector<float>(two.begin() + 16, two.end()), true);
  both.insert(both.end(), next.begin(), next.end());
  save("two.npy", {2, 4, 4}, two);
  EXPECT_EQ(
      run("p.dsplan --steps 2 --input x=two.npy --output out=y.npy").status, 0);
  EXPECT_EQ(load("y.npy"), both);
  expectError(
      "p.dsplan --steps 3 --input x=two.npy", 1,
      "input 'x' has the shape [2, 4, 4], with --steps 3 the plan takes "
      "[3, 4, 4]: one batch for every step");
}

TEST_F(RunTool, Compares) {
  std::string command =
      "p.dsplan --input x=x.npy --expected out=out.npy --atol 0.5";
  Outcome outcome = run(command);
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_NE(outcome.out.find("out: largest difference 0, within the tolerance"),
            std::string::npos)
      << outcome.out;
  expected[5] += 1;
  save("out.npy", {2, 4}, expected);
  outcome = run(command);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.error,
            "dshard-run: output 'out' differs from out.npy by up to 1, more "
            "than --rtol 0 --atol 0.5 allow\n");
  EXPECT_NE(outcome.out.find("largest difference 1 at [1, 1]"),
            std::string::npos)
      << outcome.out;
  EXPECT_EQ(run(command + " --rtol 1").status, 0);
  save("out.npy", {8}, expected);
  EXPECT_EQ(run(command).error, "dshard-run: out.npy: has the shape [8], "
                                "output 'out' has [2, 4]\n");
}

TEST_F(RunTool, ReportsAsJson) {
  Outcome outcome =
      run("p.dsplan --input x=random:3 --repeat 3 --warmup 2 --report=json "
          "--trace=t.json");
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  std::string planned =
      std::to_string(4 * (64 + 512 + cpu::gemmScratchBytes()));
  for (const std::string &part :
       {std::string("\"mesh\": \"dp=2,tp=2\""), std::string("\"repeat\": 3"),
        std::string("\"warmup\": 2"), "\"planned_sum\": " + planned,
        std::string("\"measured_sum\": "), std::string("\"median\": "),
        std::string("\"kind\": \"permute\""), std::string("\"axes\": \"tp\"")})
    EXPECT_NE(outcome.out.find(part), std::string::npos) << part << " in\n"
                                                         << outcome.out;
  std::ifstream trace(folder.path("t.json"));
  std::string text(std::istreambuf_iterator<char>(trace), {});
  EXPECT_NE(text.find("\"cat\": \"all_gather\""), std::string::npos);
  EXPECT_NE(text.find("\"why\": \"columns of tp\""), std::string::npos);
}

// The planned sum against the process's own high-water mark.
TEST_F(RunTool, MeasuresWhatIsPlanned) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers have memory of their own";
#endif
  Builder builder;
  HandBuiltOptions options;
  options.modelFolder = folder.path();
  buildHandBuiltPlan(builder, options);
  builder.plan.programs[1]->thread_scratch = cpu::gemmScratchBytes();
  builder.plan.programs[1]->arena_size = 48 << 20;
  ASSERT_TRUE(builder.finish(folder.path("big.dsplan")).ok());
  Outcome outcome = run("big.dsplan --input x=random --repeat 3 --report=json");
  ASSERT_EQ(outcome.status, 0) << outcome.error;
  auto number = [&](const std::string &key) {
    size_t at = outcome.out.find("\"" + key + "\": ");
    EXPECT_NE(at, std::string::npos) << key;
    return std::atof(outcome.out.c_str() + at + key.size() + 4);
  };
  double planned = number("planned_sum"), measured = number("measured_sum");
  EXPECT_GT(planned, 4 * 48e6);
  EXPECT_NEAR(measured, planned, 4 << 20);
}

TEST_F(RunTool, SavesState) {
  EXPECT_EQ(run("p.dsplan --input x=x.npy --save-state states").status, 0);
  EXPECT_EQ(load("states/w.npy"), handBuiltWeights());
}

TEST_F(RunTool, DrawsWeightsAndInputs) {
  std::filesystem::remove(folder.path("hand-built.weights"));
  std::string command = "p.dsplan --input x=random --output out=";
  EXPECT_EQ(run(command + "a.npy --random-weights").status, 0);
  EXPECT_EQ(run(command + "b.npy --random-weights=0").status, 0);
  EXPECT_EQ(run(command + "c.npy --random-weights=1").status, 0);
  EXPECT_EQ(load("a.npy"), load("b.npy"));
  EXPECT_NE(load("a.npy"), load("c.npy"));
  expectError(command + "d.npy", 1,
              "weights file 'hand-built.weights' is missing in '" +
                  folder.path() +
                  "'; name its folder with --weights, or use "
                  "--random-weights");
  EXPECT_FALSE(std::filesystem::exists(folder.path("d.npy")));
}

TEST_F(RunTool, WrongInputs) {
  expectError("p.dsplan", 1,
              "no value for the input 'x' of entry point 'run'; give --input "
              "NAME=FILE.npy or --input NAME=random");
  expectError("p.dsplan --input x=random:seven", 1,
              "input 'x': the seed of 'random:seven' is not a number");
  expectError("p.dsplan --input z=x.npy", 1,
              "entry point 'run' has no input 'z' (did you mean x?); it has x");
  expectError("p.dsplan --input x=absent.npy", 1,
              "absent.npy: cannot open: No such file or directory");
  save("x.npy", {4, 3}, x);
  expectError("p.dsplan --input x=x.npy", 1,
              "x.npy: its shape needs 48 bytes, the file has 64",
              "truncate -s +16 x.npy &&");
  save("x.npy", {2, 8}, x);
  expectError("p.dsplan --input x=x.npy", 1,
              "input 'x' has the shape [2, 8], the plan takes [4, 4]");
  expectError("p.dsplan --input x=random --output y=y.npy", 1,
              "entry point 'run' has no output 'y'; it has out, first");
  expectError("p.dsplan --input x=random --entry decode", 1,
              "the plan has no entry point 'decode'; it has run");
  for (const char *flag : {"--output out=no/y.npy", "--trace=no/y.npy"})
    expectError(std::string("p.dsplan --input x=random ") + flag, 1,
                "no/y.npy: cannot create: No such file or directory");
}

// What is not a regular file is neither waited for nor replaced.
TEST_F(RunTool, Pipes) {
  expectError("p.dsplan --input x=pipe", 1,
              "pipe: cannot open: not a regular file", "mkfifo pipe &&");
  EXPECT_EQ(run("p.dsplan --input x=x.npy --output out=pipe && wait",
                "{ timeout 20 cat pipe > y.npy & } &&")
                .status,
            0);
  EXPECT_EQ(load("y.npy"), expected);
  EXPECT_TRUE(std::filesystem::is_fifo(folder.path("pipe")));
  expectError("p.dsplan --input x=x.npy", 1,
              "weights file " + folder.path("hand-built.weights") +
                  ": cannot open: not a regular file",
              "mv pipe hand-built.weights &&");
}

#if !defined(__SANITIZE_ADDRESS__)
TEST_F(RunTool, TooManyThreads) {
  Outcome outcome = run("p.dsplan --input x=random",
                        "ulimit -v 1000000 && DSHARD_THREADS=1000");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.error.find("cannot start thread "), std::string::npos)
      << outcome.error;
}
#endif

TEST_F(RunTool, WrongCommandLines) {
  expectError("", 2,
              "no plan given; usage: dshard-run PLAN.dsplan --input "
              "NAME=FILE.npy ..., see --help");
  expectError("p.dsplan --inptu x=x.npy", 2,
              "unknown flag '--inptu' (did you mean --input?); see --help");
  expectError("p.dsplan --input x", 2, "--input wants NAME=FILE, not 'x'");
  expectError("p.dsplan --input", 2, "--input wants a value; see --help");
  expectError("p.dsplan --input x=a --input x=b", 2, "--input names 'x' twice");
  expectError("p.dsplan --repeat 0", 2,
              "--repeat wants a number of at least 1, not '0'");
  expectError("p.dsplan --report=xml", 2, "--report can be json, not 'xml'");
  expectError("p.dsplan --expected out=out.npy", 2,
              "--expected needs --rtol, --atol or both");
  expectError("p.dsplan --rtol 1", 2, "--rtol and --atol need --expected");
  expectError("p.dsplan q.dsplan", 2, "two plans: 'p.dsplan' and 'q.dsplan'");
  Outcome help = run("--help");
  EXPECT_EQ(help.status, 0);
  EXPECT_NE(help.out.find("Examples:"), std::string::npos);
}

TEST_F(RunTool, Launchers) {
  expectError("p.dsplan --input x=random", 1,
              "running under mpirun (OMPI_COMM_WORLD_SIZE=4) is not built yet; "
              "start dshard-run once, it runs all ranks of the plan as threads",
              "OMPI_COMM_WORLD_SIZE=4");
  EXPECT_EQ(run("p.dsplan --input x=random", "WORLD_SIZE=1").status, 0);
}

TEST_F(RunTool, DamagedPlan) {
  Outcome outcome = run("x.npy");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.error.compare(0, 19, "dshard-run: x.npy: "), 0)
      << outcome.error;
}
