// Attention against a double reference that forms the scores: masks, causal
// offsets, windows, softcap, GQA, odd sizes, types, strides; and the scratch.

#include "dshard/Runtime/Cpu/Attention.h"
#include "TestTensors.h"
#include "dshard/Runtime/Cpu/ThreadPool.h"

#include <cfloat>
#include <gtest/gtest.h>

using namespace dshard;
using namespace dshard::cpu;
using namespace dshard::test;
using plan::DataType;

namespace {

struct Case {
  int64_t batch, heads, kvHeads, s, t, d, dv;
  bool causal = false;
  int64_t offset = 0, window = -1;
  double softcap = 0;
  bool mask = false;
  int fullyMasked = 0;
  DataType type = DataType::f32;
  unsigned threads = 1;
  bool headsFirst = true; // [B, H, S, D], else [B, S, H, D]
  int bias = -1;          // bit d: dim d of [B, H, S, T] is whole; -1: none
};

/// Strides of a contiguous bias with the dims of `whole`; its elements.
int64_t biasLayout(const Case &c, int64_t *strides) {
  int64_t sizes[] = {c.batch, c.heads, c.s, c.t}, count = 1;
  for (int d = 4; d-- > 0;) {
    bool whole = c.bias >> d & 1;
    strides[d] = whole ? count : 0;
    count *= whole ? sizes[d] : 1;
  }
  return count;
}

Array randomBias(const Case &c) {
  int64_t strides[4];
  return randomArray(c.type, c.bias < 0 ? 1 : biasLayout(c, strides), 9, 2);
}

void layout(int64_t *strides, bool headsFirst, int64_t heads, int64_t rows,
            int64_t d) {
  strides[0] = heads * rows * d;
  strides[1] = headsFirst ? rows * d : d;
  strides[2] = headsFirst ? d : heads * d;
}

void check(const Case &c) {
  SCOPED_TRACE(
      "heads=" + std::to_string(c.heads) + "/" + std::to_string(c.kvHeads) +
      " s=" + std::to_string(c.s) + " t=" + std::to_string(c.t) +
      " d=" + std::to_string(c.d) + " dv=" + std::to_string(c.dv) + " causal=" +
      std::to_string(c.causal) + " offset=" + std::to_string(c.offset) +
      " window=" + std::to_string(c.window) + " mask=" +
      std::to_string(c.mask) + " fullyMasked=" + std::to_string(c.fullyMasked) +
      " bias=" + std::to_string(c.bias) + " " + plan::toString(c.type));
  AttentionArguments a;
  a.batch = c.batch;
  a.heads = c.heads;
  a.kvHeads = c.kvHeads;
  a.s = c.s;
  a.t = c.t;
  a.d = c.d;
  a.dv = c.dv;
  layout(a.qStrides, c.headsFirst, c.heads, c.s, c.d);
  layout(a.kStrides, c.headsFirst, c.kvHeads, c.t, c.d);
  layout(a.vStrides, c.headsFirst, c.kvHeads, c.t, c.dv);
  layout(a.outStrides, c.headsFirst, c.heads, c.s, c.dv);
  a.causal = c.causal;
  a.offset = c.offset;
  a.window = c.window;
  a.scale = 1 / std::sqrt(double(c.d));
  a.softcap = c.softcap;
  a.fullyMasked = c.fullyMasked;
  a.type = c.type;
  Array q = randomArray(c.type, c.batch * c.heads * c.s * c.d, 1, 2);
  Array k = randomArray(c.type, c.batch * c.kvHeads * c.t * c.d, 2, 2);
  Array v = randomArray(c.type, c.batch * c.kvHeads * c.t * c.dv, 3);
  Array out = randomArray(c.type, c.batch * c.heads * c.s * c.dv, 4);
  std::vector<float> lse(c.batch * c.heads * c.s, 99);
  std::vector<uint8_t> mask(c.batch * c.t, 1);
  // Batch b is padded on the left by a third and on the right by b keys; the
  // last batch sees nothing when fully masked rows are wanted.
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t j = 0; j < c.t; ++j)
      mask[b * c.t + j] = j >= c.t / 3 && j < c.t - b;
  a.q = q.data();
  a.k = k.data();
  a.v = v.data();
  a.out = out.data();
  a.mask = c.mask ? mask.data() : nullptr;
  a.lse = lse.data();
  Array bias = randomBias(c);
  if (c.bias >= 0) {
    biasLayout(c, a.biasStrides);
    a.bias = bias.data();
  }
  ASSERT_TRUE(checkAttention(a).ok());
  ThreadPool pool(c.threads);
  uint64_t stride = attentionScratchBytes(c.d, c.dv) / 64 * 64 + 64;
  // Canaries behind each thread's scratch.
  std::vector<uint8_t> scratch(stride * pool.size() + 128, 0xab);
  uint8_t *aligned = reinterpret_cast<uint8_t *>(
      (reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64);
  attention(a, pool, aligned, stride);
  for (uint64_t i = attentionScratchBytes(c.d, c.dv); i < stride; ++i)
    ASSERT_EQ(aligned[(pool.size() - 1) * stride + i], 0xab)
        << "wrote beyond the scratch";

  auto at = [](const int64_t *strides, int64_t b, int64_t h, int64_t i) {
    return b * strides[0] + h * strides[1] + i * strides[2];
  };
  double tolerance = c.type == DataType::f32 ? 4e-6 : epsilon(c.type);
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t h = 0; h < c.heads; ++h)
      for (int64_t i = 0; i < c.s; ++i) {
        int64_t kv = h / (c.heads / c.kvHeads);
        std::vector<double> weights(c.t, 0);
        double best = -HUGE_VAL;
        for (int pass = 0; pass < 2; ++pass)
          for (int64_t j = 0; j < c.t; ++j) {
            bool visible = (!c.causal || j <= i + c.offset) &&
                           (c.window < 0 || j > i + c.offset - c.window) &&
                           (!c.mask || mask[b * c.t + j]);
            if (!visible)
              continue;
            double x = 0;
            for (int64_t l = 0; l < c.d; ++l)
              x += q[at(a.qStrides, b, h, i) + l] *
                   k[at(a.kStrides, b, kv, j) + l];
            x *= a.scale;
            if (c.softcap > 0)
              x = c.softcap * std::tanh(x / c.softcap);
            if (c.bias >= 0)
              x += bias[b * a.biasStrides[0] + h * a.biasStrides[1] +
                        i * a.biasStrides[2] + j * a.biasStrides[3]];
            if (pass == 0)
              best = std::max(best, x);
            else
              weights[j] = std::exp(x - best);
          }
        double sum = 0;
        for (double weight : weights)
          sum += weight;
        double expected = best + std::log(sum);
        if (sum == 0) {
          expected = -HUGE_VAL;
          if (c.fullyMasked) {
            std::fill(weights.begin(), weights.end(), 1.0);
            sum = double(c.t);
          }
        }
        float got = lse[(b * c.heads + h) * c.s + i];
        if (std::isinf(expected))
          ASSERT_EQ(got, float(expected));
        else
          ASSERT_NEAR(got, expected, 1e-5 * std::abs(expected) + 1e-5);
        for (int64_t l = 0; l < c.dv; ++l) {
          double y = 0;
          for (int64_t j = 0; j < c.t; ++j)
            y += weights[j] * v[at(a.vStrides, b, kv, j) + l];
          y = sum > 0 ? y / sum : 0;
          ASSERT_NEAR(out[at(a.outStrides, b, h, i) + l], y, tolerance)
              << "batch " << b << " head " << h << " row " << i << " column "
              << l;
        }
      }
}

} // namespace

