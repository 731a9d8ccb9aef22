//===- EmitPlan.cpp - Plan IR to a file -----------------------------------===//

#include "PlanContext.h"
#include "dshard/Conversion/DShardToPlan/DShardToPlan.h"
#include "dshard/Plan/PlanBuilder.h"
#include "dshard/Plan/PlanReader.h"
#include "dshard/Plan/PlanVerifier.h"
#include "dshard/Support/File.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"

#include <cstring>

using namespace mlir;
using namespace mlir::dshard;
namespace fb = ::dshard::plan;

static fb::DataType dataTypeOf(Type type) {
  if (type.isF32())
    return fb::DataType::f32;
  if (type.isF64())
    return fb::DataType::f64;
  if (type.isBF16())
    return fb::DataType::bf16;
  if (type.isF16())
    return fb::DataType::f16;
  bool isUnsigned = type.isUnsignedInteger();
  if (auto integer = dyn_cast<IntegerType>(type))
    switch (integer.getWidth()) {
    case 1:
      return fb::DataType::boolean;
    case 8:
      return isUnsigned ? fb::DataType::u8 : fb::DataType::i8;
    case 16:
      return isUnsigned ? fb::DataType::u16 : fb::DataType::i16;
    case 32:
      return isUnsigned ? fb::DataType::u32 : fb::DataType::i32;
    case 64:
      return isUnsigned ? fb::DataType::u64 : fb::DataType::i64;
    default:
      break;
    }
  return fb::DataType::none;
}

static std::string_view view(StringRef text) {
  return std::string_view(text.data(), text.size());
}

namespace {
class Emitter {
public:
  Emitter(ModuleOp module, const EmitOptions &options)
      : module(module), options(options) {}
  LogicalResult run();
  fb::Builder builder;

private:
  LogicalResult emitTables();
  LogicalResult emitProgram(plan::ProgramOp op);
  LogicalResult emitBlock(Block &block, uint32_t into);
  LogicalResult emitEntry(plan::EntryOp op);
  LogicalResult emitProvenance();
  fb::PortSpec port(Operation *op);

  fb::AxisRef axisOf(AxisRefAttr axis);
  std::vector<fb::AxisRef> axesOf(ArrayRef<AxisRefAttr> axes);
  std::vector<std::vector<fb::AxisRef>> shardingOf(ShardingAttr sharding);
  fb::Value valueOf(Attribute attribute, bool isGroup);
  std::vector<int64_t> dimsOf(Type type) {
    return cast<RankedTensorType>(type).getShape().vec();
  }
  fb::DataType dtypeOf(Type type) {
    return dataTypeOf(cast<RankedTensorType>(type).getElementType());
  }

  ModuleOp module;
  const EmitOptions &options;
  MeshAttr mesh;
  // Index in the IR -> index in the plan.
  std::vector<uint32_t> groups, tables, files, sources, states, images, kernels;
  std::vector<std::string> portNames;
  std::unique_ptr<fb::ProgramAssembler> assembler;
  DenseMap<Value, uint32_t> buffers;
  uint32_t programs = 0;
};
} // namespace

fb::AxisRef Emitter::axisOf(AxisRefAttr axis) {
  uint32_t index = 0;
  for (MeshAxisAttr candidate : mesh.getAxes()) {
    if (candidate.getName() == axis.getName())
      break;
    ++index;
  }
  return axis.isWhole()
             ? builder.wholeAxis(index)
             : fb::AxisRef(index, static_cast<uint32_t>(axis.getPre()),
                           static_cast<uint32_t>(axis.getSize()));
}

std::vector<fb::AxisRef> Emitter::axesOf(ArrayRef<AxisRefAttr> axes) {
  std::vector<fb::AxisRef> result;
  for (AxisRefAttr axis : axes)
    if (mesh.getSize(axis) > 1)
      result.push_back(axisOf(axis));
  return result;
}

