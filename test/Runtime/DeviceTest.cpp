// The conformance suite of devices: memory, fills, strided copies, products,
// streams, against naive loops. A backend is one value of `backends`.

#include "GpuForTest.h"
#include "TestTensors.h"
#include "dshard/Runtime/Cpu/CpuDevice.h"
#include "dshard/Runtime/Cpu/Gemm.h"

#include <algorithm>
#include <cstring>

using namespace dshard;
using namespace dshard::test;
using cpu::elementBytes;
using plan::Activation;
using plan::DataType;

namespace {

const DataType allTypes[] = {DataType::boolean, DataType::i8,   DataType::u8,
                             DataType::i16,     DataType::u16,  DataType::i32,
                             DataType::u32,     DataType::i64,  DataType::u64,
                             DataType::f16,     DataType::bf16, DataType::f32,
                             DataType::f64};

class Devices : public testing::TestWithParam<const char *> {
protected:
  void SetUp() override {
    uint64_t scratchBytes = cpu::gemmScratchBytes();
    if (isGpu()) {
      if (!driverForTest())
        GTEST_SKIP() << "no CUDA driver";
      gpu = openGpu();
      ASSERT_TRUE(gpu);
      device = gpu->device();
      scratchBytes = 32 << 20;
    } else {
      host = std::make_unique<cpu::CpuDevice>(1);
      device = host->device();
    }
    functions = device.functions;
    scratch = allocate(scratchBytes);
    workspace = scratchBytes;
    functions->setScratch(device.state, scratch, scratchBytes);
  }
  void TearDown() override {
    if (functions)
      for (void *each : memory)
        functions->release(device.state, each);
  }

  bool isGpu() const { return GetParam() == std::string("cuda"); }

  void *allocate(uint64_t bytes) {
    void *result = nullptr;
    Status status = functions->allocate(device.state, bytes, "test", &result);
    EXPECT_TRUE(status.ok()) << status.message();
    memory.push_back(result);
    return result;
  }
  void upload(void *to, const void *from, uint64_t bytes) {
    if (!functions->upload) {
      std::memcpy(to, from, bytes);
      return;
    }
    Status status = functions->upload(device.state, to, from, bytes);
    ASSERT_TRUE(status.ok()) << status.message();
  }
  void download(void *to, const void *from, uint64_t bytes) {
    if (!functions->download) {
      std::memcpy(to, from, bytes);
      return;
    }
    Status status = functions->download(device.state, to, from, bytes);
    ASSERT_TRUE(status.ok()) << status.message();
  }
  /// A copy of the array on the device, `skip` bytes behind an allocation's
  /// begin.
  char *place(const Array &array, uint64_t skip = 0) {
    uint64_t bytes = array.count * elementBytes(array.type);
    char *at = static_cast<char *>(allocate(bytes + skip)) + skip;
    upload(at, array.data(), bytes);
    return at;
  }
  void expectOk(const Status &status) {
    EXPECT_TRUE(status.ok()) << status.message();
  }
  void synchronize() {
    if (functions->synchronize)
      expectOk(functions->synchronize(device.state));
  }

  struct Product {
    int64_t m, n, k;
    DataType type = DataType::f32, out = DataType::f32;
    bool transposeLhs = false, transposeRhs = false;
    bool bias = false, residual = false, inPlace = false;
    Activation activation = Activation::none;
    int64_t batch = 1;
    int64_t extra = 0; // elements between rows
    int64_t skip = 0;  // elements before the first one
    bool sharedRhs = false;
  };
  void check(const Product &c);

