//===- AttentionGrad.cpp - Gradients of attention, tiled ------------------===//
//
// A tile holds the scores transposed, keys x rows: then what a row brings
// (log-sum-exp, the row sum of dout * out) is a vector beside each line of the
// tile, the rows that see a key are one range of columns, and the products of
// dk and dv read the tile as it lies.
//
//===----------------------------------------------------------------------===//

#include "dshard/Runtime/Cpu/AttentionGrad.h"
#include "Kernels.h"
#include "dshard/Runtime/Cpu/Attention.h"
#include "dshard/Runtime/Cpu/Convert.h"
#include "dshard/Runtime/Cpu/ThreadPool.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

using namespace dshard;
using namespace dshard::cpu;
using plan::DataType;

static constexpr float infinity = std::numeric_limits<float>::infinity();
static constexpr int64_t tileRows = attentionGradRows;
static constexpr int64_t tileKeys = attentionGradKeys;

Status cpu::checkAttentionGrad(const AttentionGradArguments &a) {
  return checkAttention(a.forward);
}

namespace {

int64_t roundUp16(int64_t x) { return (x + 15) / 16 * 16; }

struct Scratch {
  Scratch(void *memory, int64_t d, int64_t dv)
      : dPadded(roundUp16(d)), dvPadded(roundUp16(dv)) {
    float *next = static_cast<float *>(memory);
    auto take = [&](int64_t floats) {
      float *piece = next;
      next += floats;
      return piece;
    };
    p = take(tileKeys * tileRows);
    ds = take(tileKeys * tileRows);
    qColumns = take(tileRows * d);
    doutColumns = take(tileRows * dv);
    q = take(tileRows * dPadded);
    dout = take(tileRows * dvPadded);
    dq = take(tileRows * dPadded);
    k = take(tileKeys * d);
    v = take(tileKeys * dv);
    kPanels = take(tileKeys * dPadded);
    dk = take(tileKeys * dPadded);
    dvOut = take(tileKeys * dvPadded);
    lines = take(16 * std::max(d, dv));
    uniform = take(dvPadded);
    lse = take(tileRows);
    delta = take(tileRows);
  }
  int64_t dPadded, dvPadded;
  float *p, *ds;      // [keys][rows]; then p holds ds as [rows][keys]
  float *qColumns;    // [rows / 16][d][16], scaled
  float *doutColumns; // [rows / 16][dv][16]
  float *q;           // [dPadded / 16][rows][16], scaled
  float *dout;        // [dvPadded / 16][rows][16]
  float *dq;          // [rows][dPadded]
  float *k, *v;       // [keys][d], [keys][dv], when they are not f32
  float *kPanels;     // [dPadded / 16][keys][16]
  float *dk, *dvOut;  // [keys][dPadded], [keys][dvPadded]
  float *lines;       // sixteen rows
  float *uniform;     // [dvPadded]
  float *lse, *delta; // of the rows; lse * log2(e)
};

/// One (batch, KV head). Its rows are (position, query head), the heads of a
/// position side by side.
class Unit {
public:
  Unit(const AttentionGradArguments &arguments, const Kernels &table,
       Scratch &scratch, int64_t b, int64_t kvHead)
      : g(arguments), a(arguments.forward), table(table), x(scratch), b(b),
        kvHead(kvHead), groupHeads(a.heads / a.kvHeads),
        rowCount(a.s * groupHeads),
        storage(a.type == DataType::f32    ? Storage::f32
                : a.type == DataType::bf16 ? Storage::bf16
                                           : Storage::f16) {}

  /// All three gradients; dq is summed in place (f32 only).
  void all();
  void keyBlock(int64_t key, bool withQueries);
  void rowBlock(int64_t row);

private:
  int64_t position(int64_t row) const { return row / groupHeads; }
  int64_t head(int64_t row) const {
    return kvHead * groupHeads + row % groupHeads;
  }
  char *element(const void *data, const int64_t *strides, int64_t head,
                int64_t at) const {
    return static_cast<char *>(const_cast<void *>(data)) +
           (b * strides[0] + head * strides[1] + at * strides[2]) *
               elementBytes(a.type);
  }
  float lseOf(int64_t row) const {
    return a.lse[(b * a.heads + head(row)) * a.s + position(row)];
  }
  bool anyVisible(int64_t row, int64_t key) const;
  void loadRows(int64_t row);
  void packRows(const void *data, const int64_t *strides, int64_t n,
                float factor, float *columns, float *panels);
  void loadKeys(int64_t key, bool forQueries);
  bool formScores();
  void loadBiasColumns();
  void addToKeys();
  void addToQueries();
  void moveQueries(bool load);
  void finishKeys();

