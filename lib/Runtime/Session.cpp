//===- Session.cpp - Load a plan, bind, run -------------------------------===//

#include "dshard/Runtime/Session.h"

#include "dshard/Plan/PlanVerifier.h"
#include "dshard/Plan/RankShare.h"
#include "dshard/Runtime/Cpu/Convert.h"
#include "dshard/Runtime/Cpu/CpuFeatures.h"
#include "dshard/Support/Text.h"

#include <algorithm>
#include <cmath>
#include <set>

using namespace dshard;
using cpu::elementBytes;

static std::vector<int64_t> dimsOf(const plan::TensorType &type) {
  return std::vector<int64_t>(type.dims()->begin(), type.dims()->end());
}

//===----------------------------------------------------------------------===//
// Making a session
//===----------------------------------------------------------------------===//

Result<std::unique_ptr<Session>>
Session::create(std::unique_ptr<plan::Reader> reader, SessionOptions options) {
  std::unique_ptr<Session> session(new Session);
  session->reader = std::move(reader);
  session->options = std::move(options);
  const plan::Plan &plan = session->reader->plan();
  auto failed = [&](const Status &status) {
    return Status::error(session->reader->name() + ": " + status.message());
  };
  std::string target = plan.target()->str();
  bool isGpu = plan::gpuArchitecture(target) != 0;
  if (!isGpu && target.compare(0, 3, "cpu") != 0)
    return failed(
        Status::error("plan is for '" + target +
                      "'; this runtime runs plans for cpu and cuda:sm_NN"));
  if (Status status = plan::verifyPlan(plan); !status)
    return failed(status);
  for (const plan::Scalar *scalar : *plan.scalars())
    session->loaded.scalars.push_back(scalar->initial());
  session->ranks = std::make_unique<plan::Topology>(plan);
  session->loaded.reader = session->reader.get();
  session->loaded.topology = session->ranks.get();
  session->communicators = InProcessWorld::create(plan, *session->ranks);
  Status status = isGpu ? session->openGpus() : session->openCpu();
  if (!status)
    return failed(status);
  uint32_t count = session->ranks->rankCount();
  for (auto &executor : session->executors)
    if (status = executor->check(); !status)
      return failed(status);
  session->team = std::make_unique<cpu::ThreadPool>(count);
  if (status = session->team->status(); !status)
    return failed(Status::error("ranks: " + status.message()));
  return session;
}

Status Session::openGpus() {
  Result<std::unique_ptr<cuda::CudaWorld>> opened =
      cuda::CudaWorld::create(*reader, *ranks, *communicators);
  if (!opened)
    return opened.status();
  gpus = std::move(*opened);
  for (uint32_t rank = 0; rank < ranks->rankCount(); ++rank)
    executors.push_back(std::make_unique<Executor>(
        loaded, rank, gpus->device(rank), gpus->communicator(rank)));
  return Status();
}

Status Session::openCpu() {
  const plan::Plan &plan = reader->plan();
  std::vector<std::string> features;
  for (const flatbuffers::String *feature : *plan.features())
    features.push_back(feature->str());
  if (Status status = cpu::checkFeatures(features); !status)
    return status;
  for (const plan::Image *image : *plan.images()) {
    auto code =
        cpu::KernelImage::load(reader->section(image->offset()), image->size());
    if (!code)
      return code.status();
    images.push_back(std::move(*code));
  }
  for (const plan::Kernel *kernel : *plan.kernels()) {
    auto function = images[kernel->image()]->function(kernel->entry());
    if (!function)
      return function.status();
    loaded.kernels.push_back(*function);
  }
  uint32_t count = ranks->rankCount();
  workers = options.threads;
  if (workers == 0) {
    Result<unsigned> share = cpu::threadsPerRank(count);
    if (!share)
      return share.status();
    workers = *share;
  }
  for (uint32_t rank = 0; rank < count; ++rank) {
    devices.push_back(std::make_unique<cpu::CpuDevice>(workers));
    cpu::CpuDevice &device = *devices.back();
    if (Status status = device.threads().status(); !status)
      return Status::error("rank " + std::to_string(rank) + " of " +
                           std::to_string(count) + ": " + status.message());
    executors.push_back(std::make_unique<Executor>(
        loaded, rank, device.device(),
        communicators->communicator(rank, &device.threads())));
  }
  return Status();
}

