//===- Gemm.cpp - Matrix products on one CPU rank -------------------------===//

#include "dshard/Runtime/Cpu/Gemm.h"
#include "Kernels.h"
#include "dshard/Runtime/Cpu/Convert.h"
#include "dshard/Runtime/Cpu/ThreadPool.h"

#include <algorithm>
#include <cstring>
#include <vector>

using namespace dshard;
using namespace dshard::cpu;
using plan::DataType;

static Storage storageOf(DataType type) {
  return type == DataType::f32    ? Storage::f32
         : type == DataType::bf16 ? Storage::bf16
                                  : Storage::f16;
}

/// Elements of a result that no cache holds until it is read again.
static constexpr int64_t largeResult = int64_t{8} << 20;

static const char *at(const void *data, DataType type, int64_t element) {
  return static_cast<const char *>(data) + element * elementBytes(type);
}

Status cpu::checkGemm(const GemmArguments &g) {
  auto refuse = [](const char *what, DataType type) {
    return Status::error(std::string("matmul ") + what + " of type " +
                         plan::toString(type) +
                         " is not supported on the CPU (f32, bf16 and f16 "
                         "are)");
  };
  if (!isGemmType(g.lhsType))
    return refuse("lhs", g.lhsType);
  if (g.scales) {
    if (g.rhsType != DataType::u8 || (g.bits != 4 && g.bits != 8) ||
        g.block < 16 || g.block % 16 != 0)
      return Status::error(
          "a matmul of " + std::to_string(g.bits) + " bits in blocks of " +
          std::to_string(g.block) +
          " is not supported on the CPU (4 and 8 bits in u8 are, in blocks of "
          "a multiple of 16)");
  } else if (!isGemmType(g.rhsType)) {
    return refuse("rhs", g.rhsType);
  }
  if (!isGemmType(g.outType))
    return refuse("result", g.outType);
  if (!isGemmType(g.biasType))
    return refuse("bias", g.biasType);
  if (!isGemmType(g.residualType))
    return refuse("residual", g.residualType);
  return Status();
}

namespace {

/// The parts of one thread's scratch.
struct Scratch {
  explicit Scratch(void *memory)
      : c(static_cast<float *>(memory)),
        a(c + gemmPanelGroup * gemmBlockRows * gemmPanel),
        b(a + (gemmBlockRows + 15) / 16 * 16 * gemmChunk) {}
  float *c; // [panels][rows][16]
  float *a; // [rows][chunk], when the lhs has to be converted
  float *b; // [panels][depth][16], when the rhs is not packed
};

/// From Scratch::a on.
constexpr int64_t scratchFloats = (gemmBlockRows + 15) / 16 * 16 * gemmChunk +
                                  gemmPanelGroup * gemmChunk * gemmPanel;

/// What is the same for all pieces of one product.
class Product {
public:
  explicit Product(const GemmArguments &arguments)
      : g(arguments), table(kernels()),
        // Rows that lie pages apart are brought together for several panels.
        converts(g.lhsType != DataType::f32 || g.transposeLhs ||
                 (!g.packed && g.lda >= 4096 && g.m > 8)),
        rhsStorage(g.packed ? storageOf(g.rhsType) : Storage::f32),
        panels((g.n + gemmPanel - 1) / gemmPanel) {
    if (!g.scales || g.block < 32 || (g.block & (g.block - 1)) != 0)
      return;
    if (g.int8 && g.bits == 4 && g.block == 32)
      digitCount = 1;
    else if (g.m <= table.dotRows)
      digitCount = 3;
    if (digitCount && digitRows() == 0)
      digitCount = 0;
  }

  /// Rows times quantised columns in integers (DigitRow): digits of an element
  /// of a row, 0 where the columns are unpacked to floats instead.
  int digits() const { return digitCount; }
  /// A few rows take the columns as they are stored.
  bool usesTile() const { return digitCount == 1 && g.m >= 4; }
  DigitRow digitForm() const {
    return DigitRow(g.bits, digitCount, usesTile(), blocks() * (g.block / 32));
  }
  /// How many rows fit a thread's scratch.
  int64_t digitRows() const {
    return std::min(
        {g.m, gemmBlockRows, scratchFloats * 4 / digitForm().bytes()});
  }
  void makeDigits(int64_t row, char *out) const;
  void digitPanels(int64_t panel, int64_t panelEnd, int64_t row, int64_t rows,
                   const char *digits, float *c) const;

