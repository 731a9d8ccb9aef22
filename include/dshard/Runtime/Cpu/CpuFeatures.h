//===- CpuFeatures.h - What this CPU can execute ----------------*- C++ -*-===//
#ifndef DSHARD_RUNTIME_CPU_CPUFEATURES_H
#define DSHARD_RUNTIME_CPU_CPUFEATURES_H

#include "dshard/Support/Status.h"

#include <string>
#include <vector>

namespace dshard::cpu {

/// Names of `wanted` (LLVM's: "avx2", "+avx512f", "sse4.1") that this CPU and
/// its operating system do not have, in their order. "-avx512f" wants nothing.
std::vector<std::string>
missingFeatures(const std::vector<std::string> &wanted);

/// The error for a plan that needs more than this CPU has, which names the
/// target that would do.
Status checkFeatures(const std::vector<std::string> &wanted);

} // namespace dshard::cpu

#endif // DSHARD_RUNTIME_CPU_CPUFEATURES_H
