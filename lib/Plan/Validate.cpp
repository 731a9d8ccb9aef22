// Bounds of everything in the metadata. Plan wide here, programs in
// ValidateProgram.cpp.
#include "Validate.h"

#include <set>

namespace dshard::plan {

Status Validator::require(const void *table, const char *what) const {
  return table
             ? Status()
             : Status::error(std::string("metadata: ") + what + " is missing");
}

Status Validator::string(uint32_t index, const std::string &what) const {
  return inside(index, plan.strings()->size(), what + ": string");
}

Status Validator::inside(uint64_t index, uint64_t count,
                         const std::string &what) const {
  if (index < count)
    return Status();
  return Status::error("metadata: " + what + " " + std::to_string(index) +
                       " does not exist, there are " + std::to_string(count));
}

Status Validator::range(uint64_t begin, uint64_t count, uint64_t limit,
                        const std::string &what) const {
  if (begin <= limit && count <= limit - begin)
    return Status();
  return Status::error("metadata: " + what + " is [" + std::to_string(begin) +
                       ", +" + std::to_string(count) + "), beyond " +
                       std::to_string(limit));
}

Status Validator::type(DataType dtype, const std::string &what) const {
  if (dtype > DataType::none && dtype <= DataType::MAX)
    return Status();
  return Status::error("metadata: " + what + " has data type " +
                       std::to_string(static_cast<int>(dtype)) +
                       ", which does not exist");
}

/// Bytes of a tensor; fails on negative dims and beyond 2^62.
Status Validator::bytes(DataType dtype, const int64_t *dims, size_t count,
                        const std::string &what, uint64_t &result) const {
  if (count > static_cast<size_t>(maxDims))
    return Status::error("metadata: " + what + " has " + std::to_string(count) +
                         " dims, at most " + std::to_string(maxDims));
  unsigned __int128 product = byteSize(dtype);
  bool isEmpty = false;
  for (size_t i = 0; i < count; ++i) {
    if (dims[i] < 0)
      return Status::error("metadata: " + what + " has dim " +
                           std::to_string(dims[i]));
    isEmpty |= dims[i] == 0;
    product *= isEmpty ? 1 : static_cast<uint64_t>(dims[i]);
    if (product > (uint64_t{1} << 62))
      return Status::error("metadata: " + what + " has more than 2^62 bytes");
  }
  result = isEmpty ? 0 : static_cast<uint64_t>(product);
  return Status();
}

Status Validator::tensor(const TensorType *tensor,
                         const std::string &what) const {
  if (Status s = require(tensor, (what + ": type").c_str()); !s)
    return s;
  if (Status s = aligned(tensor->dims(), (what + ": dims").c_str()); !s)
    return s;
  if (Status s = type(tensor->dtype(), what); !s)
    return s;
  uint64_t ignored;
  return bytes(tensor->dtype(), tensor->dims()->data(), tensor->dims()->size(),
               what, ignored);
}

Status Validator::axes(const flatbuffers::Vector<const AxisRef *> *refs,
                       const std::string &what) const {
  if (Status s = require(refs, (what + ": axes").c_str()); !s)
    return s;
  for (const AxisRef *ref : *refs) {
    if (Status s = inside(ref->axis(), plan.mesh()->size(), what + ": axis");
        !s)
      return s;
    uint64_t size = plan.mesh()->Get(ref->axis())->size();
    uint64_t taken = uint64_t{ref->pre()} * ref->size();
    if (ref->pre() == 0 || ref->size() == 0 || taken > size ||
        size % taken != 0)
      return Status::error(
          "metadata: " + what + ": sub-axis (" + std::to_string(ref->pre()) +
          ")" + std::to_string(ref->size()) +
          " does not divide an axis of size " + std::to_string(size));
    // Sub-axes of one axis must not share a factor.
    for (const AxisRef *other : *refs)
      if (other != ref && other->axis() == ref->axis() &&
          uint64_t{other->pre()} < taken &&
          uint64_t{ref->pre()} < uint64_t{other->pre()} * other->size())
        return Status::error("metadata: " + what + ": axis " +
                             std::to_string(ref->axis()) + " is used twice");
  }
  return Status();
}

Status Validator::sharding(const Sharding *sharding, const TensorType &tensor,
                           const std::string &what) const {
  if (Status s = require(sharding, (what + ": sharding").c_str()); !s)
    return s;
  if (Status s = require(sharding->dims(), (what + ": sharding").c_str()); !s)
    return s;
  if (sharding->dims()->size() > tensor.dims()->size())
    return Status::error("metadata: " + what + ": sharding has " +
                         std::to_string(sharding->dims()->size()) +
                         " dims, the tensor " +
                         std::to_string(tensor.dims()->size()));
  for (const DimSharding *dim : *sharding->dims())
    if (Status s = axes(dim->axes(), what + ": sharding"); !s)
      return s;
  if (sharding->kind() > ReductionKind::MAX)
    return Status::error("metadata: " + what + ": reduction does not exist");
  return sharding->partial() ? axes(sharding->partial(), what + ": partial")
                             : Status();
}

Status Validator::mesh() {
  uint64_t ranks = 1;
  std::set<uint32_t> names;
  for (const Axis *axis : *plan.mesh()) {
    if (Status s = string(axis->name(), "mesh axis"); !s)
      return s;
    if (axis->name() == 0 || !names.insert(axis->name()).second)
      return Status::error("metadata: mesh axes need different names");
    if (axis->size() == 0 || axis->size() > maxRanks ||
        (ranks *= axis->size()) > maxRanks)
      return Status::error("metadata: mesh has no ranks, or more than " +
                           std::to_string(maxRanks));
  }
  for (uint32_t i = 0; i < plan.groups()->size(); ++i)
    if (Status s =
            axes(plan.groups()->Get(i)->axes(), "group " + std::to_string(i));
        !s)
      return s;
  for (uint32_t i = 0; i < plan.tables()->size(); ++i) {
    const RankTable &table = *plan.tables()->Get(i);
    std::string what = "table " + std::to_string(i);
    if (Status s = require(table.axes(), what.c_str()); !s)
      return s;
    if (Status s = aligned(table.values(), what.c_str()); !s)
      return s;
    uint64_t count = 1;
    std::set<uint32_t> seen;
    for (uint32_t axis : *table.axes()) {
      if (Status s = inside(axis, plan.mesh()->size(), what + ": axis"); !s)
        return s;
      if (!seen.insert(axis).second)
        return Status::error("metadata: " + what + " uses an axis twice");
      count *= plan.mesh()->Get(axis)->size();
    }
    if (count != table.values()->size())
      return Status::error("metadata: " + what + " has " +
                           std::to_string(table.values()->size()) +
                           " values for " + std::to_string(count) +
                           " coordinates");
  }
  return Status();
}

Status Validator::weights() {
  for (const WeightFile *file : *plan.files())
    if (Status s = string(file->path(), "weight file"); !s)
      return s;
  for (uint32_t i = 0; i < plan.sources()->size(); ++i) {
    const WeightSource &source = *plan.sources()->Get(i);
    std::string what = "weight source " + std::to_string(i);
    if (Status s = string(source.name(), what); !s)
      return s;
    if (Status s = inside(source.file(), plan.files()->size(), what + ": file");
        !s)
      return s;
    if (Status s = tensor(source.stored(), what); !s)
      return s;
    uint64_t size = 0;
    (void)bytes(source.stored()->dtype(), source.stored()->dims()->data(),
                source.stored()->dims()->size(), what, size);
    if (size != source.length())
      return Status::error("metadata: " + what + " has " +
                           std::to_string(source.length()) +
                           " bytes, its type has " + std::to_string(size));
    uint64_t fileSize = plan.files()->Get(source.file())->size();
    if (Status s = range(source.offset(), source.length(), fileSize,
                         what + ": byte range");
        source.has_identity() && !s)
      return s;
  }
  return Status();
}

Status Validator::states() {
  if (plan.state_size() > maxRegion)
    return Status::error("metadata: states have " +
                         std::to_string(plan.state_size()) +
                         " bytes, at most " + std::to_string(maxRegion));
  for (uint32_t i = 0; i < plan.states()->size(); ++i) {
    const State &state = *plan.states()->Get(i);
    std::string what = "state " + std::to_string(i);
    if (Status s = string(state.name(), what); !s)
      return s;
    if (Status s = tensor(state.global(), what); !s)
      return s;
    if (Status s = tensor(state.local(), what); !s)
      return s;
    if (Status s = sharding(state.sharding(), *state.global(), what); !s)
      return s;
    if (state.role() > StateRole::MAX || state.layout() > StateLayout::MAX ||
        state.initializer() > InitializerKind::MAX)
      return Status::error("metadata: " + what +
                           " has a role, layout or initializer that does not "
                           "exist");
    if (state.written() && state.layout() == StateLayout::packed)
      return Status::error("metadata: " + what +
                           " is packed, but entry points write it");
    if (state.stage() < -1)
      return Status::error("metadata: " + what + " is of stage " +
                           std::to_string(state.stage()));
    if (Status s = range(state.offset(), state.size(), plan.state_size(),
                         what + " in the state region");
        !s)
      return s;
    if (state.offset() % alignment != 0)
      return Status::error("metadata: " + what + " begins at " +
                           std::to_string(state.offset()) +
                           ", not a multiple of " + std::to_string(alignment));
    uint64_t size = 0;
    (void)bytes(state.local()->dtype(), state.local()->dims()->data(),
                state.local()->dims()->size(), what, size);
    if (size > state.size())
      return Status::error(
          "metadata: " + what + " has " + std::to_string(state.size()) +
          " bytes, its local type needs " + std::to_string(size));
  }
  for (const Scalar *scalar : *plan.scalars()) {
    if (Status s = string(scalar->name(), "scalar"); !s)
      return s;
    DataType dtype = scalar->dtype();
    if (dtype != DataType::i32 && dtype != DataType::i64 &&
        dtype != DataType::f32 && dtype != DataType::f64)
      return Status::error("metadata: a scalar is i32, i64, f32 or f64");
  }
  return Status();
}

Status Validator::code(uint64_t sectionsSize) {
  for (uint32_t i = 0; i < plan.images()->size(); ++i) {
    const Image &image = *plan.images()->Get(i);
    std::string what = "image " + std::to_string(i);
    if (image.kind() > ImageKind::MAX || image.offset() % pageSize != 0)
      return Status::error("metadata: " + what +
                           " has an unknown kind or is not page aligned");
    if (Status s = range(image.offset(), image.size(), sectionsSize, what); !s)
      return s;
    bool isGpu = gpuArchitecture(plan.target()->string_view()) != 0;
    if (isGpu != (image.kind() != ImageKind::elf))
      return Status::error("metadata: " + what + " is " +
                           EnumNameImageKind(image.kind()) + " in a plan for " +
                           plan.target()->str());
  }
  for (uint32_t i = 0; i < plan.kernels()->size(); ++i) {
    const Kernel &kernel = *plan.kernels()->Get(i);
    std::string what = "kernel " + std::to_string(i);
    if (Status s = string(kernel.name(), what); !s)
      return s;
    if (Status s =
            inside(kernel.image(), plan.images()->size(), what + ": image");
        !s)
      return s;
    if (plan.images()->Get(kernel.image())->kind() != ImageKind::elf) {
      if (kernel.grid() == 0 || kernel.grid() > maxGrid ||
          kernel.block() == 0 || kernel.block() > maxBlock ||
          kernel.shared() > maxShared || kernel.buffers() > maxGpuBuffers)
        return Status::error("metadata: " + what + " has grid " +
                             std::to_string(kernel.grid()) + ", block " +
                             std::to_string(kernel.block()) + ", shared " +
                             std::to_string(kernel.shared()) + ", " +
                             std::to_string(kernel.buffers()) + " buffers");
      if (kernel.entry() || kernel.extent() || kernel.grain())
        return Status::error("metadata: " + what +
                             " has an entry, an extent or a grain, but runs "
                             "on a GPU");
      continue;
    }
    if (kernel.grid() || kernel.block() || kernel.shared())
      return Status::error("metadata: " + what +
                           " has a grid, but runs on a CPU");
    if (kernel.extent() < 0 || kernel.grain() < 1 || kernel.buffers() > 0xffff)
      return Status::error("metadata: " + what + " has extent " +
                           std::to_string(kernel.extent()) + ", grain " +
                           std::to_string(kernel.grain()) + ", " +
                           std::to_string(kernel.buffers()) + " buffers");
  }
  return Status();
}

Status Validator::port(const Port &port, uint32_t microBatches,
                       const std::string &what) const {
  if (Status s = string(port.name(), what); !s)
    return s;
  if (Status s =
          inside(port.program(), plan.programs()->size(), what + ": program");
      !s)
    return s;
  const Program &program = *plan.programs()->Get(port.program());
  if (Status s =
          inside(port.buffer(), program.buffers()->size(), what + ": buffer");
      !s)
    return s;
  if (Status s = tensor(port.global(), what); !s)
    return s;
  if (Status s = tensor(port.local(), what); !s)
    return s;
  if (Status s = sharding(port.sharding(), *port.global(), what); !s)
    return s;
  uint32_t dims = port.global()->dims()->size();
  if (port.local()->dims()->size() != dims)
    return Status::error(
        "metadata: " + what + " has " + std::to_string(dims) + " global and " +
        std::to_string(port.local()->dims()->size()) + " local dims");
  if (Status s = require(port.dim_names(), (what + ": dim names").c_str()); !s)
    return s;
  if (port.dim_names()->size() != 0 && port.dim_names()->size() != dims)
    return Status::error("metadata: " + what + " has " +
                         std::to_string(port.dim_names()->size()) +
                         " dim names for " + std::to_string(dims) + " dims");
  for (uint32_t name : *port.dim_names())
    if (Status s = string(name, what); !s)
      return s;
  if (Status s = require(port.finite(), (what + ": finite names").c_str()); !s)
    return s;
  for (uint32_t name : *port.finite())
    if (Status s = string(name, what); !s)
      return s;
  if (port.finite()->size() &&
      (dims != 1 ||
       port.finite()->size() !=
           static_cast<uint64_t>(port.global()->dims()->Get(0)) ||
       !isFloat(port.global()->dtype())))
    return Status::error("metadata: " + what + " has " +
                         std::to_string(port.finite()->size()) +
                         " names of finite elements, expected one per element "
                         "of its one dim of floats");
  if (port.layout() > SequenceLayout::MAX)
    return Status::error("metadata: " + what +
                         ": sequence layout does not exist");
  if (port.layout_dim() >= 0) {
    if (Status s = inside(static_cast<uint64_t>(port.layout_dim()), dims,
                          what + ": layout of dim");
        !s)
      return s;
    uint64_t parts = uint64_t{port.layout_parts()} *
                     (port.layout() == SequenceLayout::zigzag ? 2 : 1);
    int64_t dimSize =
        port.global()->dims()->Get(static_cast<uint32_t>(port.layout_dim()));
    if (parts == 0 || static_cast<uint64_t>(dimSize) % parts != 0)
      return Status::error(
          "metadata: " + what + ": dim of size " + std::to_string(dimSize) +
          " cannot be dealt out in " + std::to_string(parts) + " pieces");
  } else if (port.layout() != SequenceLayout::contiguous) {
    return Status::error("metadata: " + what +
                         " has a sequence layout of no dim");
  }
  if (program.buffers()->Get(port.buffer())->space() == Space::scalar)
    return Status::error("metadata: " + what +
                         " is a scalar, which is set by its name");
  const Buffer &buffer = *program.buffers()->Get(port.buffer());
  uint64_t size = 0;
  (void)bytes(port.local()->dtype(), port.local()->dims()->data(), dims, what,
              size);
  // With a slot per micro-batch, each holds its part of dim 0.
  bool isDivided = buffer.slots() > 1 && buffer.slots() == microBatches &&
                   dims > 0 &&
                   port.local()->dims()->Get(0) % buffer.slots() == 0;
  uint32_t slots = isDivided ? buffer.slots() : 1;
  size /= slots;
  if (buffer.dtype() != port.local()->dtype() ||
      buffer.dtype() != port.global()->dtype() || buffer.size() < size ||
      buffer.slots() != slots)
    return Status::error("metadata: " + what + " needs " +
                         (slots == 1 ? "one slot" : "slots") + " of " +
                         std::to_string(size) + " bytes of " +
                         toString(port.local()->dtype()) + ", its buffer has " +
                         std::to_string(buffer.slots()) + " of " +
                         std::to_string(buffer.size()) + " bytes of " +
                         toString(buffer.dtype()));
  return Status();
}

Status Validator::entries() {
  if (Status s = inside(plan.load(), plan.programs()->size(), "load program");
      !s)
    return s;
  for (uint32_t i = 0; i < plan.entries()->size(); ++i) {
    const Entry &entry = *plan.entries()->Get(i);
    std::string what = "entry " + std::to_string(i);
    if (Status s = string(entry.name(), what); !s)
      return s;
    for (const void *vector :
         {(const void *)entry.inputs(), (const void *)entry.outputs(),
          (const void *)entry.actions(), (const void *)entry.programs()})
      if (Status s = require(vector, (what + ": a list").c_str()); !s)
        return s;
    for (uint32_t program : *entry.programs())
      if (Status s =
              inside(program, plan.programs()->size(), what + ": program");
          !s)
        return s;
    for (const Port *input : *entry.inputs())
      if (Status s = port(*input, entry.micro_batches(), what + ", an input");
          !s)
        return s;
    for (const Port *output : *entry.outputs())
      if (Status s = port(*output, entry.micro_batches(), what + ", an output");
          !s)
        return s;
    for (const ActionList *list : *entry.actions()) {
      if (Status s = require(list->actions(), (what + ": actions").c_str()); !s)
        return s;
      for (const Action *action : *list->actions()) {
        if (Status s = inside(action->stage(), entry.programs()->size(),
                              what + ": action of stage");
            !s)
          return s;
        if (Status s = inside(action->micro_batch(), entry.micro_batches(),
                              what + ": action of micro-batch");
            !s)
          return s;
        if (action->kind() > ActionKind::MAX)
          return Status::error("metadata: " + what +
                               ": an action's kind does not exist");
      }
    }
  }
  return Status();
}

Status Validator::run(uint64_t sectionsSize) {
  if (plan.version() != formatVersion)
    return Status::error("metadata: version " + std::to_string(plan.version()) +
                         ", expected " + std::to_string(formatVersion));
  for (const void *part :
       {(const void *)plan.provenance(), (const void *)plan.target(),
        (const void *)plan.features(), (const void *)plan.strings(),
        (const void *)plan.mesh(), (const void *)plan.groups(),
        (const void *)plan.tables(), (const void *)plan.scalars(),
        (const void *)plan.files(), (const void *)plan.sources(),
        (const void *)plan.states(), (const void *)plan.programs(),
        (const void *)plan.entries(), (const void *)plan.images(),
        (const void *)plan.kernels()})
    if (Status s = require(part, "a part"); !s)
      return s;
  if (Status s = aligned(plan.scalars(), "the list of scalars"); !s)
    return s;
  if (Status s = aligned(plan.kernels(), "the list of kernels"); !s)
    return s;
  const Provenance &provenance = *plan.provenance();
  for (const void *text :
       {(const void *)provenance.compiler(), (const void *)provenance.options(),
        (const void *)provenance.model(),
        (const void *)provenance.model_folder()})
    if (Status s = require(text, "a part of the provenance"); !s)
      return s;
  if (plan.strings()->size() == 0 || plan.strings()->Get(0)->size() != 0)
    return Status::error("metadata: string 0 is not empty");
  alignment = bufferAlignmentOf(plan.target()->string_view());
  if (Status s = mesh(); !s)
    return s;
  if (Status s = weights(); !s)
    return s;
  if (Status s = states(); !s)
    return s;
  if (Status s = code(sectionsSize); !s)
    return s;
  for (uint32_t i = 0; i < plan.programs()->size(); ++i)
    if (Status s = program(i); !s)
      return s;
  return entries();
}

Status validatePlan(const Plan &plan, uint64_t sectionsSize) {
  return Validator(plan).run(sectionsSize);
}

} // namespace dshard::plan
