//===- GraphImporter.cpp - One graph becomes one function -----------------===//

#include "GraphImporter.h"
#include "GraphOrder.h"
#include "NodeImporter.h"
#include "Operators.h"
#include "dshard/Dialect/DShard/IR/WeightNames.h"
#include "dshard/Support/Text.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/SaveAndRestore.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// A map that keeps the order of insertion.
template <typename ValueT> struct OrderedMap {
  std::vector<std::pair<std::string, ValueT>> entries;
  ValueT &operator[](StringRef key) {
    for (auto &[name, value] : entries)
      if (name == key)
        return value;
    return entries.emplace_back(key.str(), ValueT()).second;
  }
};

GraphImporter::GraphImporter(MLIRContext *context, const ModelFile &file,
                             const ImportOptions &options)
    : context(context), file(file), graph(file.model.graph()), options(options),
      names(graph), tensors(context, file), bodyBuilder(context) {}

void GraphImporter::fail(const Twine &text) {
  if (!hasFailed)
    emitError(UnknownLoc::get(context)) << file.path << ": " << text;
  hasFailed = true;
}

bool GraphImporter::readVersion() {
  bool found = false;
  for (const pb::OperatorSetIdProto &set : file.model.opset_import())
    if (set.domain().empty() || set.domain() == "ai.onnx") {
      version = set.version();
      found = true;
    }
  bool usesDefault = llvm::any_of(graph.node(), [&](const pb::NodeProto &node) {
    return (node.domain().empty() || node.domain() == "ai.onnx") &&
           !file.opsets.count(&node);
  });
  if (!found && !usesDefault && graph.node_size() > 0)
    version = maxOpset; // nothing depends on it
  else if (!found)
    fail("names no opset of the domain ai.onnx");
  else if (version < minOpset || version > maxOpset)
    fail("opset " + Twine(version) + " is not supported; " + Twine(minOpset) +
         " to " + Twine(maxOpset) +
         " are (onnx.version_converter can change it)");
  if (graph.sparse_initializer_size() > 0)
    fail("sparse initializers are not supported");
  return !hasFailed;
}

/// All unknown ops at once: the way to more ops is long, so people want the
/// list.
bool GraphImporter::checkOperators() {
  struct Use {
    int count = 0;
    int first = 0;
  };
  OrderedMap<Use> unknown;
  for (int i = 0; i < graph.node_size(); ++i) {
    const pb::NodeProto &node = graph.node(i);
    if (findOperator(node.domain(), node.op_type()))
      continue;
    std::string kind = quote(node.op_type());
    kind = kind.substr(1, kind.size() - 2);
    if (!node.domain().empty() && node.domain() != "ai.onnx") {
      std::string domain = quote(node.domain());
      kind = domain.substr(1, domain.size() - 2) + ":" + kind;
    }
    Use &use = unknown[kind];
    if (use.count++ == 0)
      use.first = i;
  }
  if (unknown.entries.empty())
    return true;
  std::string list;
  for (const auto &[kind, use] : unknown.entries) {
    list += (list.empty() ? "" : "; ") + kind + ", " +
            std::to_string(use.count) +
            (use.count == 1 ? " node" : " nodes, first") + " " +
            describeNode(graph, use.first).substr(5);
    list.resize(list.rfind(" ("));
  }
  fail(Twine(unknown.entries.size()) +
       (unknown.entries.size() == 1 ? " op is" : " ops are") +
       " not supported: " + list);
  return false;
}

//===----------------------------------------------------------------------===//
// Symbolic dims
//===----------------------------------------------------------------------===//

bool GraphImporter::expectTensor(const pb::ValueInfoProto &value,
                                 StringRef what) {
  std::string name = (what + " " + quote(value.name())).str();
  if (!value.type().has_tensor_type())
    fail(name + " is not a tensor");
  else if (int type = value.type().tensor_type().elem_type();
           !elementType(context, type))
    fail(name + ": element type " + dataTypeName(type) + " is not supported");
  return !hasFailed;
}

