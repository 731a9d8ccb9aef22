// dshard-plan as people call it: what it prints, and its exit status.
#include "TestPlan.h"
#include "dshard/Support/File.h"

#include <cstdio>
#include <gtest/gtest.h>
#include <sys/wait.h>

using namespace dshard;
using namespace dshard::plan;

namespace {

struct Output {
  int status = -1;
  std::string text; // standard output and error
};

Output call(const std::string &arguments) {
  Output output;
  FILE *pipe = popen((DSHARD_PLAN_TOOL " " + arguments + " 2>&1").c_str(), "r");
  char buffer[4096];
  for (size_t got; (got = fread(buffer, 1, sizeof(buffer), pipe)) > 0;)
    output.text.append(buffer, got);
  output.status = WEXITSTATUS(pclose(pipe));
  return output;
}

class Tool : public ::testing::Test {
protected:
  void SetUp() override {
    path = ::testing::TempDir() + "dshard-tool-" +
           ::testing::UnitTest::GetInstance()->current_test_info()->name() +
           ".dsplan";
    Builder builder;
    test::buildHandBuiltPlan(builder);
    ASSERT_TRUE(builder.finish(path).ok());
  }
  void TearDown() override { std::remove(path.c_str()); }
  void expect(const std::string &arguments, int status,
              const std::string &text) {
    Output output = call(arguments);
    EXPECT_EQ(output.status, status) << arguments;
    EXPECT_NE(output.text.find(text), std::string::npos)
        << arguments << ": " << output.text;
  }
  std::string path;
};

TEST_F(Tool, Commands) {
  expect("print " + path, 0, "\nprogram 1 \"run\" stage 0 arena 512");
  expect("verify " + path, 0,
         path + ": verified for 4 ranks, 2 programs, 19 instructions");
  expect("stat " + path, 0, "all_reduce {dp}             1 x, 32 B");
  expect("stat --json " + path, 0, "\"peak\": 576");
  expect("explain " + path, 0,
         "run 11: all_reduce {dp} 32 B per rank: sum over dp, forward, path "
         "mlp, node /mlp/Sum\n");
  expect("--help", 0, "examples:");
}

TEST_F(Tool, WrongCommandLines) {
  expect("", 2, "no command");
  expect("prnt " + path, 2, "unknown command 'prnt' (did you mean print?)");
  expect("stat", 2, "'stat' takes one plan, got 0");
  expect("stat --jsn " + path, 2, "unknown option '--jsn'");
  expect("print --json " + path, 2, "--json is for stat");
  expect("diff a b", 1, "'diff' is not there yet");
}

TEST_F(Tool, WrongPlans) {
  expect("print /none", 1, "/none: cannot open: No such file or directory\n");
  std::string file = *readFile(path);
  ASSERT_TRUE(writeFile(path, file.data(), 600).ok());
  expect("print " + path, 1,
         path + ": truncated: the header says " + std::to_string(file.size()) +
             " bytes, the file has 600\n");
  file[200] ^= 1;
  ASSERT_TRUE(writeFile(path, file.data(), file.size()).ok());
  expect("stat " + path, 1, "checksum differs: the file was altered");

  Builder builder;
  test::buildHandBuiltPlan(builder);
  builder.plan.programs[1]->buffers[2].mutate_offset(0);
  ASSERT_TRUE(builder.finish(path).ok());
  expect("print " + path, 0, "program"); // printing shows what verify refuses
  expect("verify " + path, 1, path + ": [plan_v1] program 'run'");
}

} // namespace
