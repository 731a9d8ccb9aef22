//===- Ports.cpp - Inputs and outputs of an entry point -------------------===//

#include "Converter.h"

using namespace mlir;
using namespace mlir::dshard;

LogicalResult Converter::addOutputs(func::ReturnOp op) {
  llvm::SmallDenseSet<int> taken;
  SmallVector<std::pair<OpOperand *, int>> moves;
  for (OpOperand &operand : op->getOpOperands()) {
    unsigned number = operand.getOperandNumber();
    if (function.getResultAttr(number, stateAttrName)) {
      moves.push_back({&operand, destinations.lookup({op, number})});
      continue;
    }
    Value source = read(operand);
    bool isState = Weights::isReadOnly(operand.get());
    int index = isState ? -1 : storage.lookup(operand.get());
    if (isState || storages[index].keep || storages[index].lifetime < 0 ||
        taken.contains(index)) {
      // An input, a state or another output: the user gets a copy.
      RankedTensorType type = typeOf(operand.get());
      int out = newStorage(type, operand.get().getLoc(), nameOf(operand.get()),
                           nullptr);
      copy(op, source, storages[out].buffer, type);
      outputBuffers.push_back({number, storages[out].buffer});
      outputStorages.push_back({number, out});
      continue;
    }
    taken.insert(index);
    outputBuffers.push_back({number, source});
    outputStorages.push_back({number, index});
  }
  // All outputs have been read; states may change.
  moveTo(op, moves);
  return success();
}

/// `value`, with negative indices counted from the end: select(value < 0,
/// value + size, value); null if `user` is no part of that.
static Value wrappedIndex(Value value, Operation *user) {
  auto select = dyn_cast<SelectOp>(user);
  if (!select || select.getFalseValue() != value)
    return Value();
  auto add = select.getTrueValue().getDefiningOp<AddOp>();
  auto compare = select.getCondition().getDefiningOp<CompareOp>();
  bool matches = add && add.getLhs() == value && compare &&
                 compare.getLhs() == value &&
                 compare.getPredicate() == ComparePredicate::lt;
  return matches ? select.getResult() : Value();
}

/// Indices of look-ups must lie inside what they index.
void Converter::findRange(Value argument, int64_t &low, int64_t &high,
                          bool &found) {
  for (OpOperand &use : argument.getUses()) {
    Operation *owner = use.getOwner();
    if (isa<ReshapeOp, TransposeOp, CastOp>(owner)) {
      Value result = owner->getResult(0);
      if (isa<IntegerType>(typeOf(result).getElementType()) &&
          typeOf(result).getElementType().getIntOrFloatBitWidth() >= 32)
        findRange(result, low, high, found);
      continue;
    }
    if (auto yield = dyn_cast<YieldOp>(owner)) {
      if (auto fused = dyn_cast<FusedOp>(yield->getParentOp()))
        findRange(fused.getResult(use.getOperandNumber()), low, high, found);
      continue;
    }
    if (auto fused = dyn_cast<FusedOp>(owner)) {
      findRange(fused.getBody().getArgument(use.getOperandNumber()), low, high,
                found);
      continue;
    }
    if (Value wrapped = wrappedIndex(argument, owner)) {
      findRange(wrapped, low, high, found);
      continue;
    }
    auto gather = dyn_cast<GatherOp>(owner);
    if (gather && use.getOperandNumber() == 0)
      findRange(gather.getResult(), low, high, found); // rows of indices
    if (!gather || use.getOperandNumber() != 1)
      continue;
    int64_t size = typeOf(gather.getInput()).getDimSize(gather.getDim());
    int64_t least = -size;
    // A sharded or padded table: as the model has it.
    auto fused = dyn_cast<FusedOp>(gather->getParentOp());
    auto table = dyn_cast<BlockArgument>(gather.getInput());
    auto outer =
        fused && table
            ? dyn_cast<BlockArgument>(fused->getOperand(table.getArgNumber()))
            : BlockArgument();
    if (outer && outer.getOwner()->getParentOp() == function) {
      unsigned number = outer.getArgNumber();
      if (auto global =
              function.getArgAttrOfType<TypeAttr>(number, globalAttrName))
        size = cast<RankedTensorType>(global.getValue())
                   .getDimSize(gather.getDim());
      least = -size;
      auto weight =
          function.getArgAttrOfType<WeightAttr>(number, weightAttrName);
      if (weight && !weight.getTransposed()) {
        // Counting from the end of padding would be wrong.
        int64_t stored = weight.getType().getDimSize(gather.getDim());
        least = stored == size ? -size : 0;
        size = stored;
      }
    } else if (gather.getOffset()) {
      continue; // a shard of something computed: the whole is not known here
    }
    low = found ? std::max(low, least) : least;
    high = found ? std::min(high, size - 1) : size - 1;
    found = true;
  }
}

