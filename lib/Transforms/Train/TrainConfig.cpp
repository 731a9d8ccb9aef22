//===- TrainConfig.cpp - Read what --train says ---------------------------===//

#include "dshard/Transforms/Train/TrainConfig.h"
#include "dshard/Support/File.h"
#include "dshard/Support/Json.h"
#include "dshard/Support/Text.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/GlobPattern.h"
#include "llvm/Support/JSON.h"
#include <cmath>
#include <functional>
#include <limits>

using namespace mlir::dshard;
using ::dshard::Result;
using ::dshard::Status;
using llvm::StringRef;
using JsonValue = llvm::json::Value;

namespace {
/// A key, where its value goes, and what it may be.
struct Key {
  StringRef name;
  std::function<Status(const JsonValue &)> read;
  /// Its value is an object, whose errors name the key in full.
  bool isObject = false;
};
} // namespace

static std::string textOf(const JsonValue &value) {
  std::string text;
  llvm::raw_string_ostream(text) << value;
  return text.size() > 60 ? text.substr(0, 60) + "..." : text;
}

/// Names of a file stay on their line.
static std::string escaped(StringRef name) {
  std::string text;
  llvm::raw_string_ostream stream(text);
  llvm::printEscapedString(name, stream);
  return text;
}

static Status expected(StringRef what, const JsonValue &value) {
  return Status::error("is " + textOf(value) + ", expected " + what.str());
}

/// Reads an object; every key of it must be one of `keys`.
static Status readObject(const llvm::json::Object &object,
                         llvm::ArrayRef<Key> keys, StringRef prefix) {
  std::vector<std::string> names;
  for (const Key &key : keys)
    names.push_back(key.name.str());
  // The object is a hash map: sort for stable messages.
  std::vector<StringRef> held;
  for (const auto &field : object)
    held.push_back(field.first);
  llvm::sort(held);
  for (StringRef name : held) {
    const auto *key =
        llvm::find_if(keys, [&](const Key &key) { return key.name == name; });
    if (key == keys.end())
      return Status::error("unknown key '" + prefix.str() + escaped(name) +
                           "'; the keys are " + ::dshard::join(names, ", "));
    const JsonValue &value = *object.get(name);
    if (Status status = key->read(value); !status)
      return key->isObject && value.getAsObject()
                 ? status
                 : Status::error("key '" + prefix.str() + name.str() + "' " +
                                 status.message());
  }
  return Status();
}

static Status readNumber(const JsonValue &value, StringRef what,
                         llvm::function_ref<bool(double)> allows,
                         double &result) {
  std::optional<double> number = value.getAsNumber();
  if (!number || !std::isfinite(*number) || !allows(*number))
    return expected(what, value);
  result = *number;
  return Status();
}

/// What the optimizer computes with is f32.
static bool isNormalFloat(double x) {
  return x >= std::numeric_limits<float>::min() &&
         x <= std::numeric_limits<float>::max();
}
static constexpr llvm::StringLiteral positiveFloat =
    "a number > 0 that f32 holds (1.2e-38 to 3.4e38)";

static Status readName(const JsonValue &value, std::string &result) {
  std::optional<StringRef> text = value.getAsString();
  if (!text || text->empty())
    return expected("a name", value);
  if (llvm::any_of(*text, [](char c) { return !llvm::isPrint(c) && c >= 0; }))
    return expected("a name without control characters", value);
  result = text->str();
  return Status();
}

/// The input of the labels must not be taken for another value of the step.
static Status readLabels(const JsonValue &value, std::string &result) {
  if (Status status = readName(value, result); !status)
    return status;
  StringRef name = result;
  if (name == "loss" || name == "grad_norm" || name == "step" || name == "lr" ||
      name.starts_with("nonfinite.") || name.ends_with(".grad"))
    return Status::error("is " + textOf(value) +
                         ", a name that the training step uses itself");
  return Status();
}

static Status readBool(const JsonValue &value, bool &result) {
  std::optional<bool> flag = value.getAsBoolean();
  if (!flag)
    return expected("true or false", value);
  result = *flag;
  return Status();
}

/// A value that must be one of a few names.
static Status readChoice(const JsonValue &value,
                         llvm::ArrayRef<StringRef> choices, StringRef &result) {
  std::vector<std::string> names;
  for (StringRef choice : choices)
    names.push_back(choice.str());
  std::optional<StringRef> text = value.getAsString();
  const auto *found = text ? llvm::find(choices, *text) : choices.end();
  if (found == choices.end())
    return expected(::dshard::join(names, " or "), value);
  result = *found;
  return Status();
}

static Status readBetas(const JsonValue &value, TrainConfig &config) {
  const llvm::json::Array *array = value.getAsArray();
  if (!array || array->size() != 2)
    return expected("[beta1, beta2]", value);
  double *betas[] = {&config.beta1, &config.beta2};
  for (size_t i = 0; i < 2; ++i)
    if (Status status = readNumber(
            (*array)[i], "two numbers in [0, 1), below 1 in f32 too",
            [](double x) { return x >= 0 && float(x) < 1; }, *betas[i]);
        !status)
      return status;
  return Status();
}

