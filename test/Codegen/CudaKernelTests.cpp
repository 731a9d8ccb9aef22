//===- CudaKernelTests.cpp - Generated PTX against the reference ----------===//
//
// The cases of the CPU and attention: the PTX text is interpreted by the
// emulator with all its checks, and assembled by ptxas where there is one.
//
//===----------------------------------------------------------------------===//

#include "Execution/Launch.h"
#include "KernelCases.h"
#include "Ptx/Parser.h"
#include "dshard/Codegen/Compile.h"
#include "dshard/Codegen/CompileCuda.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "gtest/gtest.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::testing;
namespace emulator = ::dshard::emulator;

namespace {

struct Compiled {
  std::unique_ptr<MLIRContext> context;
  std::vector<Prepared> prepared;
  std::vector<CudaKernelInfo> kernels;
  std::string ptx;
};

/// All cases as kernels k0, k1, ... of one module; `ptx` is empty on failure.
Compiled compile(const std::vector<Case> &cases, const char *name) {
  Compiled result;
  ::dshard::Result<CudaTarget> target = getCudaTarget(name);
  EXPECT_TRUE(target.ok());
  DialectRegistry registry;
  registry.insert<DShardDialect, func::FuncDialect>();
  registerCodegenDialects(registry);
  result.context =
      std::make_unique<MLIRContext>(registry, MLIRContext::Threading::DISABLED);
  result.context->loadAllAvailableDialects();
  OwningOpRef<ModuleOp> kernels =
      ModuleOp::create(UnknownLoc::get(result.context.get()));
  result.prepared.resize(cases.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    Prepared &p = result.prepared[i];
    if (!prepare(cases[i], *result.context, p))
      return result;
    FailureOr<CudaKernelInfo> info =
        emitCudaKernel(p.fused, *kernels, "k" + std::to_string(i), *target);
    if (failed(info)) {
      ADD_FAILURE() << cases[i].name;
      return result;
    }
    result.kernels.push_back(*info);
  }
  FailureOr<std::string> ptx = compileCudaKernels(*kernels, *target);
  EXPECT_TRUE(succeeded(ptx));
  if (succeeded(ptx))
    result.ptx = *ptx;
  return result;
}

/// Writes kernels, arguments and what is expected for CarriedKernelsTest.cpp,
/// as FOLDER/TEST.{ptx,cases,data}.
void carry(const std::string &folder, const std::vector<Case> &cases,
           const Compiled &compiled) {
  std::string base =
      folder + "/" +
      ::testing::UnitTest::GetInstance()->current_test_info()->name();
  std::ofstream(base + ".ptx") << compiled.ptx;
  std::ofstream lines(base + ".cases"), data(base + ".data", std::ios::binary);
  auto add = [&](const char *kind, const HostTensor &tensor) {
    Type element = tensor.type.getElementType();
    std::string type;
    llvm::raw_string_ostream(type) << element;
    lines << kind << " " << type << " " << tensor.size() << "\n";
    std::vector<char> bytes(tensor.size() * bytesOf(element));
    for (int64_t e = 0; e < tensor.size(); ++e)
      write(bytes.data() + e * bytesOf(element), element, tensor.data[e]);
    data.write(bytes.data(), bytes.size());
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    const CudaKernelInfo &info = compiled.kernels[i];
    lines << "kernel " << info.name << " " << info.grid << " " << info.block
          << " " << info.shared << " " << cases[i].scale << " " << cases[i].name
          << "\n";
    for (const HostTensor &tensor : compiled.prepared[i].arguments)
      add("in", tensor);
    for (const HostTensor &tensor : compiled.prepared[i].expected)
      add("out", tensor);
  }
  EXPECT_TRUE(lines.flush() && data.flush()) << base;
}

void run(const std::vector<Case> &cases) {
  Compiled compiled = compile(cases, "cuda:sm_90");
  ASSERT_FALSE(compiled.ptx.empty());
  if (const char *folder = std::getenv("DSHARD_TEST_KERNELS"))
    carry(folder, cases, compiled);
  if (const char *path = std::getenv("DSHARD_TEST_PTX"))
    std::ofstream(path) << compiled.ptx;
  emulator::DeviceMemory memory(1ull << 30);
  ASSERT_TRUE(memory.valid());
  std::string error;
  std::unique_ptr<emulator::Module> module = emulator::parseModule(
      compiled.ptx,
      [&](const emulator::Variable &variable) {
        uint64_t address = memory.allocate(variable.size);
        std::memset(reinterpret_cast<void *>(address), 0, variable.size);
        std::memcpy(reinterpret_cast<void *>(address), variable.data.data(),
                    variable.data.size());
        return address;
      },
      error);
  ASSERT_TRUE(module) << error;
  std::vector<emulator::Range> variables = memory.allocations();

  for (size_t i = 0; i < cases.size(); ++i) {
    const Prepared &p = compiled.prepared[i];
    const CudaKernelInfo &info = compiled.kernels[i];
    ASSERT_TRUE(module->kernels.count(info.name));
    const emulator::Kernel &kernel = *module->kernels[info.name];
    std::vector<uint64_t> buffers;
    std::vector<emulator::Range> ranges = variables;
    auto allocate = [&](RankedTensorType type, bool writable) {
      uint64_t bytes = type.getNumElements() * bytesOf(type.getElementType());
      uint64_t address = memory.allocate(bytes);
      EXPECT_EQ(address % 256, 0u);
      std::memset(reinterpret_cast<void *>(address), 0x5a, bytes);
      buffers.push_back(address);
      ranges.push_back({address, address + bytes, writable});
      return reinterpret_cast<char *>(address);
    };
    for (const HostTensor &tensor : p.arguments) {
      char *at = allocate(tensor.type, false);
      Type element = tensor.type.getElementType();
      for (int64_t e = 0; e < tensor.size(); ++e)
        write(at + e * bytesOf(element), element, tensor.data[e]);
    }
    for (const HostTensor &tensor : p.expected)
      allocate(tensor.type, true);
    ASSERT_EQ(info.buffers, static_cast<int64_t>(buffers.size()));
    ASSERT_EQ(kernel.parameterBytes, buffers.size() * 8);
    EXPECT_EQ(kernel.maxThreads[0], info.block);
    std::sort(ranges.begin(), ranges.end(),
              [](auto &a, auto &b) { return a.begin < b.begin; });
    emulator::LaunchShape shape;
    shape.grid[0] = info.grid;
    shape.block[0] = info.block;
    emulator::Launch launch(*module, kernel, shape,
                            reinterpret_cast<const uint8_t *>(buffers.data()),
                            memory, ranges);
    launch.run();
    memory.takeTouched(launch.globalShift);
    EXPECT_TRUE(launch.reports.empty()) << cases[i].name << "\n"
                                        << launch.reports.text();
    for (size_t r = 0; r < p.expected.size(); ++r)
      compare(cases[i], r, p.expected[r],
              reinterpret_cast<char *>(buffers[p.arguments.size() + r]));
    for (uint64_t buffer : buffers)
      memory.release(buffer);
  }
}

std::vector<Case> attentionCases() {
  std::vector<Case> cases;
  auto t = [](std::string shape, std::string type = "f32") {
    return "tensor<" + shape + "x" + type + ">";
  };
  auto attention = [&](std::string b, std::string h, std::string kv,
                       std::string s, std::string keys, std::string d,
                       std::string dv, std::string attributes,
                       std::string extra = "", std::string type = "f32") {
    std::string q = b + "x" + h + "x" + s;
    std::vector<std::string> arguments = {
        t(q + "x" + d, type), t(b + "x" + kv + "x" + keys + "x" + d, type),
        t(b + "x" + kv + "x" + keys + "x" + dv, type)};
    if (extra == "padding")
      arguments.push_back(t(b + "x" + keys, "i1"));
    if (extra == "offset")
      arguments.push_back("tensor<i64>");
    if (extra.find('x') != std::string::npos) // the shape of a bias
      arguments.push_back(t(extra, type));
    std::string operands, types;
    for (size_t i = 0; i < arguments.size(); ++i) {
      operands += (i ? ", %" : "%") + std::to_string(i);
      types += (i ? ", " : "") + arguments[i];
    }
    std::string results = t(q + "x" + dv, type) + ", " + t(q);
    cases.push_back(
        {"attention " + q + " keys " + keys + " " + attributes + extra + type,
         arguments, results,
         "%r, %l = dshard.attention " + operands + " {" + attributes + "} : (" +
             types + ") -> (" + results + ")",
         -1, 1, "%r, %l"});
  };
  attention("1", "2", "2", "5", "5", "16", "16", "scale = 0.25");
  attention("2", "4", "2", "7", "70", "64", "64", "scale = 0.125");
  attention("1", "2", "1", "37", "37", "64", "64", "scale = 0.125, causal");
  attention("1", "1", "1", "3", "33", "128", "128", "scale = 0.1");
  attention("1", "1", "1", "3", "40", "12", "36", "scale = 0.3");
  attention("1", "1", "1", "2", "40", "20", "160", "scale = 0.3");
  attention("1", "2", "2", "40", "40", "16", "16",
            "scale = 0.25, causal, window = 9 : i64");
  attention("1", "2", "2", "40", "40", "16", "16",
            "scale = 0.25, window = 9 : i64");
  attention("1", "2", "2", "9", "40", "16", "16",
            "scale = 0.25, causal, offset = 31 : i64");
  attention("1", "2", "2", "9", "40", "16", "16",
            "scale = 0.25, causal, offset = -4 : i64");
  attention("1", "2", "2", "9", "40", "16", "16",
            "scale = 0.25, causal, offset = -4 : i64, fully_masked = "
            "#dshard.fully_masked<uniform>");
  attention("1", "2", "2", "9", "40", "16", "16",
            "scale = 0.25, softcap = 2.0");
  attention("2", "2", "2", "9", "40", "16", "16", "scale = 0.25", "padding");
  attention("2", "2", "2", "9", "9", "16", "16", "scale = 0.25, causal",
            "padding");
  attention("1", "2", "2", "9", "40", "16", "16", "scale = 0.25, causal",
            "offset");
  attention("2", "4", "2", "9", "40", "16", "16", "scale = 0.25", "2x4x9x40");
  attention("2", "4", "2", "9", "40", "16", "16", "scale = 0.25, causal",
            "1x4x9x40");
  attention("2", "2", "2", "9", "40", "16", "16", "scale = 0.25, softcap = 2.0",
            "2x1x1x40");
  attention("2", "2", "2", "9", "40", "16", "16", "scale = 0.25", "1x2x9x1",
            "bf16");
  attention("1", "2", "2", "9", "40", "16", "16", "scale = 0.25", "", "bf16");
  attention("1", "2", "2", "9", "40", "16", "16", "scale = 0.25", "", "f64");
  // As models have it: heads are split from and merged into the last dim.
  cases.push_back(
      {"attention of a model",
       {"tensor<2x9x64xf32>", "tensor<2x9x32xf32>", "tensor<2x9x32xf32>"},
       "tensor<2x9x64xf32>",
       R"(%a = dshard.reshape %0 : (tensor<2x9x64xf32>) -> tensor<2x9x4x16xf32>
          %q = dshard.transpose %a {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x9x4x16xf32>) -> tensor<2x4x9x16xf32>
          %b = dshard.reshape %1 : (tensor<2x9x32xf32>) -> tensor<2x9x2x16xf32>
          %k = dshard.transpose %b {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x9x2x16xf32>) -> tensor<2x2x9x16xf32>
          %c = dshard.reshape %2 : (tensor<2x9x32xf32>) -> tensor<2x9x2x16xf32>
          %v = dshard.transpose %c {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x9x2x16xf32>) -> tensor<2x2x9x16xf32>
          %o, %l = dshard.attention %q, %k, %v {scale = 0.25, causal} : (tensor<2x4x9x16xf32>, tensor<2x2x9x16xf32>, tensor<2x2x9x16xf32>) -> (tensor<2x4x9x16xf32>, tensor<2x4x9xf32>)
          %m = dshard.transpose %o {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x4x9x16xf32>) -> tensor<2x9x4x16xf32>
          %r = dshard.reshape %m : (tensor<2x9x4x16xf32>) -> tensor<2x9x64xf32>)",
       -2,
       2});
  return cases;
}

