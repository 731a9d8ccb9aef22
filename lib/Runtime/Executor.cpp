//===- Executor.cpp - One rank walks a plan -------------------------------===//

#include "ExecutorCursor.h"

#include "dshard/Plan/RankShare.h"
#include "dshard/Runtime/Cpu/Convert.h"
#include "dshard/Runtime/Cpu/Wait.h"
#include "dshard/Support/Text.h"

#include <algorithm>
#include <cstring>

using namespace dshard;
using cpu::elementBytes;
using plan::DataType;
using plan::InstructionKind;

RankMemory dshard::plannedMemory(const plan::Plan &plan, uint32_t coordinate,
                                 unsigned workers) {
  plan::RankShare share = plan::rankShare(plan, coordinate);
  RankMemory memory;
  memory.states = share.states;
  memory.arena = share.arena;
  memory.scratch = share.threadScratch * workers;
  memory.messages = share.messages;
  return memory;
}

uint32_t dshard::pipelineCoordinate(const plan::Topology &topology,
                                    uint32_t rank) {
  int axis = topology.findAxis("pp");
  return axis < 0 ? 0 : topology.coordinate(rank, static_cast<uint32_t>(axis));
}

Executor::Executor(const LoadedPlan &loaded, uint32_t rank, Device device,
                   Communicator communicator)
    : loaded(loaded), plan(loaded.reader->plan()), rank(rank), device(device),
      communicator(communicator),
      planned(plannedMemory(plan, pipelineCoordinate(*loaded.topology, rank),
                            device.functions->workers(device.state))) {
  scalarWords.resize(plan.scalars()->size());
  for (uint32_t table = 0; table < plan.tables()->size(); ++table)
    tables.push_back(loaded.topology->tableEntry(table, rank));
}

Executor::~Executor() {
  device.functions->release(device.state, base);
  if (!isHostMemory())
    device.functions->release(device.state, scalarBase);
}

Status Executor::allocate() {
  if (base)
    return Status();
  void *memory = nullptr;
  if (Status status = device.functions->allocate(
          device.state, planned.allocated(),
          "states, arena and scratch of a rank", &memory);
      !status)
    return Status::error(status.message() + " (states " +
                         formatBytes(planned.states) + ", arena " +
                         formatBytes(planned.arena) + ", scratch " +
                         formatBytes(planned.scratch) + ")");
  base = static_cast<uint8_t *>(memory);
  if (isHostMemory()) {
    scalarBase = reinterpret_cast<uint8_t *>(scalarWords.data());
  } else if (!scalarWords.empty()) {
    if (Status status = device.functions->allocate(
            device.state, scalarWords.size() * plan::gpuBufferAlignment,
            "scalars of a rank", &memory);
        !status)
      return status;
    scalarBase = static_cast<uint8_t *>(memory);
  }
  unsigned workers = device.functions->workers(device.state);
  device.functions->setScratch(device.state,
                               base + planned.states + planned.arena,
                               planned.scratch / workers);
  return Status();
}

Status Executor::upload(void *to, const void *from, uint64_t bytes) {
  if (!isHostMemory())
    return device.functions->upload(device.state, to, from, bytes);
  std::memcpy(to, from, bytes);
  return Status();
}

Status Executor::download(void *to, const void *from, uint64_t bytes) {
  if (!isHostMemory())
    return device.functions->download(device.state, to, from, bytes);
  std::memcpy(to, from, bytes);
  return Status();
}

Status Executor::setScalars() {
  for (size_t i = 0; i < scalarWords.size(); ++i)
    cpu::storeDouble(&scalarWords[i].bits, plan.scalars()->Get(i)->dtype(), 0,
                     loaded.scalars[i]);
  if (isHostMemory() || scalarWords.empty())
    return Status();
  staging.assign(scalarWords.size() * plan::gpuBufferAlignment, 0);
  for (size_t i = 0; i < scalarWords.size(); ++i)
    std::memcpy(&staging[i * plan::gpuBufferAlignment], &scalarWords[i].bits,
                sizeof(scalarWords[i].bits));
  return upload(scalarBase, staging.data(), staging.size());
}

