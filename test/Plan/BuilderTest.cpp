// The builder: what is written is read back, and quickly.
#include "TestPlan.h"

#include <chrono>
#include <gtest/gtest.h>

using namespace dshard;
using namespace dshard::plan;

namespace {

TEST(Builder, RoundTrip) {
  Builder builder;
  test::HandBuiltOptions options;
  options.image = true;
  test::buildHandBuiltPlan(builder, options);
  std::string path = ::testing::TempDir() + "dshard-round-trip.dsplan";
  ASSERT_TRUE(builder.finish(path).ok());
  auto reader = Reader::open(path);
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  // Unpacked again it is the same plan.
  std::unique_ptr<PlanT> again((*reader)->plan().UnPack());
  Builder copy;
  copy.plan = *again;
  std::vector<uint8_t> first = builder.finish(), second = copy.finish();
  FileHeader header;
  std::memcpy(&header, first.data(), sizeof(header));
  ASSERT_LE(header.metadataOffset + header.metadataSize, second.size());
  EXPECT_TRUE(
      std::equal(first.begin() + header.metadataOffset,
                 first.begin() + header.metadataOffset + header.metadataSize,
                 second.begin() + header.metadataOffset));
  EXPECT_EQ((*reader)->hash(), header.checksum);
  EXPECT_EQ((*reader)->section(0)[4999], 0xc3);
  std::remove(path.c_str());
}

TEST(Builder, SharesEqualThings) {
  Builder builder;
  uint32_t tp = builder.addAxis("tp", 4);
  EXPECT_EQ(builder.intern("a"), builder.intern("a"));
  EXPECT_NE(builder.intern("a"), builder.intern("b"));
  EXPECT_EQ(builder.intern(""), 0u);
  EXPECT_EQ(builder.addGroup({builder.wholeAxis(tp)}),
            builder.addGroup({AxisRef(tp, 1, 4)}));
  EXPECT_EQ(builder.addTable({tp}, {1, 2, 3, 4}),
            builder.addTable({tp}, {1, 2, 3, 4}));
  EXPECT_EQ(builder.rankValue({tp}, {5, 5, 5, 5}).kind(), ValueKind::literal);
  EXPECT_EQ(builder.rankValue({tp}, {5, 5, 5, 6}).kind(), ValueKind::table);
  EXPECT_EQ(builder.addFile("f", 10), builder.addFile("f", 10));
}

// 20,000 instructions are built, written, read and verified in a moment.
TEST(Builder, IsFast) {
  auto begin = std::chrono::steady_clock::now();
  Builder builder;
  uint32_t tp = builder.addAxis("tp", 8);
  builder.addAxis("dp", 512);
  int64_t group = builder.addGroup({builder.wholeAxis(tp)});
  ProgramAssembler load = builder.beginProgram("load");
  load.finish();
  ProgramAssembler run = builder.beginProgram("run");
  uint32_t last = run.addBuffer({"x", DataType::f32, {64}, 0});
  run.append(0, InstructionKind::FILL, {write(last)}, {literalBits(0)});
  for (int i = 0; i < 20000; ++i) {
    std::string name = "t" + std::to_string(i);
    uint32_t next =
        run.addBuffer({name, DataType::f32, {64}, i % 2 ? 0u : 256u});
    run.append(0, InstructionKind::ALL_REDUCE, {read(last), write(next)},
               {literal(group), literal(1), literal(0)},
               {"layers." + std::to_string(i / 10), name, "sum"});
    last = next;
  }
  run.finish();
  EXPECT_EQ(test::verifierError(builder), "");
  std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - begin;
  EXPECT_LT(seconds.count(), 3.0);
  RecordProperty("seconds", std::to_string(seconds.count()));
}

} // namespace
