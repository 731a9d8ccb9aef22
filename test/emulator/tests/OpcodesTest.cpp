//===- OpcodesTest.cpp - Single instructions, by hand ---------------------===//
#include "tests/Api.h"

#include <cmath>

namespace dshard::emulator {
namespace {

class Opcodes : public EmulatorTest {
protected:
  /// Runs `body` for 32 threads: a in, b out (both 32-bit words).
  std::vector<uint32_t> run(const std::string &body,
                            const std::vector<uint32_t> &in,
                            const std::string &declarations = "") {
    uint64_t a = upload(in), b = allocate(32 * 4);
    void *function = kernel(small(body, declarations), "k");
    EXPECT_EQ(launch(function, 1, 32, nullptr, a, b), 0);
    std::vector<uint32_t> out = download<uint32_t>(b, 32);
    EXPECT_EQ(fault(), "");
    return out;
  }
  static std::vector<uint32_t> iota(uint32_t factor = 1) {
    std::vector<uint32_t> values;
    for (uint32_t i = 0; i < 32; ++i)
      values.push_back(i * factor);
    return values;
  }
  static uint32_t bits(float value) {
    uint32_t out;
    std::memcpy(&out, &value, 4);
    return out;
  }
};

const char *load = "ld.global.u32 %r1, [%a];\n";
const char *store = "st.global.u32 [%b], %r2;\n";

TEST_F(Opcodes, divergentBranchesMergeAgain) {
  // Odd lanes add 100, even ones 200, then all add the ballot of the warp.
  auto out = run(std::string(load) + R"(
    and.b32 %r3, %r1, 1;
    setp.ne.s32 %p1, %r3, 0;
    @%p1 bra ODD;
    add.s32 %r4, %r1, 200;
    bra.uni JOIN;
ODD:
    add.s32 %r4, %r1, 100;
JOIN:
    vote.sync.ballot.b32 %r5, %p1, -1;
    sub.u32 %r6, %r5, 0xaaaaaaaa;
    add.s32 %r2, %r4, %r6;
)" + store,
                 iota());
  for (uint32_t i = 0; i < 32; ++i)
    EXPECT_EQ(out[i], i + (i % 2 ? 100 : 200));
}

TEST_F(Opcodes, loopsOfDifferentLengths) {
  auto out = run(std::string(load) + R"(
    mov.u32 %r2, 0;
    mov.u32 %r3, 0;
LOOP:
    setp.ge.u32 %p1, %r3, %r1;
    @%p1 bra DONE;
    add.u32 %r2, %r2, %r3;
    add.u32 %r3, %r3, 1;
    bra LOOP;
DONE:
)" + store,
                 iota());
  for (uint32_t i = 0; i < 32; ++i)
    EXPECT_EQ(out[i], i * (i - 1) / 2 * (i != 0));
}

TEST_F(Opcodes, shufflesByMode) {
  auto shuffled = [&](const std::string &mode) {
    return run(std::string(load) + "shfl.sync." + mode + ", -1;\n" + store,
               iota(10));
  };
  auto up = shuffled("up.b32 %r2, %r1, 1, 0");
  auto down = shuffled("down.b32 %r2|%p1, %r1, 2, 31");
  auto butterfly = shuffled("bfly.b32 %r2, %r1, 4, 31");
  auto index = shuffled("idx.b32 %r2, %r1, 3, 6175"); // width 8: c = 0x181f
  for (uint32_t i = 0; i < 32; ++i) {
    EXPECT_EQ(up[i], 10 * (i ? i - 1 : 0));
    EXPECT_EQ(down[i], 10 * (i < 30 ? i + 2 : i));
    EXPECT_EQ(butterfly[i], 10 * (i ^ 4));
    EXPECT_EQ(index[i], 10 * (i / 8 * 8 + 3));
  }
}

TEST_F(Opcodes, shuffleOfTheMembersOnly) {
  // In a divergent branch, with a mask of just those lanes: no deadlock.
  auto out = run(std::string(load) + R"(
    mov.u32 %r2, %r1;
    setp.gt.u32 %p1, %t, 3;
    @%p1 bra DONE;
    shfl.sync.bfly.b32 %r2, %r1, 1, 31, 15;
DONE:
)" + store,
                 iota());
  for (uint32_t i = 0; i < 32; ++i)
    EXPECT_EQ(out[i], i < 4 ? i ^ 1 : i);
}

TEST_F(Opcodes, conversionsRoundAsPtxSays) {
  std::vector<uint32_t> in;
  for (int i = 0; i < 32; ++i)
    in.push_back(bits(static_cast<float>(i - 16) / 2));
  auto nearest = run(std::string(load) +
                         "mov.b32 %f1, %r1;\n"
                         "cvt.rni.s32.f32 %r2, %f1;\n" +
                         store,
                     in);
  auto zero = run(std::string(load) +
                      "mov.b32 %f1, %r1;\n"
                      "cvt.rzi.s32.f32 %r2, %f1;\n" +
                      store,
                  in);
  auto clamped = run(std::string(load) +
                         "mov.b32 %f1, %r1;\n"
                         "cvt.rzi.u32.f32 %r2, %f1;\n" +
                         store,
                     in);
  for (int i = 0; i < 32; ++i) {
    float v = static_cast<float>(i - 16) / 2;
    EXPECT_EQ(static_cast<int>(nearest[static_cast<size_t>(i)]),
              std::nearbyint(v));
    EXPECT_EQ(static_cast<int>(zero[static_cast<size_t>(i)]), std::trunc(v));
    EXPECT_EQ(clamped[static_cast<size_t>(i)],
              v > 0 ? static_cast<uint32_t>(v) : 0u);
  }
}