  const AttentionGradArguments &g;
  const AttentionArguments &a;
  const Kernels &table;
  Scratch &x;
  int64_t b, kvHead, groupHeads, rowCount;
  Storage storage;
  // The tile at hand.
  int64_t row0 = 0, rows = 0, key0 = 0, keys = 0;
  const float *k = nullptr, *v = nullptr;
  int64_t ldk = 0, ldv = 0;
};

} // namespace

/// Mask apart.
bool Unit::anyVisible(int64_t row, int64_t key) const {
  int64_t first = position(row);
  int64_t last = position(std::min(row + tileRows, rowCount) - 1);
  if (a.causal && key > last + a.offset)
    return false;
  return a.window < 0 ||
         std::min(key + tileKeys, a.t) - 1 > first + a.offset - a.window;
}

/// Rows of q or dout in both forms: sixteen rows side by side for the scores,
/// sixteen columns side by side for the sums over rows.
void Unit::packRows(const void *data, const int64_t *strides, int64_t n,
                    float factor, float *columns, float *panels) {
  int64_t padded = roundUp16(n);
  for (int64_t i0 = 0; i0 < roundUp16(rows); i0 += 16) {
    for (int64_t i = 0; i < 16; ++i) {
      float *line = x.lines + i * n;
      if (i0 + i >= rows) {
        std::memset(line, 0, n * sizeof(float));
        continue;
      }
      int64_t row = row0 + i0 + i;
      table.toFloat(element(data, strides, head(row), position(row)), storage,
                    line, n);
      if (factor != 1.0f)
        table.scale(line, n, factor);
      for (int64_t c = 0; c < padded; c += 16) {
        float *to = panels + (c * tileRows + (i0 + i) * 16);
        int64_t cols = std::min<int64_t>(16, n - c);
        std::memcpy(to, line + c, cols * sizeof(float));
        std::memset(to + cols, 0, (16 - cols) * sizeof(float));
      }
    }
    float *to = columns + i0 * n;
    int64_t c = 0;
    for (; c + 16 <= n; c += 16)
      table.transpose16(x.lines + c, n, to + c * 16, 16);
    for (; c < n; ++c)
      for (int64_t i = 0; i < 16; ++i)
        to[c * 16 + i] = x.lines[i * n + c];
  }
}

/// Eight partial sums, always in the same order.
static float dot(const float *x, const float *y, int64_t n) {
  float part[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int j = 0; j < 8; ++j)
      part[j] += x[i + j] * y[i + j];
  float sum = ((part[0] + part[4]) + (part[1] + part[5])) +
              ((part[2] + part[6]) + (part[3] + part[7]));
  for (; i < n; ++i)
    sum += x[i] * y[i];
  return sum;
}

void Unit::loadRows(int64_t row) {
  row0 = row;
  rows = std::min(tileRows, rowCount - row);
  packRows(a.q, a.qStrides, a.d,
           static_cast<float>(a.softcap > 0 ? a.scale
                                            : a.scale * 1.4426950408889634),
           x.qColumns, x.q);
  packRows(g.dout, g.doutStrides, a.dv, 1.0f, x.doutColumns, x.dout);
  for (int64_t i = 0; i < roundUp16(rows); ++i) {
    x.lse[i] = infinity; // exp2(x - inf) = 0: nothing is attended
    x.delta[i] = 0;
    if (i >= rows)
      continue;
    float lse = lseOf(row + i);
    if (lse == -infinity)
      continue;
    x.lse[i] = lse * 1.44269504f;
    float *out = x.lines, *dout = x.lines + a.dv;
    int64_t h = head(row + i), at = position(row + i);
    table.toFloat(element(a.out, a.outStrides, h, at), storage, out, a.dv);
    table.toFloat(element(g.dout, g.doutStrides, h, at), storage, dout, a.dv);
    x.delta[i] = dot(out, dout, a.dv);
  }
}

void Unit::loadKeys(int64_t key, bool forQueries) {
  key0 = key;
  keys = std::min(tileKeys, a.t - key);
  ldk = a.kStrides[2];
  ldv = a.vStrides[2];
  k = reinterpret_cast<const float *>(element(a.k, a.kStrides, kvHead, key));
  v = reinterpret_cast<const float *>(element(a.v, a.vStrides, kvHead, key));
  if (storage != Storage::f32) {
    for (int64_t j = 0; j < keys; ++j) {
      table.toFloat(element(a.k, a.kStrides, kvHead, key + j), storage,
                    x.k + j * a.d, a.d);
      table.toFloat(element(a.v, a.vStrides, kvHead, key + j), storage,
                    x.v + j * a.dv, a.dv);
    }
    k = x.k;
    ldk = a.d;
    v = x.v;
    ldv = a.dv;
  }
  if (!forQueries)
    return;
  for (int64_t j = 0; j < keys; ++j)
    for (int64_t c = 0; c < x.dPadded; c += 16) {
      float *to = x.kPanels + c * tileKeys + j * 16;
      int64_t cols = std::min<int64_t>(16, a.d - c);
      std::memcpy(to, k + j * ldk + c, cols * sizeof(float));
      std::memset(to + cols, 0, (16 - cols) * sizeof(float));
    }
}

