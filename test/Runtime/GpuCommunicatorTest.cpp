// The suite of communicators on GPUs: operands are staged through the memory of
// each rank's GPU. And NCCL with one rank, which any GPU can be: every type and
// every call moves the right bytes.

#include "CommunicatorSuite.h"
#include "Cuda/Driver.h"
#include "GpuForTest.h"
#include "dshard/Plan/PlanBuilder.h"
#include "dshard/Runtime/Cuda/CudaWorld.h"

#include <cstring>
#include <map>
#include <thread>

using namespace dshard;
using namespace dshard::test;
using cpu::elementBytes;
using plan::DataType;

namespace {

/// The GPUs of a plan without instructions: a mesh of 2 x 2, 2 or 1 ranks.
struct World {
  std::unique_ptr<plan::Reader> reader;
  std::unique_ptr<plan::Topology> topology;
  std::unique_ptr<InProcessWorld> host;
  std::unique_ptr<cuda::CudaWorld> gpus;
};

Result<std::unique_ptr<World>> makeWorld(const CommunicatorBackend &backend) {
  auto world = std::make_unique<World>();
  plan::Builder builder;
  builder.plan.target = "cuda:sm_80";
  builder.plan.provenance->compiler = "by hand";
  std::vector<plan::AxisRef> axes;
  for (uint32_t size = backend.ranks; size > 1; size /= 2)
    axes.push_back(builder.wholeAxis(builder.addAxis(size > 2 ? "a" : "b", 2)));
  builder.addGroup(axes);
  if (axes.size() == 2) {
    builder.addGroup({axes[1]});
    builder.addGroup({axes[0]});
  }
  plan::ProgramAssembler load = builder.beginProgram("load");
  load.finish();
  plan::ProgramAssembler run = builder.beginProgram("run");
  run.finish();
  builder.addEntry("run", run.index());
  builder.plan.load = load.index();
  auto reader = plan::Reader::fromBytes(builder.finish(), "test.dsplan");
  if (!reader)
    return reader.status();
  world->reader = std::move(*reader);
  world->topology = std::make_unique<plan::Topology>(world->reader->plan());
  world->host = std::make_unique<InProcessWorld>(backend.ranks, backend.groups);
  auto gpus =
      cuda::CudaWorld::create(*world->reader, *world->topology, *world->host);
  if (!gpus)
    return gpus.status();
  world->gpus = std::move(*gpus);
  return world;
}

/// Connecting takes a second on real GPUs: once for each number of ranks.
Result<World *> worldOf(const CommunicatorBackend &backend) {
  static std::map<uint32_t, std::unique_ptr<World>> worlds;
  std::unique_ptr<World> &world = worlds[backend.ranks];
  if (!world) {
    auto made = makeWorld(backend);
    if (!made)
      return made.status();
    world = std::move(*made);
  }
  return world.get();
}

/// One rank's end, as seen from the host.
struct Staged {
  Device device;
  Communicator inner;
  const CommunicatorBackend *backend;
  uint32_t rank;

  int64_t groupSize(uint32_t group) const {
    for (const auto &instance : backend->groups[group])
      for (uint32_t member : instance)
        if (member == rank)
          return static_cast<int64_t>(instance.size());
    return 1;
  }

