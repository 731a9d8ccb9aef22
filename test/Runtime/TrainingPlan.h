//===- TrainingPlan.h - A training step by hand -----------------*- C++ -*-===//
//
// Mesh dp=2, no compiler. Entry `train_step`: inputs x [4, 2] (rows over dp)
// and labels [4] (0 to 9, or -100); scalar lr; states w [2] and step-like
// `rounds`.
//
//   g = sum of the rows of x          (of a rank's rows, then all_reduce over
//   dp) loss = <g, g>; check = <g, g>     (must be finite: the gradient of 'w')
//   w += lr g                         (in place)
//   rounds = 1                        (the last iteration of a repeat of 2)
//   first = labels
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_TEST_RUNTIME_TRAININGPLAN_H
#define DSHARD_TEST_RUNTIME_TRAININGPLAN_H

#include "dshard/Plan/PlanBuilder.h"
#include "dshard/Runtime/Cpu/Gemm.h"

namespace dshard::test {

/// `check` is the name of the check: nonfinite.stop or nonfinite.skip.
inline void buildTrainingPlan(plan::Builder &b,
                              const char *check = "nonfinite.stop") {
  using namespace plan;
  b.plan.target = "cpu:x86-64";
  uint32_t dp = b.addAxis("dp", 2);
  int64_t group = b.addGroup({b.wholeAxis(dp)});
  uint32_t lr = b.addScalar("lr", DataType::f32, 0.5);
  uint32_t state = b.addState("w", StateRole::parameter, InitializerKind::zero,
                              DataType::f32, {2}, {2});
  uint32_t rounds = b.addState("blocks/rounds", StateRole::optimizer_state,
                               InitializerKind::zero, DataType::i64, {}, {});
  b.plan.states[state]->written = b.plan.states[rounds]->written = true;
  ProgramAssembler load = b.beginProgram("load");
  load.finish();

  ProgramAssembler run = b.beginProgram("train_step");
  InstructionOrigin origin = {"m", "/m/Train"};
  uint32_t w = run.addStateBuffer(state), count = run.addStateBuffer(rounds);
  uint32_t rate = run.addScalarBuffer(lr);
  uint32_t x = run.addBuffer({"x", DataType::f32, {2, 2}, 0});
  uint32_t labels = run.addBuffer({"labels", DataType::i64, {2}, 64});
  uint32_t ones = run.addBuffer({"ones", DataType::f32, {1, 2}, 128});
  uint32_t part = run.addBuffer({"part", DataType::f32, {1, 2}, 192});
  uint32_t g = run.addBuffer({"g", DataType::f32, {1, 2}, 256});
  uint32_t loss = run.addBuffer({"loss", DataType::f32, {}, 320});
  uint32_t sums = run.addBuffer({"sums", DataType::f32, {1}, 384});
  uint32_t first = run.addBuffer({"first", DataType::i64, {2}, 448});
  uint32_t body = run.addBlock();
  // out = lhs [m, k] * rhs [k, n] + residual
  auto multiply = [&](uint32_t lhs, uint32_t rhs, BufferUse residual,
                      uint32_t out, int64_t m, int64_t n, int64_t k,
                      bool transposeRhs = false) {
    run.append(0, InstructionKind::MATMUL,
               {read(lhs), read(rhs), absent(), residual, write(out)},
               {literal(1), literal(m), literal(n), literal(k), literal(k),
                literal(transposeRhs ? k : n), literal(n), literal(n),
                literal(0), literal(0), literal(0), literal(0), literal(0),
                literal(transposeRhs), literal(0), literal(0)},
               origin);
  };
  run.append(0, InstructionKind::FILL, {write(ones)}, {literalBits(1)}, origin);
  multiply(ones, x, absent(), part, 1, 2, 2);
  InstructionOrigin reduce = {"m", "/m/Train", "gradient of w", Part::backward};
  run.append(0, InstructionKind::ALL_REDUCE, {read(part), write(g)},
             {literal(group), literal(1), literal(0)}, reduce);
  multiply(g, g, absent(), loss, 1, 1, 2, true);
  multiply(g, g, absent(), sums, 1, 1, 2, true);
  run.repeat(0, body, literal(2));
  run.append(body, InstructionKind::FILL, {write(count)}, {loopIndex()},
             origin);
  multiply(g, rate, read(w), w, 2, 1, 1);
  run.append(
      0, InstructionKind::COPY, {read(labels), write(first)},
      {literal(1), literal(2), literal(0), literal(1), literal(0), literal(1)},
      origin);
  run.finish();

  uint32_t entry = b.addEntry("train_step", run.index());
  std::vector<std::vector<AxisRef>> rows = {{b.wholeAxis(dp)}};
  PortSpec in;
  in.name = "x";
  in.program = run.index();
  in.buffer = x;
  in.global = {4, 2};
  in.local = {2, 2};
  in.sharding = {{b.wholeAxis(dp)}, {}};
  b.addInput(entry, in);
  in.name = "labels";
  in.buffer = labels;
  in.dtype = DataType::i64;
  in.global = {4};
  in.local = {2};
  in.sharding = rows;
  in.range = {0, 9, -100};
  b.addInput(entry, in);
  b.addOutput(entry, {"loss", run.index(), loss, DataType::f32, {}, {}});
  b.addOutput(entry,
              {"first", run.index(), first, DataType::i64, {4}, {2}, rows});
  PortSpec finite;
  finite.name = check;
  finite.program = run.index();
  finite.buffer = sums;
  finite.global = finite.local = {1};
  finite.finite = {"w"};
  b.addOutput(entry, finite);
  b.plan.load = load.index();
  b.plan.programs[run.index()]->thread_scratch = cpu::gemmScratchBytes();
}

} // namespace dshard::test

#endif // DSHARD_TEST_RUNTIME_TRAININGPLAN_H