Session::~Session() = default;

template <typename Body> Status Session::onAllRanks(Body &&body) {
  communicators->reset();
  team->run([&](unsigned rank) {
    Status status = body(rank);
    if (status)
      return;
    status =
        Status::error("rank " + std::to_string(rank) + ": " + status.message());
    communicators->abort(status);
    if (gpus) {
      Communicator end = gpus->communicator(rank);
      end.functions->abort(end.state, status);
    }
  });
  Status failure = communicators->failure();
  // A GPU's copies to and from the host, between runs, look at it as well.
  communicators->reset();
  return failure;
}

Status Session::load() {
  auto opened = WeightReader::open(*reader, options.weights);
  if (!opened)
    return opened.status();
  loaded.weights = opened->get();
  {
    std::lock_guard<std::mutex> lock(loading);
    weights = std::move(*opened);
  }
  std::vector<Status> failures(executors.size());
  Status status = onAllRanks([&](uint32_t rank) {
    failures[rank] = executors[rank]->allocate();
    if (failures[rank])
      failures[rank] = executors[rank]->zeroStates();
    if (failures[rank])
      failures[rank] = executors[rank]->run(reader->plan().load());
    return failures[rank];
  });
  loaded.weights = nullptr;
  {
    std::lock_guard<std::mutex> lock(loading);
    loadedTotal = weights->bytesDone();
    weights.reset();
  }
  if (!status) {
    // All ranks tend to say the same; one of them says it best.
    for (const Status &failure : failures)
      if (!failure)
        return failure;
    return status;
  }
  ready = true;
  return Status();
}

uint64_t Session::loadedBytes() const {
  std::lock_guard<std::mutex> lock(loading);
  return weights ? weights->bytesDone() : loadedTotal;
}

RankMemory Session::plannedPerRank() const {
  RankMemory most;
  for (uint32_t i = 0; i < plan::stageRanks(reader->plan()); ++i) {
    RankMemory memory = plannedMemory(reader->plan(), i, workers);
    if (memory.total() > most.total())
      most = memory;
  }
  return most;
}

RankMemory Session::plannedOfAllRanks() const {
  RankMemory sum;
  uint32_t stages = plan::stageRanks(reader->plan());
  uint64_t each = ranks->rankCount() / stages;
  for (uint32_t i = 0; i < stages; ++i) {
    RankMemory memory = plannedMemory(reader->plan(), i, workers);
    sum.states += each * memory.states;
    sum.arena += each * memory.arena;
    sum.scratch += each * memory.scratch;
    sum.messages += each * memory.messages;
  }
  return sum;
}

//===----------------------------------------------------------------------===//
// Names
//===----------------------------------------------------------------------===//

const plan::Entry *Session::findEntry(std::string_view name) const {
  for (const plan::Entry *entry : *reader->plan().entries())
    if (reader->string(entry->name()) == name)
      return entry;
  return nullptr;
}

Status Session::entryError(std::string_view name) const {
  std::vector<std::string> names;
  for (const plan::Entry *entry : *reader->plan().entries())
    names.emplace_back(reader->string(entry->name()));
  return Status::error("the plan has no entry point '" + std::string(name) +
                       "'" + didYouMean(name, names) + "; it has " +
                       join(names, ", "));
}

Result<const plan::Port *> Session::findPort(std::string_view entryName,
                                             bool input,
                                             std::string_view name) const {
  const plan::Entry *entry = findEntry(entryName);
  if (!entry)
    return entryError(entryName);
  const auto &ports = input ? *entry->inputs() : *entry->outputs();
  std::vector<std::string> names;
  for (const plan::Port *port : ports) {
    if (reader->string(port->name()) == name)
      return port;
    names.emplace_back(reader->string(port->name()));
  }
  return Status::error("entry point '" + std::string(entryName) + "' has no " +
                       (input ? "input" : "output") + " '" + std::string(name) +
                       "'" + didYouMean(name, names) + "; it has " +
                       (names.empty() ? "none" : join(names, ", ")));
}

