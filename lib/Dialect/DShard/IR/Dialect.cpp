//===- Dialect.cpp - Discardable attributes of the dialect ----------------===//

#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "dshard/Dialect/DShard/IR/Interleave.h"
#include "dshard/Dialect/DShard/IR/WeightNames.h"
#include "mlir/Interfaces/FunctionInterfaces.h"

using namespace mlir;
using namespace mlir::dshard;

#include "dshard/Dialect/DShard/IR/DShardDialect.cpp.inc"

Operation *DShardDialect::materializeConstant(OpBuilder &builder,
                                              Attribute value, Type type,
                                              Location loc) {
  auto elements = dyn_cast<ElementsAttr>(value);
  if (!elements || elements.getType() != type)
    return nullptr;
  return ConstantOp::create(builder, loc, type, elements);
}

//===----------------------------------------------------------------------===//
// Mesh and shardings of values
//===----------------------------------------------------------------------===//

MeshAttr mlir::dshard::getMesh(Operation *op) {
  for (; op; op = op->getParentOp())
    if (auto mesh = op->getAttrOfType<MeshAttr>(meshAttrName))
      return mesh;
  return {};
}

/// The function whose argument `value` is.
static FunctionOpInterface getFunctionOf(BlockArgument argument) {
  if (!argument.getOwner()->isEntryBlock())
    return {};
  return dyn_cast<FunctionOpInterface>(argument.getOwner()->getParentOp());
}

ShardingAttr mlir::dshard::getSharding(Value value) {
  if (auto argument = dyn_cast<BlockArgument>(value)) {
    // A carried value is sharded as the result that it becomes; the iteration
    // is the same on all ranks.
    if (auto repeat = dyn_cast<RepeatOp>(argument.getOwner()->getParentOp()))
      return argument.getArgNumber() == 0
                 ? ShardingAttr::getReplicated(value.getContext(), 0)
                 : getSharding(repeat.getResult(argument.getArgNumber() - 1));
    FunctionOpInterface function = getFunctionOf(argument);
    return function ? function.getArgAttrOfType<ShardingAttr>(
                          argument.getArgNumber(), shardingAttrName)
                    : ShardingAttr();
  }
  auto result = cast<OpResult>(value);
  auto list = result.getOwner()->getAttrOfType<ArrayAttr>(shardingsAttrName);
  if (!list || result.getResultNumber() >= list.size())
    return {};
  return dyn_cast<ShardingAttr>(list[result.getResultNumber()]);
}

std::optional<BoundaryLayout>
mlir::dshard::getBoundaryLayout(DictionaryAttr attributes, MeshAttr mesh) {
  if (!attributes || !mesh)
    return std::nullopt;
  auto layout = attributes.getAs<SequenceLayoutAttr>(layoutAttrName);
  auto dim = attributes.getAs<IntegerAttr>(layoutDimAttrName);
  if (!layout || !dim || layout.getValue() == SequenceLayout::contiguous)
    return std::nullopt;
  return BoundaryLayout{layout.getValue(), dim.getInt(),
                        mesh.getAxisSize("cp")};
}

void mlir::dshard::setSharding(Value value, ShardingAttr sharding) {
  if (auto argument = dyn_cast<BlockArgument>(value)) {
    if (auto repeat = dyn_cast<RepeatOp>(argument.getOwner()->getParentOp())) {
      if (argument.getArgNumber() > 0)
        setSharding(repeat.getResult(argument.getArgNumber() - 1), sharding);
      return;
    }
    if (FunctionOpInterface function = getFunctionOf(argument))
      function.setArgAttr(argument.getArgNumber(), shardingAttrName, sharding);
    return;
  }
  auto result = cast<OpResult>(value);
  Operation *op = result.getOwner();
  // `unit` stands for a result that has no sharding yet.
  SmallVector<Attribute> list(op->getNumResults(),
                              UnitAttr::get(op->getContext()));
  if (auto old = op->getAttrOfType<ArrayAttr>(shardingsAttrName))
    for (auto [i, entry] : llvm::enumerate(old.getValue()))
      if (i < list.size())
        list[i] = entry;
  list[result.getResultNumber()] = sharding;
  op->setAttr(shardingsAttrName, ArrayAttr::get(op->getContext(), list));
}

//===----------------------------------------------------------------------===//
// Discardable attributes
//===----------------------------------------------------------------------===//

template <typename AttrT>
static LogicalResult expect(Operation *op, NamedAttribute attribute,
                            StringRef expected) {
  if (isa<AttrT>(attribute.getValue()))
    return success();
  return op->emitError() << attribute.getName() << " is "
                         << attribute.getValue() << ", expected " << expected;
}

