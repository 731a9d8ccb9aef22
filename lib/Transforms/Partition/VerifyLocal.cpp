//===- VerifyLocal.cpp - The gate of the local phase ----------------------===//

#include "dshard/Cost/Resharding.h"
#include "dshard/Transforms/Partition/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_VERIFYLOCALPASS
#include "dshard/Transforms/Partition/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

/// The axes of a collective, or null.
static ArrayAttr getAxesOf(Operation *op) {
  if (!isa<AllGatherOp, AllReduceOp, ReduceScatterOp, AllToAllOp, BroadcastOp,
           PermuteOp, SendOp, RecvOp, LocalSliceOp, RankIndexOp>(op))
    return {};
  return op->getAttrOfType<ArrayAttr>("axes");
}

static LogicalResult verifyAxes(Operation *op, ArrayAttr axes, MeshAttr mesh,
                                int64_t &members) {
  members = 1;
  if (axes.empty())
    return op->emitOpError() << "names no axis; a group has at least two ranks";
  for (AxisRefAttr axis : axes.getAsRange<AxisRefAttr>()) {
    llvm::StringRef name = axis.getName().getValue();
    if (!mesh.hasAxis(name))
      return op->emitOpError()
             << "axis '" << name << "' is not in the mesh " << mesh;
    int64_t size = mesh.getSize(axis);
    if (size == 1)
      return op->emitOpError()
             << "axis '" << name << "' has size 1; drop the collective";
    members *= size;
  }
  return success();
}

/// local_c2: `result` is `operand` with `dim` multiplied and divided.
static LogicalResult verifySize(Operation *op, Value operand, Value result,
                                int64_t dim, int64_t times, int64_t by) {
  auto from = cast<RankedTensorType>(operand.getType());
  auto to = cast<RankedTensorType>(result.getType());
  if (dim >= 0 && dim < from.getRank() && from.getRank() == to.getRank() &&
      from.getDimSize(dim) * times == to.getDimSize(dim) * by)
    return success();
  return op->emitOpError() << "takes " << from << " and gives " << to
                           << ", but dim " << dim << " must be "
                           << (by == 1 ? "multiplied" : "divided") << " by "
                           << (by == 1 ? times : by);
}

static LogicalResult verifyCollective(Operation *op, MeshAttr mesh) {
  ArrayAttr axes = getAxesOf(op);
  if (!axes)
    return success();
  int64_t members = 1;
  if (failed(verifyAxes(op, axes, mesh, members)))
    return failure();
  auto verifyEach = [&](ArrayRef<int64_t> dims, int64_t times,
                        int64_t by) -> LogicalResult {
    for (auto [operand, result, dim] :
         llvm::zip(op->getOperands(), op->getResults(), dims))
      if (failed(verifySize(op, operand, result, dim, times, by)))
        return failure();
    return success();
  };
  if (auto gather = dyn_cast<AllGatherOp>(op))
    return verifyEach(gather.getDims(), members, 1);
  if (auto scatter = dyn_cast<ReduceScatterOp>(op))
    return verifyEach(scatter.getDims(), 1, members);
  if (auto slice = dyn_cast<LocalSliceOp>(op))
    return verifyEach({static_cast<int64_t>(slice.getDim())}, 1, members);
  if (auto exchange = dyn_cast<AllToAllOp>(op)) {
    if (failed(verifySize(op, exchange.getInput(), exchange.getResult(),
                          exchange.getSplitDim(), 1, members)))
      return failure();
    return verifySize(op, exchange.getInput(), exchange.getResult(),
                      exchange.getConcatDim(), members, 1);
  }
  if (isa<AllReduceOp, BroadcastOp, PermuteOp>(op) &&
      op->getOperandTypes() != op->getResultTypes())
    return op->emitOpError() << "changes the type of its operands";
  return success();
}

static LogicalResult verifyPathAndPart(Operation *op) {
  if (!isa_and_nonnull<DShardDialect>(op->getDialect()) ||
      isa<ConstantOp, YieldOp>(op))
    return success();
  for (llvm::StringRef name : {"path", "part"})
    if (!op->getAttr(name))
      return op->emitOpError()
             << "has no '" << name
             << "'; every op carries its module path and its part of a step";
  return success();
}

/// local_c3, local_c4 for one argument or result.
static LogicalResult verifyBoundary(func::FuncOp function, Type type,
                                    DictionaryAttr attributes,
                                    const llvm::Twine &what, MeshAttr mesh) {
  auto local = dyn_cast<RankedTensorType>(type);
  if (!local)
    return success();
  auto global =
      attributes ? attributes.getAs<TypeAttr>(globalAttrName) : TypeAttr();
  auto sharding = attributes ? attributes.getAs<ShardingAttr>(shardingAttrName)
                             : ShardingAttr();
  if (!global || !sharding)
    return function.emitError()
           << what << " has no " << globalAttrName << " or no "
           << shardingAttrName << "; the loader needs both";
  auto globalType = cast<RankedTensorType>(global.getValue());
  FailureOr<RankedTensorType> expected =
      sharding.getLocalType(globalType, mesh);
  if (failed(expected) || *expected != local)
    return function.emitError()
           << what << " has local type " << local << ", but " << globalType
           << " under " << sharding << " gives "
           << (failed(expected) ? Type() : Type(*expected));
  auto weight = attributes.getAs<WeightAttr>(weightAttrName);
  if (!weight)
    return success();
  RankedTensorType stored = weight.getType();
  ArrayRef<int64_t> shape = stored.getShape();
  bool fits = shape.size() == globalType.getShape().size();
  for (size_t dim = 0; fits && dim < shape.size(); ++dim)
    fits = shape[dim] <= globalType.getDimSize(dim);
  if (!fits)
    return function.emitError()
           << what << ": weight '" << weight.getName().getValue() << "' is "
           << stored << " in its file, but the program wants " << globalType;
  return success();
}

