//===- BuildTrainStep.cpp - Add the entry point train_step ----------------===//

#include "OptimizerStep.h"
#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include "dshard/Dialect/DShard/IR/WeightNames.h"
#include "dshard/Support/Text.h"
#include "dshard/Transforms/Train/Autodiff.h"
#include "dshard/Transforms/Train/Passes.h"
#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/Support/GlobPattern.h"
#include "llvm/Support/ScopedPrinter.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_BUILDTRAINSTEPPASS
#include "dshard/Transforms/Train/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

static constexpr llvm::StringLiteral entryName = "train_step";
static constexpr llvm::StringLiteral lossPath = "loss";

static RankedTensorType typeOf(Value value) {
  return cast<RankedTensorType>(value.getType());
}

static WeightAttr getWeight(func::FuncOp function, unsigned index) {
  return function.getArgAttrOfType<WeightAttr>(index, weightAttrName);
}

static StringRef getNameOf(Attribute name) {
  auto text = dyn_cast_if_present<StringAttr>(name);
  return text ? text.getValue() : "";
}

namespace {
/// Makes @train_step from the model, on the whole batch and on one micro-batch
/// of it (the same function where there is one).
class TrainStepBuilder {
public:
  TrainStepBuilder(func::FuncOp model, func::FuncOp micro, int64_t count,
                   const TrainConfig &config)
      : model(model), micro(micro), count(count), config(config),
        builder(model.getContext()), loc(model.getLoc()) {}

  FailureOr<func::FuncOp> build();

private:
  MLIRContext *context() { return builder.getContext(); }
  DShardBuilder makeFor(Part part, StringRef path = lossPath) {
    return DShardBuilder(builder, loc, StringAttr::get(context(), path),
                         PartAttr::get(context(), part));
  }

  LogicalResult findLogits();
  LogicalResult checkLabels();
  LogicalResult chooseTrained();
  LogicalResult checkParameters();
  LogicalResult matchDecay();
  NamedAttribute named(StringRef name, Attribute value) {
    return builder.getNamedAttr(name, value);
  }
  BlockArgument addArgument(Type type, ArrayRef<NamedAttribute> attributes);
  void addResult(Value value, ArrayRef<NamedAttribute> attributes);
  void addModelArguments();
  void prepareLabels();
  /// The part of an input that micro-batch `iteration` reads; the whole without
  /// iteration.
  FailureOr<Value> takePart(Value whole, RankedTensorType wanted,
                            Value iteration, StringRef name);
  /// Model, loss and backward; gives the sum of the losses.
  FailureOr<Value> buildForwardBackward(Value iteration,
                                        SmallVectorImpl<Value> &gradients);
  LogicalResult buildLoop(Value &lossSum, SmallVectorImpl<Value> &gradients);
  std::string listUntrained() const;
  LogicalResult collectTrained(ArrayRef<Value> gradients);
  void finish(Value lossSum);

  func::FuncOp model, micro;
  int64_t count;
  const TrainConfig &config;
  OpBuilder builder;
  Location loc;

  unsigned logitsIndex = 0;
  RankedTensorType logitsType, labelsType; ///< of the whole batch
  func::FuncOp step;
  SmallVector<DictionaryAttr> argumentAttrs, resultAttrs;
  SmallVector<Value> results;
  Value labels;       ///< the argument
  Value prepared;     ///< shifted, of the whole batch
  Value inverseCount; ///< tensor<f32>: 1 / number of labels that count
  Value validCount;   ///< tensor<f32>
  struct FloatWeight {
    Value value;
    std::string name;
    BoolAttr isParameter; ///< what the file says, null where nothing
  };
  SmallVector<FloatWeight> floatWeights;
  /// Why -> the names of float weights that are not trained.
  llvm::MapVector<StringRef, std::vector<std::string>> untrained;
  /// A matrix is not trained since its name is no parameter's: exporters and
  /// tools that rename weights make such files.
  bool leavesMatrix = false;
  SmallVector<Value> candidates; ///< to be trained
  SmallVector<std::string> candidateNames;
  SmallVector<double> candidateDecay;
  SmallVector<TrainedParameter> trained;
};
} // namespace

//===----------------------------------------------------------------------===//
// What the configuration names
//===----------------------------------------------------------------------===//

