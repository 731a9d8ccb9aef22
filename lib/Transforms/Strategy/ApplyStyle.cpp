//===- ApplyStyle.cpp - Modules of a program, and styles on them ----------===//

#include "ApplyStyle.h"
#include "Parameters.h"
#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SetVector.h"
#include <set>

using namespace mlir;
using namespace mlir::dshard;

static StringRef pathOf(Operation *op) {
  auto path = op->getAttrOfType<StringAttr>("path");
  return path ? path.getValue() : StringRef();
}

//===----------------------------------------------------------------------===//
// Modules
//===----------------------------------------------------------------------===//

/// Experts are parameters of one module, not modules: their products are listed
/// under the parameter's name, or what it would be.
static std::string expertPath(func::FuncOp function, GroupedMatMulOp op) {
  StringRef path = pathOf(op);
  if (auto argument = dyn_cast<BlockArgument>(op.getWeights()))
    if (auto weight = function.getArgAttrOfType<WeightAttr>(
            argument.getArgNumber(), weightAttrName)) {
      StringRef name = weight.getName().getValue();
      name.consume_back(".weight");
      if (name.starts_with(path) && name.size() > path.size())
        return name.str();
    }
  // What another product of the module reads comes first.
  SmallVector<Value> values = {op.getResult()};
  llvm::DenseSet<Operation *> seen;
  while (!values.empty())
    for (Operation *user : values.pop_back_val().getUsers()) {
      if (isa<GroupedMatMulOp>(user) && pathOf(user) == path)
        return (path + ".gate_up_proj").str();
      if (pathOf(user) == path && seen.insert(user).second)
        llvm::append_range(values, user->getResults());
    }
  return (path + ".down_proj").str();
}

ModuleTree::ModuleTree(func::FuncOp function) {
  std::set<std::string> found;
  auto add = [&](StringRef path) {
    for (; !path.empty();
         path = path.contains('.') ? path.rsplit('.').first : StringRef())
      if (!found.insert(path.str()).second)
        return;
  };
  function.walk([&](Operation *op) {
    if (auto path = op->getAttrOfType<StringAttr>("path")) {
      // Styles speak of the forward part; gradients follow it.
      auto part = op->getAttrOfType<PartAttr>("part");
      if (!part || part.getValue() == Part::forward)
        ops[path.getValue()].push_back(op);
      add(path.getValue());
      if (auto experts = dyn_cast<GroupedMatMulOp>(op);
          experts && (!part || part.getValue() == Part::forward)) {
        std::string name = expertPath(function, experts);
        ops[name].push_back(op);
        add(name);
      }
    }
  });
  for (unsigned i = 0; i < function.getNumArguments(); ++i)
    if (auto weight = function.getArgAttrOfType<WeightAttr>(i, weightAttrName))
      if (StringRef name = weight.getName().getValue(); name.contains('.'))
        add(name.rsplit('.').first);
  allPaths.assign(found.begin(), found.end());
}

ArrayRef<Operation *> ModuleTree::opsOf(StringRef path) const {
  auto it = ops.find(path);
  return it == ops.end() ? ArrayRef<Operation *>() : ArrayRef(it->second);
}

bool ModuleTree::isInside(Operation *op, StringRef path) {
  StringRef own = pathOf(op);
  return own.consume_front(path) && (own.empty() || own.front() == '.');
}

/// The nearest products with a parameter that `value` is made from.
static void findProjections(Value value, SetVector<Operation *> &found,
                            llvm::DenseSet<Operation *> &visited) {
  Operation *op = value.getDefiningOp();
  if (!op || !visited.insert(op).second)
    return;
  if (isa<MatMulOp>(op)) {
    found.insert(op);
    return;
  }
  for (Value operand : op->getOperands())
    findProjections(operand, found, visited);
}

