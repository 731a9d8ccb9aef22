//===- TrainConfig.h - What --train says ------------------------*- C++ -*-===//
//
// The keys and their meaning: dshard-build-train-step in Passes.td.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_TRANSFORMS_TRAIN_TRAINCONFIG_H
#define DSHARD_TRANSFORMS_TRAIN_TRAINCONFIG_H

#include "dshard/Support/Status.h"
#include "llvm/ADT/StringRef.h"
#include <optional>
#include <string>
#include <vector>

namespace mlir::dshard {

struct TrainConfig {
  std::string logits = "logits";
  std::string labels = "labels";
  int64_t ignoreIndex = -100;
  bool shiftLabels = false;

  /// Globs of weight names; by default a weight is trained if it is a module's
  /// parameter.
  std::optional<std::vector<std::string>> trainable;

  // AdamW; the defaults are PyTorch's.
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weightDecay = 0.01;
  std::vector<std::string> noDecay; ///< globs of parameter names
  std::optional<double> clipNorm;

  bool skipsNonFinite = false;
  bool givesLoss = true, givesGradNorm = true, givesGradients = false;
};

/// The configuration in a JSON file. The error names file, key and value.
::dshard::Result<TrainConfig> loadTrainConfig(llvm::StringRef file);

} // namespace mlir::dshard

#endif // DSHARD_TRANSFORMS_TRAIN_TRAINCONFIG_H