LogicalResult TrainStepBuilder::findLogits() {
  std::vector<std::string> names;
  for (unsigned i = 0; i < model.getNumResults(); ++i) {
    StringRef name = getNameOf(model.getResultAttr(i, nameAttrName));
    names.push_back(name.str());
    if (name == config.logits) {
      logitsIndex = i;
      logitsType = cast<RankedTensorType>(model.getResultTypes()[i]);
    }
  }
  if (!logitsType)
    return model.emitError()
           << "--train: the model has no output '" << config.logits
           << "' for the loss; its outputs are " << ::dshard::join(names, ", ")
           << " (key logits)";
  int64_t least = config.shiftLabels ? 3 : 2;
  if (logitsType.getRank() < least ||
      !isa<FloatType>(logitsType.getElementType()))
    return model.emitError()
           << "--train: logits '" << config.logits << "' are " << logitsType
           << "; "
           << (config.shiftLabels
                   ? "shift_labels needs floats [batch, sequence, classes]"
                   : "cross_entropy needs floats [batch, ..., classes]");
  labelsType = RankedTensorType::get(logitsType.getShape().drop_back(),
                                     builder.getI64Type());
  if (config.shiftLabels && labelsType.getShape().back() < 2)
    return model.emitError()
           << "--train: logits '" << config.logits << "' are " << logitsType
           << "; shift_labels needs at least 2 positions";
  return success();
}

LogicalResult TrainStepBuilder::checkLabels() {
  for (unsigned i = 0; i < model.getNumArguments(); ++i)
    if (getNameOf(model.getArgAttr(i, nameAttrName)) == config.labels)
      return model.emitError()
             << "--train: the model has an argument '" << config.labels
             << "' already; name the input of the labels otherwise (key "
                "labels)";
  return success();
}

/// Which of the names a list of globs matches. Every glob must match one.
static LogicalResult matchGlobs(func::FuncOp model, ArrayRef<std::string> globs,
                                StringRef key,
                                const std::vector<std::string> &names,
                                SmallVectorImpl<bool> &matched) {
  matched.assign(names.size(), false);
  for (const std::string &text : globs) {
    // Its syntax was checked when it was read.
    llvm::Expected<llvm::GlobPattern> glob = llvm::GlobPattern::create(text);
    if (!glob)
      return model.emitError() << "--train: " << toString(glob.takeError());
    bool matches = false;
    for (auto [name, isMatched] : llvm::zip_equal(names, matched)) {
      if (!glob->match(name))
        continue;
      matches = isMatched = true;
    }
    if (!matches)
      return model.emitError()
             << "--train: the glob '" << text << "' of " << key
             << " matches no parameter" << ::dshard::didYouMean(text, names);
  }
  return success();
}

static constexpr llvm::StringLiteral noParameterName =
    "named unlike a module's parameter";

/// Why a weight is not trained by default; empty if it is.
static StringRef whyNotTrained(Value value, StringRef name,
                               BoolAttr isParameter, bool hasPaths) {
  if (typeOf(value).getRank() == 0)
    return "no dims";
  if (isParameter)
    return isParameter.getValue() ? "" : "a buffer";
  if (isBufferName(name))
    return "a buffer by its name";
  if (isMadeUpName(name) || (hasPaths && !isParameterPath(name)))
    return noParameterName;
  return "";
}

/// The candidates among the float weights: those that the globs of `trainable`
/// match, else the parameters of modules.
LogicalResult TrainStepBuilder::chooseTrained() {
  std::vector<std::string> names;
  for (const FloatWeight &weight : floatWeights)
    names.push_back(weight.name);
  SmallVector<bool> matched;
  if (config.trainable &&
      failed(matchGlobs(model, *config.trainable, "trainable", names, matched)))
    return failure();
  bool hasPaths = llvm::any_of(names, [](StringRef name) {
    return isParameterPath(name) && !isBufferName(name);
  });
  for (auto [i, weight] : llvm::enumerate(floatWeights)) {
    StringRef why = config.trainable
                        ? (matched[i] ? "" : "no glob of trainable matches it")
                        : whyNotTrained(weight.value, weight.name,
                                        weight.isParameter, hasPaths);
    if (!why.empty()) {
      leavesMatrix |=
          why == noParameterName && typeOf(weight.value).getRank() > 1;
      untrained[why].push_back(weight.name);
      continue;
    }
    candidates.push_back(weight.value);
    candidateNames.push_back(weight.name);
  }
  return success();
}

LogicalResult TrainStepBuilder::checkParameters() {
  for (auto [value, name] : llvm::zip_equal(candidates, candidateNames))
    if (!typeOf(value).getElementType().isF32())
      return model.emitError()
             << "--train: parameter '" << name << "' is " << value.getType()
             << "; training needs f32 parameters, mixed precision is not built "
                "yet";
  return success();
}

