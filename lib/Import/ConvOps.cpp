//===- ConvOps.cpp - ONNX convolutions ------------------------------------===//
//
// A convolution is a matrix product of windows with weights ("im2col"); a
// depthwise one is a sum of products. Each group's outputs are dims of the
// result, so output channels shard as columns of a linear layer do. Channels
// are the last dim inside: the transposes around one convolution cancel those
// of the next (dshard-sink-transposes moves them past what is between).
//
//===----------------------------------------------------------------------===//

#include "Arithmetic.h"
#include "Windows.h"
#include "llvm/ADT/STLExtras.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// Fails unless x is [N, C, D...] and weight [M, C / groups, K...] (transposed:
/// [C, M / groups, K...]).
static bool expectImageAndWeight(NodeImporter &n, Value x, Value weight,
                                 int64_t groups, bool transposed) {
  if (n.failed())
    return false;
  if (n.rank(x) < 3 || n.rank(x) != n.rank(weight)) {
    n.fail("input and weight have " + Twine(n.rank(x)) + " and " +
           Twine(n.rank(weight)) +
           " dims; the same number, 3 or more, is "
           "needed");
    return false;
  }
  int64_t channels = n.shape(x)[1], outer = n.shape(weight)[0],
          inner = n.shape(weight)[1];
  if (groups < 1 || channels % groups || outer % groups ||
      (transposed ? outer != channels : inner != channels / groups)) {
    n.fail("weight has " + Twine(outer) + " x " + Twine(inner) +
           " channels, the input " + Twine(channels) + " in " + Twine(groups) +
           " groups");
    return false;
  }
  if (auto given = n.intsAttr("kernel_shape"))
    if (ArrayRef<int64_t>(*given) != n.shape(weight).drop_front(2))
      n.fail("kernel_shape differs from the weight's");
  return !n.failed();
}

/// Windows times weights [M, C / groups, K...], plus the bias [M] (or null).
/// Computed with the channels last, which is a linear layer on windows.
static Value convolve(NodeImporter &n, Value x, Value weight, Value bias,
                      ArrayRef<Window> windows, int64_t groups) {
  Value open = openWindows(n, channelsLast(n, x), windows, 0);
  if (!open)
    return {};
  int64_t batch = n.shape(x)[0], channels = n.shape(x)[1] / groups,
          outputs = n.shape(weight)[0] / groups, places = 1, taps = 1;
  SmallVector<int64_t> result{batch};
  for (const Window &w : windows) {
    result.push_back(w.count);
    places *= w.count;
    taps *= w.kernel;
  }
  result.push_back(groups * outputs);
  Value sum;
  if (channels == 1 && groups > 1) {
    // Depthwise: [N, O1, K1, ..., G] * [K1, ..., G], summed over K; several
    // outputs per group are one more dim.
    SmallVector<int64_t> opened(n.shape(open)), filter, flat{outputs * groups},
        permutation;
    for (auto [i, w] : llvm::enumerate(windows)) {
      filter.append({1, w.kernel});
      flat.push_back(w.kernel);
      permutation.push_back(1 + i);
    }
    filter.push_back(groups);
    permutation.push_back(0);
    Value kernel = n.transpose(n.reshape(weight, flat), permutation);
    if (outputs > 1) {
      opened.push_back(1);
      filter.push_back(outputs);
    }
    Arithmetic a(n);
    Value products = a.mul(a.wide(n.reshape(open, opened)),
                           a.wide(n.reshape(kernel, filter)));
    sum = n.reduce(ReductionKind::sum, products, kernelDims(windows), false);
    sum = n.reshape(a.narrow(sum, x), result);
  } else {
    // [N, O1, K1, ..., C] to [N, O..., K..., C].
    SmallVector<int64_t> permutation{0}, rows(result);
    for (size_t i = 0; i < windows.size(); ++i)
      permutation.push_back(1 + 2 * i);
    for (int64_t dim : kernelDims(windows))
      permutation.push_back(dim);
    permutation.push_back(n.rank(open) - 1);
    open = n.transpose(open, permutation);
    // [M, C, K...] to [M, K..., C].
    Value filter =
        n.reshape(channelsLast(n, weight), {groups * outputs, taps * channels});
    if (groups == 1) {
      rows.back() = taps * channels;
      sum = n.matmul(n.reshape(open, rows), filter, false, true);
    } else {
      open = n.reshape(open, {batch, places, taps, groups, channels});
      open = n.transpose(open, {0, 3, 1, 2, 4});
      open = n.reshape(open, {batch, groups, places, taps * channels});
      filter = n.reshape(filter, {groups, outputs, taps * channels});
      sum = n.matmul(open, filter, false, true);
      sum = n.reshape(n.transpose(sum, {0, 2, 1, 3}), result);
    }
  }
  return channelsFirst(n, bias ? n.pointwise<AddOp>({sum, bias}) : sum);
}