llvm::DenseMap<Operation *, HeadCounts>
mlir::dshard::findHeads(func::FuncOp function) {
  llvm::DenseMap<Operation *, HeadCounts> heads;
  function.walk([&](AttentionOp attention) {
    auto count = [](Value value) {
      return cast<RankedTensorType>(value.getType()).getDimSize(1);
    };
    auto note = [&](Value value, int64_t HeadCounts::*member, int64_t number) {
      SetVector<Operation *> found;
      llvm::DenseSet<Operation *> visited;
      findProjections(value, found, visited);
      for (Operation *op : found)
        heads[op].*member = number;
    };
    note(attention.getQuery(), &HeadCounts::query, count(attention.getQuery()));
    note(attention.getKey(), &HeadCounts::keyValue, count(attention.getKey()));
    note(attention.getValue(), &HeadCounts::keyValue,
         count(attention.getKey()));
  });
  return heads;
}

//===----------------------------------------------------------------------===//
// Writing
//===----------------------------------------------------------------------===//

StyleWriter::StyleWriter(func::FuncOp function, const ModuleTree &tree,
                         MeshAttr mesh, const TensorParallelPlan &plan)
    : function(function), tree(tree), mesh(mesh), planName(plan.name),
      isBuiltIn(plan.isBuiltIn),
      tensorAxis(AxisRefAttr::get(function.getContext(), "tp")),
      heads(findHeads(function)) {}

OriginAttr StyleWriter::originOf(const PlanEntry &entry) {
  return OriginAttr::get(
      function.getContext(),
      StringAttr::get(function.getContext(), "tensor-parallel plan " +
                                                 planName + ": " + entry.key +
                                                 " = " + entry.styleName));
}

bool StyleWriter::divides(int64_t size, ArrayRef<AxisRefAttr> axes) const {
  return size % mesh.getSize(axes) == 0;
}

std::string StyleWriter::describe(ArrayRef<AxisRefAttr> axes) const {
  if (axes.empty())
    return "replicated";
  return (axes.front().isWhole() ? "tp=" : "a sub-axis of tp, size ") +
         std::to_string(mesh.getSize(axes));
}

std::optional<StyleWriter::Parameter> StyleWriter::findParameter(Value value) {
  auto type = cast<RankedTensorType>(value.getType());
  Parameter result;
  for (int64_t i = 0; i < type.getRank(); ++i)
    result.dims.push_back(i);
  while (Operation *op = value.getDefiningOp()) {
    if (auto transpose = dyn_cast<TransposeOp>(op)) {
      for (int64_t &dim : result.dims)
        dim = transpose.getPermutation()[dim];
      value = transpose.getInput();
    } else if (auto cast = dyn_cast<CastOp>(op)) {
      value = cast.getInput();
    } else {
      return std::nullopt;
    }
  }
  result.argument = cast<BlockArgument>(value);
  auto role = function.getArgAttrOfType<RoleAttr>(
      result.argument.getArgNumber(), roleAttrName);
  if (!role || role.getValue() != Role::param)
    return std::nullopt;
  return result;
}

FailureOr<SmallVector<AxisRefAttr>> StyleWriter::axesFor(MatMulOp product,
                                                         StringRef path) {
  int64_t ranks = mesh.getAxisSize("tp");
  HeadCounts counts = heads.lookup(product);
  if (counts.query && counts.query % ranks != 0)
    return emitError(product.getLoc())
           << path << ": " << counts.query
           << (counts.query == 1 ? " head is" : " heads are")
           << " not divisible by tp=" << ranks
           << "; choose a tp that divides them";
  int64_t kv = counts.keyValue;
  if (!kv || kv % ranks == 0)
    return SmallVector<AxisRefAttr>{tensorAxis};
  if (ranks % kv != 0)
    return emitError(product.getLoc())
           << path << ": " << kv << " KV heads do not suit tp=" << ranks
           << "; one must divide the other";
  // Fewer KV heads than ranks: neighbours share one.
  if (kv == 1)
    return SmallVector<AxisRefAttr>();
  return SmallVector<AxisRefAttr>{AxisRefAttr::get(
      function.getContext(), tensorAxis.getName(), /*pre=*/1, /*size=*/kv)};
}