/// The file's text for each dim; digits are a size. A nameless dim gets a name.
std::vector<std::string>
GraphImporter::dimNames(const pb::ValueInfoProto &value) {
  std::vector<std::string> result;
  const auto &dims = value.type().tensor_type().shape().dim();
  auto renamed = renamedDims.find(value.name());
  for (auto [i, dim] : llvm::enumerate(dims)) {
    std::string name;
    if (dim.has_dim_param() && !StringRef(dim.dim_param()).empty())
      name = dim.dim_param();
    else if (!dim.has_dim_value())
      name = value.name() + "_dim_" + std::to_string(i);
    if (llvm::all_of(name, llvm::isDigit))
      name.clear();
    if (renamed != renamedDims.end() && !renamed->second[i].empty())
      name = renamed->second[i];
    result.push_back(name);
  }
  return result;
}

std::optional<std::vector<int64_t>>
GraphImporter::staticShape(const pb::ValueInfoProto &value,
                           ArrayRef<std::string> names) {
  std::vector<int64_t> result;
  const auto &dims = value.type().tensor_type().shape().dim();
  for (auto [dim, name] : llvm::zip(dims, names)) {
    std::optional<int64_t> size;
    if (dim.has_dim_value())
      size = dim.dim_value();
    else if (int64_t digits; ::dshard::parseInteger(dim.dim_param(), digits, 0))
      size = digits;
    else
      size = evaluateDim(name, sizes);
    if (!size)
      return std::nullopt;
    result.push_back(*size);
  }
  return result;
}

