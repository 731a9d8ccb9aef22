//===- Windows.cpp - Sliding windows over the dims of an image ------------===//

#include "Windows.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// Larger sizes cannot be meant, and sums of a few stay far from overflow.
static constexpr int64_t limit = int64_t(1) << 40;

std::vector<int64_t> onnx::intsPerDim(NodeImporter &n, StringRef name,
                                      size_t count, int64_t least,
                                      int64_t otherwise) {
  std::vector<int64_t> values =
      n.intsAttr(name).value_or(std::vector<int64_t>(count, otherwise));
  if (!n.failed() && values.size() != count)
    n.fail(name + " has " + Twine(values.size()) + " entries; " + Twine(count) +
           " are needed");
  for (int64_t value : values)
    if (value < least || value > limit)
      n.fail(name + " has the entry " + Twine(value));
  values.resize(count, otherwise);
  return values;
}

SmallVector<Window> onnx::readWindows(NodeImporter &n, Value x,
                                      ArrayRef<int64_t> kernel) {
  if (n.failed())
    return {};
  if (n.rank(x) < 3) {
    n.fail("the input has " + Twine(n.rank(x)) + " dims; 3 or more are needed");
    return {};
  }
  size_t count = n.rank(x) - 2;
  auto strides = intsPerDim(n, "strides", count, 1, 1),
       dilations = intsPerDim(n, "dilations", count, 1, 1),
       pads = intsPerDim(n, "pads", 2 * count, -limit, 0);
  std::string automatic = n.stringAttr("auto_pad", "NOTSET");
  bool upper = automatic == "SAME_UPPER",
       same = upper || automatic == "SAME_LOWER";
  bool ceil = n.intAttr("ceil_mode", 0) != 0;
  if (!same && automatic != "NOTSET" && automatic != "VALID")
    n.fail("auto_pad is " + quote(automatic) +
           "; NOTSET, VALID, SAME_UPPER or SAME_LOWER is needed");
  if (n.failed())
    return {};
  SmallVector<Window> windows;
  for (size_t i = 0; i < count; ++i) {
    Window w{n.shape(x)[2 + i], kernel[i], strides[i], dilations[i], 0, 0, 0};
    if (w.kernel < 1 || w.kernel > limit / w.dilation) {
      n.fail("the window has size " + Twine(w.kernel) + " in dim " +
             Twine(2 + i));
      return {};
    }
    int64_t extent = (w.kernel - 1) * w.dilation + 1;
    if (same) {
      w.count = (w.size + w.stride - 1) / w.stride;
      int64_t pad = std::max<int64_t>(w.reach() - w.size, 0);
      w.low = upper ? pad / 2 : pad - pad / 2;
      w.high = pad - w.low;
    } else {
      if (automatic == "NOTSET") {
        w.low = pads[i];
        w.high = pads[count + i];
      }
      int64_t room = w.size + w.low + w.high - extent;
      if (room < 0 || w.size == 0) {
        n.fail("a window of " + Twine(extent) + " does not fit into dim " +
               Twine(2 + i) + " of size " + Twine(w.size) + " with pads " +
               Twine(w.low) + " and " + Twine(w.high));
        return {};
      }
      w.count = (room + (ceil ? w.stride - 1 : 0)) / w.stride + 1;
      // A window that starts behind the elements has nothing to read.
      if (ceil && (w.count - 1) * w.stride >= w.size + w.low)
        --w.count;
    }
    windows.push_back(w);
  }
  return windows;
}

SmallVector<int64_t> onnx::readKernelShape(NodeImporter &n, Value x) {
  auto kernel = n.intsAttr("kernel_shape");
  if (n.failed())
    return {};
  if (!kernel || static_cast<int64_t>(kernel->size()) != n.rank(x) - 2) {
    n.fail("kernel_shape has " + Twine(kernel ? kernel->size() : 0) +
           " entries for an input of " + Twine(n.rank(x)) + " dims");
    return {};
  }
  return SmallVector<int64_t>(kernel->begin(), kernel->end());
}