std::vector<std::vector<fb::AxisRef>>
Emitter::shardingOf(ShardingAttr sharding) {
  std::vector<std::vector<fb::AxisRef>> dims;
  if (sharding)
    for (DimShardingAttr dim : sharding.getDims())
      dims.push_back(axesOf(dim.getAxes()));
  return dims;
}

fb::Value Emitter::valueOf(Attribute attribute, bool isGroup) {
  if (auto real = dyn_cast<FloatAttr>(attribute))
    return fb::literalBits(real.getValueAsDouble());
  if (auto table = dyn_cast<plan::TableRefAttr>(attribute))
    return fb::tableValue(tables[table.getIndex()]);
  if (auto scalar = dyn_cast<plan::ScalarRefAttr>(attribute))
    return fb::scalarValue(scalar.getIndex());
  if (auto loop = dyn_cast<plan::LoopIndexAttr>(attribute))
    return fb::loopIndex(loop.getIndex());
  int64_t number = cast<IntegerAttr>(attribute).getInt();
  return fb::literal(isGroup ? groups[number] : number);
}

LogicalResult Emitter::emitTables() {
  if (mesh)
    for (MeshAxisAttr axis : mesh.getAxes())
      builder.addAxis(view(axis.getName().getValue()),
                      static_cast<uint32_t>(axis.getSize()));
  for (Operation &op : *module.getBody()) {
    if (auto group = dyn_cast<plan::GroupOp>(op)) {
      SmallVector<AxisRefAttr> axes(group.getAxes().getAsRange<AxisRefAttr>());
      groups.push_back(builder.addGroup(axesOf(axes)));
    } else if (auto table = dyn_cast<plan::TableOp>(op)) {
      std::vector<uint32_t> axes(table.getAxes().begin(),
                                 table.getAxes().end());
      tables.push_back(builder.addTable(axes, table.getValues().vec()));
    } else if (auto file = dyn_cast<plan::FileOp>(op)) {
      files.push_back(builder.addFile(
          view(file.getPath()), file.getSizeAttr().getValue().getZExtValue()));
    } else if (auto source = dyn_cast<plan::SourceOp>(op)) {
      WeightAttr weight = source.getWeight();
      fb::WeightSourceT entry;
      entry.name = builder.intern(view(weight.getName().getValue()));
      entry.file = files[source.getFile()];
      entry.offset = weight.getOffset();
      entry.length = weight.getLength();
      entry.stored = fb::Builder::tensorType(dtypeOf(weight.getType()),
                                             dimsOf(weight.getType()));
      entry.transposed = weight.getTransposed();
      entry.has_identity = weight.getHasIdentity();
      entry.identity = weight.getIdentity();
      entry.fan_in = weight.getFanIn();
      sources.push_back(builder.addSource(std::move(entry)));
    } else if (auto state = dyn_cast<plan::StateOp>(op)) {
      fb::StateRole role =
          llvm::StringSwitch<fb::StateRole>(state.getRole())
              .Case("gradient", fb::StateRole::gradient)
              .Case("optimizer_state", fb::StateRole::optimizer_state)
              .Case("cache", fb::StateRole::cache)
              .Case("buffer", fb::StateRole::buffer)
              .Default(fb::StateRole::parameter);
      fb::InitializerKind initializer =
          llvm::StringSwitch<fb::InitializerKind>(state.getInitializer())
              .Case("load", fb::InitializerKind::load)
              .Case("zero", fb::InitializerKind::zero)
              .Default(fb::InitializerKind::none);
      uint32_t index = builder.addState(
          view(state.getName()), role, initializer, dtypeOf(state.getGlobal()),
          dimsOf(state.getGlobal()), dimsOf(state.getLocal()),
          shardingOf(state.getShardingAttr()),
          state.getPacked() ? fb::StateLayout::packed : fb::StateLayout::plain,
          state.getSize(), static_cast<int32_t>(state.getStage().value_or(-1)));
      if (builder.plan.states[index]->offset !=
          static_cast<uint64_t>(state.getOffset()))
        return state.emitOpError("has offset ")
               << state.getOffset() << ", expected "
               << builder.plan.states[index]->offset;
      builder.plan.states[index]->written = state.getWritten();
      states.push_back(index);
    } else if (auto scalar = dyn_cast<plan::ScalarOp>(op)) {
      builder.addScalar(view(scalar.getName()), dataTypeOf(scalar.getType()),
                        scalar.getInitial().convertToDouble());
    } else if (auto image = dyn_cast<plan::ImageOp>(op)) {
      images.push_back(builder.addImage(
          image.getPtx() ? fb::ImageKind::ptx : fb::ImageKind::elf,
          image.getBytes().data(), image.getBytes().size()));
    } else if (auto kernel = dyn_cast<plan::KernelOp>(op)) {
      kernels.push_back(
          kernel.getGrid()
              ? builder.addGpuKernel(
                    view(kernel.getName()), images[kernel.getImage()],
                    static_cast<uint32_t>(*kernel.getGrid()),
                    static_cast<uint32_t>(kernel.getBlock().value_or(1)),
                    static_cast<uint32_t>(kernel.getShared().value_or(0)),
                    static_cast<uint32_t>(kernel.getBuffers()))
              : builder.addKernel(view(kernel.getName()),
                                  images[kernel.getImage()], kernel.getEntry(),
                                  kernel.getExtent(), kernel.getGrain(),
                                  static_cast<uint32_t>(kernel.getBuffers())));
    }
  }
  return success();
}

