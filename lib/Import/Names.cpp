//===- Names.cpp - Module paths and parameter names -----------------------===//

#include "Names.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringSet.h"

using namespace mlir::dshard::onnx;
using llvm::StringRef;

std::optional<std::vector<std::string>>
mlir::dshard::onnx::parsePythonList(StringRef text) {
  text = text.trim();
  if (!text.consume_front("[") || !text.consume_back("]"))
    return std::nullopt;
  std::vector<std::string> items;
  for (text = text.trim(); !text.empty(); text = text.ltrim()) {
    char mark = text.front();
    if (mark != '\'' && mark != '"')
      return std::nullopt;
    std::string item;
    size_t i = 1;
    for (; i < text.size() && text[i] != mark; ++i) {
      if (text[i] == '\\' && i + 1 < text.size())
        ++i;
      item.push_back(text[i]);
    }
    if (i == text.size())
      return std::nullopt;
    items.push_back(std::move(item));
    text = text.drop_front(i + 1).ltrim();
    if (!text.consume_front(",") && !text.empty())
      return std::nullopt;
  }
  return items;
}

ParameterNames::ParameterNames(const pb::GraphProto &graph) {
  llvm::StringSet<> taken;
  for (const pb::TensorProto &tensor : graph.initializer())
    taken.insert(tensor.name());
  for (const pb::ValueInfoProto &value : graph.value_info())
    for (const pb::StringStringEntryProto &entry : value.metadata_props()) {
      if (entry.key() == "pkg.torch.export.graph_signature.InputSpec.kind")
        kinds[value.name()] = entry.value();
      if (entry.key() != "pkg.onnxscript.optimizer.folded_from")
        continue;
      auto origins = parsePythonList(entry.value());
      if (!origins || origins->size() != 1 ||
          StringRef(origins->front()).starts_with("val_"))
        continue;
      // A small tied head is a second, transposed tensor of one parameter.
      std::string name = origins->front();
      while (!taken.insert(name).second)
        name += "_copy";
      foldedFrom[value.name()] = name;
    }
}

std::string ParameterNames::nameOf(StringRef initializer) const {
  auto found = foldedFrom.find(initializer);
  return found == foldedFrom.end() ? initializer.str() : found->second;
}

static std::string lessLastPart(StringRef dotted) {
  return dotted.contains('.') ? dotted.rsplit('.').first.str() : std::string();
}

std::string mlir::dshard::onnx::modulePath(const pb::NodeProto &node,
                                           StringRef parameter) {
  for (const pb::StringStringEntryProto &entry : node.metadata_props()) {
    if (entry.key() != "pkg.torch.onnx.name_scopes")
      continue;
    auto scopes = parsePythonList(entry.value());
    if (!scopes || scopes->empty())
      break;
    // The last scope is the op itself; a node outside every module has a
    // placeholder in front.
    if (scopes->size() < 2 || StringRef((*scopes)[scopes->size() - 2])
                                  .starts_with("_empty_nn_module"))
      return "";
    return (*scopes)[scopes->size() - 2];
  }
  StringRef name = node.name();
  if (name.contains('/')) {
    std::string path = name.ltrim('/').rsplit('/').first.str();
    if (!name.ltrim('/').contains('/'))
      path.clear();
    std::replace(path.begin(), path.end(), '/', '.');
    return path;
  }
  return lessLastPart(parameter);
}
