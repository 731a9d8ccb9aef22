//===- HostTensor.h - Values of the reference interpreter -------*- C++ -*-===//
//
// A dense row-major tensor whose elements are held in double, whatever its
// element type (integers are exact up to 2^53).
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_DIALECT_DSHARD_IR_HOSTTENSOR_H
#define DSHARD_DIALECT_DSHARD_IR_HOSTTENSOR_H

#include "mlir/IR/BuiltinTypes.h"
#include "llvm/ADT/SmallVector.h"
#include <vector>

namespace mlir::dshard {

struct HostTensor {
  RankedTensorType type;
  std::vector<double> data;

  HostTensor() = default;
  explicit HostTensor(RankedTensorType type, double fill = 0)
      : type(type), data(type.getNumElements(), fill) {}

  ArrayRef<int64_t> shape() const { return type.getShape(); }
  int64_t rank() const { return type.getRank(); }
  int64_t size() const { return static_cast<int64_t>(data.size()); }
  /// Row-major strides in elements.
  llvm::SmallVector<int64_t> strides() const;
  double &at(ArrayRef<int64_t> index);
  double at(ArrayRef<int64_t> index) const;
  /// Rounds every element to the element type (bf16, f16, f32; integers
  /// truncate, i1 is 0 or 1).
  void roundToElementType();
};

/// Calls `body(index)` for every index of `shape`, last dim fastest.
void forEachIndex(ArrayRef<int64_t> shape,
                  llvm::function_ref<void(ArrayRef<int64_t>)> body);
/// The index into `operand` that numpy broadcasting pairs with `index` of the
/// result.
llvm::SmallVector<int64_t> broadcastIndex(ArrayRef<int64_t> index,
                                          ArrayRef<int64_t> operandShape);

/// Bytes of one stored element: i1 takes a byte.
int64_t getElementBytes(Type element);
/// Fills `tensor` from its elements as they lie in a little-endian file;
/// failure if the byte count does not suit the type, or the type has no stored
/// form here.
llvm::LogicalResult decodeElements(ArrayRef<char> bytes, HostTensor &tensor);

} // namespace mlir::dshard

#endif // DSHARD_DIALECT_DSHARD_IR_HOSTTENSOR_H
