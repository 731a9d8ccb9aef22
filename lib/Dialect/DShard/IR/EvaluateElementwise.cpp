//===- EvaluateElementwise.cpp - Reference values of pointwise ops --------===//
#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "llvm/ADT/APFloat.h"
#include <cmath>

using namespace mlir;
using namespace mlir::dshard;

/// Strides of an operand over the result's dims; 0 where it is repeated.
static SmallVector<int64_t> getBroadcastStrides(const HostTensor &operand,
                                                int64_t resultRank) {
  SmallVector<int64_t> strides = operand.strides();
  for (auto [stride, size] : llvm::zip_equal(strides, operand.shape()))
    if (size == 1)
      stride = 0;
  SmallVector<int64_t> result(resultRank - operand.rank(), 0);
  result.append(strides);
  return result;
}

LogicalResult mlir::dshard::evaluatePointwise(
    Operation *op, ArrayRef<HostTensor> operands,
    SmallVectorImpl<HostTensor> &results,
    llvm::function_ref<double(ArrayRef<double>)> apply) {
  HostTensor result(cast<RankedTensorType>(op->getResult(0).getType()));
  SmallVector<SmallVector<int64_t>> strides;
  for (const HostTensor &operand : operands)
    strides.push_back(getBroadcastStrides(operand, result.rank()));

  // Offsets follow the index, so that the whole walk costs one addition per
  // operand and element.
  SmallVector<int64_t> index(result.rank(), 0), offsets(operands.size(), 0);
  SmallVector<double> args(operands.size());
  for (double &element : result.data) {
    for (auto [arg, operand, offset] : llvm::zip_equal(args, operands, offsets))
      arg = operand.data[offset];
    element = apply(args);
    for (int64_t dim = result.rank() - 1; dim >= 0; --dim) {
      bool wraps = ++index[dim] == result.shape()[dim];
      for (auto [offset, stride] : llvm::zip_equal(offsets, strides))
        offset += wraps ? -stride[dim] * (index[dim] - 1) : stride[dim];
      if (!wraps)
        break;
      index[dim] = 0;
    }
  }
  results.push_back(std::move(result));
  return success();
}

double mlir::dshard::divide(Operation *op, double x, double y) {
  if (!isa<IntegerType>(getElementTypeOrSelf(op->getResult(0).getType())))
    return x / y;
  return y == 0 ? 0 : std::trunc(x / y); // exact below 2^53
}

bool mlir::dshard::compare(ComparePredicate predicate, double x, double y) {
  switch (predicate) {
  case ComparePredicate::eq:
    return x == y;
  case ComparePredicate::ne:
    return x != y;
  case ComparePredicate::lt:
    return x < y;
  case ComparePredicate::le:
    return x <= y;
  case ComparePredicate::gt:
    return x > y;
  case ComparePredicate::ge:
    return x >= y;
  }
  return false;
}

double mlir::dshard::remainder(double x, double y, bool truncated) {
  double r = std::fmod(x, y);
  return !truncated && r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

/// The two's complement of an integer held in double.
static uint64_t bitsOf(double x) {
  return x < 0 ? static_cast<uint64_t>(static_cast<int64_t>(x))
               : static_cast<uint64_t>(x);
}

/// The number that the low bits of `bits` are in `type`.
static double numberOf(uint64_t bits, IntegerType type) {
  unsigned width = type.getWidth();
  llvm::APInt number(64, bits);
  number = number.trunc(width);
  return type.isUnsigned() ? static_cast<double>(number.getZExtValue())
                           : static_cast<double>(number.getSExtValue());
}

double mlir::dshard::applyBits(Operation *op, double x, double y) {
  auto type =
      cast<IntegerType>(getElementTypeOrSelf(op->getResult(0).getType()));
  uint64_t a = bitsOf(x), b = bitsOf(y);
  if (isa<BitAndOp>(op))
    return numberOf(a & b, type);
  if (isa<BitOrOp>(op))
    return numberOf(a | b, type);
  if (isa<BitXorOp>(op))
    return numberOf(a ^ b, type);
  bool beyond = y < 0 || y >= type.getWidth();
  if (isa<ShiftLeftOp>(op))
    return beyond ? 0 : numberOf(a << b, type);
  if (x < 0)
    return beyond ? -1
                  : numberOf(static_cast<uint64_t>(static_cast<int64_t>(a) >>
                                                   static_cast<int64_t>(b)),
                             type);
  return beyond ? 0 : numberOf(a >> b, type);
}

double mlir::dshard::reinterpretBits(double x, Type from, Type to) {
  unsigned width = from.getIntOrFloatBitWidth();
  llvm::APInt bits(64, bitsOf(x));
  bits = bits.trunc(width);
  if (auto floating = dyn_cast<FloatType>(from)) {
    llvm::APFloat number(x);
    bool lost;
    number.convert(floating.getFloatSemantics(),
                   llvm::APFloat::rmNearestTiesToEven, &lost);
    bits = number.bitcastToAPInt();
  }
  auto target = dyn_cast<FloatType>(to);
  if (!target)
    return numberOf(bits.getZExtValue(), cast<IntegerType>(to));
  llvm::APFloat number(target.getFloatSemantics(), bits);
  bool lost;
  number.convert(llvm::APFloat::IEEEdouble(),
                 llvm::APFloat::rmNearestTiesToEven, &lost);
  return number.convertToDouble();
}