Status Session::setScalar(std::string_view name, double value) {
  std::vector<std::string> names;
  const auto &scalars = *reader->plan().scalars();
  for (uint32_t i = 0; i < scalars.size(); ++i) {
    const plan::Scalar &scalar = *scalars.Get(i);
    names.emplace_back(reader->string(scalar.name()));
    if (names.back() != name)
      continue;
    if (!std::isfinite(value))
      return Status::error("scalar '" + std::string(name) + "' is " +
                           formatDouble(value) + "; it must be finite");
    if (scalar.dtype() == plan::DataType::f32 &&
        !std::isfinite(static_cast<float>(value)))
      return Status::error("scalar '" + std::string(name) +
                           "' is f32 and cannot be " + formatDouble(value));
    // 2^31 and 2^63 are exact as doubles.
    double bound = scalar.dtype() == plan::DataType::i32 ? 0x1p31 : 0x1p63;
    if (plan::isInteger(scalar.dtype()) &&
        !(value >= -bound && value < bound && value == std::floor(value)))
      return Status::error("scalar '" + std::string(name) + "' is " +
                           plan::toString(scalar.dtype()) + " and cannot be " +
                           formatDouble(value));
    loaded.scalars[i] = value;
    return Status();
  }
  return Status::error("the plan has no scalar '" + std::string(name) + "'" +
                       didYouMean(name, names) + "; it has " +
                       (names.empty() ? "none" : join(names, ", ")));
}

//===----------------------------------------------------------------------===//
// Inputs and outputs
//===----------------------------------------------------------------------===//

std::vector<uint32_t> Session::ranksOf(const plan::Entry &entry,
                                       uint32_t program) const {
  std::vector<uint32_t> result;
  for (uint32_t rank = 0; rank < ranks->rankCount(); ++rank) {
    uint32_t coordinate = pipelineCoordinate(*ranks, rank);
    for (const plan::Action *action :
         *entry.actions()->Get(coordinate)->actions())
      if (entry.programs()->Get(action->stage()) == program) {
        result.push_back(rank);
        break;
      }
  }
  return result;
}

/// Copies a shard's part of the global tensor (in) to the shard (out); nothing
/// where the shard lies wholly in the padding.
static StridedCopy shardCopy(const std::vector<int64_t> &global,
                             const std::vector<int64_t> &local,
                             const std::vector<int64_t> &origin,
                             int64_t &globalOffset) {
  StridedCopy copy;
  copy.dims = static_cast<int>(global.size());
  int64_t globalStride = 1, localStride = 1;
  globalOffset = 0;
  for (int i = copy.dims - 1; i >= 0; --i) {
    copy.sizes[i] = std::clamp<int64_t>(global[i] - origin[i], 0, local[i]);
    copy.inStrides[i] = globalStride;
    copy.outStrides[i] = localStride;
    globalOffset += origin[i] * globalStride;
    globalStride *= global[i];
    localStride *= local[i];
  }
  return copy;
}

namespace {
/// The order in which a dim of a global tensor is dealt out (Port.layout).
struct DealtDim {
  int dim = -1;
  plan::SequenceLayout layout = plan::SequenceLayout::contiguous;
  int64_t parts = 1;

  DealtDim() = default;
  explicit DealtDim(const plan::Port &port)
      : dim(port.layout() == plan::SequenceLayout::contiguous
                ? -1
                : port.layout_dim()),
        layout(port.layout()), parts(port.layout_parts()) {}

  /// Where position `index` of the dealt dim is in the user's tensor; the
  /// dialect's `reorder` (LayoutOps.td).
  int64_t natural(int64_t size, int64_t index) const {
    int64_t share = size / parts, part = index / share, inside = index % share;
    if (layout == plan::SequenceLayout::striped)
      return inside * parts + part;
    int64_t chunk = share / 2;
    return inside < chunk ? part * chunk + inside
                          : (2 * parts - 1 - part) * chunk + inside - chunk;
  }
};
} // namespace

