//===- VerifyReferences.cpp - Indices between the ops of a plan -----------===//

#include "dshard/Dialect/Plan/IR/PlanOps.h"

#include <limits>
#include <map>

using namespace mlir;
using namespace mlir::plan;
using ::dshard::plan::InstructionInfo;

namespace {
class References {
public:
  explicit References(ModuleOp module) : module(module) {}
  LogicalResult verify();

private:
  LogicalResult verifyTable(Operation *op);
  LogicalResult verifyInProgram(Operation *op);
  LogicalResult verifyEntry(EntryOp entry);
  /// plan_ir_c1: `index` is the position of an op `kind` declared before.
  LogicalResult inRange(Operation *op, StringRef kind, int64_t index,
                        int64_t count);
  LogicalResult declared(Operation *op, StringRef kind, int64_t index) {
    return inRange(op, kind, index, counts[kind]);
  }
  /// plan_ir_c2
  LogicalResult isTensor(Operation *op, Type type);
  /// plan_ir_c3
  LogicalResult isSize(Operation *op, StringRef name, int64_t value);
  /// plan_ir_c4; with a `kind`, a literal that names such an op.
  LogicalResult isNumber(Operation *op, Attribute value, StringRef kind = "");
  /// plan_ir_c6
  LogicalResult fits(Operation *op, mlir::dshard::ShardingAttr sharding,
                     Type global);

  ModuleOp module;
  std::map<StringRef, int64_t> counts;
  SmallVector<int64_t> buffers; ///< of each program
};
} // namespace

LogicalResult References::inRange(Operation *op, StringRef kind, int64_t index,
                                  int64_t count) {
  if (index >= 0 && index < count)
    return success();
  return op->emitOpError("[plan_ir_c1] names ")
         << kind << " " << index << ", but there are " << count
         << (kind == "buffer" ? "" : " before it");
}

LogicalResult References::isTensor(Operation *op, Type type) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  if (tensor && tensor.hasStaticShape() &&
      tensor.getElementType().isIntOrFloat())
    return success();
  return op->emitOpError("[plan_ir_c2] has type ")
         << type << ", expected a tensor of known sizes";
}

LogicalResult References::isSize(Operation *op, StringRef name, int64_t value) {
  if (value >= 0)
    return success();
  return op->emitOpError("[plan_ir_c3] has ")
         << name << " " << value << ", expected at least 0";
}

LogicalResult References::isNumber(Operation *op, Attribute value,
                                   StringRef kind) {
  if (auto integer = dyn_cast<IntegerAttr>(value); integer && !kind.empty())
    return declared(op, kind, integer.getInt());
  if (auto table = dyn_cast<TableRefAttr>(value); table && kind.empty())
    return declared(op, "table", table.getIndex());
  if (auto scalar = dyn_cast<ScalarRefAttr>(value); scalar && kind.empty())
    return declared(op, "scalar", scalar.getIndex());
  bool isOther = isa<IntegerAttr, FloatAttr, LoopIndexAttr>(value);
  if (isOther && kind.empty())
    return success();
  return op->emitOpError("[plan_ir_c4] has the value ")
         << value << ", expected "
         << (kind.empty() ? "a number"
                          : "the literal index of a " + kind.str());
}

LogicalResult References::fits(Operation *op,
                               mlir::dshard::ShardingAttr sharding,
                               Type global) {
  if (!sharding)
    return success();
  mlir::dshard::MeshAttr mesh = mlir::dshard::getMesh(module);
  if (!mesh)
    return op->emitOpError("[plan_ir_c6] has a sharding in a module without "
                           "dshard.mesh");
  return sharding.verifyFor(cast<RankedTensorType>(global), mesh,
                            "[plan_ir_c6] sharding",
                            [&] { return op->emitOpError(); });
}

LogicalResult References::verifyTable(Operation *op) {
  if (auto group = dyn_cast<GroupOp>(op)) {
    mlir::dshard::MeshAttr mesh = mlir::dshard::getMesh(module);
    if (!mesh)
      return op->emitOpError("[plan_ir_c6] is in a module without dshard.mesh");
    SmallVector<mlir::dshard::AxisRefAttr> axes(
        group.getAxes().getAsRange<mlir::dshard::AxisRefAttr>());
    return mlir::dshard::verifyAxes(axes, mesh, "[plan_ir_c6] group",
                                    [&] { return op->emitOpError(); });
  }
  if (auto source = dyn_cast<SourceOp>(op))
    return declared(op, "file", source.getFile());
  if (auto kernel = dyn_cast<KernelOp>(op))
    return failure(
        failed(declared(op, "image", kernel.getImage())) ||
        failed(isSize(op, "entry", kernel.getEntry())) ||
        failed(isSize(op, "extent", kernel.getExtent())) ||
        failed(isSize(op, "grain", kernel.getGrain())) ||
        failed(isSize(op, "buffers", kernel.getBuffers())) ||
        failed(isSize(op, "grid", kernel.getGrid().value_or(0))) ||
        failed(isSize(op, "block", kernel.getBlock().value_or(0))) ||
        failed(isSize(op, "shared", kernel.getShared().value_or(0))));
  if (auto scalar = dyn_cast<ScalarOp>(op)) {
    Type type = scalar.getType();
    if (type.isF32() || type.isF64() || type.isInteger(32) ||
        type.isInteger(64))
      return success();
    return op->emitOpError("[plan_ir_c2] has type ")
           << type << ", expected i32, i64, f32 or f64";
  }
  if (auto state = dyn_cast<StateOp>(op))
    return failure(
        failed(isTensor(op, state.getGlobal())) ||
        failed(isTensor(op, state.getLocal())) ||
        failed(fits(op, state.getShardingAttr(), state.getGlobal())) ||
        failed(isSize(op, "size", state.getSize())));
  return success();
}

