//===- PlanContext.h - The tables of a plan under construction --*- C++ -*-===//
//
// Internal to DShardToPlan.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_CONVERSION_DSHARDTOPLAN_PLANCONTEXT_H
#define DSHARD_LIB_CONVERSION_DSHARDTOPLAN_PLANCONTEXT_H

#include "dshard/Conversion/DShardToPlan/DShardToPlan.h"
#include "dshard/Dialect/Plan/IR/PlanOps.h"
#include "dshard/Plan/Format.h"
#include "llvm/ADT/StringMap.h"

namespace mlir::dshard {

using ::dshard::plan::InstructionKind;

/// Bytes of a tensor's elements; booleans take one each.
int64_t bytesOf(RankedTensorType type);
plan::Origin originOf(Operation *op, StringRef why = "");
/// A plan.buffer of `size` bytes: in the arena, at an offset to be decided, or
/// all of a state.
plan::BufferOp createBuffer(OpBuilder &builder, Location loc, StringRef name,
                            std::optional<int64_t> state, int64_t size,
                            RankedTensorType type);

/// A plan.buffer that is the word of a scalar.
plan::BufferOp createScalarBuffer(OpBuilder &builder, Location loc,
                                  StringRef name, int64_t scalar,
                                  RankedTensorType type);

/// Appends the plan's table ops to a block; equal entries share one index.
class PlanContext {
public:
  PlanContext(ModuleOp module, Block *block, MeshAttr mesh, int gpu = 0)
      : b(OpBuilder::atBlockEnd(block)), module(module), mesh(mesh), gpu(gpu) {}

  /// The architecture of a plan for GPUs, 90 for sm_90; 0 for one for CPUs.
  int getGpu() const { return gpu; }
  /// Where buffers and states begin.
  int64_t getAlignment() const {
    return gpu ? ::dshard::plan::gpuBufferAlignment
               : ::dshard::plan::bufferAlignment;
  }
  MeshAttr getMesh() const { return mesh; }
  int64_t getNumRanks() const { return mesh ? mesh.getNumRanks() : 1; }

  /// Index of the group over these axes.
  int64_t addGroup(ArrayAttr axes);
  /// A number that may depend on the rank: a literal when it does not, else an
  /// entry of a table over just the axes that matter.
  Attribute rankValue(function_ref<int64_t(int64_t rank)> value);
  /// Where the rank's shard of `extent` elements begins, plus `at`: most
  /// weights ask the same as another.
  Attribute shardBegin(ArrayRef<AxisRefAttr> axes, int64_t extent, int64_t at);
  Attribute literal(int64_t value) { return b.getI64IntegerAttr(value); }
  Attribute real(double value) { return b.getF64FloatAttr(value); }
  /// Index of the weight's source; its file is added too.
  int64_t addSource(WeightAttr weight);
  /// Index of the scalar of this name.
  int64_t addScalar(StringRef name, RankedTensorType type);
  /// Index of a new state, at the next aligned byte behind those that the ranks
  /// of its stage hold as well; stage -1: all ranks hold it.
  int64_t addState(Location loc, StringRef name, StringRef role,
                   StringRef initializer, bool packed, bool written,
                   RankedTensorType global, RankedTensorType local,
                   ShardingAttr sharding, int64_t size, int64_t stage = -1);

  OpBuilder b;

private:
  int64_t addTable(ArrayRef<int64_t> axes, ArrayRef<int64_t> values);

  ModuleOp module;
  MeshAttr mesh;
  int gpu;
  DenseMap<Attribute, int64_t> groups, files, sources, scalars;
  std::map<std::pair<std::vector<int64_t>, std::vector<int64_t>>, int64_t>
      tables;
  std::map<std::tuple<const void *, int64_t, int64_t>, Attribute> shardBegins;
  int64_t states = 0;
  std::map<int64_t, int64_t> stateEnds; ///< by stage
};

} // namespace mlir::dshard

#endif // DSHARD_LIB_CONVERSION_DSHARDTOPLAN_PLANCONTEXT_H