TEST(Attention, OddSizes) {
  for (int64_t s : {1, 3, 16, 17, 130})
    for (int64_t t : {1, 5, 16, 33, 255, 256, 257, 300})
      check({1, 2, 2, s, t, 20, 12});
  for (int64_t d : {1, 8, 15, 16, 17, 64, 80})
    for (int64_t dv : {1, 16, 40})
      check({1, 1, 1, 9, 21, d, dv});
}

TEST(Attention, CausalWithOffset) {
  for (int64_t offset : {0, 7, -3, 200})
    for (int fullyMasked : {0, 1}) {
      Case c{2, 2, 1, 60, 67, 16, 16};
      c.causal = true;
      c.offset = offset;
      c.fullyMasked = fullyMasked;
      check(c);
      c.s = 300;
      c.t = 310;
      check(c);
    }
}

TEST(Attention, SlidingWindow) {
  for (int64_t window : {0, 1, 5, 40})
    for (bool causal : {false, true}) {
      Case c{1, 2, 2, 150, 150, 8, 8};
      c.causal = causal;
      c.window = window;
      check(c);
      c.s = c.t = 600;
      c.heads = c.kvHeads = 1;
      check(c);
    }
}

TEST(Attention, PaddingMaskAndFullyMaskedRows) {
  for (int fullyMasked : {0, 1})
    for (bool causal : {false, true})
      for (int64_t t : {12, 40, 290}) {
        // Causal rows before the left padding's end see nothing.
        Case c{3, 4, 2, t, t, 16, 24};
        c.mask = true;
        c.causal = causal;
        c.fullyMasked = fullyMasked;
        check(c);
      }
  Case c{3, 1, 1, 4, 2, 8, 8}; // the last batch is masked altogether
  c.mask = true;
  c.fullyMasked = 1;
  check(c);
}

