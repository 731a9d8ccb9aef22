//===- ConvertToPlan.cpp - A scheduled program to the plan dialect --------===//

#include "Converter.h"
#include "Streams.h"
#include "dshard/Conversion/DShardToPlan/Passes.h"
#include "dshard/Plan/Format.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_CONVERTTOPLANPASS
#include "dshard/Conversion/DShardToPlan/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

static int64_t microBatchesOf(func::FuncOp function) {
  auto count = function->getAttrOfType<IntegerAttr>(microBatchesAttrName);
  return count ? std::max<int64_t>(count.getInt(), 1) : 1;
}

static int64_t stageOf(func::FuncOp function) {
  auto stage = function->getAttrOfType<IntegerAttr>(stageAttrName);
  return stage ? stage.getInt() : 0;
}

void Converter::keepCopies(int index) {
  int64_t count = microBatchesOf(function);
  Lifetime &lifetime = lifetimes[storages[index].lifetime];
  auto buffer = storages[index].buffer.getDefiningOp<plan::BufferOp>();
  lifetime.begin = 0;
  lifetime.end = position;
  if (count == 1)
    return;
  buffer.setCopies(count);
  lifetime.size =
      count * ::dshard::plan::alignTo(buffer.getSize(), plan.getAlignment());
}

LogicalResult Converter::run() {
  for (unsigned r = 0; r < function.getNumResults(); ++r)
    if (auto sharding =
            function.getResultAttrOfType<ShardingAttr>(r, shardingAttrName))
      if (sharding.isPartial())
        return function.emitError("result ") << r << " is still partial";
  // A caller gives whole values: taken for shares of a sum they would count
  // once per rank.
  for (BlockArgument argument : function.getArguments())
    if (auto sharding = function.getArgAttrOfType<ShardingAttr>(
            argument.getArgNumber(), shardingAttrName);
        sharding && sharding.isPartial() && !Weights::isState(argument))
      return function.emitError("input '")
             << nameOf(argument)
             << "' is partial, but a caller gives whole values";

  program = plan::ProgramOp::create(
      plan.b, function.getLoc(), function.getName(), stageOf(function), 0, 0);
  body = OpBuilder::atBlockEnd(plan.b.createBlock(&program.getBody()));
  plan.b.setInsertionPoint(program); // tables and groups come before
  Block &block = function.getBody().front();
  auto result = cast<func::ReturnOp>(block.getTerminator());
  SmallVector<int> inputs;
  for (BlockArgument argument : function.getArguments()) {
    if (function.getArgAttr(argument.getArgNumber(), scalarAttrName)) {
      argumentStorage(argument);
    } else if (!Weights::isState(argument)) {
      inputs.push_back(newStorage(argument, nameOf(argument), /*keep=*/true));
    } else if (int number = Weights::resultOf(argument); number >= 0) {
      destinations[{result, static_cast<unsigned>(number)}] =
          argumentStorage(argument);
    }
  }
  body.setInsertionPointToEnd(&program.getBody().front());
  if (failed(convertBlock(block)) || failed(addOutputs(result)))
    return failure();
  // Inputs keep their bytes: a session writes them once and runs many times.
  for (int input : inputs) {
    Lifetime &lifetime = lifetimes[storages[input].lifetime];
    lifetime.begin = 0;
    lifetime.end = position;
  }
  for (BlockArgument argument : function.getArguments())
    if (function.getArgAttr(argument.getArgNumber(), microBatchedAttrName))
      keepCopies(storage.lookup(argument));
  for (auto [number, index] : outputStorages)
    if (function.getResultAttr(number, microBatchedAttrName))
      keepCopies(index);
  int64_t arena = layOut(lifetimes, plan.getAlignment());
  for (auto [buffer, lifetime] : llvm::zip_equal(lifetimeBuffers, lifetimes))
    buffer.setOffset(lifetime.offset);
  program.setArenaSize(arena);
  program.setThreadScratch(
      ::dshard::plan::alignTo(threadScratch, plan.getAlignment()));
  if (plan.getGpu())
    assignStreams(program);
  plan.b.setInsertionPointToEnd(module.getBody());
  return success();
}

/// The functions of the stages that `entry` names, which follow each other.
static LogicalResult findStages(func::FuncOp entry,
                                ArrayRef<func::FuncOp> functions,
                                size_t &first) {
  auto names = entry->getAttrOfType<ArrayAttr>(stagesAttrName);
  const auto *begin = llvm::find_if(functions, [&](func::FuncOp function) {
    return !names.empty() && function.getNameAttr() == names[0];
  });
  first = begin - functions.begin();
  for (auto [number, name] : llvm::enumerate(names)) {
    func::FuncOp stage = first + number < functions.size()
                             ? functions[first + number]
                             : func::FuncOp();
    if (!stage || stage.getNameAttr() != name ||
        stageOf(stage) != static_cast<int64_t>(number))
      return entry.emitError("[convert_to_plan_c1] names stage ")
             << number << " as " << name
             << ", but its stages are not functions behind one another";
  }
  return success();
}

