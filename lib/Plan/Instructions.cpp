#include "dshard/Plan/Instructions.h"

#include <cstdlib>

namespace dshard::plan {

/// Splits at spaces.
static std::vector<std::string> words(std::string_view text) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = text.find(' ', begin);
    if (end == text.npos)
      end = text.size();
    if (end > begin)
      parts.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

/// Takes `suffix` off the end of `word`, if it is there.
static bool dropSuffix(std::string &word, std::string_view suffix) {
  if (word.size() < suffix.size() ||
      word.compare(word.size() - suffix.size(), suffix.size(), suffix) != 0)
    return false;
  word.resize(word.size() - suffix.size());
  return true;
}

static InstructionInfo parseInfo(InstructionKind kind, const char *spelling,
                                 const char *uses, const char *values) {
  InstructionInfo info{kind, spelling, {}, {}};
  bool written = false;
  for (std::string &word : words(uses)) {
    if (word == "->") {
      written = true;
      continue;
    }
    UseInfo use;
    use.optional = dropSuffix(word, "?");
    use.repeated = dropSuffix(word, "...");
    use.written = written;
    use.name = word;
    info.uses.push_back(std::move(use));
  }
  for (std::string &word : words(values)) {
    ValueInfo value;
    value.flag = dropSuffix(word, "?");
    if (size_t at = word.find('['); at != word.npos) {
      std::string count = word.substr(at + 1, word.size() - at - 2);
      word.resize(at);
      value.countFrom = info.findValue(count);
      if (value.countFrom < 0)
        value.count = std::atoi(count.c_str());
    }
    value.name = word;
    info.values.push_back(std::move(value));
  }
  return info;
}

const std::vector<InstructionInfo> &instructionTable() {
  static const std::vector<InstructionInfo> table = {
#define DSHARD_INSTRUCTION(KIND, spelling, uses, values)                       \
  parseInfo(InstructionKind::KIND, #spelling, uses, values),
#include "dshard/Plan/Instructions.def"
  };
  return table;
}

const InstructionInfo &instructionInfo(InstructionKind kind) {
  return instructionTable()[static_cast<size_t>(kind)];
}

const InstructionInfo *findInstruction(uint16_t kind) {
  const std::vector<InstructionInfo> &table = instructionTable();
  return kind < table.size() ? &table[kind] : nullptr;
}

std::optional<InstructionKind> parseInstructionKind(std::string_view spelling) {
  for (const InstructionInfo &info : instructionTable())
    if (info.spelling == spelling)
      return info.kind;
  return std::nullopt;
}

bool InstructionInfo::isControl() const {
  return kind == InstructionKind::CALL || kind == InstructionKind::REPEAT ||
         kind == InstructionKind::IF;
}

bool InstructionInfo::isCollective() const { return findValue("group") >= 0; }

int InstructionInfo::findValue(std::string_view name) const {
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i].name == name)
      return static_cast<int>(i);
  return -1;
}

/// How many of the instruction's uses the table lets vary: "in..." on the left
/// takes `operands` (collectives) or `inputs` (LAUNCH).
static int findUseCount(const InstructionInfo &info) {
  int operands = info.findValue("operands");
  return operands >= 0 ? operands : info.findValue("inputs");
}

Result<InstructionLayout> InstructionLayout::get(const InstructionInfo &info,
                                                 const Value *values,
                                                 size_t valueCount,
                                                 size_t useCount) {
  InstructionLayout layout;
  auto fail = [&](const std::string &text) {
    return Result<InstructionLayout>(
        Status::error(info.spelling + ": " + text));
  };
  uint64_t at = 0;
  for (const ValueInfo &value : info.values) {
    layout.valueBegin.push_back(static_cast<uint32_t>(at));
    uint64_t count = static_cast<uint64_t>(value.count);
    if (value.countFrom >= 0) {
      // Counts precede what they count, so the index is inside the range.
      const Value &source = values[layout.valueBegin[value.countFrom]];
      const std::string &name = info.values[value.countFrom].name;
      if (source.kind() != ValueKind::literal || source.value() < 0 ||
          source.value() > 0xffff)
        return fail("value '" + name + "' must be a literal from 0 to 65535");
      count = static_cast<uint64_t>(source.value());
    }
    at += count;
    if (at > valueCount)
      return fail("has " + std::to_string(valueCount) + " values, but value '" +
                  value.name + "' ends at " + std::to_string(at));
  }
  if (at != valueCount)
    return fail("has " + std::to_string(valueCount) + " values, expected " +
                std::to_string(at));
  layout.valueBegin.push_back(static_cast<uint32_t>(at));

  uint64_t left = 0; // how many uses a repeated one on the left takes
  if (int index = findUseCount(info); index >= 0) {
    const Value &source = values[layout.valueBegin[index]];
    if (source.kind() != ValueKind::literal || source.value() < 0 ||
        source.value() > 0xffff)
      return fail("value '" + info.values[index].name +
                  "' must be a literal from 0 to 65535");
    left = static_cast<uint64_t>(source.value());
  }
  at = 0;
  for (const UseInfo &use : info.uses) {
    layout.useBegin.push_back(static_cast<uint32_t>(at));
    if (!use.repeated)
      at += 1;
    else if (!use.written)
      at += left;
    else if (info.kind == InstructionKind::LAUNCH)
      at = useCount < at ? at : useCount;
    else
      at += left;
  }
  layout.useBegin.push_back(static_cast<uint32_t>(at));
  if (at != useCount)
    return fail("has " + std::to_string(useCount) + " uses, expected " +
                std::to_string(at));
  return Result<InstructionLayout>(std::move(layout));
}

} // namespace dshard::plan
