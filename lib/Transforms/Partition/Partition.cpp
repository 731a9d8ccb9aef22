//===- Partition.cpp - From the global program to that of one rank --------===//

#include "IndexRanges.h"
#include "dshard/Cost/Resharding.h"
#include "dshard/Transforms/Partition/Passes.h"
#include "mlir/IR/IRMapping.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_PARTITIONPASS
#include "dshard/Transforms/Partition/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
/// Builds the local body of one function.
struct Partitioner {
  func::FuncOp function;
  MeshAttr mesh;
  IRMapping locals;

  LogicalResult run();
  FailureOr<ShardingAttr> getShardingOf(Value value, Operation *user);
  FailureOr<RankedTensorType> getLocalType(Value value, Operation *user);
  LogicalResult convertOp(Operation *op, OpBuilder &builder);
  LogicalResult convertReshard(ReshardOp op, OpBuilder &builder);
  LogicalResult convertBlock(Block &global, Block &local);
  LogicalResult convertRepeat(RepeatOp op, OpBuilder &builder);
  LogicalResult convertIf(IfOp op, OpBuilder &builder);
  LogicalResult convertSignature(Block &global, Block &local);
};
} // namespace

FailureOr<ShardingAttr> Partitioner::getShardingOf(Value value,
                                                   Operation *user) {
  auto reshard = value.getDefiningOp<ReshardOp>();
  ShardingAttr sharding = reshard ? reshard.getSharding() : getSharding(value);
  if (!sharding || sharding.hasOpenDim())
    return user->emitOpError()
           << "a value has no closed sharding; run the resolve phase first";
  return sharding;
}

FailureOr<RankedTensorType> Partitioner::getLocalType(Value value,
                                                      Operation *user) {
  FailureOr<ShardingAttr> sharding = getShardingOf(value, user);
  if (failed(sharding))
    return failure();
  auto type = cast<RankedTensorType>(value.getType());
  FailureOr<RankedTensorType> local = sharding->getLocalType(type, mesh);
  if (failed(local))
    return user->emitOpError() << "a value of " << type << " cannot be divided "
                               << "by " << *sharding;
  return local;
}

/// A reshard of one step is one collective.
LogicalResult Partitioner::convertReshard(ReshardOp op, OpBuilder &builder) {
  FailureOr<ShardingAttr> source = getShardingOf(op.getInput(), op);
  FailureOr<RankedTensorType> type = getLocalType(op.getResult(), op);
  if (failed(source) || failed(type))
    return failure();
  Layout from = readLayout(*source, mesh);
  Layout to = readLayout(op.getSharding(), mesh);
  FailureOr<ReshardPlan> plan = planReshard(from, to);
  if (failed(plan) || plan->steps.size() > 1)
    return op.emitOpError()
           << "from " << describe(from, mesh) << " to " << describe(to, mesh)
           << " is not one collective; run "
              "dshard-decompose-reshards first";
  Value input = locals.lookup(op.getInput());
  if (plan->steps.empty()) {
    locals.map(op.getResult(), input);
    return success();
  }
  const ReshardStep &step = plan->steps.front();
  llvm::SmallVector<Attribute> list;
  for (AxisRefAttr axis : writeAxes(step.axes, mesh))
    list.push_back(axis);
  ArrayAttr axes = builder.getArrayAttr(list);
  Location loc = op.getLoc();
  TypeRange types(*type);
  ValueRange inputs(input);
  StringAttr why = op.getWhyAttr(), path = op.getPathAttr();
  PartAttr part = op.getPartAttr();
  auto kind = ReductionKindAttr::get(builder.getContext(), from.kind);
  auto dims = builder.getDenseI64ArrayAttr({step.dim});
  auto dim = builder.getI64IntegerAttr(step.dim);
  auto otherDim = builder.getI64IntegerAttr(step.otherDim);
  Operation *collective = nullptr;
  switch (step.kind) {
  case ReshardKind::all_gather:
    collective = AllGatherOp::create(builder, loc, types, inputs, dims, axes,
                                     why, path, part);
    break;
  case ReshardKind::all_reduce:
    collective = AllReduceOp::create(builder, loc, types, inputs, kind, axes,
                                     why, path, part);
    break;
  case ReshardKind::reduce_scatter:
    collective = ReduceScatterOp::create(builder, loc, types, inputs, kind,
                                         dims, axes, why, path, part);
    break;
  case ReshardKind::all_to_all:
    collective = AllToAllOp::create(builder, loc, *type, input,
                                    /*split_dim=*/otherDim,
                                    /*concat_dim=*/dim, axes, why, path, part);
    break;
  case ReshardKind::local_slice:
    collective = LocalSliceOp::create(builder, loc, *type, input, dim, axes,
                                      why, path, part);
    break;
  }
  locals.map(op.getResult(), collective->getResult(0));
  return success();
}

LogicalResult Partitioner::convertBlock(Block &global, Block &local) {
  auto builder = OpBuilder::atBlockEnd(&local);
  for (Operation &op : global)
    if (failed(convertOp(&op, builder)))
      return failure();
  return success();
}

