//===- Launch.cpp - Blocks, warps, groups and barriers --------------------===//
#include "Execution/Launch.h"

#include "Ptx/Parser.h"

#include <algorithm>
#include <cstring>
#include <memory>

namespace dshard::emulator {

namespace {
/// Buffers that outlive a launch: allocating and clearing them would cost more
/// than small kernels. Ticks go on, so nothing in them has to be cleared.
struct Scratch {
  std::vector<uint8_t> shared, local;
  std::vector<SharedWord> words;
  uint32_t tick = 1;
};
thread_local Scratch scratch;

unsigned shiftOf(unsigned granule) {
  return granule >= 4 ? 2 : granule == 2 ? 1 : 0;
}
} // namespace

Launch::Launch(const Module &module, const Kernel &kernel,
               const LaunchShape &shape, const uint8_t *parameters,
               DeviceMemory &memory, std::vector<Range> ranges)
    : module(module), kernel(kernel), shape(shape), parameters(parameters),
      memory(memory), ranges(std::move(ranges)), reports(module, kernel) {
  rangeOf.resize(kernel.code.size());
  sharedShift = shiftOf(kernel.sharedGranule);
  globalShift = shiftOf(kernel.globalGranule);
  for (const Variable &variable : kernel.shared)
    sharedRanges.push_back({variable.offset, variable.offset + variable.size});
  sharedSize = kernel.sharedBytes;
  if (kernel.dynamicShared) {
    sharedRanges.push_back(
        {kernel.dynamicOffset, kernel.dynamicOffset + shape.dynamicShared});
    sharedSize = kernel.dynamicOffset + shape.dynamicShared;
  }
}

std::string Launch::where(const Warp &warp, unsigned lane) const {
  unsigned thread = warp.index * 32 + lane;
  auto join = [](uint32_t x, uint32_t y, uint32_t z) {
    return std::to_string(x) + "," + std::to_string(y) + "," +
           std::to_string(z);
  };
  return "block " + join(blockIndex[0], blockIndex[1], blockIndex[2]) +
         " thread " +
         join(thread % shape.block[0], thread / shape.block[0] % shape.block[1],
              thread / shape.block[0] / shape.block[1]);
}

void Launch::run() {
  threads = shape.block[0] * shape.block[1] * shape.block[2];
  uint64_t most = 1024;
  if (kernel.maxThreads[0])
    most = static_cast<uint64_t>(kernel.maxThreads[0]) * kernel.maxThreads[1] *
           kernel.maxThreads[2];
  if (threads == 0 || threads > most) {
    reports.add(Fault::blockSize, nullptr, "",
                std::to_string(threads) + " threads, at most " +
                    std::to_string(most));
    return;
  }
  if (kernel.requiredThreads[0] &&
      std::memcmp(kernel.requiredThreads, shape.block, sizeof(shape.block))) {
    reports.add(Fault::blockSize, nullptr, "",
                std::to_string(shape.block[0]) + "," +
                    std::to_string(shape.block[1]) + "," +
                    std::to_string(shape.block[2]) + " is not .reqntid");
    return;
  }
  if (scratch.shared.size() < sharedSize + 64)
    scratch.shared.resize(sharedSize + 64);
  size_t words = (sharedSize >> sharedShift) + 64;
  // Another granule gives old entries another meaning, but their ticks are old.
  if (scratch.words.size() < words)
    scratch.words.resize(words);
  if (scratch.local.size() < size_t(threads) * kernel.localBytes)
    scratch.local.resize(size_t(threads) * kernel.localBytes);
  if (scratch.tick > 0xf0000000u) {
    std::fill(scratch.words.begin(), scratch.words.end(), SharedWord());
    scratch.tick = 1;
  }
  shared = scratch.shared.data();
  sharedWords = scratch.words.data();
  local = scratch.local.data();
  tick = scratch.tick + 1;

  unsigned count = (threads + 31) / 32;
  warps.resize(count);
  // Registers of neighbouring warps should not share cache sets.
  size_t stride = kernel.image.size() + 64;
  files.resize(stride * count + 64);
  uint8_t *aligned = reinterpret_cast<uint8_t *>(
      (reinterpret_cast<uintptr_t>(files.data()) + 63) & ~uintptr_t(63));
  for (unsigned i = 0; i < count; ++i) {
    warps[i].launch = this;
    warps[i].index = i;
    warps[i].file = aligned + i * stride;
  }
  for (uint32_t z = 0; z < shape.grid[2] && !stopped; ++z)
    for (uint32_t y = 0; y < shape.grid[1] && !stopped; ++y)
      for (uint32_t x = 0; x < shape.grid[0] && !stopped; ++x) {
        blockIndex[0] = x, blockIndex[1] = y, blockIndex[2] = z;
        runBlock();
        ++blockNumber;
      }
  scratch.tick = tick;
}

void Launch::startWarp(Warp &warp) {
  std::memcpy(warp.file, kernel.image.data(), kernel.image.size());
  unsigned left = threads - warp.index * 32;
  warp.existing = left >= 32 ? ~0u : (1u << left) - 1;
  warp.exited = 0;
  warp.carry = 0;
  warp.syncTick = blockTick;
  warp.groups.assign(1, {0, warp.existing, Group::running});
  for (const Kernel::SpecialRegister &special : kernel.specials) {
    uint32_t *value = warp.lanes<uint32_t>(special.offset);
    for (unsigned lane = 0; lane < 32; ++lane) {
      uint32_t thread = warp.index * 32 + lane, bit = 1u << lane;
      uint32_t v = 0;
      switch (special.what) {
      case Special::tidX:
        v = thread % shape.block[0];
        break;
      case Special::tidY:
        v = thread / shape.block[0] % shape.block[1];
        break;
      case Special::tidZ:
        v = thread / shape.block[0] / shape.block[1];
        break;
      case Special::ntidX:
        v = shape.block[0];
        break;
      case Special::ntidY:
        v = shape.block[1];
        break;
      case Special::ntidZ:
        v = shape.block[2];
        break;
      case Special::ctaidX:
        v = blockIndex[0];
        break;
      case Special::ctaidY:
        v = blockIndex[1];
        break;
      case Special::ctaidZ:
        v = blockIndex[2];
        break;
      case Special::nctaidX:
        v = shape.grid[0];
        break;
      case Special::nctaidY:
        v = shape.grid[1];
        break;
      case Special::nctaidZ:
        v = shape.grid[2];
        break;
      case Special::laneid:
        v = lane;
        break;
      case Special::warpid:
        v = warp.index;
        break;
      case Special::nwarpid:
        v = (threads + 31) / 32;
        break;
      case Special::smid:
        v = 0;
        break;
      case Special::lanemaskEq:
        v = bit;
        break;
      case Special::lanemaskLt:
        v = bit - 1;
        break;
      case Special::lanemaskLe:
        v = bit | (bit - 1);
        break;
      case Special::lanemaskGt:
        v = ~(bit | (bit - 1));
        break;
      case Special::lanemaskGe:
        v = ~(bit - 1);
        break;
      case Special::dynamicSharedSize:
        v = shape.dynamicShared;
        break;
      }
      value[lane] = v;
    }
  }
}

void Launch::runBlock() {
  blockTick = barrierTick = ++tick;
  for (Warp &warp : warps)
    startWarp(warp);
  while (!stopped) {
    bool anyLeft = false;
    for (Warp &warp : warps) {
      runWarp(warp);
      anyLeft |= !warp.groups.empty();
      if (stopped)
        return;
    }
    if (!anyLeft)
      return;
    releaseBarrier();
  }
}

void Launch::releaseBarrier() {
  // Every group stands at a barrier now: the same one, with nobody missing?
  const Group *first = nullptr;
  for (Warp &warp : warps) {
    for (Group &group : warp.groups) {
      if (!first)
        first = &group;
      const Instruction &here = kernel.code[group.pc];
      if (group.pc != first->pc)
        report(Fault::barrierDivergence, here, warp, __builtin_ctz(group.mask),
               "others of the block wait at ptx line " +
                   std::to_string(kernel.code[first->pc].line));
    }
  }
  for (Warp &warp : warps)
    if (warp.exited)
      report(Fault::barrierDivergence, kernel.code[first->pc], warp,
             __builtin_ctz(warp.exited),
             "this thread has exited, others wait at the barrier");
  barrierTick = ++tick;
  for (Warp &warp : warps) {
    warp.syncTick = tick;
    for (Group &group : warp.groups) {
      group.state = Group::running;
      ++group.pc;
    }
    mergeGroups(warp);
  }
}

void Launch::mergeGroups(Warp &warp) {
  std::vector<Group> &groups = warp.groups;
  for (size_t i = 0; i < groups.size(); ++i)
    for (size_t j = groups.size(); j-- > i + 1;)
      // One that waits at a barrier joins only others that do; everything else
      // looks at the instruction again, together.
      if (groups[i].pc == groups[j].pc &&
          (groups[i].state == Group::atBarrier) ==
              (groups[j].state == Group::atBarrier)) {
        groups[i].mask |= groups[j].mask;
        if (groups[i].state != Group::atBarrier)
          groups[i].state = Group::running;
        groups.erase(groups.begin() + j);
      }
}

/// True when every lane of the member masks is here; the instruction then ran
/// and the group went on. With `force`, missing lanes are reported first.
bool Launch::resolveMeeting(Warp &warp, Group &group, bool force) {
  const Instruction &instruction = kernel.code[group.pc];
  uint32_t mask = group.mask;
  if (instruction.guard != ~0u) {
    uint32_t guard = warp.predicate(instruction.guard);
    mask &= instruction.guardNegated ? ~guard : guard;
  }
  const uint32_t *members = warp.lanes<uint32_t>(instruction.members);
  for (uint32_t rest = mask; rest;) {
    unsigned lane = __builtin_ctz(rest);
    uint32_t wanted = members[lane];
    if (!((wanted >> lane) & 1))
      report(Fault::shuffleInactive, instruction, warp, lane,
             "the lane is not in its own member mask");
    uint32_t missing = wanted & ~mask & warp.existing;
    if (missing) {
      // Lanes that left for good, or that wait elsewhere, never come.
      if (!force && !(missing & warp.exited))
        return false;
      report(Fault::shuffleInactive, instruction, warp, __builtin_ctz(missing),
             (missing & warp.exited)
                 ? "a lane of the member mask has exited"
                 : "a lane of the member mask never comes here");
    }
    rest &= ~(wanted | (1u << lane));
  }
  warp.groupMask = mask;
  if (mask)
    instruction.handler(warp, instruction, mask);
  ++warp.executed;
  group.state = Group::running;
  ++group.pc;
  return true;
}

void Launch::runWarp(Warp &warp) {
  std::vector<Group> &groups = warp.groups;
  uint64_t before = warp.executed;
  while (!groups.empty() && !stopped) {
    if (groups.size() > 1)
      mergeGroups(warp);
    // The runnable group with the smallest pc.
    Group *best = nullptr;
    for (Group &group : groups)
      if (group.state == Group::running && (!best || group.pc < best->pc))
        best = &group;
    if (!best) {
      // Meetings whose lanes went to a barrier, or to another meeting.
      Group *meeting = nullptr;
      for (Group &group : groups)
        if (group.state == Group::atMeeting &&
            (!meeting || group.pc < meeting->pc))
          meeting = &group;
      if (!meeting)
        break; // all at barriers
      resolveMeeting(warp, *meeting, true);
      continue;
    }
    uint32_t limit = ~0u;
    for (const Group &group : groups)
      if (&group != best && group.pc > best->pc)
        limit = std::min(limit, group.pc);
    step(warp, *best, limit);
    warpInstructions += warp.executed - before;
    before = warp.executed;
    if (warpInstructions > budget) {
      reports.add(Fault::budget,
                  groups.empty() ? nullptr : &kernel.code[groups[0].pc],
                  where(warp, 0),
                  std::to_string(budget) + " warp instructions and no end");
      stopped = true;
    }
  }
  warpInstructions += warp.executed - before;
}

/// Runs `group` until it meets another's pc (`limit`), splits, waits, jumps
/// with other groups about, or is done. May reallocate the groups.
void Launch::step(Warp &warp, Group &group, uint32_t limit) {
  const Instruction *code = kernel.code.data();
  uint32_t pc = group.pc, mask = group.mask;
  bool alone = warp.groups.size() == 1;
  uint64_t executed = 0, allowed = 1u << 20;
  while (pc < limit) {
    const Instruction &instruction = code[pc];
    uint32_t run = mask;
    if (instruction.guard != ~0u) {
      uint32_t guard = warp.predicate(instruction.guard);
      run &= instruction.guardNegated ? ~guard : guard;
    }
    ++executed;
    if (instruction.control == Control::none) {
      if (run)
        instruction.handler(warp, instruction, run);
      ++pc;
      continue;
    }
    if (instruction.control == Control::branch) {
      if (run == mask) {
        pc = instruction.target;
      } else if (run == 0) {
        ++pc;
        continue;
      } else {
        group.pc = pc + 1;
        group.mask = mask & ~run;
        warp.executed += executed;
        warp.groups.push_back({instruction.target, run, Group::running});
        return;
      }
      // A jump may pass other groups, and a loop must not spin for ever.
      if (!alone || executed > allowed)
        break;
      continue;
    }
    if (instruction.control == Control::exit) {
      if (run == 0) {
        ++pc;
        continue;
      }
      warp.exited |= run;
      group.pc = pc + 1;
      group.mask = mask & ~run;
      warp.executed += executed;
      if (!group.mask)
        warp.groups.erase(warp.groups.begin() + (&group - &warp.groups[0]));
      return;
    }
    if (instruction.control == Control::barrier) {
      if (run == 0) {
        ++pc;
        continue;
      }
      group.pc = pc;
      warp.executed += executed;
      if (run != mask) {
        // Some lanes pass by: they go on, the others wait.
        group.mask = run;
        group.state = Group::atBarrier;
        warp.groups.push_back({pc + 1, mask & ~run, Group::running});
        return;
      }
      group.state = Group::atBarrier;
      return;
    }
    // Control::meet
    group.pc = pc;
    warp.executed += executed - 1;
    executed = 0;
    if (!resolveMeeting(warp, group, false)) {
      group.state = Group::atMeeting;
      return;
    }
    pc = group.pc;
  }
  group.pc = pc;
  warp.executed += executed;
}

} // namespace dshard::emulator