bool GraphImporter::bindSymbols() {
  for (const pb::TensorProto &tensor : graph.initializer())
    initializers[tensor.name()] = &tensor;
  for (const pb::NodeProto &node : graph.node())
    for (auto [i, input] : llvm::enumerate(node.input()))
      firstReaders.try_emplace(input, FirstReader{&node, static_cast<int>(i)});

  llvm::StringMap<const pb::ValueInfoProto *> inputs;
  std::vector<std::string> inputNames;
  for (const pb::ValueInfoProto &input : graph.input())
    if (!initializers.count(input.name())) {
      inputs[input.name()] = &input;
      inputNames.push_back(input.name());
    }
  auto findInput = [&](StringRef name,
                       StringRef flag) -> const pb::ValueInfoProto * {
    const pb::ValueInfoProto *input = inputs.lookup(name);
    if (!input)
      fail(flag + ": there is no input " + quote(name) + "; the inputs are " +
           ::dshard::join(inputNames, ", ") +
           ::dshard::didYouMean(name.str(), inputNames));
    return input;
  };

  for (const auto &[name, size] : options.dims) {
    if (size < 0)
      fail("--dim " + Twine(name) + "=" + Twine(size) +
           ": a size is not negative");
    auto [entry, isNew] = sizes.try_emplace(name, size);
    if (!isNew && entry->second != size)
      fail("--dim " + Twine(name) + " is given twice: " + Twine(entry->second) +
           " != " + Twine(size));
  }
  for (const auto &[name, text] : options.dimRoles) {
    const pb::ValueInfoProto *input = findInput(name, "--dims");
    if (!input || !expectTensor(*input, "input"))
      return false;
    std::vector<std::string> list = ::dshard::split(text, ',');
    int rank = input->type().tensor_type().shape().dim_size();
    if (static_cast<int>(list.size()) != rank) {
      fail("--dims " + Twine(name) + "=" + text + " names " +
           Twine(list.size()) + " dims; the input has " + Twine(rank));
      return false;
    }
    renamedDims[name] = list;
  }
  std::map<std::string, std::string> constants;
  for (const auto &[name, text] : options.constants) {
    if (!findInput(name, "--const"))
      return false;
    auto [entry, isNew] = constants.try_emplace(name, text);
    if (!isNew && entry->second != text)
      fail("--const " + Twine(name) + " is given twice: " + entry->second +
           " != " + text);
  }
  if (options.entry.empty() || options.entry == "load")
    fail("--entry " + quote(options.entry) +
         (options.entry.empty() ? " is no name; the default is run"
                                : " is the name of the program that loads "
                                  "weights; choose another"));
  if (hasFailed)
    return false;

  // Symbol -> the inputs that have it.
  OrderedMap<std::vector<std::string>> unbound;
  std::vector<std::string> known;
  auto note = [&](StringRef name) {
    if (name.empty())
      return;
    known.push_back(name.str());
    for (const std::string &symbol : symbolsOf(name))
      known.push_back(symbol);
  };
  for (const pb::ValueInfoProto &input : graph.input()) {
    if (initializers.count(input.name()))
      continue;
    if (!expectTensor(input, "input"))
      return false;
    if (!input.type().tensor_type().has_shape()) {
      fail("input " + quote(input.name()) + " has no shape");
      return false;
    }
    std::vector<std::string> dims = dimNames(input);
    for (auto [i, dim] :
         llvm::enumerate(input.type().tensor_type().shape().dim())) {
      std::string what =
          "dim " + std::to_string(i) + " of input " + quote(input.name());
      note(dims[i]);
      StringRef original = dim.dim_param();
      // A renamed dim binds the file's symbol as well.
      std::optional<int64_t> size = evaluateDim(dims[i], sizes), fixed;
      if (dim.has_dim_value())
        fixed = dim.dim_value();
      else if (int64_t digits;
               ::dshard::parseInteger(original.str(), digits, 0))
        fixed = digits;
      if (fixed && *fixed < 0)
        fail(what + " is negative: " + Twine(*fixed));
      if (fixed && size && *fixed != *size)
        fail(what + " is " + Twine(*fixed) + " in the model, but " + dims[i] +
             " is bound to " + Twine(*size));
      if (fixed || dims[i].empty())
        continue;
      if (!size) {
        bool missing = false;
        for (const std::string &symbol : symbolsOf(dims[i]))
          if (!sizes.count(symbol)) {
            unbound[symbol].push_back(what);
            missing = true;
          }
        if (!missing)
          fail(what + ": " + quote(dims[i]) + " has no size");
        continue;
      }
      if (*size < 0)
        fail(what + " is negative: " + quote(dims[i]) + " = " + Twine(*size));
      if (original != dims[i] && !original.empty()) {
        note(original);
        auto [entry, isNew] = sizes.try_emplace(original, *size);
        if (!isNew && entry->second != *size)
          fail(what + ": " + quote(original) + " is " + Twine(entry->second) +
               " elsewhere, but " + dims[i] + " is bound to " + Twine(*size));
      }
    }
  }
  if (!hasFailed && !unbound.entries.empty()) {
    std::string list, example;
    for (const auto &[symbol, places] : unbound.entries) {
      list += (list.empty() ? "" : "; ") + quote(symbol) + " (" +
              places.front() + (places.size() > 1 ? ", ..." : "") + ")";
      bool plain = llvm::all_of(symbol, [](char c) {
        return llvm::isAlnum(c) || c == '_' || c == '.';
      });
      example +=
          (plain ? " --dim " + symbol + "=1" : " --dim '" + symbol + "=1'");
    }
    fail("symbolic dims are not bound: " + list +
         "; give their sizes, for example" + example);
  }
  for (const auto *list : {&graph.output(), &graph.value_info()})
    for (const pb::ValueInfoProto &value : *list)
      for (const auto &dim : value.type().tensor_type().shape().dim())
        note(dim.dim_param());
  for (const auto &[name, size] : options.dims)
    if (!hasFailed && !llvm::is_contained(known, name)) {
      llvm::sort(known);
      known.erase(std::unique(known.begin(), known.end()), known.end());
      fail("--dim " + Twine(name) + "=" + Twine(size) +
           ": the model has no such dim" +
           (known.empty() ? std::string("; all its dims are fixed")
                          : "; it has " + ::dshard::join(known, ", ")));
    }
  return !hasFailed;
}

//===----------------------------------------------------------------------===//
// Inputs, weights, values
//===----------------------------------------------------------------------===//

