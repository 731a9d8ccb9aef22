// The Standard-library layer: conversions, random numbers, text, files.
#include "dshard/Support/AlignedBuffer.h"
#include "dshard/Support/Environment.h"
#include "dshard/Support/File.h"
#include "dshard/Support/Half.h"
#include "dshard/Support/Json.h"
#include "dshard/Support/Philox.h"
#include "dshard/Support/Text.h"

#include <cmath>
#include <cstdlib>
#include <gtest/gtest.h>
#include <unistd.h>

using namespace dshard;

namespace {

std::string temporaryFolder() {
  std::string path = ::testing::TempDir() + "dshard-support-XXXXXX";
  return mkdtemp(path.data());
}

// Known answers of Random123's philox4x32-10.
TEST(Philox, KnownAnswers) {
  auto zero = philox4x32({0, 0, 0, 0}, {0, 0});
  EXPECT_EQ(zero, (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c,
                                           0x9b00dbd8}));
  uint32_t ones = 0xffffffffu;
  auto full = philox4x32({ones, ones, ones, ones}, {ones, ones});
  EXPECT_EQ(full, (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6,
                                           0x6d5451fd}));
  auto pi = philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                       {0xa4093822, 0x299f31d0});
  EXPECT_EQ(pi, (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420,
                                         0x24126ea1}));
}

// An element does not depend on the order in which elements are drawn.
TEST(Philox, RandomAccess) {
  EXPECT_EQ(hashName("a"), 0xaf63dc4c8601ec8cull);
  RandomStream forwards(7, "w"), backwards(7, "w"), other(8, "w");
  std::vector<uint32_t> words;
  for (uint64_t i = 0; i < 100; ++i)
    words.push_back(forwards.word(i));
  for (uint64_t i = 100; i-- > 0;)
    EXPECT_EQ(backwards.word(i), words[i]);
  EXPECT_NE(other.word(0), words[0]);
  float low = 1, high = -1;
  for (uint64_t i = 0; i < 10000; ++i) {
    float weight = forwards.weight(i, 12); // bound 0.5
    low = std::min(low, weight);
    high = std::max(high, weight);
    ASSERT_LT(std::fabs(forwards.weight(i, 0) - 1), 0.1001f);
    ASSERT_LT(forwards.integer(i, 0, 10), 10);
    ASSERT_GE(forwards.unit(i), 0.0f);
    ASSERT_LT(forwards.unit(i), 1.0f);
  }
  EXPECT_GE(low, -0.5f);
  EXPECT_LT(low, -0.499f);
  EXPECT_GT(high, 0.499f);
  EXPECT_LE(high, 0.5f);
}

// Every f16 survives the way through f32; f32 between two f16 rounds to the
// nearer, to even in the middle.
TEST(Half, AllF16) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    uint16_t half = static_cast<uint16_t>(bits);
    float value = floatFromHalf(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(floatFromHalf(halfFromFloat(value))));
      continue;
    }
    ASSERT_EQ(halfFromFloat(value), half);
    if ((half & 0x7fff) >= 0x7bff)
      continue;
    float next = floatFromHalf(static_cast<uint16_t>(half + 1));
    float middle = value + (next - value) / 2; // exact
    ASSERT_EQ(halfFromFloat(middle), half & 1 ? half + 1 : half);
    float above = std::nextafter(middle, next);
    ASSERT_EQ(halfFromFloat(above), half + 1);
  }
  EXPECT_EQ(floatFromHalf(0x3c00), 1.0f);
  EXPECT_EQ(floatFromHalf(0x0001), 0x1p-24f);
  EXPECT_EQ(halfFromFloat(65519.0f), 0x7bff);
  EXPECT_EQ(halfFromFloat(65520.0f), 0x7c00);
  EXPECT_EQ(halfFromFloat(-INFINITY), 0xfc00);
}

TEST(Half, AllBF16) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    uint16_t half = static_cast<uint16_t>(bits);
    float value = floatFromBFloat16(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(floatFromBFloat16(bfloat16FromFloat(value))));
      continue;
    }
    ASSERT_EQ(bfloat16FromFloat(value), half);
  }
  EXPECT_EQ(bfloat16FromFloat(floatOfBits(0x3f808000)), 0x3f80); // to even
  EXPECT_EQ(bfloat16FromFloat(floatOfBits(0x3f818000)), 0x3f82);
  EXPECT_EQ(bfloat16FromFloat(floatOfBits(0x3f808001)), 0x3f81);
  // The smallest NaN does not become infinity.
  EXPECT_TRUE(std::isnan(
      floatFromBFloat16(bfloat16FromFloat(floatOfBits(0x7f800001)))));
}

