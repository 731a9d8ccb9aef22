//===- DShardBuilder.h - Build ops with one path and part -------*- C++ -*-===//
//
// Whoever replaces an op by others (decompositions, gradients, local forms)
// builds them through this: every new op takes the location, `path` and `part`
// of the one that it stands for.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_DIALECT_DSHARD_IR_DSHARDBUILDER_H
#define DSHARD_DIALECT_DSHARD_IR_DSHARDBUILDER_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"

namespace mlir::dshard {

/// The op's `path` / `part`; null where it has none.
inline StringAttr getPathOf(Operation *op) {
  return dyn_cast_or_null<StringAttr>(
      op->getInherentAttr("path").value_or(Attribute()));
}
inline PartAttr getPartOf(Operation *op) {
  return dyn_cast_or_null<PartAttr>(
      op->getInherentAttr("part").value_or(Attribute()));
}

class DShardBuilder {
public:
  DShardBuilder(OpBuilder &builder, Operation *like)
      : DShardBuilder(builder, like->getLoc(), getPathOf(like),
                      getPartOf(like)) {}
  DShardBuilder(OpBuilder &builder, Location loc, StringAttr path,
                PartAttr part)
      : builder(builder), loc(loc), path(path), part(part) {}

  /// Any dshard op but a constant: its arguments as in the .td, without path
  /// and part.
  template <typename OpT, typename Types, typename... Args>
  OpT create(Types &&types, Args &&...args) {
    auto op = OpT::create(builder, loc, std::forward<Types>(types),
                          std::forward<Args>(args)..., path, part);
    return op;
  }
  template <typename OpT> Value unary(Value input) {
    return create<OpT>(input.getType(), input);
  }
  /// With numpy broadcasting; the result has the operands' element type.
  template <typename OpT> Value binary(Value lhs, Value rhs) {
    return create<OpT>(broadcastType(lhs, rhs), lhs, rhs);
  }
  Value compare(Value lhs, Value rhs, ComparePredicate predicate) {
    return create<CompareOp>(broadcastType(lhs, rhs).clone(builder.getI1Type()),
                             lhs, rhs, predicate);
  }
  Value select(Value condition, Value trueValue, Value falseValue) {
    RankedTensorType type = broadcastType(trueValue, falseValue);
    type = RankedTensorType::get(
        broadcastShape(typeOf(condition).getShape(), type.getShape()),
        type.getElementType());
    return create<SelectOp>(type, condition, trueValue, falseValue);
  }
  /// Gives the value itself if it has this element type already.
  Value cast(Value input, Type elementType) {
    if (typeOf(input).getElementType() == elementType)
      return input;
    return create<CastOp>(typeOf(input).clone(elementType), input);
  }
  Value reshape(Value input, ArrayRef<int64_t> shape) {
    if (typeOf(input).getShape() == shape)
      return input;
    return create<ReshapeOp>(typeOf(input).clone(shape), input);
  }
  Value transpose(Value input, ArrayRef<int64_t> permutation) {
    SmallVector<int64_t> shape;
    for (int64_t dim : permutation)
      shape.push_back(typeOf(input).getDimSize(dim));
    return create<TransposeOp>(typeOf(input).clone(shape), input, permutation);
  }
  Value broadcastTo(Value input, ArrayRef<int64_t> shape) {
    if (typeOf(input).getShape() == shape)
      return input;
    return create<BroadcastToOp>(typeOf(input).clone(shape), input);
  }
  /// A part of one dim, the others whole.
  Value sliceDim(Value input, int64_t dim, int64_t start, int64_t size,
                 int64_t stride = 1) {
    SmallVector<int64_t> starts(typeOf(input).getRank(), 0),
        strides(typeOf(input).getRank(), 1),
        shape(typeOf(input).getShape().begin(), typeOf(input).getShape().end());
    starts[dim] = start;
    strides[dim] = stride;
    shape[dim] = size;
    return create<SliceOp>(typeOf(input).clone(shape), input, starts, strides);
  }
  Value concat(ValueRange inputs, int64_t dim) {
    SmallVector<int64_t> shape(typeOf(inputs[0]).getShape());
    shape[dim] = 0;
    for (Value input : inputs)
      shape[dim] += typeOf(input).getDimSize(dim);
    return create<ConcatOp>(typeOf(inputs[0]).clone(shape), inputs, dim);
  }
  Value reduce(Value input, ReductionKind kind, ArrayRef<int64_t> dims,
               bool keepDims) {
    SmallVector<int64_t> shape;
    for (auto [i, size] : llvm::enumerate(typeOf(input).getShape())) {
      if (!llvm::is_contained(dims, static_cast<int64_t>(i)))
        shape.push_back(size);
      else if (keepDims)
        shape.push_back(1);
    }
    return create<ReduceOp>(typeOf(input).clone(shape), input, kind, dims,
                            keepDims);
  }
  Value matmul(Value lhs, Value rhs, bool transposeLhs = false,
               bool transposeRhs = false);
  /// One value, without dims; numpy broadcasting does the rest.
  Value scalar(double value, Type elementType);
  Value splat(double value, RankedTensorType type);

  static RankedTensorType typeOf(Value value) {
    return llvm::cast<RankedTensorType>(value.getType());
  }
  /// Numpy; the larger of two sizes where they do not fit (the verifier says
  /// so).
  static SmallVector<int64_t> broadcastShape(ArrayRef<int64_t> lhs,
                                             ArrayRef<int64_t> rhs);
  static RankedTensorType broadcastType(Value lhs, Value rhs) {
    return typeOf(lhs).clone(
        broadcastShape(typeOf(lhs).getShape(), typeOf(rhs).getShape()));
  }

  OpBuilder &builder;
  Location loc;
  StringAttr path;
  PartAttr part;
};

} // namespace mlir::dshard

#endif // DSHARD_DIALECT_DSHARD_IR_DSHARDBUILDER_H
