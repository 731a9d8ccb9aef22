// Gradients of attention against a double reference that forms the scores, and
// bitwise equality whatever the number of threads.

#include "dshard/Runtime/Cpu/AttentionGrad.h"
#include "TestTensors.h"
#include "dshard/Runtime/Cpu/Attention.h"
#include "dshard/Runtime/Cpu/ThreadPool.h"

#include <cstring>
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

struct Scratch {
  explicit Scratch(uint64_t bytes, unsigned threads)
      : stride(bytes / 64 * 64 + 64), bytes(bytes), threads(threads),
        memory(stride * threads + 128, 0xab) {}
  uint8_t *data() {
    return reinterpret_cast<uint8_t *>(
        (reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  }
  void check() {
    for (unsigned thread = 0; thread < threads; ++thread)
      for (uint64_t i = bytes; i < stride; ++i)
        ASSERT_EQ(data()[thread * stride + i], 0xab)
            << "wrote beyond the scratch";
  }
  uint64_t stride, bytes;
  unsigned threads;
  std::vector<uint8_t> memory;
};

/// The operands, the forward's results, and places for the gradients.
struct Problem {
  explicit Problem(const Case &c)
      : q(randomArray(c.type, c.batch * c.heads * c.s * c.d, 1, 2)),
        k(randomArray(c.type, c.batch * c.kvHeads * c.t * c.d, 2, 2)),
        v(randomArray(c.type, c.batch * c.kvHeads * c.t * c.dv, 3)),
        out(c.type, c.batch * c.heads * c.s * c.dv),
        dout(randomArray(c.type, c.batch * c.heads * c.s * c.dv, 5)),
        dq(randomArray(c.type, q.count, 6)),
        dk(randomArray(c.type, k.count, 7)),
        dv(randomArray(c.type, v.count, 8)), bias(randomBias(c)),
        lse(c.batch * c.heads * c.s, 99), mask(c.batch * c.t, 1) {
    // As in AttentionTest: left padding, and the last batch sees less.
    for (int64_t b = 0; b < c.batch; ++b)
      for (int64_t j = 0; j < c.t; ++j)
        mask[b * c.t + j] = j >= c.t / 3 && j < c.t - b;
    AttentionArguments &a = g.forward;
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
    layout(g.doutStrides, c.headsFirst, c.heads, c.s, c.dv);
    layout(g.dqStrides, c.headsFirst, c.heads, c.s, c.d);
    layout(g.dkStrides, c.headsFirst, c.kvHeads, c.t, c.d);
    layout(g.dvStrides, c.headsFirst, c.kvHeads, c.t, c.dv);
    a.causal = c.causal;
    a.offset = c.offset;
    a.window = c.window;
    a.scale = 1 / std::sqrt(double(c.d));
    a.softcap = c.softcap;
    a.fullyMasked = c.fullyMasked;
    a.type = c.type;
    a.q = q.data();
    a.k = k.data();
    a.v = v.data();
    a.out = out.data();
    a.lse = lse.data();
    a.mask = c.mask ? mask.data() : nullptr;
    if (c.bias >= 0) {
      biasLayout(c, a.biasStrides);
      a.bias = bias.data();
    }
    g.dout = dout.data();
    g.dq = dq.data();
    g.dk = dk.data();
    g.dv = dv.data();
    ThreadPool pool(1);
    Scratch scratch(attentionScratchBytes(c.d, c.dv), 1);
    attention(a, pool, scratch.data(), scratch.stride);
  }
  Problem(const Problem &) = delete;

  void run(unsigned threads) {
    ThreadPool pool(threads);
    Scratch scratch(attentionGradScratchBytes(g.forward.d, g.forward.dv),
                    threads);
    ASSERT_TRUE(checkAttentionGrad(g).ok());
    attentionGrad(g, pool, scratch.data(), scratch.stride);
    scratch.check();
  }

  AttentionGradArguments g;
  Array q, k, v, out, dout, dq, dk, dv, bias;
  std::vector<float> lse;
  std::vector<uint8_t> mask;
};

int64_t at(const int64_t *strides, int64_t b, int64_t h, int64_t i) {
  return b * strides[0] + h * strides[1] + i * strides[2];
}

void near(const Array &got, const std::vector<double> &expected,
          double tolerance, const char *what) {
  double largest = 0;
  for (double x : expected)
    largest = std::max(largest, std::abs(x));
  for (int64_t i = 0; i < got.count; ++i)
    ASSERT_NEAR(got[i], expected[i], tolerance * std::max(1.0, largest))
        << what << " element " << i;
}

void check(const Case &c, unsigned threads = 1) {
  SCOPED_TRACE(
      "batch=" + std::to_string(c.batch) + " heads=" + std::to_string(c.heads) +
      "/" + std::to_string(c.kvHeads) + " s=" + std::to_string(c.s) +
      " t=" + std::to_string(c.t) + " d=" + std::to_string(c.d) +
      " dv=" + std::to_string(c.dv) + " causal=" + std::to_string(c.causal) +
      " offset=" + std::to_string(c.offset) + " window=" +
      std::to_string(c.window) + " mask=" + std::to_string(c.mask) +
      " fullyMasked=" + std::to_string(c.fullyMasked) +
      " bias=" + std::to_string(c.bias) + " " + plan::toString(c.type));
  Problem p(c);
  ASSERT_NO_FATAL_FAILURE(p.run(threads));
  const AttentionArguments &a = p.g.forward;

  std::vector<double> dq(p.dq.count), dk(p.dk.count), dv(p.dv.count);
  std::vector<double> y(c.t), weights(c.t);
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t h = 0; h < c.heads; ++h)
      for (int64_t i = 0; i < c.s; ++i) {
        int64_t kv = h / (c.heads / c.kvHeads);
        int64_t qAt = at(a.qStrides, b, h, i);
        int64_t outAt = at(a.outStrides, b, h, i);
        double best = -HUGE_VAL, sum = 0;
        auto visible = [&](int64_t j) {
          return (!c.causal || j <= i + c.offset) &&
                 (c.window < 0 || j > i + c.offset - c.window) &&
                 (!c.mask || p.mask[b * c.t + j]);
        };
        for (int64_t j = 0; j < c.t; ++j) {
          y[j] = weights[j] = 0;
          if (!visible(j))
            continue;
          for (int64_t l = 0; l < c.d; ++l)
            y[j] += p.q[qAt + l] * p.k[at(a.kStrides, b, kv, j) + l];
          y[j] *= a.scale;
          if (c.softcap > 0)
            y[j] = c.softcap * std::tanh(y[j] / c.softcap);
          if (c.bias >= 0)
            y[j] += p.bias[b * a.biasStrides[0] + h * a.biasStrides[1] +
                           i * a.biasStrides[2] + j * a.biasStrides[3]];
          best = std::max(best, y[j]);
        }
        for (int64_t j = 0; j < c.t; ++j)
          if (visible(j))
            sum += weights[j] = std::exp(y[j] - best);
        if (sum == 0) {
          ASSERT_EQ(p.lse[(b * c.heads + h) * c.s + i], -HUGE_VALF);
          for (int64_t j = 0; c.fullyMasked && j < c.t; ++j)
            for (int64_t l = 0; l < c.dv; ++l)
              dv[at(a.vStrides, b, kv, j) + l] +=
                  p.dout[outAt + l] / double(c.t);
          continue;
        }
        double delta = 0;
        std::vector<double> dp(c.t);
        for (int64_t j = 0; j < c.t; ++j) {
          weights[j] /= sum;
          for (int64_t l = 0; l < c.dv; ++l)
            dp[j] += p.dout[outAt + l] * p.v[at(a.vStrides, b, kv, j) + l];
          delta += weights[j] * dp[j];
        }
        for (int64_t j = 0; j < c.t; ++j) {
          int64_t kAt = at(a.kStrides, b, kv, j);
          double ds = weights[j] * (dp[j] - delta) * a.scale;
          if (c.softcap > 0)
            ds *= 1 - y[j] / c.softcap * (y[j] / c.softcap);
          for (int64_t l = 0; l < c.d; ++l) {
            dq[qAt + l] += ds * p.k[kAt + l];
            dk[kAt + l] += ds * p.q[qAt + l];
          }
          for (int64_t l = 0; l < c.dv; ++l)
            dv[at(a.vStrides, b, kv, j) + l] += weights[j] * p.dout[outAt + l];
        }
      }
  // Half types: `out` is rounded before its row sums are formed.
  double tolerance = c.type == DataType::f32 ? 4e-6 : 2 * epsilon(c.type);
  near(p.dq, dq, tolerance, "dq");
  near(p.dk, dk, tolerance, "dk");
  near(p.dv, dv, tolerance, "dv");
}

} // namespace