LogicalResult StyleWriter::shardParameter(BlockArgument argument, int64_t dim,
                                          ArrayRef<AxisRefAttr> axes,
                                          bool mayPad, const PlanEntry &entry,
                                          StringRef path) {
  auto type = cast<RankedTensorType>(argument.getType());
  MLIRContext *context = function.getContext();
  std::string name = path.str();
  if (auto weight = function.getArgAttrOfType<WeightAttr>(
          argument.getArgNumber(), weightAttrName))
    name = weight.getName().str();
  SmallVector<DimShardingAttr> dims(type.getRank(),
                                    DimShardingAttr::get(context, {}, false));
  if (dim >= 0) {
    int64_t size = type.getDimSize(dim);
    if (!mayPad && !divides(size, axes))
      return emitError(argument.getLoc())
             << path << ": dim " << dim << " of size " << size << " of '"
             << name << "' is not divisible by " << describe(axes) << " ("
             << entry.key << " = " << entry.styleName
             << "); choose a tp that divides it, or leave the module out of "
                "the plan";
    dims[dim] = DimShardingAttr::get(context, axes, false);
  }
  auto sharding = ShardingAttr::get(context, dims, {}, ReductionKind::sum);
  std::string owner = entry.key + " = " + entry.styleName;
  if (auto it = owners.find(argument);
      it != owners.end() && getSharding(argument) != sharding)
    return emitError(argument.getLoc())
           << "parameter '" << name
           << "' is shared, and sharded in two ways: by " << it->second
           << " and by " << owner;
  owners.try_emplace(argument, owner);
  setSharding(argument, sharding);
  function.setArgAttr(argument.getArgNumber(), originAttrName, originOf(entry));
  return success();
}

LogicalResult StyleWriter::shardWeight(Value value, int64_t dim,
                                       ArrayRef<AxisRefAttr> axes, bool mayPad,
                                       const PlanEntry &entry, StringRef path) {
  SmallVector<ParameterDim> parameters = findParameterDims(value, dim);
  if (parameters.empty())
    return emitError(value.getLoc())
           << path << ": dim " << dim
           << " of its weight is no whole dim of a parameter (blocks of a "
              "quantised one are not cut), so that "
           << entry.key << " = " << entry.styleName
           << " has nothing to shard; leave the module out of the plan";
  // Packed data comes first. Zero points of a block may share a byte with the
  // next one's; they are small, and then whole on every rank.
  for (const ParameterDim &parameter : parameters) {
    auto type = cast<RankedTensorType>(parameter.argument.getType());
    bool isWhole = parameter.argument != parameters.front().argument &&
                   !divides(type.getDimSize(parameter.dim), axes);
    if (failed(shardParameter(parameter.argument, isWhole ? -1 : parameter.dim,
                              axes, mayPad, entry, path)))
      return failure();
  }
  // Of merged dims (groups and their channels) the major one is dealt out.
  int64_t size = cast<RankedTensorType>(value.getType()).getDimSize(dim);
  if (!mayPad && !divides(size, axes))
    return emitError(value.getLoc())
           << path << ": dim " << dim << " of size " << size
           << " of its weight is not divisible by " << describe(axes) << " ("
           << entry.key << " = " << entry.styleName
           << "); choose a tp that divides it, or leave the module out of the "
              "plan";
  return success();
}

