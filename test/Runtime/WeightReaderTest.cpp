// Slices of weight files: every dim cut, permuted, padded, cast; drawn weights
// equal to their definition; and the ways in which a file can be wrong.

#include "dshard/Runtime/WeightReader.h"
#include "TestFolder.h"
#include "TestTensors.h"
#include "dshard/Plan/PlanBuilder.h"
#include "dshard/Support/Philox.h"

#include <gtest/gtest.h>
#include <random>
#include <unistd.h>

using namespace dshard;
using namespace dshard::test;
using namespace dshard::plan;

namespace {

constexpr uint64_t offset = 100; // of the tensor in its file

/// A plan with one weight `layer.w` in file `path`.
struct OneWeight {
  DataType type = DataType::f32;
  std::vector<int64_t> dims = {4, 6};
  std::string path = "w.bin";
  bool identity = true;
  uint64_t fanIn = 6;
  std::string bytes; // of the tensor

  Array values() const {
    Array array(type, elementCount(dims));
    std::memcpy(array.data(), bytes.data(), bytes.size());
    return array;
  }
  std::string file() const { return std::string(offset, '#') + bytes; }
  void randomize() {
    Array array = randomArray(type, elementCount(dims), 9, 50);
    bytes.assign(static_cast<const char *>(array.data()),
                 elementCount(dims) * byteSize(type));
  }
  std::unique_ptr<Reader> plan(const std::string &folder) const {
    Builder b;
    b.plan.target = "cpu:x86-64";
    b.plan.provenance->model = "model.onnx";
    b.plan.provenance->model_folder = folder;
    WeightSourceT source;
    source.name = b.intern("layer.w");
    source.file = b.addFile(path, identity ? offset + bytes.size() : 0);
    source.offset = offset;
    source.length = bytes.size();
    source.stored = Builder::tensorType(type, dims);
    source.has_identity = identity;
    if (identity)
      source.identity = weightIdentity(bytes.data(), bytes.size());
    source.fan_in = fanIn;
    b.addSource(std::move(source));
    ProgramAssembler load = b.beginProgram("load");
    load.finish();
    b.plan.load = load.index();
    auto reader = Reader::fromBytes(b.finish(), "test.dsplan");
    EXPECT_TRUE(reader.ok()) << reader.status().message();
    return std::move(*reader);
  }
};

OneWeight someWeight() {
  OneWeight weight;
  weight.randomize();
  return weight;
}

std::string openError(const OneWeight &weight, const std::string &folder,
                      WeightOptions options = {}) {
  auto plan = weight.plan(folder);
  return WeightReader::open(*plan, options).status().message();
}

/// Reads random slices and compares every element.
void checkSlices(const OneWeight &weight, WeightReader &reader, uint32_t seed,
                 DataType outType, int rounds = 40) {
  Array values = weight.values();
  std::mt19937 random(seed);
  int dims = static_cast<int>(weight.dims.size());
  for (int round = 0; round < rounds; ++round) {
    SliceRequest request;
    request.dims = dims;
    request.outType = outType;
    int64_t count = 1, extra[maxDims];
    std::vector<int> order(dims);
    for (int i = 0; i < dims; ++i)
      order[i] = i;
    std::shuffle(order.begin(), order.end(), random);
    for (int i = 0; i < dims; ++i) {
      // Some slices reach beyond the end of the dim, some are whole.
      request.starts[i] = round % 3 ? random() % weight.dims[i] : 0;
      request.sizes[i] =
          round % 3 ? 1 + random() % weight.dims[i] : weight.dims[i];
      request.permutation[i] = order[i];
    }
    for (int i = 0; i < dims; ++i) {
      extra[i] = random() % 3;
      request.at[i] = extra[i] ? random() % extra[i] : 0;
      request.outDims[i] = request.sizes[order[i]] + extra[i];
      count *= request.outDims[i];
    }
    Array out(outType, count);
    for (int64_t i = 0; i < count; ++i)
      out.set(i, 33);
    request.out = out.data();
    Status status = reader.loadSlice(request);
    ASSERT_TRUE(status.ok()) << status.message();
    int64_t index[maxDims];
    for (int64_t i = 0; i < count; ++i) {
      int64_t left = i, source = 0;
      bool inside = true, padding = false;
      for (int d = dims - 1; d >= 0; --d) {
        index[d] = left % request.outDims[d] - request.at[d];
        left /= request.outDims[d];
      }
      int64_t coordinate[maxDims];
      for (int d = 0; d < dims; ++d) {
        inside &= index[d] >= 0 && index[d] < request.sizes[order[d]];
        coordinate[order[d]] = request.starts[order[d]] + index[d];
      }
      for (int d = 0; d < dims; ++d) {
        padding |= coordinate[d] >= weight.dims[d];
        source = source * weight.dims[d] + coordinate[d];
      }
      Array expected(outType, 1);
      expected.set(0, !inside ? 33 : padding ? 0 : values[source]);
      ASSERT_EQ(out[i], expected[0]) << "round " << round << " element " << i;
    }
  }
}

} // namespace