Status Executor::zeroStates() {
  plan::RankShare share =
      plan::rankShare(plan, pipelineCoordinate(*loaded.topology, rank));
  for (uint32_t i = 0; i < plan.states()->size(); ++i) {
    const plan::State &state = *plan.states()->Get(i);
    if (state.initializer() == plan::InitializerKind::zero &&
        share.holds(state)) {
      if (isHostMemory())
        std::memset(stateAddress(i), 0, state.size());
      else if (Status status =
                   device.functions->fill(device.state, 0, stateAddress(i),
                                          DataType::u8, state.size(), 0);
               !status)
        return status;
    }
  }
  return Status();
}

int64_t Executor::valueOf(const plan::Value &value) const {
  switch (value.kind()) {
  case plan::ValueKind::literal:
    return value.value();
  case plan::ValueKind::table:
    return tables[value.value()];
  case plan::ValueKind::scalar:
    return static_cast<int64_t>(loaded.scalars[value.value()]);
  case plan::ValueKind::loop_index:
    return loops[loops.size() - 1 - value.value()];
  case plan::ValueKind::micro_batch:
    return currentMicroBatch;
  }
  return 0;
}

char *Executor::place(uint32_t programIndex, const plan::Program &program,
                      uint32_t index) const {
  const plan::Buffer &buffer = *program.buffers()->Get(index);
  if (!bound.empty()) {
    auto found = bound.find({programIndex, buffer.base()});
    if (found != bound.end())
      return found->second + (buffer.offset() -
                              program.buffers()->Get(buffer.base())->offset());
  }
  uint8_t *start = base + planned.states;
  if (buffer.space() == plan::Space::state)
    start = stateAddress(buffer.state());
  else if (buffer.space() == plan::Space::scalar)
    start = scalarBase + buffer.state() * (isHostMemory()
                                               ? sizeof(ScalarWord)
                                               : plan::gpuBufferAlignment);
  return reinterpret_cast<char *>(start + buffer.offset());
}

void *Executor::address(uint32_t program, uint32_t buffer,
                        uint32_t slot) const {
  const plan::Program &item = *plan.programs()->Get(program);
  return place(program, item, buffer) +
         slot * item.buffers()->Get(buffer)->slot_stride();
}

uint8_t *Executor::stateAddress(uint32_t state) const {
  return base + plan.states()->Get(state)->offset();
}

void Executor::bind(uint32_t program, uint32_t buffer, void *memory) {
  const plan::Buffer &target =
      *plan.programs()->Get(program)->buffers()->Get(buffer);
  const plan::Buffer &owner =
      *plan.programs()->Get(program)->buffers()->Get(target.base());
  bound[{program, target.base()}] =
      static_cast<char *>(memory) - (target.offset() - owner.offset());
}

Executor::Operand Executor::operand(const plan::Program &program,
                                    const plan::Instruction &instruction,
                                    uint32_t index) const {
  if (index >= instruction.uses_count())
    return {nullptr, 0, DataType::f32, nullptr};
  const plan::BufferUse &use =
      *program.uses()->Get(instruction.uses_begin() + index);
  if (use.buffer() == plan::absentBuffer)
    return {nullptr, 0, DataType::f32, nullptr};
  const plan::Buffer &buffer = *program.buffers()->Get(use.buffer());
  // Before there is memory, check() only asks whether the operand is present.
  char *data = base ? place(currentIndex, program, use.buffer())
                    : reinterpret_cast<char *>(plan::pageSize);
  if (buffer.slots() > 1 && base) {
    int64_t slot = valueOf(use.slot()) % int64_t(buffer.slots());
    if (slot < 0)
      slot += buffer.slots();
    data += slot * buffer.slot_stride();
  }
  return {data, buffer.size(), buffer.dtype(), &buffer};
}

