//===- Windows.h - Sliding windows over the dims of an image ----*- C++ -*-===//
//
// Convolutions and pools read [N, C, D1, ..., Dn] through windows. Here they
// are a pad, one gather (or reshape) per dim and a reduction or a product, so
// that sharding, gradients and kernels need no op of their own. Batch and
// channels may be sharded; a dim that windows slide over is gathered.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_IMPORT_WINDOWS_H
#define DSHARD_LIB_IMPORT_WINDOWS_H

#include "NodeImporter.h"

namespace mlir::dshard::onnx {

/// How windows lie along one dim of `size` elements: window o, place k reads
/// element `o * stride + k * dilation - low`.
struct Window {
  int64_t size, kernel, stride, dilation, low, high, count;

  /// Of the padded dim, as far as windows reach.
  int64_t reach() const {
    return (count - 1) * stride + (kernel - 1) * dilation + 1;
  }
};

/// One per dim from 2 on, from the attributes strides, dilations, pads,
/// auto_pad and (pools) ceil_mode. Fails if x has fewer than 3 dims or a window
/// does not fit.
llvm::SmallVector<Window> readWindows(NodeImporter &n, Value x,
                                      llvm::ArrayRef<int64_t> kernel);

/// The attribute kernel_shape, of the number of dims that x has from 2 on.
llvm::SmallVector<int64_t> readKernelShape(NodeImporter &n, Value x);

/// [N, C, D1, ...] to [N, D1, ..., C]. What windows read lies side by side
/// then, so that one load takes a vector of channels.
Value channelsLast(NodeImporter &n, Value x);
/// Back.
Value channelsFirst(NodeImporter &n, Value x);

/// What may be listed of a dim: the places that its windows read, 134 MB.
constexpr int64_t largestPlaces = int64_t{1} << 24;

/// [N, D1, D2, ..., C] to [N, count1, kernel1, count2, kernel2, ..., C], where
/// places outside of x read `fill`. Fails if the windows of a dim read more
/// than largestPlaces.
Value openWindows(NodeImporter &n, Value x, llvm::ArrayRef<Window> windows,
                  double fill);

/// The dims of the kernel in what openWindows gives: 2, 4, ...
llvm::SmallVector<int64_t> kernelDims(llvm::ArrayRef<Window> windows);

/// Puts stride - 1 zeros between the elements of `dim`.
Value stretch(NodeImporter &n, Value x, int64_t dim, int64_t stride);

/// Pads with `fill`; a negative number crops.
Value padOrCrop(NodeImporter &n, Value x, llvm::ArrayRef<int64_t> low,
                llvm::ArrayRef<int64_t> high, double fill = 0);

/// An attribute of `count` numbers, none below `least`; `otherwise` repeated if
/// absent or wrong.
std::vector<int64_t> intsPerDim(NodeImporter &n, llvm::StringRef name,
                                size_t count, int64_t least, int64_t otherwise);

} // namespace mlir::dshard::onnx

#endif // DSHARD_LIB_IMPORT_WINDOWS_H
