//===- FaultsTest.cpp - Seeded faults in kernels: each must be reported ---===//
//
// A checker that reports nothing looks like one that finds nothing: every kind
// of report is provoked here, mostly by changing one line of a right kernel.
//
//===----------------------------------------------------------------------===//
#include "Execution/Launch.h"
#include "Ptx/Parser.h"
#include "tests/Api.h"

namespace dshard::emulator {
namespace {

class Faults : public EmulatorTest {
protected:
  static constexpr int n = 32;
  /// Runs the tiled matmul of `ptx`; the fault's text.
  std::string matmul(const std::string &ptx, size_t bytesOfC = n * n * 4) {
    uint64_t a = allocate(n * n * 4), b = allocate(n * n * 4);
    uint64_t c = allocate(bytesOfC);
    int size = n;
    void *arguments[] = {&a, &b, &c, &size};
    EXPECT_EQ(cuLaunchKernel(kernel(ptx, "matmul"), n / 16, n / 16, 1, 16, 16,
                             1, 0, nullptr, arguments, nullptr),
              0);
    int result = cuCtxSynchronize();
    EXPECT_EQ(result, fault().empty() ? 0 : cuLaunchFailed);
    return fault();
  }
  std::string softmax(const std::string &ptx, int rows = 2) {
    std::vector<float> x(static_cast<size_t>(rows) * 200, 0.5f);
    uint64_t dx = upload(x), dy = allocate(x.size() * 4);
    EXPECT_EQ(launch(kernel(ptx, "softmax"), static_cast<unsigned>(rows), 128,
                     nullptr, dx, dy, 200),
              0);
    cuCtxSynchronize();
    return fault();
  }
  /// Runs a small kernel for `threads`; a and b have `bytes` each.
  std::string tiny(const std::string &body, unsigned threads = 32,
                   size_t bytes = 4096, const std::string &declarations = "",
                   unsigned grid = 1) {
    uint64_t a = allocate(bytes), b = allocate(bytes);
    EXPECT_EQ(launch(kernel(small(body, declarations), "k"), grid, threads,
                     nullptr, a, b),
              0);
    cuCtxSynchronize();
    return fault();
  }
};
#define EXPECT_FAULT(expression, text)                                         \
  EXPECT_PRED_FORMAT2(::testing::IsSubstring, text, expression)

TEST_F(Faults, rightKernelsReportNothing) {
  EXPECT_EQ(matmul(samples()), "");
  EXPECT_EQ(softmax(samples()), "");
}

TEST_F(Faults, droppedFirstBarrier) {
  EXPECT_FAULT(matmul(withoutLine(samples(), "matmul", "bar.sync", 0)),
               "kernel matmul: race in shared memory");
}
TEST_F(Faults, droppedSecondBarrier) {
  EXPECT_FAULT(matmul(withoutLine(samples(), "matmul", "bar.sync", 1)),
               "race in shared memory");
}
TEST_F(Faults, droppedBarrierOfAReduction) {
  for (unsigned which = 0; which < 3; ++which) {
    EXPECT_FAULT(softmax(withoutLine(samples(), "softmax", "bar.sync", which)),
                 "shared memory");
    dshardEmulatorReset();
    use(0);
  }
}
TEST_F(Faults, shortBuffer) {
  EXPECT_FAULT(matmul(samples(), n * n * 4 - 16),
               "out of bounds of global memory: 4 bytes at");
}
TEST_F(Faults, addressPlusSixteen) {
  // The last store of the kernel goes 16 bytes too far.
  std::string text = samples();
  size_t at = text.find("st.global.f32", text.find(".entry matmul"));
  size_t bracket = text.find(']', at);
  text.insert(bracket, "+16");
  EXPECT_FAULT(matmul(text), "behind the end of a buffer of 4096");
}
TEST_F(Faults, declaredBuffersAreTheOnlyOnes) {
  // Within one allocation, but behind the buffer that the launch may touch.
  uint64_t arena = allocate(4096), a = arena, b = arena + 2048;
  uint64_t sizes[] = {128, 64};
  uint64_t begins[] = {a, b};
  uint8_t writable[] = {0, 1};
  void *function = kernel(small("ld.global.u32 %r1, [%a];\n"
                                "st.global.u32 [%b], %r1;"),
                          "k");
  dshardEmulatorDeclareBuffers(begins, sizes, writable, 2);
  EXPECT_EQ(launch(function, 1, 32, nullptr, a, b), 0);
  cuCtxSynchronize();
  EXPECT_FAULT(fault(), "0 bytes behind the end of a buffer of 64 "
                        "(block 0,0,0 thread 16,0,0)");
}
TEST_F(Faults, storeToABufferThatIsOnlyRead) {
  uint64_t a = allocate(128), b = allocate(128);
  uint64_t begins[] = {a, b}, sizes[] = {128, 128};
  uint8_t writable[] = {1, 0};
  dshardEmulatorDeclareBuffers(begins, sizes, writable, 2);
  EXPECT_EQ(launch(kernel(small("st.global.u32 [%b], %t;"), "k"), 1, 32,
                   nullptr, a, b),
            0);
  cuCtxSynchronize();
  EXPECT_FAULT(fault(), "a buffer that the launch only reads");
}
TEST_F(Faults, divergentBarrier) {
  EXPECT_FAULT(tiny(R"(
    setp.gt.u32 %p1, %t, 31;
    @%p1 bra DONE;
    bar.sync 0;
DONE:
)",
                    64),
               "divergent barrier: this thread has exited");
}
TEST_F(Faults, twoBarriersForTwoHalves) {
  EXPECT_FAULT(tiny(R"(
    setp.gt.u32 %p1, %t, 31;
    @%p1 bra OTHER;
    bar.sync 0;
    bra DONE;
OTHER:
    bar.sync 0;
DONE:
)",
                    64),
               "divergent barrier: others of the block wait at ptx line");
}
TEST_F(Faults, barrierUnderPartOfAWarp) {
  EXPECT_FAULT(tiny(R"(
    setp.gt.u32 %p1, %t, 3;
    @%p1 bra DONE;
    bar.sync 0;
DONE:
)"),
               "divergent barrier");
}
TEST_F(Faults, shuffleFromMissingLanes) {
  EXPECT_FAULT(tiny(R"(
    setp.gt.u32 %p1, %t, 3;
    @%p1 bra DONE;
    shfl.sync.bfly.b32 %r1, %t, 1, 31, -1;
DONE:
    st.global.u32 [%b], %t;
)"),
               "warp operation with an inactive lane");
}
TEST_F(Faults, shuffleReadsALaneOutsideOfTheMask) {
  EXPECT_FAULT(tiny(R"(
    setp.gt.u32 %p1, %t, 3;
    @%p1 bra DONE;
    shfl.sync.bfly.b32 %r1, %t, 4, 31, 15;
DONE:
    st.global.u32 [%b], %t;
)"),
               "reads lane");
}
TEST_F(Faults, sharedMemoryReadBeforeItIsWritten) {
  EXPECT_FAULT(tiny(".shared .align 4 .b8 s[128];\nld.shared.u32 %r1, [s];\n"
                    "st.global.u32 [%b], %r1;"),
               "shared memory read before it is written");
}
TEST_F(Faults, sharedMemoryOfTheBlockBeforeDoesNotCount) {
  // Block 0 writes, block 1 reads what it has not written.
  EXPECT_FAULT(tiny(R"(
    .shared .align 4 .b8 s[128];
    mov.u32 %r3, %ctaid.x;
    setp.eq.u32 %p1, %r3, 0;
    setp.eq.u32 %p2, %t, 0;
    and.pred %p3, %p1, %p2;
    @%p3 st.shared.u32 [s], %t;
    bar.sync 0;
    ld.shared.u32 %r1, [s];
)",
                    32, 4096, "", 2),
               "(block 1,0,0");
}
TEST_F(Faults, sharedMemoryOutOfBounds) {
  EXPECT_FAULT(
      tiny(".shared .align 4 .b8 s[128];\n.shared .align 4 .b8 u[128];\n"
           "st.shared.u32 [s+128], %t;"),
      "out of bounds of shared memory: 4 bytes at offset 128");
}
TEST_F(Faults, twoThreadsWriteOneWord) {
  EXPECT_FAULT(tiny("sub.s64 %b, %b, %o;\nst.global.u32 [%b], %t;"),
               "two threads write one word");
}
TEST_F(Faults, halvesOfAWordAreNobodysBusiness) {
  EXPECT_EQ(tiny("mul.wide.u32 %d1, %t, 2;\nsub.s64 %b, %b, %d1;\n"
                 "cvt.u16.u32 %h1, %t;\nst.global.u16 [%b], %h1;"),
            "");
}
TEST_F(Faults, blocksThatReadWhatOthersWrite) {
  // Every block writes its own word of b, block 1 also reads block 0's.
  EXPECT_FAULT(tiny(R"(
    mov.u32 %r3, %ctaid.x;
    mul.wide.u32 %d1, %r3, 128;
    add.s64 %d2, %b, %d1;
    st.global.u32 [%d2], %t;
    ld.global.u32 %r4, [%b];
)",
                    32, 4096, "", 2),
               "race in global memory between two blocks");
}
TEST_F(Faults, readOnlyLoadOfWhatTheLaunchWrites) {
  EXPECT_FAULT(tiny("st.global.u32 [%b], %t;\nld.global.nc.u32 %r1, [%b];"),
               "read-only load of memory that the launch writes");
}
TEST_F(Faults, misalignedVector) {
  EXPECT_FAULT(tiny("ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%a];"),
               "misaligned access: 16 bytes at");
}
TEST_F(Faults, endlessLoop) {
  // Stopped by the budget, not by the patience of people.
  std::string error;
  DeviceMemory memory(1 << 20);
  auto module = parseModule(
      small("AGAIN:\nbra AGAIN;"), [](const Variable &) { return 0; }, error);
  ASSERT_TRUE(module) << error;
  uint64_t parameters[2] = {};
  Launch launch(*module, *module->kernels.at("k"), LaunchShape(),
                reinterpret_cast<uint8_t *>(parameters), memory, {});
  launch.budget = 5000000;
  launch.run();
  EXPECT_FAULT(launch.reports.text(), "instruction budget spent");
}
TEST_F(Faults, blockLargerThanMaxntid) {
  EXPECT_EQ(
      this->launch(
          kernel(replaced(samples(), "maxntid 128", "maxntid 64"), "softmax"),
          1, 128, nullptr, uint64_t(0), uint64_t(0), 1),
      cuInvalidValue);
  EXPECT_FAULT(fault(), "block size: 128 threads, at most 64");
}
TEST_F(Faults, dynamicSharedMemoryNeedsTheOptIn) {
  uint64_t x = allocate(512), bins = allocate(256);
  int count = 1;
  void *arguments[] = {&x, &bins, &count};
  EXPECT_EQ(cuLaunchKernel(kernel(samples(), "histogram"), 1, 1, 1, 64, 1, 1,
                           60000, nullptr, arguments, nullptr),
            cuInvalidValue);
  EXPECT_FAULT(fault(), "60000 bytes of dynamic shared memory, at most 49152");
}
TEST_F(Faults, everyLaterCallFailsWithTheText) {
  tiny("ld.global.u32 %r1, [%a+1048576];");
  uint64_t address = 0;
  EXPECT_EQ(cuMemAlloc_v2(&address, 16), cuLaunchFailed);
  const char *text = nullptr;
  EXPECT_EQ(cuGetErrorString(cuLaunchFailed, &text), 0);
  EXPECT_FAULT(text, "out of bounds of global memory");
  EXPECT_FAULT(text, "ptx line 15: ld.global.u32 %r1, [%a+1048576];");
}
TEST_F(Faults, everyKindIsReportedBesideMany) {
  // Thousands of races do not hide one store out of bounds.
  EXPECT_FAULT(tiny(R"(
    .shared .align 4 .b8 s[128];
    st.shared.u32 [s], %t;
    st.shared.u32 [s], %t;
    st.shared.u32 [s], %t;
    st.shared.u32 [s], %t;
    st.shared.u32 [s], %t;
    st.shared.u32 [s], %t;
    st.shared.u32 [s], %t;
    st.shared.u32 [s], %t;
    st.shared.u32 [s], %t;
    st.shared.u32 [s], %t;
    st.global.u32 [%b+4096], %t;
)",
                    64),
               "out of bounds of global memory");
}

} // namespace
} // namespace dshard::emulator