//===----------------------------------------------------------------------===//
// Control
//===----------------------------------------------------------------------===//

Status Executor::run(uint32_t program, uint32_t microBatch) {
  if (Status status = setScalars(); !status)
    return status;
  currentIndex = program;
  currentMicroBatch = microBatch;
  current = plan.programs()->Get(program);
  loops.clear();
  if (Status status = runBlock(0); !status)
    return status;
  return device.functions->synchronize
             ? device.functions->synchronize(device.state)
             : Status();
}

Status Executor::runBlock(uint32_t index) {
  const plan::Block &block = *current->blocks()->Get(index);
  for (uint32_t i = 0; i < block.count(); ++i)
    if (Status status = runOne(block.begin() + i); !status)
      return status;
  return Status();
}

Status Executor::runOne(uint32_t index) {
  const plan::Instruction &instruction = *current->instructions()->Get(index);
  InstructionKind kind = static_cast<InstructionKind>(instruction.kind());
  Cursor values{*this, *current, instruction.values_begin()};
  switch (kind) {
  case InstructionKind::CALL:
    return runBlock(static_cast<uint32_t>(values.next()));
  case InstructionKind::REPEAT: {
    uint32_t body = static_cast<uint32_t>(values.next());
    int64_t count = values.next();
    loops.push_back(0);
    Status status;
    for (int64_t i = 0; i < count && status.ok(); ++i) {
      loops.back() = i;
      status = runBlock(body);
    }
    loops.pop_back();
    return status;
  }
  case InstructionKind::IF: {
    int64_t condition = values.next();
    int64_t then = values.next(), otherwise = values.next();
    return runBlock(static_cast<uint32_t>(condition ? then : otherwise));
  }
  default:
    break;
  }

  const DeviceFunctions &functions = *device.functions;
  int64_t begin = times ? cpu::nowNanoseconds() : 0;
  Status status;
  if (times && functions.startTimer)
    if (status = functions.startTimer(device.state, instruction.stream());
        !status)
      return status;
  switch (kind) {
  case InstructionKind::RECORD:
    if (functions.recordEvent)
      status = functions.recordEvent(device.state, instruction.stream(),
                                     static_cast<uint32_t>(values.next()));
    break;
  case InstructionKind::WAIT:
    if (functions.waitEvent)
      status = functions.waitEvent(device.state, instruction.stream(),
                                   static_cast<uint32_t>(values.next()));
    break;
  case InstructionKind::LOAD_SLICE:
    status = runLoadSlice(instruction, values);
    break;
  case InstructionKind::PACK_RHS:
    status = runPack(instruction, values);
    break;
  case InstructionKind::FILL:
    status = runFill(instruction, values);
    break;
  case InstructionKind::COPY:
    status = runCopy(instruction, values);
    break;
  case InstructionKind::LAUNCH:
    status = runLaunch(instruction, values);
    break;
  case InstructionKind::MATMUL:
    status = functions.matmul(device.state, instruction.stream(),
                              matmulArguments(*current, instruction));
    break;
  case InstructionKind::MATMUL_NBITS:
    status = functions.matmul(device.state, instruction.stream(),
                              matmulNBitsArguments(*current, instruction));
    break;
  case InstructionKind::GROUPED_MATMUL:
  case InstructionKind::GROUPED_WEIGHT_GRAD:
    status = functions.grouped(device.state, instruction.stream(),
                               groupedArguments(*current, instruction));
    break;
  case InstructionKind::ATTENTION:
    status = functions.attention(device.state, instruction.stream(),
                                 attentionArguments(*current, instruction));
    break;
  case InstructionKind::ATTENTION_GRAD:
    status =
        functions.attentionGrad(device.state, instruction.stream(),
                                attentionGradArguments(*current, instruction));
    break;
  default:
    status = runCollective(kind, instruction, values);
    break;
  }
  if (!status)
    return status;
  if (times) {
    if (!functions.stopTimer && functions.synchronize)
      if (status = functions.synchronize(device.state); !status)
        return status;
    int64_t end = cpu::nowNanoseconds();
    if (functions.stopTimer) {
      if (status =
              functions.stopTimer(device.state, instruction.stream(), &end);
          !status)
        return status;
      end += begin;
    }
    ExecutionRecord::Kind &entry = recorded.kinds[kind];
    ++entry.count;
    entry.nanoseconds += end - begin;
    if (events)
      recorded.events.push_back({currentIndex, index, begin, end});
  }
  return status;
}

