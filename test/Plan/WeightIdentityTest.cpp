// The identity of a weight is the same from memory and from a file, of which
// only the ends are read.
#include "dshard/Plan/WeightIdentity.h"
#include "dshard/Plan/Format.h"

#include <cstdio>
#include <gtest/gtest.h>
#include <unistd.h>

using namespace dshard;
using namespace dshard::plan;

namespace {
class WeightIdentity : public testing::Test {
protected:
  WeightIdentity()
      : path(testing::TempDir() + "weights-" + std::to_string(getpid())) {
    for (size_t i = 0; i < 400000; ++i)
      bytes.push_back(static_cast<char>(i * 31 + i / 251));
    EXPECT_TRUE(writeFile(path, bytes.data(), bytes.size()));
  }
  ~WeightIdentity() override { std::remove(path.c_str()); }

  std::string path;
  std::vector<char> bytes;
};
} // namespace

TEST_F(WeightIdentity, SameFromMemoryAndFile) {
  auto file = InputFile::open(path);
  ASSERT_TRUE(file);
  for (uint64_t offset : {0, 5, 4096})
    for (uint64_t size : {1, 65536, 131071, 131072, 131073, 300000}) {
      auto identity = weightIdentity(*file, offset, size);
      ASSERT_TRUE(identity) << identity.status().message();
      EXPECT_EQ(*identity, weightIdentity(bytes.data() + offset, size))
          << offset << " " << size;
    }
}

TEST_F(WeightIdentity, DependsOnEndsAndSize) {
  uint64_t before = weightIdentity(bytes.data(), 300000);
  EXPECT_NE(before, weightIdentity(bytes.data(), 299999));
  bytes[150000] ^= 1; // between the ends
  EXPECT_EQ(before, weightIdentity(bytes.data(), 300000));
  bytes[299999] ^= 1;
  EXPECT_NE(before, weightIdentity(bytes.data(), 300000));
}

TEST_F(WeightIdentity, FileCutSinceItWasOpened) {
  auto file = InputFile::open(path);
  ASSERT_TRUE(file);
  ASSERT_EQ(truncate(path.c_str(), 200000), 0);
  auto identity = weightIdentity(*file, 0, 300000);
  ASSERT_FALSE(identity);
  EXPECT_NE(identity.status().message().find(path), std::string::npos);
}
