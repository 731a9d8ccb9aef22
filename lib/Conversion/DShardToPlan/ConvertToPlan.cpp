//===- ConvertToPlan.cpp - A scheduled program to the plan dialect --------===//

#include "Converter.h"
#include "dshard/Conversion/DShardToPlan/Passes.h"
#include "dshard/Plan/Format.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_CONVERTTOPLANPASS
#include "dshard/Conversion/DShardToPlan/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

//===----------------------------------------------------------------------===//
// Buffers
//===----------------------------------------------------------------------===//

std::string Converter::nameOf(Value value) {
  if (auto argument = dyn_cast<BlockArgument>(value)) {
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

int Converter::newStorage(Value value, StringRef name, bool keep) {
  RankedTensorType type = typeOf(value);
  OpBuilder::InsertionGuard guard(body);
  body.setInsertionPointToStart(&program.getBody().front());
  if (!lifetimeBuffers.empty())
    body.setInsertionPointAfter(lifetimeBuffers.back());
  auto buffer = createBuffer(body, value.getLoc(), name, std::nullopt,
                             bytesOf(type), type);
  lifetimeBuffers.push_back(buffer);
  Lifetime lifetime;
  lifetime.size = bytesOf(type);
  lifetime.begin = lifetime.end = position;
  Storage entry;
  entry.buffer = buffer;
  entry.lifetime = lifetimes.size();
  entry.keep = keep;
  lifetimes.push_back(lifetime);
  storages.push_back(entry);
  storage[value] = storages.size() - 1;
  return storages.size() - 1;
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
    storages.push_back(entry);
  }
  return it->second;
}

Value Converter::read(OpOperand &use) {
  Value value = use.get();
  if (weights.isParameter(value))
    return storages[stateStorage(use)].buffer;
  Storage &entry = storages[storage.lookup(value)];
  if (entry.lifetime >= 0)
    lifetimes[entry.lifetime].end =
        std::max(lifetimes[entry.lifetime].end, position);
  return entry.buffer;
}

bool Converter::diesHere(OpOperand &use) {
  Value value = use.get();
  if (weights.isParameter(value))
    return false;
  int index = storage.lookup(value);
  if (storages[index].keep)
    return false;
  // No later reader of any value in the same bytes.
  Operation *op = use.getOwner();
  for (auto &[other, where] : storage) {
    if (where != index)
      continue;
    for (OpOperand &reader : other.getUses()) {
      Operation *owner = reader.getOwner();
      if (owner == op ? &reader != &use : op->isBeforeInBlock(owner))
        return false;
    }
  }
  return true;
}

Value Converter::write(Value result, OpOperand *reuse) {
  if (reuse && reuse->get().getType() == result.getType() && diesHere(*reuse)) {
    int index = storage.lookup(reuse->get());
    storage[result] = index;
    lifetimes[storages[index].lifetime].end = position;
    return storages[index].buffer;
  }
  return storages[newStorage(result, nameOf(result))].buffer;
}

//===----------------------------------------------------------------------===//
// All of it
//===----------------------------------------------------------------------===//

LogicalResult Converter::run() {
  kernels = ModuleOp::create(UnknownLoc::get(module.getContext()));
  for (unsigned r = 0; r < function.getNumResults(); ++r)
    if (auto sharding =
            function.getResultAttrOfType<ShardingAttr>(r, shardingAttrName))
      if (sharding.isPartial())
        return function.emitError("result ") << r << " is still partial";
  if (failed(weights.addStates()) || failed(weights.buildLoad()))
    return failure();

  program = plan::ProgramOp::create(plan.b, function.getLoc(),
                                    function.getName(), 0, 0, 0);
  body = OpBuilder::atBlockEnd(plan.b.createBlock(&program.getBody()));
  plan.b.setInsertionPoint(program); // tables and groups come before
  for (BlockArgument argument : function.getArguments())
    if (!weights.isParameter(argument))
      newStorage(argument, nameOf(argument), /*keep=*/true);
  for (Operation &op : function.getBody().front()) {
    body.setInsertionPointToEnd(&program.getBody().front());
    ++position;
    if (auto result = dyn_cast<func::ReturnOp>(op)) {
      if (failed(addOutputs(result)))
        return failure();
    } else if (failed(convert(&op))) {
      return failure();
    }
  }
  // Inputs keep their bytes: a session writes them once and runs many times.
  for (BlockArgument argument : function.getArguments())
    if (!weights.isParameter(argument)) {
      Lifetime &lifetime =
          lifetimes[storages[storage.lookup(argument)].lifetime];
      lifetime.begin = 0;
      lifetime.end = position;
    }
  int64_t arena = layOut(lifetimes);
  for (auto [buffer, lifetime] : llvm::zip_equal(lifetimeBuffers, lifetimes))
    buffer.setOffset(lifetime.offset);
  program.setArenaSize(arena);
  program.setThreadScratch(
      ::dshard::plan::alignTo(threadScratch, ::dshard::plan::bufferAlignment));
  plan.b.setInsertionPointToEnd(module.getBody());
  if (failed(addKernels()))
    return failure();
  addPorts(/*programIndex=*/1);
  Builder builder(module.getContext());
  SmallVector<StringRef> features;
  for (const std::string &feature : target.features)
    features.push_back(feature);
  module->setAttr("plan.target", builder.getStringAttr(target.name));
  module->setAttr("plan.features", builder.getStrArrayAttr(features));
  function.erase();
  return success();
}

/// convert_to_plan_c3: single passes also run on what people write.
static LogicalResult verifyInput(func::FuncOp function) {
  if (!function.getBody().hasOneBlock())
    return function.emitError("[convert_to_plan_c3] has ")
           << function.getBody().getBlocks().size() << " blocks, expected 1";
  auto isTensor = [](Type type) {
    auto tensor = dyn_cast<RankedTensorType>(type);
    return tensor && tensor.hasStaticShape() &&
           tensor.getElementType().isIntOrFloat();
  };
  for (Type type : function.getArgumentTypes())
    if (!isTensor(type))
      return function.emitError("[convert_to_plan_c3] has an argument of type ")
             << type << ", expected a tensor of known sizes";
  for (Operation &op : function.getBody().front())
    if (failed(verifyScheduled(op)))
      return failure();
  return success();
}

namespace {
struct ConvertToPlan
    : mlir::dshard::impl::ConvertToPlanPassBase<ConvertToPlan> {
  using ConvertToPlanPassBase::ConvertToPlanPassBase;

  void getDependentDialects(DialectRegistry &registry) const override {
    registry.insert<plan::PlanDialect>();
    registerCodegenDialects(registry);
  }

  void runOnOperation() override {
    ModuleOp module = getOperation();
    func::FuncOp function;
    for (auto candidate : module.getOps<func::FuncOp>()) {
      if (function) {
        candidate.emitError("[convert_to_plan_c1] a plan of several stages is "
                            "not built yet");
        return signalPassFailure();
      }
      function = candidate;
    }
    if (!function || !function->hasAttr(spmdAttrName)) {
      module.emitError("[convert_to_plan_c1] has no function of phase "
                       "'schedule' (with ")
          << spmdAttrName << ")";
      return signalPassFailure();
    }
    // Unlike a parameter, such a state would have to outlive the run.
    for (unsigned i = 0; i < function.getNumArguments(); ++i)
      if (auto state =
              function.getArgAttrOfType<StringAttr>(i, stateAttrName)) {
        function.emitError("[convert_to_plan_c2] argument ")
            << i << " is the state '" << state.getValue()
            << "'; programs that keep state are not compiled into plans yet";
        return signalPassFailure();
      }
    if (failed(verifyInput(function)))
      return signalPassFailure();
    ::dshard::Result<CpuTarget> cpu = getCpuTarget(target);
    if (!cpu) {
      module.emitError(cpu.status().message());
      return signalPassFailure();
    }
    if (failed(Converter(module, function, *cpu).run()))
      signalPassFailure();
  }
};
} // namespace
