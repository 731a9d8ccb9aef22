// The conformance suite of communicators: every collective, every type, groups
// of 1, 2 and 4 and of sub-axes, against naive loops; equal bits on all members
// and from run to run; failures release everybody. A backend is one value of
// the suite's parameter (CommunicatorSuite.h).

#include "CommunicatorSuite.h"
#include "dshard/Runtime/Comm/InProcess.h"

#include <thread>

using namespace dshard;
using namespace dshard::test;
using cpu::elementBytes;
using plan::DataType;
using plan::ReductionKind;

namespace {

/// Runs the body on all ranks; a failing rank aborts. Returns the statuses.
std::vector<Status> runInProcess(uint32_t ranks, const Groups &groups,
                                 const RankBody &body, unsigned threads) {
  InProcessWorld world(ranks, groups);
  std::vector<Status> statuses(ranks);
  std::vector<std::unique_ptr<cpu::ThreadPool>> pools;
  std::vector<Communicator> ends;
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    pools.push_back(std::make_unique<cpu::ThreadPool>(threads));
    ends.push_back(world.communicator(rank, pools.back().get()));
  }
  std::vector<std::thread> team;
  for (uint32_t rank = 0; rank < ranks; ++rank)
    team.emplace_back([&, rank] {
      statuses[rank] = body(rank, ends[rank]);
      if (!statuses[rank])
        ends[rank].functions->abort(ends[rank].state, statuses[rank]);
    });
  for (std::thread &thread : team)
    thread.join();
  return statuses;
}

const DataType allTypes[] = {DataType::boolean, DataType::i8,   DataType::u8,
                             DataType::i16,     DataType::u16,  DataType::i32,
                             DataType::u32,     DataType::i64,  DataType::u64,
                             DataType::f16,     DataType::bf16, DataType::f32,
                             DataType::f64};

/// The groups that a rank of 4 sees: the whole (1 instance of 4), pairs of
/// neighbours (the minor sub-axis), pairs at distance 2 (the major one),
/// itself.
const Groups fourRanks = {{{0, 1, 2, 3}},
                          {{0, 1}, {2, 3}},
                          {{0, 2}, {1, 3}},
                          {{0}, {1}, {2}, {3}},
                          {{3, 1}, {2, 0}}};

const std::vector<uint32_t> &instanceOf(const Groups &groups, uint32_t group,
                                        uint32_t rank) {
  for (const auto &instance : groups[group])
    for (uint32_t member : instance)
      if (member == rank)
        return instance;
  static const std::vector<uint32_t> none;
  return none;
}
int64_t positionOf(const std::vector<uint32_t> &instance, uint32_t rank) {
  return std::find(instance.begin(), instance.end(), rank) - instance.begin();
}

Array valuesOf(DataType type, int64_t count, uint32_t rank) {
  Array array(type, count);
  std::mt19937 generator(rank + 17);
  for (int64_t i = 0; i < count; ++i) {
    double x = plan::isFloat(type)
                   ? std::uniform_real_distribution<double>(-2, 2)(generator)
                   : double(generator() % 3);
    array.set(i, x);
  }
  return array;
}

double sizeOf(const std::vector<double> &values, ReductionKind kind) {
  double size = kind == ReductionKind::product ? 1 : 0;
  for (double value : values)
    size = kind == ReductionKind::product ? size * std::abs(value)
                                          : size + std::abs(value);
  return size;
}

double reduce(ReductionKind kind, DataType type,
              const std::vector<double> &values) {
  double x = values[0];
  bool logical = type == DataType::boolean;
  for (size_t i = 1; i < values.size(); ++i)
    switch (kind) {
    case ReductionKind::sum:
    case ReductionKind::mean:
      x = logical ? double(x != 0 || values[i] != 0) : x + values[i];
      break;
    case ReductionKind::max:
      x = std::max(x, values[i]);
      break;
    case ReductionKind::min:
      x = std::min(x, values[i]);
      break;
    case ReductionKind::product:
      x *= values[i];
      break;
    }
  return kind == ReductionKind::mean ? x / values.size() : x;
}

} // namespace

