//===- TensorParallelPlan.h - Plans: built in, or from a file ---*- C++ -*-===//
#ifndef DSHARD_LIB_TRANSFORMS_STRATEGY_TENSORPARALLELPLAN_H
#define DSHARD_LIB_TRANSFORMS_STRATEGY_TENSORPARALLELPLAN_H

#include "dshard/Support/Status.h"
#include "llvm/ADT/StringRef.h"
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mlir::dshard {

enum class Style {
  colwise,
  rowwise,
  expertParallel, ///< each rank has some of the matrices of a mixture
  prepareInput,
  prepareOutput,
  replicated
};

/// How an activation lies over tp: replicated, or one dim (may count from the
/// end) sharded.
struct TpLayout {
  std::optional<int64_t> shardedDim;
};

struct PlanEntry {
  std::string key;
  /// As written: "colwise_rep".
  std::string styleName;
  Style style;
  std::optional<TpLayout> in, out;
};

struct TensorParallelPlan {
  std::string name;
  std::vector<PlanEntry> entries;
  /// Keys of a built-in plan need not match.
  bool isBuiltIn = false;
};

/// llama and default: the row "llama HEAD" and the default base plan of the
/// parallelizer, without sequence parallelism; then one per kind of module
/// names: gpt2, neox, opt, bert, t5, vit, resnet, resnet-bottleneck, genai.
const std::vector<TensorParallelPlan> &getBuiltInPlans();
/// "llama, default, ...".
std::string listBuiltInPlans();

/// A built-in plan by name, else a JSON file.
::dshard::Result<TensorParallelPlan> loadPlan(llvm::StringRef nameOrFile);

/// True if `path` is what `key` says, `*` standing for one component, `**.` at
/// the front for any number of them, also none.
bool matchesKey(llvm::StringRef key, llvm::StringRef path);

} // namespace mlir::dshard

#endif // DSHARD_LIB_TRANSFORMS_STRATEGY_TENSORPARALLELPLAN_H
