//===- Functions.cpp - Calls of a model's own functions -------------------===//

#include "Functions.h"
#include "GraphOrder.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringSet.h"

using namespace mlir::dshard::onnx;
using ::dshard::Status;
using llvm::StringRef;
using llvm::Twine;

namespace {

constexpr int64_t maxNodes = 200000;
constexpr uint64_t maxBytes = uint64_t{128} << 20;
constexpr int maxCalls = 64;
constexpr StringRef scopesKey = "pkg.torch.onnx.name_scopes";

using Nodes = google::protobuf::RepeatedPtrField<pb::NodeProto>;

/// Where nodes are copied from: the model's graph, or a function's body in one
/// call.
struct Scope {
  const pb::FunctionProto *function = nullptr; ///< null: the model's graph
  const Scope *caller = nullptr;
  std::string prefix; ///< of names
  llvm::StringMap<std::string> names;
  llvm::StringMap<const pb::AttributeProto *> attributes;
  std::string nameScopes;
  int64_t opset = 0; ///< 0: the function imports none
};

bool isDefault(StringRef domain) {
  return domain.empty() || domain == "ai.onnx";
}

std::string keyOf(StringRef domain, StringRef name, StringRef overload) {
  // No separator occurs in a name by accident.
  return ((isDefault(domain) ? StringRef() : domain) + Twine('\0') + name +
          Twine('\0') + overload)
      .str();
}

std::string describe(const pb::FunctionProto &function) {
  std::string text = isDefault(function.domain())
                         ? function.name()
                         : function.domain() + ":" + function.name();
  if (!function.overload().empty())
    text += ":" + function.overload();
  return quote(text);
}

class Inliner {
public:
  explicit Inliner(ModelFile &file) : file(file), model(file.model) {}
  Status run();

private:
  bool fail(const Twine &text) {
    if (problem.empty())
      problem = text.str();
    return false;
  }
  bool fail(const pb::NodeProto &call, const Scope &scope, const Twine &text) {
    std::string name =
        call.name().empty() ? "node" : "node " + quote(nodeName(call, scope));
    return fail(name + ": " + text);
  }
  void collectNames(const pb::GraphProto &graph);
  std::string unique(std::string name);
  std::string valueName(const std::string &name, Scope &scope);
  static std::string join(StringRef prefix, StringRef name);
  static std::string nodeName(const pb::NodeProto &node, const Scope &scope) {
    StringRef name = node.name().empty() ? node.op_type() : node.name();
    return scope.function ? join(scope.prefix, name) : name.str();
  }

  bool expand(const Nodes &from, Nodes &to, Scope &scope);
  bool copy(const pb::NodeProto &node, pb::NodeProto &copied, Scope &scope);
  bool copyGraph(const pb::GraphProto &from, pb::GraphProto &to, Scope &scope);
  bool call(const pb::NodeProto &node, const pb::FunctionProto &function,
            Nodes &to, Scope &scope);
  bool findOpset(const pb::FunctionProto &function, Scope &scope);
  /// Counts what is made.
  bool spend(uint64_t bytes);