TEST(WeightReader, Slices) {
  TestFolder folder;
  for (std::vector<int64_t> dims :
       {std::vector<int64_t>{7}, {4, 6}, {5, 1, 8}, {3, 4, 5, 2}, {300, 70}})
    for (DataType type : {DataType::f32, DataType::bf16, DataType::i64}) {
      OneWeight weight;
      weight.dims = dims;
      weight.type = type;
      weight.randomize();
      folder.write(weight.path, weight.file());
      auto plan = weight.plan(folder.path());
      auto reader = WeightReader::open(*plan, {});
      ASSERT_TRUE(reader.ok()) << reader.status().message();
      int rounds = dims[0] == 300 ? 8 : 40;
      checkSlices(weight, **reader, 1, type, rounds);
      checkSlices(weight, **reader, 2, DataType::f32, rounds);
    }
}

// Larger than the reader's own buffer, in rows and in columns.
TEST(WeightReader, SlicesLargerThanTheBuffer) {
  TestFolder folder;
  for (std::vector<int64_t> dims :
       {std::vector<int64_t>{700, 500}, {2, 90000}, {90000, 2}}) {
    OneWeight weight;
    weight.dims = dims;
    weight.randomize();
    folder.write(weight.path, weight.file());
    auto plan = weight.plan(folder.path());
    auto reader = WeightReader::open(*plan, {});
    ASSERT_TRUE(reader.ok()) << reader.status().message();
    checkSlices(weight, **reader, 3, DataType::f32, 3);
    checkSlices(weight, **reader, 4, DataType::f16, 2);
  }
}

TEST(WeightReader, Scalars) {
  TestFolder folder;
  OneWeight weight;
  weight.dims = {};
  weight.randomize();
  folder.write(weight.path, weight.file());
  auto plan = weight.plan(folder.path());
  auto reader = WeightReader::open(*plan, {});
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  float out = 0;
  SliceRequest request;
  request.out = &out;
  ASSERT_TRUE((*reader)->loadSlice(request).ok());
  EXPECT_EQ(out, weight.values()[0]);
}

// The value is a function of the seed, the name and the index in the whole
// stored tensor, so every slice draws its own part.
TEST(WeightReader, DrawnWeights) {
  for (DataType type : {DataType::f32, DataType::bf16, DataType::f16,
                        DataType::f64, DataType::u8})
    for (uint64_t fanIn : {0, 6}) {
      bool isByte = type == DataType::u8;
      OneWeight weight;
      weight.type = type;
      weight.fanIn = fanIn;
      weight.identity = false;
      weight.dims = {40, 90};
      RandomStream random(11, "layer.w");
      Array values(type, 40 * 90);
      for (int64_t i = 0; i < 40 * 90; ++i)
        values.set(i, isByte ? random.byte(i) : random.weight(i, fanIn));
      weight.bytes.assign(static_cast<const char *>(values.data()),
                          40 * 90 * byteSize(type));
      auto plan = weight.plan("/nowhere");
      WeightOptions options;
      options.seed = 11;
      auto reader = WeightReader::open(*plan, options);
      ASSERT_TRUE(reader.ok()) << reader.status().message();
      checkSlices(weight, **reader, 5, type, 10);
      if (!isByte)
        checkSlices(weight, **reader, 6, DataType::f32, 5);
    }
  OneWeight integers = someWeight();
  integers.type = DataType::i32;
  auto plan = integers.plan("/nowhere");
  WeightOptions options;
  options.seed = 1;
  auto reader = WeightReader::open(*plan, options);
  int32_t out;
  SliceRequest request;
  request.dims = 2;
  for (int i = 0; i < 2; ++i) {
    request.starts[i] = request.at[i] = 0;
    request.sizes[i] = request.outDims[i] = 1;
    request.permutation[i] = i;
  }
  request.out = &out;
  request.outType = DataType::i32;
  EXPECT_EQ(
      (*reader)->loadSlice(request).message(),
      "weight 'layer.w' is i32: only floating-point weights and uint8 have "
      "random values; give the files");
}

