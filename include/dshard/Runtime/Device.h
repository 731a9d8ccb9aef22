//===- Device.h - A rank's device as a struct of functions ------*- C++ -*-===//
//
// What a backend provides to the executor: memory, code, the library calls of
// the plan, and their order. `state` is one rank's device. Calls on one stream
// run in order; a backend without streams (the CPU) runs everything in the
// order in which it is called, which is a valid order of every plan.
//
// Errors: what a call can know at once it returns; what shows later
// synchronize() returns. Any thread may call a function, one at a time.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_DEVICE_H
#define DSHARD_RUNTIME_DEVICE_H

#include "dshard/Runtime/Operations.h"
#include "dshard/Support/Status.h"

namespace dshard {

struct DeviceFunctions {
  const char *name;

  /// `bytes` zeroed bytes at a multiple of 64, real (touched) when it returns.
  /// `what` names them in the error.
  Status (*allocate)(void *state, uint64_t bytes, const char *what,
                     void **memory);
  /// Memory of allocate(); null is ignored.
  void (*release)(void *state, void *memory);

  /// Worker threads that library calls split their work over, and bytes of
  /// scratch that they share (thread_scratch of the plan, per worker).
  unsigned (*workers)(void *state);
  void (*setScratch)(void *state, void *scratch, uint64_t bytesPerWorker);

  /// Says why a call cannot be computed here: types, head counts, less scratch
  /// per worker (`scratch` bytes) than it needs. Asked once, at load.
  Status (*checkMatmul)(void *state, const MatmulArguments &, uint64_t scratch);
  Status (*checkAttention)(void *state, const AttentionArguments &,
                           uint64_t scratch);
  Status (*checkAttentionGrad)(void *state, const AttentionGradArguments &,
                               uint64_t scratch);

  Status (*matmul)(void *state, uint32_t stream, const MatmulArguments &);
  Status (*attention)(void *state, uint32_t stream, const AttentionArguments &);
  Status (*attentionGrad)(void *state, uint32_t stream,
                          const AttentionGradArguments &);
  /// Null: states of this backend are never packed.
  Status (*packRhs)(void *state, uint32_t stream, const PackArguments &);
  Status (*copy)(void *state, uint32_t stream, const StridedCopy &,
                 const void *in, plan::DataType inType, void *out,
                 plan::DataType outType);
  /// `elements` times `value`, cast.
  Status (*fill)(void *state, uint32_t stream, void *out, plan::DataType type,
                 int64_t elements, double value);
  Status (*launch)(void *state, uint32_t stream, const LaunchArguments &);

  // Optional; null where everything runs in order anyway.
  Status (*recordEvent)(void *state, uint32_t stream, uint32_t event);
  Status (*waitEvent)(void *state, uint32_t stream, uint32_t event);
  /// Returns when all streams are done.
  Status (*synchronize)(void *state);

  // Optional; null where the host reads and writes the device's memory itself.
  // They return when the bytes are there, behind everything on all streams.
  Status (*upload)(void *state, void *to, const void *from, uint64_t bytes);
  Status (*download)(void *state, void *to, const void *from, uint64_t bytes);

  // Optional: how long what is called between the two takes on the stream, for
  // reports; null where the host's clock says it. stopTimer waits as
  // synchronize() does.
  Status (*startTimer)(void *state, uint32_t stream);
  Status (*stopTimer)(void *state, uint32_t stream, int64_t *nanoseconds);

  // Optional; null where such products are generated code. checkGrouped is
  // asked at load, as the others are.
  Status (*checkGrouped)(void *state, const GroupedArguments &,
                         uint64_t scratch);
  Status (*grouped)(void *state, uint32_t stream, const GroupedArguments &);
};

struct Device {
  const DeviceFunctions *functions = nullptr;
  void *state = nullptr;
};

} // namespace dshard

#endif // DSHARD_RUNTIME_DEVICE_H