  ModelFile &file;
  pb::ModelProto &model;
  llvm::StringMap<const pb::FunctionProto *> functions;
  llvm::StringSet<> taken; ///< names of values, and prefixes
  uint64_t lastNumber = 1;
  int64_t nodes = 0;
  uint64_t bytes = 0;
  int calls = 0;
  std::string problem;
};

/// All names of values, those that nodes only read as well.
void Inliner::collectNames(const pb::GraphProto &graph) {
  for (const pb::ValueInfoProto &input : graph.input())
    taken.insert(input.name());
  for (const pb::TensorProto &tensor : graph.initializer())
    taken.insert(tensor.name());
  for (const pb::NodeProto &node : graph.node()) {
    for (const std::string &name : node.input())
      taken.insert(name);
    for (const std::string &name : node.output())
      taken.insert(name);
    for (const pb::AttributeProto &attribute : node.attribute()) {
      if (attribute.has_g())
        collectNames(attribute.g());
      for (const pb::GraphProto &each : attribute.graphs())
        collectNames(each);
    }
  }
}

std::string Inliner::unique(std::string name) {
  if (taken.insert(name).second)
    return name;
  std::string numbered;
  do // the number only grows: no clash is met twice
    numbered = name + "_" + std::to_string(++lastNumber);
  while (!taken.insert(numbered).second);
  return numbered;
}

std::string Inliner::join(StringRef prefix, StringRef name) {
  // Slashes are module paths (Names.h); a dot changes no path.
  bool isPath = prefix.contains('/') || name.contains('/');
  if (isPath)
    return (prefix + "/" + name.ltrim('/')).str();
  return (prefix + "." + name).str();
}

std::string Inliner::valueName(const std::string &name, Scope &scope) {
  if (!scope.function || name.empty())
    return name;
  auto [entry, isNew] = scope.names.try_emplace(name);
  if (isNew)
    entry->second = unique(join(scope.prefix, name));
  return entry->second;
}

bool Inliner::spend(uint64_t more) {
  bytes += more;
  if (++nodes > maxNodes)
    return fail("its functions expand to more than " + Twine(maxNodes) +
                " nodes");
  if (bytes > maxBytes)
    return fail("its functions expand to more than " + Twine(maxBytes >> 20) +
                " MiB of nodes");
  return true;
}

bool Inliner::copyGraph(const pb::GraphProto &from, pb::GraphProto &to,
                        Scope &scope) {
  to.set_name(from.name());
  for (const pb::ValueInfoProto &input : from.input()) {
    *to.add_input() = input;
    to.mutable_input(to.input_size() - 1)
        ->set_name(valueName(input.name(), scope));
  }
  for (const pb::ValueInfoProto &output : from.output()) {
    *to.add_output() = output;
    to.mutable_output(to.output_size() - 1)
        ->set_name(valueName(output.name(), scope));
  }
  for (const pb::TensorProto &tensor : from.initializer()) {
    if (!spend(tensor.ByteSizeLong()))
      return false;
    *to.add_initializer() = tensor;
    to.mutable_initializer(to.initializer_size() - 1)
        ->set_name(valueName(tensor.name(), scope));
  }
  *to.mutable_sparse_initializer() = from.sparse_initializer();
  return expand(from.node(), *to.mutable_node(), scope);
}

/// An attribute of a body, by itself: the one that it refers to, or null.
static const pb::AttributeProto *resolve(const pb::AttributeProto &attribute,
                                         const Scope &scope) {
  if (attribute.ref_attr_name().empty() || !scope.function)
    return &attribute;
  return scope.attributes.lookup(attribute.ref_attr_name());
}

bool Inliner::copy(const pb::NodeProto &node, pb::NodeProto &copied,
                   Scope &scope) {
  copied.set_op_type(node.op_type());
  copied.set_domain(node.domain());
  copied.set_overload(node.overload());
  copied.set_name(scope.function ? nodeName(node, scope) : node.name());
  for (const std::string &name : node.input())
    copied.add_input(valueName(name, scope));
  for (const std::string &name : node.output())
    copied.add_output(valueName(name, scope));
  *copied.mutable_metadata_props() = node.metadata_props();
  if (scope.function) {
    bool hasScopes = llvm::any_of(node.metadata_props(), [](const auto &entry) {
      return entry.key() == scopesKey;
    });
    if (!hasScopes && !scope.nameScopes.empty()) {
      auto *entry = copied.add_metadata_props();
      entry->set_key(scopesKey.str());
      entry->set_value(scope.nameScopes);
    }
    if (scope.opset)
      file.opsets[&copied] = scope.opset;
    else if (isDefault(node.domain()))
      return fail(describe(*scope.function) + " uses " + quote(node.op_type()) +
                  ", but imports no opset of the domain ai.onnx");
  } else {
    *copied.mutable_device_configurations() = node.device_configurations();
  }
  for (const pb::AttributeProto &attribute : node.attribute()) {
    const pb::AttributeProto *given = resolve(attribute, scope);
    if (!given)
      continue;
    pb::AttributeProto &made = *copied.add_attribute();
    if (!given->has_g() && given->graphs_size() == 0) {
      made = *given;
    } else {
      made.set_type(given->type());
      if (given->has_g() && !copyGraph(given->g(), *made.mutable_g(), scope))
        return false;
      for (const pb::GraphProto &graph : given->graphs())
        if (!copyGraph(graph, *made.add_graphs(), scope))
          return false;
    }
    made.set_name(attribute.name());
  }
  return spend(copied.ByteSizeLong());
}

bool Inliner::findOpset(const pb::FunctionProto &function, Scope &scope) {
  for (const pb::OperatorSetIdProto &set : function.opset_import())
    if (isDefault(set.domain()))
      scope.opset = set.version();
  bool imports = llvm::any_of(function.opset_import(), [](const auto &set) {
    return isDefault(set.domain());
  });
  if (imports && (scope.opset < minOpset || scope.opset > maxOpset))
    return fail("function " + describe(function) + " is in opset " +
                Twine(scope.opset) + "; " + Twine(minOpset) + " to " +
                Twine(maxOpset) + " are supported");
  return true;
}

bool Inliner::call(const pb::NodeProto &node, const pb::FunctionProto &function,
                   Nodes &to, Scope &scope) {
  for (const Scope *each = &scope; each; each = each->caller)
    if (each->function == &function) {
      std::string chain = describe(function);
      for (const Scope *caller = &scope; caller != each;
           caller = caller->caller)
        chain = describe(*caller->function) + " -> " + chain;
      return fail("function " + describe(function) +
                  " calls itself: " + describe(function) + " -> " + chain);
    }
  if (calls >= maxCalls)
    return fail(node, scope,
                "calls of functions are nested more than " + Twine(maxCalls) +
                    " deep");
  auto count = [&](StringRef what, int given, int most) {
    return given <= most ||
           fail(node, scope,
                "has " + Twine(given) + " " + what + "; function " +
                    describe(function) + " has " + Twine(most));
  };
  if (!count("inputs", node.input_size(), function.input_size()) ||
      !count("outputs", node.output_size(), function.output_size()))
    return false;

  Scope inner;
  inner.function = &function;
  inner.caller = &scope;
  inner.prefix = unique(nodeName(node, scope));
  inner.nameScopes = scope.nameScopes;
  for (const auto &entry : node.metadata_props())
    if (entry.key() == scopesKey)
      inner.nameScopes = entry.value();
  if (!findOpset(function, inner))
    return false;

  llvm::StringSet<> formals;
  for (auto [i, name] : llvm::enumerate(function.input())) {
    if (name.empty())
      return fail("function " + describe(function) +
                  " has an input without a "
                  "name");
    if (!formals.insert(name).second)
      return fail("function " + describe(function) + " has two inputs named " +
                  quote(name));
    int index = static_cast<int>(i);
    inner.names[name] = index < node.input_size()
                            ? valueName(node.input(index), scope)
                            : std::string();
  }
  // An output that is an input has no node that could give it.
  std::vector<std::pair<std::string, std::string>> passed;
  llvm::StringSet<> results;
  for (auto [i, name] : llvm::enumerate(function.output())) {
    if (name.empty())
      return fail("function " + describe(function) +
                  " has an output without a "
                  "name");
    if (!results.insert(name).second)
      return fail("function " + describe(function) + " has two outputs named " +
                  quote(name));
    int index = static_cast<int>(i);
    if (index >= node.output_size() || node.output(index).empty())
      continue;
    std::string actual = valueName(node.output(index), scope);
    if (formals.contains(name))
      passed.emplace_back(inner.names[name], actual);
    else
      inner.names[name] = actual;
  }

  for (const pb::AttributeProto &attribute : function.attribute_proto())
    inner.attributes[attribute.name()] = &attribute;
  for (const pb::AttributeProto &attribute : node.attribute()) {
    const pb::AttributeProto *given = resolve(attribute, scope);
    bool known = inner.attributes.count(attribute.name()) ||
                 llvm::is_contained(function.attribute(), attribute.name());
    if (!known)
      return fail(node, scope,
                  "function " + describe(function) + " has no attribute " +
                      quote(attribute.name()));
    if (given && (given->has_g() || given->graphs_size() > 0))
      return fail(node, scope,
                  "a graph as attribute " + quote(attribute.name()) +
                      " of a function is not supported");
    if (given)
      inner.attributes[attribute.name()] = given;
  }

  uint64_t size = node.ByteSizeLong();
  ++calls;
  bool done = spend(size) && expand(function.node(), to, inner);
  --calls;
  if (!done)
    return false;
  for (const auto &[from, actual] : passed) {
    if (from.empty())
      return fail(node, scope,
                  "function " + describe(function) +
                      " gives an input that the call leaves out");
    pb::NodeProto &identity = *to.Add();
    identity.set_op_type("Identity");
    identity.set_name(join(inner.prefix, "Identity"));
    identity.add_input(from);
    identity.add_output(actual);
    file.opsets[&identity] = maxOpset;
  }
  return true;
}

bool Inliner::expand(const Nodes &from, Nodes &to, Scope &scope) {
  for (const pb::NodeProto &node : from) {
    auto found =
        functions.find(keyOf(node.domain(), node.op_type(), node.overload()));
    bool done = found != functions.end() ? call(node, *found->second, to, scope)
                                         : copy(node, *to.Add(), scope);
    if (!done)
      return false;
  }
  return true;
}

Status Inliner::run() {
  for (const pb::FunctionProto &function : model.functions())
    if (!functions
             .try_emplace(
                 keyOf(function.domain(), function.name(), function.overload()),
                 &function)
             .second)
      return Status::error("two functions are named " + describe(function));
  pb::GraphProto &graph = *model.mutable_graph();
  collectNames(graph);
  Scope scope;
  Nodes expanded; // its elements keep their addresses when it is swapped
  if (!expand(graph.node(), expanded, scope))
    return Status::error(problem);
  graph.mutable_node()->Swap(&expanded);
  return Status();
}

} // namespace

Status mlir::dshard::onnx::inlineFunctions(ModelFile &file) {
  return file.model.functions_size() ? Inliner(file).run() : Status();
}