/// The bias of the tile's rows, transposed into p; through ds.
void Unit::loadBiasColumns() {
  for (int64_t i0 = 0; i0 < roundUp16(rows); i0 += 16) {
    for (int64_t i = 0; i < 16; ++i) {
      float *line = x.ds + i * tileKeys;
      if (i0 + i < rows)
        loadBias(a, b, head(row0 + i0 + i), position(row0 + i0 + i), key0, keys,
                 line, roundUp16(keys));
      else
        std::memset(line, 0, roundUp16(keys) * sizeof(float));
    }
    for (int64_t j = 0; j < keys; j += 16)
      table.transpose16(x.ds + j, tileKeys, x.p + j * tileRows + i0, tileRows);
  }
}

/// p and ds of the tile; false when there is nothing but zeros.
bool Unit::formScores() {
  if (a.mask) {
    const uint8_t *mask = a.mask + b * a.t + key0;
    if (std::none_of(mask, mask + keys, [](uint8_t x) { return x; }))
      return false;
  }
  int64_t padded = roundUp16(rows);
  if (a.bias)
    loadBiasColumns();
  table.tile[0]({k, ldk, x.qColumns, 64 * a.d, padded / 16, a.d, x.p, tileRows,
                 16, keys, a.bias != nullptr});
  table.tile[0]({v, ldv, x.doutColumns, 64 * a.dv, padded / 16, a.dv, x.ds,
                 tileRows, 16, keys, false});
  for (int64_t j = 0; j < keys; ++j) {
    // Key j is seen from the positions [j - offset, j - offset + window).
    int64_t key = key0 + j;
    GradientRow line;
    line.p = x.p + j * tileRows;
    line.ds = x.ds + j * tileRows;
    line.n = padded;
    line.low = 0;
    line.high = rows;
    if (a.causal)
      line.low =
          std::clamp<int64_t>((key - a.offset) * groupHeads - row0, 0, rows);
    if (a.window >= 0)
      line.high = std::clamp<int64_t>(
          (key - a.offset + a.window) * groupHeads - row0, 0, rows);
    if (a.mask && !a.mask[b * a.t + key])
      line.high = 0;
    line.lse = x.lse;
    line.delta = x.delta;
    line.softcap = static_cast<float>(a.softcap);
    table.gradientRow(line);
  }
  return true;
}

void Unit::addToKeys() {
  table.tile[0]({x.p, tileRows, x.dout, 64 * tileRows, x.dvPadded / 16, rows,
                 x.dvOut, x.dvPadded, 16, keys, true});
  table.tile[0]({x.ds, tileRows, x.q, 64 * tileRows, x.dPadded / 16, rows, x.dk,
                 x.dPadded, 16, keys, true});
}

/// dq += ds k, with ds transposed into p, which is no longer needed.
void Unit::addToQueries() {
  for (int64_t j = 0; j < keys; j += 16)
    for (int64_t i = 0; i < rows; i += 16)
      table.transpose16(x.ds + j * tileRows + i, tileRows,
                        x.p + i * tileKeys + j, tileKeys);
  table.tile[0]({x.p, tileKeys, x.kPanels, 64 * tileKeys, x.dPadded / 16, keys,
                 x.dq, x.dPadded, 16, rows, true});
}

/// The tile's sums of dq, as they are in memory between blocks of keys.
void Unit::moveQueries(bool load) {
  for (int64_t i = 0; i < rows; ++i) {
    float *dq = reinterpret_cast<float *>(
        element(g.dq, g.dqStrides, head(row0 + i), position(row0 + i)));
    float *here = x.dq + i * x.dPadded;
    if (load) {
      std::memcpy(here, dq, a.d * sizeof(float));
      std::memset(here + a.d, 0, (x.dPadded - a.d) * sizeof(float));
    } else {
      std::memcpy(dq, here, a.d * sizeof(float));
    }
  }
}