/// The control op stays; what it carries and holds becomes local.
LogicalResult Partitioner::convertRepeat(RepeatOp op, OpBuilder &builder) {
  llvm::SmallVector<Value> initial;
  for (Value value : op.getInitial())
    initial.push_back(locals.lookup(value));
  auto local =
      RepeatOp::create(builder, op.getLoc(), TypeRange(initial), initial,
                       op.getCountAttr(), op.getPathAttr(), op.getPartAttr());
  Block &body = local.getBody().emplaceBlock();
  for (BlockArgument argument : op.getBody().getArguments()) {
    FailureOr<RankedTensorType> type = getLocalType(argument, op);
    if (failed(type))
      return failure();
    locals.map(argument, body.addArgument(*type, argument.getLoc()));
  }
  locals.map(op.getResults(), local.getResults());
  return convertBlock(op.getBody().front(), body);
}

LogicalResult Partitioner::convertIf(IfOp op, OpBuilder &builder) {
  llvm::SmallVector<Type> types;
  for (Value result : op.getResults()) {
    FailureOr<RankedTensorType> type = getLocalType(result, op);
    if (failed(type))
      return failure();
    types.push_back(*type);
  }
  auto local = IfOp::create(builder, op.getLoc(), types,
                            locals.lookup(op.getCondition()), op.getPathAttr(),
                            op.getPartAttr());
  locals.map(op.getResults(), local.getResults());
  for (auto [from, to] : llvm::zip_equal(op->getRegions(), local->getRegions()))
    if (failed(convertBlock(from.front(), to.emplaceBlock())))
      return failure();
  return success();
}

LogicalResult Partitioner::convertOp(Operation *op, OpBuilder &builder) {
  if (auto reshard = dyn_cast<ReshardOp>(op))
    return convertReshard(reshard, builder);
  if (auto repeat = dyn_cast<RepeatOp>(op))
    return convertRepeat(repeat, builder);
  if (auto branch = dyn_cast<IfOp>(op))
    return convertIf(branch, builder);
  llvm::SmallVector<Value> operands;
  for (Value operand : op->getOperands())
    operands.push_back(locals.lookup(operand));
  if (auto returnOp = dyn_cast<func::ReturnOp>(op)) {
    func::ReturnOp::create(builder, op->getLoc(), operands);
    return success();
  }
  if (isa<YieldOp>(op)) {
    YieldOp::create(builder, op->getLoc(), operands);
    return success();
  }
  // What travels between stages travels as it lies on each rank.
  bool isMove = isa<SendOp, RecvOp>(op);
  auto interface = dyn_cast<PartitionInterface>(op);
  if (!interface && !isMove)
    return op->emitOpError() << "has no local form";
  PartitionContext context;
  context.mesh = mesh;
  for (Value operand : op->getOperands()) {
    FailureOr<ShardingAttr> sharding = getShardingOf(operand, op);
    if (failed(sharding))
      return failure();
    context.operandShardings.push_back(*sharding);
  }
  for (Value result : op->getResults()) {
    FailureOr<ShardingAttr> sharding = getShardingOf(result, op);
    FailureOr<RankedTensorType> type = getLocalType(result, op);
    if (failed(sharding) || failed(type))
      return failure();
    context.resultShardings.push_back(*sharding);
    context.localResultTypes.push_back(*type);
  }
  llvm::SmallVector<Value> results;
  if (failed(isMove
                 ? partitionByCloning(op, builder, operands, context, results)
                 : interface.partition(builder, operands, context, results)))
    return failure();
  for (auto [global, local] : llvm::zip_equal(op->getResults(), results))
    locals.map(global, local);
  return success();
}

/// Local types outside; the global ones stay as attributes for the loader.
LogicalResult Partitioner::convertSignature(Block &global, Block &local) {
  Operation *terminator = global.getTerminator();
  llvm::SmallVector<Type> inputs, outputs;
  for (BlockArgument arg : global.getArguments()) {
    FailureOr<RankedTensorType> type = getLocalType(arg, function);
    if (failed(type))
      return failure();
    inputs.push_back(*type);
    locals.map(arg, local.addArgument(*type, arg.getLoc()));
    function.setArgAttr(arg.getArgNumber(), globalAttrName,
                        TypeAttr::get(arg.getType()));
  }
  for (auto [index, value] : llvm::enumerate(terminator->getOperands())) {
    FailureOr<RankedTensorType> type = getLocalType(value, terminator);
    if (failed(type))
      return failure();
    outputs.push_back(*type);
    function.setResultAttr(index, globalAttrName,
                           TypeAttr::get(value.getType()));
  }
  function.setType(FunctionType::get(function.getContext(), inputs, outputs));
  function->setAttr(spmdAttrName, UnitAttr::get(function.getContext()));
  return success();
}

LogicalResult Partitioner::run() {
  annotateIndexRanges(function);
  Block &global = function.getBody().front();
  // Behind the global block until it replaces it, so that local forms can look
  // up the module.
  auto *local = new Block();
  function.getBody().push_back(local);
  if (failed(convertSignature(global, *local)) ||
      failed(convertBlock(global, *local)))
    return failure();
  global.dropAllReferences();
  global.erase();
  return success();
}

namespace {
struct PartitionPass : mlir::dshard::impl::PartitionPassBase<PartitionPass> {
  void runOnOperation() override {
    MeshAttr mesh = getMesh(getOperation());
    if (!mesh) {
      getOperation().emitError()
          << "module has no " << meshAttrName << "; give it one with --mesh";
      return signalPassFailure();
    }
    for (auto function : getOperation().getOps<func::FuncOp>())
      if (!function.isExternal() && !function->hasAttr(spmdAttrName) &&
          failed(Partitioner{function, mesh, {}}.run()))
        return signalPassFailure();
  }
};
} // namespace