  /// Runs `call` with operands on the GPU; `grown` and `shrunk` say how the
  /// result's size follows from the operand's.
  template <typename Call>
  Status stage(const CollectiveOperand *operands, size_t count, int64_t grown,
               int64_t shrunk, Call call) {
    std::vector<CollectiveOperand> there(operands, operands + count);
    std::vector<void *> memory;
    Status status;
    auto place = [&](const void *from, uint64_t bytes) {
      void *at = nullptr;
      if (status)
        status = device.functions->allocate(device.state, bytes, "test", &at);
      if (at)
        memory.push_back(at);
      if (status)
        status = device.functions->upload(device.state, at, from, bytes);
      return at;
    };
    std::vector<uint64_t> written(count);
    for (size_t i = 0; i < count; ++i) {
      uint64_t bytes = operands[i].elements * elementBytes(operands[i].type);
      written[i] = bytes * grown / shrunk;
      there[i].in = place(operands[i].in, bytes);
      there[i].out = operands[i].in == operands[i].out
                         ? const_cast<void *>(there[i].in)
                         : place(operands[i].out, written[i]);
    }
    if (status)
      status = call(there.data());
    if (status)
      status = device.functions->synchronize(device.state);
    for (size_t i = 0; i < count && status; ++i)
      status = device.functions->download(device.state, operands[i].out,
                                          there[i].out, written[i]);
    for (void *each : memory)
      device.functions->release(device.state, each);
    return status;
  }
};

Staged &stagedOf(void *state) { return *static_cast<Staged *>(state); }

const CommunicatorFunctions stagedFunctions = {
    "staged",
    [](void *state, uint32_t group, const CollectiveOperand *operands,
       size_t count) {
      Staged &self = stagedOf(state);
      return self.stage(operands, count, self.groupSize(group), 1,
                        [&](const CollectiveOperand *there) {
                          return self.inner.functions->allGather(
                              self.inner.state, group, there, count);
                        });
    },
    [](void *state, uint32_t group, plan::ReductionKind kind,
       const CollectiveOperand *operands, size_t count) {
      Staged &self = stagedOf(state);
      return self.stage(operands, count, 1, 1,
                        [&](const CollectiveOperand *there) {
                          return self.inner.functions->allReduce(
                              self.inner.state, group, kind, there, count);
                        });
    },
    [](void *state, uint32_t group, plan::ReductionKind kind,
       const CollectiveOperand *operands, size_t count) {
      Staged &self = stagedOf(state);
      return self.stage(operands, count, 1, self.groupSize(group),
                        [&](const CollectiveOperand *there) {
                          return self.inner.functions->reduceScatter(
                              self.inner.state, group, kind, there, count);
                        });
    },
    [](void *state, uint32_t group, const CollectiveOperand &operand,
       const AllToAllShape &shape) {
      Staged &self = stagedOf(state);
      return self.stage(&operand, 1, 1, 1, [&](const CollectiveOperand *there) {
        return self.inner.functions->allToAll(self.inner.state, group, *there,
                                              shape);
      });
    },
    [](void *state, uint32_t group, int64_t root,
       const CollectiveOperand &operand) {
      Staged &self = stagedOf(state);
      return self.stage(&operand, 1, 1, 1, [&](const CollectiveOperand *there) {
        return self.inner.functions->broadcast(self.inner.state, group, root,
                                               *there);
      });
    },
    [](void *state, uint32_t group, int64_t to, int64_t from,
       const CollectiveOperand *operands, size_t count) {
      Staged &self = stagedOf(state);
      return self.stage(operands, count, 1, 1,
                        [&](const CollectiveOperand *there) {
                          return self.inner.functions->permute(
                              self.inner.state, group, to, from, there, count);
                        });
    },
    [](void *state, uint32_t group, int64_t to, int64_t tag, const void *data,
       uint64_t bytes) {
      Staged &self = stagedOf(state);
      std::vector<char> result(bytes);
      CollectiveOperand operand = {data, result.data(), int64_t(bytes),
                                   DataType::u8};
      return self.stage(&operand, 1, 1, 1, [&](const CollectiveOperand *there) {
        return self.inner.functions->send(self.inner.state, group, to, tag,
                                          there->in, bytes);
      });
    },
    [](void *state, uint32_t group, int64_t from, int64_t tag, void *data,
       uint64_t bytes) {
      Staged &self = stagedOf(state);
      CollectiveOperand operand = {data, data, int64_t(bytes), DataType::u8};
      return self.stage(&operand, 1, 1, 1, [&](const CollectiveOperand *there) {
        return self.inner.functions->receive(self.inner.state, group, from, tag,
                                             there->out, bytes);
      });
    },
    /*barrier=*/nullptr,
    /*abort=*/
    [](void *state, const Status &reason) {
      Staged &self = stagedOf(state);
      self.inner.functions->abort(self.inner.state, reason);
    },
    /*setStream=*/nullptr,
    /*peakBufferedBytes=*/nullptr};

std::vector<Status> runOnGpus(const CommunicatorBackend &backend,
                              const RankBody &body) {
  Result<World *> world = worldOf(backend);
  if (!world)
    return {world.status()};
  std::vector<Status> statuses(backend.ranks);
  std::vector<Staged> ends;
  for (uint32_t rank = 0; rank < backend.ranks; ++rank)
    ends.push_back({(*world)->gpus->device(rank),
                    (*world)->gpus->communicator(rank), &backend, rank});
  std::vector<std::thread> team;
  for (uint32_t rank = 0; rank < backend.ranks; ++rank)
    team.emplace_back([&, rank] {
      statuses[rank] = body(rank, {&stagedFunctions, &ends[rank]});
      if (!statuses[rank])
        (*world)->host->abort(statuses[rank]);
    });
  for (std::thread &thread : team)
    thread.join();
  return statuses;
}

CommunicatorBackend gpus(uint32_t ranks) {
  CommunicatorBackend backend;
  backend.name = "Gpus" + std::to_string(ranks);
  backend.ranks = ranks;
  if (ranks == 4)
    backend.groups = {{{0, 1, 2, 3}}, {{0, 1}, {2, 3}}, {{0, 2}, {1, 3}}};
  else
    backend.groups = {{{}}};
  for (uint32_t rank = 0; rank < ranks && ranks < 4; ++rank)
    backend.groups[0][0].push_back(rank);
  backend.run = runOnGpus;
  backend.missing = [](const CommunicatorBackend &backend) {
    int found = gpuCount();
    return found >= static_cast<int>(backend.ranks)
               ? std::string()
               : std::to_string(backend.ranks) + " ranks on " +
                     std::to_string(found) + " GPUs: NCCL takes one per GPU";
  };
  backend.reducesShorts = false;
  backend.hasMailbox = false;
  // NCCL rounds after each addition.
  backend.tolerance = 3;
  return backend;
}

} // namespace

INSTANTIATE_TEST_SUITE_P(Gpus, Collectives,
                         testing::Values(gpus(1), gpus(2), gpus(4)),
                         [](const auto &info) { return info.param.name; });