  std::unique_ptr<cuda::CudaDevice> gpu;
  std::unique_ptr<cpu::CpuDevice> host;
  Device device;
  const DeviceFunctions *functions = nullptr;
  std::vector<void *> memory;
  void *scratch = nullptr;
  uint64_t workspace = 0;
};

double activate(double x, Activation activation) {
  if (activation == Activation::relu)
    return std::max(x, 0.0);
  if (activation == Activation::geluTanh)
    return 0.5 * x *
           (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
  return x;
}

void Devices::check(const Product &c) {
  SCOPED_TRACE(
      "m=" + std::to_string(c.m) + " n=" + std::to_string(c.n) +
      " k=" + std::to_string(c.k) + " " + plan::toString(c.type) + " to " +
      plan::toString(c.out) + " transposed " + std::to_string(c.transposeLhs) +
      std::to_string(c.transposeRhs) + " bias " + std::to_string(c.bias) +
      " residual " + std::to_string(c.residual) + " activation " +
      std::to_string(int(c.activation)) + " batch " + std::to_string(c.batch) +
      " extra " + std::to_string(c.extra) + " skip " + std::to_string(c.skip));
  MatmulArguments g;
  g.batch = c.batch;
  g.m = c.m;
  g.n = c.n;
  g.k = c.k;
  g.lda = (c.transposeLhs ? c.m : c.k) + c.extra;
  g.ldb = (c.transposeRhs ? c.k : c.n) + c.extra;
  g.ldc = c.n + c.extra;
  g.ldr = c.inPlace ? g.ldc : c.n + 2 * c.extra;
  g.strideLhs = g.lda * (c.transposeLhs ? c.k : c.m);
  int64_t rhsSize = g.ldb * (c.transposeRhs ? c.n : c.k);
  g.strideRhs = c.sharedRhs ? 0 : rhsSize;
  g.strideOut = g.ldc * c.m;
  g.strideResidual = g.ldr * c.m;
  g.transposeLhs = c.transposeLhs;
  g.transposeRhs = c.transposeRhs;
  g.activation = c.activation;
  g.lhsType = g.rhsType = c.type;
  g.outType = g.biasType = g.residualType = c.out;
  Array lhs = randomArray(c.type, g.strideLhs * c.batch, 1);
  Array rhs = randomArray(c.type, c.sharedRhs ? rhsSize : rhsSize * c.batch, 2);
  Array bias = randomArray(c.out, c.n, 3);
  Array residual = randomArray(c.out, g.strideResidual * c.batch, 4);
  Array out(c.out, g.strideOut * c.batch);
  for (int64_t i = 0; i < out.count; ++i)
    out.set(i, 77);
  uint64_t skip = c.skip * elementBytes(c.type);
  uint64_t skipOut = c.skip * elementBytes(c.out);
  g.lhs = place(lhs, skip);
  g.rhs = place(rhs, skip);
  g.bias = c.bias ? place(bias) : nullptr;
  g.residual = c.residual ? place(residual, skipOut) : nullptr;
  g.out = c.inPlace ? const_cast<void *>(g.residual) : place(out, skipOut);
  Status status = functions->checkMatmul(device.state, g, workspace);
  ASSERT_TRUE(status.ok()) << status.message();
  expectOk(functions->matmul(device.state, 0, g));
  synchronize();
  download(out.data(), g.out, out.count * elementBytes(c.out));

  double tolerance = 2e-6 * std::sqrt(double(c.k)) + epsilon(c.out);
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t i = 0; i < c.m; ++i) {
      for (int64_t j = 0; j < c.n; ++j) {
        double sum = 0, size = 0;
        for (int64_t l = 0; l < c.k; ++l) {
          double product =
              lhs[b * g.strideLhs +
                  (c.transposeLhs ? l * g.lda + i : i * g.lda + l)] *
              rhs[b * g.strideRhs +
                  (c.transposeRhs ? j * g.ldb + l : l * g.ldb + j)];
          sum += product;
          size += std::abs(product);
        }
        sum = activate(sum + (c.bias ? bias[j] : 0), c.activation);
        if (c.residual)
          sum += residual[b * g.strideResidual + i * g.ldr + j];
        double got = out[b * g.strideOut + i * g.ldc + j];
        ASSERT_NEAR(got, sum, tolerance * (std::abs(sum) + 0.1 * size + 1))
            << "batch " << b << " row " << i << " column " << j;
      }
      for (int64_t j = c.n; j < g.ldc && !c.inPlace; ++j)
        ASSERT_EQ(out[b * g.strideOut + i * g.ldc + j], 77)
            << "wrote beyond the row";
    }
  for (void *each : memory)
    if (each != scratch)
      functions->release(device.state, each);
  memory = {scratch};
}

} // namespace

