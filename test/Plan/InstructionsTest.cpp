// The instruction table and the layouts of uses and values.
#include "dshard/Plan/Instructions.h"

#include <gtest/gtest.h>

using namespace dshard::plan;

namespace {

TEST(Instructions, ParsesTheTable) {
  const InstructionInfo &matmul = instructionInfo(InstructionKind::MATMUL);
  EXPECT_EQ(matmul.spelling, "matmul");
  ASSERT_EQ(matmul.uses.size(), 5u);
  EXPECT_EQ(matmul.uses[2].name, "bias");
  EXPECT_TRUE(matmul.uses[2].optional);
  EXPECT_FALSE(matmul.uses[3].written);
  EXPECT_TRUE(matmul.uses[4].written);
  EXPECT_TRUE(matmul.values[matmul.findValue("packed")].flag);
  EXPECT_EQ(matmul.findValue("nothing"), -1);
  const InstructionInfo &copy = instructionInfo(InstructionKind::COPY);
  EXPECT_EQ(copy.values[copy.findValue("sizes")].countFrom,
            copy.findValue("ndims"));
  const InstructionInfo &attention =
      instructionInfo(InstructionKind::ATTENTION);
  EXPECT_EQ(attention.values[attention.findValue("k_strides")].count, 3);
  EXPECT_TRUE(instructionInfo(InstructionKind::SEND).isCollective());
  EXPECT_TRUE(instructionInfo(InstructionKind::IF).isControl());
  for (size_t i = 0; i < instructionTable().size(); ++i) {
    const InstructionInfo &info = instructionTable()[i];
    EXPECT_EQ(static_cast<size_t>(info.kind), i);
    EXPECT_EQ(*parseInstructionKind(info.spelling), info.kind);
  }
  EXPECT_EQ(findInstruction(static_cast<uint16_t>(instructionTable().size())),
            nullptr);
}

TEST(Instructions, LaysOutUsesAndValues) {
  const InstructionInfo &info = instructionInfo(InstructionKind::ALL_GATHER);
  std::vector<Value> values = {literal(0), literal(2), literal(1),
                               literal(1), literal(8), literal(8)};
  auto layout = InstructionLayout::get(info, values.data(), values.size(), 4);
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(layout->valueBegin, (std::vector<uint32_t>{0, 1, 2, 4, 6}));
  EXPECT_EQ(layout->useBegin, (std::vector<uint32_t>{0, 2, 4}));
  auto error = [&](size_t valueCount, size_t useCount) {
    return InstructionLayout::get(info, values.data(), valueCount, useCount)
        .status()
        .message();
  };
  EXPECT_EQ(error(6, 3), "all_gather: has 3 uses, expected 4");
  EXPECT_EQ(error(5, 4),
            "all_gather: has 5 values, but value 'inner' ends at 6");
  EXPECT_EQ(error(0, 4),
            "all_gather: has 0 values, but value 'group' ends at 1");
  values[1] = loopIndex();
  EXPECT_EQ(error(6, 4),
            "all_gather: value 'operands' must be a literal from 0 to 65535");
}

} // namespace