bool GraphImporter::constantInput(const pb::ValueInfoProto &input,
                                  StringRef text) {
  auto dims = staticShape(input, dimNames(input));
  Type element = elementType(context, input.type().tensor_type().elem_type());
  std::string flag = "--const " + input.name() + "=" + text.str();
  auto type = makeTensorType(*dims, element);
  if (!type) {
    fail("input " + quote(input.name()) + " " + type.status().message());
    return false;
  }
  std::vector<std::string> parts = ::dshard::split(text.str(), ',');
  int64_t count = type->getNumElements();
  if (parts.size() != 1 && static_cast<int64_t>(parts.size()) != count) {
    fail(flag + " gives " + Twine(parts.size()) + " values; the input has " +
         Twine(count) + " elements");
    return false;
  }
  Known elements;
  for (const std::string &part : parts) {
    double number = 0;
    int64_t integer = 0;
    bool isFloat = isa<FloatType>(element);
    bool ok = isFloat ? ::dshard::parseDouble(part, number)
                      : ::dshard::parseInteger(part, integer);
    if (part == "true" || part == "false") {
      ok = true;
      number = integer = part == "true";
    }
    if (!ok) {
      fail(flag + ": " + quote(part) + " is no " +
           (isFloat ? "number" : "whole number"));
      return false;
    }
    if (isFloat)
      elements.floats.push_back(number);
    else
      elements.ints.push_back(element.isInteger(1) ? integer != 0 : integer);
  }
  if (count == 0)
    elements = {};
  define(input.name(), addConstant(makeElements(*type, elements)));
  return true;
}

bool GraphImporter::addInputs() {
  Location location = FileLineColLoc::get(context, file.path, 0, 0);
  module = ModuleOp::create(location);
  (*module)->setAttr(modelAttrName, StringAttr::get(context, file.path));
  bodyBuilder.setInsertionPointToStart(module->getBody());
  function = func::FuncOp::create(bodyBuilder, location, options.entry,
                                  bodyBuilder.getFunctionType({}, {}));
  function.addEntryBlock();
  bodyBuilder.setInsertionPointToEnd(&function.getBody().front());

  for (const pb::ValueInfoProto &input : graph.input()) {
    if (initializers.count(input.name()))
      continue;
    auto constant = llvm::find_if(options.constants, [&](const auto &entry) {
      return entry.first == input.name();
    });
    if (constant != options.constants.end()) {
      if (!constantInput(input, constant->second))
        return false;
      continue;
    }
    std::vector<std::string> dims = dimNames(input);
    auto type = makeTensorType(
        *staticShape(input, dims),
        elementType(context, input.type().tensor_type().elem_type()));
    if (!type) {
      fail("input " + quote(input.name()) + " " + type.status().message());
      return false;
    }
    SmallVector<Attribute> dimAttrs;
    for (const std::string &name : dims)
      dimAttrs.push_back(StringAttr::get(context, name));
    NamedAttrList attributes;
    attributes.append(nameAttrName, StringAttr::get(context, input.name()));
    attributes.append(roleAttrName, RoleAttr::get(context, Role::input));
    attributes.append(dimNamesAttrName, ArrayAttr::get(context, dimAttrs));
    unsigned index = function.getNumArguments();
    (void)function.insertArgument(
        index, *type, attributes.getDictionary(context),
        NameLoc::get(StringAttr::get(context, input.name()), location));
    define(input.name(), function.getArgument(index));
  }
  return true;
}

void GraphImporter::define(StringRef name, Value value) {
  values[name] = value;
}

Value GraphImporter::lookup(StringRef name) {
  if (Value value = values.lookup(name))
    return value;
  const pb::TensorProto *tensor = initializers.lookup(name);
  if (!tensor) {
    fail("value " + quote(name) +
         (segments.count(name) ? " has a size that depends on data"
                               : " is not defined"));
    return {};
  }
  Value value = addTensor(*tensor, name);
  if (value)
    define(name, value);
  return value;
}