TEST_P(Devices, MemoryIsZeroedAndAligned) {
  for (uint64_t bytes : {1, 64, 4099, 5000000}) {
    void *at = allocate(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(at) % 64, 0u);
    std::vector<uint8_t> all(bytes, 7);
    download(all.data(), at, bytes);
    EXPECT_EQ(std::count(all.begin(), all.end(), 0), int64_t(bytes));
    for (uint64_t i = 0; i < bytes; ++i)
      all[i] = static_cast<uint8_t>(i * 7 + i / 256);
    upload(at, all.data(), bytes);
    std::vector<uint8_t> back(bytes);
    download(back.data(), at, bytes);
    EXPECT_TRUE(back == all);
  }
}

TEST_P(Devices, TooMuchMemoryIsAnError) {
  if (!isGpu())
    GTEST_SKIP() << "a host overcommits";
  void *at = nullptr;
  Status status = functions->allocate(device.state, 1ull << 50, "arena", &at);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(at, nullptr);
  for (const char *part :
       {"has no memory for the arena", "1.00 PiB wanted", "missing"})
    EXPECT_NE(status.message().find(part), std::string::npos)
        << status.message();
  // And the device goes on.
  float x = 3, y = 0;
  void *small = allocate(sizeof(x));
  upload(small, &x, sizeof(x));
  download(&y, small, sizeof(y));
  EXPECT_EQ(y, 3);
}

TEST_P(Devices, Fill) {
  for (DataType type : allTypes)
    for (int64_t count : {1, 2, 3, 7, 64, 66, 1001})
      for (double value : {0.0, 1.0, 5.0, -3.0, 0.15625, -100.0}) {
        if (type == DataType::boolean && value != 0 && value != 1)
          continue;
        if (!plan::isFloat(type) &&
            (value != std::floor(value) ||
             (value < 0 && (type == DataType::u8 || type == DataType::u16 ||
                            type == DataType::u32 || type == DataType::u64))))
          continue;
        // Neighbours stay as they are.
        Array all(type, count + 2);
        for (int64_t i = 0; i < all.count; ++i)
          all.set(i, 1);
        // What is written begins at a multiple of 64 bytes, as in an arena, or
        // at any element, as in a view.
        int64_t size = elementBytes(type);
        char *at = place(all, count % 3 ? 64 - size : 0) + size;
        expectOk(functions->fill(device.state, 0, at, type, count, value));
        synchronize();
        download(all.data(), at - size, all.count * size);
        EXPECT_EQ(all[0], 1);
        EXPECT_EQ(all[count + 1], 1);
        for (int64_t i = 1; i <= count; ++i)
          ASSERT_EQ(all[i], value) << plan::toString(type) << " x " << count;
        functions->release(device.state, memory.back());
        memory.pop_back();
      }
}

