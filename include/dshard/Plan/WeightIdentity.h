//===- WeightIdentity.h - Weight files by a few of their bytes --*- C++ -*-===//
#ifndef DSHARD_PLAN_WEIGHTIDENTITY_H
#define DSHARD_PLAN_WEIGHTIDENTITY_H

#include "dshard/Support/File.h"

namespace dshard::plan {

/// weightIdentity (Format.h) of bytes [offset, offset + size) of a file. Reads
/// the two ends only, and tells the system not to read ahead: a model has
/// thousands of weights, and the compiler needs no more of them. A file that
/// was cut since it was opened is an error.
Result<uint64_t> weightIdentity(const InputFile &file, uint64_t offset,
                                uint64_t size);

} // namespace dshard::plan

#endif // DSHARD_PLAN_WEIGHTIDENTITY_H
