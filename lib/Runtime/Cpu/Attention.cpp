//===- Attention.cpp - Scaled dot-product attention, tiled ----------------===//

#include "dshard/Runtime/Cpu/Attention.h"
#include "Kernels.h"
#include "dshard/Runtime/Cpu/Convert.h"
#include "dshard/Runtime/Cpu/ThreadPool.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

using namespace dshard;
using namespace dshard::cpu;
using plan::DataType;

static constexpr float minusInfinity = -std::numeric_limits<float>::infinity();

Status cpu::checkAttention(const AttentionArguments &a) {
  if (a.type != DataType::f32 && a.type != DataType::bf16 &&
      a.type != DataType::f16)
    return Status::error(std::string("attention of type ") +
                         plan::toString(a.type) +
                         " is not supported on the CPU (f32, bf16 and f16 "
                         "are)");
  if (a.kvHeads < 1 || a.heads % a.kvHeads != 0)
    return Status::error("attention: " + std::to_string(a.heads) +
                         " heads are not a multiple of " +
                         std::to_string(a.kvHeads) + " KV heads");
  if (a.d < 1 || a.dv < 1)
    return Status::error("attention: head sizes " + std::to_string(a.d) +
                         " and " + std::to_string(a.dv) + " must be positive");
  if (a.bias && (a.softcap > 0 || a.biasStrides[3] < 0 || a.biasStrides[3] > 1))
    return Status::error("attention: a bias goes with no softcap, and its keys "
                         "lie side by side");
  return Status();
}

/// Floats that the bias of one row adds for keys [key, key + count), followed
/// by others up to `padded`: as they lie in memory, or in `buffer`.
static const float *biasRow(const AttentionArguments &a, int64_t b,
                            int64_t head, int64_t row, int64_t key,
                            int64_t count, int64_t padded, float *buffer) {
  const char *from = static_cast<const char *>(a.bias) +
                     (b * a.biasStrides[0] + head * a.biasStrides[1] +
                      row * a.biasStrides[2] + key * a.biasStrides[3]) *
                         elementBytes(a.type);
  bool repeats = a.biasStrides[3] == 0;
  if (a.type == DataType::f32 && !repeats && count == padded)
    return reinterpret_cast<const float *>(from);
  Storage storage = a.type == DataType::f32    ? Storage::f32
                    : a.type == DataType::bf16 ? Storage::bf16
                                               : Storage::f16;
  kernels().toFloat(from, storage, buffer, repeats ? 1 : count);
  if (repeats)
    std::fill(buffer + 1, buffer + count, buffer[0]);
  std::memset(buffer + count, 0, (padded - count) * sizeof(float));
  return buffer;
}

void cpu::loadBias(const AttentionArguments &a, int64_t b, int64_t head,
                   int64_t row, int64_t key, int64_t count, float *to,
                   int64_t padded) {
  const float *bias = biasRow(a, b, head, row, key, count, padded, to);
  constexpr float lowest = std::numeric_limits<float>::lowest();
  for (int64_t j = 0; j < padded; ++j) {
    // As SoftmaxRow: the lowest number stays finite.
    float scaled = bias[j] * 1.44269504f;
    to[j] = scaled < lowest && bias[j] >= lowest ? lowest : scaled;
  }
}

