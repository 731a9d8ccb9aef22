//===- HandBuiltPlan.h - A small plan with everything in it -----*- C++ -*-===//
//
// Written by hand, without the compiler: a repeat, an if on a scalar, blocks
// chosen by a table over rank coordinates, slots, views, two streams with
// events, four collectives over two groups, weights sliced from a file and
// packed. The plan tests break it; the runtime tests run it.
//
// Mesh dp=2, tp=2. X is the global input [4, 4], split over dp in dim 0; W the
// weight [4, 4], split over tp in dim 1; P = X W, so a rank has p = [2, 2].
//
//   acc = 0; repeat 3: acc += p; history[i mod 2] = acc
//   bias = flag ? 10 : 20
//   y = p + bias + history[0]          (= 4 p + bias: slot 0 is the third
//   round) z = tp == 0 ? y : transpose(y) swapped = z of the other tp rank
//   (permute, on stream 1) gathered = all_gather(swapped, dim 1, tp)   [2, 4]
//   out = all_reduce(gathered, sum, dp)         [2, 4], the same on all ranks
//   first = out[0:1, :]                (a view)
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_TEST_PLAN_HANDBUILTPLAN_H
#define DSHARD_TEST_PLAN_HANDBUILTPLAN_H

#include "dshard/Plan/PlanBuilder.h"

#include <string>
#include <vector>

namespace dshard::test {

struct HandBuiltOptions {
  /// Where hand-built.weights lies (Provenance.model_folder).
  std::string modelFolder = ".";
  /// The weight as a packed right-hand side (n = 2 of a panel of 16), else as a
  /// plain matrix.
  bool packed = false;
  /// Bytes of a packed [4, 2] f32 operand; the runtime's format decides.
  uint64_t packedSize = 4 * 16 * sizeof(float);
  /// Adds an image (no code in it) and a kernel that nothing launches.
  bool image = false;
  /// For GPUs: buffers lie four times as far apart.
  bool gpu = false;
};

/// The 16 elements of W, row-major: what the file hand-built.weights holds,
/// after 64 bytes of something else.
inline std::vector<float> handBuiltWeights() {
  std::vector<float> weights(16);
  for (int i = 0; i < 16; ++i)
    weights[i] = static_cast<float>((i * 7) % 5 - 2);
  return weights;
}

/// The bytes of the file.
inline std::string handBuiltWeightFile() {
  std::vector<float> weights = handBuiltWeights();
  return std::string(64, 'x') +
         std::string(reinterpret_cast<const char *>(weights.data()),
                     weights.size() * sizeof(float));
}

/// The global output `out` [2, 4] for a global input [4, 4], exact for small
/// integers.
inline std::vector<float> handBuiltExpected(const std::vector<float> &x,
                                            bool flag) {
  std::vector<float> w = handBuiltWeights(), out(8, 0.0f);
  for (int dp = 0; dp < 2; ++dp)
    for (int tp = 0; tp < 2; ++tp)
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) {
          float p = 0;
          for (int k = 0; k < 4; ++k)
            p += x[(2 * dp + i) * 4 + k] * w[k * 4 + 2 * tp + j];
          float y = 4 * p + (flag ? 10.0f : 20.0f);
          int row = tp == 0 ? i : j, column = tp == 0 ? j : i;
          out[row * 4 + 2 * (1 - tp) + column] += y;
        }
  return out;
}

