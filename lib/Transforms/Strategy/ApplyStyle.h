//===- ApplyStyle.h - Modules of a program, and styles on them --*- C++ -*-===//
#ifndef DSHARD_LIB_TRANSFORMS_STRATEGY_APPLYSTYLE_H
#define DSHARD_LIB_TRANSFORMS_STRATEGY_APPLYSTYLE_H

#include "TensorParallelPlan.h"
#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringSet.h"

namespace mlir::dshard {

/// The ops of a function by module path.
class ModuleTree {
public:
  explicit ModuleTree(func::FuncOp function);

  /// Every path of an op, of a weight's module, and of what they lie in,
  /// sorted.
  const std::vector<std::string> &paths() const { return allPaths; }
  /// The ops whose path is exactly that.
  ArrayRef<Operation *> opsOf(StringRef path) const;
  /// True for ops of the module and of the modules inside it.
  static bool isInside(Operation *op, StringRef path);

private:
  llvm::StringMap<SmallVector<Operation *>> ops;
  std::vector<std::string> allPaths;
};

/// Heads of the attention that a projection feeds.
struct HeadCounts {
  int64_t query = 0;    ///< of a query projection
  int64_t keyValue = 0; ///< of a key or value projection
};
llvm::DenseMap<Operation *, HeadCounts> findHeads(func::FuncOp function);

/// Writes what one entry of a plan says for one module.
class StyleWriter {
public:
  StyleWriter(func::FuncOp function, const ModuleTree &tree, MeshAttr mesh,
              const TensorParallelPlan &plan);
  LogicalResult apply(const PlanEntry &entry, StringRef path);
  /// Whether the module has a Linear or an Embedding of its own.
  bool hasLayer(StringRef path);
  /// tensor_parallel_c4 alone, of the projections to query heads: what does not
  /// suit there says more than KV heads or features that do not divide, so all
  /// modules are checked for it first.
  LogicalResult checkQueryHeads(const PlanEntry &entry, StringRef path);
  /// Where tp divides the heads of some attentions and not of others (a
  /// pyramid's first stages have few): the paths of the others' projections.
  llvm::StringSet<> findUndividedProjections();

private:
  /// A parameter behind transposes and casts: dim i of the value is dims[i] of
  /// it.
  struct Parameter {
    BlockArgument argument;
    SmallVector<int64_t> dims;
  };
  std::optional<Parameter> findParameter(Value value);
  /// Whether the product's right operand is a weight: of a Linear, of a
  /// convolution, or one that is dequantised.
  static bool hasWeight(MatMulOp product);

  LogicalResult applyLinear(const PlanEntry &entry, StringRef path,
                            MatMulOp product);
  LogicalResult applyExperts(const PlanEntry &entry, StringRef path,
                             GroupedMatMulOp product);
  LogicalResult applyEmbedding(const PlanEntry &entry, StringRef path,
                               GatherOp lookup);
  LogicalResult applyPrepare(const PlanEntry &entry, StringRef path);
  LogicalResult replicateParameters(const PlanEntry &entry, StringRef path);

  /// tp, or the major part of it that KV heads can be split over; checks
  /// tensor_parallel_c4.
  FailureOr<SmallVector<AxisRefAttr>> axesFor(MatMulOp product, StringRef path);
  /// `dim` < 0: replicated.
  LogicalResult shardParameter(BlockArgument argument, int64_t dim,
                               ArrayRef<AxisRefAttr> axes, bool mayPad,
                               const PlanEntry &entry, StringRef path);
  /// The parameters that `value` is computed from, along its dim `dim`.
  LogicalResult shardWeight(Value value, int64_t dim,
                            ArrayRef<AxisRefAttr> axes, bool mayPad,
                            const PlanEntry &entry, StringRef path);
  /// `axes` replace tp where `out` is shard(-1).
  LogicalResult shardResult(Value value, const TpLayout &layout,
                            ArrayRef<AxisRefAttr> axes, const PlanEntry &entry,
                            StringRef path);
  OriginAttr originOf(const PlanEntry &entry);
  bool divides(int64_t size, ArrayRef<AxisRefAttr> axes) const;
  /// "replicated", or the axes and their size: "tp=4".
  std::string describe(ArrayRef<AxisRefAttr> axes) const;

  func::FuncOp function;
  const ModuleTree &tree;
  MeshAttr mesh;
  std::string planName;
  bool isBuiltIn;
  AxisRefAttr tensorAxis;
  llvm::DenseMap<Operation *, HeadCounts> heads;
  /// Which entry sharded an argument.
  llvm::DenseMap<Value, std::string> owners;
};

} // namespace mlir::dshard

#endif // DSHARD_LIB_TRANSFORMS_STRATEGY_APPLYSTYLE_H