LogicalResult StyleWriter::shardResult(Value value, const TpLayout &layout,
                                       ArrayRef<AxisRefAttr> axes,
                                       const PlanEntry &entry, StringRef path) {
  auto type = cast<RankedTensorType>(value.getType());
  MLIRContext *context = function.getContext();
  int64_t last = type.getRank() - 1, dim = last;
  SmallVector<AxisRefAttr> used;
  if (layout.shardedDim) {
    dim = *layout.shardedDim < 0 ? *layout.shardedDim + type.getRank()
                                 : *layout.shardedDim;
    if (dim < 0 || dim > last)
      return emitError(value.getLoc())
             << path << ": shard(" << *layout.shardedDim << ") of " << entry.key
             << " is out of range for " << type;
    used.assign(axes.begin(), axes.end());
    if (dim != last)
      used = {tensorAxis};
    if (!divides(type.getDimSize(dim), used))
      return emitError(value.getLoc())
             << path << ": dim " << dim << " of size " << type.getDimSize(dim)
             << " is not divisible by " << describe(used) << " (" << entry.key
             << ")";
  }
  // The feature dim and the sharded one are settled; batch and sequence stay
  // open for the other strategies.
  SmallVector<DimShardingAttr> dims(type.getRank(),
                                    DimShardingAttr::get(context, {}, true));
  if (last >= 0)
    dims[last] = DimShardingAttr::get(context, {}, false);
  if (dim >= 0)
    dims[dim] = DimShardingAttr::get(context, used, false);
  setSharding(value, ShardingAttr::get(context, dims, {}, ReductionKind::sum));
  if (Operation *op = value.getDefiningOp())
    op->setAttr(originAttrName, originOf(entry));
  return success();
}

//===----------------------------------------------------------------------===//
// Styles
//===----------------------------------------------------------------------===//

/// The vocabulary: a dim that the model returns (logits, also scaled or
/// capped), or that the loss of a training step reads.
static bool isReturned(Value value) {
  return llvm::any_of(value.getUsers(), [](Operation *user) {
    if (isa<func::ReturnOp>(user) || pathOf(user) == "loss")
      return true;
    return isa<AddOp, CastOp, MulOp, DivOp, TanhOp>(user) &&
           isReturned(user->getResult(0));
  });
}

/// A convolution's product contracts taps and channels, the channels minor.
/// Sharded they have to be major, in windows and weight alike.
static void moveChannelsFirst(MatMulOp product) {
  auto weight = product.getRhs().getDefiningOp<ReshapeOp>();
  if (!weight || !product.getTransposeRhs() || product.getTransposeLhs() ||
      weight.getResult().getType().getRank() != 2)
    return;
  // A filter is stored as [outputs, channels, taps...].
  ArrayRef<int64_t> filter = weight.getInput().getType().getShape();
  int64_t dims = static_cast<int64_t>(filter.size()) - 1;
  SmallVector<ParameterDim> channels =
      findParameterDims(weight.getInput(), dims);
  if (dims < 2 || channels.size() != 1 || channels[0].dim != 1 ||
      filter[0] != weight.getResult().getType().getDimSize(0))
    return;
  OpBuilder builder(product);
  DShardBuilder make(builder, product);
  auto move = [&](Value value) {
    SmallVector<int64_t> merged(
        cast<RankedTensorType>(value.getType()).getShape()),
        shape(merged);
    shape.pop_back();
    int64_t lead = shape.size();
    llvm::append_range(shape, filter.drop_front());
    // In front of what merged them: merged, a minor dim has no shards.
    while (auto reshape = value.getDefiningOp<ReshapeOp>())
      value = reshape.getInput();
    SmallVector<int64_t> permutation =
        llvm::to_vector(llvm::seq<int64_t>(0, lead));
    permutation.push_back(lead + dims - 1);
    for (int64_t dim = 0; dim < dims - 1; ++dim)
      permutation.push_back(lead + dim);
    return make.reshape(make.transpose(make.reshape(value, shape), permutation),
                        merged);
  };
  product->setOperands({move(product.getLhs()), move(product.getRhs())});
}