//===----------------------------------------------------------------------===//
// State and data movement
//===----------------------------------------------------------------------===//

Status Executor::runLoadSlice(const plan::Instruction &instruction,
                              Cursor values) {
  if (!loaded.weights)
    return Status::error("load_slice outside of the load program");
  Operand out = operand(*current, instruction, 0);
  SliceRequest request;
  request.source = static_cast<uint32_t>(values.next());
  request.dims = static_cast<int>(values.next());
  for (int i = 0; i < request.dims; ++i)
    request.starts[i] = values.next();
  for (int i = 0; i < request.dims; ++i)
    request.sizes[i] = values.next();
  for (int i = 0; i < request.dims; ++i)
    request.permutation[i] = static_cast<int>(values.next());
  for (int i = 0; i < request.dims; ++i) {
    request.at[i] = values.next();
    request.outDims[i] = current->dims()->Get(out.buffer->dims_begin() + i);
  }
  request.out = out.data;
  request.outType = out.type;
  if (isHostMemory())
    return loaded.weights->loadSlice(request);
  // The slice may be a part of the buffer.
  bool isWhole = true;
  for (int i = 0; i < request.dims; ++i)
    isWhole &= request.sizes[request.permutation[i]] == request.outDims[i];
  staging.resize(out.bytes);
  if (!isWhole)
    if (Status status = download(staging.data(), out.data, out.bytes); !status)
      return status;
  request.out = staging.data();
  if (Status status = loaded.weights->loadSlice(request); !status)
    return status;
  return upload(out.data, staging.data(), out.bytes);
}

Status Executor::runPack(const plan::Instruction &instruction, Cursor values) {
  Operand in = operand(*current, instruction, 0);
  Operand out = operand(*current, instruction, 1);
  PackArguments p;
  p.k = values.next();
  p.n = values.next();
  p.column = values.next();
  p.totalColumns = values.next();
  p.inType = in.type;
  p.outType = out.type;
  p.in = in.data;
  p.out = out.data;
  return device.functions->packRhs(device.state, instruction.stream(), p);
}

Status Executor::runFill(const plan::Instruction &instruction, Cursor values) {
  Operand out = operand(*current, instruction, 0);
  const plan::Value &bits = *current->values()->Get(instruction.values_begin());
  double value = bits.kind() == plan::ValueKind::loop_index
                     ? static_cast<double>(values.next())
                     : values.real();
  return device.functions->fill(
      device.state, instruction.stream(), out.data, out.type,
      static_cast<int64_t>(out.bytes) / elementBytes(out.type), value);
}

Status Executor::runCopy(const plan::Instruction &instruction, Cursor values) {
  Operand in = operand(*current, instruction, 0);
  Operand out = operand(*current, instruction, 1);
  StridedCopy copy;
  copy.dims = static_cast<int>(values.next());
  for (int i = 0; i < copy.dims; ++i)
    copy.sizes[i] = values.next();
  int64_t inOffset = values.next();
  for (int i = 0; i < copy.dims; ++i)
    copy.inStrides[i] = values.next();
  int64_t outOffset = values.next();
  for (int i = 0; i < copy.dims; ++i)
    copy.outStrides[i] = values.next();
  return device.functions->copy(
      device.state, instruction.stream(), copy,
      in.data + inOffset * elementBytes(in.type), in.type,
      out.data + outOffset * elementBytes(out.type), out.type);
}

