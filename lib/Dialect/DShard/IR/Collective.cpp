//===- Collective.cpp - Verify reshards and collectives -------------------===//

#include "dshard/Dialect/DShard/IR/DShardOps.h"

using namespace mlir;
using namespace mlir::dshard;

LogicalResult ReshardOp::verify() {
  // reshard_c1
  if (failed(getSharding().verifyFor(getInput().getType(), getMesh(*this),
                                     "reshard", [&] { return emitOpError(); })))
    return failure();
  // reshard_c2
  if (getWhy().empty())
    return emitOpError() << "why is empty; say what the change is for";
  return success();
}

/// c1 of every collective: axes of the mesh, at least one, none of size 1.
/// Gives the group's size, 0 after an error.
static int64_t verifyGroup(Operation *op, ArrayAttr axes) {
  SmallVector<AxisRefAttr> list(axes.getAsRange<AxisRefAttr>());
  MeshAttr mesh = getMesh(op);
  if (!mesh) {
    op->emitOpError() << "the module has no dshard.mesh";
    return 0;
  }
  if (list.empty()) {
    op->emitOpError() << "axes are empty";
    return 0;
  }
  if (failed(verifyAxes(list, mesh, "axes", [&] { return op->emitOpError(); })))
    return 0;
  for (AxisRefAttr axis : list)
    if (mesh.getSize(axis) == 1) {
      op->emitOpError() << "axis " << axis.getName()
                        << " has size 1; leave it out";
      return 0;
    }
  return mesh.getSize(list);
}

static LogicalResult verifySameCount(Operation *op) {
  if (op->getNumOperands() == op->getNumResults() && op->getNumOperands() != 0)
    return success();
  return op->emitOpError() << op->getNumOperands() << " operands and "
                           << op->getNumResults()
                           << " results, expected as many, at least one";
}

/// `from` with dim * multiply / divide is `to`.
static LogicalResult verifyScaled(Operation *op, size_t index, Type from,
                                  Type to, int64_t dim, int64_t multiply,
                                  int64_t divide) {
  auto operand = cast<RankedTensorType>(from);
  if (dim < 0 || dim >= operand.getRank())
    return op->emitOpError() << "dim " << dim << " of operand " << index
                             << " is not one of " << operand.getRank();
  SmallVector<int64_t> shape(operand.getShape());
  if (shape[dim] % divide != 0)
    return op->emitOpError()
           << "dim " << dim << " of operand " << index << " has size "
           << shape[dim] << ", which the group of " << divide
           << " does not divide";
  shape[dim] = shape[dim] * multiply / divide;
  if (to != operand.clone(shape))
    return op->emitOpError()
           << "result " << index << " is " << to << ", expected "
           << operand.clone(shape) << " (group of "
           << std::max(multiply, divide) << ")";
  return success();
}

static LogicalResult verifySameTypes(Operation *op) {
  for (auto [i, types] : llvm::enumerate(
           llvm::zip_equal(op->getOperandTypes(), op->getResultTypes()))) {
    auto [from, to] = types;
    if (from != to)
      return op->emitOpError() << "result " << i << " is " << to
                               << ", expected the operand's " << from;
  }
  return success();
}

/// all_gather_c2, reduce_scatter_c2
static LogicalResult verifyDims(Operation *op, ArrayRef<int64_t> dims,
                                int64_t multiply, int64_t divide) {
  if (failed(verifySameCount(op)))
    return failure();
  if (dims.size() != op->getNumOperands())
    return op->emitOpError() << dims.size() << " dims for "
                             << op->getNumOperands() << " operands";
  for (size_t i = 0; i < dims.size(); ++i)
    if (failed(verifyScaled(op, i, op->getOperand(i).getType(),
                            op->getResult(i).getType(), dims[i], multiply,
                            divide)))
      return failure();
  return success();
}

/// sharding_c5 of an explicit reduction.
static LogicalResult verifyKind(Operation *op, ReductionKind kind) {
  if (kind != ReductionKind::mean)
    return success();
  for (Type type : op->getOperandTypes())
    if (cast<RankedTensorType>(type).getElementType().isIntOrIndex())
      return op->emitOpError() << "mean is not for the integers of " << type;
  return success();
}

LogicalResult AllGatherOp::verify() {
  int64_t group = verifyGroup(*this, getAxes());
  return group ? verifyDims(*this, getDims(), group, 1) : failure();
}

LogicalResult AllReduceOp::verify() {
  if (!verifyGroup(*this, getAxes()) || failed(verifySameCount(*this)) ||
      failed(verifyKind(*this, getKind())))
    return failure();
  return verifySameTypes(*this); // all_reduce_c2
}

LogicalResult ReduceScatterOp::verify() {
  int64_t group = verifyGroup(*this, getAxes());
  if (!group || failed(verifyKind(*this, getKind())))
    return failure();
  return verifyDims(*this, getDims(), 1, group);
}

LogicalResult AllToAllOp::verify() {
  int64_t group = verifyGroup(*this, getAxes());
  if (!group)
    return failure();
  // all_to_all_c2
  RankedTensorType input = getInput().getType();
  int64_t split = getSplitDim(), concat = getConcatDim();
  if (split == concat)
    return emitOpError() << "split and concat dim are both " << split;
  for (int64_t dim : {split, concat})
    if (dim < 0 || dim >= input.getRank())
      return emitOpError() << "dim " << dim << " is not one of "
                           << input.getRank();
  SmallVector<int64_t> shape(input.getShape());
  shape[concat] *= group;
  return verifyScaled(*this, 0, input.clone(shape), getResult().getType(),
                      split, 1, group);
}

LogicalResult BroadcastOp::verify() {
  // broadcast_c1
  int64_t group = verifyGroup(*this, getAxes());
  if (!group)
    return failure();
  int64_t root = getRoot();
  if (root < 0 || root >= group)
    return emitOpError() << "root " << root << " is not in a group of "
                         << group;
  return verifySameTypes(*this);
}

LogicalResult PermuteOp::verify() {
  // permute_c1
  if (!verifyGroup(*this, getAxes()) || failed(verifySameCount(*this)))
    return failure();
  return verifySameTypes(*this);
}

static LogicalResult verifyPeer(Operation *op, ArrayAttr axes, int64_t peer) {
  int64_t group = verifyGroup(op, axes);
  if (!group)
    return failure();
  if (peer < 0 || peer >= group)
    return op->emitOpError()
           << "peer " << peer << " is not in a group of " << group;
  return success();
}

LogicalResult SendOp::verify() { return verifyPeer(*this, getAxes(), getTo()); }

LogicalResult RecvOp::verify() {
  return verifyPeer(*this, getAxes(), getFrom());
}

LogicalResult LocalSliceOp::verify() {
  // local_slice_c1
  int64_t group = verifyGroup(*this, getAxes());
  if (!group)
    return failure();
  return verifyScaled(*this, 0, getInput().getType(), getResult().getType(),
                      getDim(), 1, group);
}

LogicalResult RankIndexOp::verify() {
  if (!verifyGroup(*this, getAxes()))
    return failure();
  auto expected = RankedTensorType::get({}, IntegerType::get(getContext(), 64));
  if (getResult().getType() != expected)
    return emitOpError() << "result is " << getResult().getType()
                         << ", expected " << expected;
  return success();
}