LogicalResult StyleWriter::applyLinear(const PlanEntry &entry, StringRef path,
                                       MatMulOp product) {
  if (entry.style == Style::rowwise)
    moveChannelsFirst(product);
  Value weight = product.getRhs();
  auto type = cast<RankedTensorType>(weight.getType());
  int64_t rank = type.getRank();
  int64_t outDim = product.getTransposeRhs() ? rank - 2 : rank - 1;
  int64_t inDim = product.getTransposeRhs() ? rank - 1 : rank - 2;
  bool columns = entry.style == Style::colwise;
  if (entry.in && entry.in->shardedDim &&
      (columns || *entry.in->shardedDim != -1))
    return emitError(product.getLoc())
           << path << ": 'in' of " << entry.key << " is not supported for "
           << entry.styleName << "; leave it out";
  int64_t weightDim = columns ? outDim : inDim;
  // A convolution in groups: each rank has some groups, their inputs and
  // outputs.
  bool isGrouped = rank > 2 && findParameterDims(weight, outDim).empty();

  SmallVector<AxisRefAttr> axes = {tensorAxis};
  if (columns) {
    FailureOr<SmallVector<AxisRefAttr>> found = axesFor(product, path);
    if (failed(found))
      return failure();
    axes = *found;
  }
  Value result = product.getResult();
  if (isGrouped) {
    if (failed(shardWeight(weight, rank - 3, axes, false, entry, path)))
      return failure();
    int64_t groups = cast<RankedTensorType>(result.getType()).getRank() - 3;
    return shardResult(result, columns ? TpLayout{groups} : *entry.out, axes,
                       entry, path);
  }
  // Blocks of a quantised weight are not cut, its columns not padded.
  bool isPacked = llvm::any_of(
      findParameterDims(weight, outDim), [](const ParameterDim &parameter) {
        auto own = cast<RankedTensorType>(parameter.argument.getType());
        return !isa<FloatType>(own.getElementType());
      });
  SmallVector<ParameterDim> along = findParameterDims(weight, weightDim);
  if (isPacked && isBuiltIn &&
      (along.empty() ||
       !divides(cast<RankedTensorType>(along[0].argument.getType())
                    .getDimSize(along[0].dim),
                axes))) {
    emitRemark(product.getLoc())
        << path << ": " << describe(axes) << " does not divide the "
        << (columns ? "columns" : "blocks")
        << " of its quantised weight; every rank computes it whole";
    return success();
  }
  bool mayPad = columns && isReturned(result) && findParameter(weight);
  if (failed(shardWeight(weight, weightDim, axes, mayPad, entry, path)))
    return failure();
  // A vocabulary that is padded later has no sharding to promise yet.
  bool isPadded = mayPad && !divides(type.getDimSize(outDim), axes);
  if (!isPadded && failed(shardResult(result, *entry.out, axes, entry, path)))
    return failure();

  // The bias: with the columns, or once after the reduction.
  for (Operation *user : result.getUsers()) {
    auto add = dyn_cast<AddOp>(user);
    if (!add || pathOf(add) != path)
      continue;
    Value other = add.getLhs() == result ? add.getRhs() : add.getLhs();
    std::optional<Parameter> bias = findParameter(other);
    if (!bias)
      continue;
    int64_t biasDim = cast<RankedTensorType>(other.getType()).getRank() - 1;
    bool shards =
        columns &&
        cast<RankedTensorType>(other.getType()).getDimSize(biasDim) != 1;
    if (failed(shardParameter(bias->argument, shards ? bias->dims[biasDim] : -1,
                              axes, mayPad, entry, path)))
      return failure();
    if (!isPadded &&
        failed(shardResult(add.getResult(), *entry.out, axes, entry, path)))
      return failure();
  }
  return success();
}

/// Each expert's matrix as that of a Linear.
LogicalResult StyleWriter::applyExperts(const PlanEntry &entry, StringRef path,
                                        GroupedMatMulOp product) {
  if (entry.in && entry.in->shardedDim)
    return emitError(product.getLoc())
           << path << ": 'in' of " << entry.key
           << " is not supported for experts; leave it out";
  bool columns = entry.style == Style::colwise;
  int64_t dim = entry.style == Style::expertParallel       ? 0
                : columns == product.getTransposeWeights() ? 1
                                                           : 2;
  if (failed(shardWeight(product.getWeights(), dim, tensorAxis,
                         /*mayPad=*/false, entry, path)))
    return failure();
  return shardResult(product.getResult(), *entry.out, tensorAxis, entry, path);
}

