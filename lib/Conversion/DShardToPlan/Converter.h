//===- Converter.h - A scheduled function to a program ----------*- C++ -*-===//
//
// Internal to DShardToPlan.
//
// Memory of control ops and states. A value of a `dshard.repeat` that is
// carried lies in one place for all iterations, a result of a `dshard.if` in
// one place for both branches, a state in its own bytes. Such a place is the
// *destination* of the value that the region's (or the function's) terminator
// hands on. That value is written there at once where nobody reads the old
// value at or after its op, or where its op may work in place on the old value;
// else it is written to the arena and copied by the terminator, after all
// reads.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_CONVERSION_DSHARDTOPLAN_CONVERTER_H
#define DSHARD_LIB_CONVERSION_DSHARDTOPLAN_CONVERTER_H

#include "Memory.h"
#include "Weights.h"
#include "dshard/Codegen/Compile.h"
#include "dshard/Codegen/CompileCuda.h"
#include "dshard/Codegen/KernelEmitter.h"
#include "dshard/Transforms/Local/Calls.h"
#include "llvm/ADT/SetVector.h"

namespace mlir::dshard {

inline RankedTensorType typeOf(Value value) {
  return cast<RankedTensorType>(value.getType());
}

/// What a plan is made for: one of the two.
struct PlanTarget {
  std::optional<CpuTarget> cpu;
  std::optional<CudaTarget> cuda;
};

/// The generated code of all programs. Equal regions are one kernel.
class KernelTable {
public:
  KernelTable(MLIRContext *context, const PlanTarget &target)
      : target(target), kernels(ModuleOp::create(UnknownLoc::get(context))) {}
  FailureOr<int64_t> find(FusedOp op);
  /// Compiles them and appends the plan's tables of code.
  LogicalResult emit(PlanContext &plan, Location loc);

private:
  struct Kernel {
    std::string name;
    KernelInfo info;     ///< on a CPU
    CudaKernelInfo cuda; ///< on a GPU
  };
  const PlanTarget &target;
  OwningOpRef<ModuleOp> kernels;
  std::vector<Kernel> list;
  std::map<std::string, int64_t> index;
};

/// Bytes that one or more values share: reshapes, work in place.
struct Storage {
  Value buffer;             ///< plan.buffer
  int64_t lifetime = -1;    ///< index into `lifetimes`; -1: a state, a scalar
  bool keep = false;        ///< inputs and outputs: never overwritten
  bool destination = false; ///< what a terminator hands on lies here
  Block *owner = nullptr;   ///< whose ops may overwrite it
  size_t depth = 0;         ///< repeats around it
  SmallVector<Value, 2> values; ///< all that have lain here
};

class Converter {
public:
  Converter(ModuleOp module, func::FuncOp function, PlanContext &plan,
            Weights &weights, KernelTable &kernels)
      : module(module), function(function), plan(plan), weights(weights),
        kernels(kernels) {}
  /// Appends the function's program.
  LogicalResult run();
  /// Appends its entry point; `program` is the program's index.
  void addPorts(int64_t program);
  /// Appends its inputs and outputs to an entry point of several stages.
  void addPorts(plan::EntryOp entry);

private:
  // Buffers (Buffers.cpp).
  int newStorage(RankedTensorType type, Location loc, StringRef name,
                 Block *owner, bool keep = false);
  int newStorage(Value value, StringRef name, bool keep = false);
  int stateStorage(OpOperand &use);
  int argumentStorage(BlockArgument argument);
  void place(Value value, int index);
  /// Notes that the bytes are needed now.
  void touch(int index);
  /// The buffer that an operand reads.
  Value read(OpOperand &use);
  /// The buffer that a result is written to: its destination, that of `reuse`
  /// (an operand of the same type that dies here), or a new one.
  Value write(Value result, OpOperand *reuse = nullptr);
  /// Whether anything but `except` reads these bytes at or after `op`.
  bool isReadFrom(int index, Operation *op, OpOperand *except = nullptr);
  /// Whether `result` may be written over `operand`, memory only.
  bool mayReplace(OpOperand &operand, Value result);
  /// The place that a terminator hands `result` on in, or -1.
  int destinationOf(Value result);
  std::string nameOf(Value value);
  void copy(Operation *op, Value from, Value to, RankedTensorType type);
  /// Brings operands of a terminator to their places.
  void moveTo(Operation *terminator,
              ArrayRef<std::pair<OpOperand *, int>> moves);

  // Instructions.
  LogicalResult convertBlock(Block &block);
  LogicalResult convert(Operation *op);
  LogicalResult convertRepeat(RepeatOp op);
  LogicalResult convertIf(IfOp op);
  LogicalResult convertLaunch(FusedOp op);
  LogicalResult convertMatMul(FusedOp op);
  LogicalResult convertGrouped(FusedOp op);
  LogicalResult convertAttention(FusedOp op);
  void addBiasStrides(Value bias, SmallVectorImpl<Attribute> &values);
  LogicalResult convertAttentionGrad(FusedOp op);
  LogicalResult convertLocalSlice(LocalSliceOp op);
  LogicalResult convertCollective(Operation *op);
  void instruction(Operation *op, InstructionKind kind,
                   ArrayRef<SmallVector<Value>> uses,
                   ArrayRef<Attribute> values, StringRef why = "");
  void fill(Operation *op, Value buffer, Attribute bits);
  Attribute literal(int64_t value) { return plan.literal(value); }
  /// A number that only the rank decides, plus `add`; failure without a
  /// diagnostic if something else does.
  FailureOr<Attribute> rankNumber(Value value, int64_t add = 0);

  LogicalResult addOutputs(func::ReturnOp op);
  /// Gives the bytes one copy per micro-batch, and keeps them to the end.
  void keepCopies(int index);
  void findRange(Value argument, int64_t &low, int64_t &high, bool &found);

  ModuleOp module;
  func::FuncOp function;
  PlanContext &plan;
  Weights &weights;
  KernelTable &kernels;

  plan::ProgramOp program;
  OpBuilder body{static_cast<MLIRContext *>(nullptr)};
  std::vector<Storage> storages;
  std::vector<Lifetime> lifetimes;
  std::vector<plan::BufferOp> lifetimeBuffers;
  DenseMap<Value, int> storage;
  DenseMap<std::pair<int64_t, Type>, int> stateStorages;
  DenseMap<std::pair<Operation *, unsigned>, int> destinations;
  /// Of each repeat around the current op: outer bytes that its body needs.
  std::vector<llvm::SmallSetVector<int, 8>> loops;
  int64_t position = 0;
  uint64_t threadScratch = 0;
  SmallVector<std::pair<unsigned, Value>> outputBuffers; ///< result, buffer
  SmallVector<std::pair<unsigned, int>> outputStorages;  ///< result, storage
};

/// A region that is nothing but one repeated number, as a double that holds it
/// exactly.
std::optional<double> getFillValue(FusedOp op);

} // namespace mlir::dshard

#endif // DSHARD_LIB_CONVERSION_DSHARDTOPLAN_CONVERTER_H
