// Casts and strided copies against one-element-at-a-time loops.

#include "TestTensors.h"

#include <gtest/gtest.h>

using namespace dshard;
using namespace dshard::cpu;
using namespace dshard::test;
using plan::DataType;

TEST(Convert, EveryPairOfTypes) {
  const double values[] = {0, 1, 2, 3, 100, 127};
  for (int from = 1; from <= int(DataType::f64); ++from)
    for (int to = 1; to <= int(DataType::f64); ++to) {
      DataType fromType = DataType(from), toType = DataType(to);
      Array in(fromType, 6), out(toType, 6);
      for (int i = 0; i < 6; ++i)
        in.set(i, values[i]);
      StridedCopy copy;
      copy.dims = 1;
      copy.sizes[0] = 6;
      copy.inStrides[0] = copy.outStrides[0] = 1;
      copyStrided(copy, in.data(), fromType, out.data(), toType);
      for (int i = 0; i < 6; ++i) {
        bool logical =
            fromType == DataType::boolean || toType == DataType::boolean;
        EXPECT_EQ(out[i], logical ? double(values[i] != 0) : values[i])
            << plan::toString(fromType) << " to " << plan::toString(toType);
      }
    }
}

TEST(Convert, FloatToIntegerTruncatesAndSaturates) {
  const float in[] = {-1.7f, 2.9f, 1e20f, -1e20f, NAN, 300.0f};
  int8_t narrow[6];
  int64_t wide[6];
  StridedCopy copy;
  copy.dims = 1;
  copy.sizes[0] = 6;
  copy.inStrides[0] = copy.outStrides[0] = 1;
  copyStrided(copy, in, DataType::f32, narrow, DataType::i8);
  copyStrided(copy, in, DataType::f32, wide, DataType::i64);
  const int8_t expected[] = {-1, 2, 127, -128, 0, 127};
  for (int i = 0; i < 6; ++i)
    EXPECT_EQ(narrow[i], expected[i]);
  EXPECT_EQ(wide[2], INT64_MAX);
  EXPECT_EQ(wide[3], INT64_MIN);
}

TEST(Convert, SixteenBitRoundsToNearestEven) {
  const float in[] = {1.00390625f, 1.01171875f, 65519.0f, 65520.0f, 5.9e-8f};
  uint16_t bf16[5], f16[5];
  StridedCopy copy;
  copy.dims = 1;
  copy.sizes[0] = 5;
  copy.inStrides[0] = copy.outStrides[0] = 1;
  copyStrided(copy, in, DataType::f32, bf16, DataType::bf16);
  copyStrided(copy, in, DataType::f32, f16, DataType::f16);
  EXPECT_EQ(bf16[0], 0x3f80); // halfway: down to even
  EXPECT_EQ(bf16[1], 0x3f82); // halfway: up to even
  EXPECT_EQ(f16[2], 0x7bff);
  EXPECT_EQ(f16[3], 0x7c00); // overflows
  EXPECT_EQ(f16[4], 0x0001); // the smallest subnormal
}

TEST(Convert, PermutationsAndStrides) {
  const int64_t sizes[4] = {3, 20, 1, 17};
  int order[4] = {0, 1, 2, 3};
  Array in = randomArray(DataType::f32, 3 * 20 * 17 * 2, 5);
  do {
    // The result is dense in permuted order, the operand skips every second.
    StridedCopy copy;
    copy.dims = 4;
    int64_t stride = 2;
    for (int i = 3; i >= 0; --i) {
      copy.sizes[i] = sizes[i];
      copy.inStrides[i] = stride;
      stride *= sizes[i];
    }
    stride = 1;
    for (int i = 3; i >= 0; --i) {
      copy.outStrides[order[i]] = stride;
      stride *= sizes[order[i]];
    }
    for (DataType to : {DataType::f32, DataType::f64}) {
      Array out(to, 3 * 20 * 17);
      copyStrided(copy, in.data(), DataType::f32, out.data(), to);
      for (int64_t a = 0; a < 3; ++a)
        for (int64_t b = 0; b < 20; ++b)
          for (int64_t c = 0; c < 17; ++c)
            ASSERT_EQ(out[a * copy.outStrides[0] + b * copy.outStrides[1] +
                          c * copy.outStrides[3]],
                      in[a * copy.inStrides[0] + b * copy.inStrides[1] +
                         c * copy.inStrides[3]]);
    }
  } while (std::next_permutation(order, order + 4));
}

TEST(Convert, NothingAndOneElement) {
  float in = 3, out = 0;
  StridedCopy copy;
  copy.dims = 2;
  copy.sizes[0] = 0;
  copy.sizes[1] = 5;
  copy.inStrides[0] = copy.inStrides[1] = 1;
  copy.outStrides[0] = copy.outStrides[1] = 1;
  copyStrided(copy, &in, DataType::f32, &out, DataType::f32);
  EXPECT_EQ(out, 0);
  copy.dims = 0;
  copyStrided(copy, &in, DataType::f32, &out, DataType::f32);
  EXPECT_EQ(out, 3);
}
