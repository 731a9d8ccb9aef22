//===- Communicator.h - Collectives as a struct of functions ----*- C++ -*-===//
//
// What a backend of collectives provides (in-process threads; later MPI, NCCL).
// One Communicator is one rank's end of all the plan's groups; a group is named
// by its index in Plan.groups and means the instance that the rank is in, whose
// members are numbered from 0 (MPI_Comm, ncclComm_t). Every call is collective
// over that instance and must be issued in the same order by all its members.
//
// All results are bitwise equal on all members and from run to run: reductions
// add in member order, f16 and bf16 in fp32 and rounded once.
//
// Errors: a call fails when a peer has failed or the members disagree; once a
// call has failed, every call of every rank fails until the session resets the
// world. Nothing hangs.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_COMMUNICATOR_H
#define DSHARD_RUNTIME_COMMUNICATOR_H

#include "dshard/Plan/Format.h"
#include "dshard/Support/Status.h"

#include <cstddef>
#include <cstdint>

namespace dshard {

/// One operand with its result. The operand has `elements` elements.
struct CollectiveOperand {
  const void *in = nullptr;
  void *out = nullptr;
  int64_t elements = 0;
  plan::DataType type = plan::DataType::f32;
  /// all_gather: the operand is [outer, d, inner], the result [outer, n d,
  /// inner]. reduce_scatter: the result is [outer, d, inner], the operand
  /// [outer, n d, inner].
  int64_t outer = 1, inner = 1;
};

/// The operand has the dims `dims`; dim `split` is divided over the group and
/// dim `concat` collected: member i of n gives its piece j to member j.
struct AllToAllShape {
  const int64_t *dims;
  int ndims;
  int split, concat;
};

/// The functions of a backend. `state` is the rank's end.
struct CommunicatorFunctions {
  const char *name;
  Status (*allGather)(void *state, uint32_t group,
                      const CollectiveOperand *operands, size_t count);
  /// An operand may be its own result.
  Status (*allReduce)(void *state, uint32_t group, plan::ReductionKind kind,
                      const CollectiveOperand *operands, size_t count);
  Status (*reduceScatter)(void *state, uint32_t group, plan::ReductionKind kind,
                          const CollectiveOperand *operands, size_t count);
  Status (*allToAll)(void *state, uint32_t group,
                     const CollectiveOperand &operand,
                     const AllToAllShape &shape);
  /// Every member's result is the operand of member `root`.
  Status (*broadcast)(void *state, uint32_t group, int64_t root,
                      const CollectiveOperand &operand);
  /// Member `to` receives this operand; the result is that of member `from`.
  /// A negative `from` leaves zeros, a negative `to` sends to nobody.
  Status (*permute)(void *state, uint32_t group, int64_t to, int64_t from,
                    const CollectiveOperand *operands, size_t count);
  /// Returns when the bytes may be overwritten; never waits for the receiver.
  Status (*send)(void *state, uint32_t group, int64_t to, int64_t tag,
                 const void *data, uint64_t bytes);
  Status (*receive)(void *state, uint32_t group, int64_t from, int64_t tag,
                    void *data, uint64_t bytes);
  Status (*barrier)(void *state, uint32_t group);
  /// Makes every pending and later call of every rank fail with `reason`; the
  /// first reason counts.
  void (*abort)(void *state, const Status &reason);

  // Optional; null where a backend has none.

  /// Later calls of this rank run on this stream of its device, and return when
  /// they are queued there.
  void (*setStream)(void *state, uint32_t stream);
  /// Peak bytes that sent messages have waited in.
  uint64_t (*peakBufferedBytes)(void *state);
};

/// One rank's end. Copyable; the world that made it outlives it.
struct Communicator {
  const CommunicatorFunctions *functions = nullptr;
  void *state = nullptr;
};

} // namespace dshard

#endif // DSHARD_RUNTIME_COMMUNICATOR_H