// Random boxes, permuted, with gaps, broadcast and reversed, in every type.
TEST_P(Devices, StridedCopy) {
  std::mt19937 random(11);
  auto draw = [&](int64_t below) { return int64_t(random() % below); };
  for (int round = 0; round < 300; ++round) {
    DataType type = allTypes[draw(std::size(allTypes))];
    StridedCopy copy;
    copy.dims = 1 + int(draw(4));
    std::vector<int> order(copy.dims);
    for (int d = 0; d < copy.dims; ++d) {
      order[d] = d;
      copy.sizes[d] = draw(12) == 0 ? 0 : 1 + draw(7);
    }
    // Dense, or with gaps; sometimes in another order of dims.
    auto strides = [&](int64_t *result) {
      int64_t stride = 1;
      for (int i = copy.dims - 1; i >= 0; --i) {
        result[order[i]] = stride;
        stride *= std::max<int64_t>(copy.sizes[order[i]], 1);
        if (draw(3) == 0)
          stride += draw(5);
      }
      return stride;
    };
    int64_t outSpan = strides(copy.outStrides);
    if (draw(2))
      std::shuffle(order.begin(), order.end(), random);
    int64_t inSpan = strides(copy.inStrides), start = 0;
    int changed = int(draw(copy.dims));
    if (draw(4) == 0) { // backwards
      start = copy.inStrides[changed] *
              std::max<int64_t>(copy.sizes[changed] - 1, 0);
      copy.inStrides[changed] *= -1;
    } else if (draw(4) == 0) {
      copy.inStrides[changed] = 0;
    }
    Array in(type, inSpan + 1), out(type, outSpan + 1);
    for (int64_t i = 0; i < in.count; ++i)
      in.set(i, double(type == DataType::boolean ? draw(2) : draw(100)));
    std::vector<uint8_t> wanted = out.bytes;
    int64_t size = elementBytes(type), index[maxDims] = {};
    bool empty = false;
    for (int d = 0; d < copy.dims; ++d)
      empty |= copy.sizes[d] == 0;
    for (bool done = empty; !done;) {
      int64_t from = start, to = 0;
      for (int d = 0; d < copy.dims; ++d) {
        from += index[d] * copy.inStrides[d];
        to += index[d] * copy.outStrides[d];
      }
      std::memcpy(&wanted[to * size], &in.bytes[from * size], size);
      int d = copy.dims - 1;
      while (d >= 0 && ++index[d] == copy.sizes[d])
        index[d--] = 0;
      done = d < 0;
    }
    char *source = place(in), *target = place(out);
    expectOk(functions->copy(device.state, 0, copy, source + start * size, type,
                             target, type));
    synchronize();
    download(out.data(), target, out.count * size);
    ASSERT_TRUE(std::memcmp(out.data(), wanted.data(), out.count * size) == 0)
        << "round " << round << ", " << plan::toString(type);
    for (int i = 0; i < 2; ++i) {
      functions->release(device.state, memory.back());
      memory.pop_back();
    }
  }
}

TEST_P(Devices, MatmulSizes) {
  for (int64_t m : {1, 5, 33, 130})
    for (int64_t n : {1, 7, 64, 129})
      for (int64_t k : {1, 8, 37, 260})
        for (bool transpose : {false, true}) {
          Product c{m, n, k};
          c.transposeRhs = transpose;
          c.extra = m % 2 ? 3 : 0;
          check(c);
        }
}

TEST_P(Devices, MatmulTypesAndTransposes) {
  for (DataType type : {DataType::f32, DataType::bf16, DataType::f16})
    for (DataType out : {type, DataType::f32})
      for (int flags = 0; flags < 8; ++flags)
        for (int64_t n : {64, 21}) {
          Product c{40, n, 72, type, out};
          c.transposeLhs = flags & 1;
          c.transposeRhs = flags & 2;
          c.extra = flags & 4 ? 8 : 0;
          check(c);
        }
}

TEST_P(Devices, MatmulEpilogues) {
  for (DataType type : {DataType::f32, DataType::bf16, DataType::f16})
    for (Activation activation :
         {Activation::none, Activation::relu, Activation::geluTanh})
      for (int flags = 0; flags < 4; ++flags)
        for (int64_t n : {64, 40}) {
          Product c{48, n, 64, type, type};
          c.activation = activation;
          c.bias = flags & 1;
          c.residual = flags & 2;
          if (c.residual && activation != Activation::none)
            continue; // not one call on GPUs
          check(c);
          c.inPlace = c.residual;
          check(c);
        }
}

