//===- Cse.cpp - Compute equal values once --------------------------------===//

#include "Match.h"
#include "dshard/Transforms/Graph/Passes.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/Hashing.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_CSEPASS
#include "dshard/Transforms/Graph/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

/// The attributes that make a value what it is.
static DictionaryAttr getMeaning(Operation *op) {
  SmallVector<NamedAttribute> kept;
  for (NamedAttribute attribute : op->getAttrDictionary())
    if (!llvm::is_contained(
            {StringRef("path"), StringRef("why"), StringRef(originAttrName)},
            attribute.getName().strref()))
      kept.push_back(attribute);
  return DictionaryAttr::get(op->getContext(), kept);
}

/// "model.layers.0.mlp", "model.layers.1" -> "model.layers"
static std::string getCommonPath(StringRef a, StringRef b) {
  if (a == b)
    return a.str();
  SmallVector<StringRef> left, right;
  a.split(left, '.');
  b.split(right, '.');
  std::string path;
  for (auto [x, y] : llvm::zip(left, right)) {
    if (x != y)
      break;
    path += (path.empty() ? "" : ".") + x.str();
  }
  return path;
}

/// `kept` stands for `dropped` as well.
static void mergeNames(Operation *kept, Operation *dropped) {
  MLIRContext *context = kept->getContext();
  if (StringAttr a = getPathOf(kept), b = getPathOf(dropped); a && b && a != b)
    kept->setAttr("path", StringAttr::get(context, getCommonPath(a, b)));
  auto a = kept->getAttrOfType<StringAttr>("why"),
       b = dropped->getAttrOfType<StringAttr>("why");
  if (!a || !b)
    return;
  SmallVector<StringRef> whys;
  a.getValue().split(whys, "; ");
  std::string text = a.str();
  SmallVector<StringRef> more;
  b.getValue().split(more, "; ");
  for (StringRef why : more)
    if (!llvm::is_contained(whys, why))
      text += "; " + why.str();
  kept->setAttr("why", StringAttr::get(context, text));
}

namespace {
struct CsePass : mlir::dshard::impl::CsePassBase<CsePass> {
  void runOnBlock(Block &block) {
    // Buckets by hash; equal hashes are compared.
    llvm::DenseMap<size_t, SmallVector<std::pair<Operation *, DictionaryAttr>>>
        seen;
    for (Operation &op : llvm::make_early_inc_range(block)) {
      for (Region &region : op.getRegions())
        for (Block &inner : region)
          runOnBlock(inner);
      if (!isa_and_nonnull<DShardDialect>(op.getDialect()) || !isPure(&op) ||
          op.getNumRegions() != 0 || op.hasTrait<OpTrait::IsTerminator>())
        continue;
      DictionaryAttr meaning = getMeaning(&op);
      size_t hash = llvm::hash_combine(
          op.getName(), meaning,
          llvm::hash_combine_range(op.operand_begin(), op.operand_end()),
          llvm::hash_combine_range(op.result_type_begin(),
                                   op.result_type_end()));
      auto &bucket = seen[hash];
      auto *same = llvm::find_if(bucket, [&](auto &entry) {
        Operation *other = entry.first;
        return other->getName() == op.getName() && entry.second == meaning &&
               llvm::equal(other->getOperands(), op.getOperands()) &&
               other->getResultTypes() == op.getResultTypes();
      });
      if (same == bucket.end()) {
        bucket.push_back({&op, meaning});
        continue;
      }
      mergeNames(same->first, &op);
      op.replaceAllUsesWith(same->first->getResults());
      op.erase();
    }
  }

  void runOnOperation() override {
    for (Region &region : getOperation()->getRegions())
      for (Block &block : region)
        runOnBlock(block);
  }
};
} // namespace
