//===- Inputs.h - Where a program's arguments come from ---------*- C++ -*-===//
//
// The arguments of a function as global tensors: read from .npy files, from the
// weight files that `dshard.weight` names, or drawn from a seed by the rules of
// include/dshard/Support/Philox.h and docs/RandomWeights.md. The reference
// reads weights by itself; it shares no code with the `load` program.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_REFERENCE_INPUTS_H
#define DSHARD_REFERENCE_INPUTS_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "dshard/Support/Status.h"
#include "llvm/ADT/StringMap.h"
#include <optional>

namespace mlir::dshard {

/// How the argument is called on the command line: `dshard.name`, else the name
/// of its weight, state or scalar, else its index.
std::string getArgumentName(func::FuncOp function, unsigned index);
std::string getResultName(func::FuncOp function, unsigned index);

struct InputOptions {
  /// Given values by argument name; a weight's own name counts as well.
  llvm::StringMap<HostTensor> given;
  /// NAME=random[:SEED].
  llvm::StringMap<uint64_t> randomInputs;
  /// Seed of all inputs that are not given; none: each must be given.
  std::optional<uint64_t> randomSeed;
  /// Seed of weights with external data; none: they are read.
  std::optional<uint64_t> randomWeights;
  /// Number of steps: inputs, but neither states nor scalars, have it as a
  /// leading dim.
  std::optional<int64_t> steps;
  /// Folder of the weight files; empty: that of the module's `dshard.model`.
  std::string weights;
};

/// The type with a leading step dim.
RankedTensorType withSteps(RankedTensorType type, int64_t steps);

/// The global value of every argument. States that are no weight start at zero,
/// the learning rate at 1e-3. Inputs that `drawn` already holds by
/// name are taken from there, and newly drawn ones are added, so that a second
/// program sees the same inputs. A padded argument is filled up with zeros.
::dshard::Status getArguments(func::FuncOp function,
                              const InputOptions &options,
                              llvm::StringMap<HostTensor> &drawn,
                              SmallVectorImpl<HostTensor> &arguments);

/// A random input: floats in [-1, 1), booleans true, integers that reach the
/// indices of a look-up uniform below its (unpadded) size, other integers
/// (masks) 1.
HostTensor drawInput(func::FuncOp function, unsigned index,
                     RankedTensorType type, uint64_t seed);

/// A .npy file as a tensor of `type`; the element types must agree, but a float
/// may be given as float64, which is not rounded here.
::dshard::Result<HostTensor> readTensor(const std::string &path,
                                        RankedTensorType type);
::dshard::Status writeTensor(const std::string &path, const HostTensor &tensor);

} // namespace mlir::dshard

#endif // DSHARD_REFERENCE_INPUTS_H