// A group of one goes past NCCL in plans; here it does not.
TEST(Nccl, OneRankGivesToItself) {
  if (!driverForTest())
    GTEST_SKIP() << "no CUDA driver";
  Result<const cuda::NcclLibrary *> opened = cuda::openNccl();
  ASSERT_TRUE(opened) << opened.status().message();
  const cuda::NcclLibrary &nccl = **opened;
  cuda::CudaDevice gpu(*driverForTest(), 0);
  ASSERT_TRUE(gpu.open(80, "cuda:sm_80"));
  auto expectOk = [&](int result, const char *call) {
    Status status = nccl.check(result, call);
    EXPECT_TRUE(status.ok()) << status.message();
    return status.ok();
  };
  cuda::NcclId id;
  ASSERT_TRUE(expectOk(nccl.getUniqueId(&id), "ncclGetUniqueId"));
  cuda::NcclComm comm = nullptr;
  ASSERT_TRUE(expectOk(nccl.initRank(&comm, 1, id, 0), "ncclCommInitRank"));
  auto stream = gpu.stream(0);
  ASSERT_TRUE(stream);

  const int64_t count = 1000;
  const std::pair<int, DataType> types[] = {
      {cuda::ncclI8, DataType::i8},   {cuda::ncclU8, DataType::u8},
      {cuda::ncclI32, DataType::i32}, {cuda::ncclU32, DataType::u32},
      {cuda::ncclI64, DataType::i64}, {cuda::ncclU64, DataType::u64},
      {cuda::ncclF16, DataType::f16}, {cuda::ncclF32, DataType::f32},
      {cuda::ncclF64, DataType::f64}, {cuda::ncclBf16, DataType::bf16}};
  enum { reduced, gathered, scattered, broadcast, sent };
  for (auto [type, ours] : types)
    for (int call : {reduced, gathered, scattered, broadcast, sent})
      for (int op : {cuda::ncclSum, cuda::ncclProduct, cuda::ncclMax,
                     cuda::ncclMin, cuda::ncclMean}) {
        bool takesOp = call == reduced || call == scattered;
        if (!takesOp && op != cuda::ncclSum)
          continue;
        SCOPED_TRACE("type " + std::to_string(type) + " call " +
                     std::to_string(call) + " op " + std::to_string(op));
        Array in = randomArray(ours, count, 5, plan::isFloat(ours) ? 2 : 50);
        uint64_t bytes = count * elementBytes(ours);
        // The word behind the result stays.
        std::vector<uint8_t> mark(bytes + 16, 0x5a), back(bytes + 16);
        void *from = nullptr, *to = nullptr;
        ASSERT_TRUE(gpu.allocate(bytes, "test", &from));
        ASSERT_TRUE(gpu.allocate(bytes + 16, "test", &to));
        ASSERT_TRUE(gpu.upload(from, in.data(), bytes));
        ASSERT_TRUE(gpu.upload(to, mark.data(), bytes + 16));
        expectOk(nccl.groupStart(), "ncclGroupStart");
        switch (call) {
        case reduced:
          expectOk(nccl.allReduce(from, to, count, type, op, comm, *stream),
                   "ncclAllReduce");
          break;
        case gathered:
          expectOk(nccl.allGather(from, to, count, type, comm, *stream),
                   "ncclAllGather");
          break;
        case scattered:
          expectOk(nccl.reduceScatter(from, to, count, type, op, comm, *stream),
                   "ncclReduceScatter");
          break;
        case broadcast:
          expectOk(nccl.broadcast(from, to, count, type, 0, comm, *stream),
                   "ncclBroadcast");
          break;
        case sent:
          expectOk(nccl.send(from, count, type, 0, comm, *stream), "ncclSend");
          expectOk(nccl.receive(to, count, type, 0, comm, *stream), "ncclRecv");
          break;
        }
        expectOk(nccl.groupEnd(), "ncclGroupEnd");
        Status done = gpu.waitAll();
        ASSERT_TRUE(done.ok()) << done.message();
        ASSERT_TRUE(gpu.download(back.data(), to, bytes + 16));
        EXPECT_EQ(std::memcmp(back.data(), in.data(), bytes), 0);
        EXPECT_EQ(std::memcmp(back.data() + bytes, mark.data(), 16), 0);
        gpu.release(from);
        gpu.release(to);
      }
  int error = -1;
  expectOk(nccl.getAsyncError(comm, &error), "ncclCommGetAsyncError");
  EXPECT_EQ(error, 0);
  expectOk(nccl.destroy(comm), "ncclCommDestroy");
}

// What needs more GPUs than there are says so, whatever the plan holds.
TEST(Nccl, TooManyRanksAreRefused) {
  int found = gpuCount();
  if (found < 1 || found > 3)
    GTEST_SKIP() << "there are " << found << " GPUs";
  auto world = makeWorld(gpus(4));
  ASSERT_FALSE(world.ok());
  EXPECT_NE(world.status().message().find("the plan has 4 ranks, but there "),
            std::string::npos)
      << world.status().message();
}