TEST_P(Collectives, AllReduce) {
  for (ReductionKind kind :
       {ReductionKind::sum, ReductionKind::max, ReductionKind::min,
        ReductionKind::mean, ReductionKind::product})
    for (uint32_t group = 0; group < groups().size(); ++group)
      for (int64_t count : {1, 63, 1000})
        onAllRanks([&](uint32_t rank, Communicator comm) {
          for (DataType type : allTypes) {
            if ((kind == ReductionKind::mean && !plan::isFloat(type)) ||
                !reduces(type))
              continue;
            Array in = valuesOf(type, count, rank), out(type, count);
            Array inPlace = in;
            CollectiveOperand operands[2];
            operands[0] = {in.data(), out.data(), count, type};
            operands[1] = {inPlace.data(), inPlace.data(), count, type};
            Status status =
                comm.functions->allReduce(comm.state, group, kind, operands, 2);
            if (!status)
              return status;
            EXPECT_EQ(std::memcmp(out.data(), inPlace.data(),
                                  count * elementBytes(type)),
                      0);
            std::vector<Array> all;
            for (uint32_t member : instanceOf(groups(), group, rank))
              all.push_back(valuesOf(type, count, member));
            for (int64_t i = 0; i < count; ++i) {
              std::vector<double> values;
              for (const Array &array : all)
                values.push_back(array[i]);
              expectNear(out[i], reduce(kind, type, values), type,
                         sizeOf(values, kind));
            }
          }
          return Status();
        });
}

// Large enough for the worker threads; equal bits everywhere and every time.
TEST_P(Collectives, AllReduceIsBitwiseEqual) {
  for (DataType type : {DataType::f32, DataType::bf16, DataType::f16}) {
    int64_t count = 200001;
    std::vector<std::vector<uint8_t>> results(2 * ranks());
    for (int run = 0; run < 2; ++run)
      onAllRanks([&](uint32_t rank, Communicator comm) {
        Array in = valuesOf(type, count, rank), out(type, count);
        CollectiveOperand operand = {in.data(), out.data(), count, type};
        Status status = comm.functions->allReduce(
            comm.state, 0, ReductionKind::sum, &operand, 1);
        results[run * ranks() + rank] = out.bytes;
        return status;
      });
    for (size_t i = 1; i < results.size(); ++i)
      EXPECT_TRUE(results[i] == results[0]) << plan::toString(type);
  }
}

TEST_P(Collectives, AllGather) {
  for (uint32_t group = 0; group < groups().size(); ++group)
    onAllRanks([&](uint32_t rank, Communicator comm) {
      const auto &instance = instanceOf(groups(), group, rank);
      int64_t n = instance.size(), outer = 3, d = 4, inner = 5;
      for (DataType type : allTypes) {
        int64_t count = outer * d * inner;
        Array in = valuesOf(type, count, rank), out(type, count * n);
        Array flat = valuesOf(DataType::i64, 2, rank),
              flatOut(DataType::i64, 2 * n);
        CollectiveOperand operands[2];
        operands[0] = {in.data(), out.data(), count, type, outer, inner};
        operands[1] = {flat.data(), flatOut.data(), 2, DataType::i64, 1, 1};
        Status status =
            comm.functions->allGather(comm.state, group, operands, 2);
        if (!status)
          return status;
        for (int64_t j = 0; j < n; ++j) {
          Array from = valuesOf(type, count, instance[j]);
          for (int64_t o = 0; o < outer; ++o)
            for (int64_t x = 0; x < d * inner; ++x)
              EXPECT_EQ(out[(o * n + j) * d * inner + x],
                        from[o * d * inner + x]);
          EXPECT_EQ(flatOut[2 * j + 1],
                    valuesOf(DataType::i64, 2, instance[j])[1]);
        }
      }
      return Status();
    });
}

TEST_P(Collectives, ReduceScatter) {
  for (uint32_t group = 0; group < groups().size(); ++group)
    onAllRanks([&](uint32_t rank, Communicator comm) {
      const auto &instance = instanceOf(groups(), group, rank);
      int64_t n = instance.size(), outer = 2, d = 3, inner = 5;
      int64_t me = positionOf(instance, rank);
      for (DataType type : allTypes) {
        if (!reduces(type))
          continue;
        int64_t count = outer * n * d * inner;
        Array in = valuesOf(type, count, rank), out(type, count / n);
        CollectiveOperand operand = {in.data(), out.data(), count,
                                     type,      outer,      inner};
        Status status = comm.functions->reduceScatter(
            comm.state, group, ReductionKind::sum, &operand, 1);
        if (!status)
          return status;
        std::vector<Array> all;
        for (uint32_t member : instance)
          all.push_back(valuesOf(type, count, member));
        for (int64_t o = 0; o < outer; ++o)
          for (int64_t x = 0; x < d * inner; ++x) {
            std::vector<double> values;
            for (const Array &array : all)
              values.push_back(array[(o * n + me) * d * inner + x]);
            expectNear(out[o * d * inner + x],
                       reduce(ReductionKind::sum, type, values), type,
                       sizeOf(values, ReductionKind::sum));
          }
      }
      return Status();
    });
}

