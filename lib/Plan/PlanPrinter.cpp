#include "dshard/Plan/PlanPrinter.h"

#include "ProgramView.h"
#include "dshard/Plan/Format.h"
#include "dshard/Plan/Topology.h"
#include "dshard/Support/Json.h"
#include "dshard/Support/Text.h"

#include <cstdio>
#include <cstring>

namespace dshard::plan {

static std::string dimsText(const int64_t *dims, size_t count) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < count; ++i)
    parts.push_back(std::to_string(dims[i]));
  return "[" + join(parts, "x") + "]";
}

std::string printType(const TensorType &type) {
  return std::string(toString(type.dtype())) +
         dimsText(type.dims()->data(), type.dims()->size());
}

std::string printValue(const Plan &plan, const Value &value) {
  switch (value.kind()) {
  case ValueKind::literal:
    return std::to_string(value.value());
  case ValueKind::table: {
    const RankTable &table =
        *plan.tables()->Get(static_cast<uint32_t>(value.value()));
    std::string axes;
    for (uint32_t axis : *table.axes())
      axes += (axes.empty() ? "" : ",") +
              plan.strings()->Get(plan.mesh()->Get(axis)->name())->str();
    return "table" + std::to_string(value.value()) + "(" + axes + ")";
  }
  case ValueKind::scalar:
    return "scalar(" +
           plan.strings()
               ->Get(plan.scalars()
                         ->Get(static_cast<uint32_t>(value.value()))
                         ->name())
               ->str() +
           ")";
  case ValueKind::loop_index:
    return "loop" + std::to_string(value.value());
  case ValueKind::micro_batch:
    return "micro_batch";
  }
  return "?";
}

namespace {
class Printer {
public:
  explicit Printer(const Plan &plan) : plan(plan) {}

  std::string run();
  std::string instruction(uint32_t program, uint32_t index) const;

private:
  std::string text(uint32_t index) const {
    return plan.strings()->Get(index)->str();
  }
  /// Quoted, so that any name stays on its line.
  std::string quoted(uint32_t index) const {
    return jsonQuote(plan.strings()->Get(index)->string_view());
  }
  void line(int indent, const std::string &text) {
    output.append(2 * static_cast<size_t>(indent), ' ');
    output += text;
    output += '\n';
  }
  std::string axes(const flatbuffers::Vector<const AxisRef *> &refs) const;
  std::string sharding(const Sharding &sharding) const;
  std::string bufferType(const Program &program, const Buffer &buffer) const;
  std::string use(const Program &program, const BufferUse &use) const;
  std::string valueText(const ValueInfo &info, const Value &value,
                        InstructionKind kind) const;

  void header();
  void constants();
  void weights();
  void code();
  void program(uint32_t index);
  void entry(uint32_t index);
  void port(const char *what, const Port &port);

  const Plan &plan;
  std::string output;
};
} // namespace

std::string
Printer::axes(const flatbuffers::Vector<const AxisRef *> &refs) const {
  std::vector<std::string> parts;
  for (const AxisRef *ref : refs)
    parts.push_back(axisText(plan, *ref));
  return "{" + join(parts, ",") + "}";
}

/// "[{dp},{}] partial sum {tp}"; "replicated" without any axis.
std::string Printer::sharding(const Sharding &sharding) const {
  std::vector<std::string> dims;
  bool any = false;
  for (const DimSharding *dim : *sharding.dims()) {
    dims.push_back(axes(*dim->axes()));
    any |= dim->axes()->size() != 0;
  }
  bool partial = sharding.partial() && sharding.partial()->size() != 0;
  std::string text =
      any || !partial ? (any ? "[" + join(dims, ",") + "]" : "replicated") : "";
  if (partial)
    text += std::string(text.empty() ? "" : " ") + "partial " +
            EnumNameReductionKind(sharding.kind()) + " " +
            axes(*sharding.partial());
  return text;
}

std::string Printer::bufferType(const Program &program,
                                const Buffer &buffer) const {
  return std::string(toString(buffer.dtype())) +
         dimsText(program.dims()->data() + buffer.dims_begin(),
                  buffer.dims_count());
}

