// The whole text of the hand-built plan, against a golden file. After a wanted
// change: DSHARD_TEST_UPDATE=1 PlanTests --gtest_filter=Printer.*
#include "TestPlan.h"
#include "dshard/Plan/PlanPrinter.h"
#include "dshard/Plan/PlanStatistics.h"
#include "dshard/Support/File.h"

#include <gtest/gtest.h>

using namespace dshard;
using namespace dshard::plan;

namespace {

TEST(Printer, Golden) {
  Builder builder;
  test::HandBuiltOptions options;
  options.image = true;
  test::buildHandBuiltPlan(builder, options);
  auto reader = Reader::fromBytes(builder.finish(), "plan");
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  std::string text = printPlan((*reader)->plan());
  if (std::getenv("DSHARD_TEST_UPDATE")) {
    ASSERT_TRUE(writeFile(DSHARD_TEST_GOLDEN, text.data(), text.size()).ok());
  }
  auto golden = readFile(DSHARD_TEST_GOLDEN);
  ASSERT_TRUE(golden.ok()) << golden.status().message();
  EXPECT_EQ(text, *golden);
}

TEST(Statistics, CountsWhatARankDoes) {
  Builder builder;
  test::buildHandBuiltPlan(builder);
  auto reader = Reader::fromBytes(builder.finish(), "plan");
  ASSERT_TRUE(reader.ok());
  PlanStatistics statistics = planStatistics((*reader)->plan());
  EXPECT_EQ(statistics.ranks, 4u);
  EXPECT_EQ(statistics.arena, 512u);
  EXPECT_EQ(statistics.state, 64u);
  EXPECT_EQ(statistics.stateByRole["parameter"], 32u);
  EXPECT_EQ(statistics.peakPerRank(2), 576u);
  const ProgramStatistics &run = statistics.programs[1];
  EXPECT_EQ(run.instructions.at("matmul"), 2u);
  EXPECT_EQ(run.collectives.at({"all_gather", "tp"}).bytes, 16u);
  EXPECT_EQ(run.collectives.at({"all_reduce", "dp"}).bytes, 32u);
  EXPECT_EQ(run.collectives.at({"all_reduce", "dp"}).count, 1u);
  // The body of the repeat three times; one of the blocks chosen by tp.
  std::vector<uint64_t> counts = executionCounts((*reader)->plan(), 1, 0);
  EXPECT_EQ(counts[12], 3u);
  EXPECT_EQ(counts[16], 1u);
  EXPECT_EQ(counts[17], 0u);
  EXPECT_EQ(executionCounts((*reader)->plan(), 1, 1)[17], 1u);
}

} // namespace
