// Plans for GPUs without one: what is missing is said in one line, and a
// hand-built plan (library calls, copies, streams, collectives) runs on the
// emulator.

#include "Plan/HandBuiltPlan.h"
#include "TestFolder.h"
#include "dshard/Runtime/Session.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <sys/wait.h>
#include <unistd.h>

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

void build(Builder &builder, const TestFolder &folder) {
  HandBuiltOptions options;
  options.modelFolder = folder.path();
  options.gpu = true;
  buildHandBuiltPlan(builder, options);
}

using Variables = std::vector<std::pair<const char *, std::string>>;

/// body() in a process of its own with these variables: libraries are opened
/// once per process. The text that it returns.
template <typename Body>
std::string inProcess(const Variables &variables, Body body) {
  int ends[2];
  if (pipe(ends) != 0)
    return "no pipe";
  pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    for (const auto &[name, value] : variables)
      setenv(name, value.c_str(), 1);
    std::string text = body();
    ssize_t written = write(ends[1], text.data(), text.size());
    _exit(written == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  close(ends[1]);
  std::string text;
  char buffer[512];
  for (ssize_t count; (count = read(ends[0], buffer, sizeof(buffer))) > 0;)
    text.append(buffer, count);
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status))
    text += " [the process ended badly]";
  return text;
}

std::string createError(const Variables &variables) {
  TestFolder folder;
  return inProcess(variables, [&] {
    Builder builder;
    build(builder, folder);
    return start(builder).status().message();
  });
}

bool holds(const std::string &text, const char *part) {
  return text.find(part) != std::string::npos;
}

} // namespace

TEST(Cuda, NoDriver) {
  EXPECT_EQ(createError({{"DSHARD_CUDA_LIBRARY", "/nowhere/libcuda.so"}}),
            "test.dsplan: cannot open the CUDA driver: looked for "
            "/nowhere/libcuda.so, which DSHARD_CUDA_LIBRARY names: "
            "/nowhere/libcuda.so: cannot open shared object file: No such file "
            "or directory; install NVIDIA's driver, or compile for "
            "--target=cpu");
}

// A library that is no driver, or one that is too old to have everything.
TEST(Cuda, WrongDriver) {
  std::string message = createError({{"DSHARD_CUDA_LIBRARY", "libc.so.6"}});
  EXPECT_EQ(message, "test.dsplan: the CUDA driver in libc.so.6 has no cuInit; "
                     "it is too old");
}

TEST(Cuda, TargetsAreRead) {
  EXPECT_EQ(gpuArchitecture("cuda:sm_90"), 90);
  EXPECT_EQ(gpuArchitecture("cuda:sm_100"), 100);
  EXPECT_EQ(gpuArchitecture("cuda:sm_90a"), 0);
  EXPECT_EQ(gpuArchitecture("cpu:x86-64-v3"), 0);
}

namespace {
Variables emulated(Variables more = {}) {
  Variables all = {{"DSHARD_CUDA_LIBRARY", DSHARD_EMULATOR},
                   {"DSHARD_CUBLASLT_LIBRARY", DSHARD_EMULATOR},
                   {"DSHARD_NCCL_LIBRARY", DSHARD_EMULATOR},
                   {"DSHARD_EMULATOR_DEVICES", "4"}};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

/// Runs the hand-built plan twice: "" if all is as expected.
std::string runHandBuilt() {
  TestFolder folder;
  folder.write("hand-built.weights", handBuiltWeightFile());
  Builder builder;
  build(builder, folder);
  auto session = start(builder);
  if (!session)
    return session.status().message();
  if (Status status = (*session)->load(); !status)
    return status.message();
  std::vector<float> x(16), out(8);
  for (int i = 0; i < 16; ++i)
    x[i] = static_cast<float>((i * 5) % 7 - 3);
  for (bool flag : {true, false}) {
    if (!(*session)->setScalar("flag", flag))
      return "setScalar";
    if (Status status = (*session)->setInputs(
            "run", {{"x", {DataType::f32, {4, 4}, x.data()}}});
        !status)
      return status.message();
    if (Status status = (*session)->execute("run"); !status)
      return status.message();
    if (Status status = (*session)->getOutput("run", "out", out.data());
        !status)
      return status.message();
    if (out != handBuiltExpected(x, flag))
      return "another result";
  }
  return "";
}
} // namespace

TEST(Cuda, HandBuiltPlanOnTheEmulator) {
  EXPECT_EQ(inProcess(emulated(), runHandBuilt), "");
}

TEST(Cuda, TooFewGpus) {
  EXPECT_EQ(createError(emulated({{"DSHARD_EMULATOR_DEVICES", "2"}})),
            "test.dsplan: the plan has 4 ranks, but there are 2 GPUs; compile "
            "it for fewer ranks, or look at CUDA_VISIBLE_DEVICES");
}

TEST(Cuda, NoBlas) {
  std::string message = createError(
      emulated({{"DSHARD_CUBLASLT_LIBRARY", "/nowhere/libcublasLt.so"}}));
  EXPECT_TRUE(holds(message, "cannot open cuBLASLt: looked for "
                             "/nowhere/libcublasLt.so, which "
                             "DSHARD_CUBLASLT_LIBRARY names"))
      << message;
}

TEST(Cuda, NoNccl) {
  std::string message =
      createError(emulated({{"DSHARD_NCCL_LIBRARY", "/nowhere/libnccl.so"}}));
  EXPECT_TRUE(holds(message, "cannot open NCCL: looked for "
                             "/nowhere/libnccl.so, which DSHARD_NCCL_LIBRARY "
                             "names"))
      << message;
}