namespace {

struct Scratch {
  Scratch(void *memory, int64_t d, int64_t dv) : dvPadded((dv + 15) / 16 * 16) {
    float *next = static_cast<float *>(memory);
    auto take = [&](int64_t floats) {
      float *piece = next;
      next += floats;
      return piece;
    };
    scores = take(attentionRows * attentionKeys);
    out = take(attentionRows * dvPadded);
    v = take(attentionKeys * dvPadded);
    k = take(attentionKeys * d);
    q = take(attentionRows * d);
    square = take(16 * 16);
    rows = take(16 * std::max(d, dv));
    maximum = take(attentionRows);
    sum = take(attentionRows);
    visible = reinterpret_cast<uint32_t *>(take(attentionKeys));
    bias = take(attentionKeys);
  }
  int64_t dvPadded;
  float *scores; // [rows][keys]
  float *out;    // [rows][dvPadded]
  float *v;      // [dvPadded / 16][keys][16]
  float *k;      // [keys / 16][d][16]
  float *q;      // [rows][d]
  float *square, *rows;
  float *maximum, *sum;
  uint32_t *visible;
  float *bias; // of one row
};

/// One (batch, KV head, block of rows); a row is (position, query head), the
/// heads of a position side by side.
class Tile {
public:
  Tile(const AttentionArguments &arguments, const Kernels &table,
       Scratch &scratch, int64_t b, int64_t kvHead, int64_t row)
      : a(arguments), table(table), x(scratch), b(b), kvHead(kvHead), row0(row),
        groupHeads(a.heads / a.kvHeads),
        rows(std::min(attentionRows, a.s * groupHeads - row)),
        storage(a.type == DataType::f32    ? Storage::f32
                : a.type == DataType::bf16 ? Storage::bf16
                                           : Storage::f16) {}

  void run();

private:
  int64_t position(int64_t row) const { return (row0 + row) / groupHeads; }
  int64_t head(int64_t row) const {
    return kvHead * groupHeads + (row0 + row) % groupHeads;
  }
  /// Keys [low, high) that a row at this position may see, mask apart.
  int64_t low(int64_t position) const {
    if (a.window < 0)
      return 0;
    return std::clamp<int64_t>(position + a.offset - a.window + 1, 0, a.t);
  }
  int64_t high(int64_t position) const {
    return a.causal ? std::clamp<int64_t>(position + a.offset + 1, 0, a.t)
                    : a.t;
  }
  const char *element(const void *data, const int64_t *strides, int64_t head,
                      int64_t row) const {
    return static_cast<const char *>(data) +
           (b * strides[0] + head * strides[1] + row * strides[2]) *
               elementBytes(a.type);
  }

  void loadQueries();
  void packKeys(int64_t key, int64_t count, int64_t padded);
  void packValues(int64_t key, int64_t count, int64_t padded);
  bool loadMask(int64_t key, int64_t count, int64_t padded);
  void addKeys(int64_t key, int64_t count);
  void addTo(int64_t first, int64_t some, int64_t key, int64_t count,
             int64_t padded);
  void meanOfValues(float *mean);
  void finish();

  const AttentionArguments &a;
  const Kernels &table;
  Scratch &x;
  int64_t b, kvHead, row0, groupHeads, rows;
  Storage storage;
};

} // namespace

void Tile::loadQueries() {
  float factor = static_cast<float>(
      a.softcap > 0 ? a.scale : a.scale * 1.4426950408889634);
  for (int64_t i = 0; i < rows; ++i)
    table.toFloat(element(a.q, a.qStrides, head(i), position(i)), storage,
                  x.q + i * a.d, a.d);
  table.scale(x.q, rows * a.d, factor);
}

void Tile::packKeys(int64_t key, int64_t count, int64_t padded) {
  for (int64_t j0 = 0; j0 < padded; j0 += 16) {
    float *panel = x.k + j0 * a.d;
    int64_t now = std::min<int64_t>(16, count - j0);
    const float *source = x.rows;
    int64_t ld = a.d;
    if (storage == Storage::f32 && now == 16) {
      source = reinterpret_cast<const float *>(
          element(a.k, a.kStrides, kvHead, key + j0));
      ld = a.kStrides[2];
    } else {
      for (int64_t j = 0; j < now; ++j)
        table.toFloat(element(a.k, a.kStrides, kvHead, key + j0 + j), storage,
                      x.rows + j * a.d, a.d);
      if (now < 16)
        std::memset(x.rows + now * a.d, 0, (16 - now) * a.d * sizeof(float));
    }
    int64_t i = 0;
    for (; i + 16 <= a.d; i += 16)
      table.transpose16(source + i, ld, panel + i * 16, 16);
    for (; i < a.d; ++i)
      for (int64_t j = 0; j < 16; ++j)
        panel[i * 16 + j] = source[j * ld + i];
  }
}

