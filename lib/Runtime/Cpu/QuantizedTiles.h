//===- QuantizedTiles.h - Block-quantised products in integers --*- C++ -*-===//
//
// The vector code of digitDot, splitNibbles and digitTile (Kernels.h), written
// once for all instruction sets. Every source that includes this gives it an
// `Isa` of its own, in an anonymous namespace:
//
//   width, across         bytes of a vector, panels that a tile covers
//   columns, height       of a row, at a time; rows of a tile
//   Float, Int            vectors of 32-bit lanes
//   zero, zeroInt, load, loadInt, broadcast, loadSome (n lanes, else zero)
//   fma, mul, add (Int), toFloat
//   spread(p, n, which)   lane i: p[which[i]], of p[0, n), n up to 4
//   nibbles               all bytes 15; low(q, nibbles), high(q, nibbles)
//   dotPair(acc, u, s, v, t)  acc + products of four bytes u s + v t per lane
//   shift                 lanes * 256
//   fromNibbles, fromBytes   a lane each, from memory
//   Sum, step, total      sums of 8 products of bytes below 16
//   startsWithZeros       a Sum is an Int, and two panels are covered only then
//   sumUp               the sums over lanes of the vectors of `columns`
//
// Accumulators are named variables: g++ keeps arrays of vectors in memory.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_RUNTIME_CPU_QUANTIZEDTILES_H
#define DSHARD_LIB_RUNTIME_CPU_QUANTIZEDTILES_H

#include "QuantizedKernels.h"

