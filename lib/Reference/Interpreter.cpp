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

/// Global types of one run of the function: of one micro-batch.
static RankedTensorType getArgumentTypeOfRun(func::FuncOp function,
                                             unsigned index) {
  return getGlobalType(
      isSpmd(function) ? function.getArgAttr(index, globalAttrName) : nullptr,
      function.getArgumentTypes()[index]);
}

static RankedTensorType getResultTypeOfRun(func::FuncOp function,
                                           unsigned index) {
  return getGlobalType(isSpmd(function)
                           ? function.getResultAttr(index, globalAttrName)
                           : nullptr,
                       function.getResultTypes()[index]);
}

static int64_t getMicroBatches(func::FuncOp function) {
  auto count = function->getAttrOfType<IntegerAttr>(microBatchesAttrName);
  return count ? std::max<int64_t>(count.getInt(), 1) : 1;
}

static RankedTensorType withWholeBatch(RankedTensorType type, bool isBatched,
                                       func::FuncOp function) {
  if (!isBatched || type.getRank() == 0)
    return type;
  SmallVector<int64_t> shape(type.getShape());
  shape[0] *= getMicroBatches(function);
  return type.clone(shape);
}

RankedTensorType mlir::dshard::getGlobalArgumentType(func::FuncOp function,
                                                     unsigned index) {
  return withWholeBatch(
      getArgumentTypeOfRun(function, index),
      function.getArgAttr(index, microBatchedAttrName) != nullptr, function);
}

RankedTensorType mlir::dshard::getGlobalResultType(func::FuncOp function,
                                                   unsigned index) {
  return withWholeBatch(
      getResultTypeOfRun(function, index),
      function.getResultAttr(index, microBatchedAttrName) != nullptr, function);
}