LogicalResult Emitter::emitBlock(Block &block, uint32_t into) {
  for (Operation &op : block) {
    if (auto buffer = dyn_cast<plan::BufferOp>(op)) {
      fb::BufferSpec spec;
      spec.name = view(buffer.getName());
      spec.dtype = dtypeOf(buffer.getType());
      spec.dims = dimsOf(buffer.getType());
      spec.offset = buffer.getOffset();
      spec.size = buffer.getSize();
      spec.slots = static_cast<uint32_t>(buffer.getCopies().value_or(1));
      buffers[buffer] =
          buffer.getScalar() ? assembler->addScalarBuffer(
                                   static_cast<uint32_t>(*buffer.getScalar()))
          : buffer.getBase()
              ? assembler->addView(buffers.lookup(buffer.getBase()), spec)
          : buffer.getState()
              ? assembler->addStateBuffer(states[*buffer.getState()], spec)
              : assembler->addBuffer(spec);
      continue;
    }
    fb::InstructionOrigin origin;
    auto text = [&](StringRef name) {
      auto attribute = op.getAttrOfType<StringAttr>(name);
      return attribute ? view(attribute.getValue()) : std::string_view();
    };
    origin.path = text("path");
    origin.node = text("node");
    origin.why = text("why");
    if (auto part = op.getAttrOfType<PartAttr>("part"))
      origin.part = static_cast<fb::Part>(part.getValue());
    if (auto stream = op.getAttrOfType<IntegerAttr>("stream"))
      origin.stream = static_cast<uint16_t>(stream.getInt());
    auto child = [&](Region &region, uint32_t &index) {
      index = assembler->addBlock();
      return emitBlock(region.front(), index);
    };
    uint32_t first, second;
    if (auto repeat = dyn_cast<plan::RepeatOp>(op)) {
      if (failed(child(repeat.getBody(), first)))
        return failure();
      assembler->repeat(into, first, valueOf(repeat.getCount(), false), origin);
      continue;
    }
    if (auto call = dyn_cast<plan::CallOp>(op)) {
      if (failed(child(call.getBody(), first)))
        return failure();
      assembler->call(into, fb::literal(first), origin);
      continue;
    }
    if (auto branch = dyn_cast<plan::IfOp>(op)) {
      if (failed(child(branch.getThenBody(), first)) ||
          failed(child(branch.getElseBody(), second)))
        return failure();
      assembler->branch(into, valueOf(branch.getCondition(), false), first,
                        second, origin);
      continue;
    }
    const fb::InstructionInfo *info = plan::getInstructionInfo(&op);
    if (!info)
      return op.emitOpError("cannot be part of a program");
    std::vector<fb::BufferUse> uses;
    unsigned operand = 0;
    auto segments = op.getAttrOfType<DenseI32ArrayAttr>("segments");
    for (auto [use, count] :
         llvm::zip_equal(info->uses, segments.asArrayRef())) {
      if (count == 0)
        uses.push_back(fb::absent());
      for (int32_t i = 0; i < count; ++i) {
        uint32_t buffer = buffers.lookup(op.getOperand(operand++));
        uint32_t slots =
            builder.plan.programs[assembler->index()]->buffers[buffer].slots();
        fb::Value slot = slots > 1 ? fb::microBatch() : fb::literal(0);
        uses.push_back(use.written ? fb::write(buffer, slot)
                                   : fb::read(buffer, slot));
      }
    }
    // A repeated use without buffers is nothing, not an absent one.
    if (info->kind == fb::InstructionKind::LAUNCH && segments[0] == 0)
      uses.erase(uses.begin());
    std::vector<fb::Value> values;
    for (auto [number, value] :
         llvm::enumerate(op.getAttrOfType<ArrayAttr>("values")))
      values.push_back(valueOf(value, info->isCollective() && number == 0));
    if (info->kind == fb::InstructionKind::LAUNCH)
      values[0] = fb::literal(kernels[values[0].value()]);
    if (info->kind == fb::InstructionKind::LOAD_SLICE)
      values[0] = fb::literal(sources[values[0].value()]);
    assembler->append(into, info->kind, uses, values, origin);
  }
  return success();
}