TEST(Attention, GroupedHeadsAndLayouts) {
  for (int64_t kvHeads : {1, 2, 3, 6})
    for (bool headsFirst : {false, true}) {
      Case c{2, 6, kvHeads, 70, 75, 12, 20};
      c.headsFirst = headsFirst;
      c.causal = true;
      c.offset = 5;
      c.mask = true;
      check(c);
    }
}

TEST(Attention, Softcap) {
  Case c{1, 2, 1, 40, 45, 16, 16};
  c.softcap = 1.5;
  check(c);
  c.causal = c.mask = true;
  check(c);
}

TEST(Attention, Bias) {
  for (int whole = 0; whole < 16; ++whole)
    for (int64_t t : {21, 40, 290}) {
      Case c{2, 4, 2, 37, t, 16, 24};
      c.bias = whole;
      check(c);
      c.causal = c.mask = true;
      c.offset = t - 37;
      c.fullyMasked = 1;
      check(c);
    }
  for (DataType type : {DataType::bf16, DataType::f16})
    for (int whole : {15, 2, 14}) {
      Case c{2, 4, 2, 37, 270, 24, 40};
      c.bias = whole;
      c.type = type;
      check(c);
    }
  Case c{1, 2, 2, 300, 300, 16, 16};
  c.bias = 14;
  c.window = 70;
  c.causal = true;
  c.threads = 3;
  check(c);
}

// The lowest float is a number: a row of it alone attends all keys alike. -inf
// hides, and a row of it attends nothing.
TEST(Attention, BiasThatHides) {
  float q[3] = {1, 2, 3}, k[4] = {1, 1, 2, 3}, v[4] = {1, 2, 3, 6}, out[3];
  float low = -FLT_MAX, none = -INFINITY;
  float bias[12] = {low, low, low, low, low, 0, low, 0, none, none, none, none};
  for (int fullyMasked : {0, 1}) {
    AttentionArguments a;
    a.s = 3;
    a.t = 4;
    a.d = a.dv = 1;
    for (int64_t *strides : {a.qStrides, a.outStrides})
      layout(strides, true, 1, 3, 1);
    for (int64_t *strides : {a.kStrides, a.vStrides})
      layout(strides, true, 1, 4, 1);
    a.q = q;
    a.k = k;
    a.v = v;
    a.out = out;
    a.bias = bias;
    a.biasStrides[2] = 4;
    a.biasStrides[3] = 1;
    a.fullyMasked = fullyMasked;
    ThreadPool pool(1);
    std::vector<uint8_t> scratch(attentionScratchBytes(1, 1));
    attention(a, pool, scratch.data(), scratch.size());
    EXPECT_FLOAT_EQ(out[0], 3);
    float weight = 1 / (1 + std::exp(2.0f - 6.0f)); // of key 3
    EXPECT_NEAR(out[1], 2 + 4 * weight, 1e-5);
    EXPECT_FLOAT_EQ(out[2], fullyMasked ? 3 : 0);
  }
}