  /// Rows [row, rowEnd) of panels [panel, panelEnd) of batch b, in blocks of
  /// blockRows.
  void rows(int64_t b, int64_t panel, int64_t panelEnd, int64_t row,
            int64_t rowEnd, int64_t blockRows, Scratch scratch) const;

  int64_t panelCount() const { return panels; }
  /// Panels worth handling together: what a converted or strided operand costs
  /// is shared by them. With a few rows that is less than what one stream of
  /// weights is worth.
  int64_t groupSize() const {
    if (converts && g.m > 8)
      return gemmPanelGroup;
    if (g.packed)
      return table.panels;
    // As many as are packed once for all rows; else once for each block.
    return g.k > gemmPanelGroup * gemmChunk
               ? gemmPanelGroup
               : std::clamp<int64_t>(gemmPanelGroup * gemmChunk /
                                         std::max<int64_t>(g.k, 1),
                                     1, gemmPanelGroup);
  }

private:
  int64_t blocks() const { return (g.k + g.block - 1) / g.block; }
  int64_t zeroBytes() const {
    return g.bits == 4 ? (blocks() + 1) / 2 : blocks();
  }
  QuantizedColumn quantizedColumn(int64_t column) const;
  void splitPanel(int64_t panel, int64_t piece, int64_t pieces,
                  QuantizedPanel &out) const;
  void unpackChunk(int64_t panel, int64_t panelEnd, int64_t k, int64_t depth,
                   float *out) const;
  void block(int64_t b, int64_t panel, int64_t panelEnd, int64_t row,
             int64_t rowEnd, bool rhsReady, Scratch scratch) const;
  void convertLhs(const void *lhs, int64_t row, int64_t rows, int64_t k,
                  int64_t depth, float *out) const;
  void transposeSquare(const void *in, DataType type, int64_t first, int64_t ld,
                       int64_t rows, int64_t cols, float *out,
                       int64_t ldOut) const;
  void packChunk(const void *rhs, int64_t panel, int64_t panelEnd, int64_t k,
                 int64_t depth, float *out) const;
  void finish(int64_t b, int64_t panel, int64_t row, int64_t rows,
              const float *c) const;

  const GemmArguments &g;
  const Kernels &table;
  bool converts;
  Storage rhsStorage;
  int64_t panels;
  int digitCount = 0;
};

} // namespace

void Product::convertLhs(const void *lhs, int64_t row, int64_t rows, int64_t k,
                         int64_t depth, float *out) const {
  Storage storage = storageOf(g.lhsType);
  if (!g.transposeLhs) {
    for (int64_t i = 0; i < rows; ++i)
      table.toFloat(at(lhs, g.lhsType, (row + i) * g.lda + k), storage,
                    out + i * gemmChunk, depth);
    return;
  }
  // Whole squares: the scratch has room for the rows and columns past the end.
  for (int64_t i = 0; i < depth; i += 16)
    for (int64_t r = 0; r < rows; r += 16)
      transposeSquare(lhs, g.lhsType, (k + i) * g.lda + row + r, g.lda,
                      std::min<int64_t>(16, depth - i),
                      std::min<int64_t>(16, rows - r), out + r * gemmChunk + i,
                      gemmChunk);
}

/// out[j][i] = in[i][j], 16 x 16, zero where in has fewer rows or columns.
void Product::transposeSquare(const void *in, DataType type, int64_t first,
                              int64_t ld, int64_t rows, int64_t cols,
                              float *out, int64_t ldOut) const {
  if (type == DataType::f32 && rows == 16 && cols == 16) {
    table.transpose16(static_cast<const float *>(in) + first, ld, out, ldOut);
    return;
  }
  alignas(64) float square[16 * 16];
  if (rows < 16 || cols < 16)
    std::memset(square, 0, sizeof(square));
  for (int64_t i = 0; i < rows; ++i)
    table.toFloat(at(in, type, first + i * ld), storageOf(type),
                  square + i * 16, cols);
  table.transpose16(square, 16, out, ldOut);
}

