//===- SplitPipeline.cpp - Split the program into pipeline stages ---------===//

#include "dshard/Dialect/DShard/IR/Units.h"
#include "dshard/Transforms/Partition/Passes.h"
#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/SetVector.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_SPLITPIPELINEPASS
#include "dshard/Transforms/Partition/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

static std::string describeModule(Operation *op) {
  StringRef path = getModuleOf(op);
  return path.empty() ? op->getName().getStringRef().str() : path.str();
}

/// A reshard's sharding is its own attribute.
static ShardingAttr getShardingOf(Value value) {
  auto reshard = value.getDefiningOp<ReshardOp>();
  return reshard ? reshard.getSharding() : getSharding(value);
}

namespace {
/// Splits one function. First every op gets its stage, or none, if all stages
/// may compute it; then the stages become functions.
class Splitter {
public:
  Splitter(func::FuncOp function, MeshAttr mesh, StringRef split)
      : function(function), body(function.getBody().front()), split(split),
        stages(mesh.getAxisSize("pp")) {}
  LogicalResult run();

private:
  LogicalResult checkStates();
  void findDuplicable();
  LogicalResult decideByLayers();
  LogicalResult decideByCost();
  void findCrossings();
  void build();
  func::FuncOp buildStage(int64_t stage);

  /// The stage that computes a value; none: each that needs it.
  std::optional<int64_t> stageOf(Value value) const {
    auto found = stageOfOp.find(value.getDefiningOp());
    return found == stageOfOp.end() ? std::nullopt
                                    : std::optional(found->second);
  }
  bool isDuplicable(Operation *op) const { return duplicable.contains(op); }
  bool isParameter(unsigned argument) {
    return static_cast<bool>(function.getArgAttr(argument, weightAttrName));
  }
  /// The stage that gives a result of the function.
  int64_t stageOfResult(Value value) const {
    return stageOf(value).value_or(stages - 1);
  }
  /// What an op reads, also inside its regions.
  SmallVector<Value> valuesRead(Operation *op) const;
  void need(Value value, int64_t stage);
  Operation *makeSend(OpBuilder &builder, Value local, Value value,
                      int64_t stage);
  Operation *makeRecv(OpBuilder &builder, Value value, int64_t stage);
  StringAttr why(Value value, int64_t to) {
    Operation *op = value.getDefiningOp();
    return StringAttr::get(function.getContext(),
                           "output of " + describeModule(op) + " for stage " +
                               Twine(to));
  }

  func::FuncOp function;
  Block &body;
  StringRef split;
  int64_t stages;
  llvm::SmallPtrSet<Operation *, 16> duplicable;
  DenseMap<Operation *, int64_t> stageOfOp;
  /// Values that cross, in program order: their last stage and their tag.
  struct Crossing {
    int64_t last, tag;
  };
  llvm::MapVector<Value, Crossing> crossings;
  /// By stage: arguments, and ops that are duplicated there.
  std::vector<llvm::SmallSetVector<Value, 16>> needed;
};
} // namespace

SmallVector<Value> Splitter::valuesRead(Operation *op) const {
  SmallVector<Value> values;
  op->walk([&](Operation *inner) {
    for (Value operand : inner->getOperands())
      if (operand.getParentBlock() == &body)
        values.push_back(operand);
  });
  return values;
}

/// Values computable from the inputs alone (masks, positions) or from
/// parameters alone (a gathered weight) are computed where they are needed.
void Splitter::findDuplicable() {
  enum { fromInput = 1, fromParameter = 2 };
  DenseMap<Value, int> sources;
  for (BlockArgument argument : body.getArguments())
    sources[argument] =
        isParameter(argument.getArgNumber()) ? fromParameter : fromInput;
  for (Operation &op : body.without_terminator()) {
    int from = 0;
    for (Value value : valuesRead(&op))
      from |= sources.lookup(value);
    for (Value result : op.getResults())
      sources[result] = from;
    if (from != (fromInput | fromParameter))
      duplicable.insert(&op);
  }
}

static std::string adviseFewerStages(int64_t most) {
  if (most < 2)
    return "; it cannot be a pipeline, leave out pp";
  return "; use at most pp=" + std::to_string(most);
}