LogicalResult Emitter::emitProgram(plan::ProgramOp op) {
  assembler = std::make_unique<fb::ProgramAssembler>(
      builder.beginProgram(view(op.getName()), op.getStage()));
  if (op.getName() == "load")
    builder.plan.load = assembler->index();
  if (failed(emitBlock(op.getBody().front(), 0)))
    return failure();
  if (op.getThreadScratch())
    assembler->needThreadScratch(op.getThreadScratch());
  assembler->finish();
  uint64_t arena = builder.plan.programs[assembler->index()]->arena_size;
  if (arena > static_cast<uint64_t>(op.getArenaSize()))
    return op.emitOpError("has an arena of ")
           << op.getArenaSize() << " bytes, its buffers need " << arena;
  builder.plan.programs[assembler->index()]->arena_size = op.getArenaSize();
  ++programs;
  return success();
}

template <typename Port> static void fillPort(Port port, fb::PortSpec &spec) {
  spec.name = view(port.getName());
  spec.program = static_cast<uint32_t>(
      port->template getParentOfType<plan::EntryOp>().getProgram() +
      port.getStage().value_or(0));
  spec.buffer = static_cast<uint32_t>(port.getBuffer());
  auto global = cast<RankedTensorType>(port.getGlobal());
  spec.dtype = dataTypeOf(global.getElementType());
  spec.global = global.getShape().vec();
  spec.local = cast<RankedTensorType>(port.getLocal()).getShape().vec();
  if (ArrayAttr names = port.getDimNamesAttr())
    for (auto name : names.template getAsRange<StringAttr>())
      spec.dimNames.push_back(name.str());
  if (auto range = port.getRange())
    spec.range = range->vec();
  if (ArrayAttr names = port.getFiniteAttr())
    for (auto name : names.template getAsRange<StringAttr>())
      spec.finite.push_back(name.str());
  if (auto layout = port.getLayout()) {
    spec.layout = static_cast<fb::SequenceLayout>(*layout);
    spec.layoutDim = static_cast<int>(port.getLayoutDim().value_or(-1));
    spec.layoutParts = static_cast<uint32_t>(port.getLayoutParts().value_or(0));
  }
}

