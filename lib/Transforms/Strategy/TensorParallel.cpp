//===- TensorParallel.cpp - Write what a tensor-parallel plan asks for ----===//

#include "ApplyStyle.h"
#include "dshard/Support/Text.h"
#include "dshard/Transforms/Strategy/Passes.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include <set>

namespace mlir::dshard {
#define GEN_PASS_DEF_TENSORPARALLELPASS
#include "dshard/Transforms/Strategy/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

/// Module paths with `*` in place of numbers, each once: what a key would say.
static std::vector<std::string> generalise(ArrayRef<std::string> paths) {
  std::set<std::string> general;
  for (StringRef path : paths) {
    SmallVector<StringRef> parts;
    path.split(parts, '.');
    for (StringRef &part : parts)
      if (!part.empty() && llvm::all_of(part, llvm::isDigit))
        part = "*";
    general.insert(llvm::join(parts, "."));
  }
  return {general.begin(), general.end()};
}

/// For every path the entry that holds for it: of several keys the one with
/// fewest stars.
static std::vector<std::pair<std::string, const PlanEntry *>>
matchPaths(const TensorParallelPlan &plan, const ModuleTree &tree,
           std::set<const PlanEntry *> &used) {
  std::vector<std::pair<std::string, const PlanEntry *>> matches;
  for (const std::string &path : tree.paths()) {
    const PlanEntry *best = nullptr;
    for (const PlanEntry &entry : plan.entries) {
      if (!matchesKey(entry.key, path))
        continue;
      used.insert(&entry);
      auto stars = [](const PlanEntry &e) {
        return StringRef(e.key).count('*');
      };
      if (!best || stars(entry) < stars(*best))
        best = &entry;
    }
    if (best)
      matches.emplace_back(path, best);
  }
  return matches;
}

/// The built-in plan that matches most modules; null if none matches.
static const TensorParallelPlan *chooseBuiltIn(const ModuleTree &tree,
                                               size_t &matched) {
  const TensorParallelPlan *best = nullptr;
  matched = 0;
  for (const TensorParallelPlan &plan : getBuiltInPlans()) {
    std::set<const PlanEntry *> used;
    if (size_t count = matchPaths(plan, tree, used).size(); count > matched) {
      best = &plan;
      matched = count;
    }
  }
  return best;
}

namespace {
struct TensorParallelPass
    : mlir::dshard::impl::TensorParallelPassBase<TensorParallelPass> {
  using TensorParallelPassBase::TensorParallelPassBase;

  LogicalResult run(func::FuncOp function, MeshAttr mesh, bool emitsRemark);

  void runOnOperation() override {
    ModuleOp module = getOperation();
    MeshAttr mesh = getMesh(module);
    if (!mesh) {
      module.emitError() << "module has no " << meshAttrName
                         << "; give it one with --mesh";
      return signalPassFailure();
    }
    bool isFirst = true;
    for (auto function : module.getOps<func::FuncOp>()) {
      if (function.isExternal())
        continue;
      if (failed(run(function, mesh, isFirst)))
        return signalPassFailure();
      isFirst = false;
    }
  }
};
} // namespace

LogicalResult TensorParallelPass::run(func::FuncOp function, MeshAttr mesh,
                                      bool emitsRemark) {
  bool isParallel = mesh.getAxisSize("tp") > 1;
  ModuleTree tree(function);
  TensorParallelPlan chosen;
  size_t matched = 0;
  if (!plan.empty()) {
    auto loaded = loadPlan(plan);
    if (!loaded)
      return emitError(UnknownLoc::get(&getContext()))
             << loaded.status().message();
    chosen = *loaded;
  } else {
    if (!isParallel)
      return success();
    const TensorParallelPlan *best = chooseBuiltIn(tree, matched);
    if (!best)
      return emitError(UnknownLoc::get(&getContext()))
             << "no built-in tensor-parallel plan (" << listBuiltInPlans()
             << ") matches the model; give --tp-plan=FILE with keys from its "
                "modules: "
             << ::dshard::join(generalise(tree.paths()), ", ");
    chosen = *best;
  }

  std::set<const PlanEntry *> used;
  auto matches = matchPaths(chosen, tree, used);
  if (matches.empty() && chosen.isBuiltIn)
    return emitError(UnknownLoc::get(&getContext()))
           << "the built-in tensor-parallel plan '" << chosen.name
           << "' matches no module of the model";
  std::vector<std::string> names = generalise(tree.paths());
  for (const PlanEntry &entry : chosen.entries) {
    if (chosen.isBuiltIn || used.count(&entry))
      continue;
    std::string hint = ::dshard::didYouMean(entry.key, names);
    return emitError(UnknownLoc::get(&getContext()))
           << chosen.name << ": key '" << entry.key << "' matches no module"
           << (hint.empty() ? "; the modules are " + ::dshard::join(names, ", ")
                            : hint);
  }
  if (!isParallel)
    return success();
  StyleWriter writer(function, tree, mesh, chosen);
  // A tied embedding is a module of which only the name of the weight is left.
  if (chosen.isBuiltIn)
    llvm::erase_if(matches, [&](const auto &match) {
      return !writer.hasLayer(match.first);
    });
  std::vector<std::string> whole;
  if (chosen.isBuiltIn) {
    llvm::StringSet<> undivided = writer.findUndividedProjections();
    llvm::erase_if(matches, [&](const auto &match) {
      if (!undivided.contains(match.first))
        return false;
      whole.push_back(match.first);
      return true;
    });
  }
  for (const auto &[path, entry] : matches)
    if (failed(writer.checkQueryHeads(*entry, path)))
      return failure();
  for (const auto &[path, entry] : matches)
    if (failed(writer.apply(*entry, path)))
      return failure();
  if (!whole.empty() && emitsRemark)
    emitRemark(UnknownLoc::get(&getContext()))
        << "tp=" << mesh.getAxisSize("tp")
        << " does not divide the heads of some attentions; every rank computes "
        << ::dshard::join(generalise(whole), ", ");
  // Not before: an error is one line. Once: all entry points hold one model.
  if (plan.empty() && emitsRemark)
    emitRemark(UnknownLoc::get(&getContext()))
        << "using the built-in tensor-parallel plan '" << chosen.name
        << "': its keys match " << matched << " of " << tree.paths().size()
        << " modules";
  return success();
}