/// The weight decay of each candidate. A glob may match what is not trained.
LogicalResult TrainStepBuilder::matchDecay() {
  std::vector<std::string> names;
  for (const FloatWeight &weight : floatWeights)
    names.push_back(weight.name);
  SmallVector<bool> matched;
  if (failed(matchGlobs(model, config.noDecay, "no_decay", names, matched)))
    return failure();
  for (auto [weight, isMatched] : llvm::zip_equal(floatWeights, matched))
    if (llvm::is_contained(candidates, weight.value))
      candidateDecay.push_back(isMatched ? 0 : config.weightDecay);
  return success();
}

//===----------------------------------------------------------------------===//
// Arguments and results
//===----------------------------------------------------------------------===//

BlockArgument
TrainStepBuilder::addArgument(Type type, ArrayRef<NamedAttribute> attributes) {
  argumentAttrs.push_back(builder.getDictionaryAttr(attributes));
  return step.getBody().front().addArgument(type, loc);
}

void TrainStepBuilder::addResult(Value value,
                                 ArrayRef<NamedAttribute> attributes) {
  results.push_back(value);
  resultAttrs.push_back(builder.getDictionaryAttr(attributes));
}

/// Inputs, labels, parameters: arguments as in the model, the labels behind its
/// inputs.
void TrainStepBuilder::addModelArguments() {
  auto addLabels = [&] {
    SmallVector<NamedAttribute> attributes = {
        named(nameAttrName, builder.getStringAttr(config.labels)),
        named(roleAttrName, RoleAttr::get(context(), Role::input)),
        named(rangeAttrName,
              builder.getDenseI64ArrayAttr(
                  {0, logitsType.getShape().back() - 1, config.ignoreIndex}))};
    if (auto dims = dyn_cast_if_present<ArrayAttr>(
            model.getResultAttr(logitsIndex, dimNamesAttrName));
        dims && static_cast<int64_t>(dims.size()) == logitsType.getRank())
      attributes.push_back(named(
          dimNamesAttrName, builder.getArrayAttr(dims.getValue().drop_back())));
    labels = addArgument(labelsType, attributes);
  };
  for (unsigned i = 0; i < model.getNumArguments(); ++i) {
    WeightAttr weight = getWeight(model, i);
    if (weight && !labels)
      addLabels();
    NamedAttrList attributes(model.getArgAttrDict(i));
    auto isParameter =
        dyn_cast_if_present<BoolAttr>(attributes.erase(isParameterAttrName));
    model.removeArgAttr(i, isParameterAttrName);
    if (weight)
      attributes.set(stateAttrName, weight.getName());
    Value argument =
        addArgument(model.getArgumentTypes()[i], attributes.getAttrs());
    if (!weight || !isa<FloatType>(typeOf(argument).getElementType()))
      continue;
    floatWeights.push_back(
        {argument, weight.getName().getValue().str(), isParameter});
  }
  if (!labels)
    addLabels();
}

//===----------------------------------------------------------------------===//
// Loss and gradients
//===----------------------------------------------------------------------===//

/// Shifts the labels if asked to and counts those that are not ignored.
void TrainStepBuilder::prepareLabels() {
  DShardBuilder make = makeFor(Part::forward);
  Type i64 = builder.getI64Type(), f32 = builder.getF32Type();
  prepared = labels;
  if (config.shiftLabels) {
    int64_t dim = labelsType.getRank() - 1, size = labelsType.getDimSize(dim);
    SmallVector<int64_t> low(dim + 1, 0), high(dim + 1, 0);
    high[dim] = 1;
    prepared = make.create<PadOp>(
        labelsType, make.sliceDim(labels, dim, 1, size - 1), low, high,
        APFloat(static_cast<double>(config.ignoreIndex)));
  }
  Value counts =
      make.compare(prepared, make.scalar(double(config.ignoreIndex), i64),
                   ComparePredicate::ne);
  SmallVector<int64_t> dims =
      llvm::to_vector(llvm::seq<int64_t>(0, labelsType.getRank()));
  Value sum = make.reduce(make.cast(counts, f32), ReductionKind::sum, dims,
                          /*keepDims=*/false);
  validCount = make.binary<MaxOp>(sum, make.scalar(1, f32));
  inverseCount = make.unary<ReciprocalOp>(validCount);
}

