//===- Control.cpp - Repeats and branches ---------------------------------===//

#include "Converter.h"
#include "dshard/Transforms/Local/RankValues.h"

using namespace mlir;
using namespace mlir::dshard;

LogicalResult Converter::convertBlock(Block &block) {
  OpBuilder::InsertPoint end = body.saveInsertionPoint();
  for (Operation &op : block.without_terminator()) {
    body.restoreInsertionPoint(end);
    ++position;
    if (failed(convert(&op)))
      return failure();
  }
  body.restoreInsertionPoint(end);
  ++position;
  return success();
}

/// The region that makes `value`, if it is one number that only starts repeats:
/// each repeat fills its own place.
static std::optional<double> fillOf(Value value) {
  auto fused = value.getDefiningOp<FusedOp>();
  return fused ? getFillValue(fused) : std::nullopt;
}

LogicalResult Converter::convertRepeat(RepeatOp op) {
  Block &block = op.getBody().front();
  auto yield = cast<YieldOp>(block.getTerminator());
  SmallVector<int> carried;
  for (OpOperand &initial : op->getOpOperands()) {
    unsigned number = initial.getOperandNumber();
    Value result = op.getResult(number);
    std::optional<double> number0 = fillOf(initial.get());
    int index = -1;
    if (!number0 && !Weights::isReadOnly(initial.get())) {
      const Storage &entry = storages[storage.lookup(initial.get())];
      if (!entry.destination && mayReplace(initial, result))
        index = storage.lookup(initial.get());
    }
    if (index < 0) {
      index = newStorage(typeOf(result), op.getLoc(), nameOf(result),
                         op->getBlock());
      if (number0) {
        fill(op, storages[index].buffer, plan.real(*number0));
      } else {
        Value from = read(initial);
        copy(op, from, storages[index].buffer, typeOf(result));
      }
    }
    touch(index);
    storages[index].destination = true;
    storages[index].owner = &block;
    place(block.getArgument(number + 1), index);
    destinations[{yield, number}] = index;
    carried.push_back(index);
  }

  auto repeat =
      plan::RepeatOp::create(body, op.getLoc(), literal(op.getCount()));
  {
    OpBuilder::InsertionGuard guard(body);
    body.createBlock(&repeat.getBody());
    loops.emplace_back();
    ++position;
    if (Value iteration = block.getArgument(0); !iteration.use_empty()) {
      int index = newStorage(iteration, "iteration");
      fill(op, storages[index].buffer,
           plan::LoopIndexAttr::get(op.getContext(), 0));
    }
    if (failed(convertBlock(block)))
      return failure();
    SmallVector<std::pair<OpOperand *, int>> moves;
    for (OpOperand &operand : yield->getOpOperands())
      moves.push_back({&operand, carried[operand.getOperandNumber()]});
    moveTo(yield, moves);
    ++position;
    llvm::SmallSetVector<int, 8> outer = loops.back();
    loops.pop_back();
    for (int index : outer)
      touch(index);
  }
  for (auto [index, result] : llvm::zip_equal(carried, op.getResults())) {
    touch(index);
    storages[index].destination = false;
    storages[index].owner = op->getBlock();
    place(result, index);
  }
  return success();
}

LogicalResult Converter::convertIf(IfOp op) {
  FailureOr<Attribute> condition = rankNumber(op.getCondition());
  if (failed(condition))
    return op.emitError(
        "[convert_to_plan_c1] branches on a value of the run; only the rank "
        "and constants may choose a branch");
  SmallVector<int> places;
  for (Value result : op.getResults()) {
    int destination = destinationOf(result);
    int index = destination >= 0 && !isReadFrom(destination, op)
                    ? destination
                    : newStorage(typeOf(result), op.getLoc(), nameOf(result),
                                 op->getBlock());
    touch(index);
    places.push_back(index);
  }
  auto branch = plan::IfOp::create(body, op.getLoc(), *condition);
  SmallVector<std::pair<bool, Block *>> before;
  for (int index : places)
    before.push_back({storages[index].destination, storages[index].owner});
  for (bool isThen : {true, false}) {
    Block &block = (isThen ? op.getThenRegion() : op.getElseRegion()).front();
    OpBuilder::InsertionGuard guard(body);
    body.createBlock(isThen ? &branch.getThenBody() : &branch.getElseBody());
    Operation *yield = block.getTerminator();
    for (auto [number, index] : llvm::enumerate(places)) {
      storages[index].destination = true;
      storages[index].owner = &block;
      destinations[{yield, static_cast<unsigned>(number)}] = index;
    }
    ++position;
    if (failed(convertBlock(block)))
      return failure();
    SmallVector<std::pair<OpOperand *, int>> moves;
    for (OpOperand &operand : yield->getOpOperands())
      moves.push_back({&operand, places[operand.getOperandNumber()]});
    moveTo(yield, moves);
  }
  for (auto [number, index] : llvm::enumerate(places)) {
    storages[index].destination = before[number].first;
    storages[index].owner = before[number].second;
    touch(index);
    place(op.getResult(number), index);
  }
  return success();
}

FailureOr<Attribute> Converter::rankNumber(Value value, int64_t add) {
  FailureOr<SmallVector<double>> numbers =
      evaluateRankValue(value, plan.getMesh());
  if (failed(numbers))
    return failure();
  return plan.rankValue([&](int64_t rank) {
    return static_cast<int64_t>((*numbers)[rank]) + add;
  });
}
