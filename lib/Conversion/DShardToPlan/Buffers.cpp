//===- Buffers.cpp - Which bytes a value lies in --------------------------===//

#include "Converter.h"

using namespace mlir;
using namespace mlir::dshard;

std::string Converter::nameOf(Value value) {
  if (auto argument = dyn_cast<BlockArgument>(value)) {
    if (argument.getOwner()->getParentOp() == function)
      if (auto name = function.getArgAttrOfType<StringAttr>(
              argument.getArgNumber(), nameAttrName))
        return name.str();
    return std::to_string(argument.getArgNumber());
  }
  std::string node = nodeOf(value.getDefiningOp()->getLoc());
  if (!node.empty())
    return node;
  return value.getDefiningOp()->getName().stripDialect().str();
}

int Converter::newStorage(RankedTensorType type, Location loc, StringRef name,
                          Block *owner, bool keep) {
  OpBuilder::InsertionGuard guard(body);
  body.setInsertionPointToStart(&program.getBody().front());
  if (!lifetimeBuffers.empty())
    body.setInsertionPointAfter(lifetimeBuffers.back());
  auto buffer =
      createBuffer(body, loc, name, std::nullopt, bytesOf(type), type);
  lifetimeBuffers.push_back(buffer);
  Lifetime lifetime;
  lifetime.size = bytesOf(type);
  lifetime.begin = lifetime.end = position;
  Storage entry;
  entry.buffer = buffer;
  entry.lifetime = lifetimes.size();
  entry.keep = keep;
  entry.owner = owner;
  entry.depth = loops.size();
  lifetimes.push_back(lifetime);
  storages.push_back(std::move(entry));
  return storages.size() - 1;
}

int Converter::newStorage(Value value, StringRef name, bool keep) {
  int index = newStorage(typeOf(value), value.getLoc(), name,
                         value.getParentBlock(), keep);
  place(value, index);
  return index;
}

void Converter::place(Value value, int index) {
  storage[value] = index;
  storages[index].values.push_back(value);
}

int Converter::stateStorage(OpOperand &use) {
  const WeightState *state = weights.find(use);
  auto [it, isNew] = stateStorages.try_emplace(
      {state->index, state->local}, static_cast<int>(storages.size()));
  if (isNew) {
    OpBuilder::InsertionGuard guard(body);
    body.setInsertionPointToStart(&program.getBody().front());
    Storage entry;
    entry.buffer = createBuffer(body, function.getLoc(), state->name,
                                state->index, state->size, state->local);
    entry.keep = true;
    storages.push_back(std::move(entry));
  }
  return it->second;
}

/// Of a scalar, or of a state that the function writes.
int Converter::argumentStorage(BlockArgument argument) {
  unsigned number = argument.getArgNumber();
  OpBuilder::InsertionGuard guard(body);
  body.setInsertionPointToStart(&program.getBody().front());
  Storage entry;
  if (auto name =
          function.getArgAttrOfType<StringAttr>(number, scalarAttrName)) {
    entry.buffer = createScalarBuffer(
        body, argument.getLoc(), name.getValue(),
        plan.addScalar(name.getValue(), typeOf(argument)), typeOf(argument));
    entry.keep = true;
  } else {
    const WeightState *state = weights.findPlain(argument);
    entry.buffer = createBuffer(body, argument.getLoc(), state->name,
                                state->index, state->size, state->local);
    entry.destination = true;
    entry.owner = argument.getOwner();
  }
  storages.push_back(std::move(entry));
  place(argument, storages.size() - 1);
  return storages.size() - 1;
}

void Converter::touch(int index) {
  Storage &entry = storages[index];
  if (entry.lifetime < 0)
    return;
  int64_t &end = lifetimes[entry.lifetime].end;
  end = std::max(end, position);
  // What a later iteration needs again lives to the end of the repeat.
  for (size_t i = entry.depth; i < loops.size(); ++i)
    loops[i].insert(index);
}

Value Converter::read(OpOperand &use) {
  int index = Weights::isReadOnly(use.get()) ? stateStorage(use)
                                             : storage.lookup(use.get());
  touch(index);
  return storages[index].buffer;
}

bool Converter::isReadFrom(int index, Operation *op, OpOperand *except) {
  Block *block = op->getBlock();
  for (Value value : storages[index].values)
    for (OpOperand &reader : value.getUses()) {
      if (&reader == except)
        continue;
      // Readers outside of the block are before it: nobody writes what outer
      // blocks own.
      Operation *owner = block->findAncestorOpInBlock(*reader.getOwner());
      if (owner && (owner == op || op->isBeforeInBlock(owner)))
        return true;
    }
  return false;
}

bool Converter::mayReplace(OpOperand &operand, Value result) {
  Value value = operand.get();
  if (Weights::isReadOnly(value) || value.getType() != result.getType())
    return false;
  int index = storage.lookup(value);
  const Storage &entry = storages[index];
  if (entry.keep || entry.owner != operand.getOwner()->getBlock())
    return false;
  if (entry.destination && destinationOf(result) != index)
    return false;
  return !isReadFrom(index, operand.getOwner(), &operand);
}

int Converter::destinationOf(Value result) {
  for (OpOperand &use : result.getUses()) {
    auto found = destinations.find({use.getOwner(), use.getOperandNumber()});
    if (found != destinations.end())
      return found->second;
  }
  return -1;
}

Value Converter::write(Value result, OpOperand *reuse) {
  int index = -1;
  Operation *op = result.getDefiningOp();
  int destination = destinationOf(result);
  if (reuse && mayReplace(*reuse, result))
    index = storage.lookup(reuse->get());
  else if (destination >= 0 && !isReadFrom(destination, op))
    index = destination;
  if (index >= 0)
    place(result, index);
  else
    index = newStorage(result, nameOf(result));
  touch(index);
  return storages[index].buffer;
}

void Converter::copy(Operation *op, Value from, Value to,
                     RankedTensorType type) {
  instruction(op, InstructionKind::COPY, {{from}, {to}},
              {literal(1), literal(type.getNumElements()), literal(0),
               literal(1), literal(0), literal(1)});
}

void Converter::moveTo(Operation *terminator,
                       ArrayRef<std::pair<OpOperand *, int>> moves) {
  auto sourceOf = [&](OpOperand *operand) {
    return Weights::isReadOnly(operand->get()) ? stateStorage(*operand)
                                               : storage.lookup(operand->get());
  };
  llvm::SmallDenseSet<int> overwritten;
  for (auto [operand, to] : moves)
    if (sourceOf(operand) != to)
      overwritten.insert(to);
  SmallVector<std::tuple<Value, int, RankedTensorType>> pending;
  // What another copy overwrites goes to a place of its own first.
  for (auto [operand, to] : moves) {
    int from = sourceOf(operand);
    if (from == to)
      continue;
    RankedTensorType type = typeOf(operand->get());
    Value source = read(*operand);
    if (overwritten.contains(from)) {
      int saved = newStorage(type, terminator->getLoc(), nameOf(operand->get()),
                             nullptr);
      copy(terminator, source, storages[saved].buffer, type);
      source = storages[saved].buffer;
    }
    pending.push_back({source, to, type});
  }
  for (auto [source, to, type] : pending) {
    touch(to);
    copy(terminator, source, storages[to].buffer, type);
  }
}
