#include "dshard/Plan/PlanBuilder.h"

#include "dshard/Support/File.h"

#include <algorithm>
#include <cstring>

namespace dshard::plan {

//===----------------------------------------------------------------------===//
// Tables of the plan
//===----------------------------------------------------------------------===//

Builder::Builder() {
  plan.version = formatVersion;
  plan.provenance = std::make_unique<ProvenanceT>();
  intern("");
}

uint32_t Builder::intern(std::string_view text) {
  auto [entry, isNew] = strings.try_emplace(
      std::string(text), static_cast<uint32_t>(plan.strings.size()));
  if (isNew)
    plan.strings.emplace_back(text);
  return entry->second;
}

uint32_t Builder::addAxis(std::string_view name, uint32_t size) {
  plan.mesh.emplace_back(intern(name), size);
  return static_cast<uint32_t>(plan.mesh.size() - 1);
}

AxisRef Builder::wholeAxis(uint32_t axis) const {
  return AxisRef(axis, 1, plan.mesh[axis].size());
}

/// The bytes of a trivially copyable vector, as a key.
template <typename T> static std::string keyOf(const std::vector<T> &items) {
  return std::string(reinterpret_cast<const char *>(items.data()),
                     items.size() * sizeof(T));
}

uint32_t Builder::addGroup(const std::vector<AxisRef> &axes) {
  auto [entry, isNew] = groups.try_emplace(
      keyOf(axes), static_cast<uint32_t>(plan.groups.size()));
  if (isNew) {
    auto group = std::make_unique<GroupT>();
    group->axes = axes;
    plan.groups.push_back(std::move(group));
  }
  return entry->second;
}

uint32_t Builder::addTable(const std::vector<uint32_t> &axes,
                           const std::vector<int64_t> &values) {
  std::string key =
      std::to_string(axes.size()) + ":" + keyOf(axes) + keyOf(values);
  auto [entry, isNew] = tables.try_emplace(
      std::move(key), static_cast<uint32_t>(plan.tables.size()));
  if (isNew) {
    auto table = std::make_unique<RankTableT>();
    table->axes = axes;
    table->values = values;
    plan.tables.push_back(std::move(table));
  }
  return entry->second;
}

Value Builder::rankValue(const std::vector<uint32_t> &axes,
                         const std::vector<int64_t> &values) {
  bool same = !values.empty() &&
              std::all_of(values.begin(), values.end(),
                          [&](int64_t value) { return value == values[0]; });
  return same ? literal(values[0]) : tableValue(addTable(axes, values));
}

uint32_t Builder::addScalar(std::string_view name, DataType dtype,
                            double initial) {
  plan.scalars.emplace_back(intern(name), dtype, initial);
  return static_cast<uint32_t>(plan.scalars.size() - 1);
}

uint32_t Builder::addFile(std::string_view path, uint64_t size) {
  auto [entry, isNew] = files.try_emplace(
      std::string(path), static_cast<uint32_t>(plan.files.size()));
  if (isNew) {
    auto file = std::make_unique<WeightFileT>();
    file->path = intern(path);
    file->size = size;
    plan.files.push_back(std::move(file));
  }
  return entry->second;
}

uint32_t Builder::addSource(WeightSourceT source) {
  if (!source.stored)
    source.stored = std::make_unique<TensorTypeT>();
  plan.sources.push_back(std::make_unique<WeightSourceT>(std::move(source)));
  return static_cast<uint32_t>(plan.sources.size() - 1);
}

std::unique_ptr<TensorTypeT>
Builder::tensorType(DataType dtype, const std::vector<int64_t> &dims) {
  auto type = std::make_unique<TensorTypeT>();
  type->dtype = dtype;
  type->dims = dims;
  return type;
}

std::unique_ptr<ShardingT>
Builder::sharding(const std::vector<std::vector<AxisRef>> &dims) {
  auto result = std::make_unique<ShardingT>();
  for (const std::vector<AxisRef> &axes : dims) {
    auto dim = std::make_unique<DimShardingT>();
    dim->axes = axes;
    result->dims.push_back(std::move(dim));
  }
  return result;
}

uint32_t Builder::addState(std::string_view name, StateRole role,
                           InitializerKind initializer, DataType dtype,
                           const std::vector<int64_t> &global,
                           const std::vector<int64_t> &local,
                           const std::vector<std::vector<AxisRef>> &shards,
                           StateLayout layout, uint64_t size, int32_t stage) {
  auto state = std::make_unique<StateT>();
  state->name = intern(name);
  state->role = role;
  state->layout = layout;
  state->initializer = initializer;
  state->global = tensorType(dtype, global);
  state->local = tensorType(dtype, local);
  state->sharding = sharding(shards);
  state->stage = stage;
  uint64_t end = 0;
  for (const auto &other : plan.states)
    if (stage < 0 || other->stage < 0 || other->stage == stage)
      end = std::max(end, other->offset + other->size);
  state->offset = alignTo(end, alignment);
  state->size =
      size ? size
           : static_cast<uint64_t>(elementCount(local)) * byteSize(dtype);
  plan.state_size = std::max<uint64_t>(
      plan.state_size, alignTo(state->offset + state->size, alignment));
  plan.states.push_back(std::move(state));
  return static_cast<uint32_t>(plan.states.size() - 1);
}

//===----------------------------------------------------------------------===//
// Entries, code
//===----------------------------------------------------------------------===//

uint32_t Builder::addEntry(std::string_view name, uint32_t program) {
  auto entry = std::make_unique<EntryT>();
  entry->name = intern(name);
  entry->programs = {program};
  entry->micro_batches = 1;
  uint32_t coordinates = 1;
  for (const Axis &axis : plan.mesh)
    if (plan.strings[axis.name()] == "pp")
      coordinates = axis.size();
  for (uint32_t i = 0; i < coordinates; ++i) {
    auto list = std::make_unique<ActionListT>();
    list->actions.emplace_back(0, ActionKind::forward, 0);
    entry->actions.push_back(std::move(list));
  }
  plan.entries.push_back(std::move(entry));
  return static_cast<uint32_t>(plan.entries.size() - 1);
}

uint32_t Builder::addPipeline(std::string_view name,
                              const std::vector<uint32_t> &programs,
                              uint32_t microBatches) {
  auto entry = std::make_unique<EntryT>();
  entry->name = intern(name);
  entry->programs = programs;
  entry->micro_batches = microBatches;
  for (uint32_t stage = 0; stage < programs.size(); ++stage) {
    auto list = std::make_unique<ActionListT>();
    for (uint32_t i = 0; i < microBatches; ++i)
      list->actions.emplace_back(stage, ActionKind::forward, i);
    entry->actions.push_back(std::move(list));
  }
  plan.entries.push_back(std::move(entry));
  return static_cast<uint32_t>(plan.entries.size() - 1);
}

static std::unique_ptr<PortT> makePort(Builder &builder, const PortSpec &spec) {
  auto port = std::make_unique<PortT>();
  port->name = builder.intern(spec.name);
  port->program = spec.program;
  port->buffer = spec.buffer;
  port->global = Builder::tensorType(spec.dtype, spec.global);
  port->local = Builder::tensorType(spec.dtype, spec.local);
  port->sharding = Builder::sharding(spec.sharding);
  for (const std::string &name : spec.dimNames)
    port->dim_names.push_back(builder.intern(name));
  if (spec.range.size() >= 2) {
    port->has_range = true;
    port->range_min = spec.range[0];
    port->range_max = spec.range[1];
    port->has_extra = spec.range.size() > 2;
    port->extra = port->has_extra ? spec.range[2] : 0;
  }
  for (const std::string &name : spec.finite)
    port->finite.push_back(builder.intern(name));
  port->layout = spec.layout;
  port->layout_dim = spec.layoutDim;
  port->layout_parts = spec.layoutParts;
  return port;
}

uint32_t Builder::addInput(uint32_t entry, const PortSpec &port) {
  auto &inputs = plan.entries[entry]->inputs;
  inputs.push_back(makePort(*this, port));
  return static_cast<uint32_t>(inputs.size() - 1);
}

uint32_t Builder::addOutput(uint32_t entry, const PortSpec &port) {
  auto &outputs = plan.entries[entry]->outputs;
  outputs.push_back(makePort(*this, port));
  return static_cast<uint32_t>(outputs.size() - 1);
}

uint64_t Builder::addSection(const void *data, uint64_t size) {
  uint64_t offset = alignTo(sections.size(), pageSize);
  sections.resize(offset);
  const uint8_t *bytes = static_cast<const uint8_t *>(data);
  sections.insert(sections.end(), bytes, bytes + size);
  return offset;
}

uint32_t Builder::addImage(ImageKind kind, const void *data, uint64_t size) {
  auto image = std::make_unique<ImageT>();
  image->kind = kind;
  image->offset = addSection(data, size);
  image->size = size;
  plan.images.push_back(std::move(image));
  return static_cast<uint32_t>(plan.images.size() - 1);
}

uint32_t Builder::addKernel(std::string_view name, uint32_t image,
                            uint64_t entry, int64_t extent, int64_t grain,
                            uint32_t buffers) {
  plan.kernels.emplace_back(intern(name), image, entry, extent, grain, buffers,
                            0, 0, 0);
  return static_cast<uint32_t>(plan.kernels.size() - 1);
}

uint32_t Builder::addGpuKernel(std::string_view name, uint32_t image,
                               uint32_t grid, uint32_t block, uint32_t shared,
                               uint32_t buffers) {
  plan.kernels.emplace_back(intern(name), image, 0, 0, 0, buffers, grid, block,
                            shared);
  return static_cast<uint32_t>(plan.kernels.size() - 1);
}

//===----------------------------------------------------------------------===//
// Programs
//===----------------------------------------------------------------------===//

ProgramAssembler Builder::beginProgram(std::string_view name, uint32_t stage) {
  auto program = std::make_unique<ProgramT>();
  program->name = intern(name);
  program->stage = stage;
  program->streams = 1;
  plan.programs.push_back(std::move(program));
  return ProgramAssembler(*this,
                          static_cast<uint32_t>(plan.programs.size() - 1));
}

ProgramAssembler::ProgramAssembler(Builder &builder, uint32_t index)
    : builder(builder), programIndex(index), blocks(1) {}

ProgramT &ProgramAssembler::program() {
  return *builder.plan.programs[programIndex];
}

/// Fills what a BufferSpec leaves open and appends the buffer.
static uint32_t append(ProgramT &program, uint32_t name, Space space,
                       uint32_t state, const BufferSpec &spec, uint32_t base,
                       uint64_t alignment) {
  uint64_t size = spec.size ? spec.size
                            : static_cast<uint64_t>(elementCount(spec.dims)) *
                                  byteSize(spec.dtype);
  uint64_t stride =
      spec.slotStride ? spec.slotStride : alignTo(size, alignment);
  uint32_t dimsBegin = static_cast<uint32_t>(program.dims.size());
  program.dims.insert(program.dims.end(), spec.dims.begin(), spec.dims.end());
  uint32_t index = static_cast<uint32_t>(program.buffers.size());
  program.buffers.emplace_back(name, space, spec.dtype, state, spec.offset,
                               size, spec.slots, stride, dimsBegin,
                               static_cast<uint32_t>(spec.dims.size()), 0, 0,
                               base == absentBuffer ? index : base);
  return index;
}

uint32_t ProgramAssembler::addBuffer(const BufferSpec &spec) {
  ProgramT &target = program();
  uint32_t index = plan::append(target, builder.intern(spec.name), Space::arena,
                                0, spec, absentBuffer, builder.alignment);
  const Buffer &buffer = target.buffers[index];
  target.arena_size = std::max(
      target.arena_size,
      alignTo(buffer.offset() + (buffer.slots() - 1) * buffer.slot_stride() +
                  buffer.size(),
              builder.alignment));
  return index;
}

uint32_t ProgramAssembler::addStateBuffer(uint32_t state, BufferSpec spec) {
  const StateT &target = *builder.plan.states[state];
  uint32_t name = spec.name.empty() ? target.name : builder.intern(spec.name);
  if (spec.size == 0 && spec.dims.empty()) {
    spec.dtype = target.local->dtype;
    spec.dims = target.local->dims;
    spec.size = target.size;
  }
  return plan::append(program(), name, Space::state, state, spec, absentBuffer,
                      builder.alignment);
}

uint32_t ProgramAssembler::addScalarBuffer(uint32_t scalar) {
  const Scalar &target = builder.plan.scalars[scalar];
  BufferSpec spec;
  spec.dtype = target.dtype();
  spec.size = byteSize(target.dtype());
  return plan::append(program(), target.name(), Space::scalar, scalar, spec,
                      absentBuffer, builder.alignment);
}

uint32_t ProgramAssembler::addView(uint32_t base, const BufferSpec &spec) {
  ProgramT &target = program();
  Buffer owner = target.buffers[base];
  BufferSpec view = spec;
  view.offset += owner.offset();
  view.slots = owner.slots();
  view.slotStride = owner.slot_stride();
  return plan::append(target, builder.intern(spec.name), owner.space(),
                      owner.state(), view, owner.base(), builder.alignment);
}

uint32_t ProgramAssembler::addBlock() {
  blocks.emplace_back();
  return static_cast<uint32_t>(blocks.size() - 1);
}

void ProgramAssembler::append(uint32_t block, InstructionKind kind,
                              const std::vector<BufferUse> &uses,
                              const std::vector<Value> &values,
                              const InstructionOrigin &origin) {
  ProgramT &target = program();
  uint32_t usesBegin = static_cast<uint32_t>(target.uses.size());
  uint32_t valuesBegin = static_cast<uint32_t>(target.values.size());
  target.uses.insert(target.uses.end(), uses.begin(), uses.end());
  target.values.insert(target.values.end(), values.begin(), values.end());
  blocks[block].emplace_back(
      static_cast<uint16_t>(kind), origin.stream, origin.part,
      builder.intern(origin.path), builder.intern(origin.node),
      builder.intern(origin.why), usesBegin, static_cast<uint32_t>(uses.size()),
      valuesBegin, static_cast<uint32_t>(values.size()));
  target.streams = std::max<uint32_t>(target.streams, origin.stream + 1u);
  bool isEvent =
      kind == InstructionKind::RECORD || kind == InstructionKind::WAIT;
  if (isEvent && !values.empty() && values[0].kind() == ValueKind::literal)
    target.events = std::max<uint32_t>(
        target.events, static_cast<uint32_t>(values[0].value()) + 1);
}

void ProgramAssembler::call(uint32_t block, Value callee,
                            const InstructionOrigin &origin) {
  append(block, InstructionKind::CALL, {}, {callee}, origin);
}

void ProgramAssembler::repeat(uint32_t block, uint32_t body, Value count,
                              const InstructionOrigin &origin) {
  append(block, InstructionKind::REPEAT, {}, {literal(body), count}, origin);
}

void ProgramAssembler::branch(uint32_t block, Value condition,
                              uint32_t thenBlock, uint32_t elseBlock,
                              const InstructionOrigin &origin) {
  append(block, InstructionKind::IF, {},
         {condition, literal(thenBlock), literal(elseBlock)}, origin);
}

void ProgramAssembler::needThreadScratch(uint64_t bytes) {
  program().thread_scratch = std::max(program().thread_scratch, bytes);
}

void ProgramAssembler::finish() {
  ProgramT &target = program();
  target.blocks.clear();
  target.instructions.clear();
  for (const std::vector<Instruction> &block : blocks) {
    target.blocks.emplace_back(
        static_cast<uint32_t>(target.instructions.size()),
        static_cast<uint32_t>(block.size()));
    target.instructions.insert(target.instructions.end(), block.begin(),
                               block.end());
  }
}

//===----------------------------------------------------------------------===//
// The file
//===----------------------------------------------------------------------===//

std::vector<uint8_t> Builder::finish() {
  computeLiveRanges(plan);
  flatbuffers::FlatBufferBuilder buffer(1 << 20);
  FinishPlanBuffer(buffer, Plan::Pack(buffer, &plan));

  FileHeader header;
  std::memcpy(header.magic, fileMagic, sizeof(fileMagic));
  header.version = formatVersion;
  header.metadataOffset = sizeof(FileHeader);
  header.metadataSize = buffer.GetSize();
  header.sectionsOffset =
      alignTo(header.metadataOffset + header.metadataSize, pageSize);
  header.sectionsSize = sections.size();
  header.fileSize = header.sectionsOffset + header.sectionsSize;
  header.checksum = Hash128();

  std::vector<uint8_t> file(header.fileSize);
  std::memcpy(file.data(), &header, sizeof(header));
  std::memcpy(file.data() + header.metadataOffset, buffer.GetBufferPointer(),
              header.metadataSize);
  if (!sections.empty())
    std::memcpy(file.data() + header.sectionsOffset, sections.data(),
                sections.size());
  header.checksum = computeChecksum(file.data(), file.size());
  std::memcpy(file.data(), &header, sizeof(header));
  return file;
}

Status Builder::finish(const std::string &path) {
  std::vector<uint8_t> file = finish();
  return writeFile(path, file.data(), file.size());
}

} // namespace dshard::plan