LogicalResult References::verifyInProgram(Operation *op) {
  if (auto buffer = dyn_cast<BufferOp>(op)) {
    ++buffers.back();
    if (auto state = buffer.getState();
        state && failed(declared(op, "state", *state)))
      return failure();
    if (auto scalar = buffer.getScalar();
        scalar && failed(declared(op, "scalar", *scalar)))
      return failure();
    int64_t copies = buffer.getCopies().value_or(1);
    if (copies < 1 || copies > 1 << 20)
      return op->emitOpError("[plan_ir_c3] has ")
             << copies << " copies, expected 1 to " << (1 << 20);
    return failure(failed(isTensor(op, buffer.getType())) ||
                   failed(isSize(op, "offset", buffer.getOffset())) ||
                   failed(isSize(op, "size", buffer.getSize())));
  }
  if (auto repeat = dyn_cast<RepeatOp>(op))
    return isNumber(op, repeat.getCount());
  if (auto branch = dyn_cast<IfOp>(op))
    return isNumber(op, branch.getCondition());
  const InstructionInfo *info = getInstructionInfo(op);
  if (!info)
    return success();
  for (auto [number, value] :
       llvm::enumerate(op->getAttrOfType<ArrayAttr>("values"))) {
    StringRef first = info->values.front().name;
    bool isIndex =
        number == 0 && llvm::is_contained({"group", "kernel", "source"}, first);
    if (failed(isNumber(op, value, isIndex ? first : "")))
      return failure();
  }
  return success();
}

LogicalResult References::verifyEntry(EntryOp entry) {
  // plan_ir_c7
  int64_t stages = entry.getStages().value_or(1);
  int64_t microBatches = entry.getMicroBatches().value_or(1);
  if (stages < 1 || microBatches < 1 || microBatches > 1 << 20)
    return entry.emitOpError("[plan_ir_c7] has ")
           << stages << " stages and " << microBatches
           << " micro-batches, expected at least one and at most " << (1 << 20);
  mlir::dshard::MeshAttr mesh = mlir::dshard::getMesh(entry);
  int64_t pp = mesh ? mesh.getAxisSize("pp") : 1;
  if (entry.getStages() && stages != pp)
    return entry.emitOpError("[plan_ir_c7] has ")
           << stages << " stages, the mesh has pp=" << pp;
  for (int64_t stage = 0; stage < stages; ++stage)
    if (failed(declared(entry, "program", entry.getProgram() + stage)))
      return failure();
  for (Operation &op : entry.getPorts().front()) {
    auto check = [&](auto port) -> LogicalResult {
      return failure(
          failed(isTensor(port, port.getGlobal())) ||
          failed(isTensor(port, port.getLocal())) ||
          failed(fits(port, port.getShardingAttr(), port.getGlobal())) ||
          failed(inRange(port, "stage", port.getStage().value_or(0), stages)) ||
          failed(inRange(
              port, "buffer", port.getBuffer(),
              buffers[entry.getProgram() + port.getStage().value_or(0)])) ||
          (port.getRange() && port.getRange()->size() != 2 &&
           port.getRange()->size() != 3 &&
           failed(port->emitOpError("[plan_ir_c4] has a range of ")
                  << port.getRange()->size() << " numbers, expected 2 or 3")));
    };
    LogicalResult result = isa<InputOp>(op) ? check(cast<InputOp>(op))
                           : isa<OutputOp>(op)
                               ? check(cast<OutputOp>(op))
                               : op.emitOpError("[plan_ir_c5] is no port");
    if (failed(result))
      return failure();
  }
  return success();
}

LogicalResult References::verify() {
  // Tables come first in the file, wherever they stand.
  for (Operation &op : *module.getBody()) {
    if (!isa<PlanDialect>(op.getDialect()))
      return op.emitOpError("[plan_ir_c5] is no part of a plan");
    if (failed(verifyTable(&op)))
      return failure();
    ++counts[op.getName().stripDialect()];
  }
  counts["program"] = 0;
  for (auto program : module.getOps<ProgramOp>()) {
    ++counts["program"];
    buffers.push_back(0);
    if (failed(isSize(program, "stage", program.getStage())) ||
        failed(isSize(program, "arena", program.getArenaSize())) ||
        failed(isSize(program, "scratch", program.getThreadScratch())))
      return failure();
    if (program.getStage() > std::numeric_limits<int32_t>::max())
      return program.emitOpError("[plan_ir_c3] has stage ")
             << program.getStage() << ", which is too large";
    WalkResult result = program.walk<WalkOrder::PreOrder>([&](Operation *op) {
      return failed(verifyInProgram(op)) ? WalkResult::interrupt()
                                         : WalkResult::advance();
    });
    if (result.wasInterrupted())
      return failure();
  }
  for (auto entry : module.getOps<EntryOp>())
    if (failed(verifyEntry(entry)))
      return failure();
  return success();
}

LogicalResult mlir::plan::verifyReferences(ModuleOp module) {
  return References(module).verify();
}