static LogicalResult verifyFunction(func::FuncOp function, MeshAttr mesh) {
  if (!function->hasAttr(spmdAttrName))
    return function.emitError()
           << "function is not " << spmdAttrName << "; run dshard-partition";
  for (auto [index, type] : llvm::enumerate(function.getArgumentTypes()))
    if (failed(verifyBoundary(function, type, function.getArgAttrDict(index),
                              "argument " + llvm::Twine(index), mesh)))
      return failure();
  for (auto [index, type] : llvm::enumerate(function.getResultTypes()))
    if (failed(verifyBoundary(function, type, function.getResultAttrDict(index),
                              "result " + llvm::Twine(index), mesh)))
      return failure();

  WalkResult result = function.walk([&](Operation *op) {
    if (op == function.getOperation())
      return WalkResult::advance();
    if (isa<ReshardOp>(op)) {
      op->emitOpError() << "is left in the local phase; run dshard-partition";
      return WalkResult::interrupt();
    }
    if (op->hasAttr(shardingsAttrName)) {
      op->emitOpError() << "carries " << shardingsAttrName
                        << " in the local phase, where types are local";
      return WalkResult::interrupt();
    }
    if (failed(verifyPathAndPart(op)) || failed(verifyCollective(op, mesh)))
      return WalkResult::interrupt();
    // local_c5: a condition may differ between ranks.
    if (getAxesOf(op) && !isa<LocalSliceOp, RankIndexOp>(op) &&
        op->getParentOfType<IfOp>()) {
      op->emitOpError() << "lies in a dshard.if: ranks that take the other "
                           "branch would wait for ever; move it out";
      return WalkResult::interrupt();
    }
    return WalkResult::advance();
  });
  return failure(result.wasInterrupted());
}

/// local_c6: each send finds one recv at its peer, and the other way round.
/// `functions` are the stages of one entry point, or one function without.
static LogicalResult verifyMessages(ArrayRef<func::FuncOp> functions) {
  struct Message {
    Operation *op;
    Attribute tag, axes;
    int64_t stage, peer; ///< -1: any
    Type type;
  };
  llvm::SmallVector<Message> sends, recvs;
  for (func::FuncOp function : functions) {
    auto stage = function->getAttrOfType<IntegerAttr>(stageAttrName);
    function.walk([&](Operation *op) {
      int64_t own = stage ? stage.getInt() : -1;
      if (auto send = dyn_cast<SendOp>(op))
        sends.push_back({op, send.getTagAttr(), send.getAxes(), own,
                         stage ? static_cast<int64_t>(send.getTo()) : -1,
                         send.getInput().getType()});
      if (auto recv = dyn_cast<RecvOp>(op))
        recvs.push_back({op, recv.getTagAttr(), recv.getAxes(), own,
                         stage ? static_cast<int64_t>(recv.getFrom()) : -1,
                         recv.getResult().getType()});
    });
  }
  for (auto [mine, theirs, what] :
       {std::tuple(&sends, &recvs, "recv"), std::tuple(&recvs, &sends, "send")})
    for (const Message &message : *mine) {
      const Message *partner = nullptr;
      for (const Message &other : *theirs) {
        if (message.tag != other.tag || message.axes != other.axes ||
            message.stage != other.peer || message.peer != other.stage)
          continue;
        if (partner && message.stage >= 0)
          return message.op->emitOpError()
                 << "with tag " << message.tag << " has more than one " << what;
        partner = &other;
      }
      if (!partner)
        return message.op->emitOpError()
               << "with tag " << message.tag << " has no " << what;
      if (partner->type != message.type)
        return message.op->emitOpError()
               << "with tag " << message.tag << " is of " << message.type
               << ", its " << what << " is of " << partner->type;
    }
  return success();
}

/// The stages of each entry point together, all other functions alone.
static LogicalResult verifyAllMessages(ModuleOp module) {
  SymbolTable symbols(module);
  for (auto function : module.getOps<func::FuncOp>()) {
    llvm::SmallVector<func::FuncOp> group;
    if (auto names = function->getAttrOfType<ArrayAttr>(stagesAttrName)) {
      for (auto name : names.getAsRange<StringAttr>()) {
        auto stage = symbols.lookup<func::FuncOp>(name.getValue());
        if (!stage)
          return function.emitError() << stagesAttrName << " names " << name
                                      << ", which is no function";
        group.push_back(stage);
      }
    } else if (!function->hasAttr(stageAttrName)) {
      group.push_back(function);
    }
    if (failed(verifyMessages(group)))
      return failure();
  }
  return success();
}

namespace {
struct VerifyLocalPass
    : mlir::dshard::impl::VerifyLocalPassBase<VerifyLocalPass> {
  void runOnOperation() override {
    MeshAttr mesh = getMesh(getOperation());
    if (!mesh) {
      getOperation().emitError()
          << "module has no " << meshAttrName << "; give it one with --mesh";
      return signalPassFailure();
    }
    for (auto function : getOperation().getOps<func::FuncOp>())
      if (!function.isExternal() && failed(verifyFunction(function, mesh)))
        return signalPassFailure();
    if (failed(verifyAllMessages(getOperation())))
      signalPassFailure();
  }
};
} // namespace
