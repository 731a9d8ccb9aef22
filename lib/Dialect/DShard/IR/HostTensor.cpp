//===- HostTensor.cpp - Values of the reference interpreter ---------------===//
#include "dshard/Dialect/DShard/IR/HostTensor.h"
#include "llvm/ADT/APFloat.h"
#include "llvm/ADT/STLExtras.h"
#include <cmath>
#include <cstring>

using namespace mlir;
using namespace mlir::dshard;

SmallVector<int64_t> HostTensor::strides() const {
  SmallVector<int64_t> result(rank(), 1);
  for (int64_t dim = rank() - 2; dim >= 0; --dim)
    result[dim] = result[dim + 1] * shape()[dim + 1];
  return result;
}

static int64_t linearIndex(ArrayRef<int64_t> shape, ArrayRef<int64_t> index) {
  int64_t linear = 0;
  for (auto [size, i] : llvm::zip_equal(shape, index))
    linear = linear * size + i;
  return linear;
}

double &HostTensor::at(ArrayRef<int64_t> index) {
  return data[linearIndex(shape(), index)];
}

double HostTensor::at(ArrayRef<int64_t> index) const {
  return data[linearIndex(shape(), index)];
}

/// Rounds to nearest even with `precision` significant bits; exact for every
/// IEEE-like format because the quantum is a power of two.
static double roundFloat(double x, int precision, int minExponent,
                         double largest) {
  if (x == 0 || !std::isfinite(x))
    return x;
  int exponent;
  std::frexp(x, &exponent); // |x| is in [2^(exponent - 1), 2^exponent)
  int quantum = std::max(exponent, minExponent + 1) - precision;
  double rounded = std::ldexp(std::nearbyint(std::ldexp(x, -quantum)), quantum);
  if (std::fabs(rounded) > largest)
    return std::copysign(HUGE_VAL, x);
  return rounded;
}

static double roundInteger(double x, IntegerType type) {
  unsigned width = type.getWidth();
  if (width == 1)
    return x != 0 ? 1 : 0;
  if (!std::isfinite(x))
    return 0;
  x = std::trunc(x);
  double modulus = std::ldexp(1.0, width);
  double low = type.isUnsigned() ? 0 : -modulus / 2;
  if (x >= low && x < low + modulus)
    return x;
  if (std::fabs(x) >= 0x1p63) // nothing of the low bits is left in a double
    return x < 0 ? low : low + modulus - 1;
  return x - modulus * std::floor((x - low) / modulus);
}

void HostTensor::roundToElementType() {
  Type element = type.getElementType();
  if (element.isF64())
    return;
  if (element.isF32()) {
    for (double &x : data)
      x = static_cast<float>(x);
    return;
  }
  if (auto integer = dyn_cast<IntegerType>(element)) {
    for (double &x : data)
      x = roundInteger(x, integer);
    return;
  }
  const llvm::fltSemantics &semantics =
      cast<FloatType>(element).getFloatSemantics();
  int precision = llvm::APFloat::semanticsPrecision(semantics);
  int minExponent = llvm::APFloat::semanticsMinExponent(semantics);
  double largest = llvm::APFloat::getLargest(semantics).convertToDouble();
  for (double &x : data)
    x = roundFloat(x, precision, minExponent, largest);
}

template <typename T>
static void decodeAs(ArrayRef<char> bytes, std::vector<double> &data) {
  for (auto [i, x] : llvm::enumerate(data)) {
    T element;
    std::memcpy(&element, bytes.data() + i * sizeof(T), sizeof(T));
    x = static_cast<double>(element);
  }
}

int64_t mlir::dshard::getElementBytes(Type element) {
  return llvm::divideCeil(element.getIntOrFloatBitWidth(), 8);
}

LogicalResult mlir::dshard::decodeElements(ArrayRef<char> bytes,
                                           HostTensor &tensor) {
  Type element = tensor.type.getElementType();
  if (static_cast<int64_t>(bytes.size()) !=
      tensor.size() * getElementBytes(element))
    return failure();
  if (element.isF32()) {
    decodeAs<float>(bytes, tensor.data);
    return success();
  }
  if (element.isF64()) {
    decodeAs<double>(bytes, tensor.data);
    return success();
  }
  if (auto floating = dyn_cast<FloatType>(element)) {
    const llvm::fltSemantics &semantics = floating.getFloatSemantics();
    unsigned width = floating.getWidth();
    if (width != 8 && width != 16)
      return failure();
    std::vector<double> table(size_t{1} << width); // decode each pattern once
    for (auto [bits, value] : llvm::enumerate(table)) {
      llvm::APFloat number(semantics, llvm::APInt(width, bits));
      value = number.convertToDouble();
    }
    for (auto [i, x] : llvm::enumerate(tensor.data)) {
      uint16_t bits = 0;
      std::memcpy(&bits, bytes.data() + i * (width / 8), width / 8);
      x = table[bits];
    }
    return success();
  }
  auto integer = dyn_cast<IntegerType>(element);
  if (!integer)
    return failure();
  bool isUnsigned = integer.isUnsigned();
  switch (integer.getWidth()) {
  case 1:
    decodeAs<uint8_t>(bytes, tensor.data);
    for (double &x : tensor.data)
      x = x != 0 ? 1 : 0;
    return success();
  case 8:
    isUnsigned ? decodeAs<uint8_t>(bytes, tensor.data)
               : decodeAs<int8_t>(bytes, tensor.data);
    return success();
  case 16:
    isUnsigned ? decodeAs<uint16_t>(bytes, tensor.data)
               : decodeAs<int16_t>(bytes, tensor.data);
    return success();
  case 32:
    isUnsigned ? decodeAs<uint32_t>(bytes, tensor.data)
               : decodeAs<int32_t>(bytes, tensor.data);
    return success();
  case 64:
    isUnsigned ? decodeAs<uint64_t>(bytes, tensor.data)
               : decodeAs<int64_t>(bytes, tensor.data);
    return success();
  default:
    return failure();
  }
}

void mlir::dshard::forEachIndex(
    ArrayRef<int64_t> shape, llvm::function_ref<void(ArrayRef<int64_t>)> body) {
  if (llvm::is_contained(shape, 0))
    return;
  SmallVector<int64_t> index(shape.size(), 0);
  while (true) {
    body(index);
    int64_t dim = static_cast<int64_t>(shape.size()) - 1;
    while (dim >= 0 && ++index[dim] == shape[dim])
      index[dim--] = 0;
    if (dim < 0)
      return;
  }
}

SmallVector<int64_t>
mlir::dshard::broadcastIndex(ArrayRef<int64_t> index,
                             ArrayRef<int64_t> operandShape) {
  ArrayRef<int64_t> tail = index.take_back(operandShape.size());
  SmallVector<int64_t> result;
  for (auto [i, size] : llvm::zip_equal(tail, operandShape))
    result.push_back(size == 1 ? 0 : i);
  return result;
}