/// Fills an empty builder. Program 0 is `load`, 1 is `run`; entry `run` has
/// input `x` and outputs `out` and `first`; scalar 0 is `flag` (i32, 1).
inline void buildHandBuiltPlan(plan::Builder &b,
                               const HandBuiltOptions &options = {}) {
  using namespace plan;
  b.plan.target = options.gpu ? "cuda:sm_90" : "cpu:x86-64";
  b.alignment = bufferAlignmentOf(b.plan.target);
  b.plan.provenance->compiler = "by hand";
  b.plan.provenance->model = "hand-built";
  b.plan.provenance->model_folder = options.modelFolder;
  uint32_t dp = b.addAxis("dp", 2), tp = b.addAxis("tp", 2);
  AxisRef dpRef = b.wholeAxis(dp), tpRef = b.wholeAxis(tp);
  int64_t tpGroup = b.addGroup({tpRef}), dpGroup = b.addGroup({dpRef});
  uint32_t flag = b.addScalar("flag", DataType::i32, 1);

  WeightSourceT source;
  source.name = b.intern("w");
  source.file = b.addFile("hand-built.weights", 128);
  source.offset = 64;
  source.length = 64;
  source.stored = Builder::tensorType(DataType::f32, {4, 4});
  source.fan_in = 4;
  std::string file = handBuiltWeightFile();
  source.has_identity = true;
  source.identity = weightIdentity(file.data() + 64, 64);
  int64_t w = b.addSource(std::move(source));
  uint32_t state =
      b.addState("w", StateRole::parameter, InitializerKind::load,
                 DataType::f32, {4, 4}, {4, 2}, {{}, {tpRef}},
                 options.packed ? StateLayout::packed : StateLayout::plain,
                 options.packed ? options.packedSize : 0);

  if (options.image) {
    std::vector<uint8_t> bytes(5000, 0xc3);
    uint32_t image = b.addImage(ImageKind::elf, bytes.data(), bytes.size());
    b.addKernel("nothing", image, 64, 8, 4, 2);
  }

  // load: columns [2 tp, 2 tp + 2) of the file's matrix.
  ProgramAssembler load = b.beginProgram("load");
  Value column = tableValue(b.addTable({tp}, {0, 2}));
  std::vector<Value> slice = {literal(w), literal(2), literal(0), column,
                              literal(4), literal(2), literal(0), literal(1),
                              literal(0), literal(0)};
  uint32_t target = load.addStateBuffer(state);
  if (options.packed) {
    uint32_t plain = load.addBuffer({"w.plain", DataType::f32, {4, 2}});
    load.append(0, InstructionKind::LOAD_SLICE, {write(plain)}, slice);
    load.append(0, InstructionKind::PACK_RHS, {read(plain), write(target)},
                {literal(4), literal(2), literal(0), literal(2)});
  } else {
    load.append(0, InstructionKind::LOAD_SLICE, {write(target)}, slice);
  }
  load.finish();

  ProgramAssembler run = b.beginProgram("run");
  auto buffer = [&](const char *name, std::vector<int64_t> dims,
                    uint64_t offset, uint32_t slots = 1) {
    return run.addBuffer({name, DataType::f32, std::move(dims),
                          offset * b.alignment / 64, 0, slots});
  };
  uint32_t x = buffer("x", {2, 4}, 0);
  uint32_t weight = run.addStateBuffer(state);
  uint32_t acc = buffer("acc", {2, 2}, 64);
  uint32_t history = buffer("history", {2, 2}, 128, 2);
  uint32_t bias = buffer("bias", {2}, 256);
  uint32_t y = buffer("y", {2, 2}, 320);
  uint32_t z = buffer("z", {2, 2}, 64); // acc is dead
  uint32_t swapped = buffer("swapped", {2, 2}, 384);
  uint32_t gathered = buffer("gathered", {2, 4}, 448);
  uint32_t out = buffer("out", {2, 4}, 128); // history is dead
  uint32_t first = run.addView(out, {"first", DataType::f32, {1, 4}});
  uint32_t body = run.addBlock(), thenBlock = run.addBlock(),
           elseBlock = run.addBlock(), plain = run.addBlock(),
           transposed = run.addBlock();

  InstructionOrigin matmul = {"mlp.fc", "/mlp/fc/MatMul"};
  // acc += x w; y = x w + bias + residual
  auto multiply = [&](uint32_t block, BufferUse bias, BufferUse residual,
                      BufferUse result) {
    bool packed = options.packed;
    run.append(block, InstructionKind::MATMUL,
               {read(x), read(weight), bias, residual, result},
               {literal(1), literal(2), literal(2), literal(4), literal(4),
                literal(packed ? 0 : 2), literal(2), literal(2), literal(0),
                literal(0), literal(0), literal(0), literal(0), literal(0),
                literal(packed), literal(0)},
               matmul);
  };
  auto copy = [&](uint32_t block, BufferUse from, BufferUse to, int64_t row,
                  int64_t column) {
    run.append(block, InstructionKind::COPY, {from, to},
               {literal(2), literal(2), literal(2), literal(0), literal(2),
                literal(1), literal(0), literal(row), literal(column)},
               {"mlp", "/mlp/Copy"});
  };
  InstructionOrigin fillOrigin = {"mlp", "/mlp/Fill"};
  run.append(0, InstructionKind::FILL, {write(acc)}, {literalBits(0)},
             fillOrigin);
  run.repeat(0, body, literal(3));
  multiply(body, absent(), read(acc), write(acc));
  copy(body, read(acc), write(history, loopIndex()), 2, 1);
  run.branch(0, scalarValue(flag), thenBlock, elseBlock);
  run.append(thenBlock, InstructionKind::FILL, {write(bias)}, {literalBits(10)},
             fillOrigin);
  run.append(elseBlock, InstructionKind::FILL, {write(bias)}, {literalBits(20)},
             fillOrigin);
  multiply(0, read(bias), read(history, literal(0)), write(y));
  run.call(0, tableValue(b.addTable({tp}, {plain, transposed})));
  copy(plain, read(y), write(z), 2, 1);
  copy(transposed, read(y), write(z), 1, 2);
  // The permute on a stream of its own.
  InstructionOrigin other = {"mlp", "/mlp/Permute", "swap the tp halves",
                             Part::forward, 1};
  run.append(0, InstructionKind::RECORD, {}, {literal(0)});
  run.append(0, InstructionKind::WAIT, {}, {literal(0)}, other);
  uint32_t peer = b.addTable({tp}, {1, 0});
  run.append(0, InstructionKind::PERMUTE, {read(z), write(swapped)},
             {literal(tpGroup), literal(1), tableValue(peer), tableValue(peer)},
             other);
  run.append(0, InstructionKind::RECORD, {}, {literal(1)}, other);
  run.append(0, InstructionKind::WAIT, {}, {literal(1)});
  run.append(0, InstructionKind::ALL_GATHER, {read(swapped), write(gathered)},
             {literal(tpGroup), literal(1), literal(2), literal(1)},
             {"mlp", "/mlp/Gather", "columns of tp"});
  run.append(0, InstructionKind::ALL_REDUCE, {read(gathered), write(out)},
             {literal(dpGroup), literal(1),
              literal(static_cast<int64_t>(ReductionKind::sum))},
             {"mlp", "/mlp/Sum", "sum over dp"});
  run.finish();

  uint32_t entry = b.addEntry("run", run.index());
  b.addInput(entry, {"x",
                     run.index(),
                     x,
                     DataType::f32,
                     {4, 4},
                     {2, 4},
                     {{dpRef}, {}},
                     {"batch", ""}});
  b.addOutput(entry, {"out", run.index(), out, DataType::f32, {2, 4}, {2, 4}});
  b.addOutput(entry,
              {"first", run.index(), first, DataType::f32, {1, 4}, {1, 4}});
  b.plan.load = load.index();
}

} // namespace dshard::test

#endif // DSHARD_TEST_PLAN_HANDBUILTPLAN_H