QuantizedColumn Product::quantizedColumn(int64_t column) const {
  QuantizedColumn c;
  c.data = static_cast<const uint8_t *>(g.rhs) +
           column * blocks() * g.block * g.bits / 8;
  c.scales = g.scales + column * blocks();
  c.zeros = g.zeroPoints ? g.zeroPoints + column * zeroBytes() : nullptr;
  c.block = g.block;
  c.bits = g.bits;
  return c;
}

/// packChunk of a quantised rhs.
void Product::unpackChunk(int64_t panel, int64_t panelEnd, int64_t k,
                          int64_t depth, float *out) const {
  constexpr int64_t run = 128; // elements of a column at a time
  alignas(64) float columns[gemmPanel * run];
  alignas(64) float square[gemmPanel * gemmPanel];
  for (int64_t p = panel; p < panelEnd; ++p, out += depth * gemmPanel) {
    int64_t cols = std::min(gemmPanel, g.n - p * gemmPanel);
    if (cols < gemmPanel)
      std::memset(columns, 0, sizeof(columns));
    for (int64_t i0 = 0; i0 < depth; i0 += run) {
      int64_t now = std::min(run, (depth - i0 + 15) / 16 * 16);
      for (int64_t j = 0; j < cols; ++j)
        table.dequantize(quantizedColumn(p * gemmPanel + j), k + i0, now,
                         columns + j * run);
      for (int64_t i = 0; i < now; i += 16) {
        int64_t left = std::min<int64_t>(16, depth - i0 - i);
        float *to = out + (i0 + i) * gemmPanel;
        table.transpose16(columns + i, run, left == 16 ? to : square, 16);
        if (left < 16)
          std::memcpy(to, square, left * gemmPanel * sizeof(float));
      }
    }
  }
}

/// A row of lhs in the form that digitDot or digitTile takes.
void Product::makeDigits(int64_t row, char *out) const {
  const DigitRow form = digitForm();
  std::memset(out, 0, form.bytes());
  constexpr int64_t some = 8; // pieces that are converted at a time
  alignas(64) float line[some * 32];
  for (int64_t piece = 0; piece * 32 < g.k;) {
    const char *x = at(g.lhs, g.lhsType, row * g.lda + piece * 32);
    int64_t count = g.lhsType == DataType::f32 ? (g.k - piece * 32) / 32 : 0;
    if (count > 0) {
      table.quantizePieces(reinterpret_cast<const float *>(x), form, piece,
                           count, out);
    } else {
      int64_t now = std::min(some * 32, g.k - piece * 32);
      count = (now + 31) / 32;
      table.toFloat(x, storageOf(g.lhsType), line, now);
      std::fill(line + now, line + count * 32, 0.0f);
      table.quantizePieces(line, form, piece, count, out);
    }
    piece += count;
  }
  int32_t *totals = reinterpret_cast<int32_t *>(out + form.totals());
  const float *scales = reinterpret_cast<const float *>(out + form.scales());
  float *sums = reinterpret_cast<float *>(out + form.sums());
  for (int64_t piece = 0; piece < form.pieces; ++piece)
    if (usesTile())
      totals[piece] *= g.zeroPoints ? -1 : -8;
    else
      sums[piece * 32 / g.block] +=
          scales[piece * form.lanes] * static_cast<float>(totals[piece]);
}

