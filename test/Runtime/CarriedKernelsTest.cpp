// Generated kernels, carried as PTX with their inputs and what they must give
// (CudaKernelTests writes them, DSHARD_TEST_KERNELS), run by the driver: no
// compiler is needed where they run.
//
// GROUP.cases, a line each:  kernel NAME GRID BLOCK SHARED SCALE CASE'S NAME
//                            in|out TYPE ELEMENTS, whose bytes are in
//                            GROUP.data

#include "GpuForTest.h"
#include "TestTensors.h"

#include <cstring>
#include <fstream>
#include <sstream>

using namespace dshard;
using namespace dshard::test;
using cpu::elementBytes;
using plan::DataType;

namespace {

const char *const groups[] = {"LongRows", "AttentionGrad", "Pointwise",
                              "Others",   "Fused",         "Training",
                              "Attention"};

struct Tensor {
  DataType type;
  int64_t count;
  const char *data; // in the file
};
struct Carried {
  std::string kernel, name;
  unsigned grid, block, shared;
  double scale; // as of a Case of ../Codegen/KernelCases.h
  std::vector<Tensor> inputs, outputs;
};

std::string contents(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

bool typeOf(const std::string &name, DataType &type) {
  const std::pair<const char *, DataType> types[] = {
      {"i1", DataType::boolean}, {"i8", DataType::i8},
      {"i16", DataType::i16},    {"i32", DataType::i32},
      {"i64", DataType::i64},    {"f16", DataType::f16},
      {"bf16", DataType::bf16},  {"f32", DataType::f32},
      {"f64", DataType::f64}};
  for (auto [spelling, each] : types)
    if (name == spelling) {
      type = each;
      return true;
    }
  return false;
}

std::vector<Carried> readCases(const std::string &text,
                               const std::string &data) {
  std::vector<Carried> cases;
  std::istringstream lines(text);
  uint64_t at = 0;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string kind;
    words >> kind;
    if (kind == "kernel") {
      Carried each;
      words >> each.kernel >> each.grid >> each.block >> each.shared >>
          each.scale;
      std::getline(words, each.name);
      cases.push_back(std::move(each));
      continue;
    }
    std::string type;
    Tensor tensor = {DataType::f32, 0, data.data() + at};
    words >> type >> tensor.count;
    if (cases.empty() || !typeOf(type, tensor.type)) {
      ADD_FAILURE() << "no such line: " << line;
      return {};
    }
    at += tensor.count * elementBytes(tensor.type);
    (kind == "in" ? cases.back().inputs : cases.back().outputs)
        .push_back(tensor);
  }
  EXPECT_EQ(at, data.size());
  return cases;
}

/// As the tests where the kernels were made; approximations of the GPU are a
/// unit or two further off.
double toleranceOf(DataType type) {
  switch (type) {
  case DataType::f64:
    return 1e-12;
  case DataType::f32:
    return 4e-6;
  case DataType::bf16:
    return 8e-3;
  case DataType::f16:
    return 1e-3;
  default:
    return 0;
  }
}

void compare(const Carried &test, size_t result, const Tensor &want,
             const void *got) {
  double largest = test.scale;
  for (int64_t i = 0; i < want.count; ++i) {
    double value = cpu::elementAsDouble(want.data, want.type, i);
    if (std::isfinite(value))
      largest = std::max(largest, std::fabs(value));
  }
  double tolerance = toleranceOf(want.type);
  int shown = 0;
  for (int64_t i = 0; i < want.count && shown < 2; ++i) {
    double expected = cpu::elementAsDouble(want.data, want.type, i),
           value = cpu::elementAsDouble(got, want.type, i);
    if (value == expected || (std::isnan(value) && std::isnan(expected)) ||
        (std::isfinite(expected) &&
         std::fabs(value - expected) <=
             tolerance * (std::fabs(expected) + 0.05 * largest)))
      continue;
    ++shown;
    ADD_FAILURE() << test.name << " result " << result << " element " << i
                  << ": got " << value << ", expected " << expected;
  }
}

class CarriedKernels : public testing::TestWithParam<const char *> {};

} // namespace

