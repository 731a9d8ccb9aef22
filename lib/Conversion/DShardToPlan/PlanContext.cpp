//===- PlanContext.cpp - The tables of a plan under construction ----------===//

#include "PlanContext.h"
#include "dshard/Plan/Format.h"

using namespace mlir;
using namespace mlir::dshard;

int64_t mlir::dshard::bytesOf(RankedTensorType type) {
  return type.getNumElements() * getElementBytes(type.getElementType());
}

std::string mlir::dshard::nodeOf(Location loc) {
  if (auto name = dyn_cast<NameLoc>(loc))
    return name.getName().str();
  if (auto fused = dyn_cast<FusedLoc>(loc))
    for (Location part : fused.getLocations())
      if (std::string node = nodeOf(part); !node.empty())
        return node;
  if (auto call = dyn_cast<CallSiteLoc>(loc))
    return nodeOf(call.getCallee());
  return "";
}

plan::Origin mlir::dshard::originOf(Operation *op, StringRef why) {
  plan::Origin origin;
  MLIRContext *context = op->getContext();
  origin.path = op->getAttrOfType<StringAttr>("path");
  origin.part = op->getAttrOfType<PartAttr>("part");
  origin.node = StringAttr::get(context, nodeOf(op->getLoc()));
  origin.why = StringAttr::get(context, why);
  return origin;
}

plan::BufferOp mlir::dshard::createBuffer(OpBuilder &builder, Location loc,
                                          StringRef name,
                                          std::optional<int64_t> state,
                                          int64_t size, RankedTensorType type) {
  return plan::BufferOp::create(
      builder, loc, plan::BufferType::get(builder.getContext()), name, Value(),
      state ? builder.getI64IntegerAttr(*state) : IntegerAttr(), IntegerAttr(),
      0, size, IntegerAttr(), type);
}

plan::BufferOp mlir::dshard::createScalarBuffer(OpBuilder &builder,
                                                Location loc, StringRef name,
                                                int64_t scalar,
                                                RankedTensorType type) {
  return plan::BufferOp::create(
      builder, loc, plan::BufferType::get(builder.getContext()), name, Value(),
      IntegerAttr(), builder.getI64IntegerAttr(scalar), 0, bytesOf(type),
      IntegerAttr(), type);
}

int64_t PlanContext::addGroup(ArrayAttr axes) {
  auto [it, isNew] = groups.try_emplace(axes, groups.size());
  if (isNew)
    plan::GroupOp::create(b, module.getLoc(), axes);
  return it->second;
}

int64_t PlanContext::addTable(ArrayRef<int64_t> axes,
                              ArrayRef<int64_t> values) {
  auto [it, isNew] =
      tables.try_emplace({axes.vec(), values.vec()}, tables.size());
  if (isNew)
    plan::TableOp::create(b, module.getLoc(), axes, values);
  return it->second;
}

Attribute PlanContext::rankValue(function_ref<int64_t(int64_t)> value) {
  int64_t ranks = getNumRanks();
  std::vector<int64_t> values;
  for (int64_t rank = 0; rank < ranks; ++rank)
    values.push_back(value(rank));
  if (llvm::all_equal(values))
    return literal(values.front());
  ArrayRef<MeshAxisAttr> axes = mesh.getAxes();
  SmallVector<int64_t> strides(axes.size(), 1), relevant, sizes;
  for (size_t a = axes.size() - 1; a-- > 0;)
    strides[a] = strides[a + 1] * axes[a + 1].getSize();
  for (size_t a = 0; a < axes.size(); ++a)
    for (int64_t rank = 0; rank < ranks; ++rank) {
      int64_t coordinate = rank / strides[a] % axes[a].getSize();
      if (values[rank] != values[rank - coordinate * strides[a]]) {
        relevant.push_back(a);
        break;
      }
    }
  int64_t count = 1;
  for (int64_t a : relevant)
    count *= axes[a].getSize();
  SmallVector<int64_t> table(count);
  for (int64_t rank = 0; rank < ranks; ++rank) {
    int64_t at = 0;
    for (int64_t a : relevant)
      at = at * axes[a].getSize() + rank / strides[a] % axes[a].getSize();
    table[at] = values[rank];
  }
  return plan::TableRefAttr::get(b.getContext(), addTable(relevant, table));
}

Attribute PlanContext::shardBegin(ArrayRef<AxisRefAttr> axes, int64_t extent,
                                  int64_t at) {
  if (axes.empty())
    return literal(at);
  SmallVector<Attribute> list(axes.begin(), axes.end());
  Attribute &known =
      shardBegins[{b.getArrayAttr(list).getAsOpaquePointer(), extent, at}];
  if (!known)
    known = rankValue([&](int64_t rank) {
      return mesh.getIndexIn(rank, axes) * extent + at;
    });
  return known;
}

int64_t PlanContext::addSource(WeightAttr weight) {
  auto [it, isNew] = sources.try_emplace(weight, sources.size());
  if (!isNew)
    return it->second;
  auto [file, isNewFile] = files.try_emplace(weight.getFile(), files.size());
  if (isNewFile)
    plan::FileOp::create(
        b, module.getLoc(), weight.getFile(),
        b.getIntegerAttr(b.getIntegerType(64, /*isSigned=*/false),
                         weight.getFileSize()));
  plan::SourceOp::create(b, module.getLoc(), file->second, weight);
  return it->second;
}

int64_t PlanContext::addScalar(StringRef name, RankedTensorType type) {
  auto [it, isNew] = scalars.try_emplace(b.getStringAttr(name), scalars.size());
  // The learning rate is the one scalar with a value that makes sense at once.
  if (isNew)
    plan::ScalarOp::create(b, module.getLoc(), b.getStringAttr(name),
                           TypeAttr::get(type.getElementType()),
                           b.getF64FloatAttr(name == "lr" ? 1e-3 : 0.0));
  return it->second;
}

int64_t PlanContext::addState(Location loc, StringRef name, StringRef role,
                              StringRef initializer, bool packed, bool written,
                              RankedTensorType global, RankedTensorType local,
                              ShardingAttr sharding, int64_t size,
                              int64_t stage) {
  int64_t end = 0;
  for (auto [other, otherEnd] : stateEnds)
    if (stage < 0 || other < 0 || other == stage)
      end = std::max(end, otherEnd);
  int64_t offset = ::dshard::plan::alignTo(end, getAlignment());
  stateEnds[stage] = offset + size;
  plan::StateOp::create(b, loc, name, role, initializer, packed, written,
                        global, local, sharding, offset, size,
                        stage < 0 ? IntegerAttr() : b.getI64IntegerAttr(stage));
  return states++;
}