// Constants inside the model's own file are read even when weights are drawn.
TEST(WeightReader, InlineConstantsAreNotDrawn) {
  TestFolder folder;
  OneWeight weight;
  weight.path = "model.onnx";
  weight.randomize();
  folder.write(weight.path, weight.file());
  auto plan = weight.plan(folder.path());
  WeightOptions options;
  options.seed = 1;
  auto reader = WeightReader::open(*plan, options);
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  checkSlices(weight, **reader, 5, DataType::f32, 5);
}

TEST(WeightReader, MissingFile) {
  TestFolder folder;
  EXPECT_EQ(openError(someWeight(), folder.path()),
            "weights file 'w.bin' is missing in '" + folder.path() +
                "'; name its folder with --weights, or use --random-weights");
  WeightOptions options;
  options.folder = folder.path("absent");
  EXPECT_NE(openError(someWeight(), folder.path(), options)
                .find("--weights=" + options.folder),
            std::string::npos);
  options.folder.clear();
  options.seed = 0;
  EXPECT_EQ(openError(someWeight(), folder.path(), options), "");
}

TEST(WeightReader, ShortFile) {
  TestFolder folder;
  OneWeight weight = someWeight();
  folder.write(weight.path, weight.file().substr(0, 150));
  EXPECT_EQ(openError(weight, folder.path()),
            "weights file 'w.bin' is too short: tensor 'layer.w' needs 196 "
            "bytes, the file has 150");
}

TEST(WeightReader, ChangedFile) {
  TestFolder folder;
  OneWeight weight = someWeight();
  std::string file = weight.file();
  file[offset + 50] ^= 1;
  folder.write(weight.path, file);
  EXPECT_EQ(openError(weight, folder.path()),
            "weights file 'w.bin' changed since compilation: the bytes of "
            "tensor 'layer.w' are others; compile the model again");
  folder.write(weight.path, weight.file() + "more");
  EXPECT_EQ(openError(weight, folder.path()),
            "weights file 'w.bin' changed since compilation: it had 196 bytes "
            "and has 200; compile the model again");
  // Compiled without the file: there is nothing to compare with.
  weight.identity = false;
  EXPECT_EQ(openError(weight, folder.path()), "");
}

TEST(WeightReader, PathsThatLeaveTheFolder) {
  TestFolder folder;
  OneWeight weight = someWeight();
  folder.write("outside.bin", weight.file());
  folder.write("model/w.bin", weight.file());
  weight.path = "../outside.bin";
  EXPECT_NE(openError(weight, folder.path("model"))
                .find("leaves the model's folder by '..'"),
            std::string::npos);
  weight.path = "a/../../outside.bin";
  EXPECT_NE(openError(weight, folder.path("model")).find("'..'"),
            std::string::npos);
  weight.path = folder.path("outside.bin");
  EXPECT_NE(openError(weight, folder.path("model"))
                .find("is not a path relative to the model's folder"),
            std::string::npos);
  weight.path = "w..bin"; // only looks like it
  folder.write("model/w..bin", weight.file());
  EXPECT_EQ(openError(weight, folder.path("model")), "");
}

TEST(WeightReader, LinksThatLeaveTheFolder) {
  TestFolder folder;
  OneWeight weight = someWeight();
  folder.write("cache/blob", weight.file());
  folder.write("cache-other/blob", weight.file());
  folder.write("model/inner.bin", weight.file());
  ASSERT_EQ(symlink(folder.path("cache/blob").c_str(),
                    folder.path("model/w.bin").c_str()),
            0);
  std::string message = openError(weight, folder.path("model"));
  EXPECT_NE(message.find("is a link to '" + folder.path("cache/blob") +
                         "', outside the folder"),
            std::string::npos)
      << message;
  EXPECT_NE(message.find("--weights"), std::string::npos);
  WeightOptions options;
  options.folder = folder.path("cache");
  EXPECT_EQ(openError(weight, folder.path("model"), options), "");
  options.folder = folder.path("cache-other"); // a sibling with the same prefix
  EXPECT_NE(openError(weight, folder.path("model"), options), "");
  // A link inside of the folder is nothing special.
  unlink(folder.path("model/w.bin").c_str());
  ASSERT_EQ(symlink("inner.bin", folder.path("model/w.bin").c_str()), 0);
  EXPECT_EQ(openError(weight, folder.path("model")), "");
}

TEST(WeightReader, NamedFolder) {
  TestFolder folder;
  OneWeight weight = someWeight();
  folder.write("elsewhere/w.bin", weight.file());
  WeightOptions options;
  options.folder = folder.path("elsewhere");
  EXPECT_EQ(openError(weight, "/nowhere", options), "");
}