/// An entry point without a body, of the stages that it names.
static LogicalResult
addPipeline(func::FuncOp function, ArrayRef<func::FuncOp> functions,
            ArrayRef<std::unique_ptr<Converter>> converters,
            PlanContext &plan) {
  size_t first = 0;
  if (failed(findStages(function, functions, first)))
    return failure();
  auto count = function->getAttrOfType<ArrayAttr>(stagesAttrName).size();
  auto entry = plan::EntryOp::create(
      plan.b, function.getLoc(), function.getName(),
      static_cast<int64_t>(first) + 1, plan.b.getI64IntegerAttr(count),
      plan.b.getI64IntegerAttr(microBatchesOf(function)));
  plan.b.createBlock(&entry.getPorts());
  plan.b.setInsertionPointAfter(entry);
  for (size_t stage = 0; stage < count; ++stage)
    converters[first + stage]->addPorts(entry);
  return success();
}

/// All functions as entry points that share states and code; `entries` have
/// their bodies in functions that are stages.
static LogicalResult convertAll(ModuleOp module,
                                ArrayRef<func::FuncOp> functions,
                                ArrayRef<func::FuncOp> entries,
                                const PlanTarget &target) {
  PlanContext plan(module, module.getBody(), getMesh(module),
                   target.cuda ? target.cuda->arch : 0);
  Weights weights(plan, functions);
  KernelTable kernels(module.getContext(), target);
  if (failed(weights.addStates()) || failed(weights.buildLoad()))
    return failure();
  std::vector<std::unique_ptr<Converter>> converters;
  for (func::FuncOp function : functions) {
    converters.push_back(
        std::make_unique<Converter>(module, function, plan, weights, kernels));
    if (failed(converters.back()->run()))
      return failure();
  }
  if (failed(kernels.emit(plan, module.getLoc())))
    return failure();
  for (auto [number, converter] : llvm::enumerate(converters))
    if (!functions[number]->hasAttr(stageAttrName))
      converter->addPorts(/*program=*/number + 1); // `load` comes first
  for (func::FuncOp entry : entries)
    if (failed(addPipeline(entry, functions, converters, plan)))
      return failure();
  Builder builder(module.getContext());
  SmallVector<StringRef> features;
  if (target.cpu)
    for (const std::string &feature : target.cpu->features)
      features.push_back(feature);
  module->setAttr("plan.target",
                  builder.getStringAttr(target.cuda ? target.cuda->name
                                                    : target.cpu->name));
  module->setAttr("plan.features", builder.getStrArrayAttr(features));
  for (ArrayRef<func::FuncOp> all : {functions, entries})
    for (func::FuncOp function : all)
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
    SmallVector<func::FuncOp> functions, entries;
    for (auto function : module.getOps<func::FuncOp>()) {
      if (function.isExternal() && function->hasAttr(stagesAttrName)) {
        entries.push_back(function);
        continue;
      }
      if (!function->hasAttr(spmdAttrName)) {
        function.emitError("[convert_to_plan_c1] is no function of phase "
                           "'schedule' (with ")
            << spmdAttrName << ")";
        return signalPassFailure();
      }
      if (function.getName() == "load") {
        function.emitError("[convert_to_plan_c1] is called 'load', which is "
                           "the name of the plan's own load program");
        return signalPassFailure();
      }
      if (failed(verifyInput(function)))
        return signalPassFailure();
      functions.push_back(function);
    }
    if (functions.empty()) {
      module.emitError("[convert_to_plan_c1] has no function of phase "
                       "'schedule' (with ")
          << spmdAttrName << ")";
      return signalPassFailure();
    }
    PlanTarget chosen;
    ::dshard::Status known;
    if (StringRef(target).starts_with("cuda")) {
      ::dshard::Result<CudaTarget> cuda = getCudaTarget(target);
      known = cuda.status();
      if (cuda)
        chosen.cuda = *cuda;
    } else {
      ::dshard::Result<CpuTarget> cpu = getCpuTarget(target);
      known = cpu.status();
      if (cpu)
        chosen.cpu = *cpu;
    }
    if (!known) {
      module.emitError(known.message());
      return signalPassFailure();
    }
    if (failed(convertAll(module, functions, entries, chosen)))
      signalPassFailure();
  }
};
} // namespace
