// Fork and join: every piece once, any number of workers, joined on the way
// out.

#include "dshard/Runtime/Cpu/ThreadPool.h"

#include <cstdlib>
#include <gtest/gtest.h>
#include <numeric>
#include <thread>

using namespace dshard;
using namespace dshard::cpu;

TEST(ThreadPool, EveryIterationOnce) {
  for (unsigned threads : {1u, 2u, 3u, 8u}) {
    ThreadPool pool(threads);
    for (int64_t extent : {0, 1, 2, 7, 100, 1000})
      for (int64_t grain : {1, 3, 64}) {
        std::vector<std::atomic<int>> seen(extent);
        auto body = [&](int64_t begin, int64_t end, unsigned worker) {
          EXPECT_LT(worker, threads);
          EXPECT_EQ(begin % grain, 0);
          for (int64_t i = begin; i < end; ++i)
            ++seen[i];
        };
        pool.parallelFor(extent, grain, body);
        for (auto &count : seen)
          EXPECT_EQ(count, 1);
        pool.parallelDynamic(extent, grain, body);
        for (auto &count : seen)
          EXPECT_EQ(count, 2);
      }
  }
}

TEST(ThreadPool, ManyForksInARow) {
  ThreadPool pool(4);
  std::vector<int64_t> sums(4, 0);
  for (int i = 0; i < 20000; ++i)
    pool.run([&](unsigned worker) { ++sums[worker]; }, i % 3 == 0 ? 2 : 0);
  EXPECT_EQ(sums[0], 20000);
  EXPECT_EQ(sums[1], 20000);
  EXPECT_EQ(sums[2], sums[3]);
  EXPECT_EQ(sums[3], 20000 - 6667);
}

TEST(ThreadPool, SleepsAndWakes) {
  ThreadPool pool(3);
  std::atomic<int> count{0};
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    pool.run([&](unsigned) { ++count; });
  }
  EXPECT_EQ(count, 9);
}

TEST(ThreadPool, ThreadsPerRank) {
  setenv("DSHARD_THREADS", "3", 1);
  EXPECT_EQ(*threadsPerRank(100), 3u);
  setenv("DSHARD_THREADS", "many", 1);
  EXPECT_EQ(threadsPerRank(1).status().message(),
            "DSHARD_THREADS is 'many', but must be a number from 1 to 1024");
  unsetenv("DSHARD_THREADS");
  EXPECT_EQ(*threadsPerRank(1), availableCpus());
  EXPECT_EQ(*threadsPerRank(availableCpus() * 4), 1u);
}