//===----------------------------------------------------------------------===//
// Compute
//===----------------------------------------------------------------------===//

Status Executor::runLaunch(const plan::Instruction &instruction,
                           Cursor values) {
  uint32_t index = static_cast<uint32_t>(values.next());
  const plan::Kernel &kernel = *plan.kernels()->Get(index);
  pointers.clear();
  sizes.clear();
  for (uint32_t use = 0; use < instruction.uses_count(); ++use) {
    Operand each = operand(*current, instruction, use);
    pointers.push_back(each.data);
    sizes.push_back(each.bytes);
  }
  LaunchArguments launch;
  launch.index = index;
  if (index < loaded.kernels.size())
    launch.kernel = loaded.kernels[index];
  launch.buffers = pointers.data();
  launch.bytes = sizes.data();
  launch.bufferCount = static_cast<uint32_t>(pointers.size());
  launch.inputCount = static_cast<uint32_t>(values.next());
  launch.grid = kernel.grid();
  launch.block = kernel.block();
  launch.shared = kernel.shared();
  launch.extent = kernel.extent();
  launch.grain = kernel.grain();
  return device.functions->launch(device.state, instruction.stream(), launch);
}

void Executor::readAttentionSizes(Cursor &values, AttentionArguments &a) {
  a.batch = values.next();
  a.heads = values.next();
  a.kvHeads = values.next();
  a.s = values.next();
  a.t = values.next();
  a.d = values.next();
  a.dv = values.next();
}

void Executor::readAttentionOptions(Cursor &values, AttentionArguments &a) {
  a.causal = values.flag();
  a.offset = values.next();
  a.window = values.next();
  a.scale = values.real();
  a.softcap = values.real();
  a.fullyMasked = static_cast<int>(values.next());
  for (int64_t &stride : a.biasStrides)
    stride = values.next();
}

AttentionArguments
Executor::attentionArguments(const plan::Program &program,
                             const plan::Instruction &instruction) const {
  Operand q = operand(program, instruction, 0);
  Operand mask = operand(program, instruction, 3);
  Operand lse = operand(program, instruction, 6);
  AttentionArguments a;
  a.q = q.data;
  a.k = operand(program, instruction, 1).data;
  a.v = operand(program, instruction, 2).data;
  a.mask = reinterpret_cast<const uint8_t *>(mask.data);
  a.bias = operand(program, instruction, 4).data;
  a.out = operand(program, instruction, 5).data;
  a.lse = reinterpret_cast<float *>(lse.data);
  a.type = q.type;
  Cursor values{*this, program, instruction.values_begin()};
  readAttentionSizes(values, a);
  for (int64_t *strides : {a.qStrides, a.kStrides, a.vStrides, a.outStrides})
    for (int i = 0; i < 3; ++i)
      strides[i] = values.next();
  readAttentionOptions(values, a);
  return a;
}

AttentionGradArguments
Executor::attentionGradArguments(const plan::Program &program,
                                 const plan::Instruction &instruction) const {
  auto data = [&](uint32_t use) {
    return operand(program, instruction, use).data;
  };
  AttentionGradArguments g;
  AttentionArguments &a = g.forward;
  a.q = data(0);
  a.k = data(1);
  a.v = data(2);
  a.out = data(3);
  a.lse = reinterpret_cast<float *>(data(4));
  g.dout = data(5);
  a.mask = reinterpret_cast<const uint8_t *>(data(6));
  a.bias = data(7);
  g.dq = data(8);
  g.dk = data(9);
  g.dv = data(10);
  a.type = operand(program, instruction, 0).type;
  Cursor values{*this, program, instruction.values_begin()};
  readAttentionSizes(values, a);
  for (int64_t *strides :
       {a.qStrides, a.kStrides, a.vStrides, a.outStrides, g.doutStrides,
        g.dqStrides, g.dkStrides, g.dvStrides})
    for (int i = 0; i < 3; ++i)
      strides[i] = values.next();
  readAttentionOptions(values, a);
  return g;
}