TEST_P(Collectives, AllToAll) {
  for (uint32_t group = 0; group < groups().size(); ++group)
    for (int split = 0; split < 3; ++split)
      for (int concat = 0; concat < 3; ++concat)
        onAllRanks([&](uint32_t rank, Communicator comm) {
          const auto &instance = instanceOf(groups(), group, rank);
          int64_t n = instance.size(), me = positionOf(instance, rank);
          int64_t dims[3] = {4, 8, 12};
          int64_t outDims[3] = {4, 8, 12};
          outDims[split] /= n;
          outDims[concat] *= n;
          for (DataType type : {DataType::f32, DataType::u8, DataType::i64}) {
            Array in = valuesOf(type, 4 * 8 * 12, rank);
            Array out(type, 4 * 8 * 12);
            CollectiveOperand operand = {in.data(), out.data(), 4 * 8 * 12,
                                         type};
            AllToAllShape shape = {dims, 3, split, concat};
            Status status =
                comm.functions->allToAll(comm.state, group, operand, shape);
            if (!status)
              return status;
            for (int64_t j = 0; j < n; ++j) {
              Array from = valuesOf(type, 4 * 8 * 12, instance[j]);
              int64_t piece[3] = {4, 8, 12};
              piece[split] /= n;
              int64_t x[3];
              for (x[0] = 0; x[0] < piece[0]; ++x[0])
                for (x[1] = 0; x[1] < piece[1]; ++x[1])
                  for (x[2] = 0; x[2] < piece[2]; ++x[2]) {
                    int64_t a[3] = {x[0], x[1], x[2]};
                    int64_t b[3] = {x[0], x[1], x[2]};
                    a[split] += me * piece[split];
                    b[concat] += j * piece[concat];
                    EXPECT_EQ(
                        out[(b[0] * outDims[1] + b[1]) * outDims[2] + b[2]],
                        from[(a[0] * 8 + a[1]) * 12 + a[2]]);
                  }
            }
          }
          return Status();
        });
}

TEST_P(Collectives, Broadcast) {
  for (uint32_t group = 0; group < groups().size(); ++group)
    onAllRanks([&](uint32_t rank, Communicator comm) {
      const auto &instance = instanceOf(groups(), group, rank);
      for (int64_t root = 0; root < int64_t(instance.size()); ++root)
        for (DataType type : allTypes) {
          Array in = valuesOf(type, 100, rank), out(type, 100);
          CollectiveOperand operand = {in.data(), out.data(), 100, type};
          Status status =
              comm.functions->broadcast(comm.state, group, root, operand);
          if (!status)
            return status;
          EXPECT_EQ(std::memcmp(out.data(),
                                valuesOf(type, 100, instance[root]).data(),
                                100 * elementBytes(type)),
                    0);
        }
      return Status();
    });
}

TEST_P(Collectives, Permute) {
  for (uint32_t group = 0; group < groups().size(); ++group)
    onAllRanks([&](uint32_t rank, Communicator comm) {
      const auto &instance = instanceOf(groups(), group, rank);
      int64_t n = instance.size(), me = positionOf(instance, rank);
      for (int64_t shift : {int64_t{0}, int64_t{1}, n - 1}) {
        Array in = valuesOf(DataType::f32, 50, rank), out(DataType::f32, 50);
        CollectiveOperand operand = {in.data(), out.data(), 50, DataType::f32};
        int64_t from = (me + n - shift % n) % n;
        Status status = comm.functions->permute(
            comm.state, group, (me + shift) % n, from, &operand, 1);
        if (!status)
          return status;
        Array wanted = valuesOf(DataType::f32, 50, instance[from]);
        for (int64_t i = 0; i < 50; ++i)
          EXPECT_EQ(out[i], wanted[i]);
      }
      // An open chain: nobody sends to the first, the last sends to nobody.
      Array in = valuesOf(DataType::f32, 50, rank), out(DataType::f32, 50);
      out.set(3, 5);
      CollectiveOperand operand = {in.data(), out.data(), 50, DataType::f32};
      Status status =
          comm.functions->permute(comm.state, group, me + 1 < n ? me + 1 : -1,
                                  me > 0 ? me - 1 : -1, &operand, 1);
      if (me == 0)
        EXPECT_EQ(out[3], 0);
      else
        EXPECT_EQ(out[3], valuesOf(DataType::f32, 50, instance[me - 1])[3]);
      return status;
    });
}

// Both neighbours send before they receive, several messages deep.
TEST_P(Collectives, SendAndReceive) {
  if (!GetParam().hasMailbox)
    GTEST_SKIP() << "a send waits for its receiver";
  onAllRanks([&](uint32_t rank, Communicator comm) {
    const auto &functions = *comm.functions;
    int64_t next = (rank + 1) % ranks(),
            previous = (rank + ranks() - 1) % ranks();
    for (int64_t message = 0; message < 3; ++message)
      for (int64_t tag : {7, 8}) {
        int64_t data = rank * 100 + message * 10 + tag;
        if (Status status =
                functions.send(comm.state, 0, next, tag, &data, sizeof(data));
            !status)
          return status;
        if (Status status = functions.send(comm.state, 0, previous, tag, &data,
                                           sizeof(data));
            !status)
          return status;
      }
    for (int64_t tag : {8, 7})
      for (int64_t message = 0; message < 3; ++message)
        for (int64_t peer : {previous, next}) {
          int64_t data = 0;
          if (Status status = functions.receive(comm.state, 0, peer, tag, &data,
                                                sizeof(data));
              !status)
            return status;
          EXPECT_EQ(data, peer * 100 + message * 10 + tag);
        }
    return Status();
  });
}

