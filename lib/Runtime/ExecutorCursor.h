//===- ExecutorCursor.h - Reads an instruction's values ---------*- C++ -*-===//
//
// Internal to lib/Runtime.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_RUNTIME_EXECUTORCURSOR_H
#define DSHARD_LIB_RUNTIME_EXECUTORCURSOR_H

#include "dshard/Runtime/Executor.h"

#include <cstring>

namespace dshard {

/// The next value, resolved for this rank and the current loop indices.
struct Executor::Cursor {
  const Executor &executor;
  const plan::Program &program;
  uint32_t at;

  int64_t next() { return executor.valueOf(*program.values()->Get(at++)); }
  bool flag() { return next() != 0; }
  double real() {
    int64_t bits = next();
    double value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }
};

} // namespace dshard

#endif // DSHARD_LIB_RUNTIME_EXECUTORCURSOR_H
