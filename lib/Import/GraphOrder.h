//===- GraphOrder.h - Names and order of a graph's nodes --------*- C++ -*-===//
#ifndef DSHARD_LIB_IMPORT_GRAPHORDER_H
#define DSHARD_LIB_IMPORT_GRAPHORDER_H

#include "ModelFile.h"
#include <vector>

namespace mlir::dshard::onnx {

/// Indices of the nodes such that producers come before consumers, otherwise in
/// file order. Errors: a name defined twice, a name read and never defined, a
/// cycle (with its nodes).
::dshard::Result<std::vector<int>> sortNodes(const pb::GraphProto &graph);

/// "node 'x' (Op)", or "node 3 (Op)" where it has no name.
std::string describeNode(const pb::GraphProto &graph, int index);

} // namespace mlir::dshard::onnx

#endif // DSHARD_LIB_IMPORT_GRAPHORDER_H