/// Pieces of a panel, whose columns and pieces that are not there are zero.
void Product::splitPanel(int64_t panel, int64_t piece, int64_t pieces,
                         QuantizedPanel &out) const {
  alignas(64) float square[16 * 16];
  alignas(64) float filled[16 * 16];
  int64_t cols = std::clamp<int64_t>(g.n - panel * gemmPanel, 0, gemmPanel);
  QuantizedColumn first = quantizedColumn(panel * gemmPanel);
  int64_t columnBytes = blocks() * 16; // as many bytes as a column has
  auto transpose = [&](const uint8_t *from, int64_t step, int64_t bytes,
                       float *to) {
    if (cols == gemmPanel && bytes >= 64) {
      table.transpose16(reinterpret_cast<const float *>(from), step / 4, to,
                        16);
      return;
    }
    std::memset(filled, 0, sizeof(filled));
    for (int64_t j = 0; j < cols; ++j)
      std::memcpy(filled + j * 16, from + j * step,
                  std::min<int64_t>(bytes, 64));
    table.transpose16(filled, 16, to, 16);
  };
  // Sixteen columns in turns are more than the hardware follows.
  auto fetch = [&](const void *from, int64_t step) {
    const char *next =
        static_cast<const char *>(from) + table.panels * gemmPanel * step;
    for (int64_t j = 0; j < gemmPanel; ++j, next += step)
      __builtin_prefetch(next, 0, 2);
  };
  fetch(first.scales + piece, blocks() * 4);
  for (int64_t i = 0; i < pieces; i += 4) {
    const uint8_t *from = first.data + (piece + i) * 16;
    fetch(from, columnBytes);
    transpose(from, columnBytes, columnBytes - (piece + i) * 16, square);
    table.splitNibbles(square, i, out);
  }
  transpose(reinterpret_cast<const uint8_t *>(first.scales + piece),
            blocks() * 4, (blocks() - piece) * 4, out.scales[0]);
  out.hasZeros = first.zeros != nullptr;
  for (int64_t j = 0; out.hasZeros && j < gemmPanel; ++j)
    for (int64_t i = 0; i < pieces; ++i) {
      const uint8_t *zeros = first.zeros + j * zeroBytes();
      out.zeros[i][j] =
          j < cols ? zeros[(piece + i) / 2] >> ((piece + i) % 2 * 4) & 15 : 0;
    }
}

/// Rows of digits times panels, finished from c.
void Product::digitPanels(int64_t panel, int64_t panelEnd, int64_t row,
                          int64_t rows, const char *digits, float *c) const {
  const DigitRow form = digitForm();
  int64_t cStep = gemmBlockRows * gemmPanel;
  if (!usesTile()) {
    DigitDot d{quantizedColumn(panel * gemmPanel),
               blocks() * g.block * g.bits / 8,
               zeroBytes(),
               blocks(),
               0,
               form,
               digits,
               c};
    d.columns = std::min(panelEnd * gemmPanel, g.n) - panel * gemmPanel;
    // All columns of a row, one row behind the other.
    for (int64_t i = 0; i < rows; ++i) {
      d.x = digits + i * form.bytes();
      d.out = c + i * (panelEnd - panel) * gemmPanel;
      table.digitDot(d);
    }
    for (int64_t p = panel; p < panelEnd; ++p)
      for (int64_t i = 0; i < rows; ++i)
        finish(0, p, row + i, 1,
               c + (i * (panelEnd - panel) + p - panel) * gemmPanel);
    return;
  }
  QuantizedPanel split[2];
  DigitTile t;
  t.panel = split;
  t.panels = table.panels;
  t.xStep = form.bytes();
  t.rows = rows;
  t.c = c;
  t.cStep = cStep;
  for (; panel < panelEnd; panel += t.panels) {
    for (int64_t piece = 0; piece < form.pieces;
         piece += QuantizedPanel::pieces) {
      t.pieces = std::min(QuantizedPanel::pieces, form.pieces - piece);
      for (int64_t p = 0; p < t.panels; ++p)
        splitPanel(panel + p, piece, t.pieces, split[p]);
      t.x = digits + form.place(piece, 0);
      t.scales = digits + form.scales() + piece * 4;
      t.starts = digits + form.totals() + piece * 4;
      t.accumulate = piece > 0;
      table.digitTile(t);
    }
    for (int64_t p = panel; p < std::min(panel + t.panels, panelEnd); ++p)
      finish(0, p, row, rows, c + (p - panel) * cStep);
  }
}