/// Rows that a block of threads shares.
std::vector<Case> longRowCases() {
  std::string x = "tensor<3x4099xf32>", y = "tensor<2x4096xf32>";
  std::string sum = "{kind = #dshard<reduction sum>, dims = array<i64: 0, 1>}",
              row = "{kind = #dshard<reduction max>, dims = array<i64: 1>}";
  return {op("softmax", {x}, x, "{dim = 1}"),
          op("layer_norm", {x, "tensor<4099xf32>"}, x, "{epsilon = 1.0e-5}"),
          op("rms_norm", {y, "tensor<4096xf32>"}, y, "{epsilon = 1.0e-5}"),
          op("reduce", {x}, "tensor<3xf32>", row),
          op("reduce", {"tensor<3x4099xf64>"}, "tensor<3xf64>", row),
          op("reduce", {"tensor<3x4099xi1>"}, "tensor<3xi1>", row),
          op("reduce", {"tensor<3x4099xi64>"}, "tensor<3xi64>", row, -90, 90),
          op("reduce", {"tensor<40x500xf32>"}, "tensor<f32>", sum, 0)};
}

std::vector<Case> attentionGradCases() {
  std::vector<Case> cases;
  auto add = [&](std::string b, std::string h, std::string kv, std::string s,
                 std::string keys, std::string d, std::string dv,
                 std::string attributes, bool padding = false,
                 std::string bias = "") {
    auto t = [&](std::string heads, std::string rows, std::string last) {
      return "tensor<" + b + "x" + heads + "x" + rows + "x" + last + "xf32>";
    };
    std::vector<std::string> arguments = {t(h, s, d),
                                          t(kv, keys, d),
                                          t(kv, keys, dv),
                                          t(h, s, dv),
                                          "tensor<" + b + "x" + h + "x" + s +
                                              "xf32>",
                                          t(h, s, dv)};
    if (padding)
      arguments.push_back("tensor<" + b + "x" + keys + "xi1>");
    if (!bias.empty())
      arguments.push_back("tensor<" + bias + "xf32>");
    std::string operands, types;
    for (size_t i = 0; i < arguments.size(); ++i) {
      operands += (i ? ", %" : "%") + std::to_string(i);
      types += (i ? ", " : "") + arguments[i];
    }
    std::string results =
        arguments[0] + ", " + arguments[1] + ", " + arguments[2];
    cases.push_back({"attention_grad " + h + "x" + s + " " + attributes + bias,
                     arguments, results,
                     "%r, %k, %v = dshard.attention_grad " + operands + " {" +
                         attributes + "} : (" + types + ") -> (" + results +
                         ")",
                     -0.5, 0.5, "%r, %k, %v"});
  };
  add("1", "2", "2", "5", "5", "16", "16", "scale = 0.25");
  add("2", "4", "2", "37", "37", "16", "16", "scale = 0.25, causal");
  add("1", "2", "1", "7", "70", "64", "32", "scale = 0.125");
  add("1", "2", "2", "40", "40", "12", "36",
      "scale = 0.25, causal, window = 9 : i64");
  add("1", "2", "2", "9", "40", "16", "16",
      "scale = 0.25, causal, offset = 31 : i64");
  add("1", "2", "2", "9", "40", "16", "16",
      "scale = 0.25, causal, offset = -4 : i64");
  add("1", "2", "2", "9", "40", "16", "16",
      "scale = 0.25, window = 9 : i64, softcap = 2.0");
  add("2", "2", "1", "9", "40", "16", "16", "scale = 0.25", true);
  add("2", "4", "2", "9", "40", "16", "16", "scale = 0.25", true, "1x4x9x40");
  add("2", "2", "2", "9", "40", "16", "16", "scale = 0.25, causal", false,
      "2x1x1x40");
  return cases;
}