void Converter::addPorts(int64_t programIndex) {
  auto entry =
      plan::EntryOp::create(plan.b, function.getLoc(), function.getName(),
                            programIndex, IntegerAttr(), IntegerAttr());
  plan.b.createBlock(&entry.getPorts());
  plan.b.setInsertionPointAfter(entry);
  addPorts(entry);
}

/// The type with dim 0 of all micro-batches.
static Type wholeBatch(Type type, int64_t count) {
  auto tensor = cast<RankedTensorType>(type);
  SmallVector<int64_t> shape(tensor.getShape());
  shape[0] *= count;
  return tensor.clone(shape);
}

void Converter::addPorts(plan::EntryOp entry) {
  DenseMap<Value, int64_t> bufferIndex;
  for (auto buffer : program.getBody().getOps<plan::BufferOp>())
    bufferIndex.try_emplace(buffer, bufferIndex.size());
  OpBuilder ports = OpBuilder::atBlockEnd(&entry.getPorts().front());
  int64_t microBatches = entry.getMicroBatches().value_or(1);
  IntegerAttr stage;
  if (entry.getStages())
    stage = function->getAttrOfType<IntegerAttr>(stageAttrName);
  auto namesOf = [](DictionaryAttr attributes) {
    return attributes ? attributes.getAs<ArrayAttr>(dimNamesAttrName)
                      : ArrayAttr();
  };
  auto layoutOf = [&](DictionaryAttr attributes) {
    return attributes ? getBoundaryLayout(attributes, plan.getMesh())
                      : std::nullopt;
  };
  auto number64 = [&](std::optional<int64_t> number) {
    return number ? ports.getI64IntegerAttr(*number) : IntegerAttr();
  };
  auto create = [&](auto tag, Location loc, StringRef name, Value buffer,
                    Type type, DictionaryAttr attributes,
                    DenseI64ArrayAttr range) {
    auto global =
        attributes ? attributes.getAs<TypeAttr>(globalAttrName) : TypeAttr();
    std::optional<BoundaryLayout> layout = layoutOf(attributes);
    Type whole = global ? global.getValue() : type;
    if (attributes && attributes.get(microBatchedAttrName)) {
      whole = wholeBatch(whole, microBatches);
      type = wholeBatch(type, microBatches);
    }
    decltype(tag)::create(
        ports, loc, name, bufferIndex.lookup(buffer), whole, type,
        attributes ? attributes.getAs<ShardingAttr>(shardingAttrName)
                   : ShardingAttr(),
        namesOf(attributes), range,
        attributes ? attributes.getAs<ArrayAttr>(finiteAttrName) : ArrayAttr(),
        layout ? SequenceLayoutAttr::get(ports.getContext(), layout->layout)
               : SequenceLayoutAttr(),
        layout ? number64(layout->dim) : IntegerAttr(),
        layout ? number64(layout->parts) : IntegerAttr(), stage);
  };
  for (BlockArgument argument : function.getArguments()) {
    unsigned number = argument.getArgNumber();
    if (Weights::isState(argument) ||
        function.getArgAttr(number, scalarAttrName))
      continue;
    DictionaryAttr attributes = function.getArgAttrDict(number);
    auto range = attributes ? attributes.getAs<DenseI64ArrayAttr>(rangeAttrName)
                            : DenseI64ArrayAttr();
    int64_t low = 0, high = 0;
    bool found = false;
    if (!range && isa<IntegerType>(typeOf(argument).getElementType()))
      findRange(argument, low, high, found);
    if (found)
      range = ports.getDenseI64ArrayAttr({low, high});
    create(plan::InputOp(), argument.getLoc(), nameOf(argument),
           storages[storage.lookup(argument)].buffer, argument.getType(),
           attributes, range);
  }
  for (auto [number, buffer] : outputBuffers) {
    DictionaryAttr attributes = function.getResultAttrDict(number);
    auto name =
        attributes ? attributes.getAs<StringAttr>(nameAttrName) : StringAttr();
    create(plan::OutputOp(), function.getLoc(),
           name ? name.str() : std::to_string(number), buffer,
           function.getResultTypes()[number], attributes, DenseI64ArrayAttr());
  }
}
