// numpy's files: written and read back, and what is refused.

#include "dshard/Runtime/Npy.h"
#include "TestFolder.h"
#include "TestTensors.h"

#include <gtest/gtest.h>

using namespace dshard;
using namespace dshard::test;
using plan::DataType;

namespace {
std::string file(const std::string &header, const std::string &data,
                 char version = 1) {
  std::string text("\x93NUMPY", 6);
  text += version;
  text += '\0';
  text += static_cast<char>(header.size() & 0xff);
  text += static_cast<char>(header.size() >> 8);
  if (version > 1)
    text += std::string(2, '\0');
  return text + header + data;
}
std::string header(const std::string &type, const std::string &shape,
                   const std::string &order = "False") {
  return "{'descr': '" + type + "', 'fortran_order': " + order +
         ", 'shape': " + shape + ", }\n";
}
std::string error(const std::string &bytes) {
  TestFolder folder;
  folder.write("x.npy", bytes);
  std::string message = readNpy(folder.path("x.npy")).status().message();
  size_t at = message.find("x.npy: ");
  return at == std::string::npos ? message : message.substr(at + 7);
}
} // namespace

TEST(Npy, WritesAndReadsEveryType) {
  TestFolder folder;
  for (int i = 1; i <= int(DataType::f64); ++i)
    for (std::vector<int64_t> dims :
         {std::vector<int64_t>{}, {3}, {2, 5}, {0, 4}, {1, 2, 3, 4}}) {
      DataType type = DataType(i);
      Array array = randomArray(type, plan::elementCount(dims), 3, 3);
      std::string path = folder.path("x.npy");
      ASSERT_TRUE(writeNpy(path, type, dims, array.data()).ok());
      auto read = readNpy(path, type);
      ASSERT_TRUE(read.ok()) << read.status().message();
      EXPECT_EQ(read->type, type);
      EXPECT_EQ(read->dims, dims);
      for (int64_t j = 0; j < array.count; ++j)
        EXPECT_EQ(cpu::elementAsDouble(read->data.data(), type, j), array[j]);
    }
}

TEST(Npy, ReadsTheVersionsOfNumpy) {
  for (char version : {1, 2, 3}) {
    TestFolder folder;
    folder.write("x.npy",
                 file(header("<f4", "(1,)"), std::string(4, '\0'), version));
    auto read = readNpy(folder.path("x.npy"));
    ASSERT_TRUE(read.ok()) << read.status().message();
    EXPECT_EQ(read->dims, std::vector<int64_t>{1});
  }
}

TEST(Npy, TwoByteTypesAreBf16WhereThatIsWanted) {
  TestFolder folder;
  folder.write("x.npy", file(header("<u2", "(1,)"), "\x80\x3f"));
  EXPECT_EQ(readNpy(folder.path("x.npy"))->type, DataType::u16);
  EXPECT_EQ(readNpy(folder.path("x.npy"), DataType::bf16)->type,
            DataType::bf16);
  folder.write("x.npy", file(header("|V2", "(1,)"), "\x80\x3f"));
  EXPECT_EQ(readNpy(folder.path("x.npy"))->type, DataType::bf16);
}

TEST(Npy, Refusals) {
  EXPECT_EQ(error("not an array"), "not a .npy file");
  EXPECT_EQ(error(""), "not a .npy file");
  EXPECT_EQ(error(file("{}", "")),
            "not a .npy file: its header has no 'descr'");
  EXPECT_EQ(error(file(header("<f4", "(2, 2)", "True"), std::string(16, 0))),
            "is in Fortran order; save numpy.ascontiguousarray(x)");
  EXPECT_EQ(error(file(header(">f4", "(1,)"), std::string(4, 0))),
            "is big endian ('>f4'); save it as little endian");
  EXPECT_EQ(error(file(header("<c8", "(1,)"), std::string(8, 0))),
            "has the type '<c8', which is not supported");
  EXPECT_EQ(error(file(header("<f4", "(3,)"), std::string(8, 0))),
            "its shape needs 12 bytes, the file has 8");
  EXPECT_EQ(error(file(header("<f4", "(-1,)"), "")),
            "has the shape (-1,), which is not supported");
  EXPECT_EQ(error(file(header("<f4", "(9999999999, 9999999999)"), "")),
            "has the shape (9999999999, 9999999999), which is not supported");
  EXPECT_EQ(error(file("", "", 9)), ".npy version 9 is not supported");
  EXPECT_EQ(error(file(header("<f4", "(1,)"), "").substr(0, 30)),
            "not a .npy file: its header has 58 bytes");
  EXPECT_FALSE(readNpy("/nowhere/x.npy").ok());
}

// Any damage gives an error or an array, never more.
TEST(Npy, SurvivesDamage) {
  TestFolder folder;
  std::string good = file(header("<f4", "(2, 3)"), std::string(24, 'x'));
  for (size_t at = 0; at < good.size(); ++at)
    for (char value : {'\0', '\'', '(', '9', '\xff'}) {
      std::string bad = good;
      bad[at] = value;
      folder.write("x.npy", bad);
      (void)readNpy(folder.path("x.npy"));
    }
}
