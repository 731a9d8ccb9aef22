// Coordinates, groups with sub-axes, tables and shards.
#include "dshard/Plan/Topology.h"
#include "TestPlan.h"

#include <gtest/gtest.h>

using namespace dshard;
using namespace dshard::plan;

namespace {

using Ranks = std::vector<uint32_t>;

TEST(Topology, GroupsAndTables) {
  Builder builder;
  uint32_t dp = builder.addAxis("dp", 2), tp = builder.addAxis("tp", 4);
  uint32_t whole = builder.addGroup({builder.wholeAxis(tp)});
  uint32_t major = builder.addGroup({AxisRef(tp, 1, 2)});
  uint32_t minor = builder.addGroup({AxisRef(tp, 2, 2)});
  uint32_t both =
      builder.addGroup({builder.wholeAxis(tp), builder.wholeAxis(dp)});
  uint32_t alone = builder.addGroup({});
  uint32_t table = builder.addTable({tp, dp}, {0, 1, 10, 11, 20, 21, 30, 31});
  builder.beginProgram("load").finish();
  auto reader = Reader::fromBytes(builder.finish(), "plan");
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  Topology topology((*reader)->plan());

  EXPECT_EQ(topology.rankCount(), 8u);
  EXPECT_EQ(topology.coordinates(6), (Ranks{1, 2}));
  EXPECT_EQ(topology.rankAt({1, 2}), 6u);
  EXPECT_EQ(topology.findAxis("tp"), 1);
  EXPECT_EQ(topology.findAxis("pp"), -1);
  EXPECT_EQ(topology.groupRanks(whole, 6), (Ranks{4, 5, 6, 7}));
  EXPECT_EQ(topology.groupPosition(whole, 6), 2u);
  EXPECT_EQ(topology.groupRanks(major, 5), (Ranks{5, 7}));
  EXPECT_EQ(topology.groupPosition(major, 5), 0u);
  EXPECT_EQ(topology.groupRanks(minor, 5), (Ranks{4, 5}));
  EXPECT_EQ(topology.groupPosition(minor, 5), 1u);
  EXPECT_EQ(topology.groupRanks(both, 3), (Ranks{0, 4, 1, 5, 2, 6, 3, 7}));
  EXPECT_EQ(topology.groupPosition(both, 5), 3u);
  EXPECT_EQ(topology.groupRanks(alone, 3), (Ranks{3}));
  for (uint32_t group : {whole, major, minor, both, alone})
    for (uint32_t rank = 0; rank < 8; ++rank) {
      Ranks members = topology.groupRanks(group, rank);
      EXPECT_EQ(members[topology.groupPosition(group, rank)], rank);
      EXPECT_EQ(members[0], topology.groupLeader(group, rank));
    }
  EXPECT_EQ(topology.groupName(both), "tp,dp");
  EXPECT_EQ(topology.groupName(minor), "tp:(2)2");
  EXPECT_EQ(topology.tableEntry(table, 6), 21); // dp 1, tp 2
  EXPECT_EQ(topology.resolve(tableValue(table), 6).value(), 21);
  EXPECT_EQ(topology.resolve(loopIndex(), 6).kind(), ValueKind::loop_index);
  EXPECT_EQ(meshText((*reader)->plan()), "dp=2,tp=4");
}

TEST(Topology, ShardOrigins) {
  Builder builder;
  test::buildHandBuiltPlan(builder);
  auto reader = Reader::fromBytes(builder.finish(), "plan");
  ASSERT_TRUE(reader.ok());
  Topology topology((*reader)->plan());
  const Port &x = *(*reader)->plan().entries()->Get(0)->inputs()->Get(0);
  EXPECT_EQ(topology.shardOrigin(x.sharding(), *x.local()->dims(), 1),
            (std::vector<int64_t>{0, 0}));
  EXPECT_EQ(topology.shardOrigin(x.sharding(), *x.local()->dims(), 2),
            (std::vector<int64_t>{2, 0}));
}

} // namespace
