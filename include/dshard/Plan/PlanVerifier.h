//===- PlanVerifier.h - Proving a plan --------------------------*- C++ -*-===//
//
// Proves, for all ranks, of a plan that the reader has accepted:
//
//   plan_v1  every byte is written, through the same base, before it is read,
//            on every path; inputs are written by the host, states by their
//            initializer; an output is whole when the program ends
//   plan_v2  accesses of the same bytes on different streams are ordered by
//            events, and an event is recorded before it is waited for
//   plan_v3  an instruction's result does not overlap its operands (LAUNCH,
//            ALL_REDUCE and the residual of MATMUL may work in place, on
//            exactly the same bytes)
//   plan_v4  sizes and types of buffers agree with the instruction's values
//   plan_v5  states do not overlap; they are written by the load program, and
//            by others only where they say so; packed states are written by
//            PACK_RHS and read by a packed MATMUL; what is initialised by
//            `load` is loaded, by the ranks that hold it
//   plan_v6  all members of every group issue the same collectives in the same
//            order (a simulation of the ranks finds deadlocks across groups)
//   plan_v7  sends match receives in order, size and micro-batch, over the
//            action lists of an entry; permutations are permutations
//   plan_v8  live ranges are those that the instructions have
//   plan_v9  an entry's ports, programs and action lists fit the mesh; each
//            stage runs every micro-batch once
//
// Ranks that no table and no pp coordinate tells apart are proved once.
// A strided write counts as covering its bounding interval.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_PLAN_PLANVERIFIER_H
#define DSHARD_PLAN_PLANVERIFIER_H

#include "dshard/Plan/plan_generated.h"
#include "dshard/Support/Status.h"

namespace dshard::plan {

/// The first error: "[plan_v1] program 'run', instruction 7 (matmul, node
/// '/fc1/MatMul'): buffer 3 'h' is read at bytes 0..4096 before it is written".
Status verifyPlan(const Plan &plan);

} // namespace dshard::plan

#endif // DSHARD_PLAN_PLANVERIFIER_H