/// "%3 f32[16x64] @4096": offset in the arena, or "@w+0" in state w.
std::string Printer::use(const Program &program, const BufferUse &use) const {
  if (use.buffer() == absentBuffer)
    return "none";
  const Buffer &buffer = *program.buffers()->Get(use.buffer());
  std::string result = "%" + std::to_string(use.buffer()) + " " +
                       bufferType(program, buffer) + " @";
  if (buffer.space() == Space::scalar)
    return result + text(plan.scalars()->Get(buffer.state())->name());
  if (buffer.space() == Space::state)
    result += text(plan.states()->Get(buffer.state())->name()) + "+";
  result += std::to_string(buffer.offset());
  if (buffer.slots() > 1)
    result += " slot " + printValue(plan, use.slot());
  if (use.access() == Access::read_write)
    result += " in place";
  return result;
}

std::string Printer::valueText(const ValueInfo &info, const Value &value,
                               InstructionKind kind) const {
  bool isLiteral = value.kind() == ValueKind::literal;
  std::string plain = printValue(plan, value);
  if (!isLiteral)
    return plain;
  if (info.name.size() > 5 &&
      info.name.compare(info.name.size() - 5, 5, "_bits") == 0) {
    double number;
    int64_t bits = value.value();
    std::memcpy(&number, &bits, sizeof(number));
    return formatDouble(number);
  }
  uint32_t index = static_cast<uint32_t>(value.value());
  if (info.name == "group")
    return plain + axes(*plan.groups()->Get(index)->axes());
  if (info.name == "kernel")
    return plain + "(" + text(plan.kernels()->Get(index)->name()) + ")";
  if (info.name == "source")
    return plain + "(" + text(plan.sources()->Get(index)->name()) + ")";
  if (info.name == "reduction")
    return EnumNameReductionKind(static_cast<ReductionKind>(index));
  if (info.name == "activation")
    return toString(static_cast<Activation>(index));
  return plain;
}

std::string Printer::instruction(uint32_t programIndex, uint32_t index) const {
  const Program &program = *plan.programs()->Get(programIndex);
  ProgramView view(program);
  const Instruction &item = view.instructions[index];
  const InstructionInfo &info = *findInstruction(item.kind());
  Slice<BufferUse> uses = view.usesOf(item);
  Slice<Value> values = view.valuesOf(item);
  InstructionLayout layout =
      *InstructionLayout::get(info, values.data, values.size(), uses.size());
  std::string result = info.spelling;
  if (!info.uses.empty()) {
    result += "(";
    bool arrow = false, first = true;
    for (size_t i = 0; i < info.uses.size(); ++i)
      for (uint32_t u = layout.useBegin[i]; u < layout.useBegin[i + 1]; ++u) {
        if (info.uses[i].written && !arrow)
          result += first ? "-> " : " -> ";
        else if (!first)
          result += ", ";
        arrow |= info.uses[i].written;
        first = false;
        result += use(program, uses[u]);
      }
    result += ")";
  }
  for (size_t i = 0; i < info.values.size(); ++i) {
    const ValueInfo &valueInfo = info.values[i];
    uint32_t begin = layout.valueBegin[i], end = layout.valueBegin[i + 1];
    if (valueInfo.flag && values[begin].value() == 0)
      continue;
    result += " " + valueInfo.name;
    if (valueInfo.flag)
      continue;
    bool isList = valueInfo.countFrom >= 0 || valueInfo.count != 1;
    std::vector<std::string> parts;
    for (uint32_t v = begin; v < end; ++v)
      parts.push_back(valueText(valueInfo, values[v], info.kind));
    result += isList ? "=[" + join(parts, ",") + "]" : "=" + parts[0];
  }
  if (item.part() != Part::none)
    result += std::string(" part=") + EnumNamePart(item.part());
  if (item.why())
    result += " why=" + quoted(item.why());
  if (item.path())
    result += " path=" + quoted(item.path());
  if (item.node())
    result += " node=" + quoted(item.node());
  return result;
}

void Printer::header() {
  const Provenance &provenance = *plan.provenance();
  uint64_t ranks = 1;
  for (const Axis *axis : *plan.mesh())
    ranks *= axis->size();
  line(0, "plan version " + std::to_string(plan.version()));
  line(1, "compiler " + jsonQuote(provenance.compiler()->string_view()));
  line(1, "options " + jsonQuote(provenance.options()->string_view()));
  line(1, "model " + jsonQuote(provenance.model()->string_view()) + " in " +
              jsonQuote(provenance.model_folder()->string_view()));
  std::vector<std::string> features;
  for (const flatbuffers::String *feature : *plan.features())
    features.push_back(feature->str());
  line(1, "target " + plan.target()->str() + " features [" +
              join(features, ",") + "]");
  line(1, "mesh <" + meshText(plan) + "> ranks " + std::to_string(ranks));
  line(1, "state size " + std::to_string(plan.state_size()) + " per rank");
}