SmallVector<func::FuncOp> mlir::dshard::getStages(func::FuncOp function) {
  SmallVector<func::FuncOp> stages;
  auto names = function->getAttrOfType<ArrayAttr>(stagesAttrName);
  auto module = function->getParentOfType<ModuleOp>();
  if (names && module)
    for (Attribute name : names)
      stages.push_back(isa<StringAttr>(name)
                           ? module.lookupSymbol<func::FuncOp>(
                                 cast<StringAttr>(name).getValue())
                           : func::FuncOp());
  return stages;
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

/// The number of the stage that an op belongs to.
static int64_t getStageOf(Operation *op) {
  auto stage = op->getParentOfType<func::FuncOp>()->getAttrOfType<IntegerAttr>(
      stageAttrName);
  return stage ? stage.getInt() : 0;
}

int64_t Interpreter::getSelf(Operation *op, int64_t rank) const {
  return mesh ? rank : getStageOf(op);
}

int64_t Interpreter::getPeer(Operation *op, int64_t rank, int64_t peer) const {
  return mesh ? mesh.getGroup(rank, getAxesOf(op))[peer] : peer;
}

LogicalResult Interpreter::runSend(SendOp op, Ranks ranks) {
  for (int64_t rank : ranks)
    messages[{getSelf(op, rank), getPeer(op, rank, op.getTo()),
              static_cast<int64_t>(op.getTag())}]
        .push_back(values[rank].lookup(op.getInput()));
  return success();
}

LogicalResult Interpreter::runRecv(RecvOp op, Ranks ranks) {
  RankTensor result;
  for (int64_t rank : ranks) {
    int64_t from = getPeer(op, rank, op.getFrom());
    std::deque<SharedTensor> &queue =
        messages[{from, getSelf(op, rank), static_cast<int64_t>(op.getTag())}];
    if (queue.empty())
      return op->emitOpError()
             << (mesh ? "rank " : "stage ") << getSelf(op, rank)
             << " waits for ever: " << from << " has sent nothing with tag "
             << op.getTag();
    if (queue.front()->type != op.getResult().getType())
      return op->emitOpError()
             << (mesh ? "rank " : "stage ") << getSelf(op, rank) << " receives "
             << queue.front()->type << ", expected "
             << op.getResult().getType();
    result.push_back(queue.front());
    queue.pop_front();
  }
  set(op.getResult(), result, ranks);
  return success();
}

LogicalResult Interpreter::checkReceived(func::FuncOp function) const {
  for (const auto &[channel, queue] : messages)
    if (!queue.empty())
      return function.emitError()
             << "value with tag " << std::get<2>(channel) << " sent by "
             << (mesh ? "rank " : "stage ") << std::get<0>(channel) << " to "
             << std::get<1>(channel) << " is never received";
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
      .Case([&](SendOp op) { return runSend(op, ranks); })
      .Case([&](RecvOp op) { return runRecv(op, ranks); })
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
  return run(function, llvm::to_vector(llvm::seq<int64_t>(0, values.size())),
             arguments, results);
}

LogicalResult Interpreter::run(func::FuncOp function, ArrayRef<int64_t> ranks,
                               ArrayRef<RankTensor> arguments,
                               SmallVectorImpl<RankTensor> &results) {
  if (function.isExternal() || !function.getBody().hasOneBlock())
    return function.emitOpError("needs a body of one block");
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

/// What each rank holds of the arguments of an SPMD function.
static LogicalResult scatterArguments(func::FuncOp function, MeshAttr mesh,
                                      ArrayRef<HostTensor> arguments,
                                      SmallVectorImpl<RankTensor> &operands) {
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
  return success();
}

/// The global value of result `index` of an SPMD function.
static FailureOr<HostTensor> gatherResult(func::FuncOp function, MeshAttr mesh,
                                          unsigned index,
                                          const RankTensor &output) {
  RankedTensorType global = getResultTypeOfRun(function, index);
  ShardingAttr sharding = getShardingOrReplicated(
      function.getResultAttr(index, shardingAttrName), global);
  FailureOr<HostTensor> result = gather(output, global, sharding, mesh, [&] {
    return function.emitOpError("result ") << index << ": ";
  });
  if (failed(result))
    return failure();
  return reorderAtBoundary(*result, function.getResultAttrDict(index), mesh,
                           /*inverse=*/true);
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
  if (failed(scatterArguments(function, mesh, arguments, operands)))
    return failure();
  Interpreter interpreter(mesh, mesh.getNumRanks(), precision);
  if (failed(interpreter.run(function, operands, outputs)))
    return failure();
  for (auto [index, output] : llvm::enumerate(outputs)) {
    FailureOr<HostTensor> result = gatherResult(function, mesh, index, output);
    if (failed(result))
      return failure();
    results.push_back(std::move(*result));
  }
  return success();
}

//===----------------------------------------------------------------------===//
// Pipelines and micro-batches
//===----------------------------------------------------------------------===//

/// Position in the entry point's signature; `fallback` where nothing says so.
static unsigned getPosition(Attribute attribute, unsigned fallback) {
  auto position = dyn_cast_if_present<IntegerAttr>(attribute);
  return position ? static_cast<unsigned>(position.getInt()) : fallback;
}

/// One stage, on its ranks. `interpreter` holds what other stages have sent.
static LogicalResult interpretStage(func::FuncOp stage, int64_t coordinate,
                                    MeshAttr mesh, Interpreter &interpreter,
                                    ArrayRef<HostTensor> arguments,
                                    MutableArrayRef<HostTensor> results) {
  SmallVector<HostTensor> own;
  for (unsigned i = 0; i < stage.getNumArguments(); ++i) {
    unsigned position = getPosition(stage.getArgAttr(i, indexAttrName), i);
    if (position >= arguments.size())
      return stage.emitOpError("argument ")
             << i << " is at position " << position << " of "
             << arguments.size();
    own.push_back(arguments[position]);
  }
  SmallVector<RankTensor> operands, outputs;
  SmallVector<int64_t> ranks = {0}; // a global program has one
  auto pp = AxisRefAttr::get(stage.getContext(), "pp");
  if (!isSpmd(stage)) {
    for (auto [index, argument] : llvm::enumerate(own))
      operands.push_back({std::make_shared<HostTensor>(
          reorderAtBoundary(argument, stage.getArgAttrDict(index), mesh,
                            /*inverse=*/false))});
  } else {
    ranks.clear();
    for (int64_t rank = 0; rank < mesh.getNumRanks(); ++rank)
      if (mesh.getIndexIn(rank, {pp}) == coordinate)
        ranks.push_back(rank);
    SmallVector<RankTensor> everywhere;
    if (failed(scatterArguments(stage, mesh, own, everywhere)))
      return failure();
    for (const RankTensor &argument : everywhere) {
      RankTensor &operand = operands.emplace_back();
      for (int64_t rank : ranks)
        operand.push_back(argument[rank]);
    }
  }
  if (failed(interpreter.run(stage, ranks, operands, outputs)))
    return failure();
  for (auto [index, output] : llvm::enumerate(outputs)) {
    unsigned position =
        getPosition(stage.getResultAttr(index, indexAttrName), index);
    if (position >= results.size())
      return stage.emitOpError("result ")
             << index << " is at position " << position << " of "
             << results.size();
    if (!isSpmd(stage)) {
      results[position] = reorderAtBoundary(
          *output[0], stage.getResultAttrDict(index), mesh, /*inverse=*/true);
      continue;
    }
    // No value is sharded over pp: the other stages' ranks count as copies.
    RankTensor everywhere(mesh.getNumRanks());
    for (auto [rank, value] : llvm::zip_equal(ranks, output))
      for (int64_t copy : mesh.getGroup(rank, {pp}))
        everywhere[copy] = value;
    FailureOr<HostTensor> result = gatherResult(stage, mesh, index, everywhere);
    if (failed(result))
      return failure();
    results[position] = std::move(*result);
  }
  return success();
}

static LogicalResult interpretStages(func::FuncOp function,
                                     ArrayRef<func::FuncOp> stages,
                                     ArrayRef<HostTensor> arguments,
                                     Precision precision,
                                     SmallVectorImpl<HostTensor> &results) {
  MeshAttr mesh = getMesh(function);
  for (func::FuncOp stage : stages)
    if (!stage || isSpmd(stage) != isSpmd(stages.front()))
      return function.emitOpError("names stages in ")
             << stagesAttrName << " that are no functions, or not of one phase";
  bool isLocal = isSpmd(stages.front());
  if (isLocal &&
      (!mesh || mesh.getAxisSize("pp") != static_cast<int64_t>(stages.size())))
    return function.emitOpError("has ")
           << stages.size() << " stages, the mesh has pp="
           << (mesh ? mesh.getAxisSize("pp") : 1);
  Interpreter interpreter(isLocal ? mesh : MeshAttr(),
                          isLocal ? mesh.getNumRanks() : 1, precision);
  SmallVector<HostTensor> found(function.getNumResults());
  for (auto [coordinate, stage] : llvm::enumerate(stages))
    if (failed(interpretStage(stage, coordinate, mesh, interpreter, arguments,
                              found)))
      return failure();
  for (auto [index, result] : llvm::enumerate(found)) {
    if (!result.type)
      return function.emitOpError("result ") << index << " is of no stage";
    results.push_back(std::move(result));
  }
  return interpreter.checkReceived(function);
}

static LogicalResult interpretOnce(func::FuncOp function,
                                   ArrayRef<HostTensor> arguments,
                                   Precision precision,
                                   SmallVectorImpl<HostTensor> &results) {
  SmallVector<func::FuncOp> stages = getStages(function);
  if (!stages.empty())
    return interpretStages(function, stages, arguments, precision, results);
  return isSpmd(function)
             ? interpretLocal(function, arguments, precision, results)
             : interpretGlobal(function, arguments, precision, results);
}

LogicalResult mlir::dshard::interpret(func::FuncOp function,
                                      ArrayRef<HostTensor> arguments,
                                      Precision precision,
                                      SmallVectorImpl<HostTensor> &results) {
  auto isBatchedArgument = [&](unsigned i) {
    return function.getArgAttr(i, microBatchedAttrName) != nullptr;
  };
  auto isBatchedResult = [&](unsigned i) {
    return function.getResultAttr(i, microBatchedAttrName) != nullptr;
  };
  int64_t count = getMicroBatches(function);
  if (count == 1 || llvm::none_of(llvm::seq<unsigned>(0, arguments.size()),
                                  isBatchedArgument))
    return interpretOnce(function, arguments, precision, results);
  auto firstOf = [](RankedTensorType type, int64_t microBatch) {
    SmallVector<int64_t> offsets(type.getRank(), 0);
    offsets[0] = microBatch * type.getDimSize(0);
    return offsets;
  };
  for (unsigned i = 0; i < function.getNumResults(); ++i)
    results.emplace_back(getGlobalResultType(function, i));
  for (int64_t microBatch = 0; microBatch < count; ++microBatch) {
    SmallVector<HostTensor> parts, outputs;
    for (auto [i, argument] : llvm::enumerate(arguments)) {
      RankedTensorType type = getArgumentTypeOfRun(function, i);
      parts.push_back(
          isBatchedArgument(i)
              ? extractBox(argument, firstOf(type, microBatch), type)
              : argument);
    }
    if (failed(interpretOnce(function, parts, precision, outputs)))
      return failure();
    for (auto [i, output] : llvm::enumerate(outputs)) {
      if (isBatchedResult(i))
        insertBox(results[i], output, firstOf(output.type, microBatch));
      else
        results[i] = std::move(output);
    }
  }
  return success();
}