TEST(Text, Formats) {
  EXPECT_EQ(formatBytes(0), "0 B");
  EXPECT_EQ(formatBytes(1023), "1023 B");
  EXPECT_EQ(formatBytes(1536), "1.50 KiB");
  EXPECT_EQ(formatBytes(12ull << 20), "12.0 MiB");
  EXPECT_EQ(formatBytes((1ull << 20) - 1), "1.00 MiB");
  EXPECT_EQ(formatCount(1234567), "1,234,567");
  EXPECT_EQ(formatCount(12), "12");
  EXPECT_EQ(formatDouble(0.1), "0.1");
  EXPECT_EQ(split("a,b,,c", ','),
            (std::vector<std::string>{"a", "b", "", "c"}));
  EXPECT_EQ(join({"x", "y"}, ", "), "x, y");
  int64_t number = 0;
  EXPECT_TRUE(parseInteger("-12", number));
  EXPECT_EQ(number, -12);
  EXPECT_FALSE(parseInteger("12a", number));
  EXPECT_FALSE(parseInteger("", number));
  EXPECT_FALSE(parseInteger("7", number, 0, 6));
  EXPECT_FALSE(parseInteger("99999999999999999999", number));
  double real = 0;
  EXPECT_TRUE(parseDouble("3e-4", real));
  EXPECT_FALSE(parseDouble(" 3", real));
  EXPECT_FALSE(parseDouble("3x", real));
}

TEST(Text, NearestNames) {
  EXPECT_EQ(editDistance("kitten", "sitting"), 3u);
  EXPECT_EQ(editDistance("tp", "pt"), 1u);
  EXPECT_EQ(didYouMean("dp_shrad", {"tp", "dp_shard", "cp"}),
            " (did you mean dp_shard?)");
  EXPECT_EQ(didYouMean("zzz", {"tp", "dp_shard"}), "");
}

TEST(Json, Writes) {
  JsonWriter json(false);
  json.beginObject().key("a").value(1).key("b").beginArray();
  json.value("x\"\n").value(true).value(0.5).value(NAN).endArray();
  json.key("c").beginObject().endObject().endObject();
  EXPECT_EQ(json.text(),
            R"({"a": 1, "b": ["x\"\n", true, 0.5, null], "c": {}})");
  JsonWriter tall;
  tall.beginObject().key("a").beginArray().value(1).value(2).endArray();
  tall.endObject();
  EXPECT_EQ(tall.text(), "{\n  \"a\": [\n    1,\n    2\n  ]\n}");
}

TEST(Environment, ReadsNumbers) {
  setenv("DSHARD_THREADS", "3", 1);
  auto threads = environmentNumber(Variable::THREADS, 9, 1, 64);
  ASSERT_TRUE(threads.ok());
  EXPECT_EQ(*threads, 3);
  setenv("DSHARD_THREADS", "many", 1);
  EXPECT_EQ(environmentNumber(Variable::THREADS, 9, 1, 64).status().message(),
            "DSHARD_THREADS is 'many', but must be a number from 1 to 64");
  unsetenv("DSHARD_THREADS");
  EXPECT_EQ(*environmentNumber(Variable::THREADS, 9, 1, 64), 9);
  setenv("DSHARD_TREADS", "3", 1);
  auto unknown = unknownEnvironment();
  unsetenv("DSHARD_TREADS");
  ASSERT_EQ(unknown.size(), 1u);
  EXPECT_EQ(unknown[0], "DSHARD_TREADS (did you mean DSHARD_THREADS?)");
}

// A file that is not committed leaves nothing, and an old one stays whole.
TEST(File, WritesWholeOrNotAtAll) {
  std::string folder = temporaryFolder(), path = folder + "/x";
  ASSERT_TRUE(writeFile(path, "old", 3).ok());
  {
    auto writer = FileWriter::open(path);
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE(writer->write("new contents", 12).ok());
  }
  EXPECT_EQ(*readFile(path), "old");
  ASSERT_TRUE(writeFile(path, "new", 3).ok());
  auto mapped = MappedFile::open(path);
  ASSERT_TRUE(mapped.ok());
  EXPECT_EQ(std::string(reinterpret_cast<const char *>(mapped->data()),
                        mapped->size()),
            "new");
  EXPECT_EQ(unlink(path.c_str()), 0);
  EXPECT_TRUE(FileWriter::check(path).ok());
  EXPECT_FALSE(FileWriter::check(folder).ok());
  EXPECT_FALSE(FileWriter::check(folder + "/none/x").ok());
  EXPECT_EQ(rmdir(folder.c_str()), 0); // nothing else was left in it
  EXPECT_EQ(readFile(path).status().message(),
            path + ": cannot open: No such file or directory");
  EXPECT_FALSE(FileWriter::open(folder + "/none/x").ok());
  EXPECT_EQ(readFile("/proc/self/status")->compare(0, 5, "Name:"), 0);
  EXPECT_EQ(readFile("/").status().message(),
            "/: cannot open: not a regular file");
}

TEST(AlignedBuffer, IsAlignedAndZero) {
  auto buffer = AlignedBuffer::allocate(10000, "the arena");
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
  buffer->touch();
  for (uint64_t i = 0; i < buffer->size(); ++i)
    ASSERT_EQ(buffer->data()[i], 0);
  EXPECT_EQ(AlignedBuffer::allocate(0, "nothing")->data(), nullptr);
  auto huge = AlignedBuffer::allocate(uint64_t{1} << 60, "the arena");
  ASSERT_FALSE(huge.ok());
  EXPECT_NE(huge.status().message().find("for the arena"), std::string::npos);
}

} // namespace
