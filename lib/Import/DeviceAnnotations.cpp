//===- DeviceAnnotations.cpp - ONNX multi-device annotations --------------===//

#include "DeviceAnnotations.h"
#include "GraphOrder.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SmallSet.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringSet.h"
#include <set>

using namespace mlir::dshard::onnx;
using ::dshard::Status;

bool mlir::dshard::onnx::hasDeviceAnnotations(const pb::ModelProto &model) {
  return model.configuration_size() > 0 ||
         llvm::any_of(model.graph().node(), [](const pb::NodeProto &node) {
           return node.device_configurations_size() > 0;
         });
}

namespace {
class Checker {
public:
  explicit Checker(const pb::ModelProto &model)
      : model(model), graph(model.graph()) {}
  Status run();

private:
  Status configurations();
  Status node(int index);
  Status spec(const pb::NodeProto &node, const std::string &where,
              const pb::ShardingSpecProto &spec, int64_t devices);
  Status stages();
  void findShapes();

  const pb::ModelProto &model;
  const pb::GraphProto &graph;
  llvm::StringMap<int64_t> numDevices; // by configuration
  /// Sizes of dims; -1: not known.
  llvm::StringMap<std::vector<int64_t>> shapes;
};
} // namespace

void Checker::findShapes() {
  for (const auto *list :
       {&graph.value_info(), &graph.input(), &graph.output()})
    for (const pb::ValueInfoProto &value : *list) {
      if (!value.type().tensor_type().has_shape())
        continue;
      std::vector<int64_t> &shape = shapes[value.name()];
      shape.clear();
      for (const auto &dim : value.type().tensor_type().shape().dim())
        shape.push_back(dim.has_dim_value() ? dim.dim_value() : -1);
    }
  for (const pb::TensorProto &tensor : graph.initializer())
    shapes[tensor.name()].assign(tensor.dims().begin(), tensor.dims().end());
}

Status Checker::configurations() {
  constexpr int64_t most = 1 << 20;
  for (const pb::DeviceConfigurationProto &item : model.configuration()) {
    auto fail = [&](const std::string &why) {
      return Status::error("device configuration " + quote(item.name()) + " " +
                           why);
    };
    if (item.name().empty())
      return fail("has no name");
    if (item.num_devices() < 1 || item.num_devices() > most)
      return fail("has " + std::to_string(item.num_devices()) +
                  " devices; 1 to " + std::to_string(most) + " are possible");
    if (item.device_size() > 0 && item.device_size() != item.num_devices())
      return fail("names " + std::to_string(item.device_size()) +
                  " devices, but has " + std::to_string(item.num_devices()));
    if (!numDevices.try_emplace(item.name(), item.num_devices()).second)
      return fail("is there twice");
  }
  return Status();
}

