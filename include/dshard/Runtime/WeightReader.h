//===- WeightReader.h - Slices of weight files ------------------*- C++ -*-===//
//
// Where LOAD_SLICE takes its elements from: the weight files beneath the
// model's folder (or the one that --weights names), or a seed.
//
// Files are opened and checked once: a path may not be absolute or contain
// "..", and what it leads to must lie inside the model's folder or the named
// one; a file that is missing, too short, or whose tensors are not those that
// were there at compile time (size and identity of each range) is an error.
// Slices are read with pread in contiguous runs through a small buffer: mapped
// file pages would count as the process's memory.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_WEIGHTREADER_H
#define DSHARD_RUNTIME_WEIGHTREADER_H

#include "dshard/Plan/PlanReader.h"
#include "dshard/Runtime/Operations.h"
#include "dshard/Support/File.h"

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace dshard {

struct WeightOptions {
  /// The folder of --weights; empty: the model's.
  std::string folder;
  /// --random-weights: draw every element (Support/Philox.h) instead of reading
  /// it. What lies inside the model's own file (small constants) is read.
  std::optional<uint64_t> seed;
};

/// LOAD_SLICE: elements [starts, starts + sizes) of the source as stored, zeros
/// beyond its end; result dim i is source dim permutation[i], written at
/// element offset `at` of a row-major result with dims `outDims`.
struct SliceRequest {
  uint32_t source = 0;
  int dims = 0;
  int64_t starts[maxDims], sizes[maxDims], at[maxDims], outDims[maxDims];
  int permutation[maxDims];
  void *out = nullptr;
  plan::DataType outType = plan::DataType::f32;
};

class WeightReader {
public:
  /// Opens and checks every file that a source lies in. `plan` outlives it.
  static Result<std::unique_ptr<WeightReader>> open(const plan::Reader &plan,
                                                    WeightOptions options);

  /// Thread safe.
  Status loadSlice(const SliceRequest &request);

  /// Bytes of the sources read or drawn so far, over all ranks.
  uint64_t bytesDone() const { return done.load(std::memory_order_relaxed); }

private:
  WeightReader(const plan::Reader &plan, WeightOptions options)
      : plan(plan), options(std::move(options)) {}
  Status openFile(uint32_t file);
  Result<std::string> resolve(const std::string &path) const;
  Status checkSource(uint32_t source);
  bool isDrawn(uint32_t source) const;
  class Slice;

  const plan::Reader &plan;
  WeightOptions options;
  std::vector<InputFile> files; // by index of Plan.files; some are not needed
  std::atomic<uint64_t> done{0};
};

} // namespace dshard

#endif // DSHARD_RUNTIME_WEIGHTREADER_H