// Pairs: stage by stage, as pipelines do.
TEST_P(Collectives, SendAlongAChain) {
  if (ranks() < 2)
    GTEST_SKIP() << "a chain of one";
  onAllRanks([&](uint32_t rank, Communicator comm) {
    const auto &functions = *comm.functions;
    for (int64_t message = 0; message < 3; ++message) {
      int64_t data[2] = {100 + message, 7};
      if (rank > 0) {
        data[0] = data[1] = -1;
        if (Status status = functions.receive(comm.state, 0, rank - 1, 0, data,
                                              sizeof(data));
            !status)
          return status;
        EXPECT_EQ(data[0], 100 + message + rank - 1);
        EXPECT_EQ(data[1], 7);
        ++data[0];
      }
      if (rank + 1 < ranks())
        if (Status status =
                functions.send(comm.state, 0, rank + 1, 0, data, sizeof(data));
            !status)
          return status;
    }
    return Status();
  });
}

static CommunicatorBackend inProcess(unsigned threads) {
  CommunicatorBackend backend;
  backend.name = "InProcess" + std::to_string(threads);
  backend.ranks = 4;
  backend.groups = fourRanks;
  backend.run = [=](const CommunicatorBackend &, const RankBody &body) {
    return runInProcess(4, fourRanks, body, threads);
  };
  return backend;
}

INSTANTIATE_TEST_SUITE_P(InProcess, Collectives,
                         testing::Values(inProcess(1), inProcess(2)),
                         [](const auto &info) { return info.param.name; });

TEST(CommunicatorFailure, ReleasesEveryRank) {
  // Rank 2 fails while the others wait in a barrier, a reduction, a receive.
  std::vector<Status> statuses = runInProcess(
      4, {{{0, 1, 2, 3}}},
      [](uint32_t rank, Communicator comm) {
        const auto &functions = *comm.functions;
        if (rank == 2) {
          std::this_thread::sleep_for(std::chrono::milliseconds(5));
          return Status::error("no more memory");
        }
        if (rank == 0) {
          float x = 1;
          CollectiveOperand operand = {&x, &x, 1, DataType::f32};
          return functions.allReduce(comm.state, 0, ReductionKind::sum,
                                     &operand, 1);
        }
        if (rank == 1)
          return functions.barrier(comm.state, 0);
        float x;
        return functions.receive(comm.state, 0, 1, 0, &x, sizeof(x));
      },
      1);
  for (const Status &status : statuses)
    EXPECT_EQ(status.message(), "no more memory");
}

TEST(CommunicatorFailure, OperandsOfDifferentSizes) {
  std::vector<Status> statuses = runInProcess(
      2, {{{0, 1}}},
      [](uint32_t rank, Communicator comm) {
        float x[2] = {1, 2};
        CollectiveOperand operand = {x, x, rank + 1, DataType::f32};
        return comm.functions->allReduce(comm.state, 0, ReductionKind::sum,
                                         &operand, 1);
      },
      1);
  for (const Status &status : statuses)
    EXPECT_NE(status.message().find("different sizes"), std::string::npos);
}

TEST(CommunicatorFailure, MeanOfIntegers) {
  std::vector<Status> statuses = runInProcess(
      2, {{{0, 1}}},
      [](uint32_t rank, Communicator comm) {
        int32_t x = 1;
        CollectiveOperand operand = {&x, &x, 1, DataType::i32};
        return comm.functions->allReduce(comm.state, 0, ReductionKind::mean,
                                         &operand, 1);
      },
      1);
  EXPECT_EQ(statuses[0].message(), "a mean of i32 values is not defined");
}

TEST(CommunicatorFailure, ResetMakesTheWorldUsableAgain) {
  InProcessWorld world(2, {{{0, 1}}});
  Communicator a = world.communicator(0), b = world.communicator(1);
  world.abort(Status::error("first"));
  world.abort(Status::error("second"));
  EXPECT_EQ(a.functions->barrier(a.state, 0).message(), "first");
  world.reset();
  std::thread other(
      [&] { EXPECT_TRUE(b.functions->barrier(b.state, 0).ok()); });
  EXPECT_TRUE(a.functions->barrier(a.state, 0).ok());
  other.join();
}
