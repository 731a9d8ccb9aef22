//===- Units.h - Layers by their module paths -------------------*- C++ -*-===//
//
// What is gathered together, and what pipelines divide. A unit is a part of the
// model whose parameters are gathered at once and freed at once: a layer, by
// default each element of the longest numbered list of module paths,
// "model.layers.0" to "model.layers.31". What lies in no layer (embedding, last
// norm, head) or is used by two of them is the root unit, "". Units go by the
// `path` of the ops that use a parameter.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_DIALECT_DSHARD_IR_UNITS_H
#define DSHARD_DIALECT_DSHARD_IR_UNITS_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include <set>
#include <string>

namespace mlir::dshard {

/// The path of the module that an op comes from; "" if it has none.
llvm::StringRef getModuleOf(Operation *op);

class Units {
public:
  /// The units that `glob` names (`*` stands for one component of a path), or
  /// the default ones if it is empty. A glob that matches no module is an error
  /// that lists the modules.
  static FailureOr<Units> find(func::FuncOp function, llvm::StringRef glob);

  /// The unit that a module lies in: the innermost, "" for the root.
  std::string getUnitOf(llvm::StringRef path) const;
  /// The unit of a parameter: that of all its forward users, else the root.
  std::string getUnitOf(BlockArgument parameter) const;
  /// A backward pass needs the last unit and the root at once: they are kept.
  bool isGatheredAgain(llvm::StringRef unit) const {
    return !unit.empty() && unit != last;
  }

  /// All units but the root; the elements of a list by their numbers.
  std::vector<std::string> getNamesInOrder() const;

private:
  std::set<std::string> names;
  std::string last; ///< the unit whose first op comes last
};

} // namespace mlir::dshard

#endif // DSHARD_DIALECT_DSHARD_IR_UNITS_H
