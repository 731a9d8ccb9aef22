//===- BucketCollectives.cpp - One collective per unit --------------------===//

#include "dshard/Transforms/Local/Passes.h"
#include "llvm/ADT/StringExtras.h"
#include <vector>

namespace mlir::dshard {
#define GEN_PASS_DEF_BUCKETCOLLECTIVESPASS
#include "dshard/Transforms/Local/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

/// What `dshard-fully-shard` says of one parameter, and how a bucket says it.
struct Wording {
  llvm::StringLiteral one, few, many;
};
static constexpr Wording wordings[] = {
    {"gather parameter ", "gather parameters of ", "gather the "},
    {"reduce gradient of ", "reduce gradients of ", "reduce the gradients of "},
    {"gather updated parameter ", "gather updated parameters of ",
     "gather the updated "},
};

/// Names from which a reason counts instead of listing.
static constexpr size_t manyNames = 5;

static StringRef getWhy(Operation *op) {
  auto why = op->getAttrOfType<StringAttr>("why");
  return why ? why.getValue() : StringRef();
}

static StringRef getPath(Operation *op) {
  auto path = op->getAttrOfType<StringAttr>("path");
  return path ? path.getValue() : StringRef();
}

/// The reasons of all: "gather parameters of UNIT: a.weight, b.weight" for
/// parameters of one unit (its path is left out of the names; many are
/// counted), else one after the other.
static std::string joinReasons(ArrayRef<Operation *> ops) {
  StringRef unit = getPath(ops.front());
  bool isOneUnit =
      llvm::all_of(ops, [&](Operation *op) { return getPath(op) == unit; });
  const Wording *wording = llvm::find_if(wordings, [&](const Wording &own) {
    return llvm::all_of(ops, [&](Operation *op) {
      return getWhy(op).starts_with(own.one) && !getWhy(op).contains(';');
    });
  });
  bool isWorded = wording != std::end(wordings);
  std::string count = std::to_string(ops.size());
  std::string owner = !isOneUnit     ? "several units"
                      : unit.empty() ? "the root unit"
                                     : unit.str();
  if (isWorded && ops.size() >= manyNames)
    return (wording->many + count + " parameters of " + owner).str();
  if (ops.size() >= manyNames)
    return count + " values: " + getWhy(ops.front()).str() + "; ...; " +
           getWhy(ops.back()).str();
  std::string text;
  for (Operation *op : ops) {
    StringRef why = getWhy(op);
    if (isWorded) {
      why.consume_front(wording->one);
      if (isOneUnit && !unit.empty() && why.starts_with(unit) &&
          why.drop_front(unit.size()).starts_with("."))
        why = why.drop_front(unit.size() + 1);
    }
    text += (text.empty() ? "" : isWorded ? ", " : "; ") + why.str();
  }
  return isWorded ? (wording->few + owner + ": " + text).str() : text;
}

/// The common part of the modules' paths.
static StringAttr joinPaths(ArrayRef<Operation *> ops) {
  StringRef path = getPath(ops.front());
  for (Operation *op : ops)
    while (!path.empty() && getPath(op) != path &&
           !(getPath(op).starts_with(path) &&
             getPath(op).drop_front(path.size()).starts_with(".")))
      path = path.contains('.') ? path.rsplit('.').first : StringRef();
  return StringAttr::get(ops.front()->getContext(), path);
}

/// One op in the place of `place` that does what all of `ops` do: collectives
/// of one kind over the same axes.
static Operation *merge(ArrayRef<Operation *> ops, Operation *place) {
  OpBuilder builder(place);
  OperationState state(place->getLoc(), place->getName());
  SmallVector<int64_t> dims;
  for (Operation *op : ops) {
    state.addOperands(op->getOperands());
    state.addTypes(op->getResultTypes());
    if (auto own = op->getAttrOfType<DenseI64ArrayAttr>("dims"))
      llvm::append_range(dims, own.asArrayRef());
  }
  state.addAttributes(ops.front()->getAttrDictionary().getValue());
  state.attributes.set("why", builder.getStringAttr(joinReasons(ops)));
  state.attributes.set("path", joinPaths(ops));
  if (state.attributes.get("dims"))
    state.attributes.set("dims", builder.getDenseI64ArrayAttr(dims));
  Operation *merged = builder.create(state);
  size_t next = 0;
  for (Operation *op : ops)
    for (Value result : op->getResults())
      result.replaceAllUsesWith(merged->getResult(next++));
  for (Operation *op : ops)
    op->erase();
  return merged;
}

//===----------------------------------------------------------------------===//
// What may be merged
//===----------------------------------------------------------------------===//

namespace {
/// Collectives that are one, if they do not need each other.
struct Group {
  Block *block;
  OperationName name;
  Attribute path, axes, part, kind;
  bool isEarly; ///< gathers of arguments: ready from the start
  SmallVector<Operation *> ops;