static LogicalResult verifyShardings(Operation *op, NamedAttribute attribute) {
  auto list = dyn_cast<ArrayAttr>(attribute.getValue());
  if (!list || list.size() != op->getNumResults())
    return op->emitError() << attribute.getName() << " is "
                           << attribute.getValue() << ", expected a list of "
                           << op->getNumResults()
                           << " shardings, one per result";
  for (auto [i, entry] : llvm::enumerate(list.getValue())) {
    if (isa<UnitAttr>(entry))
      continue;
    auto sharding = dyn_cast<ShardingAttr>(entry);
    if (!sharding)
      return op->emitError() << attribute.getName() << " holds " << entry
                             << ", expected a sharding";
    auto type = dyn_cast<RankedTensorType>(op->getResult(i).getType());
    if (!type)
      return op->emitError()
             << "sharding on result " << i << " of type "
             << op->getResult(i).getType() << ", which is not a tensor";
    std::string what = "result " + std::to_string(i);
    if (failed(sharding.verifyFor(type, getMesh(op), what,
                                  [&] { return op->emitOpError(); })))
      return failure();
  }
  return success();
}

LogicalResult
DShardDialect::verifyOperationAttribute(Operation *op,
                                        NamedAttribute attribute) {
  StringRef name = attribute.getName();
  if (name == meshAttrName) {
    if (!isa<ModuleOp>(op))
      return op->emitError() << name << " belongs to the module";
    return expect<MeshAttr>(op, attribute, "a #dshard.mesh");
  }
  if (name == modelAttrName) {
    if (!isa<ModuleOp>(op))
      return op->emitError() << name << " belongs to the module";
    return expect<StringAttr>(op, attribute, "the path of a model");
  }
  if (name == phaseAttrName) {
    if (!isa<ModuleOp>(op))
      return op->emitError() << name << " belongs to the module";
    return expect<StringAttr>(op, attribute, "the name of a phase");
  }
  if (name == shardingsAttrName)
    return verifyShardings(op, attribute);
  if (name == originAttrName)
    return expect<OriginAttr>(op, attribute, "a #dshard.origin");
  if (name == spmdAttrName) {
    if (!isa<FunctionOpInterface>(op))
      return op->emitError() << name << " belongs to a function";
    return expect<UnitAttr>(op, attribute, "a unit");
  }
  if (name == callAttrName) {
    auto call = dyn_cast<StringAttr>(attribute.getValue());
    if (!isa<FusedOp>(op) || !call ||
        !llvm::is_contained({"matmul", "grouped_matmul", "grouped_weight_grad",
                             "attention", "attention_grad"},
                            call.getValue()))
      return op->emitError()
             << name << " is " << attribute.getValue()
             << "; it belongs to a dshard.fused and is \"matmul\", "
                "\"grouped_matmul\", \"grouped_weight_grad\", \"attention\" or "
                "\"attention_grad\"";
    return success();
  }
  if (name == contextMethodAttrName) {
    auto method = dyn_cast<StringAttr>(attribute.getValue());
    if (!isa<AttentionOp>(op) || !method ||
        !llvm::is_contained(
            {"ring", "all_gather", "all_to_all", "hierarchical"},
            method.getValue()))
      return op->emitError()
             << name << " is " << attribute.getValue()
             << "; it belongs to a dshard.attention and is \"ring\", "
                "\"all_gather\", \"all_to_all\" or \"hierarchical\"";
    return success();
  }
  if (name == microBatchesAttrName || name == stageAttrName) {
    if (!isa<FunctionOpInterface>(op))
      return op->emitError() << name << " belongs to a function";
    return expect<IntegerAttr>(op, attribute, "a number");
  }
  if (name == stagesAttrName) {
    if (!isa<FunctionOpInterface>(op))
      return op->emitError() << name << " belongs to a function";
    return expect<ArrayAttr>(op, attribute, "a list of stage functions");
  }
  return op->emitError()
         << "unknown attribute " << name
         << " on an op; known are dshard.mesh, dshard.model, dshard.phase, "
            "dshard.shardings, dshard.origin, dshard.spmd, dshard.call, "
            "dshard.cp_method, dshard.micro_batches, dshard.stage, "
            "dshard.stages";
}