FailureOr<Value> TrainStepBuilder::takePart(Value whole,
                                            RankedTensorType wanted,
                                            Value iteration, StringRef name) {
  RankedTensorType type = typeOf(whole);
  if (!iteration || type == wanted)
    return whole;
  if (type.getRank() == 0 || wanted.getRank() != type.getRank() ||
      type.getShape().drop_front() != wanted.getShape().drop_front() ||
      type.getDimSize(0) != wanted.getDimSize(0) * count)
    return model.emitError()
           << "--micro-batches=" << count << ": '" << name << "' is "
           << llvm::to_string(wanted) << " in one micro-batch and "
           << llvm::to_string(type) << " in the batch, which is not " << count
           << " times as much";
  DShardBuilder make = makeFor(Part::forward);
  SmallVector<int64_t> split = {wanted.getDimSize(0), count};
  llvm::append_range(split, type.getShape().drop_front());
  return Value(make.create<GatherOp>(wanted, make.reshape(whole, split),
                                     iteration, /*offset=*/Value(),
                                     uint64_t(1)));
}

FailureOr<Value>
TrainStepBuilder::buildForwardBackward(Value iteration,
                                       SmallVectorImpl<Value> &gradients) {
  // Inputs and parameters stand in @train_step in the model's order, the labels
  // between them.
  IRMapping mapping;
  unsigned next = 0;
  for (BlockArgument argument : micro.getArguments()) {
    Value whole = step.getArgument(next++);
    if (step.getArgument(next - 1) == labels)
      whole = step.getArgument(next++);
    FailureOr<Value> part = takePart(
        whole, typeOf(argument), iteration,
        getNameOf(micro.getArgAttr(argument.getArgNumber(), nameAttrName)));
    if (failed(part))
      return failure();
    mapping.map(argument, *part);
  }
  for (Operation &op : micro.getBody().front().without_terminator())
    builder.clone(op, mapping);
  Value logits = mapping.lookupOrDefault(
      micro.getBody().front().getTerminator()->getOperand(logitsIndex));

  auto partType = labelsType.clone(typeOf(logits).getShape().drop_back());
  FailureOr<Value> partLabels =
      takePart(prepared, partType, iteration, config.labels);
  if (failed(partLabels))
    return failure();
  DShardBuilder make = makeFor(Part::forward);
  RankedTensorType lossType = partType.clone(builder.getF32Type());
  auto loss =
      make.create<CrossEntropyOp>(TypeRange{lossType, lossType}, logits,
                                  *partLabels, uint64_t(config.ignoreIndex));
  SmallVector<int64_t> dims =
      llvm::to_vector(llvm::seq<int64_t>(0, lossType.getRank()));
  Value lossSum =
      make.reduce(loss.getResult(), ReductionKind::sum, dims, false);

  DShardBuilder backward = makeFor(Part::backward);
  Value seed = backward.broadcastTo(inverseCount, lossType.getShape());
  if (failed(buildBackward(builder, *builder.getInsertionBlock(),
                           {loss.getResult()}, {seed}, candidates, gradients)))
    return failure();
  return lossSum;
}

/// k micro-batches: a loop that carries the sum of the losses and of each
/// gradient.
LogicalResult TrainStepBuilder::buildLoop(Value &lossSum,
                                          SmallVectorImpl<Value> &gradients) {
  // Which parameters get a gradient is known only once the body is there, so it
  // is first built in a loop that carries nothing.
  DShardBuilder make = makeFor(Part::forward, "");
  auto draft =
      make.create<RepeatOp>(TypeRange{}, ValueRange{}, uint64_t(count));
  Block *body = draft.getBody().empty() ? builder.createBlock(&draft.getBody())
                                        : &draft.getBody().front();
  body->clear();
  Value iteration =
      body->getNumArguments() == 0
          ? body->addArgument(RankedTensorType::get({}, builder.getI64Type()),
                              loc)
          : body->getArgument(0);
  builder.setInsertionPointToEnd(body);
  SmallVector<Value> parts;
  FailureOr<Value> partLoss = buildForwardBackward(iteration, parts);
  if (failed(partLoss))
    return failure();

  builder.setInsertionPointToEnd(body);
  SmallVector<Value> yielded;
  SmallVector<RankedTensorType> types;
  auto accumulate = [&](Value part, StringRef path) {
    Value sum = body->addArgument(part.getType(), loc);
    yielded.push_back(makeFor(Part::backward, path).binary<AddOp>(sum, part));
    types.push_back(typeOf(part));
  };
  accumulate(*partLoss, lossPath);
  for (auto [name, part] : llvm::zip_equal(candidateNames, parts))
    if (part)
      accumulate(part, getModulePath(context(), name).getValue());
  YieldOp::create(builder, loc, yielded);

  builder.setInsertionPoint(draft);
  SmallVector<Value> zeros;
  for (RankedTensorType type : types)
    zeros.push_back(make.splat(0, type));
  auto loop = make.create<RepeatOp>(ValueRange(zeros).getTypes(), zeros,
                                    uint64_t(count));
  loop.getBody().takeBody(draft.getBody());
  draft.erase();
  builder.setInsertionPointAfter(loop);
  lossSum = loop.getResult(0);
  unsigned next = 1;
  for (Value part : parts)
    gradients.push_back(part ? loop.getResult(next++) : Value());
  return success();
}

