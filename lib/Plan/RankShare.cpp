#include "dshard/Plan/RankShare.h"

#include "ProgramView.h"
#include "dshard/Plan/Format.h"
#include "dshard/Plan/Instructions.h"
#include "dshard/Plan/PlanStatistics.h"

#include <algorithm>
#include <map>

namespace dshard::plan {

uint32_t stageRanks(const Plan &plan) {
  for (const Axis *axis : *plan.mesh())
    if (plan.strings()->Get(axis->name())->string_view() == "pp")
      return axis->size();
  return 1;
}

/// Bytes that one run of a program sends. Sends lie in no repeat.
static uint64_t sentBytes(const Plan &plan, uint32_t program) {
  ProgramView view(*plan.programs()->Get(program));
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < view.instructions.size(); ++i)
    if (static_cast<InstructionKind>(view.instructions[i].kind()) ==
        InstructionKind::SEND)
      bytes += collectiveBytes(plan, program, i);
  return bytes;
}

RankShare rankShare(const Plan &plan, uint32_t coordinate) {
  RankShare share;
  uint64_t alignment = bufferAlignmentOf(plan.target()->string_view());
  share.programs.insert(plan.load());
  for (const Entry *entry : *plan.entries()) {
    uint64_t messages = 0;
    std::map<uint32_t, uint64_t> sent;
    if (coordinate < entry->actions()->size())
      for (const Action *action :
           *entry->actions()->Get(coordinate)->actions()) {
        uint32_t program = entry->programs()->Get(action->stage());
        share.stages.insert(action->stage());
        share.programs.insert(program);
        auto [known, isNew] = sent.try_emplace(program, 0);
        if (isNew)
          known->second = sentBytes(plan, program);
        messages += known->second;
      }
    share.messages = std::max(share.messages, messages);
  }
  bool isStaged = false;
  for (const State *state : *plan.states()) {
    isStaged |= state->stage() >= 0;
    if (share.holds(*state))
      share.states = std::max(share.states, state->offset() + state->size());
  }
  if (!isStaged)
    share.states = plan.state_size();
  share.states = alignTo(share.states, alignment);
  for (uint32_t program : share.programs) {
    const Program &item = *plan.programs()->Get(program);
    share.arena = std::max<uint64_t>(share.arena, item.arena_size());
    share.threadScratch =
        std::max<uint64_t>(share.threadScratch, item.thread_scratch());
  }
  // Programs that no list runs still fit where all ranks are alike.
  if (stageRanks(plan) == 1)
    for (const Program *program : *plan.programs()) {
      share.arena = std::max<uint64_t>(share.arena, program->arena_size());
      share.threadScratch =
          std::max<uint64_t>(share.threadScratch, program->thread_scratch());
    }
  share.arena = alignTo(share.arena, alignment);
  share.threadScratch = alignTo(share.threadScratch, alignment);
  return share;
}

} // namespace dshard::plan
