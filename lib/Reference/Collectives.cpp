//===- Collectives.cpp - Reference values of collectives ------------------===//
#include "dshard/Reference/Collectives.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::dshard;

static RankedTensorType withDim(RankedTensorType type, int64_t dim,
                                int64_t size) {
  SmallVector<int64_t> shape(type.getShape());
  shape[dim] = size;
  return type.clone(shape);
}

SharedTensor mlir::dshard::reduceGroup(const GroupValues &values,
                                       ReductionKind kind) {
  HostTensor result = *values.front();
  for (const SharedTensor &value : ArrayRef(values).drop_front())
    for (auto [x, y] : llvm::zip_equal(result.data, value->data))
      x = reduceTwo(kind, x, y);
  if (kind == ReductionKind::mean)
    for (double &x : result.data)
      x /= values.size();
  return std::make_shared<HostTensor>(std::move(result));
}

SharedTensor mlir::dshard::concatGroup(const GroupValues &values, int64_t dim) {
  RankedTensorType piece = values.front()->type;
  int64_t size = piece.getDimSize(dim);
  HostTensor result(withDim(piece, dim, size * values.size()));
  SmallVector<int64_t> offsets(piece.getRank(), 0);
  for (const SharedTensor &value : values) {
    insertBox(result, *value, offsets);
    offsets[dim] += size;
  }
  return std::make_shared<HostTensor>(std::move(result));
}

GroupValues mlir::dshard::splitEvenly(const SharedTensor &value, int64_t dim,
                                      int64_t count) {
  int64_t size = value->shape()[dim] / count;
  RankedTensorType piece = withDim(value->type, dim, size);
  SmallVector<int64_t> offsets(value->rank(), 0);
  GroupValues pieces;
  for (int64_t i = 0; i < count; ++i, offsets[dim] += size)
    pieces.push_back(
        std::make_shared<HostTensor>(extractBox(*value, offsets, piece)));
  return pieces;
}

bool mlir::dshard::isCollective(Operation *op) {
  return isa<AllGatherOp, AllReduceOp, ReduceScatterOp, AllToAllOp, BroadcastOp,
             PermuteOp>(op);
}

SmallVector<AxisRefAttr> mlir::dshard::getAxesOf(Operation *op) {
  return llvm::to_vector(
      op->getAttrOfType<ArrayAttr>("axes").getAsRange<AxisRefAttr>());
}

LogicalResult
mlir::dshard::evaluateCollective(Operation *op, ArrayRef<GroupValues> operands,
                                 SmallVectorImpl<GroupValues> &results) {
  size_t members = operands.empty() ? 0 : operands.front().size();
  return llvm::TypeSwitch<Operation *, LogicalResult>(op)
      .Case([&](AllGatherOp gather) {
        for (auto [values, dim] : llvm::zip_equal(operands, gather.getDims()))
          results.emplace_back(members, concatGroup(values, dim));
        return success();
      })
      .Case([&](AllReduceOp reduce) {
        for (const GroupValues &values : operands)
          results.emplace_back(members, reduceGroup(values, reduce.getKind()));
        return success();
      })
      .Case([&](ReduceScatterOp reduce) {
        for (auto [values, dim] : llvm::zip_equal(operands, reduce.getDims()))
          results.push_back(
              splitEvenly(reduceGroup(values, reduce.getKind()), dim, members));
        return success();
      })
      .Case([&](AllToAllOp move) {
        SmallVector<GroupValues> pieces; // [from][to]
        for (const SharedTensor &value : operands[0])
          pieces.push_back(splitEvenly(value, move.getSplitDim(), members));
        GroupValues &result = results.emplace_back();
        for (size_t to = 0; to < members; ++to) {
          GroupValues received;
          for (const GroupValues &sent : pieces)
            received.push_back(sent[to]);
          result.push_back(concatGroup(received, move.getConcatDim()));
        }
        return success();
      })
      .Case([&](BroadcastOp broadcast) {
        results.emplace_back(members, operands[0][broadcast.getRoot()]);
        return success();
      })
      .Case([&](PermuteOp permute) {
        int64_t count = members;
        for (const GroupValues &values : operands) {
          GroupValues &result = results.emplace_back(members);
          for (int64_t from = 0; from < count; ++from) {
            int64_t shift = static_cast<int64_t>(permute.getShift()) % count;
            result[(from + shift + count) % count] = values[from];
          }
        }
        return success();
      })
      .Default([](Operation *op) {
        return op->emitOpError("is no collective that the interpreter knows");
      });
}