Value GraphImporter::lookupPacked(StringRef name, int &type) {
  const pb::TensorProto *tensor = initializers.lookup(name);
  type = tensor ? tensor->data_type() : pb::TensorProto::UNDEFINED;
  if (type != pb::TensorProto::INT4 && type != pb::TensorProto::UINT4) {
    type = pb::TensorProto::UNDEFINED;
    return lookup(name);
  }
  Value &value = packedValues[name];
  if (value || hasFailed)
    return value;
  int last = tensor->dims_size() - 1;
  if (last < 0 || tensor->dims(last) % 2) {
    fail("initializer " + quote(name) +
         ": 4-bit numbers with an odd last dim "
         "are not supported");
    return {};
  }
  pb::TensorProto bytes = *tensor;
  bytes.set_data_type(pb::TensorProto::UINT8);
  bytes.set_dims(last, tensor->dims(last) / 2);
  return value = addTensor(bytes, name);
}

/// Small tensors that a person would call a parameter, too.
static bool isParameter(const ParameterNames &names,
                        const pb::TensorProto &tensor, StringRef name) {
  if (tensor.dims_size() == 0)
    return false;
  if (auto kind = names.kinds.find(name); kind != names.kinds.end())
    return StringRef(kind->second).contains("PARAMETER");
  std::string parameter = names.nameOf(name);
  return StringRef(parameter).ends_with(".weight") ||
         StringRef(parameter).ends_with(".bias");
}

/// In a model to train, small tensors that training would change as well.
static bool isTrained(const ParameterNames &names,
                      const pb::TensorProto &tensor, StringRef name) {
  std::string parameter = names.nameOf(name);
  return tensor.dims_size() > 0 && !names.kinds.count(name) &&
         (tensor.data_type() == pb::TensorProto::FLOAT ||
          tensor.data_type() == pb::TensorProto::FLOAT16 ||
          tensor.data_type() == pb::TensorProto::BFLOAT16) &&
         isParameterPath(parameter) && !isBufferName(parameter);
}

Value GraphImporter::addTensor(const pb::TensorProto &tensor, StringRef name) {
  std::string parameter = names.nameOf(name);
  bool isWeight = isParameter(names, tensor, name) ||
                  (options.training && initializers.count(name) &&
                   isTrained(names, tensor, name));
  auto read =
      tensors.read(tensor, parameter, isWeight, firstReaders.lookup(name));
  if (!read) {
    fail(read.status().message());
    return {};
  }
  if (read->value) {
    if (isWeight && options.training && read->type.getNumElements() > 0)
      emitRemark(UnknownLoc::get(context))
          << file.path << ": parameter " << quote(parameter)
          << " is a constant, not trained: its values are not one range of the "
             "file; save it as raw data";
    return addConstant(read->value);
  }
  NamedAttrList attributes;
  attributes.append(nameAttrName, StringAttr::get(context, name));
  attributes.append(roleAttrName, RoleAttr::get(context, Role::param));
  attributes.append(weightAttrName, read->weight);
  if (auto kind = names.kinds.find(name);
      options.training && kind != names.kinds.end())
    attributes.append(
        isParameterAttrName,
        BoolAttr::get(context, StringRef(kind->second).contains("PARAMETER")));
  unsigned index = function.getNumArguments();
  (void)function.insertArgument(
      index, read->type, attributes.getDictionary(context),
      NameLoc::get(StringAttr::get(context, parameter), module->getLoc()));
  return function.getArgument(index);
}

//===----------------------------------------------------------------------===//
// Nodes and results
//===----------------------------------------------------------------------===//

bool GraphImporter::sort() {
  auto sorted = sortNodes(graph);
  if (sorted)
    order = *sorted;
  else
    fail(sorted.status().message());
  return !hasFailed;
}