Status Checker::spec(const pb::NodeProto &node, const std::string &where,
                     const pb::ShardingSpecProto &spec, int64_t devices) {
  std::string name = quote(spec.tensor_name());
  auto fail = [&](const std::string &why) {
    return Status::error(where + "the sharding of " + name + " " + why);
  };
  if (!llvm::is_contained(node.input(), spec.tensor_name()) &&
      !llvm::is_contained(node.output(), spec.tensor_name()))
    return fail("is of none of the node's inputs and outputs");
  auto shape = shapes.find(spec.tensor_name());
  llvm::SmallSet<int64_t, 4> axes;
  int64_t shards = 1;
  for (const pb::ShardedDimProto &sharded : spec.sharded_dim()) {
    int64_t axis = sharded.axis(), size = -1;
    if (shape != shapes.end()) {
      auto rank = static_cast<int64_t>(shape->second.size());
      if (axis < -rank || axis >= rank)
        return fail("has the axis " + std::to_string(axis) +
                    "; the tensor has " + std::to_string(rank) + " dims");
      axis += axis < 0 ? rank : 0;
      size = shape->second[axis];
    }
    if (!axes.insert(axis).second)
      return fail("has the axis " + std::to_string(axis) + " twice");
    int64_t ofAxis = 1;
    for (const pb::SimpleShardedDimProto &simple : sharded.simple_sharding()) {
      if (simple.num_shards() < 1 || simple.num_shards() > devices)
        return fail("has " + std::to_string(simple.num_shards()) +
                    " shards of axis " + std::to_string(axis) +
                    "; 1 to the number of devices, " + std::to_string(devices) +
                    ", are possible");
      int64_t part = simple.has_dim_value() ? simple.dim_value() : size;
      if (part >= 0 && simple.num_shards() > part)
        return fail("has " + std::to_string(simple.num_shards()) +
                    " shards of axis " + std::to_string(axis) + " of size " +
                    std::to_string(part));
      ofAxis *= simple.num_shards();
      shards *= simple.num_shards();
      if (shards > devices || ofAxis > devices)
        return fail("has " + std::to_string(shards) +
                    " shards for a configuration of " +
                    std::to_string(devices) + " devices");
    }
  }
  // Negative devices are groups, each of which holds one shard.
  std::set<int64_t> groups;
  for (const pb::IntIntListEntryProto &entry :
       spec.index_to_device_group_map()) {
    std::string what = "has the device group " + std::to_string(entry.key());
    if (entry.value_size() == 0)
      return fail(what + " without devices");
    for (int64_t device : entry.value())
      if (device < 0 || device >= devices)
        return fail(what + " with the device " + std::to_string(device) +
                    "; devices are 0 to " + std::to_string(devices - 1));
    if (!groups.insert(entry.key()).second)
      return fail(what + " twice");
  }
  for (int64_t device : spec.device()) {
    if (device >= devices)
      return fail("has the device " + std::to_string(device) +
                  "; the configuration has " + std::to_string(devices));
    if (device < 0 && !groups.count(device))
      return fail("has the device " + std::to_string(device) +
                  ", which is no key of its device groups");
  }
  if (spec.sharded_dim_size() > 0 && spec.device_size() != shards)
    return fail("has " + std::to_string(shards) + " shards on " +
                std::to_string(spec.device_size()) + " devices");
  return Status();
}

Status Checker::node(int index) {
  const pb::NodeProto &node = graph.node(index);
  std::string where = describeNode(graph, index) + ": ";
  llvm::StringSet<> known;
  for (const pb::NodeDeviceConfigurationProto &item :
       node.device_configurations()) {
    const std::string &id = item.configuration_id();
    auto configuration = numDevices.find(id);
    if (configuration == numDevices.end())
      return Status::error(where + "there is no device configuration " +
                           quote(id));
    if (!known.insert(id).second)
      return Status::error(where +
                           "is annotated twice for the device "
                           "configuration " +
                           quote(id));
    if (item.pipeline_stage() < 0)
      return Status::error(where + "has the pipeline stage " +
                           std::to_string(item.pipeline_stage()));
    llvm::StringSet<> tensors;
    for (const pb::ShardingSpecProto &sharding : item.sharding_spec()) {
      if (!tensors.insert(sharding.tensor_name()).second)
        return Status::error(where + "has two shardings of " +
                             quote(sharding.tensor_name()));
      if (Status s = spec(node, where, sharding, configuration->second); !s)
        return s;
    }
  }
  return Status();
}

/// Values go forward through the stages of a configuration.
Status Checker::stages() {
  llvm::StringMap<int> producers;
  for (int i = 0; i < graph.node_size(); ++i)
    for (const std::string &output : graph.node(i).output())
      producers[output] = i;
  auto stageOf = [&](int index, const std::string &id) -> int64_t {
    for (const auto &item : graph.node(index).device_configurations())
      if (item.configuration_id() == id && item.has_pipeline_stage())
        return item.pipeline_stage();
    return -1;
  };
  for (int i = 0; i < graph.node_size(); ++i)
    for (const auto &item : graph.node(i).device_configurations())
      for (const std::string &input : graph.node(i).input()) {
        auto producer = producers.find(input);
        if (!item.has_pipeline_stage() || producer == producers.end())
          continue;
        int64_t before = stageOf(producer->second, item.configuration_id());
        if (before > item.pipeline_stage())
          return Status::error(
              describeNode(graph, i) + ": is on pipeline stage " +
              std::to_string(item.pipeline_stage()) + ", behind " +
              describeNode(graph, producer->second) + " on stage " +
              std::to_string(before));
      }
  return Status();
}

Status Checker::run() {
  if (Status s = configurations(); !s)
    return s;
  findShapes();
  for (int i = 0; i < graph.node_size(); ++i)
    if (Status s = node(i); !s)
      return s;
  return stages();
}

Status mlir::dshard::onnx::checkDeviceAnnotations(const pb::ModelProto &model) {
  return Checker(model).run();
}