void Tile::packValues(int64_t key, int64_t count, int64_t padded) {
  for (int64_t j = 0; j < padded; ++j) {
    if (j < count) {
      const char *from = element(a.v, a.vStrides, kvHead, key + j);
      for (int64_t c = 0; c < x.dvPadded; c += 16) {
        float *to = x.v + c * padded + j * 16;
        int64_t cols = std::min<int64_t>(16, a.dv - c);
        if (cols == 16 && storage == Storage::f32) {
          std::memcpy(to, from + c * sizeof(float), 16 * sizeof(float));
          continue;
        }
        table.toFloat(from + c * elementBytes(a.type), storage, to, cols);
        for (int64_t i = cols; i < 16; ++i)
          to[i] = 0;
      }
      continue;
    }
    for (int64_t c = 0; c < x.dvPadded; c += 16)
      std::memset(x.v + c * padded + j * 16, 0, 16 * sizeof(float));
  }
}

/// False when no key of the tile may be seen by anyone.
bool Tile::loadMask(int64_t key, int64_t count, int64_t padded) {
  if (!a.mask)
    return true;
  const uint8_t *mask = a.mask + b * a.t + key;
  uint32_t any = 0;
  for (int64_t j = 0; j < padded; ++j) {
    x.visible[j] = j < count && mask[j] ? ~0u : 0u;
    any |= x.visible[j];
  }
  return any != 0;
}

void Tile::addKeys(int64_t key, int64_t count) {
  int64_t padded = (count + 15) / 16 * 16;
  if (!loadMask(key, count, padded))
    return;
  packKeys(key, count, padded);
  packValues(key, count, padded);
  // A few rows at a time where keys are hidden: what none of them sees is left
  // out.
  bool hides = a.causal || a.window >= 0;
  int64_t step = hides ? int64_t{32} : rows;
  for (int64_t row = 0; row < rows; row += step)
    addTo(row, std::min(step, rows - row), key, count, padded);
}

void Tile::addTo(int64_t first, int64_t some, int64_t key, int64_t count,
                 int64_t padded) {
  int64_t begin =
      std::clamp<int64_t>(low(position(first)) - key, 0, count) / 16 * 16;
  int64_t end =
      std::clamp<int64_t>(high(position(first + some - 1)) - key, 0, count);
  if (begin >= end)
    return;
  end = (end + 15) / 16 * 16;
  float *scores = x.scores + first * attentionKeys + begin;
  float *out = x.out + first * x.dvPadded;
  table.tile[0]({x.q + first * a.d, a.d, x.k + begin * a.d, 64 * a.d,
                 (end - begin) / 16, a.d, scores, attentionKeys, 16, some,
                 false});
  for (int64_t i = 0; i < some; ++i) {
    SoftmaxRow row;
    row.p = scores + i * attentionKeys;
    row.n = end - begin;
    int64_t at = position(first + i);
    row.low = std::clamp<int64_t>(low(at) - key, 0, count) - begin;
    row.high = std::clamp<int64_t>(high(at) - key, 0, count) - begin;
    row.visible = a.mask ? x.visible + begin : nullptr;
    row.bias = a.bias
                   ? biasRow(a, b, head(first + i), at, key + begin,
                             std::min(end, count) - begin, end - begin, x.bias)
                   : nullptr;
    row.softcap = static_cast<float>(a.softcap);
    row.maximum = x.maximum + first + i;
    row.sum = x.sum + first + i;
    float alpha = table.softmaxRow(row);
    if (alpha != 1.0f)
      table.scale(out + i * x.dvPadded, x.dvPadded, alpha);
  }
  table.tile[0]({scores, attentionKeys, x.v + begin * 16, 64 * padded,
                 x.dvPadded / 16, end - begin, out, x.dvPadded, 16, some,
                 true});
}

