//===- DShardOps.td - All op families ---------------------------*- tablegen -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_DSHARDOPS_TD
#define DSHARD_DIALECT_DSHARD_IR_DSHARDOPS_TD

include "dshard/Dialect/DShard/IR/ElementwiseOps.td"
include "dshard/Dialect/DShard/IR/MatMulOps.td"
include "dshard/Dialect/DShard/IR/AttentionOps.td"
include "dshard/Dialect/DShard/IR/NormOps.td"
include "dshard/Dialect/DShard/IR/ReduceOps.td"
include "dshard/Dialect/DShard/IR/LayoutOps.td"
include "dshard/Dialect/DShard/IR/IndexOps.td"
include "dshard/Dialect/DShard/IR/LossOps.td"
include "dshard/Dialect/DShard/IR/OptimizerOps.td"
include "dshard/Dialect/DShard/IR/CollectiveOps.td"
include "dshard/Dialect/DShard/IR/ControlOps.td"

#endif
