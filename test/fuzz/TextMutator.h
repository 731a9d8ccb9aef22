//===- TextMutator.h - Mutate MLIR by its words -----------------*- C++ -*-===//
#ifndef DSHARD_TEST_FUZZ_TEXTMUTATOR_H
#define DSHARD_TEST_FUZZ_TEXTMUTATOR_H

#include <cstddef>
#include <cstdint>

namespace dshard::fuzz {

/// As LLVMFuzzerCustomMutator: changes numbers, exchanges words for others of
/// the same kind from the same text, and moves, drops and doubles lines.
size_t mutateText(uint8_t *data, size_t size, size_t maxSize, unsigned seed);

} // namespace dshard::fuzz

#endif // DSHARD_TEST_FUZZ_TEXTMUTATOR_H
