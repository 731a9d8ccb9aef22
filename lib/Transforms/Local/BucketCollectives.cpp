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

/// "model.layers.3.mlp.up_proj" -> "model.layers.3": up to the first number;
/// without one the root unit, "".
static std::string getUnit(llvm::StringRef path) {
  llvm::SmallVector<llvm::StringRef> words;
  path.split(words, '.');
  for (size_t i = 1; i < words.size(); ++i)
    if (!words[i].empty() && llvm::all_of(words[i], llvm::isDigit))
      return llvm::join(llvm::ArrayRef(words).take_front(i + 1), ".");
  return "";
}

/// Gathers of function arguments, all of which one op could do.
static void merge(ArrayRef<AllGatherOp> gathers) {
  AllGatherOp first = gathers.front();
  llvm::SmallVector<Value> inputs;
  llvm::SmallVector<int64_t> dims;
  llvm::SmallVector<Type> types;
  std::string why;
  for (AllGatherOp gather : gathers) {
    llvm::append_range(inputs, gather.getInputs());
    llvm::append_range(dims, gather.getDims());
    llvm::append_range(types, gather.getResultTypes());
    why += (why.empty() ? "" : "; ") + gather.getWhy().str();
  }
  OpBuilder builder(first);
  auto path = builder.getStringAttr(
      getUnit(first.getPath() ? *first.getPath() : llvm::StringRef()));
  auto merged = AllGatherOp::create(
      builder, first.getLoc(), types, inputs,
      builder.getDenseI64ArrayAttr(dims), first.getAxesAttr(),
      builder.getStringAttr(why), path, first.getPartAttr());
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
      std::string unit;
      Attribute axes, part;
      llvm::SmallVector<AllGatherOp> gathers;
    };
    std::vector<Group> groups;
    getOperation().walk([&](AllGatherOp gather) {
      auto isArgument = [](Value value) { return isa<BlockArgument>(value); };
      if (!llvm::all_of(gather.getInputs(), isArgument))
        return;
      Group own{
          gather->getBlock(),
          getUnit(gather.getPath() ? *gather.getPath() : llvm::StringRef()),
          gather.getAxesAttr(),
          gather.getPartAttr(),
          {gather}};
      for (Group &group : groups)
        if (group.block == own.block && group.unit == own.unit &&
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