TEST_P(Devices, MatmulBatches) {
  for (DataType type : {DataType::f32, DataType::bf16})
    for (int64_t batch : {2, 9})
      for (int flags = 0; flags < 8; ++flags) {
        Product c{17, 24, 40, type, type};
        c.batch = batch;
        c.transposeLhs = flags & 1;
        c.transposeRhs = flags & 2;
        c.sharedRhs = flags & 4;
        check(c);
      }
}

// Views begin at any element.
TEST_P(Devices, MatmulOfViews) {
  for (DataType type : {DataType::f32, DataType::bf16, DataType::f16})
    for (int64_t skip : {1, 2, 3, 4, 8, 16})
      for (int64_t n : {64, 63}) {
        Product c{32, n, 64, type, type};
        c.skip = skip;
        c.residual = true;
        check(c);
      }
}

TEST_P(Devices, WhatIsNoProductHereIsRefused) {
  if (!isGpu())
    GTEST_SKIP() << "the CPU computes them all";
  MatmulArguments g;
  g.m = g.n = g.k = g.lda = g.ldb = g.ldc = 8;
  g.lhsType = g.rhsType = g.outType = DataType::f64;
  EXPECT_FALSE(functions->checkMatmul(device.state, g, workspace).ok());
  g.lhsType = g.rhsType = g.outType = DataType::f32;
  EXPECT_TRUE(functions->checkMatmul(device.state, g, workspace).ok());
  g.activation = Activation::silu;
  EXPECT_FALSE(functions->checkMatmul(device.state, g, workspace).ok());
  AttentionArguments attention;
  EXPECT_FALSE(
      functions->checkAttention(device.state, attention, workspace).ok());
}

// Stream 1 writes, stream 0 reads behind an event, and the other way round.
TEST_P(Devices, EventsOrderStreams) {
  const int64_t count = 1 << 20;
  auto *a = static_cast<float *>(allocate(count * sizeof(float)));
  auto *b = static_cast<float *>(allocate(count * sizeof(float)));
  StridedCopy copy;
  copy.dims = 1;
  copy.sizes[0] = count;
  copy.inStrides[0] = copy.outStrides[0] = 1;
  auto record = [&](uint32_t stream, uint32_t event) {
    if (functions->recordEvent)
      expectOk(functions->recordEvent(device.state, stream, event));
  };
  auto wait = [&](uint32_t stream, uint32_t event) {
    if (functions->waitEvent)
      expectOk(functions->waitEvent(device.state, stream, event));
  };
  std::vector<float> got(count);
  for (int round = 1; round <= 20; ++round) {
    expectOk(functions->fill(device.state, 1, a, DataType::f32, count, round));
    record(1, 0);
    wait(0, 0);
    expectOk(functions->copy(device.state, 0, copy, a, DataType::f32, b,
                             DataType::f32));
    record(0, 1);
    wait(1, 1);
  }
  download(got.data(), b, count * sizeof(float));
  EXPECT_EQ(std::count(got.begin(), got.end(), 20.0f), count);
}

TEST_P(Devices, TimersGrowWithTheWork) {
  if (!functions->startTimer)
    GTEST_SKIP() << "the host's clock is right";
  const int64_t count = 1 << 24;
  void *at = allocate(count * 4);
  auto time = [&](int64_t elements) {
    int64_t best = INT64_MAX;
    for (int i = 0; i < 5; ++i) {
      int64_t nanoseconds = -1;
      expectOk(functions->startTimer(device.state, 0));
      expectOk(
          functions->fill(device.state, 0, at, DataType::f32, elements, 1.5));
      expectOk(functions->stopTimer(device.state, 0, &nanoseconds));
      best = std::min(best, nanoseconds);
    }
    return best;
  };
  int64_t small = time(1), large = time(count);
  EXPECT_GT(small, 0);
  EXPECT_LT(large, 1000000000);
  EXPECT_GT(large, small);
}

INSTANTIATE_TEST_SUITE_P(, Devices, testing::Values("cpu", "cuda"),
                         [](const auto &info) {
                           return std::string(info.param);
                         });