/// Names the finished gradients; parameters that no gradient reaches stay as
/// they are.
LogicalResult TrainStepBuilder::collectTrained(ArrayRef<Value> gradients) {
  for (auto [value, name, decay, gradient] :
       llvm::zip_equal(candidates, candidateNames, candidateDecay, gradients)) {
    if (!gradient) {
      untrained["the loss does not depend on it"].push_back(name);
      continue;
    }
    TrainedParameter &parameter = trained.emplace_back();
    parameter.name = name;
    parameter.value = value;
    parameter.weightDecay = decay;
    DShardBuilder make =
        makeFor(Part::backward, getModulePath(context(), name).getValue());
    parameter.gradient = make.create<GradientOp>(gradient.getType(), gradient,
                                                 builder.getStringAttr(name));
  }
  if (trained.empty()) {
    InFlightDiagnostic error =
        model.emitError() << "--train: no parameter of the model changes '"
                          << config.logits << "'; there is nothing to train";
    if (!untrained.empty())
      error << "; not trained: " << listUntrained()
            << " (key trainable names weights to train)";
    return error;
  }
  std::string count = std::to_string(trained.size());
  InFlightDiagnostic remark =
      leavesMatrix ? model.emitWarning() : model.emitRemark();
  remark << "--train: " << count
         << (trained.size() == 1 ? " parameter is" : " parameters are")
         << " trained";
  if (!untrained.empty())
    remark << "; not trained: " << listUntrained();
  if (leavesMatrix)
    remark << "; key trainable names weights to train";
  return success();
}

/// "a, b (no dims); c (a buffer)".
std::string TrainStepBuilder::listUntrained() const {
  constexpr size_t shown = 8;
  std::string text;
  for (const auto &[reason, names] : untrained) {
    std::vector<std::string> first(
        names.begin(), names.begin() + std::min(names.size(), shown));
    text += (text.empty() ? "" : "; ") + ::dshard::join(first, ", ");
    if (names.size() > shown)
      text += " and " + std::to_string(names.size() - shown) + " more";
    text += " (" + reason.str() + ")";
  }
  return text;
}

//===----------------------------------------------------------------------===//
// The whole step
//===----------------------------------------------------------------------===//

/// States and scalars, the optimizer, and the results.
void TrainStepBuilder::finish(Value lossSum) {
  auto role = [&](Role value) {
    return named(roleAttrName, RoleAttr::get(context(), value));
  };
  auto state = [&](const Twine &name) {
    return named(stateAttrName, builder.getStringAttr(name));
  };
  auto name = [&](const Twine &text) {
    return named(nameAttrName, builder.getStringAttr(text));
  };
  for (TrainedParameter &parameter : trained) {
    auto of = named(stateOfAttrName, builder.getStringAttr(parameter.name));
    auto add = [&](StringRef suffix) {
      return addArgument(
          parameter.value.getType(),
          {state(parameter.name + suffix), of, role(Role::optimizer_state)});
    };
    parameter.expAvg = add(".exp_avg");
    parameter.expAvgSq = add(".exp_avg_sq");
  }
  Value stepCounter =
      addArgument(RankedTensorType::get({}, builder.getI64Type()),
                  {state("step"), role(Role::optimizer_state)});
  Value learningRate = addArgument(
      RankedTensorType::get({}, builder.getF32Type()),
      {named(scalarAttrName, builder.getStringAttr("lr")), role(Role::input)});

  OptimizerResults next = buildOptimizerStep(builder, loc, trained, stepCounter,
                                             learningRate, config);
  if (config.givesLoss)
    addResult(makeFor(Part::forward).binary<DivOp>(lossSum, validCount),
              {name("loss")});
  if (config.givesGradNorm)
    addResult(next.norm, {name("grad_norm")});
  SmallVector<Attribute> names;
  for (const TrainedParameter &parameter : trained) {
    names.push_back(builder.getStringAttr(parameter.name));
    if (config.givesGradients)
      addResult(parameter.gradient,
                {name(parameter.name + ".grad"), role(Role::grad)});
  }
  addResult(next.squares,
            {name(config.skipsNonFinite ? "nonfinite.skip" : "nonfinite.stop"),
             named(finiteAttrName, builder.getArrayAttr(names))});
  for (auto [i, parameter] : llvm::enumerate(trained)) {
    addResult(next.params[i], {state(parameter.name), role(Role::param)});
    addResult(next.expAvgs[i], {state(parameter.name + ".exp_avg"),
                                role(Role::optimizer_state)});
    addResult(next.expAvgSqs[i], {state(parameter.name + ".exp_avg_sq"),
                                  role(Role::optimizer_state)});
  }
  addResult(next.step, {state("step"), role(Role::optimizer_state)});
}