/// Calls each(copy, global offset, local offset) for the pieces of a shard that
/// lie evenly in the global tensor: one, or several along a dealt dim.
template <typename Function>
static void eachPiece(const std::vector<int64_t> &global,
                      const std::vector<int64_t> &local,
                      const std::vector<int64_t> &origin, const DealtDim &dealt,
                      Function each) {
  int64_t offset;
  StridedCopy whole = shardCopy(global, local, origin, offset);
  if (dealt.dim < 0) {
    each(whole, offset, int64_t{0});
    return;
  }
  int d = dealt.dim;
  int64_t count = whole.sizes[d], first = origin[d];
  offset -= first * whole.inStrides[d];
  for (int64_t begin = 0, end; begin < count; begin = end) {
    int64_t from = dealt.natural(global[d], first + begin), step = 1;
    for (end = begin + 1; end < count; ++end) {
      int64_t next = dealt.natural(global[d], first + end);
      if (end == begin + 1)
        step = next - from;
      if (next != from + (end - begin) * step || step < 1)
        break;
    }
    StridedCopy piece = whole;
    piece.sizes[d] = end - begin;
    piece.inStrides[d] *= step;
    each(piece, offset + from * whole.inStrides[d],
         begin * whole.outStrides[d]);
  }
}

/// How many pieces dim 0 of a port lies in: one per micro-batch, or one.
static uint32_t slotsOf(const plan::Plan &plan, const plan::Port &port) {
  return plan.programs()
      ->Get(port.program())
      ->buffers()
      ->Get(port.buffer())
      ->slots();
}

static Status checkRange(const plan::Port &port, const std::string &name,
                         const TensorView &tensor) {
  int64_t index, value, extra = port.extra();
  if (!port.has_range() ||
      !cpu::findOutside(tensor.data, tensor.type,
                        plan::elementCount(tensor.dims), port.range_min(),
                        port.range_max(), port.has_extra() ? &extra : nullptr,
                        index, value))
    return Status();
  std::vector<int64_t> position;
  for (size_t i = tensor.dims.size(); i-- > 0; index /= tensor.dims[i])
    position.insert(position.begin(), index % tensor.dims[i]);
  return Status::error(
      "input '" + name + "' has the value " + std::to_string(value) + " at " +
      dimsText(position) + "; allowed are " + std::to_string(port.range_min()) +
      " to " + std::to_string(port.range_max()) +
      (port.has_extra() ? " and " + std::to_string(extra) : std::string()));
}

Status Session::checkInput(std::string_view entryName, std::string_view name,
                           const TensorView &tensor) const {
  auto found = findPort(entryName, /*input=*/true, name);
  if (!found)
    return found.status();
  const plan::Port &port = **found;
  std::string text(name);
  if (tensor.type != port.global()->dtype())
    return Status::error("input '" + text + "' is " +
                         plan::toString(tensor.type) + ", the plan takes " +
                         plan::toString(port.global()->dtype()));
  std::vector<int64_t> global = dimsOf(*port.global());
  if (tensor.dims != global)
    return Status::error("input '" + text + "' has the shape " +
                         dimsText(tensor.dims) + ", the plan takes " +
                         dimsText(global));
  if (global.size() > maxDims)
    return Status::error("input '" + text + "' has more than " +
                         std::to_string(maxDims) + " dims");
  // Stages that read it may each allow other values.
  for (const plan::Port *place : *findEntry(entryName)->inputs())
    if (place->name() == port.name())
      if (Status status = checkRange(*place, text, tensor); !status)
        return status;
  return Status();
}

Status Session::copyInput(const plan::Entry &entry, const plan::Port &port,
                          const TensorView &tensor) {
  std::vector<int64_t> local = dimsOf(*port.local());
  int64_t size = elementBytes(tensor.type);
  uint32_t slots = slotsOf(reader->plan(), port);
  if (slots > 1)
    local[0] /= slots;
  uint64_t bytes = plan::elementCount(local) * size;
  auto copySlot = [&](uint32_t rank, uint32_t slot, bool &isBound) {
    Executor &executor = *executors[rank];
    char *place = static_cast<char *>(
        executor.address(port.program(), port.buffer(), slot));
    isBound = slot == 0 && place == tensor.data;
    if (isBound)
      return Status();
    char *to = place;
    if (!executor.isHostMemory()) {
      staging.resize(bytes);
      to = staging.data();
    }
    std::vector<int64_t> origin =
        ranks->shardOrigin(port.sharding(), *port.local()->dims(), rank);
    if (slots > 1)
      origin[0] += slot * local[0];
    int64_t offset;
    StridedCopy whole = shardCopy(tensor.dims, local, origin, offset);
    if (plan::elementCount(local) !=
        plan::elementCount({whole.sizes, whole.sizes + whole.dims}))
      std::fill(to, to + bytes, 0);
    eachPiece(tensor.dims, local, origin, DealtDim(port),
              [&](const StridedCopy &copy, int64_t from, int64_t at) {
                cpu::copyStrided(
                    copy, static_cast<const char *>(tensor.data) + from * size,
                    tensor.type, to + at * size, tensor.type);
              });
    return to == place ? Status() : executor.upload(place, to, bytes);
  };
  for (uint32_t rank : ranksOf(entry, port.program())) {
    bool isBound = false;
    for (uint32_t slot = 0; slot < slots && !isBound; ++slot)
      if (Status status = copySlot(rank, slot, isBound); !status)
        return Status::error("rank " + std::to_string(rank) + ": " +
                             status.message());
  }
  return Status();
}

