//===- Executor.h - One rank walks a plan -----------------------*- C++ -*-===//
//
// Executes programs of one rank, block by block, exactly as they are written;
// it decides nothing. Tables over rank coordinates are resolved when it is
// made; scalars and loop indices when an instruction runs. Instructions run in
// the order of execution of their blocks, which is a valid order of every
// plan's streams, so events matter only to devices that have streams.
//
// Memory of a rank, one allocation: its states, the arena (the largest of all
// programs; they share it), the scratch of its worker threads.
//
// On a device of its own memory (Device.h, upload) what the host writes (slices
// of weights, scalars) goes through staging memory of the host. run() returns
// when all streams are done; with times wanted, each instruction waits for its
// own end, so that streams do not overlap then.
//
// Errors: a failing call or read stops the program at once. Everything else
// that could fail was refused by check().
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_EXECUTOR_H
#define DSHARD_RUNTIME_EXECUTOR_H

#include "dshard/Plan/Instructions.h"
#include "dshard/Plan/PlanReader.h"
#include "dshard/Plan/Topology.h"
#include "dshard/Runtime/Communicator.h"
#include "dshard/Runtime/Device.h"
#include "dshard/Runtime/WeightReader.h"

#include <cstdint>
#include <map>
#include <vector>

namespace dshard {

/// What all ranks of a session share.
struct LoadedPlan {
  const plan::Reader *reader = nullptr;
  const plan::Topology *topology = nullptr;
  std::vector<KernelFunction> kernels; // by index of Plan.kernels; CPU
  WeightReader *weights = nullptr;     // present while the load program runs
  std::vector<double> scalars;         // by index of Plan.scalars
};

/// What one rank did, by kind of instruction and by group.
struct ExecutionRecord {
  struct Kind {
    uint64_t count = 0;
    int64_t nanoseconds = 0;
  };
  struct Collective {
    uint64_t count = 0;
    uint64_t bytes = 0; // of this rank's operands; of a receive's result
  };
  struct Event {
    uint32_t program, instruction;
    int64_t begin, end; // nanoseconds, cpu::nowNanoseconds
  };
  std::map<plan::InstructionKind, Kind> kinds;
  std::map<std::pair<plan::InstructionKind, uint32_t>, Collective> collectives;
  std::vector<Event> events;
};

/// Bytes of one rank's memory, as the plan says.
struct RankMemory {
  uint64_t states = 0, arena = 0, scratch = 0; // scratch of all workers
  uint64_t messages = 0; // most that it has sent and nobody has received yet
  /// What the executor gets at once; the communicator keeps the messages.
  uint64_t allocated() const { return states + arena + scratch; }
  uint64_t total() const { return allocated() + messages; }
};
/// Of the ranks with this pp coordinate; see plan::rankShare.
RankMemory plannedMemory(const plan::Plan &plan, uint32_t coordinate,
                         unsigned workers);
/// 0 without the axis pp.
uint32_t pipelineCoordinate(const plan::Topology &topology, uint32_t rank);

class Executor {
public:
  Executor(const LoadedPlan &plan, uint32_t rank, Device device,
           Communicator communicator);
  ~Executor();
  Executor(const Executor &) = delete;
  Executor &operator=(const Executor &) = delete;

  /// Refuses what this device cannot do, anywhere in the plan.
  Status check();
  /// Gets the rank's memory, touched; the second time there is nothing to do.
  Status allocate();
  const RankMemory &memory() const { return planned; }
  /// Gives the states that start at zero their first value.
  Status zeroStates();

  Status run(uint32_t program, uint32_t microBatch = 0);

  /// Between the host and the addresses below.
  Status upload(void *to, const void *from, uint64_t bytes);
  Status download(void *to, const void *from, uint64_t bytes);
  /// Whether the host may read and write at these addresses itself.
  bool isHostMemory() const { return !device.functions->upload; }

  /// Where a slot of a buffer lies.
  void *address(uint32_t program, uint32_t buffer, uint32_t slot = 0) const;
  uint8_t *stateAddress(uint32_t state) const;
  /// Uses the caller's memory for a buffer (and its views) from now on.
  void bind(uint32_t program, uint32_t buffer, void *memory);

  /// Measure times of kinds, and keep every event.
  void setRecording(bool timesWanted, bool eventsWanted) {
    times = timesWanted;
    events = eventsWanted;
  }
  ExecutionRecord &record() { return recorded; }

private:
  struct Cursor;
  struct Operand {
    char *data;
    uint64_t bytes;
    plan::DataType type;
    const plan::Buffer *buffer; // null when absent
  };

  Status runBlock(uint32_t block);
  Status runOne(uint32_t index);
  Status runCollective(plan::InstructionKind kind,
                       const plan::Instruction &instruction, Cursor values);
  Status runLoadSlice(const plan::Instruction &instruction, Cursor values);
  Status runFill(const plan::Instruction &instruction, Cursor values);
  Status runCopy(const plan::Instruction &instruction, Cursor values);
  Status runLaunch(const plan::Instruction &instruction, Cursor values);
  Status runPack(const plan::Instruction &instruction, Cursor values);
  Status setScalars();

  /// lhs and rhs; bias, residual and out from operand `firstOptional` on.
  MatmulArguments matmulOperands(const plan::Program &program,
                                 const plan::Instruction &instruction,
                                 uint32_t firstOptional) const;
  MatmulArguments
  matmulNBitsArguments(const plan::Program &program,
                       const plan::Instruction &instruction) const;
  MatmulArguments matmulArguments(const plan::Program &program,
                                  const plan::Instruction &instruction) const;
  GroupedArguments groupedArguments(const plan::Program &program,
                                    const plan::Instruction &instruction) const;
  AttentionArguments
  attentionArguments(const plan::Program &program,
                     const plan::Instruction &instruction) const;
  AttentionGradArguments
  attentionGradArguments(const plan::Program &program,
                         const plan::Instruction &instruction) const;
  static void readAttentionSizes(Cursor &values, AttentionArguments &);
  static void readAttentionOptions(Cursor &values, AttentionArguments &);

  int64_t valueOf(const plan::Value &value) const;
  Operand operand(const plan::Program &program,
                  const plan::Instruction &instruction, uint32_t use) const;
  char *place(uint32_t programIndex, const plan::Program &program,
              uint32_t buffer) const;

  const LoadedPlan &loaded;
  const plan::Plan &plan;
  uint32_t rank;
  Device device;
  Communicator communicator;
  RankMemory planned;
  std::vector<int64_t> tables; // by index of Plan.tables, of this rank
  /// What buffers in space `scalar` read; aligned as kernels expect it.
  struct alignas(plan::bufferAlignment) ScalarWord {
    uint64_t bits = 0;
  };
  std::vector<ScalarWord> scalarWords;
  /// Where kernels read them: the words above, or memory of the device, one
  /// every gpuBufferAlignment bytes.
  uint8_t *scalarBase = nullptr;
  std::vector<uint8_t> staging; // of the host
  uint8_t *base = nullptr;      // states, then the arena, then the scratch
  std::map<std::pair<uint32_t, uint32_t>, char *> bound; // (program, base)
  uint32_t currentIndex = 0;
  uint32_t currentMicroBatch = 0;
  const plan::Program *current = nullptr;
  std::vector<int64_t>
      loops; // indices of the enclosing repeats, innermost last
  std::vector<CollectiveOperand> operands;
  std::vector<void *> pointers;
  std::vector<uint64_t> sizes;
  bool times = false, events = false;
  ExecutionRecord recorded;
};

} // namespace dshard

#endif // DSHARD_RUNTIME_EXECUTOR_H
