//===- Interpreter.h - The oracle -------------------------------*- C++ -*-===//
//
// Walks a function of any phase from import to schedule. Up to `resolve` a
// function is global: one value per SSA value, and a reshard is the identity. A
// function with `dshard.spmd` is local: all ranks of the module's mesh go in
// lock step through it, in one thread, and collectives combine their values.
//
// Two precisions: fp64 rounds nothing but integers and booleans, so that two
// programs which differ by more than 1e-9 differ in meaning; model rounds each
// op's result to its element type.
//
// A function with `dshard.micro_batches` = n runs n times, each time on the
// next n-th of the arguments with `dshard.micro_batched`; such results are put
// together again. An entry point with `dshard.stages` has its body in these
// functions: they run first to last, each on the ranks of its `pp` coordinate,
// and send and recv carry values between them.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_REFERENCE_INTERPRETER_H
#define DSHARD_REFERENCE_INTERPRETER_H

#include "dshard/Reference/Distribute.h"
#include <deque>
#include <map>

namespace mlir::dshard {

enum class Precision { fp64, model };

/// Is the function local to a rank?
bool isSpmd(func::FuncOp function);
/// Global types of the arguments and results of a function of any phase, as its
/// caller sees them: those of the whole batch.
RankedTensorType getGlobalArgumentType(func::FuncOp function, unsigned index);
RankedTensorType getGlobalResultType(func::FuncOp function, unsigned index);

class Interpreter {
public:
  /// Without a mesh there is one rank. `numRanks` is 1 for a global function.
  Interpreter(MeshAttr mesh, int64_t numRanks, Precision precision)
      : mesh(mesh), precision(precision), values(numRanks) {}

  /// Runs a function of one block on `arguments[argument][rank]`. What is wrong
  /// is an error at its op.
  LogicalResult run(func::FuncOp function, ArrayRef<RankTensor> arguments,
                    SmallVectorImpl<RankTensor> &results);
  /// The same on these ranks only; arguments and results are theirs, in order.
  /// Values sent before, by whatever ranks, can be received.
  LogicalResult run(func::FuncOp function, ArrayRef<int64_t> ranks,
                    ArrayRef<RankTensor> arguments,
                    SmallVectorImpl<RankTensor> &results);
  /// Errors if a sent value was not received; `function` is its place.
  LogicalResult checkReceived(func::FuncOp function) const;

private:
  using Ranks = ArrayRef<int64_t>;
  /// Values of one rank.
  using Environment = llvm::DenseMap<Value, SharedTensor>;

  LogicalResult runBlock(Block &block, Ranks ranks,
                         SmallVectorImpl<RankTensor> &yielded);
  LogicalResult runOp(Operation *op, Ranks ranks);
  LogicalResult runCompute(Operation *op, Ranks ranks);
  LogicalResult runCollective(Operation *op, Ranks ranks);
  LogicalResult runLocalSlice(LocalSliceOp op, Ranks ranks);
  LogicalResult runRankIndex(RankIndexOp op, Ranks ranks);
  LogicalResult runRepeat(RepeatOp op, Ranks ranks);
  LogicalResult runIf(IfOp op, Ranks ranks);
  LogicalResult runFused(FusedOp op, Ranks ranks);
  LogicalResult runSend(SendOp op, Ranks ranks);
  LogicalResult runRecv(RecvOp op, Ranks ranks);
  /// Sender or receiver as ranks, or as stages of a global program.
  int64_t getPeer(Operation *op, int64_t rank, int64_t peer) const;
  int64_t getSelf(Operation *op, int64_t rank) const;

  RankTensor get(Value value, Ranks ranks) const;
  void set(Value value, const RankTensor &tensor, Ranks ranks);
  void set(ValueRange targets, ArrayRef<RankTensor> tensors, Ranks ranks);
  /// Rounds as the precision says.
  SharedTensor share(HostTensor tensor) const;
  /// Drops the values that `op` was the last to read.
  void dropDeadValues(Operation *op, Ranks ranks);

  MeshAttr mesh;
  Precision precision;
  std::vector<Environment> values; ///< by rank
  /// Sent and not yet received, by (from, to, tag).
  std::map<std::tuple<int64_t, int64_t, int64_t>, std::deque<SharedTensor>>
      messages;
};

/// The stage functions of an entry point with `dshard.stages`, first to last;
/// empty for any other. A name without a function is null.
SmallVector<func::FuncOp> getStages(func::FuncOp function);

/// Runs a function of any phase on global values of the whole batch: scatters
/// the arguments, gathers the results.
LogicalResult interpret(func::FuncOp function, ArrayRef<HostTensor> arguments,
                        Precision precision,
                        SmallVectorImpl<HostTensor> &results);

} // namespace mlir::dshard

#endif // DSHARD_REFERENCE_INTERPRETER_H