/// Panels [panel, panelEnd), each [depth][16], one behind the other.
void Product::packChunk(const void *rhs, int64_t panel, int64_t panelEnd,
                        int64_t k, int64_t depth, float *out) const {
  if (g.scales)
    return unpackChunk(panel, panelEnd, k, depth, out);
  Storage storage = storageOf(g.rhsType);
  int64_t column = panel * gemmPanel;
  int64_t size = depth * gemmPanel;
  if (!g.transposeRhs) {
    // Sixteen rows of all panels before the next: rows may be pages apart.
    for (int64_t i0 = 0; i0 < depth; i0 += 16)
      for (int64_t p = panel; p < panelEnd; ++p) {
        int64_t first = p * gemmPanel;
        int64_t cols = std::min(gemmPanel, g.n - first);
        for (int64_t i = i0; i < std::min(depth, i0 + 16); ++i) {
          float *to = out + (p - panel) * size + i * gemmPanel;
          const char *from = at(rhs, g.rhsType, (k + i) * g.ldb + first);
          if (g.rhsType == DataType::f32 && cols == gemmPanel) {
            std::memcpy(to, from, gemmPanel * sizeof(float));
            continue;
          }
          table.toFloat(from, storage, to, cols);
          for (int64_t j = cols; j < gemmPanel; ++j)
            to[j] = 0;
        }
      }
    return;
  }
  // Sixteen columns are sixteen rows of the stored [n, k].
  alignas(64) float square[16 * 16];
  for (int64_t p = panel; p < panelEnd; ++p, out += size, column += gemmPanel) {
    int64_t cols = std::min(gemmPanel, g.n - column);
    int64_t i = 0;
    for (; i + 16 <= depth; i += 16)
      transposeSquare(rhs, g.rhsType, column * g.ldb + k + i, g.ldb, cols, 16,
                      out + i * gemmPanel, gemmPanel);
    if (i == depth)
      continue;
    transposeSquare(rhs, g.rhsType, column * g.ldb + k + i, g.ldb, cols,
                    depth - i, square, gemmPanel);
    std::memcpy(out + i * gemmPanel, square,
                (depth - i) * gemmPanel * sizeof(float));
  }
}

void Product::finish(int64_t b, int64_t panel, int64_t row, int64_t rows,
                     const float *c) const {
  int64_t column = panel * gemmPanel;
  EpilogueArguments e;
  e.c = c;
  e.rows = rows;
  e.cols = std::min(gemmPanel, g.n - column);
  alignas(64) float bias[gemmPanel] = {};
  e.bias = nullptr;
  if (g.bias) {
    table.toFloat(at(g.bias, g.biasType, column), storageOf(g.biasType), bias,
                  e.cols);
    e.bias = bias;
  }
  e.activation = static_cast<uint8_t>(g.activation);
  e.residual = nullptr;
  if (g.residual)
    e.residual = at(g.residual, g.residualType,
                    b * g.strideResidual + row * g.ldr + column);
  e.ldr = g.ldr;
  e.residualStorage = storageOf(g.residualType);
  e.out = const_cast<char *>(
      at(g.out, g.outType, b * g.strideOut + row * g.ldc + column));
  e.ldc = g.ldc;
  e.outStorage = storageOf(g.outType);
  e.streams = g.outType == DataType::f32 && e.cols == gemmPanel &&
              g.m * g.n >= largeResult &&
              reinterpret_cast<uintptr_t>(e.out) % 64 == 0 &&
              (g.ldc % 16 == 0 || rows == 1);
  table.epilogue(e);
}

void Product::rows(int64_t b, int64_t panel, int64_t panelEnd, int64_t row,
                   int64_t rowEnd, int64_t blockRows, Scratch scratch) const {
  // All of the rhs at once, where it fits.
  bool rhsReady =
      !g.packed && (panelEnd - panel) * g.k <= gemmPanelGroup * gemmChunk;
  if (rhsReady)
    packChunk(at(g.rhs, g.rhsType, b * g.strideRhs), panel, panelEnd, 0, g.k,
              scratch.b);
  for (; row < rowEnd; row += blockRows)
    block(b, panel, panelEnd, row, std::min(rowEnd, row + blockRows), rhsReady,
          scratch);
}