/// [M], or null without one.
static Value readBias(NodeImporter &n, int input, int64_t channels) {
  Value bias = n.hasInput(input) ? n.input(input) : Value();
  if (n.failed() || !bias)
    return {};
  if (n.rank(bias) != 1 || n.shape(bias)[0] != channels)
    n.fail("bias must have the " + Twine(channels) +
           " output channels as its only dim");
  return bias;
}

void onnx::importConv(NodeImporter &n) {
  if (!n.expectInputs(2, 3))
    return;
  Value x = n.input(0), weight = n.input(1);
  int64_t groups = n.intAttr("group", 1);
  if (!expectImageAndWeight(n, x, weight, groups, false))
    return;
  Value bias = readBias(n, 2, n.shape(weight)[0]);
  auto windows = readWindows(n, x, n.shape(weight).drop_front(2));
  if (!n.failed())
    n.set(0, convolve(n, x, weight, bias, windows, groups));
}

/// [C, M / groups, K...] to [M, C / groups, K...], K reversed.
static Value transposeWeight(NodeImporter &n, Value weight, int64_t groups) {
  ArrayRef<int64_t> s = n.shape(weight);
  SmallVector<int64_t> split{groups, s[0] / groups, s[1]}, permutation{0, 2, 1},
      merged{groups * s[1], s[0] / groups};
  for (size_t i = 2; i < s.size(); ++i) {
    split.push_back(s[i]);
    permutation.push_back(i + 1);
    merged.push_back(s[i]);
  }
  Value moved =
      n.reshape(n.transpose(n.reshape(weight, split), permutation), merged);
  SmallVector<int64_t> starts(merged.size(), 0), strides(merged.size(), 1);
  for (size_t i = 2; i < merged.size(); ++i)
    if (merged[i] > 1) {
      starts[i] = merged[i] - 1;
      strides[i] = -1;
    }
  return n.slice(moved, starts, merged, strides);
}

/// A convolution with stride 1 over the stretched input, with the weights
/// mirrored.
void onnx::importConvTranspose(NodeImporter &n) {
  if (!n.expectInputs(2, 3))
    return;
  Value x = n.input(0), weight = n.input(1);
  int64_t groups = n.intAttr("group", 1);
  if (!expectImageAndWeight(n, x, weight, groups, true))
    return;
  size_t dims = n.rank(x) - 2;
  auto strides = intsPerDim(n, "strides", dims, 1, 1),
       dilations = intsPerDim(n, "dilations", dims, 1, 1),
       extra = intsPerDim(n, "output_padding", dims, 0, 0),
       pads = intsPerDim(n, "pads", 2 * dims, 0, 0);
  auto wanted = n.intsAttr("output_shape");
  std::string automatic = n.stringAttr("auto_pad", "NOTSET");
  bool upper = automatic == "SAME_UPPER",
       same = upper || automatic == "SAME_LOWER";
  if (!same && automatic != "NOTSET" && automatic != "VALID")
    n.fail("auto_pad is " + quote(automatic) +
           "; NOTSET, VALID, SAME_UPPER or SAME_LOWER is needed");
  if (n.failed())
    return;
  if (wanted && wanted->size() == dims + 2) // with batch and channels
    wanted->erase(wanted->begin(), wanted->begin() + 2);
  if (wanted && wanted->size() != dims)
    return n.fail("output_shape has " + Twine(wanted->size()) + " entries; " +
                  Twine(dims) + " are needed");
  SmallVector<Window> windows;
  SmallVector<int64_t> low(n.rank(x), 0), high(n.rank(x), 0);
  for (size_t i = 0; i < dims; ++i) {
    int64_t size = n.shape(x)[2 + i], kernel = n.shape(weight)[2 + i];
    int64_t extent = (kernel - 1) * dilations[i] + 1,
            full = (size - 1) * strides[i] + extent + extra[i];
    int64_t before = pads[i], after = pads[dims + i];
    if (wanted || same) {
      int64_t target = wanted ? (*wanted)[i] : size * strides[i];
      int64_t total = full - target; // below 0: bare bias at the end
      if (target < 1 || target > full + strides[i])
        return n.fail("output_shape asks for " + Twine(target) + " in dim " +
                      Twine(2 + i) + "; the input makes " + Twine(full));
      // What is missing comes at the end.
      before = std::max<int64_t>(upper ? total / 2 : total - total / 2, 0);
      after = total - before;
    } else if (automatic == "VALID") {
      before = after = 0;
    }
    int64_t count = full - before - after;
    if (size < 1 || kernel < 1 || count < 1)
      return n.fail("dim " + Twine(2 + i) + " has no elements in the result");
    x = stretch(n, x, 2 + i, strides[i]);
    low[2 + i] = extent - 1 - before;
    high[2 + i] = extent - 1 - after + extra[i];
    windows.push_back(
        {count + extent - 1, kernel, 1, dilations[i], 0, 0, count});
  }
  Value bias = readBias(n, 2, n.shape(weight)[1] * groups);
  if (!n.failed())
    n.set(0,
          convolve(n, padOrCrop(n, x, low, high),
                   transposeWeight(n, weight, groups), bias, windows, groups));
}