//===----------------------------------------------------------------------===//
// Collectives
//===----------------------------------------------------------------------===//

Status Executor::runCollective(InstructionKind kind,
                               const plan::Instruction &instruction,
                               Cursor values) {
  const CommunicatorFunctions &functions = *communicator.functions;
  void *state = communicator.state;
  uint32_t group = static_cast<uint32_t>(values.next());
  if (functions.setStream)
    functions.setStream(state, instruction.stream());
  auto pair = [&](uint32_t in, uint32_t out) {
    Operand from = operand(*current, instruction, in);
    Operand to = operand(*current, instruction, out);
    CollectiveOperand result;
    result.in = from.data;
    result.out = to.data;
    result.type = from.type;
    result.elements =
        static_cast<int64_t>(from.bytes) / elementBytes(from.type);
    return result;
  };
  uint64_t bytes = 0;
  auto pairs = [&](int64_t count) {
    operands.clear();
    for (int64_t i = 0; i < count; ++i) {
      operands.push_back(
          pair(static_cast<uint32_t>(i), static_cast<uint32_t>(count + i)));
      bytes += operands.back().elements * elementBytes(operands.back().type);
    }
  };
  auto shapes = [&] {
    for (CollectiveOperand &each : operands)
      each.outer = values.next();
    for (CollectiveOperand &each : operands)
      each.inner = values.next();
  };
  Status status;
  switch (kind) {
  case InstructionKind::ALL_GATHER:
    pairs(values.next());
    shapes();
    status =
        functions.allGather(state, group, operands.data(), operands.size());
    break;
  case InstructionKind::ALL_REDUCE: {
    pairs(values.next());
    auto reduction = static_cast<plan::ReductionKind>(values.next());
    status = functions.allReduce(state, group, reduction, operands.data(),
                                 operands.size());
    break;
  }
  case InstructionKind::REDUCE_SCATTER: {
    pairs(values.next());
    auto reduction = static_cast<plan::ReductionKind>(values.next());
    shapes();
    status = functions.reduceScatter(state, group, reduction, operands.data(),
                                     operands.size());
    break;
  }
  case InstructionKind::ALL_TO_ALL: {
    pairs(1);
    int64_t dims[maxDims];
    AllToAllShape shape;
    shape.ndims = static_cast<int>(values.next());
    for (int i = 0; i < shape.ndims; ++i)
      dims[i] = values.next();
    shape.dims = dims;
    shape.split = static_cast<int>(values.next());
    shape.concat = static_cast<int>(values.next());
    status = functions.allToAll(state, group, operands[0], shape);
    break;
  }
  case InstructionKind::BROADCAST:
    pairs(1);
    status = functions.broadcast(state, group, values.next(), operands[0]);
    break;
  case InstructionKind::PERMUTE: {
    pairs(values.next());
    int64_t to = values.next(), from = values.next();
    status = functions.permute(state, group, to, from, operands.data(),
                               operands.size());
    break;
  }
  case InstructionKind::SEND: {
    Operand in = operand(*current, instruction, 0);
    int64_t to = values.next(), tag = values.next();
    bytes = in.bytes;
    status = functions.send(state, group, to, tag, in.data, in.bytes);
    break;
  }
  case InstructionKind::RECV: {
    Operand out = operand(*current, instruction, 0);
    int64_t from = values.next(), tag = values.next();
    bytes = out.bytes;
    status = functions.receive(state, group, from, tag, out.data, out.bytes);
    break;
  }
  default:
    return Status::error("instruction kind " +
                         std::to_string(static_cast<int>(kind)) +
                         " is not supported by this runtime");
  }
  ExecutionRecord::Collective &entry = recorded.collectives[{kind, group}];
  ++entry.count;
  entry.bytes += bytes;
  return status;
}