LogicalResult Splitter::decideByLayers() {
  FailureOr<Units> units = Units::find(function, "");
  if (failed(units))
    return failure();
  std::vector<std::string> layers = units->getNamesInOrder();
  // split_pipeline_c2
  if (layers.empty())
    return function.emitError()
           << "pp=" << stages
           << ": the model has no numbered list of layers to divide; use "
              "--pp-split=cost";
  auto count = static_cast<int64_t>(layers.size());
  // split_pipeline_c3
  if (count < stages)
    return function.emitError()
           << "pp=" << stages << " stages are more than the " << count
           << " layers '" << layers.front() << "' to '" << layers.back() << "'"
           << adviseFewerStages(count);
  // The first `extra` stages get one layer more.
  llvm::StringMap<int64_t> stageOfLayer;
  int64_t each = count / stages, extra = count % stages, next = 0;
  for (int64_t stage = 0; stage < stages; ++stage)
    for (int64_t i = 0; i < each + (stage < extra); ++i)
      stageOfLayer[layers[next++]] = stage;
  for (Operation &op : body.without_terminator()) {
    if (isDuplicable(&op))
      continue;
    // Before the layers: the first stage; behind them: where the last operand
    // is, which is the last stage for norm and head.
    int64_t earliest = 0;
    Operation *latest = nullptr;
    for (Value value : valuesRead(&op))
      if (std::optional<int64_t> from = stageOf(value);
          from && *from >= earliest) {
        earliest = *from;
        latest = value.getDefiningOp();
      }
    std::string layer = units->getUnitOf(getModuleOf(&op));
    int64_t stage = layer.empty() ? earliest : stageOfLayer.lookup(layer);
    // split_pipeline_c4
    if (stage < earliest)
      return op.emitOpError()
             << "of layer '" << layer << "' (stage " << stage
             << ") reads a value of '" << describeModule(latest) << "' (stage "
             << earliest << "); values go from stage to stage forward only";
    stageOfOp[&op] = stage;
  }
  return success();
}

/// Runs of ops of one module are not cut; the dearest stage is as cheap as it
/// can be.
LogicalResult Splitter::decideByCost() {
  FailureOr<Units> units = Units::find(function, "");
  if (failed(units))
    return failure();
  struct Run {
    std::string module;
    double flops = 0;
    SmallVector<Operation *> ops;
  };
  std::vector<Run> runs;
  for (Operation &op : body.without_terminator()) {
    if (isDuplicable(&op))
      continue;
    std::string layer = units->getUnitOf(getModuleOf(&op));
    std::string module = layer.empty() ? getModuleOf(&op).str() : layer;
    if (runs.empty() || runs.back().module != module)
      runs.push_back({module, 0, {}});
    if (auto cost = dyn_cast<CostInterface>(op))
      runs.back().flops += cost.getFlops();
    runs.back().ops.push_back(&op);
  }
  auto count = static_cast<int64_t>(runs.size());
  // split_pipeline_c3
  if (count < stages)
    return function.emitError()
           << "pp=" << stages << " stages are more than the " << count
           << " modules of the model" << adviseFewerStages(count);
  // best[s][n]: the dearest of s stages that hold the first n runs.
  std::vector<double> sums(count + 1, 0);
  for (int64_t i = 0; i < count; ++i)
    sums[i + 1] = sums[i] + runs[i].flops;
  double infinite = std::numeric_limits<double>::infinity();
  std::vector<std::vector<double>> best(
      stages + 1, std::vector<double>(count + 1, infinite));
  std::vector<std::vector<int64_t>> cut(stages + 1,
                                        std::vector<int64_t>(count + 1, 0));
  best[0][0] = 0;
  for (int64_t s = 1; s <= stages; ++s)
    for (int64_t n = s; n <= count; ++n)
      for (int64_t k = s - 1; k < n; ++k) {
        double dearest = std::max(best[s - 1][k], sums[n] - sums[k]);
        if (dearest < best[s][n]) {
          best[s][n] = dearest;
          cut[s][n] = k;
        }
      }
  for (int64_t s = stages, end = count; s > 0; --s) {
    for (int64_t i = cut[s][end]; i < end; ++i)
      for (Operation *op : runs[i].ops)
        stageOfOp[op] = s - 1;
    end = cut[s][end];
  }
  return success();
}