void Product::block(int64_t b, int64_t panel, int64_t panelEnd, int64_t row,
                    int64_t rowEnd, bool rhsReady, Scratch scratch) const {
  const void *lhs = at(g.lhs, g.lhsType, b * g.strideLhs);
  const void *rhs = g.packed ? g.rhs : at(g.rhs, g.rhsType, b * g.strideRhs);
  int64_t rows = rowEnd - row;
  int64_t rhsBytes = rhsStorage == Storage::f32 ? 64 : 32; // of one packed k
  TileFunction tile = table.tile[static_cast<int>(rhsStorage)];
  TileArguments t;
  t.rows = rows;
  t.ldc = gemmPanel;
  t.cStep = gemmBlockRows * gemmPanel;
  for (int64_t k = 0; k == 0 || k < g.k; k += gemmChunk) {
    int64_t depth = std::min(gemmChunk, g.k - k);
    if (converts) {
      convertLhs(lhs, row, rows, k, depth, scratch.a);
      t.a = scratch.a;
      t.lda = gemmChunk;
    } else {
      t.a = static_cast<const float *>(lhs) + row * g.lda + k;
      t.lda = g.lda;
    }
    if (!g.packed && !rhsReady)
      packChunk(rhs, panel, panelEnd, k, depth, scratch.b);
    t.k = depth;
    t.accumulate = k > 0;
    for (int64_t p = panel; p < panelEnd; p += table.panels) {
      t.panels = std::min(table.panels, panelEnd - p);
      t.c = scratch.c + (p - panel) * t.cStep;
      if (!g.packed) {
        t.bStep = (rhsReady ? g.k : depth) * 64;
        t.b = scratch.b + (p - panel) * t.bStep / 4 +
              (rhsReady ? k * gemmPanel : 0);
        tile(t);
        continue;
      }
      // What comes next: the same panels' next chunk, or the next panels.
      const char *chunk =
          static_cast<const char *>(rhs) + (p * g.k + k) * rhsBytes;
      t.b = chunk;
      t.bStep = g.k * rhsBytes;
      t.prefetch = chunk + depth * rhsBytes;
      t.prefetchBytes = std::min(gemmChunk, g.k - k - depth) * rhsBytes;
      if (k + depth >= g.k) {
        t.prefetch += (t.panels - 1) * t.bStep;
        t.prefetchBytes = std::min(gemmChunk, g.k) * rhsBytes;
        if (p + t.panels + table.panels > panels)
          t.prefetch = nullptr;
      }
      tile(t);
    }
  }
  for (int64_t p = panel; p < panelEnd; ++p)
    finish(b, p, row, rows,
           scratch.c + (p - panel) * gemmBlockRows * gemmPanel);
}

/// Rows are made integers once, by all threads, in the scratch of the first
/// one; a few rows by each thread that needs them, in its own.
static void digitGemm(const Product &product, const GemmArguments &g,
                      ThreadPool &pool, void *scratch, uint64_t scratchStride) {
  int64_t rows = product.digitRows();
  int64_t bytes = product.digitForm().bytes();
  int64_t perPanel = gemmPanel * g.k * std::max<int64_t>(rows, 8);
  int64_t grain = (smallestShare + perPanel - 1) / perPanel;
  // Several panels at a time; whole tiles.
  grain = (grain + 1) / 2 * 2;
  for (int64_t row = 0; row < g.m; row += rows) {
    int64_t now = std::min(rows, g.m - row);
    bool shared = now > 8;
    char *digits = reinterpret_cast<char *>(Scratch(scratch).a);
    if (shared)
      pool.parallelFor(now, 4, [&](int64_t begin, int64_t end, unsigned) {
        for (int64_t i = begin; i < end; ++i)
          product.makeDigits(row + i, digits + i * bytes);
      });
    std::vector<uint8_t> isReady(pool.size(), shared);
    pool.parallelDynamic(
        product.panelCount(), grain,
        [&](int64_t begin, int64_t end, unsigned worker) {
          Scratch mine(static_cast<char *>(scratch) + worker * scratchStride);
          char *own = shared ? digits : reinterpret_cast<char *>(mine.a);
          if (!isReady[worker])
            for (int64_t i = 0; i < now; ++i)
              product.makeDigits(row + i, own + i * bytes);
          isReady[worker] = 1;
          int64_t step = now < 4 ? gemmPanelGroup : 2;
          for (; begin < end; begin += step)
            product.digitPanels(begin, std::min(begin + step, end), row, now,
                                own, mine.c);
        });
  }
}

