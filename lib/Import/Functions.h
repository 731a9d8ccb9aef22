//===- Functions.h - Calls of a model's own functions -----------*- C++ -*-===//
#ifndef DSHARD_LIB_IMPORT_FUNCTIONS_H
#define DSHARD_LIB_IMPORT_FUNCTIONS_H

#include "ModelFile.h"

namespace mlir::dshard::onnx {

/// Replaces every node of the graph, and of the graphs in its nodes, that calls
/// a function of the model (ModelProto.functions; the key is domain, name and
/// overload) by the nodes of the function's body, to any depth.
///
/// - The model's function is the definition: it wins over an op of that name
///   that the importer knows (onnxruntime prefers its own op; a function that
///   differs from it would be another model).
/// - Names inside a function get the call in front: value `sum` in the call
///   `norm` is `norm.sum`, and `norm/sum` where one of the two has a slash, as
///   exporters write module paths. A name that is taken gets a number. A node
///   without name scopes has those of its call.
/// - Attributes by reference (ref_attr_name) are the call's, else the
///   function's default, else left out. Inputs that a call leaves out are left
///   out in the body.
/// - A body is in the opsets of its function: `file.opsets` says of which
///   nodes these are not the model's.
///
/// Errors: a function that calls itself, arguments that it does not have, more
/// than 200,000 nodes or 128 MiB of them, calls nested more than 64 deep.
::dshard::Status inlineFunctions(ModelFile &file);

} // namespace mlir::dshard::onnx

#endif // DSHARD_LIB_IMPORT_FUNCTIONS_H