/// What arguments and results of functions have in common. `type` is the local
/// type in the local phase, else the global one.
static LogicalResult verifyValueAttribute(Operation *op, Type type,
                                          DictionaryAttr siblings,
                                          const Twine &what,
                                          NamedAttribute attribute) {
  StringRef name = attribute.getName();
  if (name == shardingAttrName) {
    auto sharding = dyn_cast<ShardingAttr>(attribute.getValue());
    if (!sharding)
      return op->emitError()
             << what << ": " << name << " is " << attribute.getValue()
             << ", expected a #dshard.sharding";
    auto tensorType = dyn_cast<RankedTensorType>(type);
    if (!tensorType)
      return op->emitError() << what << ": sharding on type " << type
                             << ", which is not a tensor";
    RankedTensorType globalType = tensorType;
    auto global = siblings.getAs<TypeAttr>(globalAttrName);
    if (global)
      if (auto ranked = dyn_cast<RankedTensorType>(global.getValue()))
        globalType = ranked;
    MeshAttr mesh = getMesh(op);
    auto role = siblings.getAs<RoleAttr>(roleAttrName);
    if (!global && role && role.getValue() == Role::param)
      return verifyShardingBeforePadding(sharding, globalType, mesh, what.str(),
                                         [&] { return op->emitError(); });
    if (failed(sharding.verifyFor(globalType, mesh, what.str(),
                                  [&] { return op->emitError(); })))
      return failure();
    if (!global || !mesh)
      return success();
    FailureOr<RankedTensorType> local = sharding.getLocalType(globalType, mesh);
    if (failed(local))
      return op->emitError() << what << ": " << globalType
                             << " has no even shards under " << sharding;
    if (*local != tensorType)
      return op->emitError()
             << what << ": local type " << tensorType << " is not that of "
             << globalType << " under " << sharding << ", expected " << *local;
    return success();
  }
  if (name == roleAttrName)
    return expect<RoleAttr>(op, attribute, "a #dshard.role");
  if (name == isParameterAttrName)
    return expect<BoolAttr>(op, attribute, "true or false");
  if (name == weightAttrName)
    return expect<WeightAttr>(op, attribute, "a #dshard.weight");
  if (name == globalAttrName) {
    auto global = dyn_cast<TypeAttr>(attribute.getValue());
    if (!global || !isa<RankedTensorType>(global.getValue()))
      return op->emitError()
             << what << ": " << name << " is " << attribute.getValue()
             << ", expected a ranked tensor type";
    return success();
  }
  if (name == stateAttrName || name == nameAttrName || name == scalarAttrName ||
      name == stateOfAttrName)
    return expect<StringAttr>(op, attribute, "a name");
  if (name == dimNamesAttrName)
    return expect<ArrayAttr>(op, attribute, "a list with one name per dim");
  if (name == finiteAttrName)
    return expect<ArrayAttr>(op, attribute, "a list with one name per element");
  if (name == rangeAttrName)
    return expect<DenseI64ArrayAttr>(op, attribute,
                                     "[min, max] or [min, max, also allowed]");
  if (name == layoutAttrName)
    return expect<SequenceLayoutAttr>(op, attribute, "a #dshard.layout");
  if (name == layoutDimAttrName) {
    auto dim = dyn_cast<IntegerAttr>(attribute.getValue());
    auto tensor = dyn_cast<RankedTensorType>(type);
    if (dim && tensor && dim.getInt() >= 0 && dim.getInt() < tensor.getRank())
      return success();
    return op->emitError() << what << ": " << name << " is "
                           << attribute.getValue() << ", expected a dim of "
                           << type;
  }
  if (name == interleaveAttrName) {
    auto tensor = dyn_cast<RankedTensorType>(type);
    if (auto global = siblings.getAs<TypeAttr>(globalAttrName))
      tensor = dyn_cast<RankedTensorType>(global.getValue());
    if (tensor && siblings.get(weightAttrName) &&
        parseInterleave(attribute.getValue(), tensor))
      return success();
    return op->emitError() << what << ": " << name << " is "
                           << attribute.getValue()
                           << ", expected {dim, parts, sizes} of a weight of "
                           << (tensor ? Type(tensor) : type)
                           << ", with sizes that parts divides";
  }
  if (name == originAttrName)
    return expect<OriginAttr>(op, attribute, "a #dshard.origin");
  if (name == indexAttrName)
    return expect<IntegerAttr>(op, attribute, "a position");
  if (name == microBatchedAttrName) {
    auto tensor = dyn_cast<RankedTensorType>(type);
    if (!tensor || tensor.getRank() == 0)
      return op->emitError()
             << what << ": " << name << " on " << type << ", which has no dim";
    return expect<UnitAttr>(op, attribute, "a unit");
  }
  return op->emitError()
         << what << ": unknown attribute " << name
         << "; known are dshard.sharding, dshard.role, dshard.weight, "
            "dshard.global, dshard.state, dshard.state_of, dshard.scalar, "
            "dshard.name, dshard.dim_names, dshard.finite, dshard.range, "
            "dshard.layout, dshard.layout_dim, dshard.interleave, "
            "dshard.index, "
            "dshard.micro_batched, dshard.origin, dshard.is_parameter";
}

LogicalResult
DShardDialect::verifyRegionArgAttribute(Operation *op, unsigned regionIndex,
                                        unsigned argIndex,
                                        NamedAttribute attribute) {
  auto function = dyn_cast<FunctionOpInterface>(op);
  if (!function)
    return op->emitError() << attribute.getName()
                           << " belongs to arguments of functions";
  return verifyValueAttribute(op, function.getArgumentTypes()[argIndex],
                              function.getArgAttrDict(argIndex),
                              "argument " + Twine(argIndex), attribute);
}

LogicalResult
DShardDialect::verifyRegionResultAttribute(Operation *op, unsigned regionIndex,
                                           unsigned resultIndex,
                                           NamedAttribute attribute) {
  auto function = dyn_cast<FunctionOpInterface>(op);
  if (!function)
    return op->emitError() << attribute.getName()
                           << " belongs to results of functions";
  return verifyValueAttribute(op, function.getResultTypes()[resultIndex],
                              function.getResultAttrDict(resultIndex),
                              "result " + Twine(resultIndex), attribute);
}