void Printer::constants() {
  for (uint32_t i = 0; i < plan.groups()->size(); ++i)
    line(0, "group " + std::to_string(i) + " " +
                axes(*plan.groups()->Get(i)->axes()));
  for (uint32_t i = 0; i < plan.tables()->size(); ++i) {
    const RankTable &table = *plan.tables()->Get(i);
    std::vector<std::string> values;
    for (int64_t value : *table.values())
      values.push_back(std::to_string(value));
    std::vector<std::string> names;
    for (uint32_t axis : *table.axes())
      names.push_back(text(plan.mesh()->Get(axis)->name()));
    line(0, "table " + std::to_string(i) + " over {" + join(names, ",") +
                "} [" + join(values, ",") + "]");
  }
  for (uint32_t i = 0; i < plan.scalars()->size(); ++i) {
    const Scalar &scalar = *plan.scalars()->Get(i);
    line(0, "scalar " + std::to_string(i) + " " + quoted(scalar.name()) + " " +
                toString(scalar.dtype()) + " = " +
                formatDouble(scalar.initial()));
  }
}

void Printer::weights() {
  for (uint32_t i = 0; i < plan.files()->size(); ++i)
    line(0, "file " + std::to_string(i) + " " +
                quoted(plan.files()->Get(i)->path()) + " " +
                std::to_string(plan.files()->Get(i)->size()) + " bytes");
  for (uint32_t i = 0; i < plan.sources()->size(); ++i) {
    const WeightSource &source = *plan.sources()->Get(i);
    char identity[32];
    std::snprintf(identity, sizeof(identity), "%016llx",
                  static_cast<unsigned long long>(source.identity()));
    line(0, "source " + std::to_string(i) + " " + quoted(source.name()) + " " +
                printType(*source.stored()) +
                (source.transposed() ? " transposed" : "") + " file " +
                std::to_string(source.file()) + " @" +
                std::to_string(source.offset()) + " +" +
                std::to_string(source.length()) + " identity " +
                (source.has_identity() ? identity : "none") +
                (source.has_full_hash() ? " hashed" : "") + " fan_in " +
                std::to_string(source.fan_in()));
  }
  for (uint32_t i = 0; i < plan.states()->size(); ++i) {
    const State &state = *plan.states()->Get(i);
    line(0, "state " + std::to_string(i) + " " + quoted(state.name()) + " " +
                EnumNameStateRole(state.role()) + " " +
                printType(*state.global()) + " local " +
                printType(*state.local()) + " " + sharding(*state.sharding()) +
                " layout " + EnumNameStateLayout(state.layout()) + " init " +
                EnumNameInitializerKind(state.initializer()) + " @" +
                std::to_string(state.offset()) + " +" +
                std::to_string(state.size()) +
                (state.written() ? " written" : "") +
                (state.stage() >= 0 ? " stage " + std::to_string(state.stage())
                                    : ""));
  }
}

void Printer::code() {
  for (uint32_t i = 0; i < plan.images()->size(); ++i) {
    const Image &image = *plan.images()->Get(i);
    line(0, "image " + std::to_string(i) + " " +
                EnumNameImageKind(image.kind()) + " @" +
                std::to_string(image.offset()) + " +" +
                std::to_string(image.size()));
  }
  for (uint32_t i = 0; i < plan.kernels()->size(); ++i) {
    const Kernel &kernel = *plan.kernels()->Get(i);
    std::string head = "kernel " + std::to_string(i) + " " +
                       quoted(kernel.name()) + " image " +
                       std::to_string(kernel.image());
    if (kernel.grid()) {
      line(0, head + " grid " + std::to_string(kernel.grid()) + " block " +
                  std::to_string(kernel.block()) + " shared " +
                  std::to_string(kernel.shared()) + " buffers " +
                  std::to_string(kernel.buffers()));
      continue;
    }
    line(0, head + " entry " + std::to_string(kernel.entry()) + " extent " +
                std::to_string(kernel.extent()) + " grain " +
                std::to_string(kernel.grain()) + " buffers " +
                std::to_string(kernel.buffers()));
  }
}