void cpu::gemm(const GemmArguments &g, ThreadPool &pool, void *scratch,
               uint64_t scratchStride) {
  if (g.m <= 0 || g.n <= 0 || g.batch <= 0)
    return;
  Product product(g);
  if (product.digits())
    return digitGemm(product, g, pool, scratch, scratchStride);
  // A weight panel is read once by one thread where there are panels enough;
  // else the rows are split too.
  int64_t panels = product.panelCount();
  int64_t groups = (panels + product.groupSize() - 1) / product.groupSize();
  int64_t threads = pool.size();
  int64_t groupSize = product.groupSize();
  while (groupSize > 1 && g.batch * groups < threads) {
    groupSize /= 2;
    groups = (panels + groupSize - 1) / groupSize;
  }
  int64_t rowBlocks = (g.m + gemmBlockRows - 1) / gemmBlockRows;
  int64_t blockRows = std::min(g.m, gemmBlockRows);
  // Blocks of even height: the last one reads the weights again, too.
  blockRows = ((g.m + rowBlocks - 1) / rowBlocks + 1) / 2 * 2;
  int64_t columnWork = g.batch * groups;
  int64_t rowSplits = 1;
  if (columnWork < 2 * threads) {
    rowSplits = std::min((2 * threads + columnWork - 1) / columnWork,
                         (g.m + gemmTileRows - 1) / gemmTileRows);
    if (threads == 1)
      rowSplits = 1;
  }
  int64_t splitRows = (g.m + rowSplits - 1) / rowSplits;
  splitRows = (splitRows + gemmTileRows - 1) / gemmTileRows * gemmTileRows;
  rowSplits = (g.m + splitRows - 1) / splitRows;
  // A few rows wait for the weights, not for the arithmetic.
  int64_t work = g.batch * std::max<int64_t>(g.m, 8) * g.n * g.k;
  int64_t units = columnWork * rowSplits;
  int64_t perUnit = std::max<int64_t>(1, work / units);
  pool.parallelDynamic(
      units, (smallestShare + perUnit - 1) / perUnit,
      [&](int64_t begin, int64_t end, unsigned worker) {
        Scratch mine(static_cast<char *>(scratch) + worker * scratchStride);
        for (int64_t unit = begin; unit < end; ++unit) {
          int64_t split = unit % rowSplits;
          int64_t column = unit / rowSplits;
          int64_t b = column / groups;
          int64_t panel = column % groups * groupSize;
          int64_t panelEnd = std::min(panel + groupSize, panels);
          int64_t last = std::min(g.m, (split + 1) * splitRows);
          product.rows(b, panel, panelEnd, split * splitRows, last, blockRows,
                       mine);
        }
      });
}

void cpu::packRhs(const void *in, DataType inType, int64_t ld, int64_t k,
                  int64_t n, int64_t column, void *packed, DataType packedType,
                  ThreadPool &pool) {
  const Kernels &table = kernels();
  int64_t width = packedType == DataType::f32 ? 4 : 2;
  int64_t first = column / gemmPanel;
  int64_t panels = (n + gemmPanel - 1) / gemmPanel;
  pool.parallelFor(panels, 1, [&](int64_t begin, int64_t end, unsigned) {
    for (int64_t p = begin; p < end; ++p) {
      int64_t cols = std::min(gemmPanel, n - p * gemmPanel);
      char *out =
          static_cast<char *>(packed) + (first + p) * k * gemmPanel * width;
      for (int64_t i = 0; i < k; ++i) {
        alignas(64) float row[gemmPanel] = {};
        const char *from = at(in, inType, i * ld + p * gemmPanel);
        char *to = out + i * gemmPanel * width;
        if (inType == packedType && packedType != DataType::bf16) {
          // The same bits, also of NaNs.
          std::memcpy(to, from, cols * width);
          std::memset(to + cols * width, 0, (gemmPanel - cols) * width);
          continue;
        }
        if (inType == packedType) {
          uint16_t half[gemmPanel] = {};
          std::memcpy(half, from, cols * width);
          for (int j = 0; j < 16; ++j)
            std::memcpy(to + ((j % 8) * 2 + j / 8) * 2, half + j, 2);
          continue;
        }
        table.toFloat(from, storageOf(inType), row, cols);
        if (packedType == DataType::bf16) {
          uint16_t half[gemmPanel];
          table.fromFloat(row, Storage::bf16, half, gemmPanel);
          for (int j = 0; j < 16; ++j)
            std::memcpy(to + ((j % 8) * 2 + j / 8) * 2, half + j, 2);
        } else {
          table.fromFloat(row, storageOf(packedType), to, gemmPanel);
        }
      }
    }
  });
}

const char *cpu::kernelName() { return kernels().name; }