Status Session::copyInputs(std::string_view entryName, std::string_view name,
                           const TensorView &tensor) {
  const plan::Entry &entry = *findEntry(entryName);
  for (const plan::Port *port : *entry.inputs())
    if (reader->string(port->name()) == name)
      if (Status status = copyInput(entry, *port, tensor); !status)
        return status;
  return Status();
}

Status Session::setInput(std::string_view entryName, std::string_view name,
                         const TensorView &tensor) {
  if (Status status = checkInput(entryName, name, tensor); !status)
    return status;
  if (!ready)
    return Status::error("the session is not loaded");
  return copyInputs(entryName, name, tensor);
}

Status Session::checkInputs(std::string_view entryName,
                            const NamedTensors &tensors) const {
  const plan::Entry *entry = findEntry(entryName);
  if (!entry)
    return entryError(entryName);
  for (const auto &tensor : tensors)
    if (Status status = checkInput(entryName, tensor.first, tensor.second);
        !status)
      return status;
  std::vector<std::string> missing;
  for (const plan::Port *port : *entry->inputs()) {
    std::string name(reader->string(port->name()));
    bool given = false;
    for (const auto &tensor : tensors)
      given |= tensor.first == name;
    std::string quoted = "'" + name + "'"; // several stages may read it
    if (!given &&
        std::find(missing.begin(), missing.end(), quoted) == missing.end())
      missing.push_back(quoted);
  }
  if (missing.empty())
    return Status();
  return Status::error(std::string("no value for the input") +
                       (missing.size() > 1 ? "s " : " ") + join(missing, ", ") +
                       " of entry point '" + std::string(entryName) + "'");
}

Status Session::setInputs(std::string_view entryName,
                          const NamedTensors &tensors) {
  if (Status status = checkInputs(entryName, tensors); !status)
    return status;
  if (!ready)
    return Status::error("the session is not loaded");
  for (const auto &tensor : tensors)
    if (Status status = copyInputs(entryName, tensor.first, tensor.second);
        !status)
      return status;
  return Status();
}

namespace {
/// Collects shards into a global tensor, each piece once.
class Gatherer {
public:
  Gatherer(std::vector<int64_t> global, const plan::TensorType &local,
           const plan::Sharding *sharding, const plan::Topology &topology,
           DealtDim dealt = {})
      : global(std::move(global)), local(local), sharding(sharding),
        topology(topology), dealt(dealt) {}

  /// `shard` is piece `slot` of `slots` along dim 0 of the rank's shard.
  void add(uint32_t rank, const void *shard, void *data, uint32_t slot = 0,
           uint32_t slots = 1) {
    std::vector<int64_t> origin =
        topology.shardOrigin(sharding, *local.dims(), rank);
    std::vector<int64_t> piece = dimsOf(local);
    if (slots > 1) {
      piece[0] /= slots;
      origin[0] += slot * piece[0];
    }
    if (!seen.insert(origin).second)
      return;
    int64_t size = elementBytes(local.dtype());
    eachPiece(global, piece, origin, dealt,
              [&](StridedCopy copy, int64_t to, int64_t at) {
                std::swap(copy.inStrides, copy.outStrides);
                cpu::copyStrided(
                    copy, static_cast<const char *>(shard) + at * size,
                    local.dtype(), static_cast<char *>(data) + to * size,
                    local.dtype());
              });
  }

private:
  std::vector<int64_t> global;
  const plan::TensorType &local;
  const plan::Sharding *sharding;
  const plan::Topology &topology;
  DealtDim dealt;
  std::set<std::vector<int64_t>> seen;
};
} // namespace

