//===- Ports.cpp - Inputs and outputs of an entry point -------------------===//

#include "Converter.h"

using namespace mlir;
using namespace mlir::dshard;

LogicalResult Converter::addOutputs(func::ReturnOp op) {
  llvm::SmallDenseSet<int> taken;
  for (auto [number, operand] : llvm::enumerate(op->getOpOperands())) {
    Value source = read(operand);
    bool isParameter = weights.isParameter(operand.get());
    int index = isParameter ? -1 : storage.lookup(operand.get());
    if (isParameter || storages[index].keep || taken.contains(index)) {
      // An input, a state or another output: the user gets a copy.
      RankedTensorType type = typeOf(operand.get());
      OpBuilder::InsertionGuard guard(body);
      body.setInsertionPointAfter(lifetimeBuffers.empty()
                                      ? source.getDefiningOp()
                                      : lifetimeBuffers.back().getOperation());
      auto buffer =
          createBuffer(body, operand.get().getLoc(), nameOf(operand.get()),
                       std::nullopt, bytesOf(type), type);
      lifetimeBuffers.push_back(buffer);
      Lifetime lifetime;
      lifetime.size = bytesOf(type);
      lifetime.begin = lifetime.end = position;
      lifetimes.push_back(lifetime);
      int64_t count = type.getNumElements();
      body.setInsertionPointToEnd(&program.getBody().front());
      instruction(op, InstructionKind::COPY, {{source}, {buffer}},
                  {literal(1), literal(count), literal(0), literal(1),
                   literal(0), literal(1)});
      outputBuffers.push_back(buffer);
      continue;
    }
    taken.insert(index);
    lifetimes[storages[index].lifetime].end = position;
    outputBuffers.push_back(source);
  }
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
  DenseMap<Value, int64_t> bufferIndex;
  for (auto buffer : program.getBody().getOps<plan::BufferOp>())
    bufferIndex.try_emplace(buffer, bufferIndex.size());
  auto entry = plan::EntryOp::create(plan.b, function.getLoc(),
                                     function.getName(), programIndex);
  OpBuilder ports =
      OpBuilder::atBlockEnd(plan.b.createBlock(&entry.getPorts()));
  plan.b.setInsertionPointAfter(entry);
  auto namesOf = [](DictionaryAttr attributes) {
    return attributes ? attributes.getAs<ArrayAttr>(dimNamesAttrName)
                      : ArrayAttr();
  };
  for (BlockArgument argument : function.getArguments()) {
    if (weights.isParameter(argument))
      continue;
    unsigned number = argument.getArgNumber();
    DictionaryAttr attributes = function.getArgAttrDict(number);
    auto global =
        attributes ? attributes.getAs<TypeAttr>(globalAttrName) : TypeAttr();
    if (!global)
      global = TypeAttr::get(argument.getType());
    int64_t low = 0, high = 0;
    bool found = false;
    if (isa<IntegerType>(typeOf(argument).getElementType()))
      findRange(argument, low, high, found);
    plan::InputOp::create(
        ports, argument.getLoc(), nameOf(argument),
        bufferIndex.lookup(storages[storage.lookup(argument)].buffer),
        global.getValue(), argument.getType(),
        attributes ? attributes.getAs<ShardingAttr>(shardingAttrName)
                   : ShardingAttr(),
        namesOf(attributes),
        found ? ports.getDenseI64ArrayAttr({low, high}) : DenseI64ArrayAttr(),
        ArrayAttr(), SequenceLayoutAttr(), IntegerAttr(), IntegerAttr());
  }
  for (auto [number, buffer] : llvm::enumerate(outputBuffers)) {
    DictionaryAttr attributes = function.getResultAttrDict(number);
    Type type = function.getResultTypes()[number];
    auto global =
        attributes ? attributes.getAs<TypeAttr>(globalAttrName) : TypeAttr();
    auto name =
        attributes ? attributes.getAs<StringAttr>(nameAttrName) : StringAttr();
    plan::OutputOp::create(
        ports, function.getLoc(), name ? name.str() : std::to_string(number),
        bufferIndex.lookup(buffer), global ? global.getValue() : type, type,
        attributes ? attributes.getAs<ShardingAttr>(shardingAttrName)
                   : ShardingAttr(),
        namesOf(attributes), DenseI64ArrayAttr(), ArrayAttr(),
        SequenceLayoutAttr(), IntegerAttr(), IntegerAttr());
  }
}
