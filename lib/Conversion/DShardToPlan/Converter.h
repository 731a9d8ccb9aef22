//===- Converter.h - A scheduled function to a program ----------*- C++ -*-===//
//
// Internal to DShardToPlan.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_CONVERSION_DSHARDTOPLAN_CONVERTER_H
#define DSHARD_LIB_CONVERSION_DSHARDTOPLAN_CONVERTER_H

#include "Memory.h"
#include "Weights.h"
#include "dshard/Codegen/Compile.h"
#include "dshard/Codegen/KernelEmitter.h"
#include "dshard/Transforms/Local/Calls.h"

namespace mlir::dshard {

inline RankedTensorType typeOf(Value value) {
  return cast<RankedTensorType>(value.getType());
}

/// Bytes that one or more values share: reshapes, work in place.
struct Storage {
  Value buffer;          ///< plan.buffer; null until the program is built
  int64_t lifetime = -1; ///< index into `lifetimes`; -1: a state
  bool keep = false;     ///< inputs and outputs: never overwritten
};

class Converter {
public:
  Converter(ModuleOp module, func::FuncOp function, const CpuTarget &target)
      : module(module), function(function), target(target),
        plan(module, module.getBody(), getMesh(module)),
        weights(plan, function) {}
  LogicalResult run();

private:
  // Buffers.
  int newStorage(Value value, StringRef name, bool keep = false);
  int stateStorage(OpOperand &use);
  /// The buffer that an operand reads.
  Value read(OpOperand &use);
  /// The buffer that a result is written to: new, or that of `reuse`, an
  /// operand of the same type that dies here.
  Value write(Value result, OpOperand *reuse = nullptr);
  bool diesHere(OpOperand &use);
  std::string nameOf(Value value);

  // Instructions.
  LogicalResult convert(Operation *op);
  LogicalResult convertLaunch(FusedOp op);
  LogicalResult convertMatMul(FusedOp op);
  LogicalResult convertAttention(FusedOp op);
  LogicalResult convertLocalSlice(LocalSliceOp op);
  LogicalResult convertCollective(Operation *op);
  void instruction(Operation *op, InstructionKind kind,
                   ArrayRef<SmallVector<Value>> uses,
                   ArrayRef<Attribute> values, StringRef why = "");
  Attribute literal(int64_t value) { return plan.literal(value); }

  FailureOr<int64_t> kernelOf(FusedOp op);
  LogicalResult addKernels();
  LogicalResult addOutputs(func::ReturnOp op);
  void addPorts(int64_t program);
  void findRange(Value argument, int64_t &low, int64_t &high, bool &found);

  ModuleOp module;
  func::FuncOp function;
  const CpuTarget &target;
  PlanContext plan;
  Weights weights;

  plan::ProgramOp program;
  OpBuilder body{static_cast<MLIRContext *>(nullptr)};
  std::vector<Storage> storages;
  std::vector<Lifetime> lifetimes;
  std::vector<plan::BufferOp> lifetimeBuffers;
  DenseMap<Value, int> storage;
  DenseMap<std::pair<int64_t, Type>, int> stateStorages;
  int64_t position = 0;
  uint64_t threadScratch = 0;
  SmallVector<Value> outputBuffers;

  OwningOpRef<ModuleOp> kernels;
  struct Kernel {
    std::string name;
    KernelInfo info;
  };
  std::vector<Kernel> kernelList;
  std::map<std::string, int64_t> kernelIndex;
};

} // namespace mlir::dshard

#endif // DSHARD_LIB_CONVERSION_DSHARDTOPLAN_CONVERTER_H