TEST(AttentionGrad, OddSizes) {
  for (int64_t s : {1, 3, 16, 17, 127, 130})
    for (int64_t t : {1, 5, 16, 33, 128, 129, 260})
      check({1, 2, 2, s, t, 20, 12});
  for (int64_t d : {1, 8, 15, 16, 17, 64, 80})
    for (int64_t dv : {1, 16, 40})
      check({1, 1, 1, 9, 21, d, dv});
}

TEST(AttentionGrad, CausalWithOffset) {
  for (int64_t offset : {0, 7, -3, 200})
    for (int fullyMasked : {0, 1}) {
      Case c{2, 2, 1, 60, 67, 16, 16};
      c.causal = true;
      c.offset = offset;
      c.fullyMasked = fullyMasked;
      check(c);
      c.s = 300;
      c.t = 310;
      check(c, 2);
    }
}

TEST(AttentionGrad, SlidingWindow) {
  for (int64_t window : {0, 1, 5, 40})
    for (bool causal : {false, true})
      for (unsigned threads : {1u, 3u}) {
        Case c{1, 2, 2, 150, 150, 8, 8};
        c.causal = causal;
        c.window = window;
        check(c, threads);
        c.s = c.t = 400;
        c.heads = c.kvHeads = 1;
        check(c, threads);
      }
}