TEST_F(Opcodes, packedBfloat16HasTheFirstOperandHigh) {
  auto out = run("mov.f32 %f1, 0f3F800000;\nmov.f32 %f2, 0f40000000;\n"
                 "cvt.rn.bf16x2.f32 %r2, %f1, %f2;\n" +
                     std::string(store),
                 iota());
  EXPECT_EQ(out[0], 0x3f804000u);
}

TEST_F(Opcodes, minimumAndMaximumWithNaN) {
  std::vector<uint32_t> in(32, 0x7fffffffu);
  in[1] = bits(-3.0f);
  auto max = run(std::string(load) +
                     "mov.b32 %f1, %r1;\n"
                     "max.f32 %f2, %f1, 0f40000000;\nmov.b32 %r2, %f2;\n" +
                     store,
                 in);
  auto nan = run(std::string(load) +
                     "mov.b32 %f1, %r1;\n"
                     "max.NaN.f32 %f2, %f1, 0f40000000;\nmov.b32 %r2, %f2;\n" +
                     store,
                 in);
  EXPECT_EQ(max[0], bits(2.0f));
  EXPECT_EQ(max[1], bits(2.0f));
  EXPECT_TRUE((nan[0] & 0x7fffffffu) > 0x7f800000u);
  EXPECT_EQ(nan[1], bits(2.0f));
}

TEST_F(Opcodes, flushesSubnormalsOnlyWithFtz) {
  std::vector<uint32_t> in(32, 0x00400000u); // 2^-127
  auto keep = run(std::string(load) +
                      "mov.b32 %f1, %r1;\n"
                      "add.f32 %f2, %f1, %f1;\nmov.b32 %r2, %f2;\n" +
                      store,
                  in);
  auto flush = run(std::string(load) +
                       "mov.b32 %f1, %r1;\n"
                       "add.ftz.f32 %f2, %f1, %f1;\nmov.b32 %r2, %f2;\n" +
                       store,
                   in);
  EXPECT_EQ(keep[0], 0x00800000u);
  EXPECT_EQ(flush[0], 0u);
}

TEST_F(Opcodes, fmaRoundsOnceAndMulAddTwice) {
  // (1 + 2^-12)^2 - (1 + 2^-11) is 2^-24 exactly, 0 when the product rounds.
  std::string head = "mov.f32 %f1, 0f3F800800;\nmov.f32 %f2, 0fBF801000;\n";
  auto fused =
      run(head + "fma.rn.f32 %f3, %f1, %f1, %f2;\nmov.b32 %r2, %f3;\n" + store,
          iota());
  auto split = run(head +
                       "mul.f32 %f4, %f1, %f1;\nadd.f32 %f3, %f4, %f2;\n"
                       "mov.b32 %r2, %f3;\n" +
                       store,
                   iota());
  EXPECT_EQ(fused[0], bits(0x1p-24f));
  EXPECT_EQ(split[0], 0u);
}

TEST_F(Opcodes, pairsOfFloatsInOneRegister) {
  auto out = run(R"(
    mov.b64 %d1, {%f1, %f2};
    mov.f32 %f1, 0f40000000;
    mov.f32 %f2, 0f40400000;
    mov.b64 %d1, {%f1, %f2};
    mul.rn.f32x2 %d2, %d1, %d1;
    add.rn.f32x2 %d2, %d2, %d1;
    fma.rn.f32x2 %d2, %d2, %d1, %d1;
    mov.b64 {%f3, %f4}, %d2;
    setp.eq.u32 %p1, %t, 0;
    selp.f32 %f5, %f3, %f4, %p1;
    mov.b32 %r2, %f5;
)" + std::string(store),
                 iota());
  EXPECT_EQ(out[0], bits((2 * 2 + 2) * 2 + 2.0f));
  EXPECT_EQ(out[1], bits((3 * 3 + 3) * 3 + 3.0f));
}

TEST_F(Opcodes, carriesMakeWideSums) {
  auto out = run("mov.u32 %r1, 0xffffffff;\nmov.u32 %r3, 1;\n"
                 "add.cc.u32 %r4, %r1, %r3;\naddc.u32 %r2, %t, 0;\n" +
                     std::string(store),
                 iota());
  for (uint32_t i = 0; i < 32; ++i)
    EXPECT_EQ(out[i], i + 1);
}

TEST_F(Opcodes, vectorsPacksAndBytes) {
  auto out = run(R"(
    ld.global.u8 %h1, [%a+1];
    ld.global.s8 %r3, [%a];
    cvt.u32.u16 %r4, %h1;
    shl.b32 %r4, %r4, 8;
    and.b32 %r3, %r3, 255;
    or.b32 %r2, %r3, %r4;
    mov.b32 {%h2, %h3}, %r2;
    mov.b32 %r2, {%h2, %h3};
)" + std::string(store),
                 iota(0x0101));
  for (uint32_t i = 0; i < 32; ++i)
    EXPECT_EQ(out[i], i * 0x0101);
}

TEST_F(Opcodes, moduleVariablesHaveTheirInitialisers) {
  auto out = run("ld.global.u32 %r2, [table+4];\n" + std::string(store), iota(),
                 ".global .align 4 .u32 table[4] = {7, 9};\n");
  EXPECT_EQ(out[5], 9u);
}

} // namespace
} // namespace dshard::emulator
