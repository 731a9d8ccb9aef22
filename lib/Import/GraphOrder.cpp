//===- GraphOrder.cpp - Names and order of a graph's nodes ----------------===//

#include "GraphOrder.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringMap.h"
#include <functional>
#include <queue>

using namespace mlir::dshard::onnx;
using ::dshard::Result;
using ::dshard::Status;

std::string mlir::dshard::onnx::describeNode(const pb::GraphProto &graph,
                                             int index) {
  const pb::NodeProto &node = graph.node(index);
  std::string what =
      node.name().empty() ? std::to_string(index) : quote(node.name());
  std::string op = quote(node.op_type());
  return "node " + what + " (" + op.substr(1, op.size() - 2) + ")";
}

/// Follows unsorted producers from an unsorted node until one repeats.
static std::string describeCycle(const pb::GraphProto &graph,
                                 const std::vector<std::vector<int>> &producers,
                                 const std::vector<int> &missing) {
  int node = 0;
  while (missing[node] == 0)
    ++node;
  std::vector<int> walk;
  while (!llvm::is_contained(walk, node)) {
    walk.push_back(node);
    node =
        *llvm::find_if(producers[node], [&](int p) { return missing[p] > 0; });
  }
  std::string text;
  constexpr size_t maxShown = 6;
  auto first = llvm::find(walk, node);
  // The walk goes from consumers to producers.
  std::vector<int> cycle(walk.rbegin(), std::make_reverse_iterator(first));
  for (size_t i = 0; i < std::min(cycle.size(), maxShown); ++i)
    text += describeNode(graph, cycle[i]) + " -> ";
  if (cycle.size() > maxShown)
    text += "... -> ";
  return text + describeNode(graph, cycle.front());
}

Result<std::vector<int>>
mlir::dshard::onnx::sortNodes(const pb::GraphProto &graph) {
  constexpr int external = -1; // an input or initializer
  llvm::StringMap<int> producer;
  llvm::StringMap<bool> initializers;
  for (const pb::TensorProto &tensor : graph.initializer()) {
    if (!initializers.try_emplace(tensor.name(), true).second)
      return Status::error("two initializers are named " +
                           quote(tensor.name()));
    producer[tensor.name()] = external;
  }
  llvm::StringMap<bool> inputs;
  for (const pb::ValueInfoProto &input : graph.input()) {
    if (!inputs.try_emplace(input.name(), true).second)
      return Status::error("two inputs are named " + quote(input.name()));
    producer[input.name()] = external;
  }
  for (int i = 0; i < graph.node_size(); ++i)
    for (const std::string &output : graph.node(i).output()) {
      if (output.empty())
        continue;
      auto [entry, isNew] = producer.try_emplace(output, i);
      if (isNew)
        continue;
      return Status::error(describeNode(graph, i) + ": output " +
                           quote(output) + " is already defined by " +
                           (entry->second == external
                                ? "an input or initializer"
                                : describeNode(graph, entry->second)));
    }

  std::vector<std::vector<int>> producers(graph.node_size()),
      consumers(graph.node_size());
  std::vector<int> missing(graph.node_size());
  for (int i = 0; i < graph.node_size(); ++i)
    for (const std::string &input : graph.node(i).input()) {
      if (input.empty())
        continue;
      auto entry = producer.find(input);
      if (entry == producer.end())
        return Status::error(
            describeNode(graph, i) + ": input " + quote(input) +
            " is not defined by any node, input or initializer");
      if (entry->second == external)
        continue;
      producers[i].push_back(entry->second);
      consumers[entry->second].push_back(i);
      ++missing[i];
    }
  for (const pb::ValueInfoProto &output : graph.output())
    if (!producer.count(output.name()))
      return Status::error("graph output " + quote(output.name()) +
                           " is not defined by any node, input or initializer");

  std::priority_queue<int, std::vector<int>, std::greater<int>> ready;
  for (int i = 0; i < graph.node_size(); ++i)
    if (missing[i] == 0)
      ready.push(i);
  std::vector<int> order;
  while (!ready.empty()) {
    int node = ready.top();
    ready.pop();
    order.push_back(node);
    for (int consumer : consumers[node])
      if (--missing[consumer] == 0)
        ready.push(consumer);
  }
  if (static_cast<int>(order.size()) != graph.node_size())
    return Status::error("the graph has a cycle: " +
                         describeCycle(graph, producers, missing));
  return order;
}
