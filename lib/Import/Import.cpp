//===- Import.cpp - ONNX files become modules of the dshard dialect -------===//

#include "dshard/Import/Import.h"
#include "DeviceAnnotations.h"
#include "Functions.h"
#include "GraphImporter.h"
#include "dshard/Dialect/DShard/IR/DShardOps.h"

using namespace mlir;
using namespace mlir::dshard;

FailureOr<OwningOpRef<ModuleOp>>
mlir::dshard::importOnnx(MLIRContext &context, StringRef path,
                         const ImportOptions &options) {
  context.loadDialect<DShardDialect, func::FuncDialect>();
  auto file = onnx::readModelFile(path);
  if (!file)
    return emitError(UnknownLoc::get(&context)) << file.status().message();
  const auto &model = (*file)->model;
  if (::dshard::Status status = onnx::checkDeviceAnnotations(model); !status)
    return emitError(UnknownLoc::get(&context))
           << path << ": " << status.message();
  if (onnx::hasDeviceAnnotations(model))
    emitRemark(UnknownLoc::get(&context))
        << path
        << ": its multi-device annotations are not used; --mesh says how the "
           "model is sharded";
  if (::dshard::Status status = onnx::inlineFunctions(**file); !status)
    return emitError(UnknownLoc::get(&context))
           << path << ": " << status.message();
  onnx::GraphImporter importer(&context, **file, options);
  OwningOpRef<ModuleOp> module = importer.run();
  if (!module)
    return failure();
  return module;
}
