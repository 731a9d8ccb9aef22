//===- HostTensors.cpp - The global inputs and outputs --------------------===//

#include "HostTensors.h"

#include "dshard/Runtime/Cpu/Convert.h"
#include "dshard/Support/File.h"
#include "dshard/Support/Philox.h"
#include "dshard/Support/Text.h"

#include <algorithm>
#include <cmath>
#include <limits>

using namespace dshard;
using namespace dshard::run;
using plan::DataType;

static HostTensor describe(const Session &session, const plan::Port &port,
                           int64_t steps) {
  HostTensor tensor;
  tensor.name = std::string(session.plan().string(port.name()));
  tensor.port = &port;
  tensor.type = port.global()->dtype();
  tensor.dims.assign(port.global()->dims()->begin(),
                     port.global()->dims()->end());
  tensor.stepBytes = static_cast<uint64_t>(plan::elementCount(tensor.dims)) *
                     plan::byteSize(tensor.type);
  if (steps)
    tensor.dims.insert(tensor.dims.begin(), steps);
  return tensor;
}

static Status allocate(HostTensor &tensor, int64_t steps) {
  auto memory = AlignedBuffer::allocate(
      tensor.stepBytes * static_cast<uint64_t>(std::max<int64_t>(1, steps)),
      "an input or output");
  if (!memory)
    return memory.status();
  tensor.data = std::move(*memory);
  tensor.data.touch();
  return Status();
}

/// Support/Philox.h: floats symmetric, ids below the gathered size, the rest
/// (masks) ones.
static void draw(HostTensor &tensor, uint64_t seed) {
  RandomStream random(seed, tensor.name);
  int64_t count = plan::elementCount(tensor.dims);
  void *data = tensor.data.data();
  if (tensor.type == DataType::f32) {
    for (int64_t i = 0; i < count; ++i)
      static_cast<float *>(data)[i] = random.symmetric(i);
    return;
  }
  bool ids = plan::isInteger(tensor.type) && tensor.port->has_range();
  // Negative ids count from the end, where they are allowed; none are drawn.
  int64_t low = tensor.port->range_min(), high = tensor.port->range_max();
  if (high >= 0)
    low = std::max<int64_t>(0, low);
  uint64_t values = std::min<uint64_t>(static_cast<uint64_t>(high) -
                                           static_cast<uint64_t>(low) + 1,
                                       uint64_t{1} << 32);
  for (int64_t i = 0; i < count; ++i) {
    double value = plan::isFloat(tensor.type) ? random.symmetric(i)
                   : ids ? double(random.integer(i, low, values))
                         : 1.0;
    cpu::storeDouble(data, tensor.type, i, value);
  }
}

static bool parseRandom(const std::string &text, uint64_t &seed) {
  seed = 0;
  if (text == "random")
    return true;
  int64_t number;
  if (text.compare(0, 7, "random:") != 0 ||
      !parseInteger(text.substr(7), number, 0))
    return false;
  seed = static_cast<uint64_t>(number);
  return true;
}

Session::NamedTensors
dshard::run::viewsOf(const std::vector<HostTensor> &tensors, int64_t step) {
  Session::NamedTensors views;
  for (const HostTensor &tensor : tensors) {
    const plan::TensorType &type = *tensor.port->global();
    views.emplace_back(
        tensor.name,
        TensorView{tensor.type,
                   {type.dims()->begin(), type.dims()->end()},
                   tensor.data.data() +
                       static_cast<uint64_t>(step) * tensor.stepBytes});
  }
  return views;
}

Result<std::vector<HostTensor>>
dshard::run::readInputs(const Session &session, const std::string &entryName,
                        const CommandLine &line) {
  std::vector<HostTensor> tensors;
  for (const Named &input : line.inputs) {
    auto port = session.findPort(entryName, /*input=*/true, input.first);
    if (!port)
      return port.status();
    HostTensor tensor = describe(session, **port, line.steps);
    uint64_t seed;
    bool isRandom = input.second.compare(0, 7, "random:") == 0;
    if (parseRandom(input.second, seed)) {
      if (Status status = allocate(tensor, line.steps); !status)
        return status;
      draw(tensor, seed);
    } else {
      Result<NpyArray> array = readNpy(input.second, tensor.type);
      if (!array && isRandom)
        return Status::error("input '" + tensor.name + "': the seed of '" +
                             input.second + "' is not a number");
      if (!array)
        return array.status();
      std::vector<int64_t> dims = array->dims;
      // One step needs no dim of its own.
      if (line.steps == 1 && dims.size() + 1 == tensor.dims.size())
        dims.insert(dims.begin(), 1);
      if (line.steps && dims != tensor.dims)
        return Status::error("input '" + tensor.name + "' has the shape " +
                             dimsText(array->dims) + ", with --steps " +
                             std::to_string(line.steps) + " the plan takes " +
                             dimsText(tensor.dims) +
                             ": one batch for every step");
      if (line.steps)
        dims.erase(dims.begin());
      // Type and shape before anything relies on them, and every step's values
      // before the first step.
      for (int64_t step = 0; step < std::max<int64_t>(1, line.steps); ++step) {
        TensorView view = {array->type, dims,
                           array->data.data() +
                               static_cast<uint64_t>(step) * tensor.stepBytes};
        if (Status status = session.checkInput(entryName, tensor.name, view);
            !status)
          return line.steps > 1 ? Status::error(status.message() + " (step " +
                                                std::to_string(step + 1) + ")")
                                : status;
      }
      tensor.data = std::move(array->data);
    }
    tensors.push_back(std::move(tensor));
  }
  // Each is as it should be: only that some are missing can still be wrong.
  if (Status status = session.checkInputs(entryName, viewsOf(tensors, 0));
      !status)
    return Status::error(status.message() + "; give --input NAME=FILE.npy or "
                                            "--input NAME=random");
  return tensors;
}