void Printer::program(uint32_t index) {
  const Program &item = *plan.programs()->Get(index);
  line(0, "program " + std::to_string(index) + " " + quoted(item.name()) +
              " stage " + std::to_string(item.stage()) +
              (index == plan.load() ? " load" : "") + " arena " +
              std::to_string(item.arena_size()) + " thread_scratch " +
              std::to_string(item.thread_scratch()) + " streams " +
              std::to_string(item.streams()) + " events " +
              std::to_string(item.events()));
  for (uint32_t i = 0; i < item.buffers()->size(); ++i) {
    const Buffer &buffer = *item.buffers()->Get(i);
    std::string place =
        buffer.space() == Space::arena ? "arena @"
        : buffer.space() == Space::scalar
            ? "scalar " + quoted(plan.scalars()->Get(buffer.state())->name()) +
                  " @"
            : "state " + quoted(plan.states()->Get(buffer.state())->name()) +
                  " @";
    std::string slots = buffer.slots() > 1
                            ? " slots " + std::to_string(buffer.slots()) +
                                  " stride " +
                                  std::to_string(buffer.slot_stride())
                            : "";
    std::string view =
        buffer.base() != i ? " view of %" + std::to_string(buffer.base()) : "";
    line(1, "%" + std::to_string(i) + " " + quoted(buffer.name()) + " " +
                bufferType(item, buffer) + " " + place +
                std::to_string(buffer.offset()) + " +" +
                std::to_string(buffer.size()) + slots + view + " live " +
                std::to_string(buffer.live_begin()) + ".." +
                std::to_string(buffer.live_end()));
  }
  for (uint32_t i = 0; i < item.blocks()->size(); ++i) {
    const Block &block = *item.blocks()->Get(i);
    line(1, "block " + std::to_string(i) + ":");
    for (uint32_t at = block.begin(); at < block.begin() + block.count();
         ++at) {
      uint16_t stream = item.instructions()->Get(at)->stream();
      line(2, std::to_string(at) + ": " +
                  (item.streams() > 1 ? "s" + std::to_string(stream) + " "
                                      : std::string()) +
                  instruction(index, at));
    }
  }
}

void Printer::port(const char *what, const Port &port) {
  std::string result =
      std::string(what) + " " + quoted(port.name()) + " " +
      printType(*port.global()) + " local " + printType(*port.local()) + " " +
      sharding(*port.sharding()) + " program " +
      std::to_string(port.program()) + " %" + std::to_string(port.buffer());
  if (port.has_range())
    result += " range " + std::to_string(port.range_min()) + ".." +
              std::to_string(port.range_max());
  if (port.has_extra())
    result += " or " + std::to_string(port.extra());
  if (port.layout_dim() >= 0)
    result += std::string(" layout ") + EnumNameSequenceLayout(port.layout()) +
              " of dim " + std::to_string(port.layout_dim()) + " in " +
              std::to_string(port.layout_parts());
  if (port.finite()->size()) {
    std::vector<std::string> names;
    for (uint32_t name : *port.finite())
      names.push_back(quoted(name));
    result += " finite [" + join(names, ",") + "]";
  }
  if (port.dim_names()->size()) {
    std::vector<std::string> names;
    for (uint32_t name : *port.dim_names())
      names.push_back(text(name));
    result += " dims [" + join(names, ",") + "]";
  }
  line(1, result);
}

void Printer::entry(uint32_t index) {
  const Entry &item = *plan.entries()->Get(index);
  std::vector<std::string> programs;
  for (uint32_t program : *item.programs())
    programs.push_back(std::to_string(program));
  line(0, "entry " + std::to_string(index) + " " + quoted(item.name()) +
              " programs [" + join(programs, ",") + "] micro_batches " +
              std::to_string(item.micro_batches()));
  for (const Port *input : *item.inputs())
    port("input", *input);
  for (const Port *output : *item.outputs())
    port("output", *output);
  for (uint32_t i = 0; i < item.actions()->size(); ++i) {
    std::vector<std::string> actions;
    for (const Action *action : *item.actions()->Get(i)->actions())
      actions.push_back(std::string(EnumNameActionKind(action->kind())) + " " +
                        std::to_string(action->stage()) + "." +
                        std::to_string(action->micro_batch()));
    line(1, "actions " + std::to_string(i) + " [" + join(actions, ", ") + "]");
  }
}

std::string Printer::run() {
  header();
  constants();
  weights();
  code();
  for (uint32_t i = 0; i < plan.programs()->size(); ++i)
    program(i);
  for (uint32_t i = 0; i < plan.entries()->size(); ++i)
    entry(i);
  return std::move(output);
}

std::string printPlan(const Plan &plan) { return Printer(plan).run(); }

std::string printInstruction(const Plan &plan, uint32_t program,
                             uint32_t instruction) {
  return Printer(plan).instruction(program, instruction);
}

} // namespace dshard::plan