TEST(CudaKernels, LongRows) { run(longRowCases()); }
TEST(CudaKernels, AttentionGrad) { run(attentionGradCases()); }
TEST(CudaKernels, Pointwise) { run(pointwiseCases()); }
TEST(CudaKernels, Others) { run(otherCases()); }
TEST(CudaKernels, Fused) { run(fusedCases()); }
TEST(CudaKernels, Training) { run(trainingCases()); }
TEST(CudaKernels, Attention) { run(attentionCases()); }

/// The text between an entry and the next.
std::string bodyOf(const std::string &ptx, const std::string &name) {
  size_t start = ptx.find(".entry " + name + "(");
  if (start == std::string::npos)
    return "";
  size_t end = ptx.find(".entry ", start + 1);
  return ptx.substr(start, end - start);
}

TEST(CudaKernels, MemoryIsReadAndWrittenIn128Bits) {
  std::string x = "tensor<64x1024xf32>", h = "tensor<64x1024xbf16>";
  std::vector<Case> cases = {
      {"bias and gelu",
       {x, "tensor<1024xf32>"},
       x,
       "%a = dshard.add %0, %1 : (" + x + ", tensor<1024xf32>) -> " + x +
           "\n%r = dshard.gelu %a {tanh_approximation} : (" + x + ") -> " + x},
      op("swiglu", {x, x}, x),
      op("swiglu", {h, h}, h),
      op("rms_norm", {x, "tensor<1024xf32>"}, x, "{epsilon = 1.0e-6}"),
      op("softmax", {x}, x, "{dim = 1}")};
  Compiled compiled = compile(cases, "cuda:sm_90");
  for (size_t i = 0; i < cases.size(); ++i) {
    std::string body = bodyOf(compiled.ptx, "k" + std::to_string(i));
    ASSERT_FALSE(body.empty());
    auto has = [&](const char *text) {
      return body.find(text) != std::string::npos;
    };
    EXPECT_TRUE(has("ld.global.v4.b32") || has("ld.global.nc.v4.b32")) << body;
    EXPECT_TRUE(has("st.global.v4.b32")) << body;
    EXPECT_FALSE(has("ld.global.b32") || has("ld.global.nc.b32") ||
                 has("st.global.b32"))
        << body;
  }
}