Result<std::vector<HostTensor>>
dshard::run::makeOutputs(const Session &session, const plan::Entry &entry,
                         const CommandLine &line) {
  std::vector<HostTensor> tensors;
  auto named = [&](std::string_view name) {
    for (const auto *list : {&line.outputs, &line.expected})
      for (const Named &wanted : *list)
        if (wanted.first == name)
          return true;
    return false;
  };
  for (const plan::Port *port : *entry.outputs()) {
    // A check of the plan's own, unless someone asks for it.
    if (port->finite() && port->finite()->size() &&
        !named(session.plan().string(port->name())))
      continue;
    tensors.push_back(describe(session, *port, line.steps));
    if (Status status = allocate(tensors.back(), line.steps); !status)
      return status;
  }
  return tensors;
}

Result<std::vector<Expected>>
dshard::run::readExpected(const std::vector<HostTensor> &outputs,
                          const CommandLine &line) {
  std::vector<Expected> result;
  for (const Named &wanted : line.expected)
    for (const HostTensor &output : outputs) {
      if (output.name != wanted.first)
        continue;
      Result<NpyArray> array = readNpy(wanted.second, output.type);
      if (!array)
        return array.status();
      if (array->dims != output.dims)
        return Status::error(wanted.second + ": has the shape " +
                             dimsText(array->dims) + ", output '" +
                             output.name + "' has " + dimsText(output.dims));
      result.push_back({&output, wanted.second, std::move(*array)});
    }
  return result;
}

Status dshard::run::checkOutputs(const Session &session,
                                 const std::string &entryName,
                                 const CommandLine &line) {
  for (const auto *list : {&line.outputs, &line.expected})
    for (const Named &wanted : *list)
      if (auto port =
              session.findPort(entryName, /*input=*/false, wanted.first);
          !port)
        return port.status();
  // A run may take long; what it cannot write is said before.
  for (const Named &wanted : line.outputs)
    if (Status status = FileWriter::check(wanted.second); !status)
      return status;
  return line.trace.empty() ? Status() : FileWriter::check(line.trace);
}

Statistics dshard::run::statisticsOf(const HostTensor &tensor) {
  Statistics result;
  int64_t count = plan::elementCount(tensor.dims);
  double low = std::numeric_limits<double>::infinity(), high = -low, sum = 0;
  const void *data = tensor.data.data();
  for (int64_t i = 0; i < count; ++i) {
    double x = tensor.type == DataType::f32
                   ? static_cast<const float *>(data)[i]
                   : cpu::elementAsDouble(data, tensor.type, i);
    if (!std::isfinite(x)) {
      ++result.notFinite;
      continue;
    }
    low = std::min(low, x);
    high = std::max(high, x);
    sum += x;
  }
  int64_t finite = count - static_cast<int64_t>(result.notFinite);
  if (finite) {
    result.minimum = low;
    result.maximum = high;
    result.mean = sum / static_cast<double>(finite);
  }
  return result;
}

Comparison dshard::run::compare(const Expected &expected, double rtol,
                                double atol) {
  const HostTensor &output = *expected.output;
  const NpyArray &array = expected.array;
  Comparison result;
  result.name = output.name;
  int64_t count = plan::elementCount(output.dims), worst = -1;
  for (int64_t i = 0; i < count; ++i) {
    double ours = cpu::elementAsDouble(output.data.data(), output.type, i);
    double theirs = cpu::elementAsDouble(array.data.data(), array.type, i);
    double difference = std::abs(ours - theirs);
    // Equal infinities and two NaNs are equal.
    if (ours == theirs || (std::isnan(ours) && std::isnan(theirs)))
      difference = 0;
    else if (std::isnan(difference))
      difference = std::numeric_limits<double>::infinity();
    if (!(difference <= atol + rtol * std::abs(theirs)))
      result.within = false;
    if (worst < 0 || difference > result.largest) {
      worst = i;
      result.largest = difference;
      result.ours = ours;
      result.theirs = theirs;
    }
  }
  for (int64_t d = static_cast<int64_t>(output.dims.size()) - 1;
       d >= 0 && worst >= 0; --d) {
    result.place.insert(result.place.begin(), worst % output.dims[d]);
    worst /= output.dims[d];
  }
  return result;
}
