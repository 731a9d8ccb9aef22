//===- Options.cpp - Compile options by name ------------------------------===//

#include "dshard/Pipelines/Options.h"

#include "dshard/Conversion/DShardToPlan/DShardToPlan.h"
#include "dshard/Support/Text.h"
#include "mlir/IR/Diagnostics.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"

using namespace mlir;
using namespace mlir::dshard;
using llvm::StringRef;
using llvm::Twine;

namespace {
using TextField = std::string CompileOptions::*;

/// Options whose text is taken as it is; the passes check it.
constexpr std::pair<llvm::StringLiteral, TextField> textOptions[] = {
    {"mesh", &CompileOptions::mesh},
    {"tp-plan", &CompileOptions::tensorParallelPlan},
    {"cp-method", &CompileOptions::contextMethod},
    {"cp-layout", &CompileOptions::contextLayout},
    {"pp-split", &CompileOptions::pipelineSplit},
    {"pp-schedule", &CompileOptions::pipelineSchedule},
    {"fsdp", &CompileOptions::fsdp},
    {"fsdp-unit", &CompileOptions::fsdpUnit},
    {"train", &CompileOptions::train},
    {"target", &CompileOptions::target},
};

constexpr llvm::StringLiteral otherOptions[] = {
    "ranks", "dim", "dims", "const", "entry", "micro-batches", "precision"};

/// Options whose empty text means the same as none.
bool mayBeEmpty(StringRef name) {
  return name == "mesh" || name == "tp-plan" || name == "fsdp" ||
         name == "fsdp-unit" || name == "target";
}

bool parseSize(StringRef text, int64_t &size) {
  return !text.getAsInteger(10, size) && size >= 0;
}

/// NAME=SIZE into the dims.
bool parseDim(StringRef text, CompileOptions &options) {
  auto [name, value] = text.split('=');
  int64_t size = 0;
  if (name.empty() || !parseSize(value, size))
    return false;
  options.dims.emplace_back(name.str(), size);
  return true;
}

bool parsePair(StringRef text,
               std::vector<std::pair<std::string, std::string>> &pairs) {
  auto [name, value] = text.split('=');
  if (name.empty() || value.empty())
    return false;
  pairs.emplace_back(name.str(), value.str());
  return true;
}
} // namespace

bool mlir::dshard::isOption(StringRef name, bool &takesValue) {
  takesValue = name != "sequence-parallel";
  return !takesValue || llvm::is_contained(otherOptions, name) ||
         llvm::any_of(textOptions,
                      [&](const auto &entry) { return entry.first == name; });
}

OptionStatus mlir::dshard::setOption(CompileOptions &options, StringRef name,
                                     StringRef value, std::string &error) {
  auto fail = [&](OptionStatus status, const Twine &message) {
    error = ("--" + name + message).str();
    return status;
  };
  auto usage = [&](const Twine &message) {
    return fail(OptionStatus::badUsage, message);
  };
  if (name == "sequence-parallel") {
    if (!value.empty())
      return usage("=" + value + ": takes no value");
    options.sequenceParallel = true;
    return OptionStatus::set;
  }
  for (const auto &[text, field] : textOptions)
    if (text == name) {
      if (value.empty() && !mayBeEmpty(name))
        return usage(" needs a value");
      options.*field = value.str();
      return OptionStatus::set;
    }
  if (name == "ranks") {
    if (!parseSize(value, options.ranks) || options.ranks < 1)
      return usage("=" + value + ": not a number of ranks");
  } else if (name == "micro-batches") {
    if (!parseSize(value, options.microBatches) || options.microBatches < 1)
      return usage("=" + value + ": not a number of micro-batches");
  } else if (name == "dim") {
    if (!parseDim(value, options))
      return usage(" " + value + ": write NAME=SIZE");
  } else if (name == "dims" || name == "const") {
    if (!parsePair(value,
                   name == "dims" ? options.dimRoles : options.constants))
      return usage(" " + value + ": write NAME=VALUE");
  } else if (name == "entry") {
    auto [entry, dims] = value.split(':');
    options.entry = entry.str();
    for (StringRef dim : llvm::split(dims, ','))
      if (!dim.empty() && !parseDim(dim, options))
        return usage(" " + value + ": write NAME:DIM=SIZE,...");
  } else if (name == "precision") {
    if (value != "model")
      return fail(OptionStatus::badValue,
                  "=" + value + " is not built yet; the default is model");
  } else {
    std::vector<std::string> names = {"sequence-parallel"};
    for (const auto &entry : textOptions)
      names.push_back(entry.first.str());
    for (StringRef other : otherOptions)
      names.push_back(other.str());
    return fail(OptionStatus::unknown,
                ": no such option" + ::dshard::didYouMean(name.str(), names));
  }
  return OptionStatus::set;
}

std::string mlir::dshard::describe(const Diagnostic &diagnostic) {
  static constexpr const char *severities[] = {"note", "warning", "error",
                                               "remark"};
  std::string text;
  llvm::raw_string_ostream os(text);
  os << severities[static_cast<int>(diagnostic.getSeverity())] << ": ";
  Location loc = diagnostic.getLocation();
  if (auto position = loc->findInstanceOf<FileLineColLoc>()) {
    os << position.getFilename().getValue() << ":";
    if (position.getLine()) // none: a model
      os << position.getLine() << ":" << position.getColumn() << ":";
    os << " ";
  }
  if (std::string node = nodeOf(loc); !node.empty())
    os << "node '" << node << "': ";
  os << diagnostic.str();
  return text;
}