/// One of the look-ups (data, scales, zero points) in a table that is
/// dequantised behind them.
static bool isQuantisedLookup(GatherOp lookup) {
  auto isPacked = [](GatherOp op) {
    return !isa<FloatType>(op.getInput().getType().getElementType());
  };
  return isPacked(lookup) ||
         llvm::any_of(lookup.getIndices().getUsers(), [&](Operation *user) {
           auto other = dyn_cast<GatherOp>(user);
           return other && pathOf(other) == pathOf(lookup) && isPacked(other);
         });
}

LogicalResult StyleWriter::applyEmbedding(const PlanEntry &entry,
                                          StringRef path, GatherOp lookup) {
  if (isQuantisedLookup(lookup)) {
    if (!isBuiltIn)
      return emitError(lookup.getLoc())
             << path << ": " << entry.key << " = " << entry.styleName
             << " is not supported for a block-quantised table; leave the "
                "module out of the plan";
    return success();
  }
  Parameter table = *findParameter(lookup.getInput());
  bool columns = entry.style == Style::colwise;
  int64_t hidden =
      cast<RankedTensorType>(lookup.getInput().getType()).getRank() - 1;
  int64_t vocabulary = lookup.getDim();
  if (entry.in && entry.in->shardedDim)
    return emitError(lookup.getLoc())
           << path << ": 'in' of " << entry.key
           << " is not supported for an embedding; leave it out";
  if (failed(shardParameter(table.argument,
                            table.dims[columns ? hidden : vocabulary],
                            tensorAxis, /*mayPad=*/!columns, entry, path)))
    return failure();
  return shardResult(lookup.getResult(), *entry.out, tensorAxis, entry, path);
}

LogicalResult StyleWriter::replicateParameters(const PlanEntry &entry,
                                               StringRef path) {
  for (Operation *op : tree.opsOf(path))
    for (Value operand : op->getOperands())
      if (std::optional<Parameter> parameter = findParameter(operand))
        if (failed(shardParameter(parameter->argument, -1, {}, false, entry,
                                  path)))
          return failure();
  return success();
}

LogicalResult StyleWriter::applyPrepare(const PlanEntry &entry,
                                        StringRef path) {
  bool isInput = entry.style == Style::prepareInput;
  SetVector<Value> values;
  function.walk([&](Operation *op) {
    auto part = op->getAttrOfType<PartAttr>("part");
    if (isa<ConstantOp>(op) || (part && part.getValue() != Part::forward))
      return;
    bool inside = ModuleTree::isInside(op, path);
    for (Value operand : op->getOperands()) {
      Operation *producer = operand.getDefiningOp();
      bool fromInside = producer && ModuleTree::isInside(producer, path);
      auto type = dyn_cast<RankedTensorType>(operand.getType());
      // Index grids, masks and rotary tables are no activations of a module.
      if (!type || !isa<FloatType>(type.getElementType()) ||
          inside == fromInside || inside != isInput ||
          isa_and_present<ConstantOp>(producer) || findParameter(operand))
        continue;
      values.insert(operand);
    }
  });
  StringRef what = isInput ? "input" : "output";
  if (values.size() != 1)
    return emitError(function.getLoc())
           << path << ": " << entry.styleName << " needs a module with one "
           << what << ", this one has " << values.size();
  Value value = values.front();
  if (isInput && llvm::any_of(value.getUsers(), [&](Operation *user) {
        auto part = user->getAttrOfType<PartAttr>("part");
        return !ModuleTree::isInside(user, path) &&
               (!part || part.getValue() == Part::forward);
      }))
    return emitError(value.getLoc())
           << path
           << ": its input is used by other modules, too; prepare_input is not "
              "supported there";
  if (isa<BlockArgument>(value))
    return emitError(value.getLoc()) << path
                                     << ": its input is an input of the model; "
                                        "prepare_input is not supported there";
  return shardResult(value, isInput ? *entry.in : *entry.out, tensorAxis, entry,
                     path);
}

