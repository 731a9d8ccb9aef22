//===- Interpreter.cpp - The oracle ---------------------------------------===//
#include "dshard/Reference/Interpreter.h"
#include "dshard/Reference/Collectives.h"
#include "llvm/ADT/Sequence.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::dshard;

bool mlir::dshard::isSpmd(func::FuncOp function) {
  return function->hasAttr(spmdAttrName);
}

static RankedTensorType getGlobalType(Attribute attr, Type type) {
  if (auto global = dyn_cast_if_present<TypeAttr>(attr))
    if (auto tensor = dyn_cast<RankedTensorType>(global.getValue()))
      return tensor;
  return cast<RankedTensorType>(type);
}

RankedTensorType mlir::dshard::getGlobalArgumentType(func::FuncOp function,
                                                     unsigned index) {
  return getGlobalType(
      isSpmd(function) ? function.getArgAttr(index, globalAttrName) : nullptr,
      function.getArgumentTypes()[index]);
}

RankedTensorType mlir::dshard::getGlobalResultType(func::FuncOp function,
                                                   unsigned index) {
  return getGlobalType(isSpmd(function)
                           ? function.getResultAttr(index, globalAttrName)
                           : nullptr,
                       function.getResultTypes()[index]);
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

RankTensor Interpreter::get(Value value, Ranks ranks) const {
  RankTensor tensor;
  for (int64_t rank : ranks)
    tensor.push_back(values[rank].lookup(value));
  return tensor;
}

void Interpreter::set(Value value, const RankTensor &tensor, Ranks ranks) {
  for (auto [rank, local] : llvm::zip_equal(ranks, tensor))
    values[rank][value] = local;
}

void Interpreter::set(ValueRange targets, ArrayRef<RankTensor> tensors,
                      Ranks ranks) {
  for (auto [target, tensor] : llvm::zip_equal(targets, tensors))
    set(target, tensor, ranks);
}

SharedTensor Interpreter::share(HostTensor tensor) const {
  if (precision == Precision::model ||
      isa<IntegerType>(tensor.type.getElementType()))
    tensor.roundToElementType();
  return std::make_shared<HostTensor>(std::move(tensor));
}

void Interpreter::dropDeadValues(Operation *op, Ranks ranks) {
  Block *block = op->getBlock();
  auto isDead = [&](Value value) {
    return value.getParentBlock() == block &&
           llvm::all_of(value.getUsers(), [&](Operation *user) {
             Operation *ancestor = block->findAncestorOpInBlock(*user);
             return ancestor == op || ancestor->isBeforeInBlock(op);
           });
  };
  for (ValueRange candidates :
       {ValueRange(op->getOperands()), ValueRange(op->getResults())})
    for (Value value : candidates)
      if (isDead(value))
        for (int64_t rank : ranks)
          values[rank].erase(value);
}

//===----------------------------------------------------------------------===//
// Ops
//===----------------------------------------------------------------------===//

LogicalResult Interpreter::runCompute(Operation *op, Ranks ranks) {
  auto evaluable = dyn_cast<EvaluateInterface>(op);
  if (!evaluable)
    return op->emitOpError("has no reference value");
  SmallVector<RankTensor> operands, results(op->getNumResults());
  for (Value operand : op->getOperands())
    operands.push_back(get(operand, ranks));
  for (size_t i = 0; i < ranks.size(); ++i) {
    // The value is a function of the operands: ranks that share them share it.
    bool isRepeated =
        i > 0 && llvm::all_of(operands, [&](const RankTensor &operand) {
          return operand[i] == operand[i - 1];
        });
    if (isRepeated) {
      for (RankTensor &result : results)
        result.push_back(result.back());
      continue;
    }
    SmallVector<HostTensor> inputs, outputs;
    for (const RankTensor &operand : operands)
      inputs.push_back(*operand[i]);
    if (failed(evaluable.evaluate(inputs, outputs)))
      return failure();
    for (auto [result, output] : llvm::zip_equal(results, outputs))
      result.push_back(share(std::move(output)));
  }
  set(op->getResults(), results, ranks);
  return success();
}

LogicalResult Interpreter::runCollective(Operation *op, Ranks ranks) {
  SmallVector<AxisRefAttr> axes = getAxesOf(op);
  for (int64_t rank : ranks) {
    SmallVector<int64_t> group = mesh.getGroup(rank, axes);
    if (group.front() != rank)
      continue; // done with its first member
    SmallVector<GroupValues> operands, results;
    for (Value operand : op->getOperands())
      operands.push_back(get(operand, group));
    if (failed(evaluateCollective(op, operands, results)))
      return failure();
    // A moved value is as it was; a reduced one is new and is rounded, once.
    bool isReduced = isa<AllReduceOp, ReduceScatterOp>(op);
    for (auto [target, result] : llvm::zip_equal(op->getResults(), results)) {
      llvm::DenseMap<const HostTensor *, SharedTensor> rounded;
      for (SharedTensor &value : result) {
        if (!isReduced)
          break;
        SharedTensor &entry = rounded[value.get()];
        if (!entry)
          entry = share(*value);
        value = entry;
      }
      set(target, result, group);
    }
  }
  return success();
}

LogicalResult Interpreter::runLocalSlice(LocalSliceOp op, Ranks ranks) {
  SmallVector<AxisRefAttr> axes = getAxesOf(op);
  auto type = cast<RankedTensorType>(op.getResult().getType());
  RankTensor result;
  for (int64_t rank : ranks) {
    SmallVector<int64_t> offsets(type.getRank(), 0);
    offsets[op.getDim()] =
        mesh.getIndexIn(rank, axes) * type.getDimSize(op.getDim());
    result.push_back(std::make_shared<HostTensor>(
        extractBox(*values[rank].lookup(op.getInput()), offsets, type)));
  }
  set(op.getResult(), result, ranks);
  return success();
}

LogicalResult Interpreter::runRankIndex(RankIndexOp op, Ranks ranks) {
  SmallVector<AxisRefAttr> axes = getAxesOf(op);
  auto type = cast<RankedTensorType>(op.getResult().getType());
  RankTensor result;
  for (int64_t rank : ranks)
    result.push_back(
        std::make_shared<HostTensor>(type, mesh.getIndexIn(rank, axes)));
  set(op.getResult(), result, ranks);
  return success();
}

LogicalResult Interpreter::runRepeat(RepeatOp op, Ranks ranks) {
  Block &body = op.getBody().front();
  SmallVector<RankTensor> carried;
  for (Value value : op.getInitial())
    carried.push_back(get(value, ranks));
  auto counterType = cast<RankedTensorType>(body.getArgument(0).getType());
  for (int64_t i = 0, count = op.getCount(); i < count; ++i) {
    auto counter = std::make_shared<HostTensor>(counterType, i);
    set(body.getArgument(0), RankTensor(ranks.size(), counter), ranks);
    set(body.getArguments().drop_front(), carried, ranks);
    SmallVector<RankTensor> next;
    if (failed(runBlock(body, ranks, next)))
      return failure();
    carried = std::move(next);
  }
  set(op.getResults(), carried, ranks);
  return success();
}

LogicalResult Interpreter::runIf(IfOp op, Ranks ranks) {
  SmallVector<int64_t> taken, other;
  for (int64_t rank : ranks)
    (values[rank].lookup(op.getCondition())->data[0] != 0 ? taken : other)
        .push_back(rank);
  for (auto [region, branch] : {std::pair(&op.getThenRegion(), &taken),
                                std::pair(&op.getElseRegion(), &other)}) {
    if (branch->empty())
      continue;
    SmallVector<RankTensor> yielded;
    if (failed(runBlock(region->front(), *branch, yielded)))
      return failure();
    set(op.getResults(), yielded, *branch);
  }
  return success();
}

LogicalResult Interpreter::runFused(FusedOp op, Ranks ranks) {
  Block &body = op.getBody().front();
  for (auto [argument, input] :
       llvm::zip_equal(body.getArguments(), op.getInputs()))
    set(argument, get(input, ranks), ranks);
  SmallVector<RankTensor> yielded;
  if (failed(runBlock(body, ranks, yielded)))
    return failure();
  set(op.getResults(), yielded, ranks);
  return success();
}

LogicalResult Interpreter::runOp(Operation *op, Ranks ranks) {
  if (isCollective(op) || isa<LocalSliceOp, RankIndexOp>(op)) {
    if (!mesh || !isSpmd(op->getParentOfType<func::FuncOp>()))
      return op->emitOpError("needs a function with dshard.spmd in a module "
                             "with dshard.mesh");
    for (int64_t rank : ranks) // a branch of dshard.if that some ranks took
      for (int64_t member : mesh.getGroup(rank, getAxesOf(op)))
        if (isCollective(op) && !llvm::is_contained(ranks, member))
          return op->emitOpError("rank ")
                 << rank << " reaches this collective and rank " << member
                 << " of its group does not: the condition of dshard.if must "
                    "be "
                    "uniform over the group";
  }
  return llvm::TypeSwitch<Operation *, LogicalResult>(op)
      .Case<AllGatherOp, AllReduceOp, ReduceScatterOp, AllToAllOp, BroadcastOp,
            PermuteOp>([&](auto op) { return runCollective(op, ranks); })
      .Case([&](LocalSliceOp op) { return runLocalSlice(op, ranks); })
      .Case([&](RankIndexOp op) { return runRankIndex(op, ranks); })
      .Case([&](RepeatOp op) { return runRepeat(op, ranks); })
      .Case([&](IfOp op) { return runIf(op, ranks); })
      .Case([&](FusedOp op) { return runFused(op, ranks); })
      .Case<SendOp, RecvOp>([&](Operation *op) {
        return op->emitOpError(
            "pipeline stages are not interpreted yet; interpret a program "
            "without pp, or an earlier phase");
      })
      .Default([&](Operation *op) { return runCompute(op, ranks); });
}

LogicalResult Interpreter::runBlock(Block &block, Ranks ranks,
                                    SmallVectorImpl<RankTensor> &yielded) {
  for (Operation &op : block.without_terminator()) {
    if (failed(runOp(&op, ranks)))
      return failure();
    dropDeadValues(&op, ranks);
  }
  for (Value value : block.getTerminator()->getOperands())
    yielded.push_back(get(value, ranks));
  return success();
}

LogicalResult Interpreter::run(func::FuncOp function,
                               ArrayRef<RankTensor> arguments,
                               SmallVectorImpl<RankTensor> &results) {
  if (function.isExternal() || !function.getBody().hasOneBlock())
    return function.emitOpError("needs a body of one block");
  SmallVector<int64_t> ranks =
      llvm::to_vector(llvm::seq<int64_t>(0, values.size()));
  Block &body = function.getBody().front();
  set(body.getArguments(), arguments, ranks);
  return runBlock(body, ranks, results);
}

//===----------------------------------------------------------------------===//
// Functions on global values
//===----------------------------------------------------------------------===//

static LogicalResult interpretGlobal(func::FuncOp function,
                                     ArrayRef<HostTensor> arguments,
                                     Precision precision,
                                     SmallVectorImpl<HostTensor> &results) {
  SmallVector<RankTensor> operands, outputs;
  MeshAttr mesh = getMesh(function);
  for (auto [index, argument] : llvm::enumerate(arguments))
    operands.push_back({std::make_shared<HostTensor>(
        reorderAtBoundary(argument, function.getArgAttrDict(index), mesh,
                          /*inverse=*/false))});
  Interpreter interpreter(nullptr, 1, precision);
  if (failed(interpreter.run(function, operands, outputs)))
    return failure();
  for (auto [index, output] : llvm::enumerate(outputs))
    results.push_back(reorderAtBoundary(
        *output[0], function.getResultAttrDict(index), mesh, /*inverse=*/true));
  return success();
}

/// The sharding in an argument's or result's attributes; replicated if none.
static ShardingAttr getShardingOrReplicated(Attribute attr,
                                            RankedTensorType type) {
  if (auto sharding = dyn_cast_if_present<ShardingAttr>(attr))
    return sharding;
  return ShardingAttr::getReplicated(type.getContext(), type.getRank());
}

static LogicalResult interpretLocal(func::FuncOp function,
                                    ArrayRef<HostTensor> arguments,
                                    Precision precision,
                                    SmallVectorImpl<HostTensor> &results) {
  MeshAttr mesh = getMesh(function);
  if (!mesh)
    return function.emitOpError(
        "has dshard.spmd, but its module has no dshard.mesh");
  SmallVector<RankTensor> operands, outputs;
  for (auto [index, argument] : llvm::enumerate(arguments)) {
    auto emitError = [&, index = index] {
      return function.emitOpError("argument ") << index << ": ";
    };
    ShardingAttr sharding = getShardingOrReplicated(
        function.getArgAttr(index, shardingAttrName), argument.type);
    FailureOr<RankTensor> local =
        scatter(reorderAtBoundary(argument, function.getArgAttrDict(index),
                                  mesh, /*inverse=*/false),
                sharding, mesh, emitError);
    if (failed(local))
      return failure();
    Type type = function.getArgumentTypes()[index];
    if (local->front()->type != type)
      return emitError() << "has type " << type << ", but " << argument.type
                         << " sharded " << sharding << " gives "
                         << local->front()->type;
    operands.push_back(std::move(*local));
  }
  Interpreter interpreter(mesh, mesh.getNumRanks(), precision);
  if (failed(interpreter.run(function, operands, outputs)))
    return failure();
  for (auto [index, output] : llvm::enumerate(outputs)) {
    RankedTensorType global = getGlobalResultType(function, index);
    ShardingAttr sharding = getShardingOrReplicated(
        function.getResultAttr(index, shardingAttrName), global);
    FailureOr<HostTensor> result =
        gather(output, global, sharding, mesh, [&, index = index] {
          return function.emitOpError("result ") << index << ": ";
        });
    if (failed(result))
      return failure();
    results.push_back(reorderAtBoundary(
        *result, function.getResultAttrDict(index), mesh, /*inverse=*/true));
  }
  return success();
}

LogicalResult mlir::dshard::interpret(func::FuncOp function,
                                      ArrayRef<HostTensor> arguments,
                                      Precision precision,
                                      SmallVectorImpl<HostTensor> &results) {
  return isSpmd(function)
             ? interpretLocal(function, arguments, precision, results)
             : interpretGlobal(function, arguments, precision, results);
}
