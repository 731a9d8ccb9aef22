//===- WireMutator.h - Mutate ONNX models by their structure ----*- C++ -*-===//
//
// The importer's protobuf is the lite one, without reflection: the wire format
// is taken apart here, by a table of which field of which message holds a
// message. Lengths are made right again, so most results are well-formed.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_TEST_FUZZ_WIREMUTATOR_H
#define DSHARD_TEST_FUZZ_WIREMUTATOR_H

#include <cstddef>
#include <cstdint>

namespace dshard::fuzz {

/// As LLVMFuzzerCustomMutator.
size_t mutateWire(uint8_t *data, size_t size, size_t maxSize, unsigned seed);

} // namespace dshard::fuzz

#endif // DSHARD_TEST_FUZZ_WIREMUTATOR_H