void Tile::meanOfValues(float *mean) {
  std::memset(mean, 0, a.dv * sizeof(float));
  float *line = x.rows + a.dv;
  for (int64_t j = 0; j < a.t; ++j) {
    table.toFloat(element(a.v, a.vStrides, kvHead, j), storage, line, a.dv);
    for (int64_t i = 0; i < a.dv; ++i)
      mean[i] += line[i];
  }
  table.scale(mean, a.dv, 1.0f / static_cast<float>(a.t));
}

void Tile::finish() {
  bool haveMean = false;
  for (int64_t i = 0; i < rows; ++i) {
    char *out =
        const_cast<char *>(element(a.out, a.outStrides, head(i), position(i)));
    float *lse =
        a.lse ? a.lse + (b * a.heads + head(i)) * a.s + position(i) : nullptr;
    // The sum is at least 1 when a key is visible, or NaN.
    if (x.sum[i] != 0.0f || a.t == 0) {
      float sum = x.sum[i];
      table.scale(x.out + i * x.dvPadded, a.dv, a.t ? 1.0f / sum : 0.0f);
      table.fromFloat(x.out + i * x.dvPadded, storage, out, a.dv);
      if (lse)
        *lse = a.t ? x.maximum[i] * 0.69314718f + std::log(sum) : minusInfinity;
      continue;
    }
    // Nothing is attended, whatever the row then holds.
    if (lse)
      *lse = minusInfinity;
    if (a.fullyMasked == 1) {
      if (!haveMean)
        meanOfValues(x.rows);
      haveMean = true;
      table.fromFloat(x.rows, storage, out, a.dv);
      continue;
    }
    std::memset(out, 0, a.dv * elementBytes(a.type));
  }
}

void Tile::run() {
  loadQueries();
  std::memset(x.out, 0, rows * x.dvPadded * sizeof(float));
  std::fill(x.maximum, x.maximum + rows, minusInfinity);
  std::fill(x.sum, x.sum + rows, 0.0f);
  // Only the keys that some row may see.
  int64_t begin = low(position(0)) / 16 * 16;
  int64_t end = high(position(rows - 1));
  for (int64_t key = begin; key < end; key += attentionKeys)
    addKeys(key, std::min(attentionKeys, end - key));
  finish();
}

void cpu::attention(const AttentionArguments &a, ThreadPool &pool,
                    void *scratch, uint64_t scratchStride) {
  if (a.batch <= 0 || a.s <= 0)
    return;
  int64_t groupRows = a.s * (a.heads / a.kvHeads);
  int64_t blocks = (groupRows + attentionRows - 1) / attentionRows;
  int64_t units = a.batch * a.kvHeads * blocks;
  const Kernels &table = kernels();
  // Causal blocks differ in cost: whoever is free takes the next, the dearest
  // first. Each block is computed alone, so the result does not depend on it.
  std::atomic<int64_t> next{0};
  int64_t work = a.batch * a.heads * a.s * a.t * (a.d + a.dv);
  unsigned workers = static_cast<unsigned>(std::min<int64_t>(
      {units, pool.size(), std::max<int64_t>(1, work / smallestShare)}));
  pool.run(
      [&](unsigned worker) {
        Scratch mine(static_cast<char *>(scratch) + worker * scratchStride, a.d,
                     a.dv);
        while (true) {
          int64_t unit = next.fetch_add(1, std::memory_order_relaxed);
          if (unit >= units)
            return;
          int64_t block = blocks - 1 - unit % blocks;
          int64_t outer = unit / blocks;
          Tile(a, table, mine, outer / a.kvHeads, outer % a.kvHeads,
               block * attentionRows)
              .run();
        }
      },
      workers);
}