/// The sum of blocks [N, C * K, L], each put where it was cut.
void onnx::importCol2Im(NodeImporter &n) {
  if (!n.expectInputs(3, 3))
    return;
  Value x = n.input(0);
  std::vector<int64_t> image = n.staticInts(1, "image_shape"),
                       block = n.staticInts(2, "block_shape");
  if (n.failed())
    return;
  size_t dims = image.size();
  if (n.rank(x) != 3 || block.size() != dims || dims == 0)
    return n.fail("needs [N, C * block, L] and as many block as image dims; "
                  "has " +
                  Twine(n.rank(x)) + ", " + Twine(block.size()) + " and " +
                  Twine(dims));
  auto strides = intsPerDim(n, "strides", dims, 1, 1),
       dilations = intsPerDim(n, "dilations", dims, 1, 1),
       pads = intsPerDim(n, "pads", 2 * dims, 0, 0);
  if (n.failed())
    return;
  int64_t taps = 1, places = 1;
  SmallVector<int64_t> counts;
  for (size_t i = 0; i < dims; ++i) {
    if (block[i] < 1 || image[i] < 1 || block[i] > (int64_t(1) << 30) ||
        image[i] > (int64_t(1) << 30))
      return n.fail("image_shape or block_shape has an entry below 1 or too "
                    "large");
    int64_t room =
        image[i] + pads[i] + pads[dims + i] - (block[i] - 1) * dilations[i] - 1;
    if (room < 0)
      return n.fail("a block of " + Twine(block[i]) +
                    " does not fit into dim " + Twine(i) + " of the image");
    counts.push_back(room / strides[i] + 1);
    taps *= block[i];
    places *= counts.back();
    if (taps > 1024)
      return n.fail("blocks of more than 1024 elements are not supported");
  }
  int64_t batch = n.shape(x)[0], rows = n.shape(x)[1];
  if (rows % taps || n.shape(x)[2] != places)
    return n.fail("the input is [N, " + Twine(rows) + ", " +
                  Twine(n.shape(x)[2]) + "]; a multiple of " + Twine(taps) +
                  " and " + Twine(places) + " are needed");
  int64_t channels = rows / taps;
  Value blocks = n.reshape(x, {batch, channels, taps, places});
  Value sum;
  for (int64_t tap = 0; tap < taps && !n.failed(); ++tap) {
    SmallVector<int64_t> shape{batch, channels}, low(dims + 2, 0),
        high(dims + 2, 0);
    llvm::append_range(shape, counts);
    Value part = n.reshape(n.part(blocks, 2, tap, 1), shape);
    int64_t rest = tap;
    for (size_t i = dims; i-- > 0; rest /= block[i]) {
      part = stretch(n, part, 2 + i, strides[i]);
      int64_t at = rest % block[i] * dilations[i] - pads[i];
      low[2 + i] = at;
      high[2 + i] = image[i] - at - ((counts[i] - 1) * strides[i] + 1);
    }
    part = padOrCrop(n, part, low, high);
    sum = sum ? n.pointwise<AddOp>({sum, part}) : part;
  }
  n.set(0, sum);
}