bool GraphImporter::addNode(const pb::GraphProto &owner, int index) {
  const pb::NodeProto &node = owner.node(index);
  auto opset = file.opsets.find(&node);
  llvm::SaveAndRestore scoped(
      version, opset == file.opsets.end() ? version : opset->second);
  // The first input that is a named parameter, for the path of last resort.
  std::string parameter;
  for (const std::string &input : node.input())
    if (parameter.empty() && initializers.count(input))
      parameter = names.nameOf(input);
  StringRef name = node.name();
  if (name.empty() && node.output_size() > 0)
    name = node.output(0);
  Location location = module->getLoc();
  if (!name.empty())
    location = NameLoc::get(StringAttr::get(context, name), location);
  NodeImporter importer(*this, node, describeNode(owner, index), location,
                        modulePath(node, parameter));
  if (node.output_size() == 0) {
    importer.fail("has no outputs");
    return false;
  }
  ImportFunction function = findOperator(node.domain(), node.op_type());
  if (!node.overload().empty())
    importer.fail("its overload " + quote(node.overload()) +
                  " is no function of the model");
  if (!function) { // in a branch; those of the graph are checked before
    importer.fail("the op is not supported");
    return false;
  }
  bool readsSegment = llvm::any_of(node.input(), [&](const std::string &name) {
    return segments.count(name) != 0;
  });
  (readsSegment ? importSegmentOp : function)(importer);
  importer.expectNoOtherAttributes();
  if (hasFailed)
    return false;
  for (auto [i, output] : llvm::enumerate(node.output()))
    if (!output.empty() && !values.lookup(output) && !segments.count(output)) {
      importer.fail("output " + Twine(i) + " is not supported");
      return false;
    }
  return true;
}

bool GraphImporter::addNodes() {
  return llvm::all_of(order, [&](int index) { return addNode(graph, index); });
}

bool GraphImporter::addBranch(const pb::GraphProto &branch, StringRef what) {
  hasBranches = true;
  static constexpr int maxDepth = 16;
  if (branchDepth >= maxDepth)
    fail(what + ": branches are nested more than " + Twine(maxDepth) + " deep");
  for (const pb::TensorProto &tensor : branch.initializer()) {
    if (values.lookup(tensor.name()) || initializers.count(tensor.name()))
      fail(what + ": its branch defines " + quote(tensor.name()) +
           ", which is defined outside, too");
    initializers[tensor.name()] = &tensor;
  }
  for (const pb::NodeProto &node : branch.node())
    for (const std::string &output : node.output())
      if (!output.empty() && values.lookup(output))
        fail(what + ": its branch defines " + quote(output) +
             ", which is defined outside, too");
  ++branchDepth;
  for (int i = 0; i < branch.node_size() && !hasFailed; ++i)
    addNode(branch, i);
  --branchDepth;
  return !hasFailed;
}

/// What the nodes of a graph and of the branches in it define.
static void collectNames(const pb::GraphProto &graph,
                         std::vector<std::string> &names) {
  for (const pb::TensorProto &tensor : graph.initializer())
    names.push_back(tensor.name());
  for (const pb::NodeProto &node : graph.node()) {
    names.insert(names.end(), node.output().begin(), node.output().end());
    for (const pb::AttributeProto &attribute : node.attribute())
      if (attribute.has_g())
        collectNames(attribute.g(), names);
  }
}

bool GraphImporter::addIteration(const pb::GraphProto &body, StringRef what,
                                 ArrayRef<Value> inputs,
                                 SmallVectorImpl<Value> &outputs) {
  // Nested loops multiply; what they make at most is bounded here.
  static constexpr int64_t maxNodes = 200000;
  unrolledNodes += 1 + body.node_size();
  if (unrolledNodes > maxNodes)
    fail(what + ": loops unroll to more than " + Twine(maxNodes) + " nodes");
  std::vector<std::string> own;
  for (auto [info, value] : llvm::zip(body.input(), inputs)) {
    if (values.lookup(info.name()) || initializers.count(info.name()))
      fail(what + ": its body defines " + quote(info.name()) +
           ", which is defined outside, too");
    define(info.name(), value);
    own.push_back(info.name());
  }
  collectNames(body, own);
  if (hasFailed || !addBranch(body, what))
    return false;
  for (const pb::ValueInfoProto &output : body.output())
    outputs.push_back(lookup(output.name()));
  for (const std::string &name : own) {
    values.erase(name);
    initializers.erase(name);
  }
  return !hasFailed;
}