TEST(AttentionGrad, PaddingMaskAndFullyMaskedRows) {
  for (int fullyMasked : {0, 1})
    for (bool causal : {false, true})
      for (int64_t t : {12, 40, 290}) {
        Case c{3, 4, 2, t, t, 16, 24};
        c.mask = true;
        c.causal = causal;
        c.fullyMasked = fullyMasked;
        check(c);
      }
  Case c{3, 1, 1, 4, 2, 8, 8}; // the last batch is masked altogether
  c.mask = true;
  for (int fullyMasked : {0, 1}) {
    c.fullyMasked = fullyMasked;
    check(c);
  }
}

TEST(AttentionGrad, GroupedHeadsAndLayouts) {
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

TEST(AttentionGrad, Softcap) {
  Case c{1, 2, 1, 140, 145, 16, 16};
  c.softcap = 1.5;
  check(c);
  c.causal = c.mask = true;
  check(c);
}

TEST(AttentionGrad, Bias) {
  for (int whole = 0; whole < 16; ++whole)
    for (int64_t t : {21, 140}) {
      Case c{2, 4, 2, 37, t, 16, 24};
      c.bias = whole;
      check(c);
      c.causal = c.mask = true;
      c.offset = t - 37;
      c.fullyMasked = 1;
      check(c, 2);
    }
  for (DataType type : {DataType::bf16, DataType::f16}) {
    Case c{2, 4, 2, 37, 170, 24, 40};
    c.bias = 14;
    c.type = type;
    check(c, 2);
  }
}

TEST(AttentionGrad, Types) {
  for (DataType type : {DataType::bf16, DataType::f16}) {
    Case c{2, 4, 2, 37, 170, 24, 40};
    c.type = type;
    check(c);
    c.mask = c.causal = true;
    c.fullyMasked = 1;
    c.offset = 133;
    check(c, 2);
  }
}

TEST(AttentionGrad, ThreadsGiveTheSameBits) {
  // One (batch, KV head) and many: both ways of dividing the work.
  for (int64_t batch : {1, 3})
    for (int fullyMasked : {0, 1}) {
      Case c{batch, 4, 2, 300, 333, 24, 40};
      c.causal = c.mask = true;
      c.fullyMasked = fullyMasked;
      Problem one(c);
      ASSERT_NO_FATAL_FAILURE(one.run(1));
      for (unsigned threads : {1u, 2u, 3u, 4u, 7u}) {
        Problem other(c);
        ASSERT_NO_FATAL_FAILURE(other.run(threads));
        EXPECT_EQ(one.dq.bytes, other.dq.bytes) << threads << " threads";
        EXPECT_EQ(one.dk.bytes, other.dk.bytes) << threads << " threads";
        EXPECT_EQ(one.dv.bytes, other.dv.bytes) << threads << " threads";
      }
    }
}

TEST(AttentionGrad, ScratchDoesNotGrowWithTheSequence) {
  EXPECT_LT(attentionGradScratchBytes(16, 16), 256u << 10);
  EXPECT_LT(attentionGradScratchBytes(128, 128), 1u << 20);
  Case c{1, 1, 1, 2000, 2000, 16, 16};
  c.causal = true;
  Problem p(c);
  p.run(1); // with canaries behind exactly that much
}

TEST(AttentionGrad, NoKeysAndNoRows) {
  Case c{1, 2, 1, 5, 0, 8, 8};
  check(c);
  c.fullyMasked = 1;
  check(c);
  check({1, 2, 1, 0, 5, 8, 8});
}

TEST(AttentionGrad, NotFiniteGradientsShow) {
  Case c{1, 1, 1, 20, 20, 8, 8};
  c.causal = true;
  Problem p(c);
  p.dout.set(5 * 8, INFINITY);
  p.run(1);
  EXPECT_FALSE(std::isfinite(p.dv[3 * 8]));
  EXPECT_FALSE(std::isfinite(p.dq[5 * 8]));
  EXPECT_FALSE(std::isfinite(p.dk[3 * 8]));
  EXPECT_TRUE(std::isfinite(p.dq[6 * 8]));
}

TEST(AttentionGrad, Refusals) {
  AttentionGradArguments g;
  g.forward.heads = 8;
  g.forward.kvHeads = 3;
  g.forward.d = g.forward.dv = 4;
  EXPECT_EQ(checkAttentionGrad(g).message(),
            "attention: 8 heads are not a multiple of 3 KV heads");
}
