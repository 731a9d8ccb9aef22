//===- Interleave.cpp - Weights whose segments are dealt out --------------===//

#include "dshard/Dialect/DShard/IR/Interleave.h"
#include "mlir/IR/Builders.h"
#include <numeric>

using namespace mlir;
using namespace mlir::dshard;

int64_t Interleave::getTotal() const {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t(0));
}

int64_t Interleave::getGrain(int64_t extent) const {
  int64_t grain = extent;
  for (int64_t size : sizes)
    grain = std::gcd(grain, size / parts);
  return grain;
}

int64_t Interleave::getStored(int64_t index) const {
  int64_t total = getTotal();
  if (index >= total)
    return index;
  int64_t part = index / (total / parts), inside = index % (total / parts),
          start = 0;
  for (int64_t size : sizes) {
    int64_t own = size / parts;
    if (inside < own)
      return start + part * own + inside;
    inside -= own;
    start += size;
  }
  return index;
}

DictionaryAttr Interleave::getAttr(MLIRContext *context) const {
  Builder builder(context);
  return builder.getDictionaryAttr(
      {builder.getNamedAttr("dim", builder.getI64IntegerAttr(dim)),
       builder.getNamedAttr("parts", builder.getI64IntegerAttr(parts)),
       builder.getNamedAttr("sizes", builder.getDenseI64ArrayAttr(sizes))});
}

std::optional<Interleave> mlir::dshard::parseInterleave(Attribute attribute,
                                                        RankedTensorType type) {
  auto fields = dyn_cast_if_present<DictionaryAttr>(attribute);
  auto dim = fields ? fields.getAs<IntegerAttr>("dim") : IntegerAttr();
  auto parts = fields ? fields.getAs<IntegerAttr>("parts") : IntegerAttr();
  auto sizes =
      fields ? fields.getAs<DenseI64ArrayAttr>("sizes") : DenseI64ArrayAttr();
  if (!dim || !parts || !sizes || sizes.empty() || fields.size() != 3 ||
      !dim.getType().isSignlessInteger(64) ||
      !parts.getType().isSignlessInteger(64))
    return std::nullopt;
  Interleave result{dim.getInt(), parts.getInt(),
                    SmallVector<int64_t>(sizes.asArrayRef())};
  if (result.dim < 0 || result.dim >= type.getRank() || result.parts < 1)
    return std::nullopt;
  int64_t left = type.getDimSize(result.dim);
  for (int64_t size : result.sizes) {
    if (size < 1 || size > left || size % result.parts != 0)
      return std::nullopt;
    left -= size;
  }
  return result;
}

std::optional<Interleave> mlir::dshard::getInterleave(func::FuncOp function,
                                                      unsigned argument) {
  Attribute attribute = function.getArgAttr(argument, interleaveAttrName);
  if (!attribute)
    return std::nullopt;
  Type type = function.getArgumentTypes()[argument];
  if (auto global =
          function.getArgAttrOfType<TypeAttr>(argument, globalAttrName))
    type = global.getValue();
  return parseInterleave(attribute, cast<RankedTensorType>(type));
}