TEST_P(CarriedKernels, GiveWhatTheReferenceGives) {
  const char *folder = std::getenv("DSHARD_CARRIED_KERNELS");
  if (!folder)
    GTEST_SKIP() << "DSHARD_CARRIED_KERNELS names no folder";
  if (!driverForTest())
    GTEST_SKIP() << "no CUDA driver";
  std::string base = std::string(folder) + "/" + GetParam();
  std::string ptx = contents(base + ".ptx"), data = contents(base + ".data");
  if (ptx.empty())
    GTEST_SKIP() << base << ".ptx is not there";
  std::vector<Carried> cases = readCases(contents(base + ".cases"), data);
  ASSERT_FALSE(cases.empty()) << base << ".cases holds nothing";
  const cuda::Driver &driver = *driverForTest();
  cuda::CudaDevice gpu(driver, 0);
  Status status = gpu.open(90, "cuda:sm_90");
  ASSERT_TRUE(status.ok()) << status.message();
  cuda::Module module = nullptr;
  status =
      driver.check(driver.moduleLoad(&module, ptx.c_str(), 0, nullptr, nullptr),
                   "cuModuleLoadDataEx");
  ASSERT_TRUE(status.ok()) << status.message();
  auto stream = gpu.stream(0);
  ASSERT_TRUE(stream);
  for (const Carried &test : cases) {
    cuda::Function function = nullptr;
    status = driver.check(
        driver.moduleGetFunction(&function, module, test.kernel.c_str()),
        "cuModuleGetFunction");
    ASSERT_TRUE(status.ok()) << test.kernel << ": " << status.message();
    std::vector<void *> buffers;
    auto place = [&](const void *from, uint64_t bytes) {
      void *at = nullptr;
      status = gpu.allocate(std::max<uint64_t>(bytes, 1), "test", &at);
      if (status)
        status = gpu.upload(at, from, bytes);
      buffers.push_back(at);
      return status.ok();
    };
    // A word behind each result shows what is written beyond it.
    const uint64_t guard = 64;
    for (const Tensor &tensor : test.inputs)
      ASSERT_TRUE(place(tensor.data, tensor.count * elementBytes(tensor.type)))
          << status.message();
    for (const Tensor &tensor : test.outputs) {
      std::vector<uint8_t> marks(
          tensor.count * elementBytes(tensor.type) + guard, 0x5a);
      ASSERT_TRUE(place(marks.data(), marks.size())) << status.message();
    }
    std::vector<void *> parameters;
    for (void *&buffer : buffers)
      parameters.push_back(&buffer);
    status = driver.check(
        driver.launchKernel(function, test.grid, 1, 1, test.block, 1, 1,
                            test.shared, *stream, parameters.data(), nullptr),
        "cuLaunchKernel");
    if (status)
      status = gpu.waitAll();
    // After a fault the context is gone: nothing behind it says anything.
    ASSERT_TRUE(status.ok()) << test.name << ": " << status.message();
    for (size_t i = 0; i < test.outputs.size(); ++i) {
      const Tensor &want = test.outputs[i];
      uint64_t bytes = want.count * elementBytes(want.type);
      std::vector<uint8_t> got(bytes + guard);
      ASSERT_TRUE(gpu.download(got.data(), buffers[test.inputs.size() + i],
                               got.size()));
      compare(test, i, want, got.data());
      for (uint64_t j = 0; j < guard; ++j)
        ASSERT_EQ(got[bytes + j], 0x5a) << test.name << " wrote beyond";
    }
    for (void *buffer : buffers)
      gpu.release(buffer);
  }
  (void)driver.moduleUnload(module);
}

INSTANTIATE_TEST_SUITE_P(, CarriedKernels, testing::ValuesIn(groups),
                         [](const auto &info) {
                           return std::string(info.param);
                         });
