//===- EvaluateLayout.cpp - Reference values of constants and layout ops --===//
#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "mlir/IR/DialectResourceBlobManager.h"

using namespace mlir;
using namespace mlir::dshard;

static double toDouble(const APInt &value, IntegerType type) {
  bool zeroExtends = type.getWidth() == 1 || type.isUnsigned();
  return zeroExtends ? static_cast<double>(value.getZExtValue())
                     : static_cast<double>(value.getSExtValue());
}

LogicalResult
mlir::dshard::readElements(ElementsAttr attr, HostTensor &result,
                           llvm::function_ref<InFlightDiagnostic()> emitError) {
  auto type = dyn_cast<RankedTensorType>(attr.getShapedType());
  if (!type)
    return emitError() << "constant is not a tensor: " << attr.getShapedType();
  result = HostTensor(type);
  if (auto resource = dyn_cast<DenseResourceElementsAttr>(attr)) {
    AsmResourceBlob *blob = resource.getRawHandle().getBlob();
    if (!blob)
      return emitError() << "the bytes of constant '"
                         << resource.getRawHandle().getKey()
                         << "' are not in this file";
    if (failed(decodeElements(blob->getData(), result)))
      return emitError() << "the " << blob->getData().size()
                         << " bytes of constant '"
                         << resource.getRawHandle().getKey() << "' do not make "
                         << type;
    return success();
  }
  if (auto integer = dyn_cast<IntegerType>(type.getElementType())) {
    auto values = attr.tryGetValues<APInt>();
    if (values) {
      for (auto [x, value] : llvm::zip_equal(result.data, *values))
        x = toDouble(value, integer);
      return success();
    }
  } else {
    auto values = attr.tryGetValues<APFloat>();
    if (values) {
      for (auto [x, value] : llvm::zip_equal(result.data, *values))
        x = value.convertToDouble();
      return success();
    }
  }
  return emitError() << "cannot read the elements of a constant of " << type;
}

LogicalResult ConstantOp::evaluate(ArrayRef<HostTensor> operands,
                                   SmallVectorImpl<HostTensor> &results) {
  HostTensor result;
  if (failed(readElements(getValue(), result, [&] { return emitOpError(); })))
    return failure();
  results.push_back(std::move(result));
  return success();
}

LogicalResult ReshapeOp::evaluate(ArrayRef<HostTensor> operands,
                                  SmallVectorImpl<HostTensor> &results) {
  HostTensor result = operands[0];
  result.type = cast<RankedTensorType>(getResult().getType());
  results.push_back(std::move(result));
  return success();
}

/// Fills the result with source(index) for every index.
static LogicalResult
fill(Operation *op, SmallVectorImpl<HostTensor> &results,
     llvm::function_ref<double(ArrayRef<int64_t>)> source) {
  HostTensor result(cast<RankedTensorType>(op->getResult(0).getType()));
  double *out = result.data.data();
  forEachIndex(result.shape(),
               [&](ArrayRef<int64_t> index) { *out++ = source(index); });
  results.push_back(std::move(result));
  return success();
}

LogicalResult TransposeOp::evaluate(ArrayRef<HostTensor> operands,
                                    SmallVectorImpl<HostTensor> &results) {
  const HostTensor &input = operands[0];
  SmallVector<int64_t> from(input.rank());
  return fill(*this, results, [&](ArrayRef<int64_t> index) {
    for (auto [i, dim] : llvm::zip_equal(index, getPermutation()))
      from[dim] = i;
    return input.at(from);
  });
}

LogicalResult BroadcastToOp::evaluate(ArrayRef<HostTensor> operands,
                                      SmallVectorImpl<HostTensor> &results) {
  const HostTensor &input = operands[0];
  return fill(*this, results, [&](ArrayRef<int64_t> index) {
    return input.at(broadcastIndex(index, input.shape()));
  });
}

LogicalResult ConcatOp::evaluate(ArrayRef<HostTensor> operands,
                                 SmallVectorImpl<HostTensor> &results) {
  int64_t dim = getDim();
  return fill(*this, results, [&](ArrayRef<int64_t> index) {
    SmallVector<int64_t> from(index);
    const HostTensor *input = operands.begin();
    while (from[dim] >= input->shape()[dim])
      from[dim] -= input++->shape()[dim];
    return input->at(from);
  });
}

LogicalResult SliceOp::evaluate(ArrayRef<HostTensor> operands,
                                SmallVectorImpl<HostTensor> &results) {
  const HostTensor &input = operands[0];
  SmallVector<int64_t> from(input.rank());
  return fill(*this, results, [&](ArrayRef<int64_t> index) {
    for (auto [to, i, start, stride] :
         llvm::zip_equal(from, index, getStarts(), getStrides()))
      to = start + i * stride;
    return input.at(from);
  });
}

LogicalResult PadOp::evaluate(ArrayRef<HostTensor> operands,
                              SmallVectorImpl<HostTensor> &results) {
  const HostTensor &input = operands[0];
  double value = getValue().convertToDouble();
  SmallVector<int64_t> from(input.rank());
  return fill(*this, results, [&](ArrayRef<int64_t> index) {
    for (auto [to, i, low, size] :
         llvm::zip_equal(from, index, getLow(), input.shape())) {
      to = i - low;
      if (to < 0 || to >= size)
        return value;
    }
    return input.at(from);
  });
}

LogicalResult ReorderOp::evaluate(ArrayRef<HostTensor> operands,
                                  SmallVectorImpl<HostTensor> &results) {
  const HostTensor &input = operands[0];
  int64_t dim = getDim(), size = input.shape()[dim];
  SmallVector<int64_t> source(size);
  for (int64_t i = 0; i < size; ++i) {
    int64_t natural = getNaturalPosition(getLayout(), getParts(), size, i);
    source[getInverse() ? natural : i] = getInverse() ? i : natural;
  }
  SmallVector<int64_t> from(input.rank());
  return fill(*this, results, [&](ArrayRef<int64_t> index) {
    from.assign(index.begin(), index.end());
    from[dim] = source[index[dim]];
    return input.at(from);
  });
}

LogicalResult ReshardOp::evaluate(ArrayRef<HostTensor> operands,
                                  SmallVectorImpl<HostTensor> &results) {
  results.push_back(operands[0]); // a sharding never changes the value
  return success();
}