static Status readGlobs(const JsonValue &value,
                        std::vector<std::string> &globs) {
  const llvm::json::Array *array = value.getAsArray();
  if (!array)
    return expected("a list of globs of weight names", value);
  for (const JsonValue &item : *array) {
    std::string glob;
    if (Status status = readName(item, glob); !status)
      return status;
    if (llvm::Expected<llvm::GlobPattern> pattern =
            llvm::GlobPattern::create(glob);
        !pattern)
      return Status::error("has the glob '" + glob +
                           "': " + llvm::toString(pattern.takeError()));
    globs.push_back(glob);
  }
  return Status();
}

static Status readOutputs(const JsonValue &value, TrainConfig &config) {
  const llvm::json::Array *array = value.getAsArray();
  if (!array)
    return expected("a list of loss, grad_norm, gradients", value);
  config.givesLoss = config.givesGradNorm = config.givesGradients = false;
  for (const JsonValue &item : *array) {
    StringRef name;
    if (Status status =
            readChoice(item, {"loss", "grad_norm", "gradients"}, name);
        !status)
      return status;
    bool &gives = name == "loss"        ? config.givesLoss
                  : name == "grad_norm" ? config.givesGradNorm
                                        : config.givesGradients;
    if (gives)
      return Status::error("names " + name.str() + " twice");
    gives = true;
  }
  return Status();
}

static Status readOptimizer(const JsonValue &value, TrainConfig &config) {
  const llvm::json::Object *object = value.getAsObject();
  if (!object)
    return expected("an object with name, betas, eps, weight_decay, no_decay",
                    value);
  StringRef name;
  auto isDecay = [](double x) {
    return x >= 0 && x <= std::numeric_limits<float>::max();
  };
  return readObject(
      *object,
      {{"name",
        [&](const JsonValue &v) { return readChoice(v, {"adamw"}, name); }},
       {"betas", [&](const JsonValue &v) { return readBetas(v, config); }},
       {"eps",
        [&](const JsonValue &v) {
          return readNumber(v, positiveFloat, isNormalFloat, config.epsilon);
        }},
       {"weight_decay",
        [&](const JsonValue &v) {
          return readNumber(v, "a number >= 0 that f32 holds (up to 3.4e38)",
                            isDecay, config.weightDecay);
        }},
       {"no_decay",
        [&](const JsonValue &v) { return readGlobs(v, config.noDecay); }}},
      "optimizer.");
}

static Status readConfig(const llvm::json::Object &object,
                         TrainConfig &config) {
  StringRef loss, policy;
  return readObject(
      object,
      {{"loss",
        [&](const JsonValue &v) {
          return readChoice(v, {"cross_entropy"}, loss);
        }},
       {"logits",
        [&](const JsonValue &v) { return readName(v, config.logits); }},
       {"labels",
        [&](const JsonValue &v) { return readLabels(v, config.labels); }},
       {"ignore_index",
        [&](const JsonValue &v) {
          // Labels travel through doubles in the interpreter.
          std::optional<int64_t> number = v.getAsInteger();
          if (!number || std::abs(*number) > int64_t(1) << 53)
            return expected("a whole number of at most 2^53", v);
          config.ignoreIndex = *number;
          return Status();
        }},
       {"shift_labels",
        [&](const JsonValue &v) { return readBool(v, config.shiftLabels); }},
       {"optimizer",
        [&](const JsonValue &v) { return readOptimizer(v, config); }, true},
       {"trainable",
        [&](const JsonValue &v) {
          return readGlobs(v, config.trainable.emplace());
        }},
       {"clip_norm",
        [&](const JsonValue &v) {
          return readNumber(v, positiveFloat, isNormalFloat,
                            config.clipNorm.emplace());
        }},
       {"nonfinite",
        [&](const JsonValue &v) {
          Status status = readChoice(v, {"stop", "skip"}, policy);
          config.skipsNonFinite = policy == "skip";
          return status;
        }},
       {"outputs", [&](const JsonValue &v) { return readOutputs(v, config); }}},
      "");
}

Result<TrainConfig> mlir::dshard::loadTrainConfig(StringRef file) {
  std::string what = file.str() + ": ";
  if (llvm::sys::fs::is_directory(file))
    return Status::error(what + "is a folder; give a JSON file");
  Result<std::string> text = ::dshard::readFile(file.str());
  if (!text)
    return text.status();
  if (::dshard::isJsonDeeperThan(*text, ::dshard::maxJsonDepth))
    return Status::error(what + "is nested more than " +
                         std::to_string(::dshard::maxJsonDepth) +
                         " levels deep");
  llvm::Expected<JsonValue> json = llvm::json::parse(*text);
  if (!json)
    return Status::error(what +
                         "is not JSON: " + llvm::toString(json.takeError()));
  const llvm::json::Object *object = json->getAsObject();
  if (!object)
    return Status::error(what + "expected an object with the keys of --train");
  TrainConfig config;
  if (Status status = readConfig(*object, config); !status)
    return Status::error(what + status.message());
  return config;
}
