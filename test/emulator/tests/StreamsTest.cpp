//===- StreamsTest.cpp - Order between streams, events and the host -------===//
#include "tests/Api.h"

namespace dshard::emulator {
namespace {

class Streams : public EmulatorTest {
protected:
  void SetUp() override {
    EmulatorTest::SetUp();
    cuStreamCreate(&first, 1);
    cuStreamCreate(&second, 1);
    cuEventCreate(&event, 2);
    buffer = allocate(1024);
    other = allocate(1024);
    copy = kernel(small("ld.global.u32 %r1, [%a];\nadd.u32 %r1, %r1, 1;\n"
                        "st.global.u32 [%b], %r1;"),
                  "k");
  }
  void *first = nullptr, *second = nullptr, *event = nullptr, *copy = nullptr;
  uint64_t buffer = 0, other = 0;
};
#define EXPECT_FAULT(expression, text)                                         \
  EXPECT_PRED_FORMAT2(::testing::IsSubstring, text, expression)

TEST_F(Streams, anEventOrdersTwoStreams) {
  cuMemsetD32Async(buffer, 5, 32, first);
  cuEventRecord(event, first);
  cuStreamWaitEvent(second, event, 0);
  launch(copy, 1, 32, second, buffer, other);
  EXPECT_EQ(cuStreamSynchronize(second), 0) << fault();
  EXPECT_EQ(download<uint32_t>(other, 1)[0], 6u);
}
TEST_F(Streams, missingEvent) {
  cuMemsetD32Async(buffer, 5, 32, first);
  launch(copy, 1, 32, second, buffer, other);
  cuStreamSynchronize(second);
  cuStreamSynchronize(first);
  EXPECT_FAULT(fault(), "race between streams");
  EXPECT_FAULT(fault(), "no event orders the two");
}
TEST_F(Streams, missingWait) {
  cuMemsetD32Async(buffer, 5, 32, first);
  cuEventRecord(event, first);
  launch(copy, 1, 32, second, buffer, other);
  EXPECT_EQ(cuCtxSynchronize(), cuLaunchFailed);
  EXPECT_FAULT(fault(), "race between streams");
}
TEST_F(Streams, eventRecordedTooEarly) {
  cuEventRecord(event, first);
  cuMemsetD32Async(buffer, 5, 32, first);
  cuStreamWaitEvent(second, event, 0);
  launch(copy, 1, 32, second, buffer, other);
  EXPECT_EQ(cuCtxSynchronize(), cuLaunchFailed);
}
TEST_F(Streams, writeAfterReadIsARaceToo) {
  launch(copy, 1, 32, first, buffer, other);
  cuMemsetD32Async(buffer, 7, 32, second);
  EXPECT_EQ(cuCtxSynchronize(), cuLaunchFailed);
  EXPECT_FAULT(fault(), "race between streams");
}
TEST_F(Streams, twoReadersAreNoRace) {
  uint64_t third = allocate(1024);
  launch(copy, 1, 32, first, buffer, other);
  launch(copy, 1, 32, second, buffer, third);
  EXPECT_EQ(cuCtxSynchronize(), 0) << fault();
}
TEST_F(Streams, otherBytesOfOneBufferAreNoRace) {
  cuMemsetD32Async(buffer, 1, 32, first);
  cuMemsetD32Async(buffer + 128, 2, 32, second);
  EXPECT_EQ(cuCtxSynchronize(), 0) << fault();
}
TEST_F(Streams, theHostOrdersWhatItWaitedFor) {
  cuMemsetD32Async(buffer, 5, 32, first);
  cuStreamSynchronize(first);
  launch(copy, 1, 32, second, buffer, other);
  EXPECT_EQ(cuCtxSynchronize(), 0) << fault();
}
TEST_F(Streams, orderGoesThroughAThirdStream) {
  void *third = nullptr, *later = nullptr;
  cuStreamCreate(&third, 1);
  cuEventCreate(&later, 2);
  cuMemsetD32Async(buffer, 5, 32, first);
  cuEventRecord(event, first);
  cuStreamWaitEvent(third, event, 0);
  cuEventRecord(later, third);
  cuStreamWaitEvent(second, later, 0);
  launch(copy, 1, 32, second, buffer, other);
  EXPECT_EQ(cuCtxSynchronize(), 0) << fault();
}
TEST_F(Streams, withoutAWaitTheHostReadsOldBytes) {
  void *host = nullptr;
  ASSERT_EQ(cuMemAllocHost_v2(&host, 128), 0);
  std::memset(host, 0, 128);
  cuMemsetD32Async(buffer, 5, 32, first);
  cuMemcpyDtoHAsync_v2(host, buffer, 128, first);
  EXPECT_EQ(*static_cast<uint32_t *>(host), 0u);
  cuStreamSynchronize(first);
  EXPECT_EQ(*static_cast<uint32_t *>(host), 5u);
  cuMemFreeHost(host);
}
TEST_F(Streams, pinnedMemoryIsReadLater) {
  void *host = nullptr;
  ASSERT_EQ(cuMemAllocHost_v2(&host, 4), 0);
  *static_cast<uint32_t *>(host) = 1;
  cuMemcpyHtoDAsync_v2(buffer, host, 4, first);
  *static_cast<uint32_t *>(host) = 2; // too early
  cuStreamSynchronize(first);
  EXPECT_EQ(download<uint32_t>(buffer, 1)[0], 2u);
}
TEST_F(Streams, theStandardStreamWaitsForBlockingOnes) {
  void *blocking = nullptr;
  cuStreamCreate(&blocking, 0);
  cuMemsetD32Async(buffer, 5, 32, blocking);
  launch(copy, 1, 32, nullptr, buffer, other);
  EXPECT_EQ(cuCtxSynchronize(), 0) << fault();
}
TEST_F(Streams, copiesOutOfBoundsAreRefused) {
  char bytes[2048] = {};
  EXPECT_EQ(cuMemcpyHtoDAsync_v2(buffer, bytes, sizeof(bytes), first),
            cuInvalidValue);
  EXPECT_FAULT(fault(), "copy to the device: out of bounds of global memory: "
                        "2048 bytes at offset 0 of a buffer of 1024");
}
TEST_F(Streams, freedMemoryIsOutOfBounds) {
  launch(copy, 1, 32, first, buffer, other);
  cuMemFree_v2(other); // waits for the kernel
  launch(copy, 1, 32, first, buffer, other);
  EXPECT_EQ(cuCtxSynchronize(), cuLaunchFailed);
  EXPECT_FAULT(fault(), "out of bounds");
}
TEST_F(Streams, theThreadKnowsWhatItWaitedForOnAnyDevice) {
  // One thread collects from two devices into the same pinned bytes.
  void *host = nullptr;
  ASSERT_EQ(cuMemAllocHost_v2(&host, 128), 0);
  cuMemcpyDtoHAsync_v2(host, buffer, 128, first);
  cuStreamSynchronize(first);
  use(1);
  void *elsewhere = nullptr;
  cuStreamCreate(&elsewhere, 1);
  uint64_t there = allocate(128);
  cuMemcpyDtoHAsync_v2(host, there, 128, elsewhere);
  EXPECT_EQ(cuStreamSynchronize(elsewhere), 0) << fault();
  // Without the wait it is a race.
  use(0);
  cuMemcpyDtoHAsync_v2(host, buffer, 128, first);
  cuMemcpyDtoHAsync_v2(host, buffer, 128, second);
  EXPECT_EQ(cuCtxSynchronize(), cuLaunchFailed);
}
TEST_F(Streams, rowsAreCopiedWithTheirPitch) {
  std::vector<uint32_t> words;
  for (uint32_t i = 0; i < 64; ++i)
    words.push_back(i);
  uint64_t from = upload(words);
  CuCopyRows rows = {};
  rows.fromKind = rows.toKind = 2;
  rows.fromDevice = from + 4;
  rows.fromPitch = 32;
  rows.toDevice = buffer;
  rows.toPitch = 8;
  rows.width = 8;
  rows.height = 8;
  EXPECT_EQ(cuMemcpy2DAsync_v2(&rows, first), 0);
  EXPECT_EQ(cuStreamSynchronize(first), 0) << fault();
  std::vector<uint32_t> got = download<uint32_t>(buffer, 16);
  for (uint32_t i = 0; i < 16; ++i)
    EXPECT_EQ(got[i], i / 2 * 8 + 1 + i % 2);
  rows.height = 9;
  EXPECT_EQ(cuMemcpy2DAsync_v2(&rows, first), cuInvalidValue);
  EXPECT_FAULT(fault(), "copy of rows: out of bounds");
}
TEST_F(Streams, aDroppedWaitIsFound) {
  // The seeded fault that end-to-end tests use: the second wait is left out.
  setenv("DSHARD_EMULATOR_DROP", "cuStreamWaitEvent:1", 1);
  dshardEmulatorReset();
  unsetenv("DSHARD_EMULATOR_DROP");
  use(0);
  void *one = nullptr, *two = nullptr, *ready = nullptr;
  cuStreamCreate(&one, 1);
  cuStreamCreate(&two, 1);
  cuEventCreate(&ready, 2);
  uint64_t bytes = allocate(128);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(fault(), "");
    cuMemsetD32Async(bytes, 1, 32, one);
    cuEventRecord(ready, one);
    cuStreamWaitEvent(two, ready, 0);
    cuMemsetD32Async(bytes, 2, 32, two);
    cuCtxSynchronize();
  }
  EXPECT_FAULT(fault(), "race between streams");
}
TEST_F(Streams, anInjectedFailure) {
  setenv("DSHARD_EMULATOR_FAIL", "cuMemAlloc_v2", 1);
  dshardEmulatorReset();
  unsetenv("DSHARD_EMULATOR_FAIL");
  use(0);
  uint64_t address = 0;
  EXPECT_EQ(cuMemAlloc_v2(&address, 16), cuUnknown);
}
TEST_F(Streams, memoryEnds) {
  setenv("DSHARD_EMULATOR_MEMORY", "1", 1);
  dshardEmulatorReset();
  unsetenv("DSHARD_EMULATOR_MEMORY");
  use(0);
  uint64_t address = 0;
  size_t available = 0, total = 0;
  EXPECT_EQ(cuMemAlloc_v2(&address, 600 << 10), 0);
  EXPECT_EQ(cuMemAlloc_v2(&address, 600 << 10), cuOutOfMemory);
  cuMemGetInfo_v2(&available, &total);
  EXPECT_EQ(total, size_t(1) << 20);
  EXPECT_EQ(available, size_t(424) << 10);
}
TEST_F(Streams, asManyDevicesAsTheEnvironmentSays) {
  setenv("DSHARD_EMULATOR_DEVICES", "3", 1);
  dshardEmulatorReset();
  unsetenv("DSHARD_EMULATOR_DEVICES");
  int count = 0;
  cuDeviceGetCount(&count);
  EXPECT_EQ(count, 3);
  void *context = nullptr;
  EXPECT_EQ(cuDevicePrimaryCtxRetain(&context, 3), cuInvalidDevice);
}
TEST_F(Streams, eventsMeasureTime) {
  void *end = nullptr;
  cuEventCreate(&end, 0);
  cuEventRecord(event, first);
  launch(copy, 1, 32, first, buffer, other);
  cuEventRecord(end, first);
  float milliseconds = -1;
  EXPECT_EQ(cuEventElapsedTime_v2(&milliseconds, event, end), cuNotReady);
  cuEventSynchronize(end);
  EXPECT_EQ(cuEventElapsedTime_v2(&milliseconds, event, end), 0);
  EXPECT_GT(milliseconds, 0);
}

} // namespace
} // namespace dshard::emulator