void Unit::finishKeys() {
  // q was scaled with the factor of the scores.
  float factor = a.softcap > 0 ? 1.0f : 0.69314718f;
  bool anyUniform = false;
  if (a.fullyMasked == 1) {
    std::memset(x.uniform, 0, a.dv * sizeof(float));
    for (int64_t row = 0; row < rowCount; ++row) {
      if (lseOf(row) != -infinity)
        continue;
      anyUniform = true;
      table.toFloat(element(g.dout, g.doutStrides, head(row), position(row)),
                    storage, x.lines, a.dv);
      for (int64_t i = 0; i < a.dv; ++i)
        x.uniform[i] += x.lines[i];
    }
    table.scale(x.uniform, a.dv, 1.0f / static_cast<float>(a.t));
  }
  for (int64_t j = 0; j < keys; ++j) {
    float *dk = x.dk + j * x.dPadded, *dv = x.dvOut + j * x.dvPadded;
    table.scale(dk, a.d, factor);
    if (anyUniform)
      for (int64_t i = 0; i < a.dv; ++i)
        dv[i] += x.uniform[i];
    table.fromFloat(dk, storage, element(g.dk, g.dkStrides, kvHead, key0 + j),
                    a.d);
    table.fromFloat(dv, storage, element(g.dv, g.dvStrides, kvHead, key0 + j),
                    a.dv);
  }
}

void Unit::keyBlock(int64_t key, bool withQueries) {
  loadKeys(key, withQueries);
  std::memset(x.dk, 0, keys * x.dPadded * sizeof(float));
  std::memset(x.dvOut, 0, keys * x.dvPadded * sizeof(float));
  for (int64_t row = 0; row < rowCount; row += tileRows) {
    if (!anyVisible(row, key))
      continue;
    loadRows(row);
    if (!formScores())
      break; // the mask hides these keys from all rows
    addToKeys();
    if (!withQueries)
      continue;
    moveQueries(/*load=*/true);
    addToQueries();
    moveQueries(/*load=*/false);
  }
  finishKeys();
}

void Unit::rowBlock(int64_t row) {
  loadRows(row);
  std::memset(x.dq, 0, rows * x.dPadded * sizeof(float));
  for (int64_t key = 0; key < a.t; key += tileKeys) {
    if (!anyVisible(row, key))
      continue;
    loadKeys(key, /*forQueries=*/true);
    if (formScores())
      addToQueries();
  }
  for (int64_t i = 0; i < rows; ++i) {
    float *dq = x.dq + i * x.dPadded;
    table.scale(dq, a.d, static_cast<float>(a.scale));
    table.fromFloat(
        dq, storage,
        element(g.dq, g.dqStrides, head(row + i), position(row + i)), a.d);
  }
}

void Unit::all() {
  auto eachRow = [&](auto body) {
    for (int64_t row = 0; row < rowCount; ++row)
      body(reinterpret_cast<float *>(
          element(g.dq, g.dqStrides, head(row), position(row))));
  };
  eachRow([&](float *dq) { std::memset(dq, 0, a.d * sizeof(float)); });
  for (int64_t key = 0; key < a.t; key += tileKeys)
    keyBlock(key, /*withQueries=*/true);
  eachRow(
      [&](float *dq) { table.scale(dq, a.d, static_cast<float>(a.scale)); });
}

void cpu::attentionGrad(const AttentionGradArguments &g, ThreadPool &pool,
                        void *scratch, uint64_t scratchStride) {
  const AttentionArguments &a = g.forward;
  int64_t outer = a.batch * a.kvHeads;
  if (outer <= 0)
    return;
  const Kernels &table = kernels();
  int64_t rowBlocks = (a.s * (a.heads / a.kvHeads) + tileRows - 1) / tileRows;
  int64_t keyBlocks = (a.t + tileKeys - 1) / tileKeys;
  int64_t work = a.batch * a.heads * a.s * a.t * (3 * a.d + 2 * a.dv);
  int64_t workers = std::min<int64_t>(
      pool.size(), std::max<int64_t>(1, work / smallestShare));
  // Five products on the busiest thread, or seven divided evenly. Both give the
  // same bits.
  bool whole = a.type == DataType::f32 &&
               5 * ((outer + workers - 1) / workers) * workers <= 7 * outer;
  int64_t units = whole ? outer : outer * (rowBlocks + keyBlocks);
  std::atomic<int64_t> next{0};
  pool.run(
      [&](unsigned worker) {
        Scratch mine(static_cast<char *>(scratch) + worker * scratchStride, a.d,
                     a.dv);
        while (true) {
          int64_t unit = next.fetch_add(1, std::memory_order_relaxed);
          if (unit >= units)
            return;
          if (whole) {
            Unit(g, table, mine, unit / a.kvHeads, unit % a.kvHeads).all();
            continue;
          }
          // Causal blocks differ in cost: the dearest first.
          int64_t at = unit % outer, block = unit / outer;
          Unit one(g, table, mine, at / a.kvHeads, at % a.kvHeads);
          if (block < keyBlocks)
            one.keyBlock(block * tileKeys, /*withQueries=*/false);
          else
            one.rowBlock((rowBlocks - 1 - (block - keyBlocks)) * tileRows);
        }
      },
      static_cast<unsigned>(std::min(workers, std::max<int64_t>(1, units))));
}