#ifdef DSHARD_PTXAS
TEST(CudaKernels, PtxasTakesThem) {
  std::vector<Case> cases = fusedCases();
  for (auto &more : {attentionCases(), attentionGradCases(), longRowCases()})
    cases.insert(cases.end(), more.begin(), more.end());
  for (const char *arch : {"sm_80", "sm_100", "sm_90"}) {
    if (arch == std::string("sm_90"))
      for (auto &more : {trainingCases(), otherCases()})
        cases.insert(cases.end(), more.begin(), more.end());
    Compiled compiled = compile(cases, (std::string("cuda:") + arch).c_str());
    ASSERT_FALSE(compiled.ptx.empty());
    std::string path = ::testing::TempDir() + "dshard-kernels-" + arch + ".ptx";
    std::ofstream(path) << compiled.ptx;
    std::string command =
        std::string(DSHARD_PTXAS) + " -arch=" + arch + " -o /dev/null " + path;
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
    std::remove(path.c_str());
  }
}
#else
TEST(CudaKernels, PtxasTakesThem) {
  GTEST_SKIP() << "there was no ptxas when this was configured";
}
#endif

TEST(CudaTargets, UnknownIsAnError) {
  EXPECT_FALSE(getCudaTarget("cuda:sm_70").ok());
  EXPECT_FALSE(getCudaTarget("cpu").ok());
  ASSERT_TRUE(getCudaTarget("cuda").ok());
  EXPECT_EQ(getCudaTarget("cuda")->name, "cuda:sm_90");
  EXPECT_EQ(getCudaTarget("cuda:sm_100")->arch, 100);
}

} // namespace