namespace {

/// Bytes that a stream of weights is fetched ahead: what memory delivers in its
/// own latency, and more.
constexpr int64_t ahead = 8192;

#define DSHARD_EACH_COLUMN(DO) DO(0) DO(1) DO(2) DO(3)

/// What dotColumns keeps in memory: apart, so that what it has on its stack is
/// spilled.
struct DotRoom {
  alignas(64) uint8_t tail[4][64] = {};
  alignas(16) float results[4];
  alignas(16) uint8_t zeros[16];
};

/// Up to three sixteens of bytes, without a call.
inline void copySome(uint8_t *to, const uint8_t *from, int64_t sixteens) {
  if (sixteens > 0)
    __builtin_memcpy(to, from, 16);
  if (sixteens > 1)
    __builtin_memcpy(to + 16, from + 16, 16);
  if (sixteens > 2)
    __builtin_memcpy(to + 32, from + 32, 16);
}

/// The zeros of blocks [block, block + n); block is a multiple of the lanes.
template <class Isa, int bits>
inline typename Isa::Float zerosAt(const uint8_t *zeros, int64_t block,
                                   int64_t n, uint8_t (&bytes)[16]) {
  constexpr int64_t lanes = Isa::width / 4;
  constexpr int64_t most = lanes * bits / 8;
  zeros += block * bits / 8;
  if (n == lanes)
    __builtin_memcpy(bytes, zeros, most);
  else
    for (int64_t i = 0; i < (n * bits + 7) / 8; ++i)
      bytes[i] = zeros[i];
  return Isa::toFloat(bits == 4 ? Isa::fromNibbles(bytes)
                                : Isa::fromBytes(bytes));
}

/// One row waits for memory, and for its own additions: several columns at a
/// time, as many as there are registers for.
template <class Isa, int bits, int digits>
__attribute__((noinline)) void dotColumns(const dshard::cpu::DigitDot &d,
                                          DotRoom &room) {
  using Float = typename Isa::Float;
  using Int = typename Isa::Int;
  const dshard::cpu::DigitRow form = d.form;
  constexpr int64_t elements = 512 / bits; // of a step
  const float *xScales = reinterpret_cast<const float *>(d.x + form.scales());
  const float *sums = reinterpret_cast<const float *>(d.x + form.sums());
  int shift = __builtin_ctzll(static_cast<unsigned long long>(d.first.block));
  int64_t perStep = elements >> shift ? elements >> shift : 1;
  // Of each lane, which of a step's scales is its own.
  alignas(64) static const int32_t scaleOfLane[3][16] = {
      {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3},
      {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1},
      {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}};
  int row = shift - (bits == 4 ? 5 : 4);
  const int32_t *which = scaleOfLane[row < 2 ? row : 2];
  const Int nibbles = Isa::nibbles();
  int64_t last = d.columns - 1, steps = form.steps();
  // A step that the columns do not fill is read from a copy.
  int64_t whole = d.dataStep / 64;
  for (int64_t column = 0; column < d.columns; column += Isa::columns) {
#define START(I)                                                               \
  int64_t column##I = column + I < last ? column + I : last;                   \
  const uint8_t *data##I = d.first.data + column##I * d.dataStep;              \
  const float *scales##I = d.first.scales + column##I * d.blocks;              \
  Float c##I = Isa::zero();
    DSHARD_EACH_COLUMN(START)
#undef START
    const char *x = d.x;
    const uint8_t *fetch = data0 + ahead;
    for (int64_t s = 0; s < steps; ++s, x += digits * elements) {
      if (s == whole) {
#define COPY(I)                                                                \
  if constexpr (Isa::columns > I) {                                            \
    copySome(room.tail[I], data##I, d.dataStep / 16 % 4);                      \
    data##I = room.tail[I];                                                    \
  }
        DSHARD_EACH_COLUMN(COPY)
#undef COPY
      }
      int64_t first = s * elements >> shift;
      int64_t some = d.blocks - first < perStep ? d.blocks - first : perStep;
      // One stream, though several columns are read.
      for (int64_t i = 0; i < Isa::columns; ++i, fetch += 64)
        __builtin_prefetch(fetch);
      for (int64_t at = 0; at < 64; at += Isa::width) {
        Float xScale = Isa::load(xScales + s * 16 + at / 4);
#define MULTIPLY(I)                                                            \
  if constexpr (Isa::columns > I) {                                            \
    Int q = Isa::loadInt(data##I + at);                                        \
    Float scale = Isa::mul(                                                    \
        xScale, Isa::spread(scales##I + first, some, which + at / 4));         \
    if constexpr (bits == 4) {                                                 \
      Int low = Isa::low(q, nibbles), high = Isa::high(q, nibbles);            \
      Int sum = Isa::zeroInt();                                                \
      if constexpr (digits == 3) {                                             \
        sum = Isa::shift(                                                      \
            Isa::dotPair(sum, low, x + 256 + at, high, x + 320 + at));         \
        sum = Isa::shift(                                                      \
            Isa::dotPair(sum, low, x + 128 + at, high, x + 192 + at));         \
      }                                                                        \
      sum = Isa::dotPair(sum, low, x + at, high, x + 64 + at);                 \
      c##I = Isa::fma(Isa::toFloat(sum), scale, c##I);                         \
    } else {                                                                   \
      Int top = Isa::dot(Isa::zeroInt(), q, x + 128 + at);                     \
      Int rest = Isa::shift(Isa::dot(Isa::zeroInt(), q, x + 64 + at));         \
      rest = Isa::dot(rest, q, x + at);                                        \
      Float sum = Isa::fma(Isa::toFloat(top), Isa::broadcast(65536.0f),        \
                           Isa::toFloat(rest));                                \
      c##I = Isa::fma(sum, scale, c##I);                                       \
    }                                                                          \
  }
        DSHARD_EACH_COLUMN(MULTIPLY)
#undef MULTIPLY
      }
#define NEXT(I)                                                                \
  if constexpr (Isa::columns > I)                                              \
    data##I += 64;
      DSHARD_EACH_COLUMN(NEXT)
#undef NEXT
    }
    constexpr int64_t lanes = Isa::width / 4;
    for (int64_t b = 0; b < d.blocks; b += lanes) {
      int64_t some = d.blocks - b < lanes ? d.blocks - b : lanes;
      Float away = Isa::mul(Isa::loadSome(sums + b, some),
                            Isa::broadcast(d.first.zeros ? -1.0f
                                           : bits == 4   ? -8.0f
                                                         : -128.0f));
#define SUM(I)                                                                 \
  if constexpr (Isa::columns > I) {                                            \
    Float scale = Isa::loadSome(scales##I + b, some);                          \
    if (d.first.zeros)                                                         \
      scale = Isa::mul(                                                        \
          scale, zerosAt<Isa, bits>(d.first.zeros + column##I * d.zeroStep, b, \
                                    some, room.zeros));                        \
    c##I = Isa::fma(scale, away, c##I);                                        \
  }
      DSHARD_EACH_COLUMN(SUM)
#undef SUM
    }
    Isa::sumUp(c0, c1, c2, c3, room.results);
    for (int64_t i = 0; i < Isa::columns && column + i < d.columns; ++i)
      d.out[column + i] = room.results[i];
  }
}
#undef DSHARD_EACH_COLUMN

template <class Isa>
void splitNibblesOf(const float *dwords, int64_t piece,
                    dshard::cpu::QuantizedPanel &out) {
  const typename Isa::Int nibbles = Isa::nibbles();
  uint8_t *to = out.bytes[piece][0];
  for (int word = 0; word < 16; ++word, dwords += 16, to += 128)
    for (int64_t at = 0; at < 64; at += Isa::width) {
      typename Isa::Int q = Isa::loadInt(dwords + at / 4);
      Isa::store(to + at, Isa::low(q, nibbles));
      Isa::store(to + 64 + at, Isa::high(q, nibbles));
    }
}

#define DSHARD_EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4)

/// `rows` x a vector of columns from each of Isa::across panels.
template <class Isa, int rows>
__attribute__((noinline)) void digitRows(const dshard::cpu::DigitTile &t,
                                         int64_t row, int64_t panel,
                                         int64_t column) {
  using Float = typename Isa::Float;
  using Int = typename Isa::Int;
  using Sum = typename Isa::Sum;
  constexpr bool two = Isa::across == 2;
  const dshard::cpu::QuantizedPanel &w0 = t.panel[panel];
  const dshard::cpu::QuantizedPanel &w1 = t.panel[panel + (two ? 1 : 0)];
  float *c = t.c + panel * t.cStep + row * 16 + column;
  // Rows are too far apart for one base.
  const char *x0 = t.x + row * t.xStep;
  const char *x3 = x0 + (rows > 3 ? 3 * t.xStep : 0);
  int64_t toScales = t.scales - t.x, toStarts = t.starts - t.x;
  const int64_t xStep = t.xStep;
#define DECLARE(I) Float c##I##0 = Isa::zero(), c##I##1 = c##I##0;
  DSHARD_EACH_ROW(DECLARE)
#undef DECLARE
  if (t.accumulate) {
#define LOAD(I)                                                                \
  if constexpr (rows > I) {                                                    \
    c##I##0 = Isa::load(c + I * 16);                                           \
    if constexpr (two)                                                         \
      c##I##1 = Isa::load(c + I * 16 + t.cStep);                               \
  }
    DSHARD_EACH_ROW(LOAD)
#undef LOAD
  }
#define BASE(I) ((I < 3 ? x0 : x3) + I % 3 * xStep)
  for (int64_t piece = 0; piece < t.pieces; ++piece) {
    const int32_t *zeros0 = w0.zeros[piece] + column;
    const int32_t *zeros1 = w1.zeros[piece] + column;
#define FIRST(I, P)                                                            \
  (w0.hasZeros ? Isa::times(Isa::broadcastInt(BASE(I) + toStarts), zeros##P)   \
               : Isa::broadcastInt(BASE(I) + toStarts))
#define DECLARE(I)                                                             \
  Sum s##I##0 = Isa::zeroInt(), s##I##1 = s##I##0;                             \
  if constexpr (Isa::startsWithZeros && rows > I) {                            \
    s##I##0 = FIRST(I, 0);                                                     \
    if constexpr (two)                                                         \
      s##I##1 = FIRST(I, 1);                                                   \
  }
    DSHARD_EACH_ROW(DECLARE)
#undef DECLARE
    const uint8_t *b0 = w0.bytes[piece][0] + column * 4;
    const uint8_t *b1 = w1.bytes[piece][0] + column * 4;
#define STEP(I)                                                                \
  if constexpr (rows > I) {                                                    \
    Int x = Isa::broadcastInt(BASE(I) + J * 4 + K * 16);                       \
    s##I##0 = Isa::step(s##I##0, y0, x);                                       \
    if constexpr (two)                                                         \
      s##I##1 = Isa::step(s##I##1, y1, x);                                     \
  }
#pragma GCC unroll 4
    for (int J = 0; J < 4; ++J) {
#pragma GCC unroll 2
      for (int K = 0; K < 2; ++K) {
        Int y0 = Isa::loadInt(b0 + (2 * J + K) * 64), y1 = y0;
        if constexpr (two)
          y1 = Isa::loadInt(b1 + (2 * J + K) * 64);
        DSHARD_EACH_ROW(STEP)
      }
    }
#undef STEP
    Float scale0 = Isa::load(w0.scales[piece] + column), scale1 = scale0;
    if constexpr (two)
      scale1 = Isa::load(w1.scales[piece] + column);
#define ADD(I)                                                                 \
  if constexpr (rows > I) {                                                    \
    Float x =                                                                  \
        Isa::broadcast(*reinterpret_cast<const float *>(BASE(I) + toScales));  \
    Int sum = Isa::total(s##I##0);                                             \
    if constexpr (!Isa::startsWithZeros)                                       \
      sum = Isa::add(sum, FIRST(I, 0));                                        \
    c##I##0 = Isa::fma(Isa::toFloat(sum), Isa::mul(x, scale0), c##I##0);       \
    if constexpr (two)                                                         \
      c##I##1 = Isa::fma(Isa::toFloat(Isa::total(s##I##1)),                    \
                         Isa::mul(x, scale1), c##I##1);                        \
  }
    DSHARD_EACH_ROW(ADD)
#undef ADD
#undef FIRST
    x0 += 32;
    x3 += 32;
    toScales -= 28;
    toStarts -= 28;
  }
#undef BASE
#define STORE(I)                                                               \
  if constexpr (rows > I) {                                                    \
    Isa::store(c + I * 16, c##I##0);                                           \
    if constexpr (two)                                                         \
      Isa::store(c + I * 16 + t.cStep, c##I##1);                               \
  }
  DSHARD_EACH_ROW(STORE)
#undef STORE
}
#undef DSHARD_EACH_ROW

template <class Isa> void digitTileOf(const dshard::cpu::DigitTile &t) {
  using Function =
      void (*)(const dshard::cpu::DigitTile &, int64_t, int64_t, int64_t);
  constexpr int most = Isa::height;
  static const Function heights[6] = {
      nullptr,           digitRows<Isa, 1>,    digitRows<Isa, 2>,
      digitRows<Isa, 3>, digitRows < Isa,      most < 4 ? most : 4 >,
      digitRows < Isa,   most < 5 ? most : 5 > };
  int64_t tiles = (t.rows + Isa::height - 1) / Isa::height;
  for (int64_t panel = 0; panel < t.panels; panel += Isa::across)
    for (int64_t i = 0, row = 0; i < tiles; ++i) {
      int64_t now = t.rows / tiles + (i < t.rows % tiles);
      for (int64_t column = 0; column < 16; column += Isa::width / 4)
        heights[now](t, row, panel, column);
      row += now;
    }
}

} // namespace

#endif // DSHARD_LIB_RUNTIME_CPU_QUANTIZEDTILES_H
