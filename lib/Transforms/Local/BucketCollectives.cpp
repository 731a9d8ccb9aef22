//===- BucketCollectives.cpp - One gather per unit ------------------------===//

#include "dshard/Transforms/Local/Passes.h"
#include "llvm/ADT/StringExtras.h"
#include <vector>

namespace mlir::dshard {
#define GEN_PASS_DEF_BUCKETCOLLECTIVESPASS
#include "dshard/Transforms/Local/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

static constexpr llvm::StringLiteral gatherParameter = "gather parameter ";

/// Names from which a reason counts instead of listing.
static constexpr size_t manyNames = 5;

/// The reasons of all: "gather parameters of UNIT: a.weight, b.weight" for
/// parameters of one unit (its path is left out of the names; many are
/// counted), else one after the other.
static std::string joinReasons(ArrayRef<AllGatherOp> gathers,
                               llvm::StringRef unit) {
  bool allParameters = llvm::all_of(gathers, [](AllGatherOp gather) {
    return gather.getWhy().starts_with(gatherParameter) &&
           !gather.getWhy().contains(';');
  });
  std::string text;
  for (AllGatherOp gather : gathers) {
    llvm::StringRef why = gather.getWhy();
    if (allParameters) {
      why.consume_front(gatherParameter);
      if (!unit.empty() && why.starts_with(unit) &&
          why.drop_front(unit.size()).starts_with("."))
        why = why.drop_front(unit.size() + 1);
      text += (text.empty() ? "" : ", ") + why.str();
    } else {
      text += (text.empty() ? "" : "; ") + why.str();
    }
  }
  if (!allParameters)
    return text;
  std::string owner = unit.empty() ? "the root unit" : unit.str();
  if (gathers.size() >= manyNames)
    return "gather the " + std::to_string(gathers.size()) + " parameters of " +
           owner;
  return "gather parameters of " + owner + ": " + text;
}

/// Gathers of function arguments, all of which one op could do.
static void merge(ArrayRef<AllGatherOp> gathers) {
  AllGatherOp first = gathers.front();
  llvm::SmallVector<Value> inputs;
  llvm::SmallVector<int64_t> dims;
  llvm::SmallVector<Type> types;
  for (AllGatherOp gather : gathers) {
    llvm::append_range(inputs, gather.getInputs());
    llvm::append_range(dims, gather.getDims());
    llvm::append_range(types, gather.getResultTypes());
    if (gather->isBeforeInBlock(first))
      first = gather;
  }
  OpBuilder builder(first);
  std::string why =
      joinReasons(gathers, first.getPath() ? *first.getPath() : "");
  auto merged = AllGatherOp::create(
      builder, first.getLoc(), types, inputs,
      builder.getDenseI64ArrayAttr(dims), first.getAxesAttr(),
      builder.getStringAttr(why), first.getPathAttr(), first.getPartAttr());
  size_t next = 0;
  for (AllGatherOp gather : gathers) {
    for (Value result : gather.getResults())
      result.replaceAllUsesWith(merged.getResult(next++));
    gather.erase();
  }
}

namespace {
struct BucketCollectivesPass
    : mlir::dshard::impl::BucketCollectivesPassBase<BucketCollectivesPass> {
  void runOnOperation() override {
    struct Group {
      Block *block;
      Attribute path, axes, part;
      llvm::SmallVector<AllGatherOp> gathers;
    };
    std::vector<Group> groups;
    getOperation().walk([&](AllGatherOp gather) {
      auto isArgument = [](Value value) { return isa<BlockArgument>(value); };
      if (!llvm::all_of(gather.getInputs(), isArgument))
        return;
      Group own{gather->getBlock(),
                gather.getPathAttr(),
                gather.getAxesAttr(),
                gather.getPartAttr(),
                {gather}};
      for (Group &group : groups)
        if (group.block == own.block && group.path == own.path &&
            group.axes == own.axes && group.part == own.part) {
          group.gathers.push_back(gather);
          return;
        }
      groups.push_back(std::move(own));
    });
    for (const Group &group : groups)
      if (group.gathers.size() > 1)
        merge(group.gathers);
  }
};
} // namespace