Value onnx::padOrCrop(NodeImporter &n, Value x, ArrayRef<int64_t> low,
                      ArrayRef<int64_t> high, double fill) {
  if (!x)
    return x;
  SmallVector<int64_t> starts, sizes(n.shape(x)), ones(n.rank(x), 1), before,
      after;
  bool cropsPads = false;
  for (auto [size, l, h] : llvm::zip_equal(sizes, low, high)) {
    starts.push_back(std::max<int64_t>(-l, 0));
    size -= starts.back() + std::max<int64_t>(-h, 0);
    cropsPads |= size < 0;
    before.push_back(std::max<int64_t>(l, 0));
    after.push_back(std::max<int64_t>(h, 0));
  }
  if (cropsPads) {
    for (auto [size, b, a] : llvm::zip_equal(sizes, before, after)) {
      size += b + a;
      if (size < 0) {
        n.fail("pads crop more than a dim has");
        return {};
      }
    }
    return n.slice(n.pad(x, before, after, fill), starts, sizes, ones);
  }
  return n.pad(n.slice(x, starts, sizes, ones), before, after, fill);
}

Value onnx::stretch(NodeImporter &n, Value x, int64_t dim, int64_t stride) {
  if (!x || stride == 1)
    return x;
  SmallVector<int64_t> shape(n.shape(x)), low(n.rank(x) + 1, 0),
      high(n.rank(x) + 1, 0);
  SmallVector<int64_t> split(shape);
  split.insert(split.begin() + dim + 1, 1);
  high[dim + 1] = stride - 1;
  shape[dim] *= stride;
  Value wide = n.reshape(n.pad(n.reshape(x, split), low, high, 0), shape);
  return n.part(wide, dim, 0, shape[dim] - (stride - 1));
}

SmallVector<int64_t> onnx::kernelDims(ArrayRef<Window> windows) {
  SmallVector<int64_t> dims;
  for (size_t i = 0; i < windows.size(); ++i)
    dims.push_back(2 + 2 * i);
  return dims;
}

Value onnx::channelsLast(NodeImporter &n, Value x) {
  if (!x)
    return x;
  SmallVector<int64_t> permutation{0};
  for (int64_t d = 2; d < n.rank(x); ++d)
    permutation.push_back(d);
  permutation.push_back(1);
  return n.transpose(x, permutation);
}

Value onnx::channelsFirst(NodeImporter &n, Value x) {
  if (!x)
    return x;
  SmallVector<int64_t> permutation{0, n.rank(x) - 1};
  for (int64_t d = 1; d < n.rank(x) - 1; ++d)
    permutation.push_back(d);
  return n.transpose(x, permutation);
}

Value onnx::openWindows(NodeImporter &n, Value x, ArrayRef<Window> windows,
                        double fill) {
  if (n.failed() || !x)
    return {};
  // Exactly what the windows reach.
  SmallVector<int64_t> low(n.rank(x), 0), high(n.rank(x), 0);
  for (auto [i, w] : llvm::enumerate(windows)) {
    if (w.count > largestPlaces / w.kernel) {
      n.fail(Twine(w.count) + " windows of " + Twine(w.kernel) +
             " elements in dim " + Twine(2 + i) + " are more than " +
             Twine(largestPlaces) + " places");
      return {};
    }
    low[1 + i] = w.low;
    high[1 + i] = w.reach() - w.low - w.size;
  }
  x = padOrCrop(n, x, low, high, fill);
  if (!x)
    return x;
  for (auto [i, w] : llvm::enumerate(windows)) {
    int64_t dim = 1 + 2 * i; // of this dim, now that those before are split
    SmallVector<int64_t> shape(n.shape(x));
    if (w.kernel == 1) {
      SmallVector<int64_t> begin(shape.size(), 0), stride(shape.size(), 1);
      stride[dim] = w.count > 1 ? w.stride : 1;
      shape[dim] = w.count;
      x = n.slice(x, begin, shape, stride);
    } else if (w.count > 1 && (w.stride != w.kernel || w.dilation != 1)) {
      std::vector<int64_t> places;
      for (int64_t o = 0; o < w.count; ++o)
        for (int64_t k = 0; k < w.kernel; ++k)
          places.push_back(o * w.stride + k * w.dilation);
      x = n.gather(x, n.ints(places), dim);
    } else if (w.dilation != 1) {
      SmallVector<int64_t> begin(shape.size(), 0), stride(shape.size(), 1);
      stride[dim] = w.dilation;
      shape[dim] = w.kernel;
      x = n.slice(x, begin, shape, stride);
    }
    shape[dim] = w.count;
    shape.insert(shape.begin() + dim + 1, w.kernel);
    x = n.reshape(x, shape);
    if (!x)
      return x;
  }
  return x;
}