TEST(Attention, Types) {
  for (DataType type : {DataType::bf16, DataType::f16}) {
    Case c{2, 4, 2, 37, 270, 24, 40};
    c.type = type;
    check(c);
    c.mask = c.causal = true;
    c.fullyMasked = 1;
    c.offset = 233;
    check(c);
  }
}

TEST(Attention, Threads) {
  for (unsigned threads : {2u, 5u}) {
    Case c{2, 4, 2, 200, 200, 16, 16};
    c.causal = true;
    c.threads = threads;
    check(c);
  }
}

// The kernel is given exactly attentionScratchBytes(d, dv): it has no other
// place for scores, and the figure has no s or t in it. Runs at both lengths
// inside the same scratch, with canaries behind it.
TEST(Attention, ScratchDoesNotGrowWithTheSequence) {
  int64_t d = 16;
  uint64_t bytes = attentionScratchBytes(d, d);
  EXPECT_LT(bytes, 384u << 10);
  for (int64_t s : {int64_t{512}, int64_t{8192}}) {
    ThreadPool pool(1);
    Array q = randomArray(DataType::f32, s * d, 1);
    Array out(DataType::f32, s * d);
    std::vector<uint8_t> scratch(bytes + 4096, 0xab);
    AttentionArguments a;
    a.s = a.t = s;
    a.d = a.dv = d;
    for (int64_t *strides : {a.qStrides, a.kStrides, a.vStrides, a.outStrides})
      layout(strides, true, 1, s, d);
    a.causal = true;
    a.q = a.k = a.v = q.data();
    a.out = out.data();
    attention(a, pool, scratch.data(), bytes);
    for (size_t i = bytes; i < scratch.size(); ++i)
      ASSERT_EQ(scratch[i], 0xab) << "at s = " << s;
    for (int64_t i = 0; i < d; ++i)
      EXPECT_FLOAT_EQ(out[i], q[i]); // the first row sees itself alone
  }
}

TEST(Attention, NanScoresStayNan) {
  float q[2] = {NAN, 1}, k[2] = {1, 1}, out[2];
  AttentionArguments a;
  a.s = 2;
  a.t = 2;
  a.d = a.dv = 1;
  for (int64_t *strides : {a.qStrides, a.kStrides, a.vStrides, a.outStrides})
    layout(strides, true, 1, 2, 1);
  a.q = q;
  a.k = a.v = k;
  a.out = out;
  ThreadPool pool(1);
  std::vector<uint8_t> scratch(attentionScratchBytes(1, 1));
  attention(a, pool, scratch.data(), scratch.size());
  EXPECT_TRUE(std::isnan(out[0]));
  EXPECT_FLOAT_EQ(out[1], 1);
}

TEST(Attention, Refusals) {
  AttentionArguments a;
  a.heads = 8;
  a.kvHeads = 3;
  a.d = a.dv = 4;
  EXPECT_EQ(checkAttention(a).message(),
            "attention: 8 heads are not a multiple of 3 KV heads");
  a.kvHeads = 8;
  a.type = DataType::f64;
  EXPECT_FALSE(checkAttention(a).ok());
  a.type = DataType::f32;
  a.bias = &a;
  EXPECT_TRUE(checkAttention(a).ok());
  a.biasStrides[3] = 2;
  EXPECT_EQ(checkAttention(a).message(),
            "attention: a bias goes with no softcap, and its keys lie side by "
            "side");
}