LogicalResult Emitter::emitEntry(plan::EntryOp op) {
  auto program = static_cast<uint32_t>(op.getProgram());
  std::vector<uint32_t> programs;
  for (uint64_t stage = 0; stage < op.getStages().value_or(1); ++stage)
    programs.push_back(program + static_cast<uint32_t>(stage));
  uint32_t entry =
      op.getStages()
          ? builder.addPipeline(
                view(op.getName()), programs,
                static_cast<uint32_t>(op.getMicroBatches().value_or(1)))
          : builder.addEntry(view(op.getName()), program);
  for (Operation &child : op.getPorts().front()) {
    fb::PortSpec spec;
    if (auto input = dyn_cast<plan::InputOp>(child)) {
      fillPort(input, spec);
      spec.sharding = shardingOf(input.getShardingAttr());
      builder.addInput(entry, spec);
    } else if (auto output = dyn_cast<plan::OutputOp>(child)) {
      fillPort(output, spec);
      spec.sharding = shardingOf(output.getShardingAttr());
      builder.addOutput(entry, spec);
    }
  }
  return success();
}

LogicalResult Emitter::emitProvenance() {
  auto provenance = std::make_unique<fb::ProvenanceT>();
  provenance->compiler = "dshard 0.1.0";
  provenance->options = options.commandLine;
  // The module knows its model, also when it comes from --from.
  std::string model = options.model;
  if (auto path = module->getAttrOfType<StringAttr>(modelAttrName))
    model = path.str();
  SmallString<256> full(model);
  if (llvm::sys::fs::make_absolute(full))
    full = model;
  llvm::sys::path::remove_dots(full, /*remove_dot_dot=*/true);
  provenance->model = llvm::sys::path::filename(full).str();
  provenance->model_folder = llvm::sys::path::parent_path(full).str();
  if (auto file = llvm::MemoryBuffer::getFile(full, /*IsText=*/false,
                                              /*RequiresNullTerminator=*/false))
    provenance->model_hash =
        fb::weightHash((*file)->getBufferStart(), (*file)->getBufferSize()).low;
  builder.plan.provenance = std::move(provenance);
  if (auto target = module->getAttrOfType<StringAttr>("plan.target"))
    builder.plan.target = target.str();
  builder.alignment = fb::bufferAlignmentOf(builder.plan.target);
  if (auto features = module->getAttrOfType<ArrayAttr>("plan.features"))
    for (auto feature : features.getAsRange<StringAttr>())
      builder.plan.features.push_back(feature.str());
  return success();
}

LogicalResult Emitter::run() {
  mesh = getMesh(module);
  if (failed(emitProvenance()) || failed(emitTables()))
    return failure();
  for (auto program : module.getOps<plan::ProgramOp>())
    if (failed(emitProgram(program)))
      return failure();
  for (auto entry : module.getOps<plan::EntryOp>())
    if (failed(emitEntry(entry)))
      return failure();
  if (!programs || builder.plan.entries.empty())
    return module.emitError("has no program and entry of the plan dialect");
  return success();
}

LogicalResult mlir::dshard::emitPlan(ModuleOp module, StringRef path,
                                     const EmitOptions &options) {
  if (failed(plan::verifyReferences(module)))
    return failure();
  Emitter emitter(module, options);
  if (failed(emitter.run()))
    return failure();
  std::vector<uint8_t> bytes = emitter.builder.finish();
  auto reader = fb::Reader::fromBytes(bytes, path.str());
  if (!reader)
    return module.emitError("the plan is not well formed: ")
           << reader.status().message();
  if (::dshard::Status status = fb::verifyPlan((*reader)->plan()); !status)
    return module.emitError("the plan does not verify: ") << status.message();
  ::dshard::Status written =
      ::dshard::writeFile(path.str(), bytes.data(), bytes.size());
  if (!written)
    return emitError(UnknownLoc::get(module.getContext())) << written.message();
  return success();
}