static bool isPartial(const plan::Sharding *sharding) {
  return sharding && sharding->partial() && sharding->partial()->size();
}

static uint64_t bytesOf(const plan::TensorType &type) {
  return plan::elementCount(dimsOf(type)) * elementBytes(type.dtype());
}

Status Session::readable(uint32_t rank, const void *&data, uint64_t bytes) {
  if (executors[rank]->isHostMemory())
    return Status();
  staging.resize(bytes);
  Status status = executors[rank]->download(staging.data(), data, bytes);
  data = staging.data();
  return status ? status
                : Status::error("rank " + std::to_string(rank) + ": " +
                                status.message());
}

Status Session::getOutput(std::string_view entryName, std::string_view name,
                          void *data) {
  auto found = findPort(entryName, /*input=*/false, name);
  if (!found)
    return found.status();
  const plan::Port &port = **found;
  if (isPartial(port.sharding()))
    return Status::error("output '" + std::string(name) +
                         "' is partial and has no value before its reduction");
  Gatherer gatherer(dimsOf(*port.global()), *port.local(), port.sharding(),
                    *ranks, DealtDim(port));
  for (uint32_t rank : ranksOf(*findEntry(entryName), port.program())) {
    uint32_t slots = slotsOf(reader->plan(), port);
    for (uint32_t slot = 0; slot < slots; ++slot) {
      const void *shard =
          executors[rank]->address(port.program(), port.buffer(), slot);
      if (slot == 0 && shard == data)
        break; // bound
      uint64_t bytes = bytesOf(*port.local()) / std::max(1u, slots);
      if (Status status = readable(rank, shard, bytes); !status)
        return status;
      gatherer.add(rank, shard, data, slot, slots);
    }
  }
  return Status();
}

std::vector<int64_t> Session::stateDims(uint32_t index) const {
  const plan::State &state = *reader->plan().states()->Get(index);
  std::string_view name = reader->string(state.name());
  std::vector<int64_t> dims = dimsOf(*state.global());
  // Storage may be padded; the weight it belongs to ("w", "w.exp_avg") is not.
  const plan::WeightSource *weight = nullptr;
  for (const plan::WeightSource *source : *reader->plan().sources()) {
    std::string_view whole = reader->string(source->name());
    bool belongs = name.substr(0, whole.size()) == whole &&
                   (name.size() == whole.size() || name[whole.size()] == '.' ||
                    name[whole.size()] == ' ');
    if (belongs &&
        (!weight || whole.size() > reader->string(weight->name()).size()))
      weight = source;
  }
  if (!weight)
    return dims;
  std::vector<int64_t> own = dimsOf(*weight->stored());
  if (weight->transposed())
    std::reverse(own.begin(), own.end());
  bool fits = own.size() == dims.size();
  for (size_t i = 0; fits && i < dims.size(); ++i)
    fits = own[i] <= dims[i];
  return fits ? own : dims;
}

Status Session::getState(uint32_t index, void *data) {
  const plan::State &state = *reader->plan().states()->Get(index);
  std::string name(reader->string(state.name()));
  if (state.layout() != plan::StateLayout::plain)
    return Status::error("state '" + name +
                         "' is packed for the matrix products and cannot be "
                         "read back");
  if (isPartial(state.sharding()))
    return Status::error("state '" + name +
                         "' is partial and has no value before its reduction");
  Gatherer gatherer(stateDims(index), *state.local(), state.sharding(), *ranks);
  for (uint32_t rank = 0; rank < ranks->rankCount(); ++rank)
    if (plan::rankShare(reader->plan(), pipelineCoordinate(*ranks, rank))
            .holds(state)) {
      const void *shard = executors[rank]->stateAddress(index);
      if (Status status = readable(rank, shard, bytesOf(*state.local()));
          !status)
        return status;
      gatherer.add(rank, shard, data);
    }
  return Status();
}