/// `stage` reads `value`: from an argument, computed there, or received.
void Splitter::need(Value value, int64_t stage) {
  std::optional<int64_t> from = stageOf(value);
  if (from) {
    if (*from == stage)
      return;
    auto found = crossings.find(value);
    if (found != crossings.end())
      found->second.last = std::max(found->second.last, stage);
    return;
  }
  if (!needed[stage].insert(value))
    return;
  if (Operation *op = value.getDefiningOp()) {
    for (Value result : op->getResults())
      needed[stage].insert(result);
    for (Value operand : valuesRead(op))
      need(operand, stage);
  }
}

void Splitter::findCrossings() {
  needed.resize(stages);
  // Tags count the values that cross, in program order.
  int64_t tag = 0;
  for (Operation &op : body.without_terminator())
    for (Value value : op.getResults()) {
      std::optional<int64_t> from = stageOf(value);
      if (from && llvm::any_of(value.getUsers(), [&](Operation *user) {
            Operation *owner = body.findAncestorOpInBlock(*user);
            auto found = stageOfOp.find(owner);
            return found != stageOfOp.end() && found->second > *from;
          }))
        crossings[value] = {*from, tag++};
    }
  for (Operation &op : body.without_terminator()) {
    auto found = stageOfOp.find(&op);
    if (found != stageOfOp.end())
      for (Value value : valuesRead(&op))
        need(value, found->second);
  }
  for (Value value : body.getTerminator()->getOperands())
    need(value, stageOfResult(value));
  // An input that nobody reads is still an input of the entry point.
  for (BlockArgument argument : body.getArguments())
    if (!isParameter(argument.getArgNumber()) &&
        llvm::none_of(needed,
                      [&](auto &set) { return set.contains(argument); }))
      needed[0].insert(argument);
}

Operation *Splitter::makeSend(OpBuilder &builder, Value local, Value value,
                              int64_t stage) {
  Operation *op = value.getDefiningOp();
  auto pp = AxisRefAttr::get(builder.getContext(), "pp");
  return SendOp::create(builder, op->getLoc(), local, stage + 1,
                        crossings.lookup(value).tag, builder.getArrayAttr({pp}),
                        why(value, stage + 1),
                        op->getAttrOfType<StringAttr>("path"),
                        op->getAttrOfType<PartAttr>("part"));
}

Operation *Splitter::makeRecv(OpBuilder &builder, Value value, int64_t stage) {
  Operation *op = value.getDefiningOp();
  auto pp = AxisRefAttr::get(builder.getContext(), "pp");
  auto recv =
      RecvOp::create(builder, op->getLoc(), value.getType(), stage - 1,
                     crossings.lookup(value).tag, builder.getArrayAttr({pp}),
                     why(value, stage), op->getAttrOfType<StringAttr>("path"),
                     op->getAttrOfType<PartAttr>("part"));
  if (ShardingAttr sharding = getShardingOf(value))
    setSharding(recv.getResult(), sharding);
  return recv;
}