LogicalResult StyleWriter::checkQueryHeads(const PlanEntry &entry,
                                           StringRef path) {
  if (entry.style == Style::colwise)
    for (Operation *op : tree.opsOf(path))
      if (auto product = dyn_cast<MatMulOp>(op))
        if (heads.lookup(product).query && failed(axesFor(product, path)))
          return failure();
  return success();
}

bool StyleWriter::hasWeight(MatMulOp product) {
  Value weight = product.getRhs();
  int64_t rank = cast<RankedTensorType>(weight.getType()).getRank();
  return !findParameterDims(weight, rank - 1).empty() ||
         !findParameterDims(weight, rank - 2).empty();
}

/// The nearest products that `value` is multiplied by a weight in.
static void findConsumers(Value value, SetVector<Operation *> &found) {
  for (Operation *user : value.getUsers()) {
    if (isa<MatMulOp>(user))
      found.insert(user);
    else if (isa<TransposeOp, ReshapeOp, CastOp, MulOp>(user))
      findConsumers(user->getResult(0), found);
  }
}

llvm::StringSet<> StyleWriter::findUndividedProjections() {
  int64_t ranks = mesh.getAxisSize("tp");
  llvm::StringSet<> paths;
  bool isAnyDivided = false;
  function.walk([&](AttentionOp attention) {
    auto count = [](Value value) {
      return cast<RankedTensorType>(value.getType()).getDimSize(1);
    };
    int64_t kv = count(attention.getKey());
    if (count(attention.getQuery()) % ranks == 0 &&
        (kv % ranks == 0 || ranks % kv == 0)) {
      isAnyDivided = true;
      return;
    }
    SetVector<Operation *> found;
    llvm::DenseSet<Operation *> visited;
    for (Value value :
         {attention.getQuery(), attention.getKey(), attention.getValue()})
      findProjections(value, found, visited);
    findConsumers(attention.getResult(), found);
    for (Operation *op : found)
      paths.insert(pathOf(op));
  });
  return isAnyDivided ? paths : llvm::StringSet<>();
}

bool StyleWriter::hasLayer(StringRef path) {
  return llvm::any_of(tree.opsOf(path), [&](Operation *op) {
    auto product = dyn_cast<MatMulOp>(op);
    auto lookup = dyn_cast<GatherOp>(op);
    return (product && hasWeight(product)) || isa<GroupedMatMulOp>(op) ||
           (lookup && findParameter(lookup.getInput()));
  });
}

LogicalResult StyleWriter::apply(const PlanEntry &entry, StringRef path) {
  switch (entry.style) {
  case Style::prepareInput:
  case Style::prepareOutput:
    return applyPrepare(entry, path);
  case Style::replicated:
    return replicateParameters(entry, path);
  case Style::colwise:
  case Style::rowwise:
  case Style::expertParallel:
    break;
  }
  bool found = false;
  for (Operation *op : tree.opsOf(path)) {
    if (entry.style == Style::expertParallel && !isa<GroupedMatMulOp>(op))
      continue;
    if (auto product = dyn_cast<MatMulOp>(op); product && hasWeight(product)) {
      found = true;
      if (failed(applyLinear(entry, path, product)))
        return failure();
    } else if (auto experts = dyn_cast<GroupedMatMulOp>(op)) {
      found = true;
      if (failed(applyExperts(entry, path, experts)))
        return failure();
    } else if (auto lookup = dyn_cast<GatherOp>(op);
               lookup && findParameter(lookup.getInput())) {
      found = true;
      if (failed(applyEmbedding(entry, path, lookup)))
        return failure();
    }
  }
  if (found)
    return success();
  return emitError(function.getLoc())
         << "plan key '" << entry.key << "' matches '" << path
         << "', which has no "
         << (entry.style == Style::expertParallel ? "experts"
                                                  : "Linear or Embedding")
         << " for " << entry.styleName;
}