Status Session::bind(std::string_view entryName, std::string_view name,
                     void *data) {
  const plan::Entry *entry = findEntry(entryName);
  if (!entry)
    return entryError(entryName);
  bool input = false;
  for (const plan::Port *port : *entry->inputs())
    input |= reader->string(port->name()) == name;
  auto found = findPort(entryName, input, name);
  if (!found)
    return found.status();
  const plan::Port &port = **found;
  std::string text(name);
  if (!executors.front()->isHostMemory())
    return Status::error("'" + text +
                         "' lies in the memory of a GPU and cannot be bound "
                         "to memory of the host; it is copied");
  if (reinterpret_cast<uintptr_t>(data) % plan::bufferAlignment)
    return Status::error("memory bound to '" + text +
                         "' is not aligned to 64 bytes");
  if (dimsOf(*port.global()) != dimsOf(*port.local()) ||
      isPartial(port.sharding()))
    return Status::error("'" + text +
                         "' is sharded over the ranks and cannot be bound; "
                         "its shards are copied");
  if (DealtDim(port).dim >= 0)
    return Status::error("'" + text +
                         "' is kept in another order in the plan and cannot be "
                         "bound; it is copied");
  std::vector<const plan::Port *> places;
  for (const plan::Port *place : input ? *entry->inputs() : *entry->outputs())
    if (place->name() == port.name())
      places.push_back(place);
  for (const plan::Port *place : places) {
    const plan::Buffer &buffer = *reader->plan()
                                      .programs()
                                      ->Get(place->program())
                                      ->buffers()
                                      ->Get(place->buffer());
    if (buffer.space() == plan::Space::state ||
        buffer.base() != place->buffer())
      return Status::error("'" + text +
                           "' lies inside other memory of the plan and cannot "
                           "be bound");
    if (buffer.slots() > 1 && buffer.slot_stride() != buffer.size())
      return Status::error("'" + text + "' goes through in micro-batches of " +
                           std::to_string(buffer.size()) +
                           " bytes, no multiple of 64, and cannot be bound");
  }
  for (const plan::Port *place : places)
    for (uint32_t rank : ranksOf(*entry, place->program())) {
      executors[rank]->bind(place->program(), place->buffer(), data);
      if (!input)
        break;
    }
  return Status();
}

std::vector<Session::NotFinite>
Session::findNotFinite(std::string_view entryName) {
  std::vector<NotFinite> found;
  const plan::Entry *entry = findEntry(entryName);
  for (const plan::Port *port : *entry->outputs()) {
    if (!port->finite() || port->finite()->size() == 0)
      continue;
    std::string_view name = reader->string(port->name());
    bool skipped = name.size() >= 5 && name.substr(name.size() - 5) == ".skip";
    plan::DataType type = port->global()->dtype();
    uint32_t count = port->finite()->size();
    checked.resize(count * plan::byteSize(type));
    // It is whole and not partial: the verifier wants a name for each element.
    if (!getOutput(entryName, name, checked.data()))
      continue;
    for (uint32_t i = 0; i < count; ++i)
      if (!std::isfinite(cpu::elementAsDouble(checked.data(), type, i)))
        found.push_back(
            {std::string(reader->string(port->finite()->Get(i))), skipped});
  }
  return found;
}

//===----------------------------------------------------------------------===//
// Running
//===----------------------------------------------------------------------===//

Status Session::runEntry(const plan::Entry &entry, uint32_t rank) {
  uint32_t coordinate = pipelineCoordinate(*ranks, rank);
  for (const plan::Action *action :
       *entry.actions()->Get(coordinate)->actions())
    if (Status status = executors[rank]->run(
            entry.programs()->Get(action->stage()), action->micro_batch());
        !status)
      return status;
  return Status();
}

Status Session::execute(std::string_view name) {
  const plan::Entry *entry = findEntry(name);
  if (!entry)
    return entryError(name);
  if (!ready)
    return Status::error("the session is not loaded");
  return onAllRanks([&](uint32_t rank) { return runEntry(*entry, rank); });
}

void Session::setRecording(bool times, bool events) {
  for (auto &executor : executors)
    executor->setRecording(times || events, events);
}

ExecutionRecord &Session::record(uint32_t rank) {
  return executors[rank]->record();
}

void Session::clearRecords() {
  for (auto &executor : executors)
    executor->record() = ExecutionRecord();
}

Executor &Session::executor(uint32_t rank) { return *executors[rank]; }