func::FuncOp Splitter::buildStage(int64_t stage) {
  MLIRContext *context = function.getContext();
  OpBuilder builder(function);
  SmallVector<Type> inputs, outputs;
  SmallVector<DictionaryAttr> inputAttributes, outputAttributes;
  auto positioned = [&](DictionaryAttr attributes, unsigned position) {
    NamedAttrList list(attributes);
    list.set(indexAttrName, builder.getI64IntegerAttr(position));
    return list.getDictionary(context);
  };
  SmallVector<BlockArgument> arguments;
  for (BlockArgument argument : body.getArguments())
    if (needed[stage].contains(argument)) {
      arguments.push_back(argument);
      inputs.push_back(argument.getType());
      inputAttributes.push_back(
          positioned(function.getArgAttrDict(argument.getArgNumber()),
                     argument.getArgNumber()));
    }
  SmallVector<Value> results;
  for (auto [number, value] :
       llvm::enumerate(body.getTerminator()->getOperands()))
    if (stageOfResult(value) == stage) {
      results.push_back(value);
      outputs.push_back(value.getType());
      outputAttributes.push_back(
          positioned(function.getResultAttrDict(number), number));
    }
  auto result =
      func::FuncOp::create(builder, function.getLoc(),
                           (function.getName() + "." + Twine(stage)).str(),
                           FunctionType::get(context, inputs, outputs));
  result.setPrivate();
  result->setDiscardableAttrs(function->getDiscardableAttrDictionary());
  result->setAttr(stageAttrName, builder.getI64IntegerAttr(stage));
  result.setAllArgAttrs(inputAttributes);
  result.setAllResultAttrs(outputAttributes);

  Block &block = *result.addEntryBlock();
  for (auto [own, argument] : llvm::zip_equal(block.getArguments(), arguments))
    own.setLoc(argument.getLoc());
  builder.setInsertionPointToEnd(&block);
  IRMapping mapping;
  for (auto [argument, own] : llvm::zip_equal(arguments, block.getArguments()))
    mapping.map(argument, own);
  // In the order in which the stage before sends them.
  for (auto &[value, crossing] : crossings) {
    if (*stageOf(value) >= stage || crossing.last < stage)
      continue;
    Operation *recv = makeRecv(builder, value, stage);
    mapping.map(value, recv->getResult(0));
    if (crossing.last > stage)
      makeSend(builder, recv->getResult(0), value, stage);
  }
  for (Operation &op : body.without_terminator()) {
    auto found = stageOfOp.find(&op);
    bool isOwn = found != stageOfOp.end() && found->second == stage;
    bool isDuplicate =
        found == stageOfOp.end() && llvm::any_of(op.getResults(), [&](Value v) {
          return needed[stage].contains(v);
        });
    if (!isOwn && !isDuplicate)
      continue;
    builder.clone(op, mapping);
    for (Value value : op.getResults())
      if (isOwn && crossings.count(value))
        makeSend(builder, mapping.lookup(value), value, stage);
  }
  SmallVector<Value> returned;
  for (Value value : results)
    returned.push_back(mapping.lookup(value));
  func::ReturnOp::create(builder, body.getTerminator()->getLoc(), returned);
  return result;
}

void Splitter::build() {
  SmallVector<Attribute> names;
  for (int64_t stage = 0; stage < stages; ++stage)
    names.push_back(
        StringAttr::get(function.getContext(), buildStage(stage).getName()));
  for (BlockArgument argument : body.getArguments()) {
    std::string holders;
    int64_t count = 0;
    for (int64_t stage = 0; stage < stages; ++stage)
      if (needed[stage].contains(argument)) {
        holders += (count++ ? ", " : "") + std::to_string(stage);
      }
    if (count > 1 && isParameter(argument.getArgNumber())) {
      auto type = cast<RankedTensorType>(argument.getType());
      emitRemark(argument.getLoc())
          << "parameter '"
          << function
                 .getArgAttrOfType<WeightAttr>(argument.getArgNumber(),
                                               weightAttrName)
                 .getName()
                 .getValue()
          << "' of " << type << " is used by the stages " << holders
          << ", each of which holds it";
    }
  }
  // What is left is the signature.
  body.dropAllReferences();
  function.getBody().getBlocks().clear();
  function.setPrivate();
  function->setAttr(stagesAttrName,
                    ArrayAttr::get(function.getContext(), names));
}

LogicalResult Splitter::checkStates() {
  for (unsigned i = 0; i < function.getNumArguments(); ++i)
    if (auto state = function.getArgAttrOfType<StringAttr>(i, stateAttrName);
        state && !isParameter(i))
      // split_pipeline_c1
      return function.emitError()
             << "argument " << i << " is the state '" << state.getValue()
             << "'; pipelines of programs that keep state are not built yet";
  return success();
}

LogicalResult Splitter::run() {
  if (failed(checkStates()))
    return failure();
  findDuplicable();
  if (failed(split == "cost" ? decideByCost() : decideByLayers()))
    return failure();
  findCrossings();
  build();
  return success();
}

namespace {
struct SplitPipelinePass
    : mlir::dshard::impl::SplitPipelinePassBase<SplitPipelinePass> {
  using SplitPipelinePassBase::SplitPipelinePassBase;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    MeshAttr mesh = getMesh(module);
    if (!mesh || mesh.getAxisSize("pp") == 1)
      return;
    if (split != "layers" && split != "cost") {
      module.emitError() << "--pp-split=" << split
                         << ": a pipeline is split by 'layers' or by 'cost'";
      return signalPassFailure();
    }
    SmallVector<func::FuncOp> functions;
    for (auto function : module.getOps<func::FuncOp>())
      if (!function.isExternal() && !function->hasAttr(stageAttrName))
        functions.push_back(function);
    for (func::FuncOp function : functions)
      if (failed(Splitter(function, mesh, split).run()))
        return signalPassFailure();
  }
};
} // namespace
