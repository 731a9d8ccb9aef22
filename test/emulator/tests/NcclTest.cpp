//===- NcclTest.cpp - Collectives among threads, and what goes wrong ------===//
#include "tests/Api.h"

#include <functional>
#include <thread>

namespace dshard::emulator {
namespace {

constexpr int f32 = 7, sum = 0;

class Nccl : public EmulatorTest {
protected:
  struct Rank {
    int rank;
    void *comm, *stream;
    uint64_t a, b; // 64 floats each; a[i] = 100 * rank + i
  };
  /// One thread and device per rank; the fault afterwards.
  std::string onRanks(int ranks, const std::function<void(Rank &)> &body) {
    NcclId id;
    ncclGetUniqueId(&id);
    std::vector<std::thread> threads;
    for (int r = 0; r < ranks; ++r)
      threads.emplace_back([&, r] {
        use(r);
        Rank me{r, nullptr, nullptr, 0, 0};
        cuStreamCreate(&me.stream, 1);
        std::vector<float> values(64);
        for (size_t i = 0; i < 64; ++i)
          values[i] = static_cast<float>(100 * r) + static_cast<float>(i);
        me.a = upload(values);
        me.b = allocate(256);
        if (ncclCommInitRank(&me.comm, ranks, id, r) == 0)
          body(me);
      });
    for (std::thread &thread : threads)
      thread.join();
    return fault();
  }
  static const void *in(uint64_t address) {
    return reinterpret_cast<const void *>(address);
  }
  static void *out(uint64_t address) {
    return reinterpret_cast<void *>(address);
  }
  static std::vector<float> result(Rank &me) {
    std::vector<float> values(64);
    if (cuStreamSynchronize(me.stream) == 0)
      cuMemcpyDtoHAsync_v2(values.data(), me.b, 256, me.stream);
    return values;
  }
};
#define EXPECT_FAULT(expression, text)                                         \
  EXPECT_PRED_FORMAT2(::testing::IsSubstring, text, expression)

TEST_F(Nccl, allReduceAddsOnAllRanks) {
  EXPECT_EQ(onRanks(4,
                    [&](Rank &me) {
                      ncclAllReduce(in(me.a), out(me.b), 64, f32, sum, me.comm,
                                    me.stream);
                      std::vector<float> values = result(me);
                      for (size_t i = 0; i < 64; ++i)
                        EXPECT_EQ(values[i], 600 + 4 * static_cast<float>(i));
                    }),
            "");
}
TEST_F(Nccl, allGatherInPlace) {
  EXPECT_EQ(
      onRanks(4,
              [&](Rank &me) {
                uint64_t mine = me.b + static_cast<uint64_t>(me.rank) * 64;
                cuMemcpyDtoDAsync_v2(mine, me.a, 64, me.stream);
                ncclAllGather(in(mine), out(me.b), 16, f32, me.comm, me.stream);
                std::vector<float> values = result(me);
                for (size_t i = 0; i < 64; ++i)
                  EXPECT_EQ(values[i],
                            static_cast<float>(i / 16 * 100 + i % 16));
              }),
      "");
}
TEST_F(Nccl, reduceScatterAndBroadcast) {
  EXPECT_EQ(onRanks(2,
                    [&](Rank &me) {
                      ncclReduceScatter(in(me.a), out(me.b), 32, f32, sum,
                                        me.comm, me.stream);
                      ncclBroadcast(in(me.a), out(me.b + 128), 32, f32, 1,
                                    me.comm, me.stream);
                      std::vector<float> values = result(me);
                      for (size_t i = 0; i < 32; ++i) {
                        EXPECT_EQ(values[i],
                                  100 + 2 * (static_cast<float>(i) +
                                             32 * static_cast<float>(me.rank)));
                        EXPECT_EQ(values[32 + i], 100 + static_cast<float>(i));
                      }
                    }),
            "");
}
TEST_F(Nccl, ringOfSendsInAGroup) {
  EXPECT_EQ(onRanks(4,
                    [&](Rank &me) {
                      ncclGroupStart();
                      ncclSend(in(me.a), 64, f32, (me.rank + 1) % 4, me.comm,
                               me.stream);
                      ncclRecv(out(me.b), 64, f32, (me.rank + 3) % 4, me.comm,
                               me.stream);
                      ncclGroupEnd();
                      EXPECT_EQ(result(me)[0],
                                static_cast<float>((me.rank + 3) % 4 * 100));
                    }),
            "");
}
TEST_F(Nccl, ringOfSendsWithoutAGroupIsADeadlock) {
  EXPECT_FAULT(
      onRanks(2,
              [&](Rank &me) {
                ncclSend(in(me.a), 64, f32, 1 - me.rank, me.comm, me.stream);
                ncclRecv(out(me.b), 64, f32, 1 - me.rank, me.comm, me.stream);
                result(me);
              }),
      "deadlock");
}
TEST_F(Nccl, swappedCollectives) {
  EXPECT_FAULT(onRanks(2,
                       [&](Rank &me) {
                         if (me.rank)
                           ncclAllReduce(in(me.a), out(me.b), 32, f32, sum,
                                         me.comm, me.stream);
                         ncclAllGather(in(me.a), out(me.b), 32, f32, me.comm,
                                       me.stream);
                         if (!me.rank)
                           ncclAllReduce(in(me.a), out(me.b), 32, f32, sum,
                                         me.comm, me.stream);
                         result(me);
                       }),
               "mismatched collective: collective 0 of communicator");
}
TEST_F(Nccl, anotherCountAndAnotherRoot) {
  EXPECT_FAULT(onRanks(2,
                       [&](Rank &me) {
                         ncclAllReduce(in(me.a), out(me.b), me.rank ? 64 : 32,
                                       f32, sum, me.comm, me.stream);
                         result(me);
                       }),
               "mismatched collective");
  dshardEmulatorReset();
  EXPECT_FAULT(onRanks(2,
                       [&](Rank &me) {
                         ncclBroadcast(in(me.a), out(me.b), 64, f32, me.rank,
                                       me.comm, me.stream);
                         result(me);
                       }),
               "root 0");
}
TEST_F(Nccl, twoCommunicatorsInAnotherOrder) {
  // Each rank waits in a collective that the other has behind its own.
  NcclId second;
  ncclGetUniqueId(&second);
  EXPECT_FAULT(onRanks(2,
                       [&](Rank &me) {
                         void *other = nullptr;
                         ncclCommInitRank(&other, 2, second, me.rank);
                         void *order[] = {me.comm, other};
                         for (int i = 0; i < 2; ++i)
                           ncclAllReduce(in(me.a), out(me.b), 64, f32, sum,
                                         order[i ^ me.rank], me.stream);
                         result(me);
                       }),
               "deadlock");
}
TEST_F(Nccl, aRankThatNeverComes) {
  EXPECT_FAULT(onRanks(2,
                       [&](Rank &me) {
                         if (me.rank == 0)
                           ncclAllReduce(in(me.a), out(me.b), 64, f32, sum,
                                         me.comm, me.stream);
                         result(me);
                       }),
               "waits for rank 1");
}
TEST_F(Nccl, shortBuffer) {
  EXPECT_FAULT(onRanks(2,
                       [&](Rank &me) {
                         ncclAllGather(in(me.a), out(me.b), 64, f32, me.comm,
                                       me.stream);
                         result(me);
                       }),
               "out of bounds of global memory: 512 bytes at offset 0 of a "
               "buffer of 256");
}
TEST_F(Nccl, missingEventBeforeACollective) {
  EXPECT_FAULT(onRanks(2,
                       [&](Rank &me) {
                         void *compute = nullptr;
                         cuStreamCreate(&compute, 1);
                         cuMemsetD32Async(me.a, 0, 64, compute);
                         ncclAllReduce(in(me.a), out(me.b), 64, f32, sum,
                                       me.comm, me.stream);
                         cuCtxSynchronize();
                       }),
               "race between streams");
}
TEST_F(Nccl, missingEventBehindACollective) {
  EXPECT_FAULT(onRanks(2,
                       [&](Rank &me) {
                         void *compute = nullptr;
                         cuStreamCreate(&compute, 1);
                         uint64_t copy = allocate(256);
                         ncclAllReduce(in(me.a), out(me.b), 64, f32, sum,
                                       me.comm, me.stream);

                         cuMemcpyDtoDAsync_v2(copy, me.b, 256, compute);
                         cuStreamSynchronize(compute);
                         cuCtxSynchronize();
                       }),
               "race between streams");
}

/// Rank 0 waits for rank 1, which aborts: that alone frees nobody else.
TEST_F(Nccl, anAbortEndsTheOwnWorkOnly) {
  int own = -1, others = -1;
  std::string said = onRanks(2, [&](Rank &me) {
    ncclAllReduce(in(me.a), out(me.b), 64, f32, sum, me.comm, me.stream);
    if (me.rank == 0) {
      others = cuStreamSynchronize(me.stream);
      return;
    }
    // One collective has met, the next one has not: rank 0 calls one only.
    cuStreamSynchronize(me.stream);
    ncclAllReduce(in(me.a), out(me.b), 64, f32, sum, me.comm, me.stream);
    EXPECT_EQ(cuStreamQuery(me.stream), cuNotReady);
    ncclCommAbort(me.comm);
    own = cuStreamSynchronize(me.stream);
  });
  EXPECT_EQ(said, "");
  EXPECT_EQ(others, 0);
  EXPECT_EQ(own, 0);
  said = onRanks(2, [&](Rank &me) {
    if (me.rank == 1)
      ncclCommAbort(me.comm);
    else
      ncclAllReduce(in(me.a), out(me.b), 64, f32, sum, me.comm, me.stream);
    result(me);
  });
  EXPECT_FAULT(said, "waits for rank 1");
}

/// What the environment seeds: the variable, its value, what is reported.
class NcclSeeded : public Nccl {
protected:
  std::string twoCollectives(const char *variable, const char *value) {
    setenv(variable, value, 1);
    dshardEmulatorReset();
    std::string said = onRanks(2, [&](Rank &me) {
      ncclAllReduce(in(me.a), out(me.b), 64, f32, sum, me.comm, me.stream);
      ncclAllGather(in(me.a), out(me.b), 32, f32, me.comm, me.stream);
      result(me);
    });
    unsetenv(variable);
    return said;
  }
};
TEST_F(NcclSeeded, aSwappedCollective) {
  EXPECT_FAULT(twoCollectives("DSHARD_EMULATOR_SWAP", "ncclAllReduce:1"),
               "mismatched collective");
  EXPECT_EQ(twoCollectives("DSHARD_EMULATOR_SWAP", "ncclAllReduce"), "");
}
TEST_F(NcclSeeded, aFailingOne) {
  // The other rank waits for the one that failed.
  EXPECT_FAULT(twoCollectives("DSHARD_EMULATOR_FAIL", "ncclAllGather:0"),
               "deadlock");
}
TEST_F(NcclSeeded, aShortAllocation) {
  setenv("DSHARD_EMULATOR_SHORTEN", "cuMemAlloc_v2:1", 1);
  dshardEmulatorReset();
  unsetenv("DSHARD_EMULATOR_SHORTEN");
  use(0);
  allocate(256);
  uint64_t second = 0;
  EXPECT_EQ(cuMemAlloc_v2(&second, 256), 0);
  EXPECT_EQ(cuMemsetD8Async(second, 0, 240, nullptr), 0);
  EXPECT_NE(cuMemsetD8Async(second, 0, 256, nullptr), 0);
  EXPECT_FAULT(fault(), "256 bytes at offset 0 of a buffer of 240");
}
TEST_F(NcclSeeded, anotherCommunicator) {
  setenv("DSHARD_EMULATOR_MISDIRECT", "ncclAllReduce:0", 1);
  dshardEmulatorReset();
  NcclId id;
  ncclGetUniqueId(&id);
  std::string said = onRanks(2, [&](Rank &me) {
    void *second = nullptr;
    ASSERT_EQ(ncclCommInitRank(&second, 2, id, me.rank), 0);
    ncclAllReduce(in(me.a), out(me.b), 64, f32, sum, me.comm, me.stream);
    ncclAllGather(in(me.a), out(me.b), 32, f32, second, me.stream);
    result(me);
  });
  unsetenv("DSHARD_EMULATOR_MISDIRECT");
  EXPECT_FAULT(said, "mismatched collective");
}

} // namespace
} // namespace dshard::emulator