//===----------------------------------------------------------------------===//
// What this device can do
//===----------------------------------------------------------------------===//

Status Executor::check() {
  for (uint32_t p = 0; p < plan.programs()->size(); ++p) {
    const plan::Program &program = *plan.programs()->Get(p);
    for (uint32_t i = 0; i < program.instructions()->size(); ++i) {
      const plan::Instruction &instruction = *program.instructions()->Get(i);
      InstructionKind kind = static_cast<InstructionKind>(instruction.kind());
      Status status;
      if (kind == InstructionKind::MATMUL) {
        // Loop indices are not known here; only types and flags are looked at.
        loops.assign(64, 0);
        status = device.functions->checkMatmul(
            device.state, matmulArguments(program, instruction),
            program.thread_scratch());
      } else if (kind == InstructionKind::MATMUL_NBITS && !isHostMemory()) {
        status = Status::error(std::string("block-quantised products are for "
                                           "CPUs, this rank runs on ") +
                               device.functions->name);
      } else if (kind == InstructionKind::MATMUL_NBITS) {
        loops.assign(64, 0);
        status = device.functions->checkMatmul(
            device.state, matmulNBitsArguments(program, instruction),
            program.thread_scratch());
      } else if (kind == InstructionKind::GROUPED_MATMUL ||
                 kind == InstructionKind::GROUPED_WEIGHT_GRAD) {
        loops.assign(64, 0);
        status = device.functions->grouped
                     ? device.functions->checkGrouped(
                           device.state, groupedArguments(program, instruction),
                           program.thread_scratch())
                     : Status::error(std::string("grouped products are for "
                                                 "CPUs, this rank runs on ") +
                                     device.functions->name);
      } else if (kind == InstructionKind::ATTENTION) {
        loops.assign(64, 0);
        status = device.functions->checkAttention(
            device.state, attentionArguments(program, instruction),
            program.thread_scratch());
      } else if (kind == InstructionKind::ATTENTION_GRAD) {
        loops.assign(64, 0);
        status = device.functions->checkAttentionGrad(
            device.state, attentionGradArguments(program, instruction),
            program.thread_scratch());
      } else if (kind == InstructionKind::PACK_RHS) {
        if (!device.functions->packRhs)
          status = Status::error(std::string("packed operands are for CPUs, "
                                             "this rank runs on ") +
                                 device.functions->name);
      } else if (kind == InstructionKind::LOAD_SLICE) {
        Operand out = operand(program, instruction, 0);
        int64_t dims =
            program.values()->Get(instruction.values_begin() + 1)->value();
        if (dims > maxDims || dims != out.buffer->dims_count())
          status = Status::error("load_slice of " + std::to_string(dims) +
                                 " dims into a buffer of " +
                                 std::to_string(out.buffer->dims_count()) +
                                 " (at most " + std::to_string(maxDims) +
                                 " are supported)");
      } else if (kind == InstructionKind::COPY ||
                 kind == InstructionKind::ALL_TO_ALL) {
        int64_t at = kind == InstructionKind::COPY ? 0 : 1;
        int64_t dims =
            program.values()->Get(instruction.values_begin() + at)->value();
        if (dims > maxDims)
          status = Status::error(std::to_string(dims) +
                                 " dims in one copy, but at most " +
                                 std::to_string(maxDims) + " are supported");
      }
      if (!status)
        return Status::error(
            "program '" + std::string(loaded.reader->string(program.name())) +
            "', instruction " + std::to_string(i) + " (node '" +
            std::string(loaded.reader->string(instruction.node())) +
            "'): " + status.message());
    }
  }
  return Status();
}