  bool matches(const Group &other) const {
    return block == other.block && name == other.name && path == other.path &&
           axes == other.axes && part == other.part && kind == other.kind &&
           isEarly == other.isEarly;
  }
};
} // namespace

static Part getPart(Operation *op) {
  auto part = op->getAttrOfType<PartAttr>("part");
  return part ? part.getValue() : Part::forward;
}

/// Nothing of the backward part waits for it: gradients, norms, updated
/// parameters.
static bool isForOptimizer(Operation *op) {
  if (!isa<AllReduceOp, ReduceScatterOp, AllGatherOp>(op))
    return false;
  if (getPart(op) == Part::optimizer)
    return true;
  return getPart(op) == Part::backward &&
         llvm::all_of(op->getUsers(), [&](Operation *user) {
           return user->hasTrait<OpTrait::IsTerminator>() ||
                  getPart(user) == Part::optimizer ||
                  (user->getBlock() == op->getBlock() && isForOptimizer(user));
         });
}

/// Norms' gradients, and scalars: so small that they need not go by unit.
static bool isVector(Operation *op) {
  return llvm::all_of(op->getOperandTypes(), [](Type type) {
    return cast<RankedTensorType>(type).getRank() <= 1;
  });
}

static std::vector<Group> findGroups(ModuleOp module) {
  std::vector<Group> groups;
  auto add = [&](Group own, Operation *op) {
    auto it = llvm::find_if(
        groups, [&](const Group &group) { return group.matches(own); });
    if (it == groups.end())
      it = groups.insert(groups.end(), std::move(own));
    it->ops.push_back(op);
  };
  module.walk([&](Operation *op) {
    if (!isa<AllReduceOp, ReduceScatterOp, AllGatherOp>(op) ||
        op->getNumOperands() == 0)
      return;
    bool isEarly = isa<AllGatherOp>(op) &&
                   llvm::all_of(op->getOperands(), [](Value value) {
                     return isa<BlockArgument>(value);
                   });
    if (isEarly || isForOptimizer(op))
      add({op->getBlock(),
           op->getName(),
           op->getAttr("path"),
           op->getAttr("axes"),
           op->getAttr("part"),
           op->getAttr("kind"),
           isEarly,
           {}},
          op);
  });
  // Groups of all units are one where all of them hold only vectors.
  std::vector<Group> joined;
  for (Group &group : groups) {
    auto isSibling = [&](const Group &other) {
      Group same = other;
      same.path = group.path;
      return same.matches(group);
    };
    bool isSmall = !group.isEarly &&
                   group.name.getStringRef() == AllReduceOp::getOperationName();
    for (const Group &other : groups)
      if (isSibling(other))
        isSmall = isSmall && llvm::all_of(other.ops, isVector);
    auto it = isSmall ? llvm::find_if(joined, isSibling) : joined.end();
    if (it == joined.end())
      joined.push_back(group);
    else
      llvm::append_range(it->ops, group.ops);
  }
  return joined;
}

//===----------------------------------------------------------------------===//
// Merging what becomes ready late
//===----------------------------------------------------------------------===//

/// Whether `op` or what it holds reads a result of an op in `of`.
static bool readsFrom(Operation *op,
                      const llvm::SmallDenseSet<Operation *> &of) {
  bool reads = false;
  op->walk([&](Operation *inner) {
    for (Value operand : inner->getOperands())
      reads |= operand.getDefiningOp() && of.contains(operand.getDefiningOp());
  });
  return reads;
}

/// The ops from behind `first` up to `last` that need a result of `of`.
static SmallVector<Operation *>
findDependents(Operation *first, Operation *last,
               llvm::SmallDenseSet<Operation *> of) {
  SmallVector<Operation *> found;
  for (Operation *op = first->getNextNode(); op; op = op->getNextNode()) {
    if (readsFrom(op, of)) {
      found.push_back(op);
      of.insert(op);
    }
    if (op == last)
      break;
  }
  return found;
}

/// Merges at the last of them, where the last operand is ready, as many as do
/// not need each other; what needs an earlier one moves behind it.
static void mergeLate(SmallVector<Operation *> ops) {
  llvm::sort(ops, [](Operation *lhs, Operation *rhs) {
    return lhs->isBeforeInBlock(rhs);
  });
  while (!ops.empty()) {
    SmallVector<Operation *> together = {ops.front()}, rest;
    llvm::SmallDenseSet<Operation *> set = {ops.front()};
    for (Operation *op : llvm::drop_begin(ops)) {
      if (llvm::is_contained(findDependents(together.front(), op, set), op)) {
        rest.push_back(op);
        continue;
      }
      together.push_back(op);
      set.insert(op);
    }
    if (together.size() > 1) {
      Operation *last = together.back();
      SmallVector<Operation *> dependents =
          findDependents(together.front(), last, set);
      Operation *place = last;
      for (Operation *op : dependents) {
        op->moveAfter(place);
        place = op;
      }
      merge(together, last);
    }
    ops = std::move(rest);
  }
}

namespace {
struct BucketCollectivesPass
    : mlir::dshard::impl::BucketCollectivesPassBase<BucketCollectivesPass> {
  void runOnOperation() override {
    for (Group &group : findGroups(getOperation())) {
      if (group.ops.size() < 2)
        continue;
      if (!group.isEarly) {
        mergeLate(group.ops);
        continue;
      }
      Operation *first = group.ops.front();
      for (Operation *op : group.ops)
        if (op->isBeforeInBlock(first))
          first = op;
      merge(group.ops, first);
    }
  }
};
} // namespace
