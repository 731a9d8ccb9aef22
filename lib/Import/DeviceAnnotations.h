//===- DeviceAnnotations.h - ONNX multi-device annotations ------*- C++ -*-===//
#ifndef DSHARD_LIB_IMPORT_DEVICEANNOTATIONS_H
#define DSHARD_LIB_IMPORT_DEVICEANNOTATIONS_H

#include "ModelFile.h"

namespace mlir::dshard::onnx {

/// Whether the model has multi-device annotations (ModelProto.configuration,
/// NodeProto.device_configurations).
bool hasDeviceAnnotations(const pb::ModelProto &model);

/// They are hints, which the importer does not use. Those that contradict
/// themselves or the model are an error all the same: whoever wrote them counts
/// on them.
///
/// Constraints (ONNX proposals 0006 and 0007): a configuration has a name of
/// its own and at least one device, and as many device names as devices or
/// none; a node's annotation names a configuration, at most once each; its
/// stage is not negative, and not before that of a producer; a sharding spec
/// is for an input or output of the node, once; axes lie in [-rank, rank) and
/// do not repeat; shards are at least 1 and at most the size of the dim, and
/// their product is the number of devices listed; a device is below
/// num_devices, or negative and the key of a group of such.
::dshard::Status checkDeviceAnnotations(const pb::ModelProto &model);

} // namespace mlir::dshard::onnx

#endif // DSHARD_LIB_IMPORT_DEVICEANNOTATIONS_H
