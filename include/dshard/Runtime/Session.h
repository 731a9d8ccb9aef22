//===- Session.h - Load a plan, bind, run -----------------------*- C++ -*-===//
//
// All ranks of a plan in this process: rank r is worker r of one fork-join
// team (rank 0 is the caller), each with as many worker threads as its share of
// the cores, or with GPU r.
//
//   auto session = Session::create(std::move(reader), options);
//   session->load();                                // memory and weights
//   session->setInput("run", "x", {DataType::f32, {16, 64}, x});
//   session->execute("run");
//   session->getOutput("run", "y", y);
//
// Inputs and outputs are global tensors, dense and row-major and in natural
// order: setInput copies each rank's shard to its place in the plan's memory
// (in the order that Port.layout says), getOutput collects them. Inputs share
// the arena with everything else, so they must be set before every execute
// (unless bound). Errors name the entry point, the tensor and the two things
// that disagree. A session is used by one thread at a time.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_SESSION_H
#define DSHARD_RUNTIME_SESSION_H

#include "dshard/Plan/PlanReader.h"
#include "dshard/Plan/Topology.h"
#include "dshard/Runtime/Comm/InProcess.h"
#include "dshard/Runtime/Cpu/CpuDevice.h"
#include "dshard/Runtime/Cpu/KernelImage.h"
#include "dshard/Runtime/Cuda/CudaWorld.h"
#include "dshard/Runtime/Executor.h"

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace dshard {

struct SessionOptions {
  WeightOptions weights;
  /// Worker threads per rank; 0: DSHARD_THREADS, else the cores' share.
  unsigned threads = 0;
};

/// A global tensor of the caller.
struct TensorView {
  plan::DataType type = plan::DataType::none;
  std::vector<int64_t> dims;
  const void *data = nullptr;
};

class Session {
public:
  /// Verifies the plan, checks that this machine can run it, loads its code and
  /// starts the rank threads. Takes no arena and reads no weights.
  static Result<std::unique_ptr<Session>>
  create(std::unique_ptr<plan::Reader> reader, SessionOptions options);
  ~Session();

  /// Gets the memory of all ranks, touches it, and runs the load program.
  /// Again: reads the weights again.
  Status load();

  const plan::Reader &plan() const { return *reader; }
  const plan::Topology &topology() const { return *ranks; }
  unsigned threadsPerRank() const { return workers; }
  bool runsOnGpus() const { return gpus != nullptr; }

  /// Null when there is none; entryError() then lists what there is.
  const plan::Entry *findEntry(std::string_view name) const;
  Status entryError(std::string_view name) const;

  /// The input or output of an entry point; else an error that lists what there
  /// is.
  Result<const plan::Port *> findPort(std::string_view entry, bool input,
                                      std::string_view name) const;

  using NamedTensors = std::vector<std::pair<std::string, TensorView>>;
  /// Name, type, shape, and the range of integers; before load() too.
  Status checkInput(std::string_view entry, std::string_view name,
                    const TensorView &tensor) const;
  /// Checks and copies one input.
  Status setInput(std::string_view entry, std::string_view name,
                  const TensorView &tensor);
  /// All inputs of the entry point: checked, and none is missing.
  Status checkInputs(std::string_view entry, const NamedTensors &tensors) const;
  Status setInputs(std::string_view entry, const NamedTensors &tensors);
  Status setScalar(std::string_view name, double value);
  /// Runs the entry point on all ranks. The first error of any rank.
  Status execute(std::string_view entry);
  /// `data` holds the global tensor (Port.global).
  Status getOutput(std::string_view entry, std::string_view name, void *data);

  /// What the last run of the entry point found to be not finite though it must
  /// be (Port.finite), in the plan's order.
  struct NotFinite {
    std::string name; // of a gradient's parameter
    bool skipped; // the step left the states as they were, and training goes
                  // on; else it has to stop
  };
  std::vector<NotFinite> findNotFinite(std::string_view entry);

  /// The caller's memory instead of the plan's for an input or output, before
  /// the first run: 64-byte aligned, of the global shape, and alive as long as
  /// the session. Only where the tensor is whole on every rank; an output is
  /// rank 0's.
  Status bind(std::string_view entry, std::string_view name, void *data);

  /// The dims of a state as a user knows them: State.global, or those of the
  /// weight that it belongs to where its storage is padded.
  std::vector<int64_t> stateDims(uint32_t state) const;
  /// A plain state, collected: stateDims, of the type of State.global.
  Status getState(uint32_t state, void *data);

  /// Memory as planned: of the rank that needs most (ranks of different
  /// pipeline stages differ), and of all together.
  RankMemory plannedPerRank() const;
  RankMemory plannedOfAllRanks() const;
  /// Bytes of weights loaded so far; may be asked from another thread.
  uint64_t loadedBytes() const;

  void setRecording(bool times, bool events);
  ExecutionRecord &record(uint32_t rank);
  void clearRecords();

  /// For tests and backends: one rank's executor and the world.
  Executor &executor(uint32_t rank);
  InProcessWorld &world() { return *communicators; }

private:
  Session() = default;
  Status openCpu();
  Status openGpus();
  /// body(rank) on all rank threads; the first error releases all of them.
  template <typename Body> Status onAllRanks(Body &&body);
  Status runEntry(const plan::Entry &entry, uint32_t rank);
  /// Ranks that run this program in this entry.
  std::vector<uint32_t> ranksOf(const plan::Entry &entry,
                                uint32_t program) const;
  /// What checkInput has accepted.
  Status copyInput(const plan::Entry &entry, const plan::Port &port,
                   const TensorView &tensor);
  /// To every stage that reads it.
  Status copyInputs(std::string_view entry, std::string_view name,
                    const TensorView &tensor);
  /// Replaces an address of a rank by one that the host may read, until the
  /// next call.
  Status readable(uint32_t rank, const void *&data, uint64_t bytes);

  std::unique_ptr<plan::Reader> reader;
  std::unique_ptr<plan::Topology> ranks;
  SessionOptions options;
  unsigned workers = 1;
  std::vector<std::unique_ptr<cpu::KernelImage>> images;
  LoadedPlan loaded;
  mutable std::mutex loading;            // of the two below
  std::unique_ptr<WeightReader> weights; // while load() runs
  uint64_t loadedTotal = 0;
  std::unique_ptr<InProcessWorld> communicators;
  std::vector<std::unique_ptr<cpu::CpuDevice>> devices;
  std::unique_ptr<cuda::CudaWorld> gpus; // of plans for them
  std::vector<std::unique_ptr<Executor>> executors;
  std::unique_ptr<cpu::ThreadPool> team; // worker r is rank r
  bool ready = false;
  std::vector<char> checked; // findNotFinite's copy of an output
  std::vector<char> staging; // for devices with their own memory
};

/// "gradient of 'X' and of 2 others are not finite"; `found` is not empty.
std::string notFiniteText(const std::vector<Session::NotFinite> &found);
/// "[2, 16]".
std::string dimsText(const std::vector<int64_t> &dims);

} // namespace dshard

#endif // DSHARD_RUNTIME_SESSION_H