bool GraphImporter::addResults() {
  SmallVector<Value> results;
  SmallVector<NamedAttrList> attributes;
  for (const pb::ValueInfoProto &output : graph.output()) {
    Value value = lookup(output.name());
    if (!value)
      return false;
    if (llvm::any_of(attributes, [&](NamedAttrList &list) {
          return cast<StringAttr>(list.get(nameAttrName)).getValue() ==
                 output.name();
        })) {
      fail("two outputs are named " + quote(output.name()));
      return false;
    }
    auto type = cast<RankedTensorType>(value.getType());
    std::string what = "output " + quote(output.name());
    SmallVector<Attribute> dimAttrs;
    if (output.has_type() && output.type().has_tensor_type()) {
      const auto &declared = output.type().tensor_type();
      if (!expectTensor(output, "output"))
        return false;
      if (declared.elem_type() &&
          elementType(context, declared.elem_type()) != type.getElementType()) {
        fail(what + " is declared as " + dataTypeName(declared.elem_type()) +
             ", but its nodes compute another type");
        return false;
      }
      if (declared.has_shape() &&
          declared.shape().dim_size() != type.getRank()) {
        fail(what + " is declared with " + Twine(declared.shape().dim_size()) +
             " dims, but its nodes compute " + Twine(type.getRank()));
        return false;
      }
      if (declared.has_shape())
        for (auto [i, name] : llvm::enumerate(dimNames(output))) {
          const auto &dim = declared.shape().dim(i);
          std::optional<int64_t> size =
              dim.has_dim_value() ? std::optional(dim.dim_value())
                                  : evaluateDim(dim.dim_param(), sizes);
          if (size && *size != type.getDimSize(i) && hasBranches)
            continue;
          if (size && *size != type.getDimSize(i)) {
            fail("dim " + Twine(i) + " of " + what + " is declared as " +
                 (name.empty() ? "" : quote(name) + " = ") + Twine(*size) +
                 ", but its nodes compute " + Twine(type.getDimSize(i)));
            return false;
          }
          dimAttrs.push_back(StringAttr::get(context, name));
        }
    } else if (output.has_type()) {
      expectTensor(output, "output");
      return false;
    }
    NamedAttrList list;
    list.append(nameAttrName, StringAttr::get(context, output.name()));
    if (dimAttrs.size() == static_cast<size_t>(type.getRank()))
      list.append(dimNamesAttrName, ArrayAttr::get(context, dimAttrs));
    results.push_back(value);
    attributes.push_back(list);
  }
  if (results.empty()) {
    fail("the graph has no outputs");
    return false;
  }
  func::ReturnOp::create(bodyBuilder, module->getLoc(), results);
  function.setType(bodyBuilder.getFunctionType(function.getArgumentTypes(),
                                               ValueRange(results).getTypes()));
  for (auto [i, list] : llvm::enumerate(attributes))
    function.setResultAttrs(i, list.getDictionary(context));
  return true;
}

/// Shape arithmetic and weights that only it read.
void GraphImporter::cleanUp() {
  Block &body = function.getBody().front();
  for (Operation &op : llvm::make_early_inc_range(llvm::reverse(body)))
    if (isOpTriviallyDead(&op))
      op.erase();
  for (int i = function.getNumArguments() - 1; i >= 0; --i)
    if (function.getArgument(i).use_empty() &&
        function.getArgAttr(i, weightAttrName))
      (void)function.eraseArgument(i);
}

OwningOpRef<ModuleOp> GraphImporter::run() {
  if (!readVersion() || !checkOperators() || !sort() || !bindSymbols() ||
      !addInputs() || !addNodes() || !addResults())
    return nullptr;
  cleanUp();
  for (const std::string &location : tensors.absentFiles())
    emitRemark(UnknownLoc::get(context))
        << file.path << ": external data " << quote(location)
        << " is absent; its weights are recorded without identity";
  if (mlir::failed(verify(*module)))
    return nullptr;
  return std::move(module);
}