FailureOr<func::FuncOp> TrainStepBuilder::build() {
  if (failed(findLogits()) || failed(checkLabels()))
    return failure();
  builder.setInsertionPointAfter(model);
  step = func::FuncOp::create(builder, loc, entryName,
                              builder.getFunctionType({}, {}));
  Block *entry = step.addEntryBlock();
  addModelArguments();
  if (failed(chooseTrained()) || failed(checkParameters()) ||
      failed(matchDecay()))
    return failure();

  builder.setInsertionPointToEnd(entry);
  prepareLabels();
  Value lossSum;
  SmallVector<Value> gradients;
  if (micro == model) {
    FailureOr<Value> sum = buildForwardBackward(Value(), gradients);
    if (failed(sum))
      return failure();
    lossSum = *sum;
  } else if (failed(buildLoop(lossSum, gradients))) {
    return failure();
  }
  builder.setInsertionPointToEnd(entry);
  if (failed(collectTrained(gradients)))
    return failure();
  finish(lossSum);
  func::ReturnOp::create(builder, loc, results);

  step.setFunctionType(builder.getFunctionType(entry->getArgumentTypes(),
                                               ValueRange(results).getTypes()));
  step.setAllArgAttrs(argumentAttrs);
  step.setAllResultAttrs(resultAttrs);
  return step;
}

/// The function with a body that is not @train_step.
static FailureOr<func::FuncOp> findModel(ModuleOp module) {
  func::FuncOp found;
  for (auto function : module.getOps<func::FuncOp>()) {
    if (function.isExternal() || function.getName() == entryName)
      continue;
    if (found)
      return function.emitError()
             << "--train: the module has several functions, '"
             << found.getName() << "' and '" << function.getName()
             << "'; training is made from one";
    found = function;
  }
  if (!found)
    return module.emitError() << "--train: the module has no model beside '"
                              << entryName << "'; name its entry otherwise";
  return found;
}

namespace {
struct BuildTrainStepPass
    : mlir::dshard::impl::BuildTrainStepPassBase<BuildTrainStepPass> {
  using BuildTrainStepPassBase::BuildTrainStepPassBase;

  void runOnOperation() override {
    if (failed(run()))
      signalPassFailure();
  }

  LogicalResult run() {
    ModuleOp module = getOperation();
    ::dshard::Result<TrainConfig> read = loadTrainConfig(config);
    if (!read)
      return emitError(UnknownLoc::get(&getContext()))
             << "--train: " << read.status().message();
    FailureOr<func::FuncOp> model = findModel(module);
    if (failed(model))
      return failure();
    // With micro-batches the importer made the model of one of them.
    auto micro = module.lookupSymbol<func::FuncOp>(entryName);
    auto held = micro ? micro->getAttrOfType<IntegerAttr>(microBatchesAttrName)
                      : IntegerAttr();
    int64_t parts = held ? held.getInt() : 1;
    if (micro && !held)
      return micro.emitError()
             << "--train: the module holds '" << entryName << "' already";
    if (parts != int64_t(microBatches))
      return emitError(UnknownLoc::get(&getContext()))
             << "--micro-batches=" << int64_t(microBatches)
             << ": the module is for " << parts << "; start from the .onnx";
    if (micro)
      micro.setName("dshard_micro_batch");
    FailureOr<func::FuncOp> step =
        TrainStepBuilder(*model, micro ? micro : *model, parts, *read).build();
    if (failed(step))
      return failure();
    if (micro)
      micro.erase();
    return success();
  }
};
} // namespace
