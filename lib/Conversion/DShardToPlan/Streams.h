//===- Streams.h - Which stream an instruction runs on ----------*- C++ -*-===//
//
// Internal to DShardToPlan.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_CONVERSION_DSHARDTOPLAN_STREAMS_H
#define DSHARD_LIB_CONVERSION_DSHARDTOPLAN_STREAMS_H

#include "dshard/Dialect/Plan/IR/PlanOps.h"

namespace mlir::dshard {

/// Puts the collectives of group g on stream 1 + g (those of group 62 and above
/// share streams), everything else stays on stream 0, and orders the streams by
/// events. A collective begins when all that stands before it on stream 0 is
/// done; the others wait for it where they first touch bytes that it writes, or
/// write bytes that it reads, so that what lies between runs beside it. At the
/// ends of blocks and around control everything is waited for: no event crosses
/// them. Wants a program whose buffers have their places.
///
/// Example: `all_reduce %a; launch %b; launch %a` becomes
///   record 0; wait 0 (stream 1); all_reduce %a (stream 1);
///   record 1 (stream 1); launch %b; wait 1; launch %a
void assignStreams(plan::ProgramOp program);

} // namespace mlir::dshard

#endif // DSHARD_LIB_CONVERSION_DSHARDTOPLAN_STREAMS_H
